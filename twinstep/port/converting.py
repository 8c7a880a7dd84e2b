"""A file's weights through a mapping, to either side; what it cannot do right is said at once."""

from collections.abc import Collection, Iterator
from collections.abc import Mapping as Named
from fnmatch import fnmatchcase
from typing import Literal

import numpy as np

from twinstep.errors import InputError
from twinstep.port.mapping import Mapping
from twinstep.trace import dtypes
from twinstep.weights import tensors

Side = Literal["torch", "jax"]
MAX_NAMED = 12
"""Of names that do not fit, how many are said."""


def side_wanted(named: Collection[str], mapping: Mapping) -> Side:
    """To which side names go: away from the one that has more of them. InputError for neither."""
    theirs = sum(name in mapping.torch_shapes for name in named)
    ours = sum(name in mapping.leaves for name in named)
    if theirs == ours == 0:
        has = f"it has {_listed([*mapping.torch_shapes])}, and {_listed([*mapping.leaves])}"
        raise InputError(f"the mapping has none of {_listed([*named])}: {has}")
    if theirs == ours:
        raise InputError(f"{ours} names are on both sides of the mapping: say with --to which way")
    return "jax" if theirs > ours else "torch"


def without(
    named: Named[str, np.ndarray], patterns: Collection[str], others: Collection[str] = ()
) -> dict[str, np.ndarray]:
    """Arrays but those whose names are as patterns such as "head.*" say.

    others: names that patterns may be of as well. InputError for a pattern that is of none.
    """
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in (*named, *others)):
            raise InputError(f"skip: no name is as {pattern!r}")
    return {name: array for name, array in named.items() if not skipped(name, patterns)}


def skipped(name: str, patterns: Collection[str]) -> bool:
    """Whether one of the patterns is of a name."""
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def nan(named: Named[str, np.ndarray]) -> list[str]:
    """What to say of arrays with NaN, if there are any."""
    names = [name for name, array in named.items() if tensors.has_nan(array)]
    return [f"NaN in {_listed(names)}, expected numbers, or --allow-nan"] if names else []


def converted(
    named: Named[str, np.ndarray],
    mapping: Mapping,
    to: Side,
    skip: Collection[str] = (),
    *,
    allow_nan: bool = False,
) -> dict[str, np.ndarray]:
    """The arrays of one side as those of the other.

    Args:
        named: All that the side has, by its names.
        mapping: Which leaf of the port is which of PyTorch's.
        to: The side that is wanted.
        skip: Patterns of names, on either side, that are left out.
        allow_nan: Whether arrays with NaN are taken.

    Returns:
        {name: array}, in the order of the mapping.

    Raises:
        InputError: For all that does not fit, in one line: names that are missing or not in the
            mapping, other shapes, NaN, dtypes that would be mixed, entries that would be lost.

    Example:
        >>> import numpy as np
        >>> from twinstep.port.converting import converted
        >>> from twinstep.port.mapping import Mapping, Piece
        >>> piece = Piece("fc.weight", (2, 3), ((0, 2), (0, 3)), (1, 0), ((0, 3), (0, 2)))
        >>> mapping = Mapping({"kernel": (piece,)}, {"kernel": (3, 2)}, {"fc.weight": (2, 3)})
        >>> converted({"fc.weight": np.ones((2, 3))}, mapping, "jax")["kernel"].shape
        (3, 2)

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.Module.html
    """
    given, targets = without(named, skip, [*mapping.torch_shapes, *mapping.leaves]), {}
    for target, sources in _sources(mapping, to).items():
        if not skipped(target, skip) and not all(skipped(source, skip) for source in sources):
            targets[target] = sources
    wrong = [*_unfit(given, targets, mapping, to, skip)]
    if wrong := [*wrong, *([] if allow_nan else nan(given))]:
        raise InputError("; ".join(wrong))
    made = mapping.to_jax(given) if to == "jax" else mapping.to_torch(given)
    if to == "torch" and (apart := [*_apart(given, mapping.to_jax(made), mapping)]):
        raise InputError("; ".join(apart))
    return {target: made[target] for target in targets}


def _sources(mapping: Mapping, to: Side) -> dict[str, list[str]]:
    """{name on the side that is wanted: what it is made of on the other}"""
    wanted = mapping.leaves if to == "jax" else mapping.torch_shapes
    found: dict[str, list[str]] = {name: [] for name in wanted}
    for leaf, pieces in mapping.leaves.items():
        for of in dict.fromkeys(piece.of for piece in pieces):
            target, source = (leaf, of) if to == "jax" else (of, leaf)
            found[target].append(source)
    return found


def _unfit(
    given: Named[str, np.ndarray],
    targets: Named[str, list[str]],
    mapping: Mapping,
    to: Side,
    skip: Collection[str],
) -> Iterator[str]:
    shapes = mapping.torch_shapes if to == "jax" else mapping.shapes
    needed = dict.fromkeys(source for sources in targets.values() for source in sources)
    if missing := [name for name in needed if name not in given]:
        yield f"missing {_listed(missing)}"
    if unknown := [name for name in given if name not in shapes]:
        yield f"not in the mapping: {_listed(unknown)}"
    for name, array in given.items():
        if name in shapes and array.shape != tuple(shapes[name]):
            yield f"{name!r} has shape {array.shape}, expected {tuple(shapes[name])}"
    for name, entries in mapping.unused.items():
        if not skipped(name, skip):
            yield f"{entries} entries of {name!r} are in no leaf of the mapping"
    for target, sources in targets.items():
        kinds = {dtypes.name(given[source].dtype) for source in sources if source in given}
        if len(kinds) > 1:
            yield f"{target!r} would be made of {' and '.join(sorted(kinds))}"


def _apart(
    given: Named[str, np.ndarray], again: Named[str, np.ndarray], mapping: Mapping
) -> Iterator[str]:
    """Leaves that would not come back: PyTorch has one tensor for what differs in two of them."""
    for name, array in again.items():
        if name not in mapping.summed and not tensors.same(given[name], array):
            of = _listed(list(dict.fromkeys(piece.of for piece in mapping.leaves[name])))
            yield f"{name!r} differs from another leaf that is {of} too"


def _listed(names: list[str]) -> str:
    left = len(names) - MAX_NAMED
    few = names if left <= 1 else names[:MAX_NAMED]
    return ", ".join(map(repr, few)) + (f", and {left} more" if left > 1 else "")
