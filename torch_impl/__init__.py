"""The twins in PyTorch: one ordinary program an example, the imperative loop of its document.

Nothing here imports JAX.
"""
