"""What is taken of an axis or a window: its mean, its largest, its last."""

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
