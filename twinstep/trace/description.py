"""What was recorded, in one screen; and of two recordings, what cannot be the same.

Read piece by piece: a trace may be larger than the memory.
"""

import itertools
import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from twinstep.trace import dtypes
from twinstep.trace.stages import LEAVES

Metadata = Any
Trace = Any  # `ledger.Trace`, whose `summary` this is

MAX_LAYERS = 24
"""Lines of a model's tree: what is alike is drawn together, what is more is left out."""
_FLAGS = ("skipped", "renewed", "changed_outside")


@dataclass
class Range:
    """The numbers of some steps: the first, the last, the smallest, the largest, the changes."""

    first: float = math.nan
    last: float = math.nan
    low: float = math.inf
    high: float = -math.inf
    changes: int = 0

    def see(self, values: np.ndarray) -> None:
        """Takes the next ones."""
        if not len(values):
            return
        numbers = values.astype(float)
        before = self.last if math.isfinite(self.low) else numbers[0]
        self.first = numbers[0] if math.isnan(self.first) else self.first
        self.changes += int(np.sum(np.diff(numbers, prepend=before) != 0))
        self.last = float(numbers[-1])
        self.low = min(self.low, float(np.nanmin(numbers, initial=math.inf)))
        self.high = max(self.high, float(np.nanmax(numbers, initial=-math.inf)))

    def __str__(self) -> str:
        if not self.changes or math.isinf(self.low):  # or none of them is a number
            return f"{self.first:g}"
        first, last, low, high = (
            f"{value:.4g}" for value in (self.first, self.last, self.low, self.high)
        )
        if first == last == low == high:
            return first
        if {first, last} == {low, high}:
            return f"{first} to {last}"
        return f"{first} to {last}, between {low} and {high}"


@dataclass
class Description:
    """What a trace holds.

    Attributes:
        metadata, program: As of the trace.
        steps: How many updates.
        shapes: {parameter: its shape}.
        loss, losses: Over the steps; {optimizer: over its own}.
        optimizers: {name: how many updates}.
        settings: {"group.name": over the steps}.
        batch: {name: the shape of the first}.
        raw_norm, given_norm: Of all gradients, as they were backpropagated; as they were given
            where that is not the same.
        clipped: In how many updates it is not.
        passes: How many backward passes an update sums: {number: updates}.
        flags: {"renewed", ...: updates}.
        numbers: {stage: (leaves, numbers a step)}.
    """

    metadata: Metadata
    program: Mapping[str, Any] = field(default_factory=dict)
    steps: int = 0
    shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)
    loss: Range = field(default_factory=Range)
    losses: dict[str, Range] = field(default_factory=dict)
    optimizers: dict[str, int] = field(default_factory=dict)
    settings: dict[str, Range] = field(default_factory=dict)
    batch: dict[str, tuple[int, ...]] = field(default_factory=dict)
    raw_norm: Range = field(default_factory=Range)
    given_norm: Range = field(default_factory=Range)
    clipped: int = 0
    passes: Counter[int] = field(default_factory=Counter)
    flags: dict[str, int] = field(default_factory=dict)
    numbers: dict[str, tuple[int, int]] = field(default_factory=dict)

    def see(self, trace: Trace) -> None:
        """Takes the next steps."""
        self.program = trace.program or self.program
        self.steps += len(trace)
        self.shapes |= {name: array.shape[1:] for name, array in trace.params.items()}
        self.loss.see(trace.losses[trace.steps_of("loss", "loss") - trace.start])
        for name, counts in trace.update.items():
            held = self.flags if name in _FLAGS else self.optimizers
            held[name] = held.get(name, 0) + len(counts)
            if held is self.optimizers:
                rows = trace.steps_of("update", name) - trace.start
                self.losses.setdefault(name, Range()).see(trace.losses[rows])
        for name, values in trace.hyper_parameters.items():
            self.settings.setdefault(name, Range()).see(values)
        for name in trace.batch:
            for array in itertools.islice(trace.inputs.get(name, {}).values(), 1):
                self.batch.setdefault(name, array.shape)
        summed = (
            Counter(trace.steps_of("micro_losses", "loss").tolist()) if trace.micro_losses else {}
        )
        self.passes.update(summed.get(trace.start + row, 1) for row in range(len(trace)))
        self._norms(trace)
        for stage in LEAVES:
            leaves = trace.leaves(stage)
            if leaves:
                size = sum(math.prod(array.shape[1:]) for array in leaves.values())
                known = self.numbers.get(stage.name, (0, 0))
                self.numbers[stage.name] = max(known[0], len(leaves)), max(known[1], size)

    def _norms(self, trace: Trace) -> None:
        """Global norms of gradients, raw and given, at the steps where they are not the same."""
        squares = {"raw_grads": np.zeros(len(trace)), "grads": np.zeros(len(trace))}
        both = [leaf for leaf in trace.grads if leaf in trace.raw_grads]
        for stage, total in squares.items():
            for leaf in both:
                rows = trace.steps_of(stage, leaf) - trace.start
                array = dtypes.numbers(getattr(trace, stage)[leaf])
                flat = np.abs(array).reshape(len(array), -1).astype(float)
                np.add.at(total, rows, np.einsum("ij,ij->i", flat, flat))
        raw, given = np.sqrt(squares["raw_grads"]), np.sqrt(squares["grads"])
        differ = given != raw
        self.clipped += int(differ.sum())
        self.raw_norm.see(raw)
        self.given_norm.see(given[differ])

    def to_dict(self) -> dict[str, Any]:
        """It as plain JSON values; a number that JSON lacks (nan, inf) is a string.

        Returns:
            {name: value}; what changes over the steps as its first, last, smallest and largest.
        """

        def plain(value: Any) -> Any:
            if isinstance(value, Range):
                return {key: plain(one) for key, one in vars(value).items()}
            if isinstance(value, dict):
                return {str(key): plain(one) for key, one in value.items()}
            if isinstance(value, float) and not math.isfinite(value):
                return str(value)
            return [*value] if isinstance(value, tuple) else value

        return {key: plain(value) for key, value in vars(self).items() if key != "metadata"} | {
            "metadata": plain(vars(self.metadata))
        }

    def lines(self) -> list[str]:
        """It for people, a line each."""
        ran = self.metadata
        lines = [
            f"{ran.framework}, {ran.dtype} on {ran.device}: {self.steps} steps, loss {self.loss}"
        ]
        size = sum(map(math.prod, self.shapes.values()))
        lines += [f"model: {len(self.shapes)} parameters, {size} numbers", *self._tree()]
        lines += self._rules()
        if sum(self.passes.values()) > self.passes[1]:
            counted = ", ".join(f"{n} in {k}" for n, k in sorted(self.passes.items()))
            lines.append(f"backward passes an update: {counted}")
        if self.clipped:
            lines.append(
                f"gradients: changed before {self.clipped} updates; norm {self.raw_norm} as "
                f"backpropagated, {self.given_norm} as given there"
            )
        elif "raw_grads" in self.numbers and "grads" in self.numbers:
            given = "given as backpropagated" if self.knows_given else "not watched as given"
            lines.append(f"gradients: {given}; norm {self.raw_norm}")
        for flag, count in self.flags.items():
            lines.append(f"{_SAYS[flag]} {count} updates")
        if self.batch:
            parts = ", ".join(f"{name} {_shape(shape)}" for name, shape in self.batch.items())
            lines.append(f"batch: {parts}")
        if looked_at := self.program.get("looked_at"):
            lines.append(f"looked at by {looked_at}")
        held = ", ".join(f"{stage} {n} of {k}" for stage, (n, k) in self.numbers.items())
        return [*lines, f"leaves, and numbers a step: {held}"]

    @property
    def knows_given(self) -> bool:
        """Whether the gradients that optimizers are given were seen, and not only raw ones."""
        optimizers = self.program.get("optimizers", {}).values()
        seen = all("grads" in one.get("watched", ["grads"]) for one in optimizers)
        return seen and "raw_grads" in self.numbers and "grads" in self.numbers

    @property
    def knows_passes(self) -> bool:
        """Whether it was seen how many backward passes make an update.

        JAX's may be summed inside of what is compiled; of MultiSteps alone they are seen.
        """
        return self.metadata.framework != "jax" or max(self.passes, default=1) > 1

    def rule_of(self, optimizer: str) -> str:
        """What is known of an optimizer's rule: its class, or what its state is made of.

        Args:
            optimizer: Its name.

        Returns:
            It, for people; "" where nothing is known.
        """
        known = self.program.get("optimizers", {}).get(optimizer, {})
        if "state" not in known:
            return str(known.get("class", ""))
        unseen = "" if known["watched"] else ", not watched"
        return f"state {', '.join(known['state']) or 'none'}{unseen}"

    def _tree(self) -> list[str]:
        """A line a layer, with its parameters' shapes; of many the first ones."""
        modules, layers = self.program.get("modules", {}), dict[str, list[str]]()
        for name, shape in self.shapes.items():
            layer, _, leaf = name.rpartition(".")
            layers.setdefault(layer, []).append(f"{leaf} {_shape(shape)}")
        lines = [
            f"  {layer or '(root)'}{f': {modules[layer]}' if layer in modules else ''}: "
            f"{', '.join(leaves)}"
            for layer, leaves in layers.items()
        ]
        left = len(lines) - MAX_LAYERS
        return lines if left <= 1 else [*lines[:MAX_LAYERS], f"  and {left} more layers"]

    def _rules(self) -> list[str]:
        """Two lines an optimizer: its updates, its groups with what they are set to."""
        known, lines = self.program.get("optimizers", {}), []
        for name, count in self.optimizers.items():
            rule = self.rule_of(name)
            loss = f", loss {self.losses[name]}" if len(self.optimizers) > 1 else ""
            lines.append(f"{name}: {f'{rule}, ' if rule else ''}{count} updates{loss}")
            prefix = "" if f"{name}.0.lr" not in self.settings else f"{name}."
            groups = known.get(name, {}).get("groups") or [[]]
            for i, parameters in enumerate(groups):
                start = f"{prefix}{i}."
                values = [
                    f"{key.removeprefix(start)} {value}"
                    for key, value in self.settings.items()
                    if key.startswith(start)
                ]
                if values:
                    of = f" of {len(parameters)} parameters" if parameters else ""
                    lines.append(f"  group {i}{of}: {', '.join(values)}")
        return lines


_SAYS = {
    "skipped": "updates were skipped before",
    "renewed": "the optimizer was renewed before",
    "changed_outside": "something else changed parameters or state before",
}


def described(metadata: Metadata, chunks: Iterable[Trace]) -> Description:
    """What a trace holds, read piece by piece."""
    description = Description(metadata)
    for chunk in chunks:
        description.see(chunk)
    return description


def apart(one: Description, other: Description) -> list[str]:
    """What of two recordings cannot be the same, in a line each, before any value is compared."""
    lines = []
    mine, theirs = (
        Counter(tuple(sorted(shape)) for shape in side.shapes.values()) for side in (one, other)
    )
    if mine != theirs:
        only = [mine - theirs, theirs - mine]
        lengths = [{n for shape in shapes for n in shape} for shapes in only]
        differ = [sorted(lengths[0] - lengths[1]), sorted(lengths[1] - lengths[0])]
        if all(differ):
            lines.append(f"parameters: {_listed(differ[0])} units against {_listed(differ[1])}")
        for which, shapes in zip(("first", "second"), only, strict=True):
            if shapes:
                found = ", ".join(
                    f"{_shape(shape)}{f' {count} times' if count > 1 else ''}"
                    for shape, count in sorted(shapes.items())
                )
                lines.append(f"parameters: only the {which} has shapes (in any order) {found}")
    if one.metadata.dtype != other.metadata.dtype:
        lines.append(f"dtype: {one.metadata.dtype} against {other.metadata.dtype}")
    ours, samples = _samples(one), _samples(other)
    if ours and samples and ours != samples:
        lines.append(f"batch: {ours} samples against {samples}")
    lines += _loss_scale(one, other, ours or samples)
    lines += [
        f"{key}: {one.settings[key]} against {other.settings[key]}"
        for key in one.settings
        if key in other.settings and str(one.settings[key]) != str(other.settings[key])
    ]
    both = one.knows_given and other.knows_given
    if both and bool(one.clipped) != bool(other.clipped):
        which = "first" if one.clipped else "second"
        lines.append(f"gradients: only the {which} changes them before its updates")
    a, b = max(one.passes, default=1), max(other.passes, default=1)
    if one.knows_passes and other.knows_passes and a != b:
        lines.append(f"backward passes an update: {a} against {b}")
    if one.steps != other.steps:
        lines.append(f"updates: {one.steps} against {other.steps}")
    return lines


def side_by_side(one: Description, other: Description) -> list[str]:
    """What two recordings say of the same thing in words of their own, a line each.

    Layers and optimizers of one name; where each has one optimizer, these. A class that is called
    otherwise is no difference.
    """
    modules = [side.program.get("modules", {}) for side in (one, other)]
    layers = dict.fromkeys(name.rpartition(".")[0] for name in one.shapes if name in other.shapes)
    lines = [
        f"{layer or '(root)'}: {modules[0][layer]} and {modules[1][layer]}"
        for layer in layers
        if layer in modules[0] and layer in modules[1]
    ]
    if len(lines) - MAX_LAYERS > 1:
        lines = [*lines[:MAX_LAYERS], f"and {len(lines) - MAX_LAYERS} more layers"]
    pairs = [(name, name) for name in one.optimizers if name in other.optimizers]
    if len(one.optimizers) == len(other.optimizers) == 1:
        pairs = list(zip(one.optimizers, other.optimizers, strict=True))
    for mine, theirs in pairs:
        rules = one.rule_of(mine), other.rule_of(theirs)
        if all(rules):
            lines.append(f"{mine}: {rules[0]} and {rules[1]}")
    return lines


def _samples(one: Description) -> int:
    """How many samples a batch has: the length that most of its parts have; 0: none is known."""
    lengths = Counter(shape[0] for shape in one.batch.values() if shape)
    return lengths.most_common(1)[0][0] if lengths else 0


def _loss_scale(one: Description, other: Description, samples: int) -> list[str]:
    """Whether one loss is about a whole multiple of the other at the first update."""
    first, second = one.loss.first, other.loss.first
    if not (first > 0 and second > 0):
        return []
    ratio = max(first, second) / min(first, second)
    if samples > 1 and 0.7 * samples <= ratio <= 1.4 * samples:
        kinds = ("a sum", "a mean") if first > second else ("a mean", "a sum")
        return [
            f"loss: {kinds[0]} against {kinds[1]}: {first:.4g} and {second:.4g}, {ratio:.3g} times"
        ]
    if ratio >= 1.5:
        return [f"loss: {first:.4g} against {second:.4g} at the first update, {ratio:.3g} times"]
    return []


def _shape(shape: tuple[int, ...]) -> str:
    return f"({', '.join(map(str, shape))}{',' if len(shape) == 1 else ''})"


def _listed(numbers: list[int]) -> str:
    return ", ".join(map(str, numbers))
