"""The PyTorch side: what records a training, makes its steps again and computes on any device.

Nothing here imports JAX.
"""
