"""torch.nn.functional.pad: the last axes first, negative widths cut."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from twinstep.errors import InputError, check_arguments

__all__ = ["pad"]

_MODES = {"constant": "constant", "reflect": "reflect", "replicate": "edge", "circular": "wrap"}


def pad(
    input: jax.Array, pad: Sequence[int], mode: str = "constant", value: float | None = None
) -> jax.Array:
    """The array with something before and after its last axes.

    Args:
        input: Of any shape with "constant"; else (N, C, ...) or (C, ...) with as many axes more as
            are padded.
        pad: (before, after) of the last axis, then of the last but one, and so on; negative numbers
            cut off.
        mode: "constant", "reflect", "replicate" or "circular".
        value: What "constant" fills with; None: 0.

    Returns:
        The padded array.

    Raises:
        InputError: For widths that the shape does not allow, another mode, a value that is no use.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax.nn.functional import pad
        >>> pad(jnp.array([1.0, 2.0, 3.0]), (2, -1)).tolist()
        [0.0, 0.0, 1.0, 2.0]
        >>> pad(jnp.array([[1.0, 2.0, 3.0]]), (2, 0), mode="reflect").tolist()
        [[3.0, 2.0, 1.0, 2.0, 3.0]]

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.pad.html
    """
    x = jnp.asarray(input)
    check_arguments(
        "pad",
        mode=(mode, f"one of {tuple(_MODES)}", lambda v: v in _MODES),
        pad=(
            pad,
            f"two integers for each of at most {x.ndim} axes",
            lambda v: len(v) % 2 == 0 and len(v) <= 2 * x.ndim and [*v] == [int(w) for w in v],
        ),
    )
    padded = len(pad) // 2
    widths = [(0, 0)] * (x.ndim - padded) + [
        (pad[i], pad[i + 1]) for i in range(len(pad) - 2, -1, -2)
    ]
    for size, (low, high) in zip(x.shape, widths, strict=True):
        if size + low + high < (mode != "constant" and size > 0):
            raise InputError(f"pad: pad is {pad}, expected what leaves some of {x.shape}")
    if mode == "constant":
        fill = jnp.asarray(0 if value is None else value).astype(x.dtype)
        return jax.lax.pad(x, fill, [(low, high, 0) for low, high in widths])
    check_arguments("pad", value=(value, f"none with mode {mode!r}", lambda v: not v))
    batched = x.ndim == padded + 2
    if padded not in (1, 2, 3) or not (batched or x.ndim == padded + 1) or 0 in x.shape[batched:]:
        raise InputError(
            f"pad: input is of shape {x.shape}, expected (N, C, ...) or (C, ...) with {padded} "
            f"axes more, 1 to 3 of them, none but N empty, for mode {mode!r}"
        )
    most = {"reflect": -1, "circular": 0}.get(mode)
    for size, edges in zip(x.shape, widths, strict=True):
        if most is not None and max(edges) > max(size + most, 0):
            raise InputError(
                f"pad: pad is {pad}, expected widths of at most {size + most} on an axis of {size} "
                f"with mode {mode!r}"
            )
    cut = [(max(-low, 0), max(-high, 0)) for low, high in widths]
    more = [(max(low, 0), max(high, 0)) for low, high in widths]
    if mode == "circular":  # what is cut off does not come back
        return jnp.pad(_cut(x, cut), more, mode="wrap")
    return _cut(jnp.pad(x, more, mode=_MODES[mode]), cut)


def _cut(x: jax.Array, widths: Sequence[tuple[int, int]]) -> jax.Array:
    return x[
        tuple(slice(low, size - high) for size, (low, high) in zip(x.shape, widths, strict=True))
    ]
