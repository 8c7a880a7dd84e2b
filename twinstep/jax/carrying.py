"""Optimizers that carry their gradients, whoever makes them: what `watch` does, from outside.

An optimizer's state is given back by whatever updates it, and so brings out of jit, scan, vmap and
pmap what it carries: no callback, and the bits stay as they are.
"""

import weakref
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from twinstep.jax.watching import WatchState

Tree = Any
_KEPT = 64
"""How many losses wait for the update that they belong to: a step has a few."""


class _Carried(NamedTuple):
    grads: Tree
    inner: optax.OptState
    updates: jax.Array
    loss: jax.Array
    is_known: jax.Array
    number: jax.Array


class CarriedState(_Carried):
    """An optimizer's state with what its last update was made of.

    To the program it is what is inside: it is taken apart, asked and changed as that is.
    grads, inner, updates: as of `WatchState`; loss: what was differentiated, if that `is_known`
    number: which of the program's optimizers it is, in the order in which they began
    """

    __slots__ = ()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def __getitem__(self, key: Any) -> Any:
        return self.inner[key]

    def __iter__(self) -> Iterator[Any]:
        return iter(self.inner)

    def __len__(self) -> int:
        return len(self.inner)

    def __getnewargs__(self) -> tuple[Any, ...]:
        return self.fields()

    def _asdict(self) -> dict[str, Any]:
        return dict(zip(self._fields, self.fields(), strict=True))

    def _replace(self, **changes: Any) -> Any:
        return CarriedState(self.grads, self.inner._replace(**changes), *self.fields()[2:])

    def fields(self) -> tuple[Any, ...]:
        """What it is made of."""
        return tuple(tuple.__iter__(self))

    def watched(self) -> WatchState:
        """The same as `watch` has it, if the program itself does not."""
        inner = self.inner
        if isinstance(inner, WatchState):
            return inner
        return WatchState(self.grads, inner, self.updates)


jax.tree_util.register_pytree_with_keys(
    CarriedState,
    lambda state: (
        [
            (jax.tree_util.GetAttrKey(name), field)
            for name, field in zip(state._fields, state.fields(), strict=True)
        ],
        None,
    ),
    lambda _, fields: CarriedState(*fields),
    lambda state: (state.fields(), None),
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


class Carrying:
    """What the optimizers of a program carry, while it runs.

    applied: the parameters that `apply_updates` has made, weakly, by id
    updated: is called with a state that was updated outside of any trace, the parameters that the
        update was given, if any, and what its loss was of
    """

    def __init__(self, is_clean: Callable[[], bool], updated: Callable[..., None]) -> None:
        self.is_clean, self.updated = is_clean, updated
        self.applied: dict[int, Any] = {}
        self.losses: deque[Loss] = deque(maxlen=_KEPT)
        self._forms: set[Any] = set()
        self._depth = 0
        self._made = 0

    @property
    def several(self) -> bool:
        """Whether more than one optimizer has begun."""
        return len(self._forms) > 1

    def differentiated(self, loss: Any, grads: Tree, batch: dict[str, Any] | None = None) -> None:
        """A loss has gradients now."""
        self.losses.append(Loss(loss, list(map(_weak, jax.tree.leaves(grads))), batch or {}))

    def apply(self, params: Tree) -> None:
        """These are what an update has left."""
        self.applied = {key: ref for key, ref in self.applied.items() if _held(ref) is not None}
        self.applied |= {id(leaf): _weak(leaf) for leaf in jax.tree.leaves(params)}

    def is_applied(self, leaf: Any) -> bool:
        """Whether it is a parameter that an update has left."""
        return id(leaf) in self.applied and _held(self.applied[id(leaf)]) is leaf

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
            return inner if self._depth else self._begun(made, params, inner)

        def update_carrying(updates: Tree, state: Any, *args: Any, **extra: Any) -> Any:
            if self._depth or not isinstance(state, CarriedState):
                return update(updates, state, *args, **extra)
            with self._inside():
                changes, inner = update(updates, state.inner, *args, **extra)
            after = self._after(state, updates, inner, args[0] if args else extra.get("params"))
            return changes, after

        return init_carrying, update_carrying

    def _begun(self, made: object, params: Tree, inner: Any) -> CarriedState:
        shapes = tuple(np.shape(leaf) for leaf in jax.tree.leaves(params))
        self._made += 1
        one = self._made if self.is_clean() else made  # traced for its shapes, it is none
        self._forms.add((one, jax.tree.structure(params), shapes))
        return CarriedState(
            jax.tree.map(jnp.zeros_like, params),
            inner,
            jnp.asarray(np.int32(0)),
            jnp.asarray(np.zeros((), _loss_dtype())),
            jnp.asarray(np.bool_(False)),
            jnp.asarray(np.int32(self._made)),
        )

    def _after(self, state: CarriedState, grads: Tree, inner: Any, params: Tree) -> CarriedState:
        found = self._taken(grads)
        loss: Any = sum(one.value for one in found)
        after = CarriedState(
            jax.tree.map(_as_wide, grads, state.grads),
            inner,
            state.updates + 1,
            jnp.asarray(loss, _loss_dtype()) if found else jnp.zeros_like(state.loss),
            jnp.full_like(state.is_known, bool(found)),
            state.number,
        )
        if self.is_clean():
            batch = {name: array for one in found for name, array in one.batch.items()}
            self.updated(after, params, batch)
        return after


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


def _as_wide(grad: Any, slot: Any) -> Any:
    """A gradient in the dtype in which it is carried, if that holds all of it."""
    wider = grad.dtype != slot.dtype and jnp.promote_types(grad.dtype, slot.dtype) == slot.dtype
    return grad.astype(slot.dtype) if wider else grad


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
