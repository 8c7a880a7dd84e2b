"""Numbers of a rule solved for: which value makes it do what was done, and the roundest such value."""

import itertools
from collections.abc import Mapping, Sequence

import numpy as np

from twinstep.port.update_entries import Entries
from twinstep.port.update_steps import Rule, predict

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
_ITERATIONS = 12
_STARTS = 3


def off(made: np.ndarray, entries: Entries) -> np.ndarray:
    """How far updates (T, B, N) are off, as parts of what rounding explains."""
    parts = (made - entries.updates[:, None]) / entries.allowed[:, None]
    return np.nan_to_num(parts, nan=1e150, posinf=1e150, neginf=-1e150)


def worst(rule: Rule, entries: Entries) -> float:
    """The largest part that a rule is off by."""
    return float(np.abs(off(predict(rule, entries), entries)).max())


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
        made = predict(apply(rule, values), entries)
        made = np.broadcast_to(made, (len(made), len(z), made.shape[2]))
        if projected:
            made = made * factors(made, entries)
        return np.moveaxis(off(made, entries), 1, 0).reshape(len(z), -1)

    grids = [_coordinate(name, _grid(name, rule, entries)) for name in free]
    starts = np.array(list(itertools.product(*grids)))
    with np.errstate(all="ignore"):
        costs = (residuals(starts) ** 2).sum(1)
        for start in starts[np.argsort(costs)[:_STARTS]]:
            found = _gauss_newton(residuals, start)
            if found is not None:
                return {name: float(_number(name, z)) for name, z in zip(free, found, strict=True)}
    return None


def _gauss_newton(residuals, start: np.ndarray) -> np.ndarray | None:
    """Where no residual is above 1; None where steps no longer lead there."""
    z, small = start, 1e-7
    now = residuals(z[None])[0]
    for _ in range(_ITERATIONS):
        moved = residuals(z + small * np.eye(z.size))
        slopes = (moved - now).T / small
        if not np.isfinite(slopes).all() or np.abs(slopes).max() > 1e100:
            return None
        scale = np.linalg.norm(slopes, axis=0)
        if (scale == 0).any():
            return None
        step = -np.linalg.lstsq(slopes / scale, now, rcond=None)[0] / scale
        step = step * min(1.0, 3.0 / np.abs(step).max(initial=1e-300))
        tried = z + np.array([1.0, 0.4, 0.1])[:, None] * step
        results = residuals(tried)
        costs = (results**2).sum(1)
        best = int(np.argmin(costs))
        done = np.abs(now).max() <= 1
        if not costs[best] < (now**2).sum() * (1 if done else 0.98):
            return z if done else None
        z, now = tried[best], results[best]
    return z if np.abs(now).max() <= 1 else None


def rounded(
    rule: Rule, values: Mapping[str, float], entries: Entries, projected: bool = False
) -> dict[str, float]:
    """The values with the fewest digits that fit about as well."""

    def ratio(candidate: Mapping[str, float]) -> float:
        made = predict(apply(rule, candidate), entries)
        return float(
            np.abs(off(made * (factors(made, entries) if projected else 1), entries)).max()
        )

    # half of what rounding explains: honest updates are within .36 of it, so a value may go there
    limit = max(0.5, 1.5 * ratio(values))
    best = dict(values)
    for name, value in values.items():
        for digits in range(1, 15):
            candidate = best | {name: float(f"{value:.{digits - 1}e}")}
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
    if rule.forms["clip"] == "value":
        largest = sizes.largest
        return np.geomspace(largest.max() * 1e-4, largest.max() * 0.999, 24)
    norms = np.sqrt(sizes.grads)
    whole = np.sqrt(sizes.grads.sum(1)) if sizes.together is None else sizes.together
    positive = norms[norms > 0]
    low = positive.min() * 0.3 if positive.size else 1e-6
    return np.geomspace(low, max(whole.max(), 1.01 * low) * 1.1, 32)
