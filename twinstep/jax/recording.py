"""Runs an example and records the ledger of every step: a compiled scan over chunks of steps.

Mirror: twinstep/torch/recording.py
"""

import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property, partial
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.flatten_util import ravel_pytree

from twinstep.jax import devices, scales
from twinstep.jax.layout import Layout, opt_state_layout
from twinstep.jax.state import Batch, Step, TrainState
from twinstep.judge.tolerance import GRADIENT_NUDGE, NUDGED_RERUNS
from twinstep.place import CPU, Place
from twinstep.problems.base import Spec
from twinstep.problems.batches import IndexChunk
from twinstep.problems.chunking import steps_at_once
from twinstep.trace.ledger import Metadata, Trace

Ledger = dict[str, Any]

# Two reruns are nudged alike at every step, one each way; others as it comes. Of 32 bits in either
# mode: JAX remembers one NumPy array's conversion, whatever x64 says since.
STEADY = np.array([1, -1, *(0 for _ in range(NUDGED_RERUNS - 2))], np.int32)


@dataclass(frozen=True)
class Recorder:
    """An example's module, what it trains, where, and whether to measure the run's noise.

    noise: train three times more, with every gradient and, after each step, every parameter nudged
        by some eps, and record how far that carries each leaf; float32's is what its eps does to
        the float64 program: what is judged must not set its own allowance
    rounds: the dtype whose eps that is; None: the spec's own
    """

    example: ModuleType
    spec: Spec
    place: Place = CPU
    noise: bool = False
    rounds: str | None = None

    @cached_property
    def metadata(self) -> Metadata:
        return Metadata(
            example=self.spec.name,
            spec=self.spec.hyper_parameters(),
            framework="jax",
            dtype=self.spec.dtype,
            device=self._device.device_kind,
            precision=self._precision,
            versions=devices.versions(),
        )

    def chunks(self, most: int | None = None) -> Iterator[Trace]:
        """Trains; the steps in pieces of at most `most`."""
        most = most or steps_at_once(self.spec)
        if self.noise and self.spec.dtype != "float64":
            plain = dataclasses.replace(self, noise=False)
            for trace, exact in zip(plain.chunks(most), self.exact().chunks(most), strict=True):
                yield trace.with_noise_of(exact)
            return
        batches = self.spec.batches()
        with self.settings():
            before = to_ledger(self.initial, self.opt_layout)["params"]
            reruns = None
            if self.unit is not None:
                reruns = self.placed(self._reruns(self.initial, self.unit.eps))
            state, data = self.placed(self.initial), self.data
        for chunk in batches.chunks(most):
            with self.settings():
                state, reruns, ledger = self._run(state, reruns, data, chunk)
                last = chunk.start + chunk.steps == batches.total_steps
                evaluation, metrics = self.evaluated(state, reruns) if last else ({}, {})
            trace = self.assemble(chunk, before, ledger, evaluation, metrics)
            before = {name: array[-1] for name, array in trace.params.items()}
            yield trace

    def exact(self) -> "Recorder":
        """What trains the same problem in float64, and measures this dtype's noise on it."""
        wide, place = self.spec.widened(), self.place.alone()
        return Recorder(self.example, wide, place, noise=True, rounds=self.spec.dtype)

    def _run(
        self, state: TrainState, reruns: Any, data: Batch, chunk: IndexChunk
    ) -> tuple[TrainState, Any, Ledger]:
        indices = None if chunk.indices is None else self.placed(jnp.asarray(chunk.indices))
        leaves, reruns, ledger = self.scan(
            jax.tree.leaves(state), reruns, data, indices, self.unit, steps=chunk.steps
        )
        return jax.tree.unflatten(jax.tree.structure(state), leaves), reruns, ledger

    @cached_property
    def scan(self) -> Any:
        """Compiled: leaves of the state, reruns, data, sample numbers, unit -> the same, ledger.

        Takes and gives flat leaves, which JAX hands over faster than trees.
        """
        treedef = jax.tree.structure(self.initial)

        @partial(jax.jit, static_argnames="steps", out_shardings=self.everywhere)
        def scan(
            leaves: list[jax.Array],
            reruns: Any,
            data: Batch,
            indices: Any,
            unit: scales.Unit | None,
            *,
            steps: int,
        ) -> tuple[list[jax.Array], Any, Ledger]:
            def body(carry: Any, index: Any) -> tuple[Any, Ledger]:
                state, reruns = carry
                batch = self.batch_of(data, index)
                before = state
                state, step = self.example.train_step(state, batch)
                ledger = to_ledger(state, self.opt_layout, step)
                if index is not None:
                    ledger["batch"] = fingerprints(batch)
                if unit is not None:
                    ledger["scales"] = scales.affordable(
                        self.example, before, batch, step.loss, step.grads, unit
                    )
                    reruns, ledger["noise"] = self._nudge(reruns, batch, ledger, unit)
                return (state, reruns), ledger

            state = jax.tree.unflatten(treedef, leaves)
            (state, reruns), ledger = jax.lax.scan(body, (state, reruns), indices, length=steps)
            if indices is None:  # the same batch each time
                once = fingerprints(data)
                ledger["batch"] = {n: jnp.broadcast_to(f, (steps,)) for n, f in once.items()}
            return jax.tree.leaves(state), reruns, ledger

        return scan

    def _reruns(self, state: TrainState, eps: Any) -> tuple[TrainState, jax.Array]:
        """The states of the nudged reruns, stacked, and their random keys."""
        keys = jax.random.split(jax.random.key(self.spec.seed & 0x7FFFFFFF), NUDGED_RERUNS)
        keys, _, of_params = _split(jnp.where(STEADY, keys[0], keys))
        return jax.vmap(nudged, in_axes=(None, 0, 0, None))(state, of_params, STEADY, eps), keys

    def _nudge(
        self, reruns: Any, batch: Batch, ledger: Ledger, unit: scales.Unit
    ) -> tuple[Any, dict[str, jax.Array]]:
        """One step of every rerun, and how far the farthest is from the run, leaf by leaf."""
        states, keys = reruns
        keys, of_grads, of_params = _split(keys)
        layout, sizes = self.initial.layout, ledger["scales"]

        def rerun(each: tuple[TrainState, jax.Array, jax.Array]) -> tuple[TrainState, Step]:
            state, key, way = each
            off = {name: way * size for name, size in sizes.items()}
            optimizer = rounding(state.optimizer, layout, off, key)
            after, step = self.example.train_step(state.replace(optimizer=optimizer), batch)
            return after.replace(optimizer=state.optimizer), step

        # one after the other: batched, small matrix products are several times slower on a CPU
        ways = jnp.where(STEADY < 0, -1.0, 1.0)
        states, steps = jax.lax.map(rerun, (states, of_grads, ways))
        theirs = jax.vmap(partial(to_ledger, opt_layout=self.opt_layout))(states, step=steps)
        states = jax.vmap(nudged, in_axes=(0, 0, 0, None))(states, of_params, STEADY, unit.eps)
        return (states, keys), self.farthest(ledger, theirs)

    def farthest(self, ledger: Ledger, theirs: Ledger) -> dict[str, jax.Array]:
        """{"stage/name": ()}: how far the farthest of some ledgers, stacked, is from one of a step.

        What is counted does not round: a run that makes another number of evaluations is another.
        """
        gaps = {}
        for stage in ("loss", "grads", "opt_state", "params"):
            mine = {"loss": ledger[stage]} if stage == "loss" else ledger[stage]
            other = {"loss": theirs[stage]} if stage == "loss" else theirs[stage]
            for name, array in mine.items():
                gap = jnp.max(jnp.abs(other[name] - array), initial=0)
                counted = stage == "opt_state" and name in self._counted
                gaps[f"{stage}/{name}"] = jnp.zeros_like(gap) if counted else gap
        return gaps

    def assemble(
        self,
        chunk: IndexChunk,
        before: Ledger,
        ledger: Ledger,
        evaluation: dict[str, np.ndarray],
        metrics: dict[str, float],
    ) -> Trace:
        names = list(self.spec.initial_params())
        host = jax.tree.map(np.asarray, ledger)
        params = {
            name: np.concatenate([np.asarray(before[name])[None], host["params"][name]])
            for name in names
        }
        return Trace(
            metadata=self.metadata,
            losses=host["loss"],
            batch=host["batch"],
            grads={name: host["grads"][name] for name in names},
            opt_state=host["opt_state"],
            params=params,
            noise=host.get("noise"),
            scales=host.get("scales"),
            start=chunk.start,
            metrics=metrics,
            evaluation=evaluation,
        )

    def batch_of(self, data: Batch, index: jax.Array | None) -> Batch:
        """What an update trains on. index: (batch size,), or None: all samples."""
        return data if index is None else take(data, index)

    def placed(self, tree: Any) -> Any:
        """A tree of arrays where the scan wants it."""
        return tree

    @property
    def everywhere(self) -> jax.sharding.Sharding | None:
        """How the scan's results lie; None: as they come, on one device."""
        return None

    def evaluated(
        self, state: TrainState, reruns: Any = None, unit: scales.Unit | None = None
    ) -> tuple[dict[str, np.ndarray], dict[str, float]]:
        """What its test makes of a state, for an example that has one, and the figures.

        reruns: how far rounding carries the outputs is measured on them; unit: and how far it
            moves them at once (with reruns, by what they are nudged)
        """
        if (test_set := self.spec.test_set()) is None:
            return {}, {}
        images, labels = (jnp.asarray(array) for array in test_set)

        def outputs_at(params: Any) -> jax.Array:
            outputs: jax.Array = self.example.evaluate(
                state.replace(params=params), images, labels
            )[0]
            return outputs

        outputs, predictions, correct = self.example.evaluate(state, images, labels)
        found = {"outputs": outputs, "predictions": predictions}
        if reruns is not None:
            unit = self.unit
            each = jax.lax.map(outputs_at, reruns[0].params)
            found["noise"] = jnp.max(jnp.abs(each - outputs), initial=0)
        if unit is not None:
            found["rounding"] = scales.of_outputs(outputs_at, state.params, outputs, unit)
        figures = {"correct": float(correct), "test_images": float(len(labels))}
        return {name: np.asarray(array) for name, array in found.items()}, figures

    @property
    def unit(self) -> scales.Unit | None:
        """What the noise is of; None where none is measured."""
        return scales.unit(self.rounds or self.spec.dtype, self.spec.dtype) if self.noise else None

    def settings(self) -> Any:
        return devices.settings(self.spec.dtype, self._device, self.place.precision)

    @cached_property
    def _device(self) -> jax.Device:
        return devices.find(self.place.device, self.spec.dtype)

    @property
    def _precision(self) -> str:
        with self.settings():  # asked of JAX there, not taken from the place
            return devices.in_force(self.spec.dtype, self._device)

    @cached_property
    def initial(self) -> TrainState:
        return self.example.init(self.spec)

    @cached_property
    def data(self) -> Batch:
        return to_device(self.spec)

    @cached_property
    def opt_layout(self) -> Layout:
        return opt_state_layout(self.initial.opt_state, self.initial.layout)

    @cached_property
    def _counted(self) -> set[str]:
        """The names of the optimizer's state that are whole numbers."""
        named = self.opt_layout.to_torch(self.initial.opt_state)
        return {name for name, a in named.items() if jnp.issubdtype(a.dtype, jnp.integer)}


def to_ledger(state: TrainState, opt_layout: Layout, step: Step | None = None) -> Ledger:
    """A step's entries by PyTorch's names, in PyTorch's layout; scalars as floats, as it has."""
    kind = jax.tree.leaves(state.params)[0].dtype
    opt_state = {
        name: array.astype(kind)
        for name, array in opt_layout.to_torch(state.opt_state).items()
        if name not in opt_layout.counters
    }
    ledger: Ledger = {"opt_state": opt_state, "params": state.layout.to_torch(state.params)}
    if step is not None:
        ledger |= {"loss": step.loss, "grads": state.layout.to_torch(step.grads)}
    return ledger


def nudged(state: TrainState, key: jax.Array, steady: Any, eps: Any) -> TrainState:
    """Every parameter off by up to one eps of itself; steady, (): by a whole one, 1 or -1 way."""

    def off(leaf: jax.Array, draw: jax.Array) -> jax.Array:
        return leaf * (1 + eps * jnp.where(steady, steady * jnp.sign(draw), draw))

    return state.replace(params=jax.tree.map(off, state.params, drawn_like(state.params, key)))


def drawn_like(tree: Any, key: jax.Array) -> Any:
    """A tree of numbers from -1 to 1. One draw for all: XLA compiles a draw longer than a layer."""
    flat, unravel = ravel_pytree(tree)
    return unravel(jax.random.uniform(key, flat.shape, flat.dtype, -1))


def rounding(
    optimizer: optax.GradientTransformation, layout: Layout, sizes: Batch, key: jax.Array
) -> optax.GradientTransformation:
    """The optimizer, given gradients that are off by some eps of what they are made of.

    sizes: {"loss/loss": (), "grads/name": ()}, what that comes to. Where a gradient cancels to
    almost nothing its rounding does not shrink with it, and Adam makes much of it: no nudge of the
    parameters shows that. An optimizer that evaluates by itself gets every loss and gradient off by
    up to one, as often as it evaluates.
    """

    def update(grads: Any, state: Any, params: Any = None, **extra: Any) -> Any:
        if (closure := extra.get("value_and_grad_fn")) is not None:
            off = each(extra["value"], grads)
            extra["value"], grads = off(extra["value"], grads)
            extra["value_and_grad_fn"] = lambda at: off(*closure(at))
        else:
            grads = once(grads)
        return optax.with_extra_args_support(optimizer).update(grads, state, params, **extra)

    def once(grads: Any) -> Any:
        named = layout.to_torch(grads)
        draws = drawn_like(named, key)
        off = {}
        for name, grad in named.items():
            off[name] = grad + GRADIENT_NUDGE * sizes[f"grads/{name}"] * draws[name]
        leaves = jax.tree.leaves(layout.from_torch(off))
        return jax.tree.unflatten(jax.tree.structure(grads), leaves)

    def each(*like: Any) -> Callable[[jax.Array, Any], tuple[jax.Array, Any]]:
        leaves, treedef = jax.tree.flatten(like)  # the loss, and gradients in the layout's order
        of = [sizes["loss/loss"], *(sizes[f"grads/{slot.names[0]}"] for slot in layout.slots)]
        pairs = zip(leaves, of, strict=True)
        units, unravel = ravel_pytree([jnp.full_like(leaf, size) for leaf, size in pairs])
        draw = jax.random.uniform(key, units.shape, units.dtype, -1)

        def off(loss: jax.Array, grads: Any) -> tuple[jax.Array, Any]:
            values, _ = ravel_pytree((loss, grads))
            # of one draw, from another entry on for other values: the same nudge for all would
            # cancel in their differences, and a draw for each takes long to compile in a loop
            start = fingerprints({"values": values})["values"] % len(draw)
            nudge = units * jnp.roll(draw, start)
            return jax.tree.unflatten(treedef, unravel(values + nudge))

        return off

    return optax.GradientTransformationExtraArgs(optimizer.init, update)


def to_device(spec: Spec) -> dict[str, jax.Array]:
    """The spec's samples as JAX arrays."""
    return {name: jnp.asarray(array) for name, array in spec.batches().data.items()}


def take(data: Batch, index: jax.Array) -> Batch:
    """The samples that an update trains on. index: (batch size,)"""
    return {name: array[index] for name, array in data.items()}


def fingerprints(batch: Batch) -> dict[str, jax.Array]:
    """{name: () uint32}: the sum of an array's 32-bit words, whatever the order of its samples."""

    def words(array: jax.Array) -> jax.Array:
        if jnp.issubdtype(array.dtype, jnp.floating):
            return jax.lax.bitcast_convert_type(array, jnp.uint32)
        return array.astype(jnp.uint32)

    return {name: jnp.sum(words(a), dtype=jnp.uint32) for name, a in batch.items()}


def _split(keys: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The reruns' keys to go on with, and those of a step's gradients and parameters."""
    go_on, of_grads, of_params = jnp.moveaxis(
        jax.vmap(lambda key: jax.random.split(key, 3))(keys), 1, 0
    )
    return jnp.where(STEADY, keys, go_on), of_grads, of_params
