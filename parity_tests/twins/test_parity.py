"""Every example trains the same in both frameworks, step by step: what twinstep is there to show.

One table: the documents' examples times the two dtypes, as the specs have them; other seeds are in
test_many_pairs.py. The smallest allowance with which each would have passed is recorded as a
property of its test (`--junit-xml` writes it down).
"""

import dataclasses
import json
import math
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import twinstep
from twinstep.problems.datasets import DATA_VARIABLE, MNIST_MD5
from twinstep.problems.mnist_rnn import MnistRnn
from twinstep.runs.claims import with_claims
from twinstep.runs.verification import Verification
from twinstep.trace.stages import STAGES

MNIST = Path(os.environ.get(DATA_VARIABLE) or Path(__file__).parents[3] / "shared" / "mnist")


def holds(result: Verification, record: Any) -> None:
    """Every step of the spec was compared, in both modes, and each is within its allowance."""
    comparison, spec = result.comparison, result.spec
    assert comparison.verdict.same, comparison.reason
    assert comparison.first is None
    assert comparison.steps == spec.total_steps
    assert comparison.bound == "rounding noise measured on this run"
    for mode in ("gate", "free"):
        allowance = comparison.smallest_allowance(mode)
        record(mode, allowance)
        assert math.isfinite(allowance)
        assert allowance < 1
        stages = {"batch", "loss", "raw_grads", "params"}  # the gradients given are the same arrays
        if spec.update.startswith("Adam"):
            stages.add("opt_state")
        if spec.test_set() and not (mode == "free" and comparison.chaotic_from):
            stages.add("evaluation")  # where values are judged to the end
        assert comparison.worst[mode].keys() == stages <= set(STAGES)
    claims_are_measured(result)
    for outcome in result.outcomes.values():
        assert len(outcome.losses) == spec.total_steps
        assert np.all(np.isfinite(outcome.losses))
    json.dumps(result.to_dict(), allow_nan=False)


def claims_are_measured(result: Verification) -> None:
    """There are claims, in words and figures, and no figure is a NaN or an infinity."""
    assert result.claims
    for claim in result.claims:
        assert claim.says
        assert re.search(r"\d", claim.measured), claim.measured
        assert not re.search(r"\b(nan|inf)\b", claim.measured), claim.measured
        assert claim.holds in (True, False, None)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_both_frameworks_train_the_same(name: str, dtype: Any, record_property: Any) -> None:
    result = with_claims(twinstep.verify(twinstep.examples()[name](dtype=dtype)))
    holds(result, record_property)
    distances = result.distances or {}
    assert distances.keys() == (set() if dtype == "float64" else {"torch", "jax"})
    assert all(map(math.isfinite, distances.values()))


@pytest.mark.slow
def test_real_mnist_trains_the_same(record_property: Any) -> None:
    for file in MNIST_MD5:
        if not (MNIST / file).exists() and not (MNIST / file.removesuffix(".gz")).exists():
            pytest.skip(f"{file} lies neither beside the repository nor where {DATA_VARIABLE} says")
    spec = MnistRnn(dtype="float64", steps=12, data="mnist", data_dir=str(MNIST))
    result = with_claims(twinstep.verify(spec))
    holds(result, record_property)
    for outcome in result.outcomes.values():
        assert outcome.metrics["test_images"] == 10000
        assert outcome.metrics["correct"] > 1500  # better than guessing


@pytest.mark.parametrize("framework", ["torch", "jax"])
def test_network_that_the_optimizer_lacks_never_moves(framework: str) -> None:
    spec = twinstep.examples()["selective_update"](dtype="float64")
    trace = twinstep.run(spec, framework, rounding_noise=False)
    gru = [leaf for leaf in trace.params if leaf.startswith("gru.")]
    assert len(gru) == 4
    for leaf in gru:
        params, grads = trace.params[leaf], trace.raw_grads[leaf]
        assert np.array_equal(params, np.broadcast_to(params[:1], params.shape))
        assert np.array_equal(params[0], spec.initial_params()[leaf])
        assert np.any(grads != 0, axis=tuple(range(1, grads.ndim))).all()
    assert all(leaf.startswith("model.") for leaf in trace.opt_state)
    assert trace.raw_grads.keys() == trace.params.keys()
    assert trace.grads.keys() == trace.params.keys() - set(gru)  # what the optimizer is given
    assert all(trace.held_once(leaf) for leaf in trace.grads)
    for leaf in trace.params.keys() - set(gru):
        assert np.all(trace.params[leaf][1:] != trace.params[leaf][:-1])


def test_claims_without_figures_are_noticed() -> None:
    result = with_claims(twinstep.verify(twinstep.examples()["chain_rule"](dtype="float64")))
    claims_are_measured(result)
    claim = result.claims[0]
    wrong = ("", "about right", "off by nan", "0 and inf")
    for claims in ([], *([claim._replace(measured=measured)] for measured in wrong)):
        with pytest.raises(AssertionError):
            claims_are_measured(dataclasses.replace(result, claims=claims))
