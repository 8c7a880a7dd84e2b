"""torch.nn.utils.rnn: sequences of several lengths, padded or packed.

Packed are the rows of all samples that there are: those of the first time step, the longest
sequence first, then those of the second. Lengths and the order of the sequences are NumPy's and
known when a function is compiled; the rows are JAX's.

Letters: N sequences, T time steps of the longest, S time steps of all together; ... any axes.
"""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from twinstep.errors import InputError

__all__ = [
    "PackedSequence",
    "pack_padded_sequence",
    "pack_sequence",
    "pad_packed_sequence",
    "pad_sequence",
    "unpack_sequence",
    "unpad_sequence",
]

Integers = NDArray[np.int64]


class _Fields(NamedTuple):
    data: Any
    batch_sizes: Integers
    sorted_indices: Integers | None
    unsorted_indices: Integers | None


class PackedSequence(_Fields):
    """The rows of sequences of several lengths; `pack_padded_sequence` makes it.

    Under jit, vmap and grad its data are what is traced.

    Args:
        data: The rows, (S, ...).
        batch_sizes: Of each time step, how many sequences have it, (T,).
        sorted_indices: The number of each sequence, the longest first, (N,); None: as they were.
        unsorted_indices: The place of each, (N,); None: the inverse of sorted_indices.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax import nn
        >>> packed = nn.utils.rnn.pack_sequence([jnp.array([1, 2, 3]), jnp.array([4])])
        >>> packed.data, packed.batch_sizes
        (Array([1, 4, 2, 3], dtype=int32), array([2, 1, 1]))

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.utils.rnn.PackedSequence.html
    """

    def __new__(
        cls,
        data: Any,
        batch_sizes: Any = None,
        sorted_indices: Any = None,
        unsorted_indices: Any = None,
    ) -> "PackedSequence":
        if batch_sizes is None:
            data, batch_sizes = data
        sizes, order, places = (
            _known("PackedSequence", name, given)
            for name, given in (
                ("batch_sizes", batch_sizes),
                ("sorted_indices", sorted_indices),
                ("unsorted_indices", unsorted_indices),
            )
        )
        if places is None and order is not None:
            places = np.argsort(order)
        return super().__new__(cls, data, sizes, order, places)


def _parts(packed: PackedSequence) -> Any:
    held = (packed.batch_sizes, packed.sorted_indices, packed.unsorted_indices)
    return (packed.data,), tuple(None if a is None else tuple(a.tolist()) for a in held)


def _whole(held: Any, parts: Any) -> PackedSequence:
    made = (None if a is None else np.array(a, np.int64) for a in held)
    return tuple.__new__(PackedSequence, (*parts, *made))


jax.tree_util.register_pytree_node(PackedSequence, _parts, _whole)


def _known(what: str, name: str, values: Any) -> Any:
    """As NumPy's integers."""
    if isinstance(values, jax.core.Tracer):
        raise InputError(
            f"{what}: {name} is a value of a compiled function, expected integers that are known"
        )
    return None if values is None else np.asarray(values, np.int64)


def lengths_of(packed: PackedSequence) -> Integers:
    """Of each sequence, the longest first, its time steps, (N,)."""
    return _counts(packed.batch_sizes, packed.batch_sizes[0])


def _counts(values: Integers, upto: int) -> Integers:
    """How many of the values are above 0, above 1, ...: lengths of batch sizes, and back."""
    above: Integers = np.sum(values[:, None] > np.arange(upto), axis=0, dtype=np.int64)
    return above


def grid_of(batch_sizes: Integers) -> tuple[Integers, Integers]:
    """Between rows and a grid of time steps and sequences.

    (T, N): of each place its row, 0 where there is none; (S,): of each row its place, t N + n.
    """
    column = np.arange(batch_sizes[0])
    within = column < batch_sizes[:, None]
    rows = (np.cumsum(batch_sizes) - batch_sizes)[:, None] + column
    return np.where(within, rows, 0), np.flatnonzero(within)


def pack_padded_sequence(
    input: Any, lengths: Any, batch_first: bool = False, enforce_sorted: bool = True
) -> PackedSequence:
    """Packs padded sequences.

    Args:
        input: The sequences, (T, N, ...), or (N, T, ...) with batch_first.
        lengths: Of each its time steps, (N,), known integers.
        batch_first: Whether the sequences come first.
        enforce_sorted: Whether the longest one comes first, and so on; else they are sorted.

    Returns:
        The packed sequences.

    Raises:
        InputError: For lengths that are not N, above 0 and at most T, and for such as are not
            sorted where they have to be.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax.nn.utils.rnn import pack_padded_sequence
        >>> padded = jnp.array([[1, 2, 0], [3, 4, 5]])
        >>> pack_padded_sequence(padded, [2, 3], batch_first=True, enforce_sorted=False).data
        Array([3, 1, 4, 2, 5], dtype=int32)

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.utils.rnn.pack_padded_sequence.html
    """
    what, input = "pack_padded_sequence", jnp.asarray(input)
    if input.ndim < 2:
        raise InputError(f"{what}: input has shape {input.shape}, expected two axes or more")
    lengths = _known(what, "lengths", lengths)
    padded = jnp.swapaxes(input, 0, 1) if batch_first else input
    steps, count = padded.shape[:2]
    if lengths.shape != (count,) or not count:
        raise InputError(f"{what}: lengths is {lengths.tolist()}, expected one of {count} each")
    order = None if enforce_sorted else np.argsort(-lengths, kind="stable")
    if order is not None:
        lengths = lengths[order]
    if np.any(np.diff(lengths) > 0):
        raise InputError(
            f"{what}: lengths is {lengths.tolist()}, expected the longest first, "
            "or enforce_sorted=False"
        )
    if lengths[-1] < 1 or lengths[0] > steps:
        raise InputError(f"{what}: lengths is {lengths.tolist()}, expected from 1 to {steps}")
    sizes = _counts(lengths, lengths[0])
    step, column = np.divmod(grid_of(sizes)[1], count)
    column = column if order is None else order[column]
    return PackedSequence(padded[step, column], sizes, order)


def pad_packed_sequence(
    sequence: PackedSequence,
    batch_first: bool = False,
    padding_value: float = 0.0,
    total_length: int | None = None,
) -> tuple[jax.Array, Integers]:
    """Pads packed sequences.

    Args:
        sequence: The packed sequences.
        batch_first: Whether the sequences come first in what it gives.
        padding_value: What stands where there is no row.
        total_length: Time steps to pad to; None: those of the longest.

    Returns:
        The sequences as they were before they were sorted, (T, N, ...) or (N, T, ...), and their
        lengths, (N,), in NumPy.

    Raises:
        InputError: For a total_length below the longest.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax.nn.utils.rnn import pack_sequence, pad_packed_sequence
        >>> packed = pack_sequence([jnp.array([1, 2]), jnp.array([3])])
        >>> pad_packed_sequence(packed, batch_first=True)
        (Array([[1, 2],
               [3, 0]], dtype=int32), array([2, 1]))

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.utils.rnn.pad_packed_sequence.html
    """
    steps = len(sequence.batch_sizes)
    more = 0 if total_length is None else total_length - steps
    if more < 0:
        raise InputError(
            f"pad_packed_sequence: total_length is {total_length}, expected {steps} or more"
        )
    lengths, places = lengths_of(sequence), sequence.unsorted_indices
    rows, _ = grid_of(sequence.batch_sizes)
    rows = np.pad(rows, ((0, more), (0, 0)))
    within = np.arange(steps + more)[:, None] < lengths
    if places is not None:
        rows, within, lengths = rows[:, places], within[:, places], lengths[places]
    if batch_first:
        rows, within = rows.T, within.T
    data = jnp.asarray(sequence.data)
    within = within.reshape(within.shape + (1,) * (data.ndim - 1))
    return jnp.where(within, data[rows], jnp.asarray(padding_value, data.dtype)), lengths


def pad_sequence(
    sequences: Iterable[Any],
    batch_first: bool = False,
    padding_value: float = 0.0,
    padding_side: str = "right",
) -> jax.Array:
    """Stacks sequences of several lengths.

    Args:
        sequences: The sequences, (L, ...) each.
        batch_first: Whether they come first in what it gives.
        padding_value: What the shorter ones are filled up with.
        padding_side: "right" or "left": behind or before them.

    Returns:
        The sequences, (T, N, ...), or (N, T, ...) with batch_first.

    Raises:
        InputError: For no sequences, other shapes behind the first axis, and another side.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax.nn.utils.rnn import pad_sequence
        >>> pad_sequence([jnp.array([1, 2]), jnp.array([3])], batch_first=True)
        Array([[1, 2],
               [3, 0]], dtype=int32)

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.utils.rnn.pad_sequence.html
    """
    if padding_side not in ("left", "right"):
        raise InputError(f"pad_sequence: padding_side is {padding_side!r}, expected left or right")
    if not isinstance(sequences, Iterable):
        raise InputError(f"pad_sequence: sequences is {sequences!r}, expected arrays")
    arrays = [jnp.asarray(sequence) for sequence in sequences]
    shapes = [array.shape for array in arrays]
    if not arrays or any(not s or s[1:] != shapes[0][1:] for s in shapes):
        raise InputError(f"pad_sequence: shapes are {shapes}, expected (L, ...), ... the same")
    longest = max(len(array) for array in arrays)

    def padded(array: jax.Array) -> jax.Array:
        missing = longest - len(array)
        side = (missing, 0) if padding_side == "left" else (0, missing)
        value = jnp.asarray(padding_value, arrays[0].dtype)
        widths = (side, *((0, 0),) * (array.ndim - 1))
        return jnp.pad(array.astype(value.dtype), widths, constant_values=value)

    return jnp.stack([padded(array) for array in arrays], axis=0 if batch_first else 1)


def unpad_sequence(
    padded_sequences: Any, lengths: Any, batch_first: bool = False
) -> list[jax.Array]:
    """What `pad_sequence` was given.

    Args:
        padded_sequences: The sequences, (T, N, ...), or (N, T, ...) with batch_first.
        lengths: Of each its time steps, (N,), known integers.
        batch_first: Whether the sequences come first.

    Returns:
        The sequences.

    Raises:
        InputError: For lengths that are not N.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax.nn.utils.rnn import unpad_sequence
        >>> unpad_sequence(jnp.array([[1, 2], [3, 0]]), [2, 1], batch_first=True)
        [Array([1, 2], dtype=int32), Array([3], dtype=int32)]

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.utils.rnn.unpad_sequence.html
    """
    array = jnp.asarray(padded_sequences)
    array = array if batch_first else jnp.swapaxes(array, 0, 1)
    lengths = _known("unpad_sequence", "lengths", lengths)
    if lengths.shape != array.shape[:1]:
        raise InputError(
            f"unpad_sequence: lengths is {lengths.tolist()}, expected one of {len(array)} each"
        )
    return [row[: max(length, 0)] for row, length in zip(array, lengths, strict=True)]


def pack_sequence(sequences: Sequence[Any], enforce_sorted: bool = True) -> PackedSequence:
    """Packs sequences of several lengths.

    Args:
        sequences: The sequences, (L, ...) each.
        enforce_sorted: Whether the longest one comes first, and so on; else they are sorted.

    Returns:
        The packed sequences.

    Raises:
        InputError: As `pad_sequence` and `pack_padded_sequence` raise it.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax.nn.utils.rnn import pack_sequence
        >>> pack_sequence([jnp.array([1, 2, 3]), jnp.array([4, 5])]).data
        Array([1, 4, 2, 5, 3], dtype=int32)

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.utils.rnn.pack_sequence.html
    """
    sequences = list(sequences)
    padded = pad_sequence(sequences)
    lengths = [len(sequence) for sequence in sequences]
    return pack_padded_sequence(padded, lengths, enforce_sorted=enforce_sorted)


def unpack_sequence(packed_sequences: PackedSequence) -> list[jax.Array]:
    """What `pack_sequence` was given.

    Args:
        packed_sequences: The packed sequences.

    Returns:
        The sequences, in the order they were given in.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax.nn.utils.rnn import pack_sequence, unpack_sequence
        >>> unpack_sequence(pack_sequence([jnp.array([1, 2]), jnp.array([3])]))
        [Array([1, 2], dtype=int32), Array([3], dtype=int32)]

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.utils.rnn.unpack_sequence.html
    """
    padded, lengths = pad_packed_sequence(packed_sequences, batch_first=True)
    return unpad_sequence(padded, lengths, batch_first=True)
