"""A spec is the problem, in NumPy: hyper-parameters, initial parameters, data and batch order.

Both frameworks get the very same read-only arrays. They are what the document's own code draws
after ``torch.manual_seed(seed)``: `draw` makes the draws in the document's order.
"""

import copy
import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar, NamedTuple, Self, get_type_hints

import numpy as np

from twinstep import memory
from twinstep.device_config import Dtype
from twinstep.errors import InputError
from twinstep.problems import flags, ranges
from twinstep.problems.batches import Batches, IndexChunk
from twinstep.problems.flags import HIDDEN
from twinstep.problems.ranges import MAX_STEPS as MAX_STEPS
from twinstep.problems.torch_random import TorchGenerator
from twinstep.trace.ledger import Outcome
from twinstep.trace.rows import rows_at_once

Arrays = Mapping[str, np.ndarray]

COPIES = 10
"""Of its parameters that a training holds at least: in NumPy, in the framework with gradients and
two moments, and a recorded step with the parameters before and after it."""


class Document(NamedTuple):
    """Where an example comes from: the document's number, its title and the place in it."""

    number: str
    title: str
    section: str


class Claim(NamedTuple):
    """What the document says, what was measured, and whether it holds (None: nothing to hold)."""

    says: str
    measured: str
    holds: bool | None


Runner = Callable[["Spec"], Outcome]
"""Trains a spec and says how it ended."""


class Problem(NamedTuple):
    """The draws: parameters {name: array}, samples {name: (N, ...)}, the generator after them."""

    params: Arrays
    data: Arrays
    generator: TorchGenerator


@dataclass(frozen=True, kw_only=True)
class Spec:
    """A problem to train: what every example has.

    Each example is a subclass that adds its hyper-parameters.

    Args:
        seed: What torch.manual_seed gets before the first draw.
        dtype: "float32" or "float64", of every parameter and of the draws.
        epochs: Passes over the data.
        steps: Updates to make, whatever the epochs say; None: as the epochs say.
        drawn_as: The spec whose numbers this one has, in another dtype; see `to_float64`.

    Raises:
        InputError: For a field that is out of range, and sizes that do not fit the memory.

    Example:
        >>> import twinstep
        >>> spec = twinstep.examples()["linear_regression"](steps=3)
        >>> {name: array.shape for name, array in spec.initial_params().items()}
        {'weight': (1, 1), 'bias': (1,)}
    """

    name: ClassVar[str]
    document: ClassVar[Document]
    model: ClassVar[str]
    objective: ClassVar[str]
    update: ClassVar[str]
    implementation: ClassVar[str | None] = None
    """The file of both its twins, where that is not its name."""
    table: ClassVar[str | None] = None
    """The set that it is a row of."""
    uses_closure: ClassVar[bool] = False
    """Whether a step evaluates the loss several times, each from where the last one led."""
    draws: ClassVar[bool] = False
    """Whether its layers draw numbers while it trains."""
    float64_alone: ClassVar[bool] = False
    """Whether it draws other numbers in float64, by which float32 is measured."""
    separable: ClassVar[bool] = True
    """Whether a sample alone is a batch: not so for a norm over batches."""

    sized_by: ClassVar[tuple[str, ...]] = ()
    """The fields that decide how large the model and what it computes are."""

    seed: int = 0
    """What torch.manual_seed gets before the document's first draw."""
    dtype: Dtype = "float32"
    """The type of every parameter, and of the draws."""
    epochs: int = 1
    """Passes over the data."""
    steps: int | None = None
    """Updates to make, whatever the epochs say."""
    drawn_as: "Spec | None" = field(default=None, repr=False, metadata=HIDDEN)

    def __post_init__(self) -> None:
        hints = get_type_hints(type(self))
        for one in flags.shown(type(self)):
            value = ranges.as_float(getattr(self, one.name), hints[one.name])
            object.__setattr__(self, one.name, value)
            ranges.check(self.name, one.name, value, hints[one.name], self.dtype)
        self.check_fits_memory("training", COPIES)

    def check_fits_memory(self, what: str, copies: int) -> None:
        """Refuses sizes that cannot fit the memory; nothing is drawn.

        Args:
            what: What takes the memory, for the message.
            copies: How many times the parameters are held.

        Raises:
            InputError: For sizes of which so many copies do not fit.
        """
        parameters, step = self.entries()
        needed = (copies * parameters + step) * np.dtype(self.dtype).itemsize
        if needed > (available := memory.available()):
            sizes = ", ".join(f"{name} is {getattr(self, name)}" for name in self.sized_by)
            alone = memory.gib(parameters * np.dtype(self.dtype).itemsize)
            raise InputError(
                f"{self.name}: {sizes}: {what} needs at least {memory.gib(needed)}, the "
                f"parameters alone {alone}; {memory.gib(available)} are to be had"
            )

    def __getstate__(self) -> dict[str, Any]:
        """The fields alone: what was drawn from them is drawn again where it is needed."""
        return {one.name: getattr(self, one.name) for one in dataclasses.fields(self)}

    @classmethod
    def from_flags(cls, arguments: Sequence[str] | None = None) -> Self:
        """The spec that a command line asks for, a flag a field; ends the program where it cannot.

        Args:
            arguments: The command line's words; None: this program's own.

        Returns:
            A spec of this class.
        """
        made: Self = flags.of_program(cls, cls.name, arguments, without=_OF_COMMANDS)
        return made

    def draw_params(self, generator: TorchGenerator) -> Arrays:
        """Draws the initial parameters, in the order of the document's model.

        Args:
            generator: What draws them; it is left in the state after them.

        Returns:
            {name: array}, by PyTorch's names.
        """
        raise TypeError(f"{type(self).__name__} draws nothing")

    def draw(self, generator: TorchGenerator) -> tuple[Arrays, Arrays]:
        """Draws the initial parameters and the samples, in the document's order.

        Args:
            generator: What draws them; it is left in the state after them.

        Returns:
            The parameters {name: array} and the samples {name: (N, ...)}.
        """
        raise TypeError(f"{type(self).__name__} draws nothing")

    def entries(self) -> tuple[int, int]:
        """How many numbers a training holds, where `sized_by` decides it.

        Returns:
            Those in the parameters, and those in what a step computes.
        """
        return 0, 0

    def log_line(self, step: int, loss: float) -> str | None:
        """What the document prints after an update.

        Args:
            step, loss: The update's number, from 0, and its loss.

        Returns:
            The line; None: it prints nothing.
        """
        return None

    def final_lines(self, outcome: Outcome) -> list[str]:
        """What the document prints when the training is over.

        Args:
            outcome: How the training ended.

        Returns:
            The lines.
        """
        return []

    def claims(self, outcome: Outcome, run: Runner) -> list[Claim]:
        """What the document says of this run, beside what was measured.

        Args:
            outcome, run: How the run ended, and what trains another spec.

        Returns:
            A claim for each thing that it says.
        """
        return []

    def test_set(self) -> tuple[np.ndarray, np.ndarray] | None:
        """What the model is tested on after training.

        Returns:
            Inputs (N, ...) and labels (N,); None: it is not tested.
        """
        return None

    def initial_params(self) -> Arrays:
        """The parameters before the first update.

        Returns:
            {name: array}, read-only, by PyTorch's names and in PyTorch's layout.
        """
        return self._problem.params

    def batches(self) -> Batches:
        """What each update trains on.

        Returns:
            The samples, and which of them each update takes.
        """
        problem = self._problem
        return Batches(
            data=problem.data,
            batch_size=self._batch_size,
            shuffle=self._shuffle,
            generator=self._loader_generator,
            total_steps=self.total_steps,
        )

    def generator(self) -> TorchGenerator:
        """What PyTorch's default generator is when the training starts: after the problem's draws.

        Returns:
            A copy, of which one may draw.
        """
        return self._problem.generator.copy()

    def chunks(self, max_steps: int | None = None) -> Iterator[IndexChunk]:
        """The updates in pieces that are held at once.

        Args:
            max_steps: Of one piece; None: as memory allows.

        Returns:
            Which samples the updates of each piece take.
        """
        return self.batches().chunks(max_steps or self.steps_at_once)

    @property
    def steps_at_once(self) -> int:
        """Steps whose trace (gradients, two moments, parameters) is small enough to be held."""
        entries = sum(array.size for array in self.initial_params().values())
        return rows_at_once(4 * entries * np.dtype(self.dtype).itemsize)

    @property
    def total_steps(self) -> int:
        """The number of updates. InputError for too many."""
        count = self.steps or self.epochs * self.steps_per_epoch
        if count > MAX_STEPS:
            raise InputError(
                f"{self.name}: epochs is {self.epochs}, which makes {count} steps, "
                f"expected at most {MAX_STEPS}"
            )
        return count

    @property
    def steps_per_epoch(self) -> int:
        """Updates in a pass over the data."""
        samples = len(next(iter(self._problem.data.values())))
        return math.ceil(samples / (self._batch_size or samples))

    @property
    def total_epochs(self) -> int:
        """Passes over the data that the updates need; the last may be cut short."""
        return math.ceil(self.total_steps / self.steps_per_epoch)

    def hyper_parameters(self) -> dict[str, Any]:
        """Every hyper-parameter.

        Returns:
            {name: value}, a copy.
        """
        values = {one.name: getattr(self, one.name) for one in flags.shown(type(self))}
        return copy.deepcopy(values)

    def to_float64(self) -> Self:
        """The same problem in float64.

        Returns:
            A spec with the numbers as drawn in this dtype, held in more digits.
        """
        return dataclasses.replace(self, dtype="float64", drawn_as=self)

    @property
    def _batch_size(self) -> int | None:
        """Samples a batch; None: all of them."""
        return None

    @property
    def _loader_generator(self) -> TorchGenerator:
        """What the orders are drawn from."""
        return self.generator()

    @property
    def _shuffle(self) -> bool:
        """Whether a new order is drawn for each epoch."""
        return False

    @cached_property
    def _problem(self) -> Problem:
        if self.drawn_as is None:
            generator = TorchGenerator(self.seed)
            params, data = self.draw(generator)
        else:  # in another dtype the stream would give other numbers
            params, data, generator = self.drawn_as._problem
        params, data = _cast(params, self.dtype), _cast(data, self.dtype)
        return Problem(_read_only(params), _read_only(data), generator)


def _cast(arrays: Arrays, dtype: str) -> dict[str, np.ndarray]:
    """Floating arrays in `dtype`; integers (images, labels) as they are."""
    return {
        name: array.astype(dtype) if np.issubdtype(array.dtype, np.floating) else array
        for name, array in arrays.items()
    }


def _read_only(arrays: Arrays) -> dict[str, np.ndarray]:
    for array in arrays.values():
        array.setflags(write=False)
    return dict(arrays)


_OF_COMMANDS = ("steps", "log_every")
"""What commands ask for; a twin by itself makes the document's updates and prints its lines."""
