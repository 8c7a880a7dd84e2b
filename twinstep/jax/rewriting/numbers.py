"""The numbers that stand in a program, and factors that do not: what one would have to be.

Each is solved for PyTorch's first loss: an eps, the scale of attention, a slope, N for N - 1.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from twinstep.jax.rewriting.program import Edit, Program, Read, Replacement
from twinstep.jax.rewriting.sites import Change, groups, lines

_DECADES = (*range(-16, -4, 2), *range(-4, 5), *range(6, 18, 2))
_GRID = (-1.0, 0.0, *(10.0 ** (n / 4) for n in _DECADES))
"""Times what stands there: roots are looked for between two of them."""
_STEPS = 60
_GIVE_FACTORS = {"dot_general", "conv_general_dilated", "gather"}
_NEXT = 1e-5
"""Of a number, how far a root or a fraction may be from it that it is meant to be."""
_SIZES = 16
_EPS = (1e-3, 1e-5, 1e-6, 1e-8, 1e-12)


@dataclass(frozen=True)
class Number:
    """One place of an operation. operation: which; argument: of it; None: a factor of its result"""

    operation: int
    argument: int | None
    value: float


@dataclass(frozen=True)
class Run:
    """A step. inputs: the program's; loss: PyTorch's; allowed: how far from it one may be"""

    inputs: Sequence[Any]
    loss: float
    allowed: float


def standing(program: Program, dependent: Sequence[bool], values: Sequence[Any]) -> list[Number]:
    """Every number that something which depends on parameters is computed with.

    values: all values of a run; dependent: of each, whether parameters or a batch have a part in it
    """
    found = []
    for number, operation in enumerate(program.operations):
        if not any(dependent[place] for place in operation.gives):
            continue
        for position, atom in enumerate(operation.takes):
            if isinstance(atom, int) and dependent[atom]:
                continue
            value = values[atom] if isinstance(atom, int) else atom.value
            real = jnp.issubdtype(jnp.result_type(value), jnp.floating)
            if real and jnp.ndim(value) == 0 and math.isfinite(value) and value:
                found.append(Number(number, position, float(value)))
    return found


def factors(program: Program, dependent: Sequence[bool]) -> list[Number]:
    """A factor of 1 behind every product with parameters and every lookup."""
    return [
        Number(number, None, 1.0)
        for number, operation in enumerate(program.operations)
        if operation.name in _GIVE_FACTORS and dependent[operation.gives[0]]
    ]


def solved(
    program: Program, numbers: Sequence[Number], runs: Sequence[Run], over: Callable[[], bool]
) -> Iterator[Change]:
    """What each group of numbers has to be, one value for all of it, that all losses are right.

    over: whether no more is to be tried
    """
    if not numbers:
        return
    at = np.array([number.value for number in numbers])
    compiled = jax.jit(
        lambda values, inputs: program.edited(inputs, _edit(program, numbers, values))
    )
    done: set[int] = set()
    by_sizes = _of_sizes(program)
    for chosen in _groups(program, numbers):
        of = [numbers[i] for i in chosen]
        if done & {number.operation for number in of}:
            continue  # what is right everywhere is right in no part of it better
        if over():
            return

        def off(value: float, run: Run = runs[0], chosen: Sequence[int] = chosen) -> float:
            moved = at.copy()
            moved[list(chosen)] = value
            return float(compiled(moved, run.inputs)) - run.loss

        def fits(value: float, off: Callable[..., float] = off) -> bool:
            return all(abs(off(value, run)) <= run.allowed for run in runs)

        start = of[0].value
        tried = [*_roots(off, start), *(start * factor for factor in by_sizes)]
        for root in filter(fits, tried):
            done |= {number.operation for number in of}
            for value in filter(fits, _written(root)):
                yield _change(program, of, value)


def other_eps(program: Program, numbers: Sequence[Number]) -> Iterator[Change]:
    """Each small number as others have it: a loss in float32 does not see which it is."""
    for chosen in _groups(program, numbers):
        of = [numbers[i] for i in chosen]
        if 0 < of[0].value <= max(_EPS):
            for value in _EPS:
                yield _change(program, of, value)


def _change(program: Program, of: Sequence[Number], value: float) -> Change:
    return Change(_said(program, of, value), _edit(program, of, [value] * len(of)))


def _groups(program: Program, numbers: Sequence[Number]) -> Iterator[tuple[int, ...]]:
    """Numbers of one value at one place of operations that belong together."""
    seen = set()
    alike: dict[tuple[int | None, float], dict[int, int]] = {}
    for index, number in enumerate(numbers):
        alike.setdefault((number.argument, number.value), {})[number.operation] = index
    for of in alike.values():
        for group in groups(program, list(of)):
            chosen = tuple(of[operation] for operation in group)
            if chosen not in seen:
                seen.add(chosen)
                yield chosen


def _edit(program: Program, numbers: Sequence[Number], values: Any) -> Edit:
    """Those numbers with these values; an operation may have several."""
    by: dict[int, list[tuple[int | None, Any]]] = {}
    for i, number in enumerate(numbers):
        by.setdefault(number.operation, []).append((number.argument, values[i]))
    return {operation: _replaced(program, operation, given) for operation, given in by.items()}


def _replaced(
    program: Program, number: int, given: Sequence[tuple[int | None, Any]]
) -> Replacement:
    operation = program.operations[number]

    def replaced(read: Read) -> Sequence[Any]:
        args = [read(atom) for atom in operation.takes]
        for position, value in given:
            if position is not None:
                args[position] = jnp.asarray(value).astype(jnp.result_type(args[position]))
        made = operation.run(*args)
        for position, value in given:
            if position is None:
                made = [one * jnp.asarray(value).astype(one.dtype) for one in made]
        return made

    return replaced


def _roots(off: Callable[[float], float], start: float) -> list[float]:
    """Where a function of one number is 0, in some decades around where it is now."""
    grid = sorted(start * factor for factor in _GRID)
    heights = [off(value) for value in grid]
    found = [value for value, height in zip(grid, heights, strict=True) if height == 0]
    for (a, b), (fa, fb) in zip(pairwise(grid), pairwise(heights), strict=True):
        if math.isfinite(fa) and math.isfinite(fb) and fa * fb < 0:
            found.append(_between(off, a, b, fa, fb))
    return found


def _between(off: Callable[[float], float], a: float, b: float, fa: float, fb: float) -> float:
    """Regula falsi, as Illinois has it; a half where that is slow."""
    side = 0
    for step in range(_STEPS):
        c = (a + b) / 2 if step % 3 == 2 else (fa * b - fb * a) / (fa - fb)
        fc = off(c)
        if fc == 0 or abs(b - a) <= 4 * np.spacing(abs(c)):
            return c
        if fa * fc < 0:
            b, fb, fa, side = c, fc, fa / 2 if side == -1 else fa, -1
        else:
            a, fa, fb, side = c, fc, fb / 2 if side == 1 else fb, 1
    return a if abs(off(a)) < abs(off(b)) else b


def _of_sizes(program: Program) -> list[float]:
    """What the sizes of arrays divide and multiply by, and their roots."""
    sizes = {n for shape in program.shapes for n in shape.shape if n > 1}
    return [n**power for n in sorted(sizes)[:_SIZES] for power in (-0.5, 0.5, -1.0, 1.0)]


def _written(value: float) -> Iterator[float]:
    """What a number may have been written as, the plainest first; itself."""
    yield from (float(f"{value:.{digits}g}") for digits in (1, 2))
    if (known := _known(value)) is not None:
        yield known[1]
    yield from (float(f"{value:.{digits}g}") for digits in (4, 6, 9))
    yield value


def _known(value: float) -> tuple[str, float] | None:
    """A root or a fraction that it is next to."""
    for n in range(2, 4097):
        for text, exact in ((f"1/sqrt({n})", n**-0.5), (f"sqrt({n})", n**0.5), (f"1/{n}", 1 / n)):
            if abs(value - exact) <= _NEXT * exact:
                return text, exact
    return None


def _form(value: float) -> str:
    """A number as it would be written, such as 1/sqrt(8)."""
    known = _known(value)
    return known[0] if known and float(f"{value:.4g}") != value else f"{value:.6g}"


def _said(program: Program, of: Sequence[Number], value: float) -> str:
    where = lines(program, [number.operation for number in of])
    if of[0].argument is None:
        name = program.operations[of[0].operation].name
        return f"what {name} gives at {where} times {_form(value)}"
    return f"{_form(value)} in place of {_form(of[0].value)} at {where}"
