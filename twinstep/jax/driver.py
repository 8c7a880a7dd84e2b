"""Drives an example's own step in a compiled scan over chunks of steps, and stacks what it leaves.

Mirror: twinstep/torch/driver.py

The step is the one that the example's loop calls. It is handed a watched optimizer, from whose
state the gradients are read; nothing else in it is changed.
"""

import dataclasses
import inspect
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property, partial
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from twinstep.device_config import CPU, DeviceConfig
from twinstep.jax import carried, devices, rounding_scale
from twinstep.jax.assembling import Ledger, assemble, last_row
from twinstep.jax.batches import Data, fingerprints, take, to_device
from twinstep.jax.layout import Mapping, module_layout, opt_state_layout
from twinstep.jax.perturbation import (
    STEADY,
    max_distance,
    perturbed,
    perturbed_optimizer,
    split_keys,
)
from twinstep.jax.watching import given as given_grads
from twinstep.jax.watching import unwatched, watch
from twinstep.judge.tolerance import PERTURBED_RERUNS
from twinstep.problems.base import Spec
from twinstep.problems.batches import IndexChunk
from twinstep.trace.ledger import Metadata, Trace

Tree = Any
State = tuple[Any, ...]
"""(params, opt_state), and behind them what else an example's step carries: see `carried`."""


@dataclass(frozen=True)
class Driver:
    """An example's module, what it trains, where, and whether to measure the run's rounding noise.

    rounding_noise: train three times more, with every gradient and, after each step, every
        parameter perturbed by some eps, and record how far that carries each leaf; float32's is
        what its eps does to the float64 program: what is judged must not set its own allowance
    judged: the dtype whose eps that is; None: the spec's own
    """

    example: ModuleType
    spec: Spec
    device_config: DeviceConfig = CPU
    rounding_noise: bool = False
    judged: str | None = None

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

    def chunks(self, max_steps: int | None = None) -> Iterator[Trace]:
        """Trains; the steps in pieces of at most `max_steps`."""
        max_steps = max_steps or self.spec.steps_at_once
        if self.rounding_noise and self.spec.dtype != "float64":
            plain = dataclasses.replace(self, rounding_noise=False)
            for trace, exact in zip(
                plain.chunks(max_steps), self.in_float64().chunks(max_steps), strict=True
            ):
                yield trace.with_rounding_noise_of(exact)
            return
        batches = self.spec.batches()
        with self.settings():
            before = self.ledger(self.start)
            reruns = None
            if self.unit is not None:
                reruns = self.replicated(self._reruns(self.start, self.unit.eps))
            state, data = self.replicated(self.start), self.data
        for chunk in batches.chunks(max_steps):
            with self.settings():
                state, reruns, ledger = self._run(state, reruns, data, chunk)
                last = chunk.start + chunk.steps == batches.total_steps
                evaluation, metrics = self.evaluated(state, reruns) if last else ({}, {})
            yield assemble(self, chunk, before, ledger, evaluation, metrics)
            before = last_row(ledger)

    def in_float64(self) -> "Driver":
        """The same problem trained in float64, with this dtype's rounding noise measured on it."""
        wide, device_config = self.spec.to_float64(), self.device_config.single_device()
        return Driver(
            self.example, wide, device_config, rounding_noise=True, judged=self.spec.dtype
        )

    def _run(
        self, state: State, reruns: Any, data: Data, chunk: IndexChunk
    ) -> tuple[State, Any, Ledger]:
        indices = None if chunk.indices is None else self.replicated(jnp.asarray(chunk.indices))
        leaves, reruns, ledger = self.scan(
            jax.tree.leaves(state), reruns, data, indices, self.unit, steps=chunk.steps
        )
        return jax.tree.unflatten(jax.tree.structure(state), leaves), reruns, ledger

    # The example's own parts

    @cached_property
    def _built(self) -> tuple[nnx.Module, Any, optax.GradientTransformation]:
        with self.settings():
            built: tuple[nnx.Module, Any, optax.GradientTransformation]
            built = self.example.build(self.spec)
            return built

    @property
    def optimizer(self) -> optax.GradientTransformation:
        return self._built[2]

    def train_step(self, optimizer: optax.GradientTransformation) -> Any:
        """The example's step with this optimizer: (state, (x, y)) -> (state, loss)."""
        model, criterion, _ = self._built
        step = self.example.make_train_step(model, criterion, optimizer)
        # within a compiled loop it is traced in its place: of a call XLA makes other last bits
        return inspect.unwrap(step)

    def state(self, optimizer: optax.GradientTransformation) -> State:
        """What the example's loop starts from, with this optimizer.

        That is its `init_state`, where there is more to it than parameters and optimizer's state.
        """
        model = self._built[0]
        if (init_state := getattr(self.example, "init_state", None)) is not None:
            state: State = init_state(model, optimizer)
            if (rest := carried.rest(state)) is None:
                return state
            words = carried.start_words(self.spec.generator())  # where PyTorch's stands
            return carried.with_rest(state, self.rest_layout.like(rest, {}, words))
        params = nnx.to_pure_dict(nnx.state(model, nnx.Param))
        return params, optimizer.init(params)

    @property
    def separable(self) -> bool:
        """Whether a sample alone is a batch."""
        return self.spec.separable

    @cached_property
    def start(self) -> State:
        """The same, watched."""
        with self.settings():
            return self.state(watch(self.optimizer))

    @cached_property
    def rest_layout(self) -> carried.RestLayout:
        """Where buffers and random numbers lie in what a step carries."""
        return carried.RestLayout(self._built[0])

    @cached_property
    def layout(self) -> Mapping:
        """How the parameters go by PyTorch's names."""
        return module_layout(self._built[0])

    @cached_property
    def trained_layout(self) -> Mapping:
        """The same of those that the optimizer is given."""
        return self.layout.part(self.start[1].grads)

    @cached_property
    def opt_layout(self) -> Mapping:
        return opt_state_layout(unwatched(self.start[1].inner), self.trained_layout)

    def grads(self, state: State) -> dict[str, jax.Array]:
        """{PyTorch's name: gradient} that a step has left: in the optimizer's state, or kept."""
        named = self.trained_layout.to_torch(state[1].grads)
        for kept in carried.kept(state):
            named = {**self.layout.part(kept).to_torch(kept), **named}
        return named

    def loss_and_grads(
        self, params: Tree, batch: Any, rest: Any = None
    ) -> rounding_scale.Evaluated:
        """The loss of a batch at some parameters, its gradients and the buffers after it by name.

        rest: what the model has beside them, if a step carries it
        """
        optimizer = watch(optax.identity())
        state = carried.with_rest((params, *self.state(optimizer)[1:]), rest)
        state, loss = self.train_step(optimizer)(state, batch)
        buffers = self.rest_layout.buffers(carried.rest(state))
        return rounding_scale.Evaluated(loss, self.grads(state), buffers)

    # The compiled loop

    @cached_property
    def scan(self) -> Any:
        """Compiled: leaves of the state, reruns, data, sample numbers, unit -> the same, ledger.

        Takes and gives flat leaves, which JAX hands over faster than trees.
        """
        treedef = jax.tree.structure(self.start)

        @partial(jax.jit, static_argnames="steps", out_shardings=self.replicated_sharding)
        def scan(
            leaves: list[jax.Array],
            reruns: Any,
            data: Data,
            indices: Any,
            unit: rounding_scale.Unit | None,
            *,
            steps: int,
        ) -> tuple[list[jax.Array], Any, Ledger]:
            train_step = self.train_step(watch(self.optimizer))

            def body(carry: Any, index: Any) -> tuple[Any, Ledger]:
                state, reruns = carry
                batch = self.batch_of(data, index)
                before = state
                state, loss = train_step(state, tuple(batch.values()))
                ledger = self.ledger(state, loss)
                if index is not None:
                    ledger["batch"] = fingerprints(batch)
                if unit is not None:
                    ledger["rounding_scale"] = rounding_scale.measured_if_cheap(
                        self, before, tuple(batch.values()), rounding_scale.made(ledger), unit
                    )
                    reruns, ledger["rounding_noise"] = self._perturb(reruns, batch, ledger, unit)
                return (state, reruns), ledger

            state = jax.tree.unflatten(treedef, leaves)
            (state, reruns), ledger = jax.lax.scan(body, (state, reruns), indices, length=steps)
            if indices is None:  # the same batch each time
                once = fingerprints(data)
                ledger["batch"] = {n: jnp.broadcast_to(f, (steps,)) for n, f in once.items()}
            return jax.tree.leaves(state), reruns, ledger

        return scan

    def ledger(self, state: State, loss: jax.Array | None = None) -> Ledger:
        """A step's entries by PyTorch's names, in its layout; scalars as floats, as it has."""
        kind = jax.tree.leaves(state[0])[0].dtype
        opt_state = {
            name: array.astype(kind)
            for name, array in self.opt_layout.to_torch(unwatched(state[1].inner)).items()
            if name not in self.opt_layout.counters
        }
        rest = carried.rest(state)
        ledger: Ledger = {"opt_state": opt_state, "params": self.layout.to_torch(state[0])}
        ledger["buffers"] = self.rest_layout.buffers(rest)
        if (words := self.rest_layout.words(rest)) is not None:
            ledger["words"] = words
        if loss is None:
            return ledger
        ledger |= {"loss": loss, "raw_grads": self.grads(state)}
        raw = state[1].grads
        if (given := given_grads(state[1].inner, raw)) is not raw:
            ledger["grads"] = self.trained_layout.to_torch(given)
        return ledger

    def _reruns(self, state: State, eps: Any) -> tuple[State, jax.Array]:
        """The states of the perturbed reruns, stacked, and their random keys."""
        keys = jax.random.split(jax.random.key(self.spec.seed & 0x7FFFFFFF), PERTURBED_RERUNS)
        keys, _, of_params = split_keys(jnp.where(STEADY, keys[0], keys))
        return jax.vmap(perturbed, in_axes=(None, 0, 0, None))(state, of_params, STEADY, eps), keys

    def _perturb(
        self, reruns: Any, batch: Data, ledger: Ledger, unit: rounding_scale.Unit
    ) -> tuple[Any, dict[str, jax.Array]]:
        """One step of every rerun, and their largest distance from the run, leaf by leaf."""
        states, keys = reruns
        keys, of_grads, of_params = split_keys(keys)
        sizes = ledger["rounding_scale"]

        def rerun(each: tuple[State, jax.Array, jax.Array]) -> tuple[State, jax.Array]:
            state, key, sign = each
            off = {name: sign * size for name, size in sizes.items()}
            optimizer = watch(perturbed_optimizer(self.optimizer, self.trained_layout, off, key))
            after: tuple[State, jax.Array]
            after = self.train_step(optimizer)(state, tuple(batch.values()))
            return after

        # one after the other: batched, small matrix products are several times slower on a CPU
        signs = jnp.where(STEADY < 0, -1.0, 1.0)
        states, losses = jax.lax.map(rerun, (states, of_grads, signs))
        theirs = jax.vmap(self.ledger)(states, losses)
        states = jax.vmap(perturbed, in_axes=(0, 0, 0, None))(states, of_params, STEADY, unit.eps)
        return (states, keys), max_distance(ledger, theirs, self.integer_state)

    def batch_of(self, data: Data, index: jax.Array | None) -> Data:
        """What an update trains on. index: (batch size,), or None: all samples."""
        batch = data if index is None else take(data, index)
        return {name: batch[name] for name in self.names}

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Of a batch's parts in their order, which a compiled function does not keep."""
        return tuple(self.spec.batches().data)

    def replicated(self, tree: Any) -> Any:
        """A tree of arrays where the scan wants it."""
        return tree

    @property
    def replicated_sharding(self) -> jax.sharding.Sharding | None:
        """How the scan's results lie; None: as they come, on one device."""
        return None

    def evaluated(
        self, state: State, reruns: Any = None, unit: rounding_scale.Unit | None = None
    ) -> tuple[dict[str, np.ndarray], dict[str, float]]:
        """What its test makes of a state, for an example that has one, and the figures.

        reruns: how far rounding carries the outputs is measured on them; unit: and how far it
            moves them at once (with reruns, by what they are perturbed)
        """
        if (test_set := self.spec.test_set()) is None:
            return {}, {}
        images, labels = (jnp.asarray(array) for array in test_set)
        graph = nnx.graphdef(self._built[0])

        def tested(state: State) -> Any:
            held = [part for part in state[2:] if isinstance(part, nnx.State)]
            model = nnx.merge(graph, state[0], *held, copy=True)
            return self.example.evaluate(model, images, labels)

        outputs, predictions, correct = tested(state)
        found = {"outputs": outputs, "predictions": predictions}
        if reruns is not None:
            unit = self.unit
            each = jax.lax.map(lambda state: tested(state)[0], reruns[0])
            found["rounding_noise"] = jnp.max(jnp.abs(each - outputs), initial=0)
        if unit is not None:
            found["rounding_scale"] = rounding_scale.of_outputs(
                lambda params: tested((params, *state[1:]))[0], state[0], outputs, unit
            )
        figures = {"correct": float(correct), "test_images": float(len(labels))}
        return {name: np.asarray(array) for name, array in found.items()}, figures

    @property
    def unit(self) -> rounding_scale.Unit | None:
        """What the rounding noise is of; None where none is measured."""
        return (
            rounding_scale.unit(self.judged or self.spec.dtype, self.spec.dtype)
            if self.rounding_noise
            else None
        )

    def settings(self) -> AbstractContextManager[None]:
        return devices.settings(self.spec.dtype, self._device, self.device_config.precision)

    @cached_property
    def _device(self) -> jax.Device:
        return devices.find(self.device_config.device, self.spec.dtype)

    @property
    def _precision(self) -> str:
        with self.settings():  # asked of JAX there, not taken from the place
            return devices.in_force(self.spec.dtype, self._device)

    @cached_property
    def data(self) -> Data:
        return to_device(self.spec)

    @cached_property
    def integer_state(self) -> set[str]:
        """The names of the optimizer's state that are whole numbers."""
        named = self.opt_layout.to_torch(unwatched(self.start[1].inner))
        return {name for name, a in named.items() if jnp.issubdtype(a.dtype, jnp.integer)}
