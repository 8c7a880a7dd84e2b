"""JAX programs as people write them: whatever holds a state, and several optimizers."""

import dataclasses
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from flax.training.train_state import TrainState
from helpers.recording_jax import START, X, loss_fn, recorded, same, states
from helpers.synthetic_traces import refused

import twinstep
from twinstep.jax import record, watch
from twinstep.jax.layout import tree_layout
from twinstep.trace.ledger import Trace

# What holds a state


def test_train_state_whose_memory_is_donated_is_recorded() -> None:
    tx = watch(optax.adam(0.1))

    @partial(jax.jit, donate_argnums=0)
    def train_step(state: TrainState, x: jax.Array) -> Any:
        loss, grads = jax.value_and_grad(loss_fn)(state.params, x)
        return state.apply_gradients(grads=grads), loss

    state = TrainState.create(apply_fn=None, params=jax.tree.map(jnp.copy, START), tx=tx)
    with record(state) as rec:
        for t in range(6):
            x = X[3 * (t % 4) : 3 * (t % 4) + 3]
            before = state
            state, loss = train_step(state, x)
            rec.step(state, loss=loss, batch={"x": x})
    same(rec.trace, recorded(tx))
    refused(lambda: rec.step(before, loss=loss), "step 7: ", "was donated, and is gone")


class Model(nnx.Module):
    def __init__(self) -> None:
        self.linear = nnx.Linear(3, 2, rngs=nnx.Rngs(0))
        self.drop = nnx.Dropout(0.5, rngs=nnx.Rngs(1))

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.drop(self.linear(x))


@pytest.mark.parametrize("jitted", [False, True])
def test_nnx_optimizer_is_recorded_with_its_model(jitted: bool) -> None:
    model = Model()
    optimizer = nnx.Optimizer(model, watch(optax.adam(0.1)), wrt=nnx.Param)

    def train_step(model: Model, optimizer: Any, x: jax.Array) -> jax.Array:
        loss, grads = nnx.value_and_grad(lambda model: jnp.mean(model(x) ** 2))(model)
        optimizer.update(model, grads)
        return loss

    step = nnx.jit(train_step) if jitted else train_step
    rest = nnx.state(model, nnx.Not(nnx.Param))
    with record((model, optimizer), buffers=rest) as rec:
        for told in ("pair", "pair", "turned", "params", "opt_state"):
            loss = step(model, optimizer, X)
            rest = nnx.state(model, nnx.Not(nnx.Param))
            if told == "params":
                rec.step(optimizer, params=model, loss=loss, buffers=rest)
            elif told == "opt_state":
                rec.step(model, opt_state=optimizer, loss=loss, buffers=rest)
            else:
                pair = (model, optimizer) if told == "pair" else (optimizer, model)
                rec.step(pair, loss=loss, buffers=rest)
    trace = rec.trace
    assert sorted(trace.params) == ["linear.bias", "linear.kernel"]
    assert trace.raw_grads.keys() == trace.params.keys()
    assert "0.mu.linear.kernel" in trace.opt_state
    assert trace.update["optimizer"].tolist() == [1, 2, 3, 4, 5]
    counts = [name for name in trace.buffers if name.endswith("count")]
    assert np.all(np.diff(trace.buffers[counts[0]]) == 1), "dropout draws at each step"
    moved = np.abs(np.diff(trace.params["linear.bias"], axis=0)).max()
    assert 0.05 < moved < 0.11, "steps of Adam"
    refused(lambda: rec.step(optimizer, loss=1.0), "an nnx.Optimizer holds no model")


@jax.tree_util.register_dataclass
@dataclasses.dataclass
class Dense:
    """As equinox has its modules: a tree, of arrays and of what is none."""

    w: Any
    b: Any
    activation: Any = jnp.tanh
    p: Any = 0.5


def test_module_that_is_a_tree_with_functions_is_recorded_without_them() -> None:
    tx = watch(optax.adam(0.1))

    def arrays(model: Dense) -> Dense:
        return jax.tree.map(lambda leaf: leaf if isinstance(leaf, jax.Array) else None, model)

    model = Dense(**START)
    opt_state = tx.init(arrays(model))
    with record(model) as rec:
        for t in range(6):
            x = X[3 * (t % 4) : 3 * (t % 4) + 3]
            loss, grads = jax.value_and_grad(lambda m, x: loss_fn(vars(m), x))(arrays(model), x)
            updates, opt_state = tx.update(grads, opt_state, arrays(model))
            learned = optax.apply_updates(arrays(model), updates)
            model = dataclasses.replace(model, w=learned.w, b=learned.b)
            rec.step(model, opt_state=opt_state, loss=loss, batch={"x": x})
    assert rec.trace.params.keys() == {"w", "b"}
    assert twinstep.compare(rec.trace, recorded(tx)).verdict in ("equal", "rounding")


def test_state_that_record_is_given_tells_what_was_missed_before_the_first_step() -> None:
    tx = watch(optax.sgd(0.1))
    first, second, *_ = states(tx, 3)

    def late() -> None:
        with record((START, tx.init(START))) as rec:
            rec.step(second[0], loss=second[1])

    refused(late, "step 1: 1 updates of optimizer 'optimizer' were missed: it is at its update 2")
    with record(first[0]) as rec:  # a training that goes on
        rec.step(second[0], loss=second[1])
    assert rec.trace.update["optimizer"].tolist() == [1]


def test_parameters_may_be_a_tuple_and_a_state_one_with_names() -> None:
    class State(NamedTuple):
        weights: Any
        of_optimizer: Any

    def loss_of(pair: Any) -> jax.Array:
        return loss_fn(dict(zip(("w", "b"), pair, strict=True)), X)

    tx, params = watch(optax.adam(0.1)), (START["w"], START["b"])
    start = State(params, tx.init(params))
    loss, grads = jax.value_and_grad(loss_of)(params)
    updates, opt_state = tx.update(grads, start.of_optimizer, params)
    state = State(optax.apply_updates(params, updates), opt_state)
    for given in (params, start, (*start, 3)):
        with record(given) as rec:
            rec.step(state, loss=loss)
        assert rec.trace.params.keys() == {"0", "1"}


# Several optimizers


def gan(together: bool, layouts: Any = None) -> dict[str, Trace]:
    """Two train states whose steps take turns, the second twice; in one trace or in two."""
    traces = {}
    for alone in (None,) if together else ("gen", "disc"):
        tx = {"gen": watch(optax.adam(0.1)), "disc": watch(optax.sgd(0.1, momentum=0.9))}
        every = {name: TrainState.create(apply_fn=None, params=START, tx=tx[name]) for name in tx}
        with record(every if alone is None else every[alone], layout=layouts) as rec:
            for _ in range(4):
                for name in ("gen", "disc", "disc"):
                    loss, grads = jax.value_and_grad(loss_fn)(every[name].params, X)
                    every[name] = every[name].apply_gradients(grads=grads)
                    if alone in (None, name):
                        of = {"name": name} if alone is None else {}
                        rec.step(every[name], loss=loss, batch={"x": X}, **of)
        traces[alone or "both"] = rec.trace
    return traces


def test_rows_of_several_optimizers_are_those_that_each_has_alone() -> None:
    both, alone = gan(together=True)["both"], gan(together=False)
    assert both.validation_error() is None
    assert len(both) == 12
    assert both.update["gen"].tolist() == [1, 2, 3, 4]
    assert both.steps_of("update", "gen").tolist() == [0, 3, 6, 9]
    assert both.steps_of("params", "disc.w").tolist() == [1, 2, 4, 5, 7, 8, 10, 11]
    for name, trace in alone.items():
        rows = both.steps_of("update", name)
        assert both.losses[rows].tolist() == trace.losses.tolist()
        for stage in ("params", "raw_grads", "grads", "opt_state"):
            held = getattr(both, stage)
            for leaf, array in getattr(trace, stage).items():
                assert held[f"{name}.{leaf}"].tobytes() == array.tobytes(), (stage, leaf)
    layout = tree_layout(START)
    laid = gan(True, {"gen": layout, "disc": layout})["both"]
    assert laid.params.keys() == both.params.keys()
    assert gan(True, tree_layout({"gen": START, "disc": START}))["both"].params.keys() == (
        both.params.keys()
    )


@pytest.mark.parametrize("laid", [False, True])
def test_two_optimizers_of_the_same_parameters_keep_states_apart(
    laid: bool, tmp_path: Path
) -> None:
    tx = {"optimizer": watch(optax.adam(0.1)), "slow": watch(optax.adam(0.01))}
    opt_state, params = {name: tx[name].init(START) for name in tx}, START
    layout = tree_layout(START) if laid else None
    with record(params, layout=layout, out=tmp_path / "trace") as rec:
        for t in range(4):
            name = "slow" if t % 2 else "optimizer"
            loss, grads = jax.value_and_grad(loss_fn)(params, X)
            updates, opt_state[name] = tx[name].update(grads, opt_state[name], params)
            params = optax.apply_updates(params, updates)
            rec.step(params=params, opt_state=opt_state[name], loss=loss, name=name)
    trace = twinstep.load_trace(tmp_path / "trace")
    same(trace, rec.trace)
    assert trace.params.keys() == START.keys()
    assert len(trace.params["w"]) == 5
    first = "w.mu" if laid else "0.mu.w"
    assert trace.steps_of("opt_state", first).tolist() == [0, 2]
    assert trace.steps_of("opt_state", f"slow.{first}").tolist() == [1, 3]
    assert not trace.before


def test_parameters_of_another_optimizer_that_changed_are_said_to_be() -> None:
    """Of one tree each optimizer updates a part; what nobody was told of is found."""
    tx = {name: watch(optax.sgd(0.1)) for name in START}
    opt_state = {name: tx[name].init({name: START[name]}) for name in START}
    params = dict(START)
    with record(params) as rec:
        for t in range(6):
            name = "w" if t % 2 else "b"
            loss, grads = jax.value_and_grad(loss_fn)(params, X)
            own = {name: params[name]}
            updates, opt_state[name] = tx[name].update({name: grads[name]}, opt_state[name], own)
            params = params | optax.apply_updates(own, updates)
            if t == 3:
                params["b"] = params["b"] * 0.5
            rec.step(params=params, opt_state=opt_state[name], loss=loss, name=name)
    trace = rec.trace
    assert trace.steps_of("params", "w").tolist() == [1, 3, 5]
    assert trace.steps_of("before", "params/b").tolist() == [3]
    assert trace.steps_of("update", "changed_outside").tolist() == [3]
