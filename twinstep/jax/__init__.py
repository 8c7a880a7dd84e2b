"""The JAX side: what records a training, makes its steps again and computes on any device.

Beside it the kit, under torch's own paths: `optim`, `optim.lr_scheduler`, `nn`, `nn.functional`.
Nothing here imports PyTorch.
"""
