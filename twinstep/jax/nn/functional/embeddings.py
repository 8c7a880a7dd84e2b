"""torch.nn.functional's look-ups of rows by their numbers."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from twinstep.errors import InputError, check_arguments
from twinstep.jax.nn.functional.normalization import vector_norm
from twinstep.jax.nn.functional.taking_in import (
    refuse_silent_loss,
    value_of,
    with_slope,
    wrote,
)

__all__ = ["embedding", "embedding_bag", "one_hot"]


def embedding(
    input: jax.Array,
    weight: Any,
    padding_idx: int | None = None,
    max_norm: float | None = None,
    norm_type: float = 2.0,
    scale_grad_by_freq: bool = False,
    sparse: bool = False,
) -> jax.Array:
    """Rows of a table by their numbers; flax.nnx.Embed has none of the options.

    Args:
        input: Which rows, int32 or int64, of any shape.
        weight: The table, (R, D); an nnx.Variable with max_norm.
        padding_idx: A row that gets no gradient, -R to R - 1.
        max_norm: The norm to which longer rows, of those that are named, are shortened: written
            into the table, as in PyTorch. An array cannot be written into, and is refused.
        norm_type: Which norm.
        scale_grad_by_freq: Whether a row's gradient is divided by how often it is named.
        sparse: Not looked at: gradients are dense.

    Returns:
        The rows, (..., D); in a compiled function NaN for a number that is no row's.

    Raises:
        InputError: For numbers that are known and no row's, other dtypes and shapes, a table that
            would have to be written into and is an array.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax.nn.functional import embedding
        >>> embedding(jnp.array([2, 0]), jnp.array([[0.0, 1.0], [2.0, 3.0], [4.0, 5.0]])).tolist()
        [[4.0, 5.0], [0.0, 1.0]]

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.embedding.html
    """
    numbers, count = _rows("embedding", input, weight)
    padding = _padding("embedding", padding_idx, count)
    table = _shortened("embedding", numbers, weight, max_norm, norm_type)
    by = numbers if scale_grad_by_freq else None
    return _found(numbers, table, padding, by)


def embedding_bag(
    input: jax.Array,
    weight: Any,
    offsets: jax.Array | None = None,
    max_norm: float | None = None,
    norm_type: float = 2,
    scale_grad_by_freq: bool = False,
    mode: str = "mean",
    sparse: bool = False,
    per_sample_weights: jax.Array | None = None,
    include_last_offset: bool = False,
    padding_idx: int | None = None,
) -> jax.Array:
    """Sums, means or maxima of bags of a table's rows; 0 for an empty bag.

    Args:
        input: Which rows, int32 or int64, (B, L), a bag a row; or (N,) with offsets.
        weight: The table, (R, D), floats; an nnx.Variable with max_norm.
        offsets: Where each bag begins in the input, from 0 on, (B,) int.
        max_norm, norm_type, sparse: See `embedding`.
        scale_grad_by_freq: Whether gradients are divided by frequencies, as PyTorch's CPU kernel
            takes them: a row's own only where no row before it is named more than once.
        mode: "sum", "mean" or "max".
        per_sample_weights: What each row is multiplied with, of the input's shape; "sum" alone.
        include_last_offset: Whether the offsets end with N, (B + 1,).
        padding_idx: A row that is left out of the bags, -R to R - 1.

    Returns:
        What the bags give, (B, D); NaN in a compiled function for a number that is no row's, and
        for offsets that are none.

    Raises:
        InputError: For numbers that are known and no row's or no offsets, other dtypes and shapes,
            options that PyTorch does not join, a table that would have to be written into and is
            an array.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax.nn.functional import embedding_bag
        >>> table = jnp.array([[0.0, 1.0], [2.0, 3.0], [4.0, 5.0]])
        >>> embedding_bag(jnp.array([2, 0, 1]), table, jnp.array([0, 2])).tolist()
        [[2.0, 3.0], [2.0, 3.0]]

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.embedding_bag.html
    """
    name = "embedding_bag"
    numbers, count = _rows(name, input, weight)
    share = value_of(per_sample_weights)
    _check_bag(name, numbers, weight, mode, share, scale_grad_by_freq, sparse)
    padding = _padding(name, padding_idx, count)
    bag, bags, fine = _bags(name, numbers, value_of(offsets), include_last_offset)
    numbers = numbers.reshape(-1)
    table = _shortened(name, numbers, weight, max_norm, norm_type)
    by = _counted_by(numbers) if scale_grad_by_freq else None
    rows = _found(numbers, table, padding, by)  # (N, D)
    kept = jnp.ones(numbers.shape, bool) if padding is None else numbers != padding
    if mode == "max":
        known = (numbers >= 0) & (numbers < count)
        fine = fine & jax.ops.segment_min(known.astype(int), bag, bags).astype(bool)
        out = _largest(rows, kept, bag, bags)
    else:
        rows = jnp.where(kept[:, None], rows, 0)
        out = jax.ops.segment_sum(rows if share is None else rows * share.reshape(-1, 1), bag, bags)
        if mode == "mean":
            size = jax.ops.segment_sum(kept.astype(out.dtype), bag, bags)
            out = out / jnp.maximum(size, 1)[:, None]
    return jnp.where(jnp.broadcast_to(fine, bags)[:, None], out, jnp.nan)


def one_hot(tensor: jax.Array, num_classes: int = -1) -> jax.Array:
    """1 at each number's place and 0 elsewhere, integers; jax.nn.one_hot gives floats.

    Args:
        tensor: Numbers of classes, int32 or int64, of any shape.
        num_classes: How many classes; -1: the largest number and 1, which a compiled function
            cannot know.

    Returns:
        Integers, (..., num_classes); in a compiled function 0 everywhere for a number that is no
        class's: integers have no NaN.

    Raises:
        InputError: For numbers that are known and no class's, other dtypes.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax.nn.functional import one_hot
        >>> one_hot(jnp.array([0, 2])).tolist()
        [[1, 0, 0], [0, 0, 1]]

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.one_hot.html
    """
    numbers = _integers("one_hot", "tensor", tensor)
    known = None if isinstance(numbers, jax.core.Tracer) else np.asarray(numbers)
    if num_classes == -1:
        if known is None or not known.size:
            raise InputError(
                "one_hot: num_classes is -1, expected a number where the largest class is not "
                "known, in a compiled function or of an empty array"
            )
        num_classes = int(known.max()) + 1
    check_arguments("one_hot", num_classes=(num_classes, "1 or more, or -1", lambda v: v >= 1))
    _check_known("one_hot", "tensor", numbers, num_classes)
    return (numbers[..., None] == jnp.arange(num_classes)).astype(int)


def _integers(name: str, argument: str, array: Any) -> jax.Array:
    numbers = jnp.asarray(value_of(array))
    if numbers.dtype not in (jnp.int32, jnp.int64):
        raise InputError(f"{name}: {argument} is {numbers.dtype}, expected int32 or int64")
    return numbers


def _check_known(name: str, argument: str, numbers: jax.Array, count: int) -> None:
    if isinstance(numbers, jax.core.Tracer):
        return
    known = np.asarray(numbers)
    if (odd := known[(known < 0) | (known >= count)]).size:
        raise InputError(f"{name}: {argument} has {odd[0]}, expected 0 to {count - 1}")


def _rows(name: str, input: Any, weight: Any) -> tuple[jax.Array, int]:
    """The numbers, and how many rows the table has."""
    numbers, shape = _integers(name, "input", input), jnp.shape(value_of(weight))
    if len(shape) != 2:
        raise InputError(f"{name}: weight is of shape {shape}, expected (R, D)")
    _check_known(name, "input", numbers, shape[0])
    return numbers, shape[0]


def _padding(name: str, padding_idx: int | None, count: int) -> int | None:
    if padding_idx is None:
        return None
    check_arguments(
        name,
        padding_idx=(padding_idx, f"{-count} to {count - 1}", lambda v: -count <= v < count),
    )
    return padding_idx % count


def _shortened(
    name: str, numbers: jax.Array, weight: Any, max_norm: float | None, norm_type: float
) -> jax.Array:
    """The table, of which named rows that are too long are shortened, and written."""
    table: jax.Array = value_of(weight)
    if max_norm is None:
        return table
    refuse_silent_loss(f"{name}: with max_norm", "weight", weight)
    held = jax.lax.stop_gradient(table)
    rows = jnp.where(numbers < 0, len(table), numbers)
    named = jnp.zeros(len(table), bool).at[rows].set(True, mode="drop")[:, None]
    norm = vector_norm(float(norm_type), (1,), jnp.abs(held))
    short = jnp.where(named & (norm > max_norm), held * (max_norm / (norm + 1e-7)), held)
    # PyTorch shortens unseen by the gradient: it is that of the shortened table
    table = with_slope(table, short, jnp.ones_like(short))
    wrote(weight, table)
    return table


def _counted_by(numbers: jax.Array) -> jax.Array:
    """The number by whose frequency PyTorch's CPU kernel divides in a bag's gradient: of the k-th
    distinct number it is that of the k-th one of all in order, itself only where each is alone.
    """
    order = jnp.sort(numbers)
    distinct = jnp.cumsum(jnp.concatenate([order[:1] * 0, order[1:] != order[:-1]]))
    return order[distinct[jnp.searchsorted(order, numbers)]]


def _found(
    numbers: jax.Array, table: jax.Array, padding: int | None, by: jax.Array | None
) -> jax.Array:
    """by: of each number, the one by whose frequency its gradient is divided"""
    rows = jnp.where(numbers < 0, len(table), numbers)  # which JAX would count from the end
    found: jax.Array = table.at[rows].get(mode="fill")
    if by is not None:
        times = jnp.zeros(len(table), table.dtype).at[rows].add(1, mode="drop")
        slope = (1 / times.at[by].get(mode="fill", fill_value=1))[..., None]
        found = with_slope(found, found, jnp.broadcast_to(slope, found.shape))
    if padding is not None:
        pads = (numbers == padding)[..., None]
        found = jnp.where(pads, jax.lax.stop_gradient(found), found)
    return found


def _check_bag(
    name: str,
    numbers: jax.Array,
    weight: Any,
    mode: str,
    share: jax.Array | None,
    by_frequency: bool,
    sparse: bool,
) -> None:
    dtype = value_of(weight).dtype
    if not jnp.issubdtype(dtype, jnp.floating):
        raise InputError(f"{name}: weight is {dtype}, expected floats")
    check_arguments(
        name,
        mode=(mode, "sum, mean or max", lambda v: v in ("sum", "mean", "max")),
        scale_grad_by_freq=(by_frequency, "False with max", lambda v: not v or mode != "max"),
        sparse=(sparse, "False with max", lambda v: not v or mode != "max"),
    )
    if share is None:
        return
    if mode != "sum":
        raise InputError(f"{name}: mode is {mode!r}, expected sum with per_sample_weights")
    if share.shape != numbers.shape or share.dtype != dtype:
        raise InputError(
            f"{name}: per_sample_weights is {share.dtype}{share.shape}, expected "
            f"{dtype}{numbers.shape}, as weight and input are"
        )


def _bags(
    name: str, numbers: jax.Array, offsets: jax.Array | None, ends: bool
) -> tuple[jax.Array, int, jax.Array]:
    """The bag of each number, (N,), how many bags there are, whether the offsets are right.

    ends: whether the offsets end with N
    """
    if numbers.ndim == 2 and offsets is None and numbers.shape[1]:
        bags, length = numbers.shape
        return jnp.repeat(jnp.arange(bags), length), bags, jnp.asarray(True)
    if numbers.ndim != 1 or offsets is None or offsets.ndim != 1 or len(offsets) < ends:
        given = None if offsets is None else offsets.shape
        raise InputError(
            f"{name}: input is of shape {numbers.shape} and offsets of {given}, expected (B, L) "
            "without offsets, or (N,) and (B,), (B + 1,) with include_last_offset"
        )
    offsets, length = _integers(name, "offsets", offsets), len(numbers)
    last = offsets[-1:]
    fine = jnp.all(offsets[:1] == 0) & jnp.all(offsets[1:] >= offsets[:-1])
    fine &= jnp.all((last == length) if ends else (last <= length))
    if not isinstance(fine, jax.core.Tracer) and not fine:
        raise InputError(
            f"{name}: offsets are {offsets.tolist()}, expected rising ones from 0 to {length}, the "
            "input's length, which they end with where include_last_offset is True"
        )
    bag = jnp.searchsorted(offsets, jnp.arange(length), side="right") - 1
    return bag, len(offsets) - ends, fine


def _largest(rows: jax.Array, kept: jax.Array, bag: jax.Array, bags: int) -> jax.Array:
    """The first largest of each bag, in each column, which gets the gradient.

    As in PyTorch NaN is the largest where it is a bag's first, and else never.
    """
    places = jnp.arange(len(rows))
    first = jax.ops.segment_min(jnp.where(kept, places, len(rows)), bag, bags)
    held = jax.lax.stop_gradient(rows)
    leads = (places == first[bag])[:, None]
    key = jnp.where(jnp.isnan(held), jnp.where(leads, jnp.inf, -jnp.inf), held)
    key = jnp.where(kept[:, None], key, -jnp.inf)
    best = (key == jax.ops.segment_max(key, bag, bags)[bag]) & kept[:, None]
    place = jax.ops.segment_min(jnp.where(best, places[:, None], len(rows)), bag, bags)
    found: jax.Array = jnp.take_along_axis(rows, place, axis=0, mode="fill", fill_value=0)
    return jnp.where(place < len(rows), found, 0)
