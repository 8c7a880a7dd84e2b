"""torch.nn.functional's losses, with its names, its reductions and its gradients at kinks."""

import jax
import jax.numpy as jnp
import optax

__all__ = ["cross_entropy", "l1_loss", "mse_loss"]


def mse_loss(output: jax.Array, target: jax.Array) -> jax.Array:
    """Mean squared error, ().

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.MSELoss.html
    """
    return jnp.mean(optax.squared_error(output, target))


def l1_loss(output: jax.Array, target: jax.Array) -> jax.Array:
    """Mean absolute error, (). At an exact tie the gradient is 0, where jnp.abs gives 1.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.L1Loss.html
    """
    error = output - target
    return jnp.mean(jnp.where(error == 0, 0, jnp.abs(error)))


def cross_entropy(output: jax.Array, target: jax.Array) -> jax.Array:
    """Mean cross entropy of logits (N, classes) and class numbers (N,), ().

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.CrossEntropyLoss.html
    """
    return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(output, target))
