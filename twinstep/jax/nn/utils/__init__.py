"""torch.nn.utils in JAX."""

from twinstep.jax.nn.utils import rnn

__all__ = ["rnn"]
