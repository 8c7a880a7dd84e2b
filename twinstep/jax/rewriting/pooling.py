"""What of an axis is taken: its mean, its largest, its last; positions; the order of a batch."""

import functools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from twinstep.jax.rewriting.program import Constant, Operation, Program, Read, Replacement
from twinstep.jax.rewriting.sites import Change, changes

Pool = Callable[[jax.Array, tuple[int, ...]], jax.Array]

_POOLS: dict[str, Pool] = {
    "the mean": lambda x, axes: x.mean(axes, keepdims=True),
    "the largest": lambda x, axes: x.max(axes, keepdims=True),
    "the sum": lambda x, axes: x.sum(axes, keepdims=True),
    "the first": lambda x, axes: _at(x, axes, 0),
    "the last": lambda x, axes: _at(x, axes, -1),
}
"""{of some axes: what is left of them, 1 long}"""


def _at(x: jax.Array, axes: tuple[int, ...], index: int) -> jax.Array:
    for axis in axes:
        x = jnp.take(x, jnp.array([index % x.shape[axis]]), axis)
    return x


def other_pools(program: Program, dependent: Sequence[bool]) -> Iterator[Change]:
    """Each sum, mean, maximum and slice of axes replaced by another; windows too."""
    users = program.users()
    for name, pool in _POOLS.items():
        able: dict[int, Replacement] = {}
        for number, operation in enumerate(program.operations):
            if not dependent[operation.gives[0]]:
                continue
            axes = _axes(program, operation)
            if axes:
                last = _divided(program, users, number) if operation.name == "reduce_sum" else None
                able[number if last is None else last] = _pooled(
                    program, number, number if last is None else last, pool, axes
                )
        yield from changes(program, able, f"{name} in place of what is taken")
    yield from _other_windows(program, dependent, users)


def _axes(program: Program, operation: Operation) -> tuple[int, ...]:
    """Those of which an operation takes something."""
    if operation.name in ("reduce_sum", "reduce_max", "reduce_min"):
        return tuple(operation.settings["axes"])
    if operation.name in ("slice", "dynamic_slice") and "index" not in operation.settings:
        if not isinstance(operation.takes[0], int):
            return ()
        before = program.shapes[operation.takes[0]].shape
        after = program.shapes[operation.gives[0]].shape
        cut = tuple(i for i, (a, b) in enumerate(zip(before, after, strict=True)) if a != b)
        return cut if all(after[i] == 1 for i in cut) else ()
    return ()


def _divided(program: Program, users: list[list[int]], number: int) -> int | None:
    """The operation that divides a sum by a number, if that is all that is done with it."""
    place = program.operations[number].gives[0]
    if len(users[place]) != 1:
        return None
    user = program.operations[users[place][0]]
    alone = [a for a in user.takes if isinstance(a, Constant) and jnp.ndim(a.value) == 0]
    return users[place][0] if user.name in ("div", "mul") and len(alone) == 1 else None


def _pooled(
    program: Program, number: int, last: int, pool: Pool, axes: tuple[int, ...]
) -> Replacement:
    given = program.operations[number].takes[0]
    made = program.shapes[program.operations[last].gives[0]]
    return lambda read: [pool(read(given), axes).reshape(made.shape).astype(made.dtype)]


def _other_windows(
    program: Program, dependent: Sequence[bool], users: list[list[int]]
) -> Iterator[Change]:
    """The mean of each window in place of its largest, and the other way round."""
    found: dict[str, dict[int, Replacement]] = {"the largest": {}, "the mean": {}}
    for number, operation in enumerate(program.operations):
        settings, gives = operation.settings, operation.gives
        if not operation.name.startswith("reduce_window") or "window_dimensions" not in settings:
            continue
        if not dependent[gives[0]] or any(n != 1 for n in settings["window_dilation"]):
            continue
        given, sizes = operation.takes[0], settings["window_dimensions"]
        moved, padding = settings["window_strides"], settings["padding"]

        def largest(read: Read, a: Any = (given, sizes, moved, padding)) -> Sequence[Any]:
            return [jax.lax.reduce_window(read(a[0]), -jnp.inf, jax.lax.max, *a[1:])]

        def mean(read: Read, a: Any = (given, sizes, moved, padding)) -> Sequence[Any]:
            total = jax.lax.reduce_window(read(a[0]), 0.0, jax.lax.add, *a[1:])
            return [total / math.prod(a[1])]

        last = _divided(program, users, number)
        if "max" in operation.name:
            found["the mean"][number] = mean
        else:
            found["the largest"][number if last is None else last] = largest
    for name, able in found.items():
        yield from changes(program, able, f"{name} of each window")


def other_paddings(program: Program, dependent: Sequence[bool]) -> Iterator[Change]:
    """Each convolution with another padding that leaves as much, PyTorch's alike on both sides."""
    for low, high in (
        (1, 1),
        (0, 0),
        (2, 2),
        (3, 3),
        (0, 1),
        (1, 0),
        (1, 2),
        (2, 1),
        (2, 3),
        (3, 2),
    ):
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
    for says, other in (
        ("0", lambda n: n * 0),
        ("one more", lambda n: n + 1),
        ("one less", lambda n: n - 1),
    ):
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
