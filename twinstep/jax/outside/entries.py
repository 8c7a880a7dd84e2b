"""Looks at what a program's compiled functions take and give back, and leaves both as they are."""

import functools
import types
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any, NamedTuple, Protocol

import flax.nnx
import jax
import jax.experimental
import optax

try:
    import equinox
except ImportError:
    equinox = None

from twinstep.errors import InputError
from twinstep.jax.outside.carrying import Carrying
from twinstep.jax.outside.finding import arguments, leaves_of, places_of
from twinstep.jax.outside.shadow import Shadow
from twinstep.jax.trees import Path

_OWN = ("jax", "flax", "optax", "equinox", "haiku")
"""Whose functions are not a program's: what calls them is looked at."""
_NOTES = "_twinstep_notes"
_JIT = jax.jit
"""JAX's own."""


class Listener(Protocol):
    """Who is told."""

    carrying: Carrying

    def careful(self, told: Callable[..., Any]) -> Callable[..., Any]:
        """What of a function does not raise: a fault in what is told is no fault of the program."""

    def called(self, entry: "Entry", call: Callable[[], Any], *given: Any) -> Any:
        """A function is to be called from outside of any trace: gives what `call` does.

        given: its arguments, by position and by name
        """

    def applied(self, params: Any) -> None:
        """An update has left these parameters, outside of any trace."""

    def unrolled(self, before: Any, changes: Any, after: Any) -> Any:
        """One of several updates in a call, traced, has left parameters: gives them back."""

    def turned(self, before: Any, after: Any) -> Any:
        """A turn of a compiled loop, traced, has made another carry: gives what it is to carry."""


class Noted(NamedTuple):
    """What was seen when a function was traced: where in its output is what.

    given: parameters among its arguments; applied: such as an update has left; changes: what is
        of their form and is none; losses: (where one is, where its gradients are)
    """

    given: frozenset[Path] = frozenset()
    applied: frozenset[Path] = frozenset()
    changes: frozenset[Path] = frozenset()
    losses: tuple[tuple[Path, list[Path]], ...] = ()


class Notes:
    """What was seen of a function, however often it is compiled.

    trains: whether it updates anything; unrolls: whether several times in a call, outside of any
        compiled loop; None: nobody has called it yet
    by_output: what was seen as it was traced, by the structure of its output
    noting, turning: the function, so that it is seen, and the body of a loop; None: not yet
    """

    def __init__(self, listener: Listener) -> None:
        self.listener = listener
        self.trains: bool | None = None
        self.unrolls: bool | None = None
        self.by_output: dict[Any, Noted] = {}
        self.noting: Any = None
        self.turning: Any = None

    @property
    def given(self) -> frozenset[Path]:
        """The places of parameters among its arguments."""
        return frozenset().union(*(noted.given for noted in self.by_output.values()))


class Entry:
    """A function that was compiled, such as by `jax.jit`, in its place.

    function: the program's; replicated: whether everything has an axis of devices in front
    """

    def __init__(
        self,
        made: Any,
        function: Any,
        notes: Notes,
        listener: Listener,
        shadow: Shadow,
        replicated: bool,
    ) -> None:
        self._made, self._listener = made, listener
        self.function, self.notes, self.shadow = function, notes, shadow
        self.replicated = replicated
        functools.update_wrapper(self, made, updated=())

    def __call__(self, *args: Any, **options: Any) -> Any:
        call = functools.partial(self._made, *args, **options)
        if self._listener.carrying.is_clean():
            return self._listener.called(self, call, args, options)
        out = call()
        self._listener.careful(self.tell)(out)
        return out

    def __getattr__(self, name: str) -> Any:
        return getattr(self._made, name)

    def __get__(self, instance: Any, owner: Any = None) -> Any:
        return self if instance is None else types.MethodType(self, instance)

    def noted(self, out: Any) -> Noted:
        """What was seen of such an output when it was traced."""
        return self.notes.by_output.get(jax.tree.structure(out), Noted())

    def tell(self, out: Any, batch: dict[str, Any] | None = None) -> None:
        """Says which of what it gave back are losses, gradients and parameters."""
        noted = self.noted(out)
        if noted.applied or noted.losses:
            leaves, carrying = leaves_of(out), self._listener.carrying
            carrying.applied.add([leaves[path] for path in noted.applied])
            for loss, grads in noted.losses:
                carrying.differentiated(leaves[loss], [leaves[path] for path in grads], batch)


@contextmanager
def entered(listener: Listener) -> Iterator[None]:
    """Meanwhile the listener is told of what a program calls."""
    with ExitStack() as undo:

        def put(home: Any, name: str, make: Callable[..., Any], *how: Any) -> None:
            plain = getattr(home, name)
            undo.callback(setattr, home, name, plain)
            setattr(home, name, functools.wraps(plain)(make(plain, listener, *how)))

        put(jax, "jit", _compiling, True)
        put(jax, "pmap", _compiling, True, True)
        put(flax.nnx, "jit", _compiling, False)
        plain = jax.value_and_grad
        put(jax, "value_and_grad", _differentiating)
        put(jax, "grad", lambda _, to: _gradient(_differentiating(plain, to)))
        put(optax, "apply_updates", _applying)
        for home, name in (
            (jax.debug, "callback"),
            (jax.debug, "print"),
            (jax.experimental, "io_callback"),
        ):
            put(home, name, _calling_back)
        for name, body, carry in (("scan", 0, 1), ("fori_loop", 2, 3), ("while_loop", 1, 2)):
            put(jax.lax, name, _looping, body, carry)
        if equinox is not None:
            put(equinox, "filter_jit", _compiling, False)
            put(equinox, "apply_updates", _applying)
        yield


def _compiling(plain: Any, to: Listener, notes: bool, replicated: bool = False) -> Any:
    """jit, or what is like it. notes: whether its function may be looked into as it is traced"""

    def compiling(*args: Any, **options: Any) -> Any:
        function, *rest = args or (None,)
        if not callable(function):  # @jit(...)
            return lambda function: compiling(function, *args, **options)
        if str(getattr(function, "__module__", "")).split(".")[0] in _OWN:
            return plain(function, *rest, **options)
        known = _notes_of(function, to)
        # compiled twice it is to be the same one: JAX knows by that what it has traced
        if notes and known.noting is None:
            known.noting = _noting(function, known.by_output, to)
        made = plain(known.noting if notes else function, *rest, **options)
        shadow = Shadow(plain, function, tuple(rest), options)
        return Entry(made, function, known, to, shadow, replicated)

    return compiling


def _notes_of(function: Any, to: Listener) -> Notes:
    """The notes of a function, whoever compiles it; a bound method remembers none."""
    known: Notes | None = getattr(function, "__dict__", {}).get(_NOTES)
    if known is None or known.listener is not to:
        known = Notes(to)
        with suppress(AttributeError, TypeError):
            setattr(function, _NOTES, known)
    return known


def _noting(function: Any, notes: dict[Any, Noted], to: Listener) -> Any:
    """A function that notes, as it is traced, what it takes and gives back."""

    def note(out: Any, args: Any, options: Any) -> None:
        leaves, carrying = leaves_of(out), to.carrying
        given = leaves_of(arguments(function, args, options))
        losses = []
        for loss in carrying.losses:
            where = [path for path, leaf in leaves.items() if leaf is loss.value]
            grads = [path for path, leaf in leaves.items() if loss.gave([leaf])]
            if where and grads:
                losses.append((where[0], grads))
        notes[jax.tree.structure(out)] = Noted(
            places_of(given, carrying.given.has),
            places_of(leaves, carrying.applied.has),
            places_of(leaves, carrying.changes.has),
            tuple(losses),
        )

    @functools.wraps(function)
    def noting(*args: Any, **options: Any) -> Any:
        out = function(*args, **options)
        to.careful(note)(out, args, options)
        return out

    return noting


def _differentiating(plain: Any, to: Listener) -> Any:
    def value_and_grad(fun: Any, argnums: Any = 0, has_aux: bool = False, **options: Any) -> Any:
        whole = plain(fun, argnums, has_aux, **options)

        @functools.wraps(whole)
        def differentiated(*args: Any, **given: Any) -> Any:
            value, grads = whole(*args, **given)
            loss = value[0] if has_aux else value
            to.careful(to.carrying.differentiated)(loss, grads)
            if isinstance(argnums, int) and -len(args) <= argnums < len(args):
                to.careful(to.carrying.given.add)(args[argnums])
            return value, grads

        return differentiated

    return value_and_grad


def _gradient(value_and_grad: Any) -> Any:
    """`jax.grad`, which makes a loss too."""

    def grad(fun: Any, argnums: Any = 0, has_aux: bool = False, **options: Any) -> Any:
        whole = value_and_grad(fun, argnums, has_aux, **options)

        @functools.wraps(whole)
        def gradient(*args: Any, **given: Any) -> Any:
            value, grads = whole(*args, **given)
            return (grads, value[1]) if has_aux else grads

        return gradient

    return grad


def _applying(plain: Any, to: Listener) -> Any:
    def apply_updates(*args: Any, **options: Any) -> Any:
        params = plain(*args, **options)
        if to.carrying.unrolls and len(args) == 2:
            waiting = to.careful(to.unrolled)(*args, params)
            return params if waiting is None else waiting
        told = to.applied if to.carrying.is_clean() else to.carrying.applied.add
        to.careful(told)(params)
        return params

    return apply_updates


def _calling_back(plain: Any, to: Listener) -> Any:
    """What calls back into Python, which a shadow must not do a second time."""

    def call_back(*args: Any, **options: Any) -> Any:
        if not to.carrying.is_shadow:
            return plain(*args, **options)
        if plain.__name__ == "io_callback":
            raise InputError(
                "an update that calls back into Python, by io_callback, cannot be computed twice: "
                "twinstep.jax.record, in the program, records it"
            )
        return None

    return call_back


def _looping(plain: Any, to: Listener, body: int, carry: int) -> Any:
    """A compiled loop. body, carry: at which places of its arguments these are"""

    def loop(*args: Any, **options: Any) -> Any:
        if len(args) <= max(body, carry):
            return plain(*args, **options)
        notes = _turning(args[body], to, body)
        args = (*args[:body], notes.turning, *args[body + 1 :])
        if not to.carrying.is_clean():
            return plain(*args, **options)

        def whole(carried: Any, rest: Any) -> Any:
            return plain(*args[:carry], carried, *rest, **options)

        shadow = Shadow(_JIT, whole, (), {})
        return Entry(whole, whole, notes, to, shadow, False)(args[carry], args[carry + 1 :])

    return loop


def _turning(turn: Any, to: Listener, body: int) -> Notes:
    """A loop's body that tells what it carries, of which JAX knows that it is the same."""
    notes = _notes_of(turn, to)
    if notes.turning is not None:
        return notes

    @functools.wraps(turn)
    def turning(*carried: Any) -> Any:
        out = turn(*carried)
        # scan's gives (carry, y), fori_loop's takes (i, carry)
        before, after = carried[body == 2], out[0] if body == 0 else out
        carry = to.careful(to.turned)(before, after)
        if carry is None:  # what looks has failed
            return out
        return (carry, *out[1:]) if body == 0 else carry

    notes.turning = turning
    return notes
