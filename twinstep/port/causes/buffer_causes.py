"""Why a port's BatchNorm keeps other statistics than PyTorch's after the first step.

With b what a buffer was, b' what it is, m PyTorch's momentum and s the batch's statistic, PyTorch
has b' = (1 - m) b + m s, with the unbiased variance. So s is known from PyTorch's own rows.

Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.BatchNorm2d.html
"""

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from twinstep.judge import tolerance
from twinstep.port.causes import rounded
from twinstep.port.causes.first_sizes import sizes_of
from twinstep.port.causes.start_causes import listed
from twinstep.port.sides import Side
from twinstep.port.updates import Cause
from twinstep.trace import dtypes

MEAN, VAR = "running_mean", "running_var"

_CLEARLY = 16.0  # times what is allowed: a number that moves a buffer by less is not known
_MOMENTUM = re.compile(r"momentum=([0-9.e+-]+|None)")


@dataclass(frozen=True)
class _Buffer:
    """One buffer: before, what PyTorch made of it, what the port did, and PyTorch's momentum."""

    name: str
    before: np.ndarray
    theirs: np.ndarray
    ours: np.ndarray
    momentum: float
    eps: float

    @property
    def layer(self) -> str:
        return self.name.rpartition(".")[0]

    @property
    def statistic(self) -> np.ndarray:
        """Of the batch."""
        kept = (1 - self.momentum) * self.before
        found: np.ndarray = (self.theirs - kept) / self.momentum
        return found

    @property
    def allowed(self) -> float:
        """How far an entry may be off that is made of the statistic, itself made of two rows."""
        sizes = [float(np.abs(a).max(initial=0)) for a in (self.before, self.theirs, self.ours)]
        bound = tolerance.PLAIN_EPS * self.eps * max(sizes)
        return bound / self.momentum

    def ratio(self, expected: np.ndarray) -> float:
        """How far the port's is from that, in what is allowed."""
        return float(np.abs(self.ours - expected).max(initial=0)) / (self.allowed or 1.0)

    @property
    def off(self) -> bool:
        """Whether it is clearly not PyTorch's."""
        return not float(np.abs(self.ours - self.theirs).max(initial=0)) <= self.plain

    @property
    def plain(self) -> float:
        """How far an entry may be off that is computed as PyTorch does."""
        return tolerance.PLAIN_EPS * self.eps * float(np.abs(self.theirs).max(initial=0))


def causes_of_buffers(torch: Side, jax: Side) -> list[Cause]:
    """What keeps the statistics that are off after the first step; several, if several fit alike.

    Args:
        torch, jax: Two recordings, lined up.

    Returns:
        The causes that explain all of them; none where no known one does.
    """
    buffers = _buffers(torch, jax)
    off = [buffer for buffer in buffers.values() if buffer.off]
    if not off or not all(np.isfinite(buffer.ours).all() for buffer in off):
        return []
    sizes = sizes_of(torch.trace)
    if plain := [*_plain(off)]:
        return plain
    # of several passes a step each has moved them, by a statistic of its own
    if "micro-batches" in sizes or not all(0 < b.momentum <= 1 for b in off):
        return []
    swapped = _swapped(off, buffers)
    return [*_momentum(off), *_variance(off, sizes.get("samples", 1)), *swapped]


def evaluating(torch: Side, jax: Side) -> list[Cause]:
    """Where the loss is off, and no statistic moves that PyTorch's training moves: a candidate.

    Args:
        torch, jax: Two recordings, lined up.

    Returns:
        That the port's BatchNorm may be in evaluation mode; or nothing.
    """
    buffers = _buffers(torch, jax)
    if any(not np.array_equal(buffer.ours, buffer.before) for buffer in buffers.values()):
        return []
    off = [buffer for buffer in buffers.values() if buffer.off]
    if not off:
        return []
    names = listed([buffer.name for buffer in off])
    says = f"perhaps: BatchNorm is in evaluation mode: {names} stay as at the start"
    return [Cause("candidate: evaluation mode", says, {}, 0.0)]


def _buffers(torch: Side, jax: Side) -> dict[str, _Buffer]:
    found = {}
    for name in torch.trace.buffers:
        mine, theirs = torch.rows("buffers", name), jax.rows("buffers", name)
        if name.rpartition(".")[2] not in (MEAN, VAR) or mine is None or theirs is None:
            continue
        if min(len(mine.array), len(theirs.array)) < 2:
            continue
        rows = dtypes.numbers(mine.array[:2]), dtypes.numbers(theirs.array[:2])
        before, one, other = (a.astype(float) for a in (rows[0][0], rows[0][1], rows[1][1]))
        if not np.array_equal(rows[0][0], rows[1][0]):
            continue
        eps = tolerance.eps(dtypes.name(mine.array.dtype))
        momentum = _momentum_of(torch.trace.program.get("modules", {}), name)
        found[name] = _Buffer(name, before, one, other, momentum, eps)
    return found


def _momentum_of(modules: Mapping[str, object], name: str) -> float:
    """A layer's; None averages all, of which the first has all the weight. nan: not known."""
    text = _MOMENTUM.search(str(modules.get(name.rpartition(".")[0], "")))
    if text is None:
        return math.nan
    return 1.0 if text[1] == "None" else float(text[1])


def _plain(off: list[_Buffer]) -> Iterator[Cause]:
    """What is seen without a momentum."""
    names = listed([buffer.name for buffer in off])
    if all(np.array_equal(buffer.ours, buffer.before) for buffer in off):
        says = (
            f"{names} stay{'s' if len(off) == 1 else ''} as at the start: not updated in training"
        )
        yield Cause("statistics stay", says, {}, 0.0)
    kinds = {rounded.to(b.theirs, b.ours, b.plain) for b in off}
    if len(kinds) == 1 and (kind := kinds.pop()):
        yield Cause("rounded", f"{names}: kept in {kind}", {}, 0.0)


def _other(name: str) -> str:
    layer, _, last = name.rpartition(".")
    return f"{layer}.{MEAN if last == VAR else VAR}"


def _solved(buffer: _Buffer, weight: np.ndarray, rest: np.ndarray) -> tuple[float, float] | None:
    """(x, its uncertainty) of ours = rest + x weight; None: it does not fit, or is not known."""
    size = float((weight**2).sum())
    largest = float(np.abs(weight).max(initial=0))
    if weight.size < 2 or largest <= _CLEARLY * buffer.allowed:
        return None
    value = float(((buffer.ours - rest) * weight).sum()) / size
    if buffer.ratio(rest + value * weight) > 1:
        return None
    return value, buffer.allowed / largest


def _momentum(off: list[_Buffer]) -> Iterator[Cause]:
    """Another momentum, one for all; beside it maybe a biased variance."""
    found = [(b, _solved(b, b.statistic - b.before, b.before)) for b in off]
    known = [(b, s) for b, s in found if s is not None]
    if not known:
        return
    _, (value, _) = min(known, key=lambda one: one[1][1])
    if any(abs(s[0] - value) > 2 * s[1] for _, s in known):
        return
    ratios = [b.ratio(b.before + value * (b.statistic - b.before)) for b in off]
    # layers that are right have PyTorch's
    if max(ratios) > 1:
        yield from _both(off, value)
        return
    m = off[0].momentum
    says = f"the running statistics of {listed(_layers(off))} move by {value:.6g} a step, not {m:g}"
    near = 2 * min(s[1] for _, s in known)
    kind = "momentum"
    if abs(value - (1 - m)) <= near:
        kind, says = "momentum turned round", f"{says}: PyTorch's momentum is the new one's weight"
    elif abs(value - (1 - (1 - m) ** 2)) <= near:
        kind, says = "moved twice", f"{says}: they are updated twice"
    yield Cause(kind, says, {"momentum": value}, max(ratios))


def _both(off: list[_Buffer], value: float) -> Iterator[Cause]:
    """Another momentum for the means, and for the variances with biased ones."""
    means = [b for b in off if b.name.endswith(MEAN)]
    variances = [b for b in off if b.name.endswith(VAR)]
    ratios = [b.ratio(b.before + value * (b.statistic - b.before)) for b in means]
    if not means or not variances or max(ratios) > 1:
        return
    for buffer in variances:
        count = _count(buffer, value)
        if count is None:
            return
        ratios.append(buffer.ratio(_biased(buffer, value, count)))
    if max(ratios) <= 1:
        says = (
            f"the running statistics of {listed(_layers(off))} move by {value:.6g} a step, not "
            f"{off[0].momentum:g}, and the variances are biased ones"
        )
        yield Cause("momentum, biased running variance", says, {"momentum": value}, max(ratios))


def _biased(buffer: _Buffer, momentum: float, count: int) -> np.ndarray:
    share = (count - 1) / count
    made: np.ndarray = (1 - momentum) * buffer.before + momentum * share * buffer.statistic
    return made


def _count(buffer: _Buffer, momentum: float, samples: int = 1) -> int | None:
    """Of how many values a biased variance is; None where it is none."""
    rest = (1 - momentum) * buffer.before
    solved = _solved(buffer, momentum * buffer.statistic, rest)
    if solved is None or not 0 < solved[0] < 1 or 1 - solved[0] <= _CLEARLY * solved[1]:
        return None
    share, near = solved
    count = max(2, samples * round(1 / (1 - share) / samples))
    return count if abs((count - 1) / count - share) <= 2 * near else None


def _variance(off: list[_Buffer], samples: int) -> Iterator[Cause]:
    """Another variance by the same momentum: biased, or its root."""
    if not all(b.name.endswith(VAR) for b in off):
        return
    names = listed([b.name for b in off])
    counts = [_count(b, b.momentum, samples) for b in off]
    known = [count for count in counts if count is not None]
    if len(known) == len(off):
        pairs = zip(off, known, strict=True)
        ratio = max(b.ratio(_biased(b, b.momentum, count)) for b, count in pairs)
        if ratio <= 1:
            of = listed([str(count) for count in known])
            says = f"{names}: of biased variances, of {of} values; PyTorch divides by one less"
            yield Cause("biased running variance", says, {"values": float(known[0])}, ratio)
    for which, shares in (("unbiased", [1.0] * len(off)), ("biased", _shares_of_roots(off))):
        ratios = [
            b.ratio((1 - b.momentum) * b.before + b.momentum * np.sqrt(b.statistic * share))
            for b, share in zip(off, shares, strict=True)
            if (b.statistic > 0).all() and share > 0
        ]
        if len(ratios) == len(off) and max(ratios) <= 1:
            says = f"{names}: of standard deviations ({which}), where PyTorch keeps variances"
            yield Cause("standard deviation kept", says, {}, max(ratios))


def _swapped(off: list[_Buffer], buffers: Mapping[str, _Buffer]) -> Iterator[Cause]:
    """Each statistic of a layer in the other's place."""
    ratios = []
    for buffer in off:
        twin = buffers.get(_other(buffer.name))
        if twin is None or not twin.off:
            return
        rest, weight = (1 - buffer.momentum) * buffer.before, buffer.momentum * twin.statistic
        solved = _solved(buffer, weight, rest)
        # the variance may be a biased one: of two values or more
        least = 1.0 if twin.name.endswith(MEAN) else 0.5
        if solved is None or not least - 2 * solved[1] <= solved[0] <= 1 + 2 * solved[1]:
            return
        ratios.append(buffer.ratio(rest + solved[0] * weight))
    says = f"mean and variance of {listed(_layers(off))} are swapped"
    yield Cause("mean and variance swapped", says, {}, max(ratios))


def _shares_of_roots(off: list[_Buffer]) -> list[float]:
    """By what each squared deviation is less than the unbiased variance; 0: by nothing known."""
    shares = []
    for b in off:
        root = (b.ours - (1 - b.momentum) * b.before) / b.momentum
        share = float(np.median(root**2 / np.where(b.statistic == 0, np.nan, b.statistic)))
        count = round(1 / (1 - share)) if 0 < share < 1 - 1e-9 else 0
        shares.append((count - 1) / count if count > 1 else 0.0)
    return shares


def _layers(off: list[_Buffer]) -> list[str]:
    return list(dict.fromkeys(b.layer for b in off))
