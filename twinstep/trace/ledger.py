"""A trace is what a run leaves: the ledger of every step, in the order of `stages.STAGES`.

Parameters and everything of their shape bear PyTorch's ``state_dict`` names and layouts, whichever
framework wrote the trace.
"""

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from twinstep.errors import InputError
from twinstep.trace import description, inputs, validation
from twinstep.trace.leaves import ReadLeaves
from twinstep.trace.stages import LEAVES, STEPS, Stage
from twinstep.trace.writing import TraceWriter

if TYPE_CHECKING:
    from os import PathLike

Leaves = Mapping[str, np.ndarray]


class Outcome(NamedTuple):
    """How a run ended: losses (T,), params before and after, the last gradients, test figures."""

    losses: np.ndarray
    initial_params: Leaves
    params: Leaves
    grads: Leaves
    metrics: Mapping[str, float]


@dataclass(frozen=True)
class Metadata:
    """What ran.

    Attributes:
        example, spec: Of a documents' example, its name and hyper-parameters; None: of a loop of
            one's own.
        framework: "torch" or "jax".
        dtype: "float32" or "float64", of losses, counters and most leaves; a leaf may be of 16
            bits, complex or an integer beside it.
        device, precision: Where it computed, and how precisely; see `DeviceConfig`.
        versions: {package: its version}.
    """

    example: str | None
    spec: Mapping[str, Any] | None
    framework: str
    dtype: str
    device: str
    precision: str
    versions: Mapping[str, str]


@dataclass(frozen=True)
class Trace:
    """What a run left: T consecutive steps of it, or all of them.

    Attributes:
        metadata: What ran.
        losses: (T,), each as the update found it.
        batch: {name: (T,)} uint32 fingerprints of what each step trained on.
        raw_grads: {name: (T, ...)}, what was backpropagated.
        grads: {name: (T, ...)}, what the optimizer was given; the very same array where that is
            the same.
        opt_state: {name: (T, ...)} after each update; `weight.exp_avg` is Adam's first moment of
            weight.
        params: {name: (T + 1, ...)}, the initial ones first.
        rounding_noise: {"stage/name": (T,)}, how far rounding carries each leaf of this very run;
            None: it was not measured.
        rounding_scale: {"stage/name": (T,)}, what an eps of the numbers that losses and gradients
            are made of comes to; None: it was not measured.
        start: The number of the first step, from 0.
        metrics: {name: value} measured when the training was over.
        evaluation: Of N tested samples, when the training was over: "outputs" (N, classes) and
            "predictions" (N,); and "rounding_noise" and "rounding_scale" () of the outputs.
        rng, activations: {name: (T, ...)}, on request.
        buffers: {name: (T + 1, ...)} of any type, such as BatchNorm's running mean.
        hyper_parameters: {"group.name": (T,)} of the optimizer, before each update, if it has any.
        inputs: {name: {fingerprint: array}}, what the batches were, if that is kept.
        before: {"params/weight": (n, ...)}, what a parameter, buffer or optimizer state was before
            an update, where that is not what the update recorded last has left.
        micro_losses: {"loss": (n,)} of updates that sum several backward passes, one after the
            other; "loss.seed" (T, seeds), where a row's loss is the mean over an axis.
        update: {name: (n,)}: of each optimizer, which of its updates it is, from 1; and
            "renewed", "changed_outside", "by_hand" of those that are so; "skipped", how many
            updates before one were thrown away.
        program: What the recorder saw of it, JSON values: "modules" {path: class and settings},
            "optimizers" {name: {"class", "settings", "groups": the names of their parameters}}, of
            JAX's {name: {"state": the links that keep one, "watched": the stages of gradients that
            it shows, "injected": the hyper-parameters in it}},
            "axes" {name of an axis that all leaves have in front: its length}.
        rows: {"stage/name": (n,)}, at which steps a leaf has rows, where it has not one at each:
            it came later, had no gradient, is another optimizer's. Of losses, which are known.

    Example:
        >>> import twinstep
        >>> trace = twinstep.run(twinstep.examples()["zero_grad"](steps=2), framework="torch")
        >>> trace.losses.shape, trace.grads["2.weight"].shape, trace.params["2.weight"].shape
        ((2,), (2, 1, 5), (3, 1, 5))
        >>> print(trace.summary().splitlines()[0])
        torch, float32 on cpu: 2 steps, loss 1.51... to 1.47...
    """

    metadata: Metadata
    losses: np.ndarray
    batch: Leaves
    raw_grads: Leaves
    grads: Leaves
    opt_state: Leaves
    params: Leaves
    rounding_noise: Leaves | None = None
    rounding_scale: Leaves | None = None
    start: int = 0
    metrics: Mapping[str, float] = field(default_factory=dict)
    evaluation: Leaves = field(default_factory=dict)
    rng: Leaves = field(default_factory=dict)
    activations: Leaves = field(default_factory=dict)
    buffers: Leaves = field(default_factory=dict)
    hyper_parameters: Leaves = field(default_factory=dict)
    inputs: Mapping[str, Mapping[int, np.ndarray]] = field(default_factory=dict)
    before: Leaves = field(default_factory=dict)
    micro_losses: Leaves = field(default_factory=dict)
    update: Leaves = field(default_factory=dict)
    program: Mapping[str, Any] = field(default_factory=dict)
    rows: Leaves = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.losses)

    def leaves(self, stage: Stage) -> Leaves:
        """What the trace holds of a stage.

        Args:
            stage: A row of `stages.STAGES`.

        Returns:
            {name: array}; the losses are "loss".
        """
        held: Leaves = {"loss": self.losses} if stage.name == "loss" else getattr(self, stage.field)
        return held

    def steps_of(self, stage: str, leaf: str) -> np.ndarray:
        """At which steps a leaf has rows.

        Args:
            stage, leaf: Their names.

        Returns:
            (n,) the numbers of the steps, from 0; a step may have several.
        """
        every = np.arange(self.start, self.start + len(self))
        return self.rows.get(f"{stage}/{leaf}", every)

    def entries(self) -> Iterator[tuple[str, str, np.ndarray]]:
        """All that the steps left, in the ledger's order.

        Yields:
            (stage, leaf, (n, ...) array), a row for each of `steps_of`; params without the
            initial ones.
        """
        for stage in STEPS:
            for leaf, array in self.leaves(stage).items():
                if stage.name == "loss":
                    array = array[self.steps_of("loss", leaf) - self.start]
                rows = array[stage.initial :]
                if len(rows) or len(self) == 0:
                    yield stage.name, leaf, rows

    def held_once(self, leaf: str) -> bool:
        """Whether the optimizer was given what was backpropagated, bit for bit.

        Args:
            leaf: The parameter's name.

        Returns:
            True where its two gradients are one array.
        """
        if isinstance(self.grads, ReadLeaves):
            return self.grads.is_that_of(self.raw_grads, leaf)
        return leaf in self.grads and self.grads[leaf] is self.raw_grads.get(leaf)

    def inputs_of(self, step: int) -> dict[str, Any]:
        """What a step was made on.

        Args:
            step: Its row of this trace, from 0.

        Returns:
            {name: array}; of several calls whose shapes differ, a list of arrays.

        Raises:
            InputError: For a step that it does not have, or inputs that were not kept.
        """
        return inputs.of_step(self, step)

    def batches(self, micro: bool = False) -> Iterator[dict[str, Any]]:
        """What each step was made on, for another program to train on.

        Args:
            micro: Whether each name has a list of its calls' arrays, of one call too; else a list
                stands only where there are several.

        Yields:
            {name: array} of a step, as `inputs_of` has it.

        Raises:
            InputError: For inputs that were not kept.
        """
        return inputs.batches([self], micro)

    def rng_of(self, step: int) -> dict[str, Any]:
        """Where random numbers stood before a step that drew some.

        Args:
            step: Its row of this trace, from 0.

        Returns:
            {generator: its state}: "torch" is what `torch.set_rng_state(torch.tensor(state))` and
            `TorchGenerator().set_state(state)` go on from. Nothing where the step drew nothing, a
            list of several calls' states.

        Raises:
            InputError: For a step that it does not have.
        """
        return inputs.rng_of_step(self, step)

    def slice(self, low: int, high: int) -> "Trace":
        """A part of the steps, as views.

        Args:
            low, high: Its first row of this trace, from 0, and the one after its last.

        Returns:
            The trace of steps low to high - 1; without leaves that have no row in them.

        Raises:
            InputError: For steps that it does not have.
        """
        if not 0 <= low <= high <= len(self):
            raise InputError(f"steps {low} to {high} of a trace that has {len(self)}")
        ends = {
            key: np.searchsorted(steps, (self.start + low, self.start + high))
            for key, steps in self.rows.items()
        }

        def part(key: str, array: np.ndarray, initial: int = 0) -> np.ndarray:
            first, end = ends.get(key, (low, high))
            return array[first : end + initial]

        def measured(leaves: Leaves | None) -> Leaves | None:
            return leaves and {name: part(name, array) for name, array in leaves.items()}

        every = np.arange(self.start + low, self.start + high)
        rows = {key: part(key, steps) for key, steps in self.rows.items()}
        changed: dict[str, Any] = {}
        for stage in LEAVES:
            changed[stage.field] = {
                leaf: changed["raw_grads"][leaf]
                if stage.name == "grads" and self.held_once(leaf)
                else part(f"{stage.name}/{leaf}", array, stage.initial)
                for leaf, array in self.leaves(stage).items()
                if len(rows.get(f"{stage.name}/{leaf}", "any"))
            }
        return dataclasses.replace(
            self,
            **changed,
            losses=self.losses[low:high],
            rounding_noise=measured(self.rounding_noise),
            rounding_scale=measured(self.rounding_scale),
            start=self.start + low,
            rows={key: steps for key, steps in rows.items() if keeps_rows(key, steps, every)},
        )

    def with_rounding_noise_of(self, exact: "Trace") -> "Trace":
        """This trace with the rounding that was measured on another run of the same problem.

        Args:
            exact: That run.

        Returns:
            A trace with its rounding_noise and rounding_scale.
        """
        measured = {
            n: exact.evaluation[n]
            for n in ("rounding_noise", "rounding_scale")
            if n in exact.evaluation
        }
        evaluation = {**self.evaluation, **measured}
        return dataclasses.replace(
            self,
            rounding_noise=exact.rounding_noise,
            rounding_scale=exact.rounding_scale,
            evaluation=evaluation,
        )

    def outcome(self) -> Outcome:
        """How the run ended.

        Returns:
            The losses (T,), the parameters before and after, and the last raw gradients.
        """
        return Outcome(
            losses=self.losses,
            initial_params={name: array[0] for name, array in self.params.items()},
            params={name: array[-1] for name, array in self.params.items()},
            grads={name: array[-1] for name, array in self.raw_grads.items()},
            metrics=self.metrics,
        )

    def summary(self) -> str:
        """What was recorded, for people; `twinstep describe` prints it.

        Returns:
            What ran, the model's layers, optimizers with their settings, what was seen of clipping
            and accumulation, the batch and the stages, a line each.
        """
        return "\n".join(description.described(self.metadata, [self]).lines())

    def validation_error(self) -> str | None:
        """What keeps this from being T steps of dtypes that are judged.

        Returns:
            It in a few words; None: nothing does.
        """
        return validation.error(self)

    def save(self, folder: "str | PathLike[str]") -> None:
        """Writes the trace to a folder, which `load_trace` reads.

        Args:
            folder: A new or an empty one.

        Raises:
            InputError: For a folder that holds something or cannot be written, and for a trace
                that does not start at step 0.
        """
        with TraceWriter(folder, self.metadata) as writer:
            writer.write(self)
            writer.finish(self.metrics)


def keeps_rows(key: str, steps: np.ndarray, every: np.ndarray) -> bool:
    """Whether it is to be kept at which steps a leaf has rows: not one at each; if it has any."""
    return (len(steps) > 0 or key == "loss/loss") and not np.array_equal(steps, every)
