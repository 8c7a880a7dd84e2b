"""The twins in JAX: one ordinary program an example, explicit gradients and optax updates.

Nothing here imports PyTorch.
"""
