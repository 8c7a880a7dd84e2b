"""Why a port's first gradients are not PyTorch's, though its parameters are.

What must be a number is solved for from all entries, and held against each.
"""

import functools
import math
from collections.abc import Mapping
from functools import cached_property

import numpy as np

from twinstep.judge import tolerance
from twinstep.port import clipping
from twinstep.port.causes import first_sizes, rounded
from twinstep.port.causes.first_sizes import Factor
from twinstep.port.causes.rearrangements import fitting, names_of
from twinstep.port.causes.start_causes import listed
from twinstep.port.sides import Side
from twinstep.port.updates import Cause
from twinstep.trace import dtypes

Arrays = Mapping[str, np.ndarray]

_CANCELLED = 8.0  # eps of the largest of all: as where gradients are judged
_CLEARLY = 16.0  # times what is allowed: what is off by less may be explained by anything
_TOLD = 4  # clearly wrong entries: fewer do not over-determine what is solved for
_NORM_EPS = 64.0
_SINGLE = 4.0  # eps of float32, of a leaf's largest entry: few roundings, or one early on
_DIGITS = 3  # of a threshold that somebody typed


class FirstStep:
    """Both sides' gradients and losses of the first update, by PyTorch's names.

    Attributes:
        params, theirs, ours: {leaf: array}: PyTorch's start, its and the port's raw gradients.
        kind: The coarsest dtype of them.
        off: The leaves whose gradients are not the same.
        losses: PyTorch's and the port's.
    """

    def __init__(self, torch: Side, jax: Side) -> None:
        self.torch, self.jax = torch, jax
        self.params, self.theirs, self.ours = dict[str, np.ndarray](), dict[str, np.ndarray](), {}
        kinds = {torch.trace.metadata.dtype}
        for leaf in torch.trace.raw_grads:
            mine, theirs = torch.rows("raw_grads", leaf), jax.rows("raw_grads", leaf)
            start = torch.rows("params", leaf)
            if mine is None or theirs is None or start is None:
                continue
            if any(not len(r.steps) or r.steps[0] != torch.trace.start for r in (mine, theirs)):
                continue
            if mine.array.dtype.kind == "c":
                continue
            kinds.add(dtypes.name(mine.array.dtype))
            self.params[leaf], self.theirs[leaf], self.ours[leaf] = (
                dtypes.numbers(rows.array[:1])[0].astype(float) for rows in (start, mine, theirs)
            )
        self.kind = max(kinds, key=tolerance.eps)
        self.eps = tolerance.eps(self.kind)
        self.off = [n for n in self.theirs if not self.ratio({n: self.theirs[n]}) <= 1]
        self.losses = float(torch.trace.losses[0]), float(jax.trace.losses[0])

    @cached_property
    def scale(self) -> float:
        """The largest entry of PyTorch's gradients."""
        return max((float(np.abs(a).max(initial=0)) for a in self.theirs.values()), default=0.0)

    @cached_property
    def finite(self) -> bool:
        """Whether all gradients are numbers."""
        both = (*self.theirs.values(), *self.ours.values())
        return all(bool(np.isfinite(array).all()) for array in both)

    def allowed(self, expected: np.ndarray, times: float = 1.0) -> float:
        """What rounding may explain of an entry of what the port should have; times: its scale."""
        size = np.array([np.abs(expected).max(initial=0)])
        plain = tolerance.plain_bound(size, np.ones(1), self.kind)
        return float(plain[0]) + _CANCELLED * self.eps * self.scale * times

    def ratio(self, expected: Arrays, times: float = 1.0) -> float:
        """How far the port's gradients are from these, in what is allowed."""
        found = 0.0
        for leaf, array in expected.items():
            gap = np.abs(self.ours[leaf] - array).max(initial=0)
            found = max(found, float(gap) / self.allowed(array, times))
        return found if math.isfinite(found) else math.inf

    def clear(self, leaves: list[str]) -> int:
        """How many entries of some leaves are clearly not PyTorch's."""
        gaps = {n: np.abs(self.ours[n] - self.theirs[n]) for n in leaves}
        return sum(
            int((gap > _CLEARLY * self.allowed(self.theirs[n])).sum()) for n, gap in gaps.items()
        )

    def same_loss(self, expected: float) -> bool:
        """Whether the port's loss is that."""
        known = [len(s.trace.steps_of("loss", "loss")) for s in (self.torch, self.jax)]
        if not all(known) or not math.isfinite(self.losses[1]):
            return False
        bound = tolerance.plain_bound(np.array([abs(expected)]), np.ones(1), self.kind)
        return abs(self.losses[1] - expected) <= float(bound[0])

    def factor(self, value: float) -> Factor:
        """What a factor is of."""
        return first_sizes.factor(value, first_sizes.sizes_of(self.torch.trace), self.eps)


def causes_of_gradients(step: FirstStep) -> list[Cause]:
    """What makes the port's first gradients of PyTorch's; several, if several fit alike.

    Args:
        step: Both sides'.

    Returns:
        The causes; none where gradients are the same, or differ in no way that is known.
    """
    if not step.off or not step.finite or step.clear(step.off) < 1:
        return []
    exact = [*_frozen(step), *_clipped_by_value(step), *_rounded(step)]
    if step.clear(step.off) < _TOLD:
        return exact
    found = [*exact, *_one_factor(step), *_decayed(step)]
    if not found:
        found = [*_factor_of_some(step), *_clipped_each(step), *_rearranged(step)]
    return found or _in_single_precision(step)


def _frozen(step: FirstStep) -> list[Cause]:
    """Leaves of the port whose gradient is 0, all of it."""
    held = step.jax.trace.raw_grads
    named = []
    for leaf in step.off:
        wrong = np.abs(step.ours[leaf] - step.theirs[leaf]) > step.allowed(step.theirs[leaf])
        own = step.jax.own(leaf)
        zero = [n for n in own if n in held and len(held[n]) and not held[n][0].any()]
        if step.ours[leaf][wrong].any() or not zero:
            return []
        named.append(leaf if len(zero) == len(own) else f"{leaf} ({listed(zero)})")
    have = "has" if len(named) == 1 else "have"
    says = f"{listed(named)} {have} no gradient in the port: frozen, or not used"
    return [Cause("no gradient", says, {}, 0.0)]


def _one_factor(step: FirstStep) -> list[Cause]:
    """All gradients by one factor: of the loss, of the gradients, or of clipping."""
    value = _solved(step, [*step.theirs])
    if value is None:
        return []
    ratio = step.ratio({n: value * a for n, a in step.theirs.items()}, abs(value))
    if ratio > 1:
        return []
    if abs(value + 1) <= _NORM_EPS * step.eps:
        return [Cause("negative", "all gradients have the other sign", {"factor": -1.0}, ratio)]
    found, known = _clipped(step, value, ratio), step.factor(value)
    if found and not known.says:
        return found
    loss = step.same_loss(value * step.losses[0])
    of = f", which is {known.says}" if known.says else ", none of the batch's sizes"
    if loss:
        kind = known.kind or "loss scaled"
        says = f"loss and gradients are PyTorch's times {value:.7g}{of}"
    else:
        kind = known.kind or "gradients scaled"
        same = "the loss is the same" if step.same_loss(step.losses[0]) else "the loss is not"
        says = f"all gradients are PyTorch's times {value:.7g}{of}; {same}"
    return [Cause(kind, says, {"factor": value}, ratio), *found]


def _solved(step: FirstStep, leaves: list[str]) -> float | None:
    """The factor that comes nearest."""
    size = sum(float((step.theirs[n] ** 2).sum()) for n in leaves)
    both = sum(float((step.theirs[n] * step.ours[n]).sum()) for n in leaves)
    return both / size if size and both else None


def _clipped(step: FirstStep, value: float, ratio: float) -> list[Cause]:
    """Gradients that were clipped by their norm before they were recorded."""
    if not 0 < value < 1:
        return []
    norm = math.sqrt(sum(float((a**2).sum()) for a in step.theirs.values()))
    seen = clipping.seen(step.torch.trace, [*step.theirs])
    limits = [seen.limit] if not isinstance(seen, str) and seen and seen.kind == "norm" else []
    share = _NORM_EPS * step.eps
    for made in (value * norm, value * (norm + 1e-6)):
        limits.append(clipping.plainest(made, share))
    for limit in limits:
        plain = f"{limit:.{_DIGITS}g}"
        if float(plain) == limit and any(
            abs(value * size - limit) <= share * limit for size in (norm, norm + 1e-6)
        ):
            says = f"the recorded gradients are clipped to a norm of {plain}: these are not the raw"
            return [Cause("clipped before recording", says, {"max_norm": limit}, ratio)]
    return []


def _clipped_by_value(step: FirstStep) -> list[Cause]:
    limit = max(float(np.abs(a).max(initial=0)) for a in step.ours.values())
    if not limit < step.scale or step.clear(step.off) < 2:
        return []
    ratio = step.ratio({n: a.clip(-limit, limit) for n, a in step.theirs.items()})
    at = sum(int((np.abs(a) == limit).sum()) for a in step.ours.values())
    if ratio > 1 or at < 2:
        return []
    says = f"the recorded gradients are clipped at {limit:.7g}: these are not the raw ones"
    return [Cause("clipped before recording", says, {"clip_value": limit}, ratio)]


def _clipped_each(step: FirstStep) -> list[Cause]:
    """Each leaf's gradient by its own norm."""
    norms = {n: float(np.linalg.norm(a)) for n, a in step.ours.items()}
    limit = max(norms.values())
    share = _NORM_EPS * step.eps
    if len(step.off) < 2 or any(norms[n] < limit * (1 - share) for n in step.off):
        return []
    expected = {
        n: a * min(1.0, limit / max(float(np.linalg.norm(a)), 1e-300))
        for n, a in step.theirs.items()
    }
    ratio = step.ratio(expected)
    if ratio > 1:
        return []
    says = f"each leaf's recorded gradient is clipped to a norm of {limit:.7g}"
    return [Cause("clipped before recording", says, {"max_norm": limit}, ratio)]


def _decayed(step: FirstStep) -> list[Cause]:
    """Gradients with a penalty's: what decays the weights is in them."""
    found = []
    for kind, what, of in (("L2", "the parameters", np.asarray), ("L1", "their signs", np.sign)):
        size = sum(float((of(step.params[n]) ** 2).sum()) for n in step.off)
        more = sum(
            float(((step.ours[n] - step.theirs[n]) * of(step.params[n])).sum()) for n in step.off
        )
        if not size:
            continue
        value = more / size
        expected = {n: step.theirs[n] + value * of(step.params[n]) for n in step.off}
        ratio = step.ratio(expected)
        if ratio > 1:
            continue
        # that it is in no other leaf is seen where the others are not 0
        rest = [n for n in step.theirs if n not in step.off]
        with_it = {n: step.theirs[n] + value * of(step.params[n]) for n in rest}
        spared = step.ratio(with_it) > 1
        where = f"those of {listed(step.off)} alone" if spared else "all of them"
        norm = np.abs if kind == "L1" else (lambda p: p * p / 2)
        loss = sum(float(norm(step.params[n]).sum()) for n in step.off) * value
        shown = "in the loss too" if step.same_loss(step.losses[0] + loss) else "not in the loss"
        says = f"the gradients, {where}, have {value:.7g} times {what} in them ({kind}), {shown}"
        if kind == "L2" and (own := _own_decay(step, value)):
            says += f"; PyTorch's optimizer decays by {own:g} itself"
        found.append(Cause("decay in the gradient", says, {"weight_decay": value}, ratio))
    return found


def _own_decay(step: FirstStep, value: float) -> float:
    """The weight decay of PyTorch's optimizer, where that is what the gradients have; else 0."""
    for name, values in step.torch.trace.hyper_parameters.items():
        if name.endswith(".weight_decay") and len(values):
            own = float(values[0])
            if own and abs(value / own - 1) <= 1e-4:
                return own
    return 0.0


def _factor_of_some(step: FirstStep) -> list[Cause]:
    """Some leaves' gradients by one factor, the others right."""
    value = _solved(step, step.off)
    if value is None:
        return []
    ratio = step.ratio({n: value * step.theirs[n] for n in step.off}, max(1.0, abs(value)))
    if ratio > 1:
        return []
    known = step.factor(value).says
    of = f", {known}" if known else ""
    sign = "have the other sign" if abs(value + 1) <= _NORM_EPS * step.eps else ""
    rest = [n for n in step.theirs if n not in step.off]
    says = f"the gradients of {listed(step.off)} "
    says += sign or f"are PyTorch's times {value:.7g}{of}"
    says += f"; those of {listed(rest)} are right" if rest else ""
    kind = "negative" if sign else "gradients of some leaves scaled"
    return [Cause(kind, says, {"factor": value}, ratio)]


def _rounded(step: FirstStep) -> list[Cause]:
    """Gradients kept in fewer bits."""
    kinds = set()
    for leaf in step.off:
        apart = step.allowed(step.theirs[leaf])
        kinds.add(rounded.to(step.theirs[leaf], step.ours[leaf], apart))
    if len(kinds) != 1 or "" in kinds:
        return []
    kind = kinds.pop()
    says = f"the gradients of {listed(step.off)} are rounded to {kind}"
    return [Cause("rounded", says, {}, 0.0)]


def _in_single_precision(step: FirstStep) -> list[Cause]:
    """Where a float64 run is off by what float32 rounds, in loss and gradients: a candidate."""
    single = _SINGLE * tolerance.eps("float32")
    if step.kind != "float64":
        return []
    gaps = [
        float(np.abs(step.ours[n] - a).max(initial=0)) / float(np.abs(a).max(initial=0) or 1.0)
        for n, a in step.theirs.items()
        if n in step.off
    ]
    loss = abs(step.losses[1] - step.losses[0]) / (abs(step.losses[0]) or 1.0)
    if not max(*gaps, loss) <= single:
        return []
    says = (
        f"perhaps: something is computed in float32, or passes through it: the gradients of "
        f"{listed(step.off)} are off by no more than {max(gaps):.2g} of their largest entry"
    )
    return [Cause("candidate: single precision", says, {}, 0.0)]


def _rearranged(step: FirstStep) -> list[Cause]:
    """Gradients that lie otherwise than their parameters."""
    modules = step.torch.trace.program.get("modules", {})
    shapes = {name: array.shape for name, array in step.theirs.items()}
    fits = []
    for leaf in step.off:
        ratio = functools.partial(_apart, step.allowed(step.theirs[leaf]))
        names = names_of(leaf, shapes, modules)
        found = fitting(step.theirs[leaf], step.ours[leaf], ratio, names)
        fits.append({(order.kind, order.says): ratio for order, ratio in found})
    common = [key for key in fits[0] if all(key in fit for fit in fits)]
    return [
        Cause(
            key[0],
            f"the gradient of {listed(step.off)} is {key[1]}, though its parameters are not",
            {},
            max(fit[key] for fit in fits),
        )
        for key in common
    ]


def _apart(allowed: float, one: np.ndarray, other: np.ndarray) -> float:
    return float(np.abs(one - other).max(initial=0)) / allowed
