"""What all losses share: PyTorch's reductions, its broadcasting, its gradient at a bound."""

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from twinstep.errors import InputError, check_arguments

REDUCTIONS = ("mean", "sum", "none")


def chosen(
    name: str,
    reduction: str,
    size_average: bool | None = None,
    reduce: bool | None = None,
    known: Sequence[str] = REDUCTIONS,
) -> str:
    """The reduction of a function: as PyTorch has it, the legacy arguments go first."""
    if size_average is not None or reduce is not None:
        if reduce is False:
            return "none"
        return "sum" if size_average is False else "mean"
    check_arguments(name, reduction=(reduction, f"one of {tuple(known)}", lambda v: v in known))
    return reduction


def reduced(each: jax.Array, reduction: str) -> jax.Array:
    """The mean, the sum or all of the losses."""
    if reduction == "none":
        return each
    return jnp.sum(each) if reduction == "sum" else jnp.mean(each)


def broadcast(name: str, **arrays: Any) -> list[jax.Array]:
    """The arrays in their common shape."""
    try:
        return list(jnp.broadcast_arrays(*arrays.values()))
    except ValueError:
        raise InputError(f"{name}: {shapes(**arrays)}, expected shapes that broadcast") from None


def broadcast_and_warn(name: str, input: Any, target: Any) -> list[jax.Array]:
    """Both in their common shape; PyTorch warns where they have two."""
    if jnp.shape(input) != jnp.shape(target):
        both = broadcast(name, input=input, target=target)
        warnings.warn(
            f"{name}: {shapes(input=input, target=target)}: both are broadcast to "
            f"{both[0].shape}, which is likely not what is meant",
            stacklevel=3,
        )
        return both
    return [jnp.asarray(input), jnp.asarray(target)]


def fits(name: str, like: str, shape: tuple[int, ...], **arrays: Any) -> None:
    """Refuses arrays that do not broadcast to a shape, whose name is `like`'s."""
    for other, array in arrays.items():
        try:
            fine = jnp.broadcast_shapes(jnp.shape(array), shape) == shape
        except ValueError:
            fine = False
        if not fine:
            raise InputError(
                f"{name}: {other} is of shape {jnp.shape(array)}, expected one that broadcasts to "
                f"{like}'s {shape}"
            )


def same_shape(name: str, **arrays: Any) -> None:
    """Refuses arrays of several shapes."""
    if len({jnp.shape(array) for array in arrays.values()}) > 1:
        raise InputError(f"{name}: {shapes(**arrays)}, expected one shape")


def same_rank(name: str, **arrays: Any) -> None:
    """Refuses arrays with several numbers of axes."""
    if len({jnp.ndim(array) for array in arrays.values()}) > 1:
        raise InputError(f"{name}: {shapes(**arrays)}, expected as many axes of each")


def shapes(**arrays: Any) -> str:
    """Of which shape each array is."""
    return ", ".join(f"{name} is of shape {jnp.shape(array)}" for name, array in arrays.items())


def floats(name: str, **arrays: Any) -> None:
    """Refuses arrays of anything but real floats."""
    for other, array in arrays.items():
        dtype = jnp.asarray(array).dtype
        if not jnp.issubdtype(dtype, jnp.floating):
            raise InputError(f"{name}: {other} is of {dtype}, expected real floats")


def known_to_be(array: Any, wrong: Callable[[np.ndarray[Any, Any]], Any]) -> Any:
    """The first entry of an array that is wrong, or None; None of one that is traced."""
    if isinstance(array, jax.core.Tracer):
        return None
    given = np.asarray(array)
    odd = given[wrong(given)]
    return odd.flat[0] if odd.size else None


def clamp_min_0(x: jax.Array) -> jax.Array:
    """torch.clamp_min(x, 0): the gradient is 1 at 0, and 0 at NaN, which stays NaN."""
    return jnp.where(x >= 0, x, jax.lax.stop_gradient(jnp.maximum(x, 0)))


@jax.custom_jvp
def raised(x: jax.Array, low: float) -> jax.Array:
    """At least `low`, with the gradient of x, as PyTorch clamps in place without a gradient."""
    return jnp.maximum(x, low)


raised.defjvps(lambda t, out, x, low: t, None)
