"""Teacher forcing: every recorded step made again from the recorded state before it.

Mirror: twinstep/torch/replay.py

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
from flax import nnx

from twinstep.device_config import CPU, DeviceConfig
from twinstep.jax import carried, rounding_scale
from twinstep.jax.assembling import Ledger, assemble
from twinstep.jax.batches import Data, fingerprints
from twinstep.jax.driver import Driver
from twinstep.jax.layout import Mapping
from twinstep.jax.nn.generator import words_of
from twinstep.jax.perturbation import max_distance, perturbed, perturbed_optimizer
from twinstep.jax.watching import TeacherForced, teacher_forced, unwatched, watched_again
from twinstep.judge.tolerance import PERTURBED_RERUNS
from twinstep.problems.base import Spec
from twinstep.problems.batches import IndexChunk
from twinstep.trace.fingerprint import fingerprint
from twinstep.trace.ledger import Leaves, Trace

_BLOCK = 32  # steps: so few that little is made in vain, so many that calls are rare


@dataclass
class Replay:
    """Makes the steps of a recording of `spec` again, chunk after chunk, on the JAX side.

    In float64 it also measures how far rounding moves what each step computes: that of float64, or
    of a float32 recording, whose numbers it takes as they are, in more digits.
    judged: the dtype of the recording ("": the spec's)
    """

    example: ModuleType
    spec: Spec
    device_config: DeviceConfig = CPU
    judged: str = ""
    _before: dict[str, dict[str, np.ndarray]] = field(default_factory=dict)
    _states: Any = None
    _steps: int = 0
    _indices: np.ndarray | None = None

    def __call__(self, recorded: Trace, chunk: IndexChunk) -> tuple[Trace, Leaves]:
        """The steps from the recorded states, and {"stage/leaf": (T,)} what they round by.

        recorded: the other side's steps; chunk: which samples this side takes in them
        """
        self.load(recorded, chunk)
        ledger, scale = self.replay_chunk()
        stages = {"params": recorded.params, "buffers": recorded.buffers}
        before: Any = {
            stage: {name: array[0] for name, array in leaves.items()}
            for stage, leaves in stages.items()
        }
        tested = self.evaluated(recorded) if recorded.evaluation else ({}, {})
        return assemble(self._driver, chunk, before, ledger, *tested), scale

    def evaluated(self, recorded: Trace) -> tuple[dict[str, np.ndarray], dict[str, float]]:
        """What this side's test makes of the last recorded parameters, and the figures."""
        driver = self._driver
        last = {name: array[-1] for name, array in recorded.params.items()}
        with driver.settings():
            buffers = {name: array[-1] for name, array in recorded.buffers.items()}
            state = self._with_rest(driver.start, buffers)
            params = _like(state[0], last, driver.layout)
            return driver.evaluated((params, *state[1:]), unit=self.unit)

    def load(self, recorded: Trace, chunk: IndexChunk) -> None:
        """Takes the states from which the steps of a chunk are made; chunks come in order."""
        if recorded.start == 0:
            self._before = {
                "opt_state": {name: a[None] for name, a in self._initial_opt_state.items()},
                "raw_grads": {n: np.zeros_like(a[:1]) for n, a in recorded.raw_grads.items()},
            }
        self._states = {
            "params": {name: array[:-1] for name, array in recorded.params.items()},
            "opt_state": self._preceding("opt_state", recorded.opt_state, len(recorded))
            | self._counted(recorded),
            "raw_grads": self._preceding("raw_grads", recorded.raw_grads, len(recorded)),
            "recorded": dict(recorded.raw_grads),
            "buffers": {name: array[:-1] for name, array in recorded.buffers.items()},
        }
        if "torch" in recorded.rng:
            self._states["words"] = words_of(recorded.rng["torch"])
        self._steps, self._indices = chunk.steps, chunk.indices

    def replay_chunk(self) -> tuple[Ledger, Leaves]:
        """The ledger of the chunk's steps, and {"stage/leaf": (T,)} what they round by.

        In blocks of one length, so that one program serves chunks of many.
        """
        steps, block = self._steps, min(self.block, self._steps)
        found = []
        with self._driver.settings():
            data = self._driver.data
            for low in range(0, steps, block):
                rows = np.minimum(np.arange(low, low + block), steps - 1)
                found.append(self._map(*self._rows(rows), data, self.unit))
            # by NumPy: of what runs once, each operation would be a program to compile
            whole = data if self._indices is None else {}
            once = {name: fingerprint(np.asarray(array)) for name, array in whole.items()}
        ledger, scale = jax.tree.map(lambda *parts: np.concatenate(parts)[:steps], *found)
        if self._indices is None:
            ledger["batch"] = {name: np.full(steps, f, np.uint32) for name, f in once.items()}
        return ledger, scale

    def replay_rows(self, rows: np.ndarray) -> tuple[Ledger, Leaves]:
        """The same of some steps, whose sizes are measured with more care."""
        found = []
        with self._driver.settings():
            for i in rows:
                row = jax.tree.map(lambda array: array[0], self._rows(np.array([i])))
                found.append(self._careful(row, self._driver.data, self.unit))
        made: tuple[Ledger, Leaves] = jax.tree.map(lambda *parts: np.stack(parts), *found)
        return made

    def measure_rounding_scale(self, rows: np.ndarray) -> Leaves:
        """What some steps round by, {"stage/leaf": (rows,)}, with more care."""
        return self.replay_rows(rows)[1]

    @property
    def cheap(self) -> bool:
        """Whether all that there is to measure is measured in every step."""
        batches = self.spec.batches()
        samples = batches.batch_size or len(next(iter(batches.data.values())))
        entries = sum(array.size for array in self.spec.initial_params().values())
        return samples * entries <= rounding_scale.CHEAP

    @property
    def block(self) -> int:
        """How many steps one call of the compiled program makes at most."""
        return min(_BLOCK, self.spec.total_steps, self.spec.steps_at_once)

    def _rows(self, rows: np.ndarray) -> tuple[Any, np.ndarray | None]:
        """States and sample numbers of some steps, in this side's dtype."""

        def take(array: np.ndarray) -> np.ndarray:
            floating = np.issubdtype(array.dtype, np.floating)
            dtype = self.spec.dtype if floating else array.dtype
            taken: np.ndarray = array[rows].astype(dtype, copy=False)
            return taken

        indices = None if self._indices is None else self._indices[rows]
        return jax.tree.map(take, self._states), indices

    @property
    def unit(self) -> rounding_scale.Unit | None:
        """What is measured; None in float32, which is not for its own program to say."""
        measures = self.spec.dtype
        return (
            rounding_scale.unit(self.judged or measures, measures)
            if measures == "float64"
            else None
        )

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
        return dict.fromkeys(self._driver.opt_layout.counters, before)

    @cached_property
    def _driver(self) -> Driver:
        return Driver(self.example, self.spec, self.device_config)

    @cached_property
    def _initial_opt_state(self) -> dict[str, np.ndarray]:
        with self._driver.settings():
            ledger = self._driver.ledger(self._driver.start)
            return {name: np.asarray(array) for name, array in ledger["opt_state"].items()}

    @cached_property
    def _map(self) -> Any:
        """Compiled: recorded states, sample numbers, data, unit -> ledger, sizes, a row a step."""

        @jax.jit
        def run(states: Any, indices: Any, data: Data, unit: rounding_scale.Unit | None) -> Any:
            def one(row: Any) -> tuple[Ledger, rounding_scale.RoundingScale]:
                state, batch, ledger = self._step(row, data)
                if row[1] is not None:
                    ledger["batch"] = fingerprints(batch)
                if unit is None:
                    return ledger, {}
                made = rounding_scale.made(ledger)
                scale = rounding_scale.measured_if_cheap(
                    self._driver, state, tuple(batch.values()), made, unit
                )
                if self.spec.uses_closure:
                    ledger["rounding_noise"] = self._carried(row, data, ledger, scale, unit.eps)
                return ledger, scale

            return jax.lax.map(one, (states, indices))

        return run

    @cached_property
    def _careful(self) -> Any:
        """Compiled: one recorded state and sample numbers, data, unit -> ledger and sizes."""

        @jax.jit
        def run(
            row: Any, data: Data, unit: rounding_scale.Unit
        ) -> tuple[Ledger, rounding_scale.RoundingScale]:
            state, batch, ledger = self._step(row, data)
            made, values = rounding_scale.made(ledger), tuple(batch.values())
            return ledger, rounding_scale.measured(self._driver, state, values, made, unit)

        return run

    def _carried(
        self,
        row: Any,
        data: Data,
        ledger: Ledger,
        scale: rounding_scale.RoundingScale,
        eps: Any,
    ) -> dict[str, jax.Array]:
        """{"stage/name": ()}: how far rounding in its evaluations carries a step's own results."""

        def rerun(key: jax.Array) -> Ledger:
            return self._step(row, data, (key, scale, eps))[2]

        keys = jax.random.split(jax.random.key(0), PERTURBED_RERUNS)
        return max_distance(ledger, jax.lax.map(rerun, keys), self._driver.integer_state)

    def _step(
        self,
        row: Any,
        data: Data,
        perturbation: tuple[jax.Array, rounding_scale.RoundingScale, Any] | None = None,
    ) -> tuple[Any, Data, Ledger]:
        """One step from a recorded state: the state, the batch, and what the step left.

        perturbation: a key, sizes and an eps, to make it from parameters, losses and gradients so
            far off
        """
        recorded, index = row
        driver, optimizer = self._driver, self._driver.optimizer
        params, watched, *parts = self._with_rest(
            driver.start, recorded["buffers"], recorded.get("words")
        )
        params = _like(params, recorded["params"], driver.layout)
        own = _like(unwatched(watched.inner), recorded["opt_state"], driver.opt_layout)
        opt_state = watched_again(watched.inner, own)
        parts = [
            part
            if isinstance(part, nnx.State)
            else _part(part, recorded["raw_grads"], driver.layout)
            for part in parts
        ]
        grads = _part(watched.grads, recorded["recorded"], driver.layout)
        found = state = (params, TeacherForced(grads, grads, opt_state), *parts)
        if perturbation is not None:
            key, scale, eps = perturbation
            of_params, of_grads = jax.random.split(key)
            state = perturbed(state, of_params, 0, eps)
            optimizer = perturbed_optimizer(optimizer, driver.trained_layout, scale, of_grads)
        batch = driver.batch_of(data, index)
        state, loss = driver.train_step(teacher_forced(optimizer))(state, tuple(batch.values()))
        ledger = driver.ledger(state, loss)
        ledger["raw_grads"] = self._most_wrong_grads(recorded["recorded"], state)
        ledger.pop("words", None)  # which are the recorded ones, a step on
        return found, batch, ledger

    def _with_rest(self, state: Any, buffers: Any, words: Any = None) -> Any:
        """The state with recorded buffers and random numbers, where a step carries them."""
        if (rest := carried.rest(state)) is None:
            return state
        return carried.with_rest(state, self._driver.rest_layout.like(rest, buffers, words))

    def _most_wrong_grads(self, recorded: Ledger, state: Any) -> dict[str, jax.Array]:
        """Of the gradients that a step gives its optimizer and keeps, what is most wrong, by name.

        The two are one and the same in a step that is right.
        """
        named: dict[str, list[jax.Array]] = {}
        for tree in (state[1].grads, *carried.kept(state)):
            for name, grad in self._driver.layout.part(tree).to_torch(tree).items():
                named.setdefault(name, []).append(grad)
        return {name: _most_wrong(recorded[name], grads) for name, grads in named.items()}


def _most_wrong(true: jax.Array, said: list[jax.Array]) -> jax.Array:
    # no argmax: a TPU's compiler keeps the maximum, of which nobody asks, in bfloat16
    chosen, max_gap = said[0], _gap(said[0], true)
    for value in said[1:]:
        gap = _gap(value, true)
        further = jnp.isnan(gap) | (gap > max_gap)
        chosen, max_gap = jnp.where(further, value, chosen), jnp.where(further, gap, max_gap)
    return chosen


def _gap(value: jax.Array, true: jax.Array) -> jax.Array:
    return jnp.max(jnp.abs(value - true), initial=0)


def _part(tree: Any, named: Ledger, layout: Mapping) -> Any:
    """The tree of the recorded arrays that it holds."""
    part = layout.part(tree)
    return _like(tree, {name: named[name] for slot in part.slots for name in slot.names}, part)


def _like(tree: Any, named: Any, layout: Mapping) -> Any:
    """The tree of recorded arrays, in this side's dtypes."""
    pairs = zip(jax.tree.leaves(layout.to_jax(named)), jax.tree.leaves(tree), strict=True)
    return jax.tree.unflatten(
        jax.tree.structure(tree), [array.astype(leaf.dtype) for array, leaf in pairs]
    )
