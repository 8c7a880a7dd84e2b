"""Tells a recorder of the updates that are seen of a program, one by one."""

import warnings
from os import PathLike
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from twinstep.errors import InputError
from twinstep.jax.outside.carrying import Loss, first
from twinstep.jax.outside.finding import Held, Leaves
from twinstep.jax.recorder import Recorder, Told
from twinstep.jax.states import STEP, Form, Named
from twinstep.jax.trees import Path
from twinstep.jax.watching import WatchState
from twinstep.trace.keep import Keep

LOOKED_AT = "callbacks in the shadows of compiled functions: rounding may differ from their own"
"""What a trace says of itself for which something compiled was looked into."""


class Update(NamedTuple):
    """An update that was seen: the state that it has left, and what it was made of."""

    held: Held
    grads: Any
    loss: Any
    is_known: Any
    batch: dict[str, Any]
    keys: dict[str, Any]
    replicated: bool

    def of(self, losses: list[Loss]) -> "Update":
        """The same, whose gradients are those of some losses, which were seen before."""
        if not losses:
            return self
        batch = {name: array for loss in losses for name, array in loss.batch.items()}
        loss: Any = sum(loss.value for loss in losses)
        return self._replace(loss=loss, is_known=True, batch=batch or self.batch)


class Optimizer:
    """One of the program's. updates: how many were told; form: {path: gradient} of its parameters

    initial: parameters as `Held` has them, buffers and state before the first one that is told
    left: its parameters after the last one, as the program has them
    waits: an update whose parameters have not been seen yet
    before: parameters and state that the next one begins from, where others may have changed them
    """

    def __init__(self, name: str, updates: int, form: Leaves) -> None:
        self.name, self.updates, self.form = name, updates, form
        self.initial: tuple[dict[Path, Named], Named, Any] | None = None
        self.left: dict[str, Any] = {}
        self.waits: Update | None = None
        self.before: tuple[Named, Any] | None = None
        self.is_known = False


class Seen:
    """What was seen of a program. out: where the trace goes; keep: what of it

    in_loops: whether updates are seen by callbacks in compiled loops
    """

    def __init__(self, out: str | PathLike[str], keep: Keep) -> None:
        self._out, self.keep = out, keep
        self.in_loops = False
        self.recorder: Recorder | None = None
        self._warned = False

    @property
    def made(self) -> int:
        """How many updates are recorded."""
        return 0 if self.recorder is None else self.recorder.made

    @property
    def over(self) -> bool:
        """Whether as many are as were asked for."""
        return self.recorder is not None and self.recorder.over

    def leaps(self, one: Optimizer) -> bool:
        """Whether an optimizer's next update is kept, and the one before may not be."""
        return self.keep.leaps and self.keep.has(one.updates + 1)

    def tell(self, one: Optimizer, update: Update, params: Any) -> None:
        """Of an update, and the parameters that it has left."""
        state, lead = update.held.state, np.ndim(update.held.state.updates)
        axes = () if update.replicated or not lead else (*_axes(lead), STEP)
        form = Form(np.shape(state.updates)[0] if lead and not axes else None, axes)
        is_known = bool(np.all(np.asarray(update.is_known)))
        loss = update.loss if is_known else np.full(np.shape(update.loss), np.nan)
        if not is_known and not self._warned:
            self._warned = True
            warnings.warn(
                f"optimizer {one.name!r}: the loss of its update {first(state.updates)} cannot be "
                "seen, as no jax.grad or jax.value_and_grad of the same trace has given its "
                "gradients",
                stacklevel=2,
            )
        told = Told(
            loss,
            params,
            state.watched(update.grads),
            update.held.buffers,
            update.batch,
            update.keys,
            one.before,
            is_known,
        )
        if axes:
            loss, params, opt_state, buffers = _with_steps(told[:4], lead)
            told = Told(loss, params, opt_state, buffers, {}, {}, None, is_known)
        recorder = self._recorder_of(one, form.replicas)
        if self.in_loops:
            recorder.says(looked_at=LOOKED_AT)
        recorder.told(told, form, one.name)
        one.updates, one.left = first(state.updates), dict(params)
        one.waits = one.before = None

    def _recorder_of(self, one: Optimizer, replicas: int | None) -> Recorder:
        """The recorder, which knows the optimizer."""
        recorder = self.recorder
        if one.is_known and recorder is not None:
            return recorder
        if one.initial is None or not one.initial[0]:
            raise InputError(
                f"optimizer {one.name!r}: its parameters before its first update were not seen"
            )
        several, buffers, state = one.initial
        params = next(iter(several.values()))
        if recorder is None:
            recorder = self.recorder = Recorder(
                {one.name: (params, state)},
                out=self._out,
                buffers=buffers,
                replicas=replicas,
                keep=self.keep,
            )
        else:
            recorder.join(one.name, (params, state), buffers)
        one.is_known = True
        return recorder


def counted(one: Optimizer) -> WatchState:
    """A state of which nothing is known but how many updates it has made."""
    return WatchState((), (), jnp.asarray(np.int32(one.updates)))


def _axes(lead: int) -> tuple[str, ...]:
    """What the axes are called that vmaps have put in front."""
    return ("vmap",) if lead == 1 else tuple(f"vmap{i}" for i in range(1, lead + 1))


def _with_steps(tree: Any, lead: int) -> Any:
    """With an axis of one step behind those in front."""
    return jax.tree.map(lambda array: np.expand_dims(np.asarray(array), lead), tree)
