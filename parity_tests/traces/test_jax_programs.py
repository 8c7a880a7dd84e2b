"""JAX programs are recorded as they are: the bits of the training stay, and the trace is of it."""

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers.jax_programs import (
    PROGRAMS,
    STEPS,
    Left,
    X,
    added_by_hand,
    jitted_step,
    rule,
    start,
    train_state,
    two_in_turns,
    unrolled,
    updated_outside,
    whole_in_one,
)

import twinstep
from twinstep.jax.outside.recorder import record_program
from twinstep.jax.trees import by_name
from twinstep.trace.ledger import Trace

EPS = float(np.finfo(np.float32).eps)
LOOPS = "whole_in_one", "seeds_beside_each_other", "fori", "loop_alone"
RULES = {
    "jitted_step": lambda: optax.chain(optax.clip_by_global_norm(0.5), rule()),
    "without_parameters": lambda: optax.adam(0.05),
}
"""Where it is not what most of them have."""
every_program = pytest.mark.parametrize("program", PROGRAMS, ids=lambda p: p.__name__)


def recorded(program: Callable[[], Left], out: Path, **options: Any) -> tuple[Left, Trace]:
    with record_program(out=out, **options):
        left = program()
    return left, twinstep.load_trace(out)


def replayed(trace: Trace, program: Callable[[], Left]) -> float:
    """How far the rule's updates of the recorded parameters are from those that were recorded.

    In eps of a leaf's largest entry.
    """

    def at(leaves: Any, t: int) -> Any:
        return {name: jnp.asarray(rows[t]) for name, rows in leaves.items()}

    tx = RULES.get(program.__name__, rule)()
    state, worst = tx.init(at(trace.params, 0)), 0.0
    for t in range(len(trace)):
        before = at(trace.params, t)
        updates, state = tx.update(at(trace.raw_grads, t), state, before)
        for name, ours in optax.apply_updates(before, updates).items():
            theirs = trace.params[name][t + 1]
            off = np.abs(np.asarray(ours) - theirs).max() / max(np.abs(theirs).max(), 1e-3)
            worst = max(worst, float(off / EPS))
    return worst


@pytest.mark.filterwarnings("ignore:the last update of optimizer is not recorded")  # added_by_hand
@every_program
def test_program_trains_to_the_bit_and_the_rule_gives_what_was_recorded(
    program: Callable[[], Left], tmp_path: Path
) -> None:
    plain = program()
    left, trace = recorded(program, tmp_path / "trace")
    for ours, theirs in zip(*map(jax.tree.leaves, (left, plain)), strict=True):
        assert np.asarray(ours).tobytes() == np.asarray(theirs).tobytes()

    assert len(trace) == STEPS
    assert trace.validation_error() is None
    assert twinstep.open_trace(tmp_path / "trace").complete
    looked_at = "looked_at" in trace.program
    assert looked_at == (program.__name__ in LOOPS)
    for name, leaf in by_name(plain.params).items():
        close = 0 if not looked_at else 100 * EPS  # the shadow of a loop rounds in its own way
        np.testing.assert_allclose(trace.params[name][-1], leaf, rtol=close, atol=close)
    if plain.losses:
        losses = np.asarray(plain.losses, np.float64)
        mean = losses.reshape(STEPS, -1).mean(1)
        np.testing.assert_allclose(trace.losses, mean, rtol=100 * EPS)
    # Adam's quotient of two gradients' means: each rounds, and where a gradient is near 0 it counts
    assert replayed(trace, program) < 64


def test_a_last_update_of_which_nothing_was_seen_is_said(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="the last update of optimizer is not recorded"):
        _, trace = recorded(added_by_hand, tmp_path / "trace")
    assert len(trace) == STEPS, "the program makes one more"


def test_trainings_in_one_variable_are_optimizers_of_their_own(tmp_path: Path) -> None:
    """Which are made one after the other, by the same function and under the same name."""
    with record_program(out=tmp_path / "trace"):
        left = train_state(), train_state(), train_state()
    trace = twinstep.load_trace(tmp_path / "trace")
    assert {name: trace.steps_of("update", name).tolist() for name in trace.update} == {
        "optimizer": list(range(STEPS)),
        "state": list(range(STEPS, 2 * STEPS)),
        "state2": list(range(2 * STEPS, 3 * STEPS)),
    }
    leaf = "Dense_0.kernel"
    ends = [trace.params[name] for name in trace.params if name.endswith(leaf)]
    for rows, one in zip(ends, left, strict=True):
        assert rows[-1].tolist() == one.params["Dense_0"]["kernel"].tolist()
        assert len(rows) == STEPS + 1


def test_parameters_may_be_numbers_of_numpy(tmp_path: Path) -> None:
    """And what is beside them, of the same shape, is not taken for them."""
    with record_program(out=tmp_path / "trace"):
        tx = optax.adam(0.1)

        @jax.jit
        def train_step(w: Any, opt_state: Any, scale: Any) -> Any:
            grads = jax.grad(lambda w: (scale * w - 1) ** 2)(w)
            updates, opt_state = tx.update(grads, opt_state, w)
            return optax.apply_updates(w, updates), opt_state

        w: Any = np.float32(-2)
        opt_state, left = tx.init(w), [-2.0]
        for _ in range(3):
            w, opt_state = train_step(w, opt_state, jnp.float32(0.5))
            left.append(float(w))
    (rows,) = twinstep.load_trace(tmp_path / "trace").params.values()
    assert rows.tolist() == left


def test_what_is_as_it_was_left_was_not_changed_outside(tmp_path: Path) -> None:
    """Though the arrays are others, and a counter is kept in another dtype than it has."""
    with record_program(out=tmp_path / "trace"):
        tx = rule()

        @jax.jit
        def train_step(params: Any, opt_state: Any) -> Any:
            loss, grads = jax.value_and_grad(lambda p: jnp.sum(p["w"] ** 2))(params)
            updates, opt_state = tx.update(grads, opt_state, params)
            return optax.apply_updates(params, updates), opt_state, loss

        params = {"w": jnp.ones(3)}
        opt_state = tx.init(params)
        for step in range(4):
            params, opt_state, _ = train_step(params, opt_state)
            params, opt_state = jax.tree.map(jnp.copy, (params, opt_state))
            if step == 2:
                params = {"w": params["w"] + 1}
    trace = twinstep.load_trace(tmp_path / "trace")
    assert trace.steps_of("update", "changed_outside").tolist() == [3]
    assert list(trace.before) == ["params/w"]


def test_rows_of_several_optimizers_are_called_as_their_states(tmp_path: Path) -> None:
    plain = two_in_turns()
    left, trace = recorded(two_in_turns, tmp_path / "trace")
    for ours, theirs in zip(*map(jax.tree.leaves, (left, plain)), strict=True):
        assert np.asarray(ours).tobytes() == np.asarray(theirs).tobytes()
    assert trace.losses.tolist() == pytest.approx([float(loss) for loss in plain.losses], rel=1e-5)
    whose = {name: trace.steps_of("update", name).tolist() for name in trace.update}
    assert whose == {"critic_state": [0, 1, 3, 4, 6, 7], "actor_state": [2, 5, 8]}
    assert trace.steps_of("raw_grads", "critic_state.w").tolist() == whose["critic_state"]
    for name, leaf in by_name(plain.params).items():
        optimizer, _, path = name.partition(".")
        assert trace.params[f"{optimizer}_state.{path}"][-1].tolist() == leaf.tolist()


def test_several_updates_in_a_call_have_a_row_each(tmp_path: Path) -> None:
    plain = unrolled()
    left, trace = recorded(unrolled, tmp_path / "trace")
    for ours, theirs in zip(*map(jax.tree.leaves, (left, plain)), strict=True):
        assert np.asarray(ours).tobytes() == np.asarray(theirs).tobytes()
    rows = {name: trace.update[name].tolist() for name in trace.update}
    assert rows == {"opt_state": [1, 2, 3, 4, 5, 6], "meta_state": [1, 2]}
    assert "looked_at" in trace.program
    for name, leaf in by_name(plain.params["params"]).items():
        np.testing.assert_allclose(trace.params[f"opt_state.{name}"][-1], leaf, rtol=100 * EPS)
    (name,) = set(trace.params) - {f"opt_state.{path}" for path in by_name(start())}
    assert trace.params[name][-1] == plain.params["rate"]
    tx = optax.rmsprop(0.05)
    before = {path: trace.params[f"opt_state.{path}"][0] for path in by_name(start())}
    grads = {path: trace.raw_grads[f"opt_state.{path}"][0] for path in by_name(start())}
    rate = trace.hyper_parameters["opt_state.0.lr"][0]
    updates, _ = tx.update(grads, tx.init(before))
    for path, change in updates.items():
        moved = trace.params[f"opt_state.{path}"][1] - before[path]
        np.testing.assert_allclose(moved, change * rate / 0.05, rtol=1e-4, atol=1e-7)


def test_what_was_looked_at_in_a_loop_is_no_proof(tmp_path: Path) -> None:
    _, loop = recorded(whole_in_one, tmp_path / "loop")
    _, steps = recorded(jitted_step, tmp_path / "steps")
    assert twinstep.compare(steps, steps).verdict == "equal"
    found = twinstep.compare(loop, loop)
    assert found.verdict == "invalid"
    assert "looked at by callbacks" in found.reason


@pytest.mark.parametrize("loops", [False, True])
def test_a_loop_in_a_model_is_not_looked_at_and_one_that_updates_always(
    loops: bool, tmp_path: Path
) -> None:
    """Also where an optimizer was known before the first loop that updates with it."""
    with record_program(out=tmp_path / "trace"):
        tx = rule()

        def step(carry: Any, x: Any) -> Any:
            def loss_fn(params: Any) -> Any:
                turn = lambda h, x: (jnp.tanh(h + x @ params["w"]), None)  # noqa: E731  # short
                return jnp.mean(jax.lax.scan(turn, jnp.zeros(2), x)[0] ** 2)

            params, opt_state = carry
            loss, grads = jax.value_and_grad(loss_fn)(params)
            updates, opt_state = tx.update(grads, opt_state, params)
            return (optax.apply_updates(params, updates), opt_state), loss

        params = {"w": jnp.ones((3, 2))}
        carry = params, tx.init(params)
        train_step = jax.jit(step)
        for x in X[:3]:
            carry, _ = train_step(carry, x)
        if loops:
            carry, _ = jax.jit(lambda carry: jax.lax.scan(step, carry, X[:3]))(carry)
    trace = twinstep.load_trace(tmp_path / "trace")
    assert len(trace) == (6 if loops else 3)
    assert ("looked_at" in trace.program) == loops
    assert (twinstep.compare(trace, trace).verdict == "invalid") == loops


def test_a_gradient_that_the_shadow_does_not_give_is_found(tmp_path: Path) -> None:
    """What the replay of a rule is good for: an entry of one gradient is off by a thousandth."""
    _, trace = recorded(jitted_step, tmp_path / "trace")
    assert replayed(trace, jitted_step) < 64
    trace.raw_grads["out.w"][3, 0] *= 1.001
    assert replayed(trace, jitted_step) > 64


def test_a_function_is_recorded_again_by_another_recorder(tmp_path: Path) -> None:
    """And loops alone, called twice: what was noted of them is of the recorder that noted it."""

    def turn(carry: Any, x: Any) -> Any:
        params, opt_state = carry
        loss, grads = jax.value_and_grad(lambda p: jnp.sum((p["w"] - x) ** 2))(params)
        updates, opt_state = tx.update(grads, opt_state, params)
        return (optax.apply_updates(params, updates), opt_state), loss

    for i in range(2):
        with record_program(out=tmp_path / f"{i}"):
            tx = rule()
            carry = {"w": jnp.ones(3)}, tx.init({"w": jnp.ones(3)})
            for _ in range(2):
                carry, _ = jax.lax.scan(turn, carry, X[:3, 0])
        assert len(twinstep.load_trace(tmp_path / f"{i}")) == 6


@pytest.mark.parametrize(
    "what",
    [
        "carrying.copied",
        "carrying.by_path",
        "entries.leaves_of",
        "finding.trees_of_form",
        "recorder.finding.states_in",
        "recorder.finding.arguments",
        "shadow._filled",
        "shadow._states",
        "seen.Told",
    ],
)
@pytest.mark.parametrize("program", [jitted_step, updated_outside], ids=lambda p: p.__name__)
def test_a_fault_in_recording_never_reaches_the_training(
    what: str, program: Callable[[], Left], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, left = program(), []

    def planted(*args: Any, **options: Any) -> Any:
        raise RuntimeError("planted")

    monkeypatch.setattr(f"twinstep.jax.outside.{what}", planted)
    recorder = record_program(out=tmp_path / "trace")
    with contextlib.suppress(RuntimeError), recorder:
        left.append(program())
    if program is jitted_step:  # which meets all of them
        assert str(recorder.failed) == "planted"
    for ours, theirs in zip(*map(jax.tree.leaves, (left, [plain])), strict=True):
        assert np.asarray(ours).tobytes() == np.asarray(theirs).tobytes()
