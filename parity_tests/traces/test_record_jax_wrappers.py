"""What optax puts around an optimizer: micro-steps, updates that are none, hyper-parameters."""

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers.recording_jax import START, X, loss_fn, recorded, same, stacked, states
from helpers.synthetic_traces import refused

from twinstep.jax import record, watch


def accumulated(rule: Any, steps: int, k: int) -> list[Any]:
    """What MultiSteps stands for: each update by the mean of k micro-batches' gradients."""
    params, opt_state, left = START, rule.init(START), []
    for t in range(steps):
        mean = jax.tree.map(jnp.zeros_like, params)
        for i in range(k):
            grads = jax.jit(jax.grad(loss_fn))(params, micro(k * t + i))
            mean = jax.tree.map(lambda a, g, i=i: a + (g - a) / (i + 1), mean, grads)
        updates, opt_state = rule.update(mean, opt_state, params)
        params = optax.apply_updates(params, updates)
        left.append((mean, params))
    return left


def micro(i: int) -> jax.Array:
    return X[3 * (i % 4) : 3 * (i % 4) + 3] * (1 + i)


@pytest.mark.parametrize("inside", [False, True], ids=["watched outside", "and inside"])
@pytest.mark.parametrize("k", [1, 2, 3])
def test_micro_steps_are_one_update(k: int, inside: bool) -> None:
    rule = optax.adam(0.1)
    tx = watch(optax.MultiSteps(optax.chain(watch("grads"), rule) if inside else rule, k))
    batches = [micro(i) for i in range(4 * k)]
    trace = recorded(tx, 4 * k, batches)
    same(trace, stacked(tx, 4 * k, batches))
    assert len(trace) == 4
    assert trace.update["optimizer"].tolist() == [1, 2, 3, 4]
    losses = [float(loss) for _, loss, _ in states(tx, 4 * k, batches)]
    assert np.allclose(trace.losses, np.reshape(losses, (4, k)).mean(1), rtol=1e-6)
    if k > 1:
        assert trace.micro_losses["loss"].tolist() == losses
        assert trace.steps_of("micro_losses", "loss").tolist() == np.repeat(range(4), k).tolist()
    assert trace.inputs_of(1)["x"].tobytes() == np.concatenate(batches[k : 2 * k]).tobytes()
    for t, (mean, params) in enumerate(accumulated(rule, 4, k)):
        for leaf in START:
            assert np.allclose(trace.raw_grads[leaf][t], mean[leaf], rtol=1e-5)
            assert np.allclose(trace.params[leaf][t + 1], params[leaf], rtol=1e-4, atol=1e-6)
    assert all(map(trace.held_once, trace.grads)), "the mean that optax itself makes, bit for bit"
    plain = recorded(watch(optax.chain(watch("grads"), rule) if inside else rule), 2)
    assert trace.opt_state.keys() == plain.opt_state.keys()


@pytest.mark.parametrize(
    ("k", "inside", "sums"), [(2, True, True), (3, False, True), (2, False, False)]
)
def test_micro_steps_that_are_summed_are_noticed_where_a_state_tells(
    k: int, inside: bool, sums: bool
) -> None:
    rule = optax.chain(watch("grads"), optax.sgd(0.1)) if inside else optax.sgd(0.1)
    tx = watch(optax.MultiSteps(rule, k, use_grad_mean=False))
    batches = [micro(i) for i in range(2 * k)]
    trace = recorded(tx, 2 * k, batches)
    losses = trace.micro_losses["loss"].reshape(2, k)
    assert np.allclose(trace.losses, losses.sum(1) if sums else losses.mean(1), rtol=1e-6)
    step = -np.diff(trace.params["w"], axis=0) / 0.1
    assert np.allclose(trace.raw_grads["w"] * (1 if sums else k), step, rtol=1e-4, atol=1e-4)


@pytest.mark.skipif(
    "accumulator_dtype" not in inspect.signature(optax.MultiSteps).parameters,
    reason="optax 0.2.6 has no such argument",
)
@pytest.mark.parametrize("dtype", ["bfloat16", "float64"])
def test_micro_steps_are_averaged_in_the_dtype_that_optax_takes(dtype: str) -> None:
    with jax.enable_x64(dtype == "float64"):
        start = jax.tree.map(lambda leaf: leaf.astype(dtype), START)
        rule = optax.chain(watch("grads"), optax.sgd(0.01))
        outside, both = (
            watch(optax.MultiSteps(inner, 3, accumulator_dtype=jnp.float32))
            for inner in (optax.sgd(0.01), rule)
        )
        traces = []
        for tx in (outside, both):
            params, opt_state = start, tx.init(start)
            with record(params) as rec:
                for i in range(6):
                    loss, grads = jax.value_and_grad(loss_fn)(params, micro(i).astype(dtype))
                    updates, opt_state = tx.update(grads, opt_state, params)
                    params = optax.apply_updates(params, updates)
                    rec.step((params, opt_state), loss=loss)
            traces.append(rec.trace)
    made_anew, given = (trace.raw_grads["w"] for trace in traces)
    assert made_anew.dtype == given.dtype == start["w"].dtype
    eps = float(jnp.finfo(dtype).eps)
    assert np.allclose(np.float64(made_anew), np.float64(given), rtol=2 * eps, atol=0)


def test_clipping_around_micro_steps_leaves_the_mean_of_raw_gradients() -> None:
    k = 2
    links = optax.clip(0.5), optax.MultiSteps(optax.sgd(0.1), k).gradient_transformation()
    batches = [micro(i) for i in range(4)]
    trace = recorded(watch(optax.chain(*links)), 4, batches)
    raw = jax.grad(loss_fn)(START, batches[0]), jax.grad(loss_fn)(START, batches[1])
    assert np.allclose(trace.raw_grads["w"][0], (raw[0]["w"] + raw[1]["w"]) / 2, rtol=1e-6)
    assert np.abs(np.diff(trace.params["w"], axis=0)).max() < 0.0501


def test_watched_micro_steps_are_handed_what_a_rule_asks_for_besides() -> None:
    """Such as the loss, by which reduce_on_plateau goes."""
    rule = optax.chain(optax.sgd(0.1), optax.contrib.reduce_on_plateau())
    tx = watch(optax.MultiSteps(rule, 2))
    _, state = tx.update(START, tx.init(START), START, value=jnp.float32(0.5))
    assert int(state.updates) == 1


def test_micro_steps_that_were_not_told_are_refused() -> None:
    tx = watch(optax.MultiSteps(optax.sgd(0.1), 3))
    all_of_them = list(states(tx, 6))

    def opens_at(t: int, known: bool = False) -> Callable[[], None]:
        def run() -> None:
            with record(all_of_them[t - 1][0] if known else START) as rec:
                for state, loss, _ in all_of_them[t:]:
                    rec.step(state, loss=loss)

        return run

    says = "micro-steps of MultiSteps were made before the recording began"
    refused(opens_at(1), f"step 1: 1 {says}")
    refused(opens_at(1, known=True), f"step 1: 1 {says}")
    refused(opens_at(2), f"step 1: 2 {says}")
    opens_at(3)()
    opens_at(3, known=True)()
    refused(partial(recorded, tx, 2), "nothing was recorded: no step was made")


NOT_FINITE = [X[:3], X[3:6] * jnp.inf, X[3:6] * jnp.nan, X[6:9], X[9:12]]


@pytest.mark.parametrize(
    "tx",
    [
        watch(optax.apply_if_finite(optax.adam(0.1), 5)),
        watch(optax.MultiSteps(optax.adam(0.1), 1, should_skip_update_fn=optax.skip_not_finite)),
        watch(
            optax.apply_if_finite(optax.MultiSteps(optax.adam(0.1), 1).gradient_transformation(), 5)
        ),
    ],
    ids=["apply_if_finite", "skip_not_finite", "apply_if_finite(MultiSteps)"],
)
def test_update_that_was_not_finite_is_no_row(tx: Any) -> None:
    trace = recorded(tx, 5, NOT_FINITE)
    same(trace, stacked(tx, 5, NOT_FINITE))
    assert len(trace) == 3
    assert trace.update["skipped"].tolist() == [2]
    assert trace.steps_of("update", "skipped").tolist() == [1]
    plain = recorded(watch(optax.adam(0.1)), 3, [X[:3], X[6:9], X[9:12]])
    assert np.allclose(plain.params["w"], trace.params["w"], rtol=1e-5)
    assert plain.opt_state.keys() == trace.opt_state.keys()
    given_up = recorded(watch(optax.apply_if_finite(optax.adam(0.1), 1)), 3, NOT_FINITE)
    assert len(given_up) == 2, "the second in a row is made, not finite as it is"


def test_micro_step_that_is_skipped_among_others_leaves_those() -> None:
    rule = optax.MultiSteps(optax.adam(0.1), 2, should_skip_update_fn=optax.skip_not_finite)
    batches = [X[:3], X[:3] * jnp.nan, X[3:6], X[6:9], X[9:12]]
    trace = recorded(watch(rule), 5, batches)
    same(trace, stacked(watch(rule), 5, batches))
    plain = recorded(watch(optax.MultiSteps(optax.adam(0.1), 2)), 4, [batches[0], *batches[2:]])
    assert np.allclose(trace.losses, plain.losses, rtol=1e-5)
    assert np.allclose(trace.raw_grads["w"], plain.raw_grads["w"], rtol=1e-5)
    assert trace.update["skipped"].tolist() == [1]
    ((state, loss, _), *_) = states(watch(rule), 1)

    def twice() -> None:
        with record(START) as rec:
            for _ in range(2):
                rec.step(jax.tree.map(jnp.copy, state), loss=loss)

    refused(twice, "step 1 was recorded already: optimizer 'optimizer' is still at its update 1")


def test_update_that_a_loss_scale_has_thrown_away_is_no_row() -> None:
    tx = watch(optax.adam(0.1))
    told = list(states(tx, 4))
    (params, opt_state), _, _ = told[1]
    kept = jax.tree.map(lambda leaf: jnp.where(False, 0, leaf), (params, opt_state))
    with record((START, tx.init(START))) as rec:
        for state, loss, _ in told[:2]:
            rec.step(state, loss=loss)
        rec.step(kept, loss=jnp.inf)
        for state, loss, _ in told[2:]:
            rec.step(state, loss=loss)
    assert rec.trace.update["skipped"].tolist() == [1]
    assert rec.trace.steps_of("update", "skipped").tolist() == [2]
    assert rec.trace.update["optimizer"].tolist() == [1, 2, 3, 4]


def test_renewed_optimizer_is_said_to_be() -> None:
    tx = watch(optax.adam(0.1))
    told = [*states(tx, 3), *states(tx, 2)]
    with record(START) as rec:
        for state, loss, _ in told:
            rec.step(state, loss=loss)
    assert rec.trace.steps_of("update", "renewed").tolist() == [3]


def test_injected_hyper_parameters_are_recorded_as_pytorch_calls_them() -> None:
    rate = optax.exponential_decay(0.5, 1, 0.5)
    tx = watch(optax.inject_hyperparams(optax.adam)(rate, b1=0.8))
    trace = recorded(tx, 4)
    same(trace, stacked(tx, 4))
    assert trace.hyper_parameters["0.lr"].tolist() == [0.5, 0.25, 0.125, 0.0625]
    assert trace.hyper_parameters["0.betas.0"].tolist() == [0.8] * 4, "as it was written"
    assert {"0.betas.1", "0.eps"} <= trace.hyper_parameters.keys()
    plain = recorded(watch(optax.adam(rate, b1=0.8)), 4)
    assert trace.opt_state.keys() < plain.opt_state.keys(), "which counts for its schedule"
    parts = {
        name: optax.inject_hyperparams(optax.sgd)(r)
        for name, r in zip("wb", (0.1, 0.2), strict=True)
    }
    both = recorded(watch(optax.multi_transform(parts, {"w": "w", "b": "b"})))
    rates = {name: numbers[0] for name, numbers in both.hyper_parameters.items() if "lr" in name}
    assert rates == {"0.lr": 0.2, "1.lr": 0.1}


def test_parts_of_an_optimizer_are_each_given_their_own() -> None:
    parts = {
        "w": optax.chain(optax.clip(0.1), watch("grads"), optax.sgd(0.1)),
        "b": optax.chain(watch("grads"), optax.sgd(0.1)),
    }
    trace = recorded(watch(optax.multi_transform(parts, {"w": "w", "b": "b"})))
    assert np.abs(trace.grads["w"]).max() == np.float32(0.1)
    assert trace.held_once("b")


def test_lookahead_whose_parameters_are_two_trees_changes_none_from_outside() -> None:
    tx = watch(optax.lookahead(optax.sgd(0.1), 2, 0.5))
    params = optax.LookaheadParams.init_synced(START)
    opt_state = tx.init(params)
    with record(params) as rec:
        for _ in range(4):
            loss, grads = jax.value_and_grad(loss_fn)(params.fast, X)
            updates, opt_state = tx.update(grads, opt_state, params)
            params = optax.apply_updates(params, updates)
            rec.step((params, opt_state), loss=loss)
    assert rec.trace.params.keys() == {"fast.w", "fast.b", "slow.w", "slow.b"}
    assert rec.trace.raw_grads.keys() == START.keys()
    assert not rec.trace.before
