"""torch.nn.functional's losses, with its names, its reductions and its gradients at kinks."""

import jax
import jax.numpy as jnp
import optax

from twinstep.errors import check_arguments

__all__ = ["cross_entropy", "huber_loss", "l1_loss", "mse_loss"]


def mse_loss(output: jax.Array, target: jax.Array) -> jax.Array:
    """Mean squared error, ().

    `optax.l2_loss` is half of it, sample by sample.

    Args:
        output, target: What is and what should be, of one shape.

    Returns:
        The mean over all entries, ().

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax.nn.functional import mse_loss
        >>> float(mse_loss(jnp.array([1.0, 3.0]), jnp.array([1.0, 1.0])))
        2.0

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.MSELoss.html
    """
    return jnp.mean(optax.squared_error(output, target))


def huber_loss(output: jax.Array, target: jax.Array, delta: float = 1.0) -> jax.Array:
    """Mean of half the squared error up to delta, and of a line beyond it, ().

    `optax.huber_loss` is the same, sample by sample.

    Args:
        output, target: What is and what should be, of one shape.
        delta: The error from which on it is a line, above 0.

    Returns:
        The mean over all entries, ().

    Raises:
        InputError: For a delta that is not above 0.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax.nn.functional import huber_loss
        >>> float(huber_loss(jnp.array([1.0, 4.0]), jnp.array([0.5, 1.0])))
        1.3125

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.HuberLoss.html
    """
    check_arguments("huber_loss", delta=(delta, "above 0", lambda value: value > 0))
    error = jnp.abs(output - target)
    return jnp.mean(jnp.where(error < delta, 0.5 * error * error, delta * (error - 0.5 * delta)))


def l1_loss(output: jax.Array, target: jax.Array) -> jax.Array:
    """Mean absolute error, ().

    At an exact tie the gradient is 0, where jnp.abs gives 1.

    Args:
        output, target: What is and what should be, of one shape.

    Returns:
        The mean over all entries, ().

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from twinstep.jax.nn.functional import l1_loss
        >>> output, target = jnp.array([1.0, 3.0]), jnp.array([1.0, 1.0])
        >>> float(l1_loss(output, target))
        1.0
        >>> jax.grad(l1_loss)(output, target).tolist()
        [0.0, 0.5]

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.L1Loss.html
    """
    error = output - target
    return jnp.mean(jnp.where(error == 0, 0, jnp.abs(error)))


def cross_entropy(output: jax.Array, target: jax.Array) -> jax.Array:
    """Mean cross entropy of logits (N, classes) and class numbers (N,), ().

    The classes are the last axis, as in optax; beyond two axes PyTorch has them second.

    Args:
        output: Logits, (N, classes).
        target: Class numbers, (N,) int.

    Returns:
        The mean over the samples, ().

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax.nn.functional import cross_entropy
        >>> logits = jnp.array([[2.0, 0.0], [0.0, 2.0]])
        >>> round(float(cross_entropy(logits, jnp.array([0, 1]))), 4)
        0.1269

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.CrossEntropyLoss.html
    """
    return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(output, target))
