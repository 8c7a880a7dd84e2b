"""Other masks, and softmax over other axes."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from twinstep.jax.rewriting.program import Atom, Program, Read, Replacement
from twinstep.jax.rewriting.sites import Change, changes

Mask = Callable[[int, int], Any]

_MASKS: dict[str, Mask] = {
    "a causal mask": lambda rows, columns: jnp.tril(jnp.ones((rows, columns), bool)),
    "a causal mask without the diagonal": lambda rows, columns: jnp.tril(
        jnp.ones((rows, columns), bool), -1
    ),
    "a causal mask and the next": lambda rows, columns: jnp.tril(
        jnp.ones((rows, columns), bool), 1
    ),
    "a mask of what comes later": lambda rows, columns: jnp.triu(jnp.ones((rows, columns), bool)),
    "no mask": lambda rows, columns: jnp.ones((rows, columns), bool),
}
"""{what it is called: of queries and keys, True where one sees the other}"""


@dataclass(frozen=True)
class Softmax:
    """given, made: places of what goes in and comes out"""

    given: int
    made: int


def softmaxes(program: Program) -> list[Softmax]:
    """Every exp(x - ...) that is divided by a sum of itself."""
    found = []
    for operation in program.operations:
        if operation.name != "div" or not isinstance(operation.takes[0], int):
            continue
        top = program.operations[program.made_by[operation.takes[0]]]
        below = program.maker(operation.takes[1])
        if top.name != "exp" or below is None or below.name != "reduce_sum":
            continue
        if below.takes[0] != operation.takes[0]:
            continue
        less = program.operations[program.made_by[_place(top.takes[0])]]
        if less.name == "sub" and isinstance(less.takes[0], int):
            found.append(Softmax(less.takes[0], operation.gives[0]))
    return found


def _place(atom: Atom) -> int:
    return atom if isinstance(atom, int) else 0


def other_masks(program: Program, dependent: Sequence[bool]) -> Iterator[Change]:
    """Masks turned round, moved by one, of other scores; and where there is none, one."""
    chosen = [
        number
        for number, operation in enumerate(program.operations)
        if operation.name == "select_n"
        and len(operation.takes) == 3
        and not _depends(operation.takes[0], dependent)
        and sum(_depends(atom, dependent) for atom in operation.takes[1:]) == 1
    ]
    other: dict[str, Mask | None] = {"the mask inverted": None, "the same mask": None, **_MASKS}
    for name, seen in other.items():
        for filled in (False, True):
            if name == "the same mask" and not filled:
                continue
            able = {
                number: replaced
                for number in chosen
                if (replaced := _selected(program, dependent, number, name, seen, filled))
            }
            hidden = ", -inf where it hides," if filled else ""
            yield from changes(program, able, f"{name}{hidden} in place of that")
    yield from changes(
        program,
        _added(program, dependent),
        "0 and -inf, causal, in place of what is added",
    )
    for name, mask in _MASKS.items():
        yield from changes(
            program,
            _masked(program, softmaxes(program), mask),
            f"{name} before the softmax",
        )


def _depends(atom: Atom, dependent: Sequence[bool]) -> bool:
    return isinstance(atom, int) and dependent[atom]


def _masked(program: Program, found: Sequence[Softmax], mask: Mask) -> dict[int, Replacement]:
    able: dict[int, Replacement] = {}
    for softmax in found:
        shape = program.shapes[softmax.given].shape
        number = program.made_by[softmax.given]
        if len(shape) < 2 or len(program.operations[number].gives) > 1:
            continue

        def replaced(read: Read, number: int = number, shape: Any = shape) -> Sequence[Any]:
            (scores,) = program.again(number, read)
            return [jnp.where(mask(*shape[-2:]), scores, -jnp.inf)]

        able[number] = replaced
    return able


def _selected(
    program: Program,
    dependent: Sequence[bool],
    number: int,
    name: str,
    mask: Mask | None,
    filled: bool,
) -> Replacement | None:
    """One of two arrays by another mask; filled: -inf in place of the one that is constant."""
    operation = program.operations[number]
    which, *cases = operation.takes
    shown = _depends(cases[1], dependent)  # where the mask is True
    shape = program.shapes[operation.gives[0]].shape
    if mask is not None and (len(shape) < 2 or shape[-1] != shape[-2]):
        return None
    if filled and not jnp.issubdtype(program.shapes[operation.gives[0]].dtype, jnp.floating):
        return None

    def replaced(read: Read) -> Sequence[Any]:
        values = [read(case) for case in cases]
        seen, hidden = (values[1], values[0]) if shown else (values[0], values[1])
        if mask is not None:
            sees = jnp.broadcast_to(mask(*shape[-2:]), shape)
        else:
            sees = read(which) if shown else ~read(which)
            sees = ~sees if name == "the mask inverted" else sees
        hidden = jnp.full_like(seen, -jnp.inf) if filled else hidden
        return [jnp.where(sees, seen, hidden)]

    return replaced


def _added(program: Program, dependent: Sequence[bool]) -> dict[int, Replacement]:
    """A mask in place of a constant array that is added."""
    able: dict[int, Replacement] = {}
    for number, operation in enumerate(program.operations):
        if operation.name != "add":
            continue
        given = [atom for atom in operation.takes if _depends(atom, dependent)]
        shape = program.shapes[operation.gives[0]].shape
        if len(given) != 1 or len(shape) < 2 or shape[-1] != shape[-2]:
            continue

        def replaced(read: Read, given: Atom = given[0], shape: Any = shape) -> Sequence[Any]:
            scores = read(given)
            sees = jnp.tril(jnp.ones(shape[-2:], bool))
            return [scores + jnp.where(sees, 0.0, -jnp.inf).astype(scores.dtype)]

        able[number] = replaced
    return able


def other_axes(program: Program) -> Iterator[Change]:
    """Each softmax over another axis."""
    found = softmaxes(program)
    most = max((len(program.shapes[one.given].shape) for one in found), default=0)
    for back in range(1, most + 1):

        def over(one: Softmax, back: int = back) -> Replacement:
            return lambda read: [jax.nn.softmax(read(one.given), axis=-back)]

        able = {
            program.made_by[one.made]: over(one)
            for one in found
            if len(program.shapes[one.given].shape) >= back
        }
        yield from changes(program, able, f"softmax over axis {-back}")
