"""Where things stand: paddings, positions that are off by one, a batch from its end."""

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from twinstep.jax.rewriting.program import Constant, Operation, Program, Read, Replacement
from twinstep.jax.rewriting.sites import Change, changes

_ALIKE = [(n, n) for n in range(4)]
_PADDINGS = [*_ALIKE, (0, 1), (1, 0), (1, 2), (2, 1), (2, 3), (3, 2)]
_INTEGERS: dict[str, Callable[[Any], Any]] = {
    "0": lambda n: n * 0,
    "one more": lambda n: n + 1,
    "one less": lambda n: n - 1,
}


def other_paddings(program: Program, dependent: Sequence[bool]) -> Iterator[Change]:
    """Each convolution with another padding that leaves as much, PyTorch's alike on both sides."""
    for low, high in _PADDINGS:
        able: dict[int, Replacement] = {}
        for number, operation in enumerate(program.operations):
            if operation.name != "conv_general_dilated" or not dependent[operation.gives[0]]:
                continue
            rank = len(program.shapes[operation.gives[0]].shape) - 2
            settings = {**operation.settings, "padding": [(low, high)] * rank}
            made = functools.partial(jax.lax.conv_general_dilated, **settings)
            args = [program.shapes[a] for a in operation.takes if isinstance(a, int)]
            if len(args) == 2 and _shape(made, args) == program.shapes[operation.gives[0]].shape:
                able[number] = functools.partial(_convolved, made, operation)
        yield from changes(program, able, f"a padding of ({low}, {high}) in place of that")


def _shape(made: Callable[..., Any], args: Sequence[Any]) -> Any:
    try:
        return jax.eval_shape(made, *args).shape
    except (TypeError, ValueError):  # less than the kernel is left
        return None


def _convolved(made: Callable[..., Any], operation: Operation, read: Read) -> Sequence[Any]:
    return [made(*map(read, operation.takes))]


def other_integers(program: Program, dependent: Sequence[bool]) -> Iterator[Change]:
    """Positions and offsets that are one more or less, or none."""
    for says, other in _INTEGERS.items():
        able: dict[int, Replacement] = {}
        for number, operation in enumerate(program.operations):
            numbers = [a for a in operation.takes if isinstance(a, Constant) and a.literal]
            place = operation.gives[0]
            if operation.name not in ("add", "sub") or dependent[place] or len(numbers) != 1:
                continue
            if not jnp.issubdtype(program.shapes[place].dtype, jnp.integer):
                continue

            def replaced(
                read: Read, operation: Operation = operation, other: Any = other
            ) -> Sequence[Any]:
                args = [
                    other(read(a)) if isinstance(a, Constant) else read(a) for a in operation.takes
                ]
                return operation.run(*args)

            able[number] = replaced
        yield from changes(program, able, f"{says} in place of the whole number")


def reversed_inputs(program: Program, batch: Sequence[int]) -> Iterator[Change]:
    """What a batch holds, from its end; batch: the inputs that are its."""
    for number in batch:
        for axis in range(1, len(program.shapes[number].shape)):

            def replaced(read: Read, number: int = number, axis: int = axis) -> Sequence[Any]:
                return [jnp.flip(read(number), axis)]

            yield Change(
                f"axis {axis} of a batch's array {number - batch[0] + 1} reversed",
                {number: replaced},
            )
