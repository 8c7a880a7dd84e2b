"""Why an optimizer's updates are not PyTorch's: the known differences that reproduce them all.

Every one is tried, alone and with every other one: first on few entries, then on more, in the end
on all. What must be a number is solved for.
"""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from twinstep.port.causes.update_base import rule_of
from twinstep.port.causes.update_differences import Difference, differences, partners
from twinstep.port.causes.update_entries import Entries, entries_of, sizes_of
from twinstep.port.causes.update_events import events
from twinstep.port.causes.update_fit import apply, determined, rounded, solve, worst
from twinstep.port.causes.update_leaves import leafwise
from twinstep.port.causes.update_rates import OTHER, Change, rates
from twinstep.port.causes.update_steps import Rule, fits
from twinstep.port.updates import Cause, Updates

# Of all leaves together. A rule has at most a few numbers for all: even the first over-determines
# them, and what fits the first by accident does not fit the second.
_SEARCHED, _CONFIRMED = 256, 4096
# What does not fit the first updates fits no more of them: solving on these alone spares most time.
_FIRST = 4


@dataclass(frozen=True)
class _Candidate:
    """Differences, by kind and in words, and the rule that has them."""

    rule: Rule
    kinds: tuple[str, ...] = ()
    says: tuple[str, ...] = ()
    values: Mapping[str, float] = field(default_factory=dict)
    freedom: int = 0

    @property
    def vague(self) -> bool:
        return OTHER in self.kinds

    def then(self, change: Change) -> "_Candidate":
        """With one difference more."""
        return _Candidate(
            change.rule,
            (*self.kinds, change.kind),
            (*self.says, change.says),
            {**self.values, **change.values},
            self.freedom + change.freedom,
        )


_WRITTEN = 4
"""So many digits at most has a number that is written by hand."""


def causes_of(updates: Updates, allowed: Mapping[str, np.ndarray]) -> list[Cause]:
    """The known differences from PyTorch's rule that reproduce all updates of all leaves.

    Args:
        updates: What a port's optimizer did, and what PyTorch's would have used.
        allowed: {leaf: (T,)}, how far rounding may take an entry of a parameter at each update.

    Returns:
        Causes whose ratio is at most 1, the simplest first: one difference before two. Several, if
        several fit alike; none where PyTorch's own rule fits, or no known one.

    Example:
        >>> import numpy as np
        >>> from twinstep.port.updates import Updates
        >>> grads = np.random.default_rng(0).normal(size=(3, 5))
        >>> params = np.cumsum(np.concatenate([np.ones((1, 5)), -0.2 * grads]), 0)
        >>> updates = Updates("SGD", {"w": {"lr": np.full(3, 0.1)}}, {"w": grads}, {"w": params})
        >>> [cause.says for cause in causes_of(updates, {"w": np.full(3, 1e-15)})]
        ['the gradients are multiplied by 2', 'learning rate: it is 0.2, not 0.1']
    """
    rule = rule_of(updates)
    if rule is None or len(updates) == 0:
        return []
    return _Search(updates, allowed, rule).causes()


def _likely(cause: Cause) -> bool:
    """Whether somebody may have written it.

    Of two numbers that were solved for one at least is written in a few digits; else they make up
    for each other, as a limit and an eps do under Adam.
    """
    written = [value == float(f"{value:.{_WRITTEN}g}") for value in cause.values.values()]
    return len(written) != 2 or any(written)


class _Search:
    """One search: the same entries for every rule."""

    def __init__(self, updates: Updates, allowed: Mapping[str, np.ndarray], rule: Rule) -> None:
        self.updates, self.rule = updates, rule
        self.names = [*updates.grads]
        # no smaller than the smallest change that a stored number can make
        self.allowed = {name: np.maximum(allowed[name], 1e-150) for name in self.names}
        self.sizes = sizes_of(updates)
        self.few = self._entries(_SEARCHED)
        self.more = self._entries(_CONFIRMED)
        self.first = self.few.until(_FIRST)

    def _entries(self, most: int) -> Entries:
        each = max(most // len(self.names), 2)
        return entries_of(self.updates, self.allowed, self.sizes, self.names, each)

    def causes(self) -> list[Cause]:
        if fits(self.rule, self.more) or not np.isfinite(self.few.updates).all():
            return []
        start = _Candidate(self.rule)
        still = np.flatnonzero(np.all(np.abs(self.few.updates) <= self.few.allowed, axis=1))
        known = differences(self.rule, self.updates, [int(t) for t in still])
        found = self._judged(self._singles(start, known))
        if not [one for one, _ in found if not one.vague]:
            found += self._judged(self._pairs(start, [one for one in known if not one.alone]))
        return [cause for one in _simplest(found) if _likely(cause := _cause(*one))]

    def _singles(self, start: _Candidate, known: Sequence[Difference]) -> Iterator[_Candidate]:
        for one in known:
            yield from self._with(start.rule, [one])
        yield from self._repaired(start)

    def _pairs(self, start: _Candidate, known: Sequence[Difference]) -> Iterator[_Candidate]:
        for pair in itertools.combinations(known, 2):
            if not pair[0].touches(pair[1]):
                yield from self._with(start.rule, pair)
        for one in known:
            for partner in partners(start.rule, one, known):
                yield from self._with(start.rule, [one, partner])
        for one in known:
            yield from self._with_repair(one)

    def _with(self, rule: Rule, pair: Sequence[Difference]) -> Iterator[_Candidate]:
        """A rule with differences, if it fits."""
        changed = _changed(rule, pair)
        free = [one.free for one in pair if one.free]
        values = {name: value for one in pair for name, value in one.values.items()}
        if free:
            solved = self._solved(changed, free)
            if solved is None:
                return
            found = rounded(changed, solved, self.more)
            if not determined(changed, found, self.more):
                return
            changed = apply(changed, found)
            values |= found
        if fits(changed, self.few) and not _clips_nothing(changed, self.few):
            yield _candidate(changed, rule, pair, values)

    def _solved(
        self, rule: Rule, free: Sequence[str], leaves: Sequence[int] = (), projected: bool = False
    ) -> dict[str, float] | None:
        """The numbers that fit few entries, of some leaves or all."""
        first, few = self.first, self.few
        if leaves:
            first, few = first.of(leaves), few.of(leaves)
        if len(self.updates) > _FIRST and solve(rule, free, first, projected) is None:
            return None
        return solve(rule, free, few, projected)

    def _repaired(self, candidate: _Candidate) -> Iterator[_Candidate]:
        """With other learning rates, one update or some leaves treated otherwise."""
        for change in rates(candidate.rule, self.few):
            yield candidate.then(change)
        for change in events(candidate.rule, self.few):
            yield candidate.then(change)
        for change in leafwise(candidate.rule, self.few, self.names):
            yield candidate.then(change)

    def _with_repair(self, one: Difference) -> Iterator[_Candidate]:
        changed = _changed(self.rule, [one])
        if not one.free:
            yield from self._repaired(_candidate(changed, self.rule, [one], {}))
            return
        solved = self._solved(changed, [one.free], projected=True)
        if solved is not None:
            values = rounded(changed, solved, self.few, projected=True)
            candidate = _candidate(apply(changed, values), self.rule, [one], values)
            for change in rates(candidate.rule, self.few):
                yield candidate.then(change)
        for leaves in self._alike():
            solved = self._solved(changed, [one.free], leaves)
            if solved is not None:
                values = rounded(changed, solved, self.few.of(leaves))
                candidate = _candidate(apply(changed, values), self.rule, [one], values)
                for change in leafwise(candidate.rule, self.few, self.names):
                    yield candidate.then(change)

    def _alike(self) -> list[list[int]]:
        """Groups of leaves, one of which may be as PyTorch has it where others are not."""
        settings = [
            [np.asarray(value).tobytes() for value in self.updates.settings[name].values()]
            for name in self.names
        ]
        groups: dict[str, list[int]] = {}
        for index, key in enumerate(settings):
            groups.setdefault(str(key), []).append(index)
        moved = np.abs(self.few.updates / self.few.allowed).max(0)
        by_leaf = np.maximum.reduceat(moved, self.few.starts)
        surest = [[int(self.few.leaf[self.few.starts][i])] for i in np.argsort(-by_leaf)[:2]]
        return [group for group in groups.values() if len(groups) > 1] + surest

    def _judged(self, candidates: Iterator[_Candidate]) -> list[tuple[_Candidate, float]]:
        """Those that make all entries, and how far they are off; leaf by leaf, to spare memory."""
        kept: list[tuple[_Candidate, float]] = []
        for one in candidates:
            if not fits(one.rule, self.more):
                continue
            ratio = 0.0
            forms = one.rule.forms
            across = forms["trust"] != "" and self.sizes.groups["leaf"].across
            together = forms["update_clip"] != "" or across
            for names in [self.names] if together else [[name] for name in self.names]:
                entries = entries_of(self.updates, self.allowed, self.sizes, names)
                ratio = max(ratio, worst(one.rule, entries))
                if not ratio <= 1:
                    break
            else:
                kept.append((one, ratio))
        return kept


def _changed(rule: Rule, pair: Sequence[Difference]) -> Rule:
    for one in pair:
        rule = rule.but(one.changes)
    return rule


def _clips_nothing(rule: Rule, entries: Entries) -> bool:
    """Whether a rule that clips updates fits as well if it does not: its limit is never reached."""
    return rule.forms["update_clip"] != "" and fits(rule.but({"update_clip": ""}), entries)


def _candidate(
    changed: Rule, rule: Rule, pair: Sequence[Difference], values: Mapping[str, float]
) -> _Candidate:
    return _Candidate(
        changed,
        tuple(one.kind for one in pair),
        tuple(_said(one, rule, values) for one in pair),
        values,
        len(values),
    )


def _said(one: Difference, rule: Rule, values: Mapping[str, float]) -> str:
    """A difference in words, with the value that fits."""
    if not one.free:
        return one.says
    value = f"{values[one.free]:.12g}"
    if one.kind == f"another {one.free}":
        before = rule.numbers[one.free]
        return f"{one.free} is {value}, not {before.max():.12g}"
    return f"{one.says} {value}"


def _simplest(found: list[tuple[_Candidate, float]]) -> list[tuple[_Candidate, float]]:
    """In order, and one of those that are the same rule.

    A different learning rate at each update says least: only where nothing else fits.
    """
    plain = [one for one in found if not one[0].vague] or found
    fewest = min((len(one.kinds) for one, _ in plain), default=0)
    plain = [one for one in plain if len(one[0].kinds) == fewest]
    kept: list[tuple[_Candidate, float]] = []
    for one in sorted(plain, key=lambda one: one[0].freedom):
        if not any(_same(one[0].rule, other.rule) for other, _ in kept):
            kept.append(one)
    return kept


def _same(rule: Rule, other: Rule) -> bool:
    """Whether two rules are one, however their numbers are laid out."""
    if (rule.core, rule.forms) != (other.core, other.forms):
        return False
    pairs = [(rule.numbers[name], other.numbers[name]) for name in rule.numbers]
    return all(bool(np.all(one == two)) for one, two in pairs)


def _cause(candidate: _Candidate, ratio: float) -> Cause:
    return Cause(
        "; ".join(candidate.kinds), "; ".join(candidate.says), dict(candidate.values), ratio
    )
