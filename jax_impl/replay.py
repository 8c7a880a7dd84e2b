"""Teacher forcing: every recorded step made again from the recorded state before it.

Each step is judged alone, and in it each stage: the gradients from the recorded parameters, the
update from the recorded gradients. So the first entry that is off is where the fault is.
"""

from dataclasses import dataclass, field
from functools import cached_property
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from jax_impl import devices, scales
from jax_impl.recording import (
    Ledger,
    Recorder,
    fingerprints,
    nudged,
    rounding,
    take,
    to_ledger,
)
from jax_impl.state import Batch, Step, TrainState
from twinstep.place import CPU, Place
from twinstep.specs.base import Spec
from twinstep.specs.batches import IndexChunk
from twinstep.tolerance import NUDGED_RERUNS
from twinstep.trace import Leaves, Trace


@dataclass
class Replay:
    """Makes the steps of a recording of `spec` again, chunk after chunk, on the JAX side."""

    example: ModuleType
    spec: Spec
    place: Place = CPU
    _before: dict[str, dict[str, np.ndarray]] = field(default_factory=dict)
    _states: Any = None
    _indices: Any = None

    def __call__(self, recorded: Trace, chunk: IndexChunk) -> tuple[Trace, Leaves]:
        """The steps from the recorded states, and {"stage/leaf": (T,)} the sizes they round by.

        recorded: the other side's steps; chunk: which samples this side takes in them
        """
        if recorded.start == 0:
            self._before = {
                "opt_state": {name: a[None] for name, a in self._initial_opt_state.items()},
                "grads": {name: np.zeros_like(a[:1]) for name, a in recorded.grads.items()},
            }
        self._states = {
            "params": {name: array[:-1] for name, array in recorded.params.items()},
            "opt_state": self._preceding("opt_state", recorded.opt_state, len(recorded))
            | self._counted(recorded),
            "grads": self._preceding("grads", recorded.grads, len(recorded)),
            "given": dict(recorded.grads),
        }
        recorder = self._recorder
        with recorder.settings():
            self._indices = None if chunk.indices is None else jnp.asarray(chunk.indices)
            ledger, sizes = self._map(self._states, recorder.data, self._indices)
            if chunk.indices is None:
                once = fingerprints(recorder.data)
                ledger["batch"] = {n: jnp.full(chunk.steps, f) for n, f in once.items()}
        before = {name: array[0] for name, array in recorded.params.items()}
        replayed = recorder.assemble(chunk, before, ledger, {})
        return replayed, {name: np.asarray(size) for name, size in sizes.items()}

    def remeasure(self, rows: np.ndarray) -> Leaves:
        """The sizes again, {"stage/leaf": (rows,)}, for some steps of the last chunk, with care."""
        with self._recorder.settings():
            found = [self._careful(self._row(i), self._recorder.data) for i in rows]
        sizes = {name: np.stack([np.asarray(f[name]) for f in found]) for name in found[0]}
        if not self._cheap:
            for k, i in enumerate(rows):
                for name, size in self._lost_in_float32(i).items():
                    sizes[name][k] += size
        return sizes

    def _lost_in_float32(self, i: int) -> dict[str, float]:
        """{"stage/leaf": how far float32 is from float64 in a step's loss and gradients, in eps}.

        What no nudge of the parameters shows: a saturated tanh has a slope 1 - h**2 that is all
        rounding. Dear, and rough: for models of which not every sample's term is looked at.
        """
        unit = float(np.finfo("float32").eps)
        params = {name: array[i] for name, array in self._states["params"].items()}
        index = None if self._indices is None else np.asarray(self._indices[i])
        low, high = (self._loss_and_grads(params, index, dtype) for dtype in ("float32", "float64"))
        return {
            name: float(np.max(np.abs(high[name] - low[name]), initial=0)) / unit for name in low
        }

    def _loss_and_grads(
        self, params: Leaves, index: np.ndarray | None, dtype: str
    ) -> dict[str, np.ndarray]:
        """{"stage/leaf": loss or gradient at `params`, computed in `dtype`}."""
        recorder = self._recorder
        batch = {
            name: array[slice(None) if index is None else index]
            for name, array in self.spec.batches().data.items()
        }

        def cast(arrays: Leaves) -> dict[str, jax.Array]:
            return {
                name: jnp.asarray(a.astype(dtype) if np.issubdtype(a.dtype, np.floating) else a)
                for name, a in arrays.items()
            }

        place = self.place.alone() if dtype == "float64" else self.place
        with devices.settings(dtype, devices.find(place.device)):
            loss, grads = self._plain(recorder.initial.layout.from_torch(cast(params)), cast(batch))
            named = recorder.initial.layout.to_torch(grads)
            found = {f"grads/{name}": np.asarray(grad) for name, grad in named.items()}
            return {"loss/loss": np.asarray(loss)} | found

    @cached_property
    def _plain(self) -> Any:
        """Compiled: params, batch -> loss and gradients, in their dtype."""
        template = self._recorder.initial

        def loss_of(params: Any, batch: Batch) -> jax.Array:
            model = nnx.merge(template.graph, params)
            return self.example.loss_fn(model, template.criterion, batch)

        return jax.jit(jax.value_and_grad(loss_of))

    @property
    def _cheap(self) -> bool:
        batches = self.spec.batches()
        samples = batches.batch_size or len(next(iter(batches.data.values())))
        entries = sum(array.size for array in self.spec.initial_params().values())
        return samples * entries <= scales.CHEAP

    def _row(self, i: int) -> Any:
        states = jax.tree.map(lambda array: array[i], self._states)
        return states, None if self._indices is None else self._indices[i]

    def _preceding(self, stage: str, after: Leaves, steps: int) -> dict[str, np.ndarray]:
        """What was there before each step, from what was there after each."""
        rows = {}
        for name, before in self._before[stage].items():
            # a name that the recording lacks is found by the comparison; go on until then
            array = after.get(name, np.repeat(before, steps, axis=0))
            rows[name] = np.concatenate([before, array[:-1]])
            self._before[stage][name] = array[-1:]
        return rows

    def _counted(self, recorded: Trace) -> dict[str, np.ndarray]:
        """Updates made before each step, for a state that counts them where PyTorch's does not."""
        before = recorded.start + np.arange(len(recorded))
        return dict.fromkeys(self._recorder.opt_layout.counters, before)

    @cached_property
    def _recorder(self) -> Recorder:
        return Recorder(self.example, self.spec, self.place)

    @cached_property
    def _initial_opt_state(self) -> dict[str, np.ndarray]:
        with self._recorder.settings():
            ledger = to_ledger(self._recorder.initial, self._recorder.opt_layout)
            return {name: np.asarray(array) for name, array in ledger["opt_state"].items()}

    @cached_property
    def _map(self) -> Any:
        """Compiled: recorded states, data, sample numbers -> ledger and sizes, a row a step."""

        @jax.jit
        def run(states: Any, data: Batch, indices: Any) -> Any:
            def one(row: Any) -> tuple[Ledger, scales.Scales]:
                state, batch, step, ledger = self._step(row, data)
                if row[1] is not None:
                    ledger["batch"] = fingerprints(batch)
                sizes = scales.affordable(self.example, state, batch, *step)
                if self.spec.iterates:
                    ledger["noise"] = self._carried(row, data, ledger, sizes)
                return ledger, sizes

            return jax.lax.map(one, (states, indices))

        return run

    @cached_property
    def _careful(self) -> Any:
        """Compiled: one recorded state and sample numbers, data -> sizes."""

        @jax.jit
        def run(row: Any, data: Batch) -> scales.Scales:
            state, batch, step, _ = self._step(row, data)
            return scales.measured(self.example, state, batch, *step)

        return run

    def _carried(
        self, row: Any, data: Batch, ledger: Ledger, sizes: scales.Scales
    ) -> dict[str, jax.Array]:
        """{"stage/name": ()}: how far rounding in its evaluations carries a step's own results."""
        recorder = self._recorder

        def rerun(key: jax.Array) -> Ledger:
            return self._step(row, data, (key, sizes))[3]

        keys = jax.random.split(jax.random.key(0), NUDGED_RERUNS)
        return recorder.farthest(ledger, jax.lax.map(rerun, keys))

    def _step(
        self, row: Any, data: Batch, nudge: tuple[jax.Array, scales.Scales] | None = None
    ) -> tuple[TrainState, Batch, Step, Ledger]:
        """One step from a recorded state: the state, the batch, and what the step left.

        nudge: a key and sizes, to make it from parameters, losses and gradients off by up to an eps
        """
        recorded, index = row
        template, layout = self._recorder.initial, self._recorder.initial.layout
        opt_layout = self._recorder.opt_layout
        grads = _like(template.params, recorded["grads"], layout) if template.keep_grads else None
        state = template.replace(
            params=_like(template.params, recorded["params"], layout),
            opt_state=_like(template.opt_state, recorded["opt_state"], opt_layout),
            grads=grads,
        )
        batch = data if index is None else take(data, index)
        recorded_grads = _like(state.params, recorded["given"], layout)
        update = state.optimizer
        if nudge is not None:
            key, sizes = nudge
            of_params, of_grads = jax.random.split(key)
            state, update = nudged(state, of_params), rounding(update, layout, sizes, of_grads)
        optimizer = Forced(update, recorded_grads)
        forced = state.replace(optimizer=optimizer.transformation)
        after, step = self.example.train_step(forced, batch)
        said = [step.grads, optimizer.was_given, after.grads if template.keep_grads else None]
        step = step._replace(grads=_farthest(recorded_grads, [g for g in said if g is not None]))
        return state, batch, step, to_ledger(after, opt_layout, step)


def _farthest(recorded: Any, said: list[Any]) -> Any:
    """Of what a step reports, gives its optimizer and keeps as gradients, what is most wrong.

    The three are one and the same in a step that is right.
    """

    def farthest(true: jax.Array, *values: jax.Array) -> jax.Array:
        # no argmax: a TPU's compiler keeps the maximum, of which nobody asks, in bfloat16
        chosen, most = values[0], _gap(values[0], true)
        for value in values[1:]:
            gap = _gap(value, true)
            further = jnp.isnan(gap) | (gap > most)
            chosen, most = jnp.where(further, value, chosen), jnp.where(further, gap, most)
        return chosen

    return jax.tree.map(farthest, recorded, *said)


def _gap(value: jax.Array, true: jax.Array) -> jax.Array:
    return jnp.max(jnp.abs(value - true), initial=0)


class Forced:
    """An optimizer that updates by the recorded gradients, whatever it is given, and notes that.

    So an update is judged alone: where a gradient is almost 0, Adam makes much of its rounding.
    """

    def __init__(self, optimizer: optax.GradientTransformation, recorded: Any) -> None:
        self.was_given: Any = None

        def update(grads: Any, state: Any, params: Any = None, **extra: Any) -> Any:
            self.was_given = grads
            return optax.with_extra_args_support(optimizer).update(recorded, state, params, **extra)

        self.transformation = optax.GradientTransformationExtraArgs(optimizer.init, update)


def _like(tree: Any, named: Any, layout: Any) -> Any:
    """The tree of recorded arrays, in this side's dtypes."""
    pairs = zip(jax.tree.leaves(layout.from_torch(named)), jax.tree.leaves(tree), strict=True)
    return jax.tree.unflatten(
        jax.tree.structure(tree), [array.astype(leaf.dtype) for array, leaf in pairs]
    )
