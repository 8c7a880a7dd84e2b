"""JAX programs are recorded as they are: the bits of the training stay, and the trace is of it."""

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
    jitted_step,
    rule,
    two_in_turns,
    whole_in_one,
)

import twinstep
from twinstep.jax.outside import record_program
from twinstep.jax.trees import by_name
from twinstep.trace.ledger import Trace

EPS = float(np.finfo(np.float32).eps)
every_program = pytest.mark.parametrize("program", PROGRAMS, ids=lambda p: p.__name__)


def recorded(program: Callable[[], Left], out: Path, **options: Any) -> tuple[Left, Trace]:
    with record_program(out=out, **options):
        left = program()
    return left, twinstep.load_trace(out)


def replayed(trace: Trace, clips: bool) -> float:
    """How far the rule's updates of the recorded parameters are from those that were recorded.

    In eps of a leaf's largest entry.
    """

    def at(leaves: Any, t: int) -> Any:
        return {name: jnp.asarray(rows[t]) for name, rows in leaves.items()}

    tx = optax.chain(optax.clip_by_global_norm(0.5), rule()) if clips else rule()
    state, worst = tx.init(at(trace.params, 0)), 0.0
    for t in range(len(trace)):
        before = at(trace.params, t)
        updates, state = tx.update(at(trace.raw_grads, t), state, before)
        for name, ours in optax.apply_updates(before, updates).items():
            theirs = trace.params[name][t + 1]
            off = np.abs(np.asarray(ours) - theirs).max() / max(np.abs(theirs).max(), 1e-3)
            worst = max(worst, float(off / EPS))
    return worst


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
    assert looked_at == (program.__name__ in ("whole_in_one", "seeds_beside_each_other", "fori"))
    for name, leaf in by_name(plain.params).items():
        close = 0 if not looked_at else 100 * EPS  # the shadow of a loop rounds in its own way
        np.testing.assert_allclose(trace.params[name][-1], leaf, rtol=close, atol=close)
    if plain.losses:
        losses = np.asarray(plain.losses, np.float64)
        mean = losses.reshape(STEPS, -1).mean(1)
        np.testing.assert_allclose(trace.losses, mean, rtol=100 * EPS)
    # Adam's quotient of two gradients' means: each rounds, and where a gradient is near 0 it counts
    assert replayed(trace, clips=program.__name__ == "jitted_step") < 64


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


def test_what_was_looked_at_in_a_loop_is_no_proof(tmp_path: Path) -> None:
    _, loop = recorded(whole_in_one, tmp_path / "loop")
    _, steps = recorded(jitted_step, tmp_path / "steps")
    assert twinstep.compare(steps, steps).verdict == "equal"
    found = twinstep.compare(loop, loop)
    assert found.verdict == "invalid"
    assert "looked at by callbacks" in found.reason


def test_a_gradient_that_the_shadow_does_not_give_is_found(tmp_path: Path) -> None:
    """What the replay of a rule is good for: an entry of one gradient is off by a thousandth."""
    _, trace = recorded(jitted_step, tmp_path / "trace")
    assert replayed(trace, clips=True) < 64
    trace.raw_grads["out.w"][3, 0] *= 1.001
    assert replayed(trace, clips=True) > 64
