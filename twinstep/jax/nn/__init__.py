"""torch.nn in Flax: PyTorch's names, arguments and arithmetic; `functional` is its own."""

from twinstep.jax.nn import functional
from twinstep.jax.nn.layers import GRU, RNN, Embedding, Linear, dot_general, to_tensor

__all__ = ["GRU", "RNN", "Embedding", "Linear", "dot_general", "functional", "to_tensor"]
