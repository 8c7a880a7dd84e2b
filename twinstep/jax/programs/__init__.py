"""Each row of the optimizers' options in JAX. Nothing here imports PyTorch."""
