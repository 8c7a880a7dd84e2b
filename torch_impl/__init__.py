"""The PyTorch side: one file an example, the imperative loop of its document.

Beside the examples stands the kit: `state`, `recording`, `conversion`, `devices`, `layers`.
Nothing here imports JAX.
"""
