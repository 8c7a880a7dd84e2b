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
from twinstep.jax.carrying import Carrying
from twinstep.jax.finding import leaves_of, places_of
from twinstep.jax.shadow import Shadow
from twinstep.jax.trees import Path

_OWN = ("jax", "flax", "optax", "equinox", "haiku")
"""Whose functions are not a program's: what calls them is looked at."""
_NOTES = "_twinstep_notes"


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

    def turned(self, before: Any, after: Any) -> None:
        """A turn of a compiled loop has made of one carry another; both are traced."""


class Noted(NamedTuple):
    """What was seen when a function was traced: where in its output is what.

    applied: parameters that an update has left; losses: (where one is, where its gradients are)
    """

    applied: frozenset[Path] = frozenset()
    losses: tuple[tuple[Path, list[Path]], ...] = ()


class Entry:
    """A function that was compiled, such as by `jax.jit`, in its place.

    function: the program's; replicated: whether everything has an axis of devices in front
    trains: whether it was seen to update anything; None: it was not called yet
    """

    def __init__(
        self, made: Any, function: Any, listener: Listener, shadow: Shadow, replicated: bool
    ) -> None:
        self._made, self._listener = made, listener
        self.function, self.shadow, self.replicated = function, shadow, replicated
        self.trains: bool | None = None
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
        notes: dict[Any, Noted] = getattr(self.function, _NOTES, (None, {}))[1]
        return notes.get(jax.tree.structure(out), Noted())

    def tell(self, out: Any, batch: dict[str, Any] | None = None) -> None:
        """Says which of what it gave back are losses, gradients and parameters."""
        noted = self.noted(out)
        if noted.applied or noted.losses:
            leaves, carrying = leaves_of(out), self._listener.carrying
            carrying.apply([leaves[path] for path in noted.applied])
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
        for name, body in (("scan", 0), ("fori_loop", 2), ("while_loop", 1)):
            put(jax.lax, name, _looping, body)
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
        made = plain(_noting(function, to) if notes else function, *rest, **options)
        shadow = Shadow(plain, function, tuple(rest), options)
        return Entry(made, function, to, shadow, replicated)

    return compiling


def _noting(function: Any, to: Listener) -> Any:
    """A function that notes what it gives back as it is traced, once of each.

    Compiled twice it is to be the same one: JAX knows by that what it has traced.
    """
    if known := getattr(function, "__dict__", {}).get(_NOTES):
        return known[0]
    notes: dict[Any, Noted] = {}

    def note(out: Any) -> None:
        leaves, carrying = leaves_of(out), to.carrying
        losses = []
        for loss in carrying.losses:
            where = [path for path, leaf in leaves.items() if leaf is loss.value]
            grads = [path for path, leaf in leaves.items() if loss.gave([leaf])]
            if where and grads:
                losses.append((where[0], grads))
        applied = places_of(leaves, carrying.is_applied)
        notes[jax.tree.structure(out)] = Noted(applied, tuple(losses))

    @functools.wraps(function)
    def noting(*args: Any, **options: Any) -> Any:
        out = function(*args, **options)
        to.careful(note)(out)
        return out

    with suppress(AttributeError, TypeError):  # a bound method remembers nothing
        setattr(function, _NOTES, (noting, notes))
    return noting


def _differentiating(plain: Any, to: Listener) -> Any:
    def value_and_grad(fun: Any, argnums: Any = 0, has_aux: bool = False, **options: Any) -> Any:
        whole = plain(fun, argnums, has_aux, **options)

        @functools.wraps(whole)
        def differentiated(*args: Any, **given: Any) -> Any:
            value, grads = whole(*args, **given)
            loss = value[0] if has_aux else value
            to.careful(to.carrying.differentiated)(loss, grads)
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
        told = to.applied if to.carrying.is_clean() else to.carrying.apply
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


def _looping(plain: Any, to: Listener, body: int) -> Any:
    """A compiled loop, whose body is its argument at that place."""

    def loop(*args: Any, **options: Any) -> Any:
        if len(args) <= body:
            return plain(*args, **options)
        turn = args[body]

        @functools.wraps(turn)
        def looped(*carried: Any) -> Any:
            out = turn(*carried)
            # scan's gives (carry, y), fori_loop's takes (i, carry)
            before, after = carried[body == 2], out[0] if body == 0 else out
            to.careful(to.turned)(before, after)
            return out

        return plain(*args[:body], looped, *args[body + 1 :], **options)

    return loop
