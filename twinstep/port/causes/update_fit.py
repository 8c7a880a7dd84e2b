"""Numbers of a rule solved for: which value makes it do what was done, and the roundest such."""

import itertools
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from twinstep.port.causes.update_entries import Entries
from twinstep.port.causes.update_steps import Rule, allowance, is_unsure, noise, predict

# Starts for the numbers that count from 1 down (moments' decays and the like), in 1 - x: a solution
# far from all is not found, so they lie a factor of about 3 apart.
_SHARES = np.array([0.0, 0.3, 0.5, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99, 0.997, 0.999, 0.9999])
_AMOUNTS: Mapping[str, np.ndarray] = {
    "eps": np.logspace(-15, 0, 16),
    "eps_root": np.logspace(-17, 0, 18),
    "weight_decay": np.logspace(-6, 0, 13),
    "factor": np.logspace(-4, 4, 17),
    "lr_decay": np.logspace(-4, 1, 11),
    "momentum_decay": np.logspace(-4, 0, 9),
    "initial": np.logspace(-8, 2, 11),
}
_ITERATIONS = 14
_STARTS = 4
# From a start that leads to a solution, each step takes away more of what is squared than this.
_FALL = 0.8
# For slopes: its own error slows the last steps a little, rounding's is 1e-11 of the updates.
_NUDGE = 1e-5


def off(rule: Rule, made: np.ndarray, entries: Entries) -> np.ndarray:
    """How far a rule's updates (T, B, N) are off, as parts of what rounding explains."""
    parts = (made - entries.updates[:, None]) / allowance(rule, entries)
    return np.nan_to_num(parts, nan=1e100, posinf=1e100, neginf=-1e100)


def worst(rule: Rule, entries: Entries) -> float:
    """The largest part that a rule is off by."""
    made = predict(rule, entries)
    found = float(np.abs(off(rule, made, entries)).max())
    if found <= 1 or not is_unsure(rule, entries):
        return found
    gaps = np.abs(made - entries.updates[:, None])
    return float((gaps / (allowance(rule, entries) + noise(rule, entries))).max())


def factors(made: np.ndarray, entries: Entries) -> np.ndarray:
    """What each update (T, B, N) is to be multiplied with to come nearest, (T, B, 1)."""
    with np.errstate(all="ignore"):
        weights = entries.allowed[:, None] ** -2.0
        weights = weights / weights.max()
        above = (weights * made * entries.updates[:, None]).sum(-1, keepdims=True)
        ratio: np.ndarray = above / (weights * made * made).sum(-1, keepdims=True)
    return np.where(np.isfinite(ratio), ratio, 1.0)


def apply(rule: Rule, values: Mapping[str, np.ndarray | float]) -> Rule:
    """A rule with other numbers, each for all leaves; but no leaf decays that did not."""
    changes = {}
    for name, value in values.items():
        column = np.asarray(value, np.float64).reshape(1, -1, 1)
        before = rule.numbers[name]
        if name == "weight_decay" and before.any():
            column = np.where(before != 0, column, 0.0)
        changes[name] = column
    return rule.but(changes)


def solve(
    rule: Rule, free: Sequence[str], entries: Entries, projected: bool = False
) -> dict[str, float] | None:
    """The numbers with which a rule makes all updates to rounding.

    Args:
        rule: The rule.
        free: What is to be solved for, one number or two.
        entries: What to try it on.
        projected: Whether each update may be any multiple of what the rule makes.

    Returns:
        {name: number}; None: there are none.
    """

    def residuals(z: np.ndarray) -> np.ndarray:  # (B, K) -> (B, T N)
        values = {name: _number(name, z[:, k]) for k, name in enumerate(free)}
        changed = apply(rule, values)
        made = predict(changed, entries)
        made = np.broadcast_to(made, (len(made), len(z), made.shape[2]))
        if projected:
            made = made * factors(made, entries)
        return np.moveaxis(off(changed, made, entries), 1, 0).reshape(len(z), -1)

    grids = [_coordinate(name, _grid(name, rule, entries)) for name in free]
    starts = np.array(list(itertools.product(*grids)))
    with np.errstate(all="ignore"):
        costs = (residuals(starts) ** 2).sum(1)
        found = _gauss_newton(residuals, starts[np.argsort(costs)[:_STARTS]], _size(entries))
    if found is None:
        return None
    return {name: float(_number(name, z)) for name, z in zip(free, found, strict=True)}


def determined(rule: Rule, values: Mapping[str, float], entries: Entries) -> bool:
    """Whether no value that was solved for might as well be another: e times it, or as far as that.

    A limit that is never reached may be any.
    """
    for name, value in values.items():
        if value == 0:
            continue
        other = _number(name, _coordinate(name, np.asarray(value)) + 1.0)
        if worst(apply(rule, {**values, name: other}), entries) <= 1:
            return False
    return True


def _size(entries: Entries) -> float:
    """Of all updates together, as parts of what rounding explains."""
    return float(np.linalg.norm(entries.updates / entries.allowed))


def _gauss_newton(
    residuals: Callable[[np.ndarray], np.ndarray], z: np.ndarray, size: float
) -> np.ndarray | None:
    """Where no residual is above 1, from some starts (S, K); None where no start leads there."""
    now = residuals(z)
    count = z.shape[1]
    for _ in range(_ITERATIONS):
        moved = (z[:, None] + _NUDGE * np.eye(count)).reshape(-1, count)
        slopes = (residuals(moved).reshape(len(z), count, -1) - now[:, None]) / _NUDGE
        scale = np.linalg.norm(slopes, axis=2)
        # a number that changes nothing but rounding stays where it is
        scale = np.where((scale > 1e-10 * size) & np.isfinite(scale), scale, np.inf)
        unit = np.nan_to_num(slopes / scale[..., None])
        gram = np.einsum("skm,slm->skl", unit, unit) + 1e-14 * np.eye(count)
        towards = np.einsum("skm,sm->sk", unit, now)
        step = -np.linalg.solve(gram, towards[..., None])[..., 0] / scale
        step = step * np.minimum(1.0, 3.0 / np.abs(step).max(1, keepdims=True, initial=1e-300))
        tried = z[:, None] + np.array([1.0, 0.4, 0.1])[:, None] * step[:, None]
        results = residuals(tried.reshape(-1, count)).reshape(len(z), 3, -1)
        best = np.argmin((results**2).sum(2), axis=1)
        rows = np.arange(len(z))
        after = results[rows, best]
        cost, before = (after**2).sum(1), (now**2).sum(1)
        done = np.abs(now).max(1) <= 1
        if (done & ~(cost < before)).any():
            return z[int(np.argmax(done & ~(cost < before)))]
        falls = cost < np.where(done, 1.0, _FALL) * before
        z, now = tried[rows, best][falls], after[falls]
        if not len(z):
            return None
    done = np.abs(now).max(1) <= 1
    return z[int(np.argmax(done))] if done.any() else None


def rounded(
    rule: Rule, values: Mapping[str, float], entries: Entries, projected: bool = False
) -> dict[str, float]:
    """The values with the fewest digits that fit about as well."""

    def ratio(candidate: Mapping[str, float]) -> float:
        changed = apply(rule, candidate)
        made = predict(changed, entries)
        scale = factors(made, entries) if projected else 1.0
        return float(np.abs(off(changed, made * scale, entries)).max())

    # half of what rounding explains: honest updates are within .36 of it, so a value may go there
    limit = max(0.5, 1.5 * ratio(values))
    best = dict(values)
    for name, value in values.items():
        for short in (0.0, *(float(f"{value:.{digits}e}") for digits in range(14))):
            candidate = best | {name: short}
            if ratio(candidate) <= min(limit, 1.0):
                best = candidate
                break
    return best


def _number(name: str, z: np.ndarray | float) -> np.ndarray:
    return np.exp(z) if _is_amount(name) else -np.expm1(-np.asarray(z))


def _coordinate(name: str, values: np.ndarray) -> np.ndarray:
    return np.log(values) if _is_amount(name) else -np.log1p(-values)


def _is_amount(name: str) -> bool:
    return name in _AMOUNTS or name == "limit"


def _grid(name: str, rule: Rule, entries: Entries) -> np.ndarray:
    if name != "limit":
        return _AMOUNTS.get(name, _SHARES)
    sizes = entries.sizes
    if rule.forms["clip"] == "adaptive":
        return np.logspace(-4, 1, 24)
    if rule.forms["clip"] == "value":
        largest = max(float(sizes.largest.max()), 1e-30)
        return np.geomspace(largest * 1e-4, largest * 0.999, 24)
    norms = np.sqrt(sizes.grads)
    whole = np.sqrt(sizes.grads.sum(1)) if sizes.together is None else sizes.together
    positive = norms[norms > 0]
    low = positive.min() * 0.3 if positive.size else 1e-6
    return np.geomspace(low, max(whole.max(), 1.01 * low) * 1.1, 32)
