"""Each row of the optimizers' options in PyTorch. Nothing here imports JAX."""
