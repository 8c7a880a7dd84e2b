"""Teacher forcing: every recorded step made again from the recorded state before it.

Each step is judged alone, so the first that is off is where the fault is.
"""

from dataclasses import dataclass, field
from functools import cached_property
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from jax_impl.recording import Recorder, fingerprints, take, to_ledger
from jax_impl.state import Batch, TrainState
from twinstep.specs.base import Spec
from twinstep.specs.batches import IndexChunk
from twinstep.trace import Leaves, Trace

# Per-sample gradients of every sample where the model is small; else of so many, evenly spread.
_MOST_TERMS = 2**17
_FEWEST_SAMPLES = 8


@dataclass
class Replay:
    """Makes the steps of a recording of `spec` again, chunk after chunk, on the JAX side."""

    example: ModuleType
    spec: Spec
    device: str = "cpu"
    _before: dict[str, dict[str, np.ndarray]] = field(default_factory=dict)

    def __call__(self, recorded: Trace, chunk: IndexChunk) -> tuple[Trace, Leaves]:
        """The steps from the recorded states, and {parameter: (T,)} its gradient terms' size.

        recorded: the other side's steps; chunk: which samples this side takes in them
        """
        recorder = self._recorder
        if recorded.start == 0:
            self._before = {
                "opt_state": {name: a[None] for name, a in self._initial_opt_state.items()},
                "grads": {name: np.zeros_like(a[:1]) for name, a in recorded.grads.items()},
            }
        states = {
            "params": {name: array[:-1] for name, array in recorded.params.items()},
            "opt_state": self._preceding("opt_state", recorded.opt_state, len(recorded)),
            "grads": self._preceding("grads", recorded.grads, len(recorded)),
        }
        with recorder.settings():
            indices = None if chunk.indices is None else jnp.asarray(chunk.indices)
            ledger, scales = self._map(states, recorder.data, indices)
            if chunk.indices is None:
                once = fingerprints(recorder.data)
                ledger["batch"] = {n: jnp.full(chunk.steps, f) for n, f in once.items()}
        before = {name: array[0] for name, array in recorded.params.items()}
        replayed = recorder.assemble(chunk, before, ledger, {})
        return replayed, {name: np.asarray(scale) for name, scale in scales.items()}

    def _preceding(self, stage: str, after: Leaves, steps: int) -> dict[str, np.ndarray]:
        """What was there before each step, from what was there after each."""
        rows = {}
        for name, before in self._before[stage].items():
            # a name that the recording lacks is found by the comparison; go on until then
            array = after.get(name, np.repeat(before, steps, axis=0))
            rows[name] = np.concatenate([before, array[:-1]])
            self._before[stage][name] = array[-1:]
        return rows

    @cached_property
    def _recorder(self) -> Recorder:
        return Recorder(self.example, self.spec, self.device)

    @cached_property
    def _initial_opt_state(self) -> dict[str, np.ndarray]:
        with self._recorder.settings():
            ledger = to_ledger(self._recorder.initial, self._recorder.opt_layout)
            return {name: np.asarray(array) for name, array in ledger["opt_state"].items()}

    @cached_property
    def _map(self) -> Any:
        """Compiled: recorded states, data, sample numbers -> ledger and scales, a row a step."""
        template, opt_layout = self._recorder.initial, self._recorder.opt_layout

        def like(tree: Any, named: Any, layout: Any) -> Any:
            """The tree of recorded arrays, in this side's dtypes."""
            leaves = zip(
                jax.tree.leaves(layout.from_torch(named)), jax.tree.leaves(tree), strict=True
            )
            return jax.tree.unflatten(
                jax.tree.structure(tree), [array.astype(leaf.dtype) for array, leaf in leaves]
            )

        def one(row: Any, data: Batch) -> Any:
            recorded, index = row
            state = template.replace(
                params=like(template.params, recorded["params"], template.layout),
                opt_state=like(template.opt_state, recorded["opt_state"], opt_layout),
                grads=like(template.params, recorded["grads"], template.layout)
                if template.keep_grads
                else None,
            )
            batch = data if index is None else take(data, index)
            after, step = self.example.train_step(state, batch)
            ledger = to_ledger(after, opt_layout, step)
            if index is not None:
                ledger["batch"] = fingerprints(batch)
            scales = template.layout.to_torch(self._term_sizes(state, batch))
            largest = {n: jnp.max(jnp.abs(g), initial=0) for n, g in ledger["grads"].items()}
            return ledger, {n: jnp.maximum(scales[n], largest[n]) for n in largest}

        @jax.jit
        def run(states: Any, data: Batch, indices: Any) -> Any:
            return jax.lax.map(lambda row: one(row, data), (states, indices))

        return run

    def _term_sizes(self, state: TrainState, batch: Batch) -> Any:
        """Like params, but () each: the largest mean absolute per-sample term of the gradient.

        A gradient is a mean over samples that may cancel: it rounds like its terms. Where all of
        them are too dear, some evenly spread ones stand for them.
        """
        samples = len(next(iter(batch.values())))
        entries = sum(leaf.size for leaf in jax.tree.leaves(state.params))
        count = min(samples, max(_FEWEST_SAMPLES, _MOST_TERMS // entries))
        chosen = np.linspace(0, samples - 1, count).astype(int)

        def term(index: jax.Array) -> Any:
            sample = {name: array[index][None] for name, array in batch.items()}
            return jax.grad(self._loss)(state.params, state, sample)

        terms = jax.vmap(term)(jnp.asarray(chosen))
        return jax.tree.map(lambda t: jnp.max(jnp.mean(jnp.abs(t), axis=0), initial=0), terms)

    def _loss(self, params: Any, state: TrainState, batch: Batch) -> jax.Array:
        return self.example.loss_fn(nnx.merge(state.graph, params), state.criterion, batch)
