"""Other normalizations: by the batch, over each sample, the last axis, the biased variance."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp

from twinstep.jax.rewriting.program import Atom, Constant, Operation, Program, Read, Replacement
from twinstep.jax.rewriting.sites import Change, changes

_EPS = 1e-5  # of all of PyTorch's
_AXES: dict[str, Callable[[int], tuple[int, ...]]] = {
    "a layer norm": lambda rank: (rank - 1,),
    "a batch norm of the last axis": lambda rank: tuple(range(rank - 1)),
    "a batch norm of axis 1": lambda rank: (0, *range(2, rank)),
    "a norm of each sample's channels": lambda rank: tuple(range(1, rank - 1)),
}
"""{a norm: of an array's rank, the axes that it takes mean and variance over}"""


@dataclass(frozen=True)
class Norm:
    """x times or through a deviation. given, made: of what, and what is left; scale: in it, too"""

    given: int
    made: int
    scale: Atom | None
    eps: float


def norms(program: Program, dependent: Sequence[bool]) -> list[Norm]:
    """Every product or quotient of an array and a root of what has an eps in it."""
    found = []
    for operation in program.operations:
        if operation.name not in ("mul", "div") or not dependent[operation.gives[0]]:
            continue
        for array, by in (operation.takes, operation.takes[::-1]):
            root, scale = _root(program, by)
            if root is not None and isinstance(array, int) and dependent[array]:
                given = _before_mean(program, array)
                shape = program.shapes[operation.gives[0]].shape
                if program.shapes[given].shape == shape and len(shape) > 1:
                    found.append(Norm(given, operation.gives[0], scale, _eps(program, root)))
                    break
    return found


def _root(program: Program, atom: Atom) -> tuple[Operation | None, Atom | None]:
    """The root that a value is, and what it has been multiplied with."""
    operation = program.maker(atom)
    if operation is None or operation.name in ("sqrt", "rsqrt"):
        return operation, None
    if operation.name == "mul":
        for one, other in (operation.takes, operation.takes[::-1]):
            root = program.maker(one)
            if root is not None and root.name in ("sqrt", "rsqrt"):
                return root, other
    return None, None


def _before_mean(program: Program, array: int) -> int:
    """What a mean was subtracted from; the array itself where none was."""
    operation = program.operations[program.made_by[array]]
    from_what = operation.takes[0] if operation.name == "sub" else array
    return from_what if isinstance(from_what, int) else array


def _eps(program: Program, root: Operation) -> float:
    below = program.maker(root.takes[0])
    for atom in below.takes if below is not None and below.name in ("add", "max") else ():
        if isinstance(atom, Constant) and jnp.ndim(atom.value) == 0:
            return float(atom.value)
    return _EPS


def other_norms(program: Program, dependent: Sequence[bool]) -> Iterator[Change]:
    """Each by the mean and the biased variance of other axes, with its own eps and PyTorch's."""
    found = norms(program, dependent)
    for says, axes_of in _AXES.items():
        for eps in (None, _EPS):

            def replaced(norm: Norm, axes: tuple[int, ...], eps: float | None = eps) -> Replacement:
                def normalized(read: Read) -> Sequence[jax.Array]:
                    x = read(norm.given)
                    apart = x - x.mean(axes, keepdims=True)
                    variance = (apart**2).mean(axes, keepdims=True)
                    y = apart / jnp.sqrt(variance + (norm.eps if eps is None else eps))
                    return [y if norm.scale is None else y * read(norm.scale)]

                return normalized

            able = {}
            for norm in found:
                if axes := axes_of(len(program.shapes[norm.given].shape)):
                    able[program.made_by[norm.made]] = replaced(norm, axes)
            with_eps = f" with an eps of {eps}" if eps else ""
            yield from changes(program, able, f"{says}{with_eps} in place of what is")
