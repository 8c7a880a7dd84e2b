"""The rows of `optimizers` whose step evaluates the loss itself: LBFGS, honest and with faults.

Every fault is planted in PyTorch's own source, so that the JAX side is compiled once a row.
"""

import dataclasses
import functools
import inspect
import sys
import types
from typing import Any

import numpy as np
import pytest
import torch
from helpers import judging
from helpers.judging import EPS
from helpers.synthetic_traces import made

from twinstep import Verdict, Verification, verify
from twinstep.judge.findings import Comparison
from twinstep.judge.judge import Judge
from twinstep.problems.closures import ClosureTraining, rows
from twinstep.runs import launch
from twinstep.trace.ledger import Trace

FIRST = "layer1.weight"  # what PyTorch keeps LBFGS's state with
COUNTS = ("func_evals", "n_iter", "stored")
ROWS: dict[str, dict[str, Any]] = {
    "plain": {"history_size": 4, "max_iter": 12},
    "wolfe": {"history_size": 3, "max_iter": 8, "line_search_fn": "strong_wolfe"},
}


@functools.cache
class Row:
    """A row verified once, and what made its steps again, for other recordings of it."""

    def __init__(self, name: str) -> None:
        (self.spec,) = (spec for spec in rows() if spec.options == ROWS[name])
        replay = launch.replay(self.spec)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(launch, "replay", lambda *_: replay)
            self.verification: Verification = verify(self.spec)
        self._replay = replay

    def replayed(self) -> tuple[Trace, Trace, Any]:
        """PyTorch's steps now, the same made again, and their sizes."""
        (index,) = self.spec.chunks()
        (recorded,) = launch.chunks(self.spec, "torch", rounding_noise=False)
        return recorded, *self._replay(recorded, index)


each_row = pytest.mark.parametrize("name", ROWS)


def gate(recorded: Trace, replayed: Trace, rounding_scale: Any) -> Comparison:
    judge = Judge(recorded.metadata.dtype)
    judge.gate(recorded, replayed, rounding_scale)
    return judge.comparison()


@each_row
def test_both_frameworks_train_the_same(name: str) -> None:
    comparison = Row(name).verification.comparison
    assert comparison.verdict in (Verdict.EQUAL, Verdict.ROUNDING), comparison.reason
    assert comparison.bound == "rounding noise measured on this run"
    for mode in ("gate", "free"):
        stages = {"batch", "loss", "raw_grads", "opt_state", "params"}  # grads: held once
        assert comparison.worst[mode].keys() == stages
        assert comparison.smallest_allowance(mode) < 0.5


@each_row
def test_what_a_step_allows_is_measured(name: str) -> None:
    """The fixed allowance of one evaluation is too small; a count is allowed nothing."""
    recorded, replayed, rounding_scale = Row(name).replayed()
    rounding_noise: Any = replayed.rounding_noise
    assert gate(recorded, replayed, rounding_scale).verdict.same
    alone = gate(recorded, dataclasses.replace(replayed, rounding_noise=None), rounding_scale)
    assert alone.verdict is Verdict.MISMATCH
    for key in COUNTS:
        assert not rounding_noise[f"opt_state/{FIRST}.{key}"].any()
    for name, array in recorded.params.items():  # and it is no more than rounding
        assert np.all(rounding_noise[f"params/{name}"] <= 1e-11 * np.abs(array).max())


IN_BOTH: dict[str, tuple[str, str]] = {
    "a pair too few": ("len(old_dirs) == history_size", "len(old_dirs) == history_size - 1"),
    "a scale off by 1e-11": ("ys / y.dot(y)", "ys / y.dot(y) * (1 + 1e-11)"),
}
# of each row: what is wrong, what PyTorch's source has, and what it gets
FAULTS: dict[str, dict[str, tuple[str, str]]] = {
    "plain": IN_BOTH
    | {
        "the other scale": ("ys / y.dot(y)", "s.dot(s) / ys"),
        "pairs left out": ("ys > 1e-10", "ys > 1e-3"),
        "another first step": ("1.0 / flat_grad.abs().sum()", "1.0 / flat_grad.norm()"),
        "loops that part by 1e-9": ("al[i] - be_i", "al[i] - be_i * (1 + 1e-9)"),
        "a larger tolerance_change": ('group["tolerance_change"]', "5e-3"),
        "fewer evaluations": ("max_iter * 5 // 4", "max_iter"),
        "a last evaluation": ("if n_iter != max_iter:", "if True:"),
    },
    "wolfe": IN_BOTH | {"another c1": ("c1=1e-4", "c1=0.4"), "another c2": ("c2=0.9", "c2=0.5")},
}


@pytest.mark.parametrize(
    ("name", "wrong"), [(name, wrong) for name, faults in FAULTS.items() for wrong in faults]
)
def test_fault_is_found(name: str, wrong: str, monkeypatch: pytest.MonkeyPatch) -> None:
    honest, (old, new) = Row(name), FAULTS[name][wrong]
    source = inspect.getsource(sys.modules[torch.optim.LBFGS.__module__])
    assert source.count(old) == 1
    faulty = types.ModuleType("torch.optim.lbfgs")
    faulty.__package__ = "torch.optim"
    exec(compile(source.replace(old, new), "lbfgs, with a fault", "exec"), faulty.__dict__)
    monkeypatch.setattr(torch.optim, "LBFGS", faulty.LBFGS)
    comparison = gate(*honest.replayed())
    assert comparison.verdict is Verdict.MISMATCH, comparison.reason
    first: Any = comparison.first
    assert (first.step, first.stage) == (1, "opt_state")


def test_counts_that_differ_are_a_mismatch_whatever_was_measured() -> None:
    recorded, replayed, rounding_scale = Row("wolfe").replayed()
    wide = {name: array + 1.0 for name, array in (replayed.rounding_noise or {}).items()}
    wide |= {f"opt_state/{FIRST}.{key}": np.zeros(len(recorded)) for key in COUNTS}
    for key in COUNTS:
        name = f"{FIRST}.{key}"
        counts = replayed.opt_state[name].copy()
        counts[-1] += 1
        other = {**replayed.opt_state, name: counts}
        changed = dataclasses.replace(replayed, opt_state=other, rounding_noise=wide)
        comparison = gate(recorded, changed, rounding_scale)
        assert comparison.verdict is Verdict.MISMATCH
        assert str(comparison.first).startswith(f"step {len(recorded)}, opt_state, {name}")


def test_ledger_is_of_the_first_evaluation() -> None:
    """In PyTorch's `.grad` is the last one's after a step; what is recorded is of one point."""
    recorded, _, _ = Row("plain").replayed()
    driver = launch.driver("torch", Row("plain").spec)
    model, criterion, _ = driver.start
    x, y = driver.data.values()
    with driver.settings():
        loss = criterion(model(x), y)
        loss.backward()
    assert recorded.losses[0] == loss.item()
    for name, parameter in model.named_parameters():
        for grads in (recorded.raw_grads, recorded.grads):
            assert np.array_equal(grads[name][0], parameter.grad)


def test_step_that_moves_nothing_leaves_the_initial_state() -> None:
    """PyTorch's has counts alone then; here everything is there from the start."""
    spec = ClosureTraining(options={"tolerance_grad": 10.0}, dtype="float64", steps=2)
    (theirs,) = launch.chunks(spec, "torch", rounding_noise=False)
    (ours,) = launch.chunks(spec, "jax", rounding_noise=False)
    assert theirs.opt_state.keys() == ours.opt_state.keys()
    for name, array in theirs.opt_state.items():
        assert np.array_equal(array, ours.opt_state[name]), name
    assert list(theirs.opt_state[f"{FIRST}.func_evals"]) == [1, 2]


def test_measured_noise_of_a_replay_widens_what_an_update_may_round() -> None:
    """Of the state and the parameters; a loss and a gradient are of one evaluation."""
    recorded = made()
    for stage, leaves in (("opt_state", recorded.opt_state), ("params", recorded.params)):
        name, array = next(iter(leaves.items()))
        off: dict[str, Any] = {stage: {**leaves, name: array + 100 * EPS * np.abs(array).max()}}
        replayed = dataclasses.replace(recorded, **off)
        assert judging.gate(recorded, replayed).verdict is Verdict.MISMATCH
        rounding_noise = {f"{s}/{leaf}": np.zeros(len(a)) for s, leaf, a in recorded.entries()}
        rounding_noise[f"{stage}/{name}"] += 30 * EPS * np.abs(array).max()
        replayed = dataclasses.replace(replayed, rounding_noise=rounding_noise)
        assert judging.gate(recorded, replayed).verdict is Verdict.ROUNDING
    wide = {name: array + 1.0 for name, array in rounding_noise.items()}
    off = {n: a * (1 + 1e-9) for n, a in recorded.raw_grads.items()}
    for changed in (
        dataclasses.replace(recorded, losses=recorded.losses * (1 + 1e-9), rounding_noise=wide),
        dataclasses.replace(recorded, raw_grads=off, grads=off, rounding_noise=wide),
        dataclasses.replace(recorded, grads=off, rounding_noise=wide),
    ):
        assert judging.gate(recorded, changed).verdict is Verdict.MISMATCH


def test_chaos_of_a_fault_does_not_explain_it() -> None:
    recorded = made()
    name, array = next(iter(recorded.params.items()))
    verdicts = {1.0: Verdict.MISMATCH, np.inf: Verdict.MISMATCH, np.nan: Verdict.INVALID}
    for carried, verdict in verdicts.items():
        rounding_noise = {
            f"{s}/{leaf}": np.full(len(a), carried) for s, leaf, a in recorded.entries()
        }
        params = {**recorded.params, name: array * (1 + 1e-3)}
        replayed = dataclasses.replace(recorded, params=params, rounding_noise=rounding_noise)
        assert judging.gate(recorded, replayed).verdict is verdict
