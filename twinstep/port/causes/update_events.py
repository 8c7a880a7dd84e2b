"""What goes wrong at one update alone: which one, and what it is.

It is the first that a rule does not make: no other is tried.
"""

from collections.abc import Iterator

import numpy as np

from twinstep.port.causes.update_entries import Entries
from twinstep.port.causes.update_rates import Change
from twinstep.port.causes.update_steps import Rule, allowance, fits, steps

_COUNTED = ("adam", "nadam", "radam", "adamax", "yogi", "adan")
"""Rules that correct a bias by the update's number"""


def events(rule: Rule, entries: Entries) -> list[Change]:
    """What makes all updates to rounding, where a rule makes those before one.

    Args:
        rule: The rule.
        entries: What to try it on.

    Returns:
        The changes; several, if several fit alike; none where the first update is off already.
    """
    found = _first_off(rule, entries)
    if found is None:
        return []
    t, made = found
    tried = [*_of_state(rule, t), *_returned(rule, entries, t), *_scaled(rule, entries, t, made)]
    return [one for one in tried if fits(one.rule, entries)]


def _first_off(rule: Rule, entries: Entries) -> tuple[int, np.ndarray] | None:
    """The first update that a rule does not make, and what it makes of it, (N,)."""
    allowed = allowance(rule, entries)
    for t, made in enumerate(steps(rule, entries)):
        if not np.all(np.abs(made - entries.updates[t]) <= allowed[t]):
            return (t, np.broadcast_to(made[0], entries.updates[t].shape)) if t else None
    return None


def _of_state(rule: Rule, t: int) -> Iterator[Change]:
    stale = rule.but({"stale": t})
    yield Change("stale gradients", f"update {t} is of the gradients before", stale, {}, 0)
    if rule.core in _COUNTED:
        reset = rule.but({"reset": t, "reset_counts": False})
        says = f"the moments are zeros again at update {t}, and their count goes on"
        yield Change("moments reset", says, reset, {}, 0)


def _returned(rule: Rule, entries: Entries, t: int) -> Iterator[Change]:
    """Parameters as they were before, as if a checkpoint had been read."""
    now = entries.params
    stood_still = np.all(np.abs(entries.updates) <= entries.allowed, axis=1)
    for back in range(t - 1, -1, -1):
        if np.all(np.abs(now[t + 1] - now[back]) <= entries.allowed[t]) and not stood_still[t]:
            says = f"update {t} takes the parameters back to those before update {back}"
            changed = {
                with_state: rule.but({"returned": (t, back, with_state)})
                for with_state in (False, True)
            }
            fitting = [with_state for with_state, one in changed.items() if fits(one, entries)]
            if len(fitting) == 1:  # else nothing tells
                says += ", the optimizer's state too" if fitting[0] else ", the state moves on"
            for with_state in fitting[:1]:
                yield Change("parameters of before", says, changed[with_state], {}, 0)
            return


def _scaled(rule: Rule, entries: Entries, t: int, made: np.ndarray) -> Iterator[Change]:
    """The update by a factor, while what it leaves in the state is right."""
    was, allowed = entries.updates[t], entries.allowed[t]
    with np.errstate(all="ignore"):
        weights = (allowed.min() / allowed) ** 2
        factor = float((weights * made * was).sum() / (weights * made * made).sum())
    if not np.isfinite(factor):
        return
    for digits in range(1, 16):
        short = float(f"{factor:.{digits - 1}e}")
        if np.all(np.abs(short * made - was) <= allowed):
            break
    else:
        return
    if short == 0:
        return  # an update that is not applied is one of the learning rates'
    known = {2.0: ", as if it was applied twice", -1.0: ": it goes upwards"}.get(short, "")
    says = f"update {t} is multiplied by {short:g}{known}"
    changed = rule.but({"times": {t: short}})
    yield Change("one update scaled", says, changed, {"factor of the update": short}, 1)
