"""Learning rates that differ: solved for update by update, then named."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from twinstep.port.causes.update_entries import Entries
from twinstep.port.causes.update_fit import factors, off
from twinstep.port.causes.update_steps import Rule, fits, predict


class Change(NamedTuple):
    """A difference that fits: the rule with it, what was solved for, and how many numbers."""

    kind: str
    says: str
    rule: Rule
    values: dict[str, float]
    freedom: int


OTHER = "another learning rate at each update"


def rates(rule: Rule, entries: Entries) -> list[Change]:
    """The learning rates with which a rule makes all updates to rounding; the simplest names."""
    count = len(entries.updates)
    given = rule.numbers["lr"]
    lr = np.broadcast_to(given, (count, *given.shape[1:]))
    filled = np.where(lr == 0, np.abs(lr).max(), lr)  # nothing times a factor is nothing
    made = predict(rule.but({"lr": filled}), entries)
    ratio = factors(made, entries)
    if not np.abs(off(rule, made * ratio, entries)).max() <= 1:
        return []
    # an update that rounding explains says nothing of its learning rate
    told = np.any(np.abs(made[:, 0]) > 4 * entries.allowed, axis=1)
    solved = np.where(told[:, None, None], filled * ratio, lr)
    found: dict[str, Change] = {}  # the first of each kind: the shortest epoch
    for one in _named(rule, lr, solved, entries):
        if one.kind not in found and fits(one.rule, entries):
            found[one.kind] = one
    if found:
        return [*found.values()]
    every = _other(rule, solved)
    return [every] if fits(every.rule, entries) else []


def _named(rule: Rule, lr: np.ndarray, solved: np.ndarray, entries: Entries) -> Iterator[Change]:
    count = len(lr)
    yield from _scaled(rule, lr, solved, entries)
    if count < 2:
        return
    if np.ptp(lr, axis=0).any():
        yield _change(rule, "learning rate not scheduled", "it stays at the first", lr[:1])
    early = np.concatenate([lr[1:], solved[-1:]])
    yield _change(rule, "schedule one update early", "each update has the next one's", early)
    for begin in (lr[:1], solved[:1]):
        late = np.concatenate([begin, lr[:-1]])
        yield _change(rule, "schedule one update late", "each update has the last one's", late)
    for first in range(1, count):
        again = np.concatenate([lr[:first], lr[: count - first]])
        says = f"its schedule starts again at update {first}"
        yield _change(rule, "schedule started again", says, again)
    for length in range(2, count):
        epochs = np.arange(count) // length
        says = f"it is held for {length} updates"
        yield _change(rule, "schedule held", says, lr[epochs * length])
        yield _change(rule, "schedule by epoch", f"{says}, and moves by one then", lr[epochs])
    for t in np.flatnonzero(np.all(np.abs(solved) <= 1e-9 * np.abs(lr), axis=(1, 2))):
        zero = lr.copy()
        zero[t] = 0
        says = f"that of update {t} is 0, and its state moves on"
        yield _change(rule, "update not applied", says, zero)
    start = float(solved[0, 0, 0])
    if np.ptp(lr, axis=0).any() and np.ptp(solved) < 1e-2 * abs(start):
        value = _round(rule, np.ones_like(lr), start, entries)
        says = f"learning rate: it is always {value.flat[0]:g}"
        values = {"lr": float(value.flat[0])}
        yield Change("constant learning rate", says, rule.but({"lr": value}), values, 1)


def _change(rule: Rule, kind: str, says: str, lr: np.ndarray) -> Change:
    return Change(kind, f"learning rate: {says}", rule.but({"lr": lr}), {}, 0)


def _scaled(rule: Rule, lr: np.ndarray, solved: np.ndarray, entries: Entries) -> Iterator[Change]:
    """All multiplied with one factor, if they are."""
    ratio = solved[lr != 0] / lr[lr != 0]
    factor = float(np.median(ratio)) if ratio.size else 0.0
    if factor == 0 or not np.ptp(ratio) <= 1e-2 * abs(factor):
        return
    value = _round(rule, lr, factor, entries)
    largest = np.argmax(np.abs(lr))
    factor = float(f"{value.flat[largest] / lr.flat[largest]:.14g}")
    says = f"learning rate: it is multiplied by {factor:g}"
    if not np.ptp(lr):
        says = f"learning rate: it is {float(value.flat[0]):g}, not {float(lr.flat[0]):g}"
    momentum = float(rule.numbers["momentum"].max())
    if rule.core == "sgd" and momentum and abs(factor / (1 - momentum) - 1) < 1e-6:
        says += f", as if momentum averaged: the factor is 1 - {momentum:g}"
    values = {"learning rate's factor": factor}
    yield Change("learning rate scaled", says, rule.but({"lr": value}), values, 1)


def _round(rule: Rule, lr: np.ndarray, factor: float, entries: Entries) -> np.ndarray:
    """Learning rates times a factor; it, or the one rate that they all are, in few digits."""
    constant = not np.ptp(lr)
    value = float(lr.flat[0]) * factor if constant else factor
    made = lr * factor
    for digits in range(1, 17):
        short = float(f"{value:.{digits - 1}e}")
        made = np.full_like(lr, short) if constant else lr * short
        if fits(rule.but({"lr": made}), entries):
            return made
    return made


def _other(rule: Rule, lr: np.ndarray) -> Change:
    shown = ", ".join(f"{value:.4g}" for value in lr[:8, 0, 0]) + (", ..." if len(lr) > 8 else "")
    says = f"each update is a multiple of this rule's, as with the learning rates {shown}"
    values = {f"lr at {t}": float(value) for t, value in enumerate(lr[:, 0, 0])}
    return Change(OTHER, says, rule.but({"lr": lr}), values, len(lr))
