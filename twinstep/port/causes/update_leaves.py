"""Leaves that are treated otherwise than the rest: which, and how."""

from collections.abc import Iterator, Sequence

import numpy as np

from twinstep.port.causes.update_differences import listed
from twinstep.port.causes.update_entries import Entries
from twinstep.port.causes.update_fit import off, rounded, solve
from twinstep.port.causes.update_rates import Change
from twinstep.port.causes.update_steps import Rule, fits, predict

_EVIDENCE = 100
"""A leaf tells of a rule if its updates are this many times what rounding explains"""


def leafwise(rule: Rule, entries: Entries, names: Sequence[str]) -> list[Change]:
    """What makes all updates to rounding, where a rule already makes those of some leaves.

    Args:
        rule: The rule.
        entries: What to try it on.
        names: Of the leaves.
    """
    made = predict(rule, entries)
    starts = entries.starts
    here = entries.leaf[starts]
    parts = np.maximum.reduceat(np.abs(off(rule, made, entries)[:, 0]).max(0), starts)
    moved = np.maximum.reduceat(np.abs(entries.updates / entries.allowed).max(0), starts)
    wrong = [int(leaf) for leaf, part in zip(here, parts, strict=True) if not part <= 1]
    if not wrong or not np.any((parts <= 1) & (moved > _EVIDENCE)):
        return []
    some = entries.of(wrong)
    tried = [*_options(rule, some, made[:, 0], entries, wrong)]
    where = listed([names[leaf] for leaf in wrong])
    return [one._replace(says=f"{one.says}: {where}") for one in tried if fits(one.rule, entries)]


def _options(
    rule: Rule, some: Entries, made: np.ndarray, entries: Entries, wrong: list[int]
) -> Iterator[Change]:
    lr, decay = rule.numbers["lr"], rule.numbers["weight_decay"]
    leaves = some.sizes.grads.shape[1]
    if np.all(np.abs(some.updates) <= some.allowed):
        still = {"lr": _on(lr, wrong, 0.0, leaves), "weight_decay": _on(decay, wrong, 0.0, leaves)}
        yield Change("leaves frozen", "some leaves do not move", rule.but(still), {}, 0)
        return
    yield from _scaled_rates(rule, made, entries, wrong)
    none = rule.but({"weight_decay": _on(decay, wrong, 0.0, leaves)})
    yield Change("decay missing on leaves", "some leaves do not decay", none, {}, 0)
    largest = float(decay.max())
    if largest:
        others = rule.but({"weight_decay": _on(decay, wrong, largest, leaves)})
        says = f"some leaves decay by {largest:g} that do not"
        yield Change("decay added on leaves", says, others, {}, 0)
    yield from _solved(rule, "weight_decay", "decay of leaves", some, wrong)
    if rule.forms["clip"]:
        free = rule.but({"limit": _on(rule.numbers["limit"], wrong, np.inf, leaves)})
        yield Change("leaves not clipped", "some leaves are not clipped", free, {}, 0)


def _on(value: np.ndarray, leaves: list[int], other: np.ndarray | float, count: int) -> np.ndarray:
    """A number that is another one on some leaves, and as it was on the rest."""
    spread = np.broadcast_to(value, (*value.shape[:2], count)).copy()
    spread[..., leaves] = other
    return spread


def _scaled_rates(
    rule: Rule, made: np.ndarray, entries: Entries, wrong: list[int]
) -> Iterator[Change]:
    """One factor of the learning rate for each of some leaves, over all updates."""
    lr = rule.numbers["lr"]
    count = entries.sizes.grads.shape[1]
    spread = np.broadcast_to(lr, (*lr.shape[:2], count)).copy()
    found: dict[int, float] = {}
    for leaf in wrong:
        of = entries.leaf == leaf
        weights = entries.allowed[:, of] ** -2.0
        weights = weights / weights.max()
        below = float((weights * made[:, of] ** 2).sum())
        if not below > 0 or not np.isfinite(below):
            return
        factor = float((weights * made[:, of] * entries.updates[:, of]).sum()) / below
        for digits in range(1, 16):
            short = float(f"{factor:.{digits - 1}e}")
            off_by = np.abs(short * made[:, of] - entries.updates[:, of])
            if np.all(off_by <= entries.allowed[:, of]):
                break
        else:
            return
        found[leaf] = short
        spread[..., leaf] *= short
    factors = sorted(set(found.values()))
    said = listed([f"{factor:g}" for factor in factors])
    values = {"learning rate's factor" + (f" {i}" if i else ""): f for i, f in enumerate(factors)}
    says = f"the learning rate of some leaves is multiplied by {said}"
    yield Change("learning rate of leaves", says, rule.but({"lr": spread}), values, len(factors))


def _solved(rule: Rule, name: str, kind: str, some: Entries, wrong: list[int]) -> Iterator[Change]:
    """A number that is another one on some leaves, solved for on them."""
    count = some.sizes.grads.shape[1]
    alone = rule.but({name: np.zeros((1, 1, 1))})
    values = solve(alone, [name], some)
    if values is None:
        return
    value = rounded(alone, values, some)[name]
    changed = rule.but({name: _on(rule.numbers[name], wrong, value, count)})
    yield Change(kind, f"{name} is {value:.12g} on some leaves", changed, {name: value}, 1)
