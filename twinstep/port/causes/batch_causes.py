"""Why a port's batch is not PyTorch's at some step: which samples, and what became of them."""

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from twinstep.judge import tolerance
from twinstep.port import batches
from twinstep.port.causes import rounded
from twinstep.port.sides import Side
from twinstep.port.updates import Cause
from twinstep.trace import dtypes

_ROUNDED = 8.0  # eps: a product and a sum, of numbers solved for from rounded ones
_LISTED = 8


@dataclass(frozen=True)
class _Input:
    """One array of the batches, a step each, in PyTorch's axes on both sides; where it is right."""

    name: str
    theirs: list[np.ndarray]
    ours: list[np.ndarray]
    same: list[bool]


def causes_of_batch(torch: Side, jax: Side, row: int, name: str) -> list[Cause]:
    """What one array of a step's batch is instead.

    Args:
        torch, jax: Two recordings, lined up.
        row: The step, from 0.
        name: PyTorch's name of the array.

    Returns:
        The causes; several, if several fit alike.
    """
    inputs = _inputs(torch, jax)
    if name not in inputs or row >= len(inputs[name].same) or inputs[name].same[row]:
        return []
    of = inputs[name]
    if other := [*_other_step(of, row)]:
        return other
    one, our = of.theirs[row], of.ours[row]
    alike = one.ndim > 0 and one.shape[1:] == our.shape[1:]
    if alike and (samples := [*_samples(inputs, name, row)]):
        return samples
    if one.shape == our.shape and one.dtype.kind in "fiu":
        return [*_changed(name, row, one, our)]
    return []


def _inputs(torch: Side, jax: Side) -> dict[str, _Input]:
    """Those whose arrays are known on both sides."""
    one, other = torch.trace, jax.trace
    found: dict[str, _Input] = {}
    if len(one) != len(other):
        return found
    for name in one.batch:
        known = batches.partner(one, other, name)
        if known is None or name not in one.inputs or known.leaf not in other.inputs:
            continue
        leaf, axes, steps, same = known
        if len(steps) < len(one):
            continue
        if not any(same) and name in other.inputs:  # nothing tells the partner but its name
            leaf, axes = name, None
        theirs = [batches.array(one, name, t) for t in range(len(one))]
        ours = [batches.array(other, leaf, t) for t in range(len(one))]
        if axes is not None:
            ours = [b.transpose(axes) if b.ndim == len(axes) else b for b in ours]
        ours = [
            b.reshape(a.shape) if a.size == b.size else b for a, b in zip(theirs, ours, strict=True)
        ]
        found[name] = _Input(name, theirs, ours, same)
    return found


def _other_step(of: _Input, row: int) -> Iterator[Cause]:
    """Another step's batch, at this one or at all that are off."""
    off = [t for t, same in enumerate(of.same) if not same]
    for shift in sorted(range(-row, len(of.theirs) - row), key=abs):
        at = row + shift
        if not shift or not _same(of.theirs[at], of.ours[row]):
            continue
        count = len(of.theirs)
        moved = [t for t in off if _same(of.theirs[(t + shift) % count], of.ours[t])]
        when = f"step {row + 1} has" if len(moved) == 1 else f"steps {_said(moved, 1)} have"
        which = f"{abs(shift)} later" if shift > 0 else f"{abs(shift)} earlier"
        says = f"batch {of.name}: {when} what PyTorch has {which}"
        yield Cause("batch of another step", says, {"steps": float(shift)}, 0.0)
        return


def _samples(inputs: Mapping[str, _Input], name: str, row: int) -> Iterator[Cause]:
    """The same samples in another order, or fewer, or some twice."""
    one, our = inputs[name].theirs[row], inputs[name].ours[row]
    order = _order(one, our)
    if order is None:
        return
    at = f"batch {name}, step {row + 1}"
    if sorted(order) == list(range(len(one))):
        others = {
            n: _order(i.theirs[row], i.ours[row])
            for n, i in inputs.items()
            if n != name and len(i.theirs[row]) == len(one) > 0 and i.theirs[row].ndim
        }
        how = _how(order)
        apart = [n for n, o in others.items() if o != order and not _takes(inputs[n], row, order)]
        if apart:
            says = f"{at}: its samples are {how}, those of {' and '.join(apart)} are not"
            yield Cause("samples in another order apart", says, {}, 0.0)
        else:
            with_ = f", as are those of {' and '.join(others)}" if others else ""
            yield Cause("samples in another order", f"{at}: its samples are {how}{with_}", {}, 0.0)
    elif len(set(order)) < len(order):
        says = f"{at}: PyTorch's samples {_said(order)}, some of them more than once"
        yield Cause("samples repeated", says, {}, 0.0)
    else:
        says = f"{at}: {len(order)} of PyTorch's {len(one)} samples: {_said(order)}"
        yield Cause("fewer samples", says, {"samples": float(len(order))}, 0.0)


def _takes(of: _Input, row: int, order: list[int]) -> bool:
    """Whether an array is in that order too: of samples that are alike several orders are one."""
    one, our = of.theirs[row], of.ours[row]
    return one.shape == our.shape and _same(one[order], our)


def _order(one: np.ndarray, our: np.ndarray) -> list[int] | None:
    """Which of PyTorch's samples each is; alike ones one after the other. None: some are none."""
    places: dict[bytes, list[int]] = {}
    for i, sample in enumerate(one):
        places.setdefault(np.ascontiguousarray(sample).tobytes(), []).append(i)
    order, used = [], dict.fromkeys(places, 0)
    for sample in our.astype(one.dtype):
        key = np.ascontiguousarray(sample).tobytes()
        if key not in places:
            return None
        order.append(places[key][used[key] % len(places[key])])
        used[key] += 1
    return order


def _how(order: list[int]) -> str:
    """An order in words."""
    count = len(order)
    if order == list(range(count))[::-1]:
        return "in reverse"
    by = (order[0] - 0) % count
    if order == [(i + by) % count for i in range(count)]:
        return f"rolled by {count - by}"
    return f"in the order {_said(order)}"


def _changed(name: str, row: int, one: np.ndarray, our: np.ndarray) -> Iterator[Cause]:
    """The same samples, their numbers or axes changed."""
    at = f"batch {name}, step {row + 1}"
    a, b = one.astype(float), our.astype(float)
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        return
    for flip in _flips(a):
        if np.array_equal(np.flip(a, flip), b):
            yield Cause("flipped", f"{at}: flipped along {_axes(flip)}", {}, 0.0)
    for axes in itertools.permutations(range(1, a.ndim)) if a.ndim <= 5 else ():
        order = (0, *axes)
        turned = a.transpose(order)
        if order != tuple(range(a.ndim)) and turned.shape == b.shape and np.array_equal(turned, b):
            says = f"{at}: its axes are in the order {order}"
            yield Cause("axes in another order", says, {}, 0.0)
    if kind := rounded.to(a, b):
        yield Cause("rounded", f"{at}: rounded to {kind}", {}, 0.0)
        return
    eps = tolerance.eps(dtypes.name(our.dtype)) or tolerance.eps("float32")
    if (found := _linear(a, b, None, eps)) is not None:
        factor, added, ratio = float(found[0][0]), float(found[1][0]), found[2]
        says = f"{at}: PyTorch's {_formula(factor, added)}"
        yield Cause("normalized", says, {"factor": factor, "added": added}, ratio)
        return
    for axis in range(1, a.ndim):
        if a.shape[axis] > 1 and (found := _linear(a, b, axis, eps)) is not None:
            pairs = zip(found[0].tolist(), found[1].tolist(), strict=True)
            formulas = [_formula(f, c) for f, c in itertools.islice(pairs, 4)]
            more = ", ..." if a.shape[axis] > 4 else ""
            says = f"{at}: along axis {axis} PyTorch's {', '.join(formulas)}{more}"
            values = {"factor": float(found[0][0]), "added": float(found[1][0])}
            yield Cause("normalized", says, values, found[2])


def _linear(
    a: np.ndarray, b: np.ndarray, axis: int | None, eps: float
) -> tuple[np.ndarray, np.ndarray, float] | None:
    """(factors, what is added, ratio) of b = factor a + added, one for each index along an axis."""
    count = 1 if axis is None else a.shape[axis]
    one, other = (
        x.reshape(1, -1) if axis is None else np.moveaxis(x, axis, 0).reshape(count, -1)
        for x in (a, b)
    )
    # two numbers are solved for: three or four entries say little
    if one.shape[1] < 5:
        return None
    mean, mean_b = one.mean(1, keepdims=True), other.mean(1, keepdims=True)
    spread = ((one - mean) ** 2).sum(1, keepdims=True)
    if not (spread > 0).all():
        return None
    factor = ((one - mean) * (other - mean_b)).sum(1, keepdims=True) / spread
    if not factor.any():
        return None
    added = mean_b - factor * mean
    sizes = np.abs(factor) * np.abs(one).max(1, keepdims=True) + np.abs(added)
    added = np.where(np.abs(added) <= _ROUNDED * eps * sizes, 0.0, added)
    ratio = float((np.abs(other - factor * one - added) / (_ROUNDED * eps * sizes)).max())
    return (factor[:, 0], added[:, 0], ratio) if ratio <= 1 else None


def _formula(factor: float, added: float) -> str:
    times = f"{factor:.7g}"
    terms = [f"times {times}"] if times != "1" else []
    return " ".join([*terms, f"plus {added:.7g}"] if added else terms)


def _flips(array: np.ndarray) -> Iterator[tuple[int, ...]]:
    long = [axis for axis in range(1, array.ndim) if array.shape[axis] > 1]
    for count in range(1, len(long) + 1):
        yield from itertools.combinations(long, count)


def _axes(flip: tuple[int, ...]) -> str:
    return f"axis {flip[0]}" if len(flip) == 1 else f"axes {' and '.join(map(str, flip))}"


def _same(one: np.ndarray, other: np.ndarray) -> bool:
    return one.shape == other.shape and np.array_equal(one, other)


def _said(numbers: list[int], more: int = 0) -> str:
    shown = ", ".join(str(n + more) for n in numbers[:_LISTED])
    return shown + (", ..." if len(numbers) > _LISTED else "")
