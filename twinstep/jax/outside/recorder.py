"""Records a program from outside: what its compiled functions give back, no line changed."""

import itertools
import threading
import warnings
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, contextmanager, suppress
from os import PathLike
from types import TracebackType
from typing import Any, Self

import jax
import numpy as np
from flax.core.tracers import current_trace

from twinstep.errors import InputError
from twinstep.jax.names import ONLY
from twinstep.jax.outside import finding, loops
from twinstep.jax.outside.carrying import CarriedState, Carrying, Loss, carried, copied, first
from twinstep.jax.outside.entries import Entry, entered
from twinstep.jax.outside.finding import Held
from twinstep.jax.outside.seen import Optimizer, Seen, Update, counted
from twinstep.jax.outside.shadow import carried_by
from twinstep.jax.states import Named, unchanged
from twinstep.jax.trees import Path
from twinstep.trace.keep import Batch, Keep, kept
from twinstep.trace.writing import check_new_folder


def record_program(
    *,
    out: str | PathLike[str],
    steps: int | Collection[int] | None = None,
    every: int = 1,
    batch: Batch = "values",
    raw_grads: bool = True,
    opt_state: bool = True,
    exclude: Collection[str] = (),
) -> "ProgramRecorder":
    """What records, in a `with` block, every update of optax's optimizers that begin in it.

    Args:
        out: A new folder for the trace.
        steps, every, batch, raw_grads, opt_state, exclude: As of `twinstep.torch.record`.

    Returns:
        A context manager.

    Raises:
        InputError: For an `out` that exists, and in the block for what cannot be recorded.
    """
    check_new_folder(out)
    return ProgramRecorder(out, kept(steps, every, raw_grads, opt_state, batch, exclude))


class ProgramRecorder:
    """Listens to a program, and tells a recorder what each of its optimizers does.

    failed: what has ended the recording; on_last: is called when all is recorded that was asked for
    """

    def __init__(self, out: str | PathLike[str], keep: Keep) -> None:
        self._seen = Seen(out, keep)
        self._clean = _traced()
        self._running = False
        self.carrying = Carrying(self._is_clean, self.careful, self._updated)
        self.failed: Exception | None = None
        self.on_last: Callable[[], Any] = lambda: None
        self._optimizers: dict[int, Optimizer] = {}
        self._turns: dict[int, dict[int, tuple[Held, Any]]] = defaultdict(dict)
        self._told = threading.RLock()  # a callback comes from a thread of its own
        self._undo = ExitStack()

    @property
    def steps(self) -> int:
        """How many updates are recorded."""
        return self._seen.made

    @property
    def _over(self) -> bool:
        return self._seen.over

    def careful(self, told: Callable[..., Any]) -> Callable[..., Any]:
        """What of a function ends the recording where it raises, and never the training."""

        def careful(*args: Any, **options: Any) -> Any:
            if self.failed is None and not self._over:
                try:
                    return told(*args, **options)
                except Exception as error:
                    self.failed = error
            return None

        return careful

    def __enter__(self) -> Self:
        self._undo.enter_context(carried(self.carrying))
        self._undo.enter_context(entered(self))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._undo.close()
        recorder = self._seen.recorder
        if self.failed is not None:
            if recorder is not None:
                with suppress(InputError):  # of a full disk, say
                    recorder.__exit__(Exception, None, None)
            if kind is None:
                raise self.failed
        elif recorder is not None:
            recorder.__exit__(kind, error, trace)
            lost = [one.name for one in self._optimizers.values() if one.waits is not None]
            if kind is None and lost and not self._over:
                warnings.warn(
                    f"the last update of {' and '.join(lost)} is not recorded: the parameters that "
                    "it has left were given to no function that could be looked at",
                    stacklevel=2,
                )
        elif kind is None:
            raise InputError(
                "nothing was recorded: no optimizer of optax made an update that was seen"
            )

    # What the program does

    def called(self, entry: Entry, call: Callable[[], Any], *given: Any) -> Any:
        """A compiled function is called: what it takes is looked at, and what it gives back."""
        if self.failed is not None or self._over:
            return call()
        begun = self.carrying.begun
        arguments = self.careful(self._before)(entry, *given) or {}
        seen, kept = None, None
        if entry.notes.trains:
            seen = self.careful(self._shadowed)(entry, given, begun)
        elif entry.notes.trains is None:
            kept = self.careful(entry.shadow.kept)(*given)
        with self._run():
            traced = self.carrying.traced
            out = call()
            entry.notes.trains = entry.notes.trains or self.carrying.traced > traced
        if entry.notes.trains and seen is None:
            seen = self.careful(self._shadowed)(entry, kept or given, begun)
            if entry.notes.unrolls is None:
                entry.notes.unrolls = self.careful(self._leaps)(entry, out)
            if entry.notes.unrolls:
                seen = self.careful(self._shadowed)(entry, kept or given, begun)
        self.careful(self._after)(entry, arguments, out, seen or {})
        self._end()
        return out

    def applied(self, params: Any) -> None:
        """Parameters that an update has left; the one that waits for such is whole."""
        leaves = finding.leaves_of(params)
        for one in self._optimizers.values():
            if one.waits is not None and () in finding.trees_of_form(one.form, leaves):
                self._seen.tell(
                    one, one.waits, {finding.dotted(path): leaves[path] for path in one.form}
                )
        self._end()

    def turned(self, before: Any, after: Any) -> Any:
        """A turn of a compiled loop is traced."""
        if not self.carrying.is_shadow:
            return after
        waiting = loops.tell(before, after, self.carrying.form, self.careful(self._turn))
        self._seen.in_loops = self._seen.in_loops or waiting is not after
        return waiting

    def unrolled(self, before: Any, changes: Any, after: Any) -> Any:
        """One of several updates in a call is traced."""
        state = self.carrying.left_by(changes)
        if state is None:
            return after
        form, self._seen.in_loops = self.carrying.form(state), True

        def named(tree: Any) -> Named:
            leaves = finding.leaves_of(tree)
            return {finding.dotted(path): leaves[path] for path in form}

        held = Held(state, (), {(): named(after)}, {})
        zero = loops.call(held, named(before), self.careful(self._turn))
        first_leaf, *leaves = jax.tree.leaves(after)
        waiting = [first_leaf + zero.astype(first_leaf.dtype), *leaves]
        return jax.tree.unflatten(jax.tree.structure(after), waiting)

    def _leaps(self, entry: Entry, out: Any) -> bool:
        """Whether a call has made more updates than were told of, and the one that it has left."""
        return any(
            first(held.state.updates) > self._known(held, 0).updates + 1
            for held in finding.states_in(out, self.carrying.form)
        )

    @contextmanager
    def _run(self) -> Iterator[None]:
        """Something of the program's runs, or what is computed beside it."""
        before, self._running = self._running, True
        try:
            yield
        finally:
            self._running = before

    def _end(self) -> None:
        if self._over:
            self.on_last()

    def _is_clean(self) -> bool:
        return not self._running and _traced() == self._clean

    def _shadowed(self, entry: Entry, given: Any, begun: int) -> dict[int, CarriedState]:
        """What a function gives its optimizers. begun: how many there were before it was called"""
        carrying = self.carrying
        saved, carrying.begun = carrying.begun, begun  # it begins the very same ones
        try:
            with self._run():
                seen = entry.shadow(carrying, bool(entry.notes.unrolls), *given)
                if self._seen.in_loops:
                    jax.effects_barrier()
        finally:
            carrying.begun = saved
        return seen

    def _before(self, entry: Entry, args: Any, options: Any) -> dict[str, Any]:
        arguments = finding.arguments(entry.function, args, options)
        for held in finding.states_in(arguments, self.carrying.form):
            updates = first(held.state.updates)
            one, params = self._known(held, updates), held.params
            if len(params) > 1:  # what the last update has left, or what was given to the last
                left = {place: each for place, each in params.items() if _same(one.left, each)}
                params = left or _at(params, entry.notes.given)
            waits = one.waits if len(params) == 1 else None
            if waits is not None and first(waits.held.state.updates) == updates:
                self._seen.tell(one, waits, *params.values())
            if not one.is_known and one.updates == updates:
                one.initial = copied((params, held.buffers, held.state.watched(())))
            elif len(params) == 1 and (
                self._seen.leaps(one) or not _same(one.left, *params.values())
            ):
                one.before = copied((*params.values(), held.state.watched(())))
        return arguments

    def _after(
        self, entry: Entry, arguments: dict[str, Any], out: Any, seen: dict[int, CarriedState]
    ) -> None:
        forms = [one.form for one in self._optimizers.values()]
        batch, keys = finding.batch_of(arguments, forms)
        modules = {name: given for name, given in arguments.items() if finding.holds_modules(given)}
        form, noted = self.carrying.form, entry.noted(out)
        for held in [
            *finding.states_in(modules, form),
            *finding.states_in(out, form, noted.applied, noted.changes),
        ]:
            updates = first(held.state.updates)
            one = self._known(held, max(updates - 1, 0))
            if updates == one.updates:
                continue
            full = seen.get(first(held.state.number))
            if full is None:
                raise InputError(
                    f"optimizer {one.name!r}: its update {updates} was made by a function that was "
                    "not seen to update"
                )
            if one.initial is not None:
                one.initial = _one_of(one.initial[0], noted.given), *one.initial[1:]
            update = Update(held, *carried_by(full, held.state), batch, keys, entry.replicated)
            if not np.all(np.asarray(update.is_known)) and (
                losses := self.carrying.given_by(arguments)
            ):
                update = update.of(losses)
            if held.params:
                self._seen.tell(one, update, *_one_of(held.params, noted.applied).values())
            else:
                one.waits = update
        entry.tell(out, batch)

    def _updated(self, state: CarriedState, grads: Any, params: Any, losses: list[Loss]) -> None:
        """An optimizer has updated outside of any trace; the parameters are still to come."""
        held = Held(state, (), {}, {})
        one = self._known(held, first(state.updates) - 1)
        started = self.carrying.started.pop(first(state.number), None)
        if params is None and one.initial is None:
            params = started
        if params is not None:
            leaves = finding.leaves_of(params)
            named = {finding.dotted(path): leaves[path] for path in one.form if path in leaves}
            if one.waits is not None:  # what nobody has seen applied
                self._seen.tell(one, one.waits, named)
            if one.initial is None:
                one.initial = {(): copied(named)}, {}, counted(one)
            elif self._seen.leaps(one) or not _same(one.left, named):
                one.before = copied(named), ()
        one.waits = Update(held, grads, np.float32(np.nan), False, {}, {}, False).of(losses)

    def _turn(self, held: Held, before: Any) -> None:
        """A turn of a compiled loop is over; they may come in any order."""
        with self._told:
            number, updates = first(held.state.number), first(held.state.updates)
            one = self._known(held, 0)
            self._turns[number][updates] = held, before
            while (turn := self._turns[number].pop(one.updates + 1, None)) is not None:
                held, before = turn
                if not one.is_known:
                    state = counted(one) if one.initial is None else one.initial[2]
                    one.initial = {(): before}, held.buffers, state
                self._seen.tell(one, Update(held, *held.state.carried, {}, {}, False), held.learned)

    # What it is told as

    def _known(self, held: Held, updates: int) -> Optimizer:
        """The optimizer whose state it is; one that is new has made so many updates."""
        number, name = first(held.state.number), ONLY
        if number not in self._optimizers:
            if self.carrying.several:
                words = [word for word in held.place if not word.isdigit()]
                inner = [word for word in words if word != "opt_state"]
                name = ".".join(inner or words) or name
            taken = {one.name for one in self._optimizers.values()}
            free = itertools.chain([name], (f"{name}{i}" for i in itertools.count(2)))
            name = next(one for one in free if one not in taken)
            one = Optimizer(name, updates, self.carrying.form(held.state))
            self._optimizers[number] = one
        return self._optimizers[number]


def _traced() -> Any:
    """What JAX traces now, to be compared."""
    return current_trace()  # type: ignore[no-untyped-call]  # Flax's


def _same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether each array is the very same."""
    return len(one) == len(other) and all(one.get(name) is array for name, array in other.items())


def _at(params: dict[Path, Named], places: frozenset[Path]) -> dict[Path, Named]:
    """Of several trees those that have some of these places; all where none has."""
    found = {
        prefix: named
        for prefix, named in params.items()
        if any(place[: len(prefix)] == prefix for place in places)
    }
    return found or params


def _one_of(params: dict[Path, Named], places: frozenset[Path]) -> dict[Path, Named]:
    """Of several trees that may be an optimizer's parameters, the one that has these places.

    InputError where nothing tells which it is, and their values differ.
    """
    found = _at(params, places)
    one, *others = [(place, copied(named)) for place, named in found.items()] or [((), {})]
    for place, named in others:
        if not unchanged(named, one[1]):
            raise InputError(
                f"{finding.dotted(one[0])!r} and {finding.dotted(place)!r} both have the form of "
                "an optimizer's parameters, expected one: twinstep.jax.record, in the program, is "
                "told which"
            )
    return {one[0]: found[one[0]]} if found else {}
