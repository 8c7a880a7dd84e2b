"""A function of arrays as a flat list of operations, each of which can be replaced.

What jit, custom_jvp and remat hold is in the list itself, and a scan as often as it runs: what is
written once in the program is one site, however often it is in the list.
"""

import functools
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend import core

MAX_LENGTH = 256
"""Of a scan that is unrolled."""

Run = Callable[..., Sequence[Any]]
Read = Callable[["Atom"], Any]
Replacement = Callable[[Read], Sequence[Any]]
"""Of what reads any value that is there: what an operation gives in place of its own."""
Edit = Mapping[int, Replacement]
"""{operation: what stands for it}"""

_INLINED = {
    "jit": "jaxpr",
    "pjit": "jaxpr",
    "closed_call": "call_jaxpr",
    "core_call": "call_jaxpr",
    "remat2": "jaxpr",
    "checkpoint": "jaxpr",
    "custom_jvp_call": "call_jaxpr",
}
_SHAPED = {"broadcast_in_dim", "reshape", "squeeze", "expand_dims"}
_SHAPED |= {"convert_element_type", "copy", "stop_gradient"}
_LIBRARIES = f"{os.sep}site-packages{os.sep}", f"{os.sep}dist-packages{os.sep}"
_OF_JIT = f"{os.sep}jax{os.sep}_src{os.sep}pjit.py"


@dataclass(frozen=True)
class Constant:
    """A value that stands in the program. literal: whether as a number among its operations."""

    value: Any
    literal: bool


Atom = int | Constant
"""What an operation takes: the place of a value, or a constant."""


@dataclass(frozen=True)
class Operation:
    """One operation.

    Attributes:
        name: Of JAX's primitive; "input" and "slice" are none.
        run: What it makes of its arguments.
        takes: Its arguments.
        gives: The places of its results.
        settings: The primitive's parameters.
        site: Which of the program's it is, the same in all runs of a loop and no other.
        line: "file.py:12", where the program has it.
        within: Where in a library it is, the same for all uses of it; (): in none.
    """

    name: str
    run: Run
    takes: tuple[Atom, ...]
    gives: tuple[int, ...]
    settings: Mapping[str, Any]
    site: tuple[int, ...]
    line: str
    within: tuple[str, ...]


@dataclass
class Program:
    """The operations in their order; the inputs are the first.

    Attributes:
        operations: All of them.
        inputs: How many inputs there are.
        result: What the program gives.
        made_by: {place of a value: the operation that gives it}.
        shapes: Of the values.
    """

    operations: list[Operation] = field(default_factory=list)
    inputs: int = 0
    result: Atom = 0
    made_by: list[int] = field(default_factory=list)
    shapes: list[jax.ShapeDtypeStruct] = field(default_factory=list)

    def values(self, inputs: Sequence[Any]) -> list[Any]:
        """All values, in their order."""
        return self._run(inputs, {}, None)

    def edited(self, inputs: Sequence[Any], edit: Edit, before: Sequence[Any] | None = None) -> Any:
        """What it gives with some operations replaced.

        before: all values without; only what depends on the replaced ones is computed then
        """
        values = self._run(inputs, edit, before)
        return values[self.result] if isinstance(self.result, int) else self.result.value

    def _run(self, inputs: Sequence[Any], edit: Edit, before: Sequence[Any] | None) -> list[Any]:
        values: list[Any] = [None] * len(self.made_by) if before is None else list(before)
        values[: self.inputs] = inputs
        moved = [before is None] * len(self.made_by)

        def read(atom: Atom) -> Any:
            return values[atom] if isinstance(atom, int) else atom.value

        for number, operation in enumerate(self.operations):
            replaced = edit.get(number)
            if replaced is not None:
                made = replaced(read)
            elif number >= self.inputs and (
                before is None or any(isinstance(a, int) and moved[a] for a in operation.takes)
            ):
                made = operation.run(*map(read, operation.takes))
            else:
                continue
            for place, value in zip(operation.gives, made, strict=True):
                values[place], moved[place] = value, True
        return values

    def depending(self, on: Sequence[int]) -> list[bool]:
        """Of each value, whether one of these inputs has a part in it."""
        found = [False] * len(self.made_by)
        for number, operation in enumerate(self.operations):
            has = number in on or any(isinstance(a, int) and found[a] for a in operation.takes)
            for place in operation.gives:
                found[place] = has
        return found

    def users(self) -> list[list[int]]:
        """Of each value, the operations that take it."""
        found: list[list[int]] = [[] for _ in self.made_by]
        for number, operation in enumerate(self.operations):
            for atom in operation.takes:
                if isinstance(atom, int) and number not in found[atom]:
                    found[atom].append(number)
        return found

    def maker(self, atom: Atom) -> Operation | None:
        """The operation that made a value, before it was given another shape or dtype."""
        while isinstance(atom, int):
            operation = self.operations[self.made_by[atom]]
            if operation.name not in _SHAPED:
                return operation
            atom = operation.takes[0]
        return None

    def again(self, number: int, read: Read) -> Sequence[Any]:
        """What an operation itself makes of what is there."""
        operation = self.operations[number]
        return operation.run(*map(read, operation.takes))


def flattened(fn: Callable[..., Any], *args: Any) -> Program:
    """The operations of a function of trees of arrays that gives one array.

    Args:
        fn: One that `jax.jit` takes.
        args: Trees of arrays, whose leaves are the inputs.

    Returns:
        Its program.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax.rewriting.program import flattened
        >>> program = flattened(lambda x: jnp.sum(jnp.tanh(x)), jnp.ones(3))
        >>> [operation.name for operation in program.operations]
        ['input', 'tanh', 'reduce_sum']

    Source: https://docs.jax.dev/en/latest/jaxpr.html
    """
    closed = jax.make_jaxpr(fn)(*args)
    flattening = _Flattening()
    for aval in closed.in_avals:
        flattening.add("input", lambda: [], [], [aval], {}, (len(flattening.program.made_by),))
    flattening.program.inputs = len(closed.in_avals)
    given: list[Atom] = list(range(len(closed.in_avals)))
    (flattening.program.result,) = flattening.inline(closed, given, (), ())
    return flattening.program


class _Flattening:
    def __init__(self) -> None:
        self.program = Program()

    def add(
        self,
        name: str,
        run: Run,
        takes: Sequence[Atom],
        gives: Sequence[Any],
        settings: Mapping[str, Any],
        site: tuple[int, ...],
        place: tuple[str, tuple[str, ...]] = ("", ()),
    ) -> list[Atom]:
        program = self.program
        first = len(program.made_by)
        places = tuple(range(first, first + len(gives)))
        program.made_by += [len(program.operations)] * len(gives)
        program.shapes += [jax.ShapeDtypeStruct(aval.shape, aval.dtype) for aval in gives]
        program.operations.append(
            Operation(name, run, tuple(takes), places, settings, site, *place)
        )
        return list(places)

    def inline(
        self,
        closed: Any,
        given: Sequence[Atom],
        site: tuple[int, ...],
        above: tuple["_Frame", ...],
    ) -> list[Atom]:
        """Adds what a jaxpr holds; gives where its results are."""
        jaxpr = getattr(closed, "jaxpr", closed)
        constants = [Constant(value, literal=False) for value in getattr(closed, "consts", ())]
        known: dict[Any, Atom] = dict(zip(jaxpr.constvars, constants, strict=True))
        known |= zip(jaxpr.invars, given, strict=True)

        def atom(var: Any) -> Atom:
            if isinstance(var, core.Literal):
                return Constant(var.val, literal=True)
            return known[var]

        for number, eqn in enumerate(jaxpr.eqns):
            takes = [atom(var) for var in eqn.invars]
            of = (*site, number)
            here = (*above, _frame(eqn))
            held = _INLINED.get(eqn.primitive.name)
            if held is not None and held in eqn.params:
                made = self.inline(eqn.params[held], takes, of, here)
            elif eqn.primitive.name == "scan" and eqn.params["length"] <= MAX_LENGTH:
                made = self._unrolled(eqn, takes, of, here)
            else:
                avals = [var.aval for var in eqn.outvars]
                run, settings = _running(eqn), eqn.params
                made = self.add(eqn.primitive.name, run, takes, avals, settings, of, _place(here))
            known.update(zip(eqn.outvars, made, strict=True))
        return [atom(var) for var in jaxpr.outvars]

    def _unrolled(
        self,
        eqn: Any,
        takes: list[Atom],
        site: tuple[int, ...],
        above: tuple["_Frame", ...],
    ) -> list[Atom]:
        settings, body = eqn.params, eqn.params["jaxpr"]
        fixed, carried = settings["num_consts"], settings["num_carry"]
        carry, length = takes[fixed : fixed + carried], settings["length"]
        turns = range(length)[::-1] if settings["reverse"] else range(length)
        outputs: dict[int, list[Atom]] = {}
        place = _place(above)
        for turn in turns:
            rows: list[Atom] = []
            for number, (over, var) in enumerate(
                zip(takes[fixed + carried :], body.jaxpr.invars[fixed + carried :], strict=True)
            ):
                run = functools.partial(_row, turn)
                of = (*site, -1 - number)
                rows += self.add("slice", run, [over], [var.aval], {"index": turn}, of, place)
            made = self.inline(body, [*takes[:fixed], *carry, *rows], site, above)
            carry, outputs[turn] = made[:carried], made[carried:]
        stacked: list[Atom] = []
        for number, var in enumerate(eqn.outvars[carried:]):
            of = (*site, -1000 - number)
            each = [outputs[turn][number] for turn in range(length)]
            stacked += self.add("stack", _stacked, each, [var.aval], {}, of, place)
        return [*carry, *stacked]


def _row(turn: int, array: Any) -> Sequence[Any]:
    return [array[turn]]


def _stacked(*rows: Any) -> Sequence[Any]:
    return [jnp.stack(rows)]


def _running(eqn: Any) -> Run:
    primitive, settings = eqn.primitive, eqn.params

    def run(*args: Any) -> Sequence[Any]:
        bound = primitive.get_bind_params(settings)
        functions, rest = bound if isinstance(bound, tuple) else ((), bound)  # before jax 0.9
        made = primitive.bind(*functions, *args, **rest)
        return made if primitive.multiple_results else [made]

    return run


@dataclass(frozen=True)
class _Frame:
    """Where one of nested operations is.

    own: in a function of the user's own that the last jit holds; line: of the user
    within: lines of a library that the user calls; name: of what is jitted
    """

    own: bool
    line: str
    within: tuple[str, ...]
    name: tuple[str, ...]


def _frame(eqn: Any) -> _Frame:
    traceback = eqn.source_info.traceback
    name = (eqn.params["name"],) if "name" in eqn.params else ()
    inside, within = True, list[str]()
    for frame in [] if traceback is None else traceback.frames:
        if _OF_JIT in frame.file_name:
            inside = False
        if not any(part in frame.file_name for part in _LIBRARIES):
            line = f"{os.path.basename(frame.file_name)}:{frame.line_num}"
            return _Frame(inside, line, tuple(within), name)
        if f"{os.sep}jax{os.sep}_src{os.sep}" not in frame.file_name:
            within.append(f"{frame.file_name}:{frame.line_num}")
    return _Frame(False, "", tuple(within), name)


def _place(path: tuple[_Frame, ...]) -> tuple[str, tuple[str, ...]]:
    """The line of the innermost that is the user's own, and what of libraries is below it.

    What a library jits was traced where it was first used. Only the outermost is inside of no jit.
    """
    of = next((i for i in range(len(path) - 1, 0, -1) if path[i].own), 0)
    names = tuple(name for frame in path[of:] for name in frame.name)
    return path[of].line, path[of].within + names
