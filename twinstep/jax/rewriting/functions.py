"""Another function in place of one that is applied to each entry: GELU by tanh, ReLU, dropout."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from twinstep.jax.rewriting.program import Program, Read, Replacement
from twinstep.jax.rewriting.sites import Change, changes

_LINEAR = {"add", "sub", "neg", "convert_element_type", "copy", "stop_gradient", "reshape"}
_BENT = {"tanh", "logistic", "exp", "exp2", "expm1", "log", "log1p", "erf", "erfc", "sqrt", "rsqrt"}
_BENT |= {"max", "min", "abs", "sign", "square", "integer_pow", "pow", "clamp", "select_n"}
_TOLD = {"ge", "gt", "le", "lt", "eq", "ne", "and", "or", "not", "is_finite"}
_ELEMENTWISE = _LINEAR | _BENT | _TOLD | {"mul", "div"}

FUNCTIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "GELU": lambda x: jax.nn.gelu(x, approximate=False),
    "GELU(approximate='tanh')": lambda x: jax.nn.gelu(x, approximate=True),
    "ReLU": jax.nn.relu,
    "SiLU": jax.nn.silu,
    "Tanh": jnp.tanh,
    "Sigmoid": jax.nn.sigmoid,
    "1 - sigmoid": lambda x: jax.nn.sigmoid(-x),
    "LeakyReLU": jax.nn.leaky_relu,
    "ELU": jax.nn.elu,
    "SELU": jax.nn.selu,
    "Softplus": jax.nn.softplus,
    "Mish": jax.nn.mish,
    "ReLU6": jax.nn.relu6,
    "Hardsigmoid": jax.nn.hard_sigmoid,
    "Hardswish": jax.nn.hard_swish,
    "Hardtanh": jax.nn.hard_tanh,
    "x sigmoid(1.702 x)": lambda x: x * jax.nn.sigmoid(1.702 * x),
    "nothing": lambda x: x,
}
"""PyTorch's classes by their names, and what is often meant in their place."""


@dataclass(frozen=True)
class Region:
    """A function of each entry. given: the place of what it is applied to; made: of its results"""

    given: int
    made: int


def of_each_entry(program: Program, dependent: Sequence[bool]) -> list[Region]:
    """Every stretch of the program that makes of each entry of an array another one.

    dependent: of each value, whether parameters have a part in it
    """
    roots = _roots(program, dependent)
    members: dict[int, list[int]] = {}
    for place, root in enumerate(roots):
        if dependent[place]:
            members.setdefault(root, []).append(place)
    users = program.users()
    found = []
    for root, places in members.items():
        inside = set(places)
        exits = {
            place
            for place in places
            if place == program.result
            or any(out not in inside for n in users[place] for out in program.operations[n].gives)
        }
        for place in places[1:]:
            if _all_pass(program, users, root, place, inside, exits) and _bends(
                program, root, place, inside
            ):
                found.append(Region(root, place))
    return found


def _roots(program: Program, dependent: Sequence[bool]) -> list[int]:
    """Of each value, what it is made of entry by entry, with constants; itself: of more."""
    roots = list(range(len(program.made_by)))
    for operation in program.operations:
        takes = {a for a in operation.takes if isinstance(a, int) and dependent[a]}
        above = {roots[a] for a in takes}
        if operation.name not in _ELEMENTWISE or len(above) != 1:
            continue
        (root,) = above
        for place in operation.gives:
            if program.shapes[place].shape == program.shapes[root].shape:
                roots[place] = root
    return roots


def _all_pass(
    program: Program,
    users: list[list[int]],
    root: int,
    place: int,
    inside: set[int],
    exits: set[int],
) -> bool:
    """Whether whatever leaves a stretch has come by this place."""
    seen, waiting = {root}, [root]
    while waiting:
        for number in users[waiting.pop()]:
            for out in program.operations[number].gives:
                if out in inside and out != place and out not in seen:
                    seen.add(out)
                    waiting.append(out)
    return not seen & exits


def _bends(program: Program, root: int, place: int, inside: set[int]) -> bool:
    """Whether anything but sums and factors is between."""
    waiting, seen = [place], set[int]()
    while waiting:
        one = waiting.pop()
        if one == root or one in seen:
            continue
        seen.add(one)
        operation = program.operations[program.made_by[one]]
        takes = [a for a in operation.takes if isinstance(a, int) and a in inside]
        if operation.name not in _LINEAR | {"mul", "div"} or len(takes) > 1:
            return True
        arrays = [a for a in operation.takes if not isinstance(a, int) or a not in inside]
        if any(_varies(program, a) for a in arrays):
            return True
        waiting += takes
    return False


def _varies(program: Program, atom: Any) -> bool:
    """Whether it is an array, such as a mask of what is dropped."""
    shape = program.shapes[atom].shape if isinstance(atom, int) else jnp.shape(atom.value)
    return math.prod(shape) > 1


def other_functions(program: Program, dependent: Sequence[bool]) -> Iterator[Change]:
    """Each function of FUNCTIONS in place of each stretch."""
    regions = of_each_entry(program, dependent)
    for name, function in FUNCTIONS.items():

        def applied(region: Region, function: Any = function) -> Replacement:
            def replaced(read: Read) -> Sequence[Any]:
                return [function(read(region.given)).astype(program.shapes[region.made].dtype)]

            return replaced

        able = {
            program.made_by[region.made]: applied(region)
            for region in regions
            if jnp.issubdtype(program.shapes[region.made].dtype, jnp.floating)
        }
        yield from changes(program, able, f"{name} in place of what is")
