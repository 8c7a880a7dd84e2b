"""Optimizers whose state says what they do, whoever makes them: what `watch` does, from outside.

An optimizer's state is given back by whatever updates it, and so brings out of jit, scan, vmap and
pmap what it carries, with no callback. In the program itself it carries a count and nothing else:
an intermediate result that is given out too, such as a gradient, makes XLA fuse in another way, and
the last bit of a training may differ. The gradients are carried by a shadow of the program's
function, which is compiled and called beside it.
"""

import copy
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import serialization
from jax.tree_util import GetAttrKey

from twinstep.jax.trees import Path, by_path
from twinstep.jax.watching import WatchState

Tree = Any
_KEPT = 64
"""How many losses wait for the update that they belong to: a step has a few."""


_FIELDS = ("grads", "inner", "updates", "loss", "is_known", "number")


class CarriedState:
    """An optimizer's state that counts its updates, and in a shadow has what they are made of.

    To the program it is what is inside: it is taken apart, asked, changed and saved as that is.
    grads, inner, updates: as of `WatchState`; loss: what was differentiated, if that `is_known`;
    number: which of the program's optimizers it is, in the order in which they began
    In the program itself grads, loss and is_known are ().
    """

    __slots__ = _FIELDS

    def __init__(
        self, grads: Tree, inner: Any, updates: Any, loss: Any, is_known: Any, number: Any
    ) -> None:
        self.grads, self.inner, self.updates = grads, inner, updates
        self.loss, self.is_known, self.number = loss, is_known, number

    @property
    def is_full(self) -> bool:
        """Whether it carries gradients."""
        return not (isinstance(self.grads, tuple) and self.grads == ())

    @property
    def carried(self) -> tuple[Tree, Any, Any]:
        """Gradients, the loss, and whether that is known."""
        return self.grads, self.loss, self.is_known

    def carry(self, grads: Tree, loss: Any, is_known: Any) -> "CarriedState":
        """The same, carrying these."""
        return CarriedState(grads, self.inner, self.updates, loss, is_known, self.number)

    def around(self, inner: Any) -> "CarriedState":
        """The same with another inside."""
        return CarriedState(self.grads, inner, self.updates, self.loss, self.is_known, self.number)

    def at(self, updates: Any) -> "CarriedState":
        """The same, after so many updates."""
        return CarriedState(self.grads, self.inner, updates, self.loss, self.is_known, self.number)

    def watched(self, grads: Tree) -> WatchState:
        """The same as `watch` has it, if the program itself does not."""
        inner = self.inner
        return inner if isinstance(inner, WatchState) else WatchState(grads, inner, self.updates)

    def __getattr__(self, name: str) -> Any:
        if name in _FIELDS:  # of one that is being made
            raise AttributeError(name)
        return getattr(self.inner, name)

    def __getitem__(self, key: Any) -> Any:
        return self.inner[key]

    def __iter__(self) -> Iterator[Any]:
        return iter(self.inner)

    def __len__(self) -> int:
        return len(self.inner)

    def _replace(self, **changes: Any) -> "CarriedState":
        return self.around(self.inner._replace(**changes))

    def __copy__(self) -> "CarriedState":
        return self.around(self.inner)

    def __deepcopy__(self, memo: Any) -> "CarriedState":
        return CarriedState(*(copy.deepcopy(getattr(self, name), memo) for name in _FIELDS))

    def __reduce_ex__(self, protocol: Any) -> Any:
        return self.inner.__reduce_ex__(protocol)


jax.tree_util.register_pytree_with_keys(
    CarriedState,
    lambda state: ([(GetAttrKey(name), getattr(state, name)) for name in _FIELDS], None),
    lambda _, fields: CarriedState(*fields),
)
serialization.register_serialization_state(  # type: ignore[no-untyped-call]  # of Flax
    CarriedState,
    lambda state: serialization.to_state_dict(state.inner),
    lambda state, saved: state.around(serialization.from_state_dict(state.inner, saved)),
)


class Loss(NamedTuple):
    """A loss that was differentiated. leaves: its gradients, weakly; batch: what of, if seen"""

    value: Any
    leaves: list[Any]
    batch: dict[str, Any]

    def gave(self, leaves: list[Any]) -> bool:
        """Whether some of these arrays are its gradients."""
        own = {id(leaf) for leaf in map(_held, self.leaves) if leaf is not None}
        return any(id(leaf) in own for leaf in leaves)

    def may_have_given(self, leaves: list[Any]) -> bool:
        """Whether its gradients have their form and are of the same trace."""
        own = [_held(leaf) for leaf in self.leaves]
        shapes = [np.shape(leaf) for leaf in leaves]
        return [np.shape(leaf) for leaf in own] == shapes and _trace(self.value) is _trace(
            leaves[0]
        )


class Marked:
    """Some arrays, which it does not keep."""

    def __init__(self) -> None:
        self._held: dict[int, Any] = {}

    def add(self, tree: Tree) -> None:
        """All in a tree."""
        self._held = {key: ref for key, ref in self._held.items() if _held(ref) is not None}
        self._held |= {id(leaf): _weak(leaf) for leaf in jax.tree.leaves(tree)}

    def has(self, leaf: Any) -> bool:
        """Whether it is one of them."""
        return id(leaf) in self._held and _held(self._held[id(leaf)]) is leaf


class Carrying:
    """What the optimizers of a program carry, while it runs.

    applied: the parameters that `apply_updates` has made; given: those that were differentiated, or
        given to an update; changes: what updates add to them, and gradients
    begun: how many optimizers have begun; started: {number: parameters} of those that began
        outside of any trace
    careful: makes of what may raise what does not, and gives None
    updated: is called with a state that was updated outside of any trace, its gradients, the
        parameters that it was given, if any, and its losses
    is_shadow: whether it is a shadow that runs; unrolls: and one of several updates in a call
    traced: how many updates were traced, of a shadow or not
    """

    def __init__(
        self,
        is_clean: Callable[[], bool],
        careful: Callable[[Callable[..., Any]], Callable[..., Any]],
        updated: Callable[..., None],
    ) -> None:
        self.is_clean, self.updated = is_clean, updated
        self._begun, self._after = careful(self._begins), careful(self._comes_after)
        self.applied, self.given, self.changes = Marked(), Marked(), Marked()
        self.begun = 0
        self.started: dict[int, Tree] = {}
        self.losses: deque[Loss] = deque(maxlen=_KEPT)
        self.is_shadow, self.unrolls, self.traced = False, False, 0
        self._unrolled: deque[tuple[list[Any], CarriedState]] = deque(maxlen=_KEPT)
        self._forms: dict[int, Tree] = {}
        self._different: set[Any] = set()
        self._depth = 0

    @property
    def several(self) -> bool:
        """Whether more than one optimizer has begun."""
        return len(self._different) > 1

    def form(self, state: CarriedState) -> dict[Path, Any]:
        """{path: something of the shape} of the parameters of a state, without axes in front."""
        return by_path(state.grads if state.is_full else self._forms[first(state.number)])

    def filled(self, state: CarriedState) -> CarriedState:
        """A state for a shadow, which will carry all."""
        front = jnp.shape(state.updates)
        grads = jax.tree.map(
            lambda leaf: jnp.zeros((*front, *leaf.shape), leaf.dtype),
            self._forms[first(state.number)],
        )
        return state.carry(grads, jnp.zeros(front, _loss_dtype()), jnp.zeros(front, bool))

    def differentiated(self, loss: Any, grads: Tree, batch: dict[str, Any] | None = None) -> None:
        """A loss has gradients now."""
        self.changes.add(grads)
        self.losses.append(Loss(loss, list(map(_weak, jax.tree.leaves(grads))), batch or {}))

    def given_by(self, tree: Tree) -> list[Loss]:
        """The losses whose gradients are in a tree, outside of any trace."""
        leaves = jax.tree.leaves(tree)
        found = [loss for loss in self.losses if loss.gave(leaves)]
        return [loss for loss in found if not isinstance(loss.value, jax.core.Tracer)]

    def _taken(self, grads: Tree) -> list[Loss]:
        """The losses that the gradients of an update are of; they are no other's."""
        leaves = jax.tree.leaves(grads)
        for kind in (Loss.gave, Loss.may_have_given):
            found = [loss for loss in self.losses if leaves and kind(loss, leaves)]
            found = [loss for loss in found if _trace(loss.value) is _trace(leaves[0])]
            if found:
                kept = [loss for loss in self.losses if not any(loss is one for one in found)]
                self.losses = deque(kept, _KEPT)
                return found
        return []

    @contextmanager
    def _inside(self) -> Iterator[None]:
        self._depth += 1
        try:
            yield
        finally:
            self._depth -= 1

    def around(self, init: Any, update: Any) -> tuple[Any, Any]:
        """What an optimizer is made of, so that it carries if nothing else is around it."""
        made = object()

        def init_carrying(params: Tree, *args: Any, **options: Any) -> Any:
            with self._inside():
                inner = init(params, *args, **options)
            state = None if self._depth else self._begun(made, params, inner)
            return inner if state is None else state

        def update_carrying(updates: Tree, state: Any, *args: Any, **extra: Any) -> Any:
            if self._depth or not isinstance(state, CarriedState):
                return update(updates, state, *args, **extra)
            with self._inside():
                changes, inner = update(updates, state.inner, *args, **extra)
            params = args[0] if args else extra.get("params")
            after = self._after(state, updates, changes, inner, params)
            return changes, state.around(inner) if after is None else after

        return init_carrying, update_carrying

    def _begins(self, made: object, params: Tree, inner: Any) -> CarriedState:
        params = jax.tree.map(lambda leaf: leaf if hasattr(leaf, "shape") else None, params)
        form = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), params)
        self.begun += 1
        self._forms[self.begun] = form
        one = self.begun if self.is_clean() else made  # traced for its shapes, it is none
        if not self.is_shadow:
            self._different.add((one, str(form)))
        if self.is_clean():
            self.started[self.begun] = copied(params)
        updates, number = (jnp.asarray(np.int32(n)) for n in (0, self.begun))
        state = CarriedState((), inner, updates, (), (), number)
        if not self.is_shadow:
            return state
        nothing = jnp.asarray(np.zeros((), _loss_dtype())), jnp.asarray(np.bool_(False))
        return state.carry(jax.tree.map(jnp.zeros_like, params), *nothing)

    def _comes_after(
        self, state: CarriedState, grads: Tree, changes: Tree, inner: Any, params: Tree
    ) -> CarriedState:
        self.changes.add(changes)
        after = CarriedState((), inner, state.updates + 1, (), (), state.number)
        self.traced += 1
        self.given.add(params)
        if self.is_clean():
            self.updated(after, grads, params, self._taken(grads))
        if not state.is_full:
            return after
        found = self._taken(grads)
        loss: Any = sum(one.value for one in found)
        after = after.carry(
            _as_wide(grads, state.grads),
            jnp.asarray(loss, state.loss.dtype) if found else jnp.zeros_like(state.loss),
            jnp.full_like(state.is_known, bool(found)),
        )
        if self.unrolls:
            self._unrolled.append((list(map(_weak, jax.tree.leaves(changes))), after))
        return after

    def left_by(self, changes: Tree) -> CarriedState | None:
        """The state that the update has left which made these changes, of several in a call."""
        leaves = jax.tree.leaves(changes)
        for made, state in reversed(self._unrolled):
            if any(_held(one) is leaf for one, leaf in zip(made, leaves, strict=False)):
                found: CarriedState = state
                return found
        return None

    @contextmanager
    def shadowing(self, unrolls: bool) -> Iterator[None]:
        """A shadow runs meanwhile; unrolls: one of several updates in a call."""
        self.is_shadow, self.unrolls = True, unrolls
        try:
            yield
        finally:
            self.is_shadow = self.unrolls = False
            self._unrolled.clear()


@contextmanager
def carried(carrying: Carrying) -> Iterator[None]:
    """Meanwhile every optimizer that is made carries."""
    of, several = optax.GradientTransformation, optax.MultiSteps
    plain_new, plain_init = of.__new__, several.__init__

    def new(cls: Any, init: Any, update: Any) -> Any:
        return plain_new(cls, *carrying.around(init, update))

    def init(self: Any, *args: Any, **options: Any) -> None:
        plain_init(self, *args, **options)
        self.init, self.update = carrying.around(self.init, self.update)

    of.__new__, several.__init__ = new, init
    try:
        yield
    finally:
        of.__new__, several.__init__ = plain_new, plain_init


def copied(tree: Tree) -> Tree:
    """As it is now: JAX may give its memory away. What other processes share stays JAX's."""

    def copy_of(leaf: Any) -> Any:
        if isinstance(leaf, jax.Array):
            if not leaf.is_fully_addressable:
                return jnp.copy(leaf)
            if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
                leaf = jax.random.key_data(leaf)
        return np.array(leaf)

    return jax.tree.map(copy_of, tree)


def first(array: Any) -> int:
    """A number that all have, whatever axes stand in front of it."""
    return int(np.asarray(array).reshape(-1)[0])


def _as_wide(grads: Tree, slots: Tree) -> Tree:
    """Gradients in the dtypes in which they are carried, where those hold all of them."""

    def wide(grad: Any, slot: Any) -> Any:
        wider = grad.dtype != slot.dtype and jnp.promote_types(grad.dtype, slot.dtype) == slot.dtype
        return grad.astype(slot.dtype) if wider else grad

    form: Any = jax.tree.structure(grads)
    # else some parameters have none
    return jax.tree.map(wide, grads, slots) if form == jax.tree.structure(slots) else grads


def _loss_dtype() -> np.dtype[Any]:
    return np.dtype(np.float64 if jax.config.read("jax_enable_x64") else np.float32)


def _trace(array: Any) -> Any:
    """What an array is traced by; None: it is there."""
    return getattr(array, "_trace", None) if isinstance(array, jax.core.Tracer) else None


def _weak(leaf: Any) -> Any:
    try:
        return weakref.ref(leaf)
    except TypeError:  # a number
        return lambda: leaf


def _held(reference: Any) -> Any:
    return reference()
