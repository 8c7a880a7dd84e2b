"""The promise: paste a document's own code after `torch.manual_seed(seed)`, see JAX's losses.

Each case runs a document's code as it stands there, with one line put before: the seed. Every loss
on which the code calls `backward` is noted, and so is all that it prints; both are held against the
JAX side's run of the same seed. torchvision need not be there: what the code asks of it is given in
its place.
"""

import sys
from typing import Any

import numpy as np
import pytest
import torch
from helpers import document_code
from helpers.commands import command
from helpers.document_code import LINEAR_REGRESSION, RNN_CASE, Case, Ran, run_document
from helpers.printed import EXACT, logged, unlike

import twinstep
from twinstep.judge import tolerance
from twinstep.problems import mnist_rnn as mnist_rnn_spec
from twinstep.problems.datasets import Images, load_digits
from twinstep.problems.sgd import SgdLinearModel
from twinstep.trace.ledger import Outcome, Trace
from twinstep.trace.stages import STAGES

SEEDS = (0, 1, 2024)


def run_perturbed(seed: int, dtype: str, rerun: int) -> Ran:
    """The RNN's code with every parameter off by up to one eps of itself before each step."""
    draws = torch.Generator().manual_seed(rerun)

    @torch.no_grad()
    def perturb(model: torch.nn.Module) -> None:
        for parameter in model.parameters():
            off = 2 * torch.rand(parameter.shape, generator=draws) - 1
            parameter.mul_(1 + tolerance.eps(dtype) * off)

    forward = "        outputs = model(images)\n        loss"
    assert RNN_CASE.code.count(forward) == 1
    code = RNN_CASE.code.replace(forward, f"        perturb(model)\n{forward}")
    return run_document(code, seed, dtype, perturb=perturb)


@pytest.fixture
def digits(monkeypatch: pytest.MonkeyPatch) -> Images:
    """930 digits to train on, 14 full batches and one of 34; 40 to test on; in both's hands."""
    every = load_digits()
    train, test = every.train_images[:930], every.test_images[:40]
    some = Images(train, every.train_labels[:930], test, every.test_labels[:40], "digits")
    monkeypatch.setattr(mnist_rnn_spec, "load_digits", lambda: some)
    monkeypatch.setitem(sys.modules, "torchvision", document_code.torchvision(some))
    return some


def spec_of(case: Case, seed: int, dtype: Any) -> twinstep.Spec:
    """The twin of a case."""
    return twinstep.examples()[case.example](seed=seed, dtype=dtype, **case.fields)


def allowed(dtype: str, steps: int) -> np.ndarray:
    """(T,) how far two honest runs of a contracting training may part, relative to its numbers.

    float64: the promise's 1e-12. float32: the bound that `compare` uses where no rounding noise is
    known, 64 + 4 a step eps, since each step rounds by a few eps of the largest number and
    contracts what was there; one ulp of torch.linspace in the data is such a rounding, made in
    every step.
    """
    if dtype == "float64":
        return np.full(steps, EXACT)
    amount = tolerance.PLAIN_EPS + tolerance.PLAIN_EPS_A_STEP * np.arange(1, steps + 1)
    return amount * tolerance.eps(dtype)


def max_distance(ran: Ran, trace: Trace) -> float:
    """The largest distance of losses and final parameters, in units of what is allowed."""
    assert len(ran.losses) == len(trace)
    assert ran.params.keys() == trace.params.keys()
    limit = allowed(trace.metadata.dtype, len(trace))
    ratios = [np.max(np.abs(ran.losses - trace.losses) / np.abs(ran.losses) / limit)]
    for name, array in ran.params.items():
        assert array.dtype == trace.params[name].dtype
        assert array.shape == trace.params[name].shape[1:]
        gap = np.max(np.abs(array - trace.params[name][-1])) / np.max(np.abs(array))
        ratios.append(gap / limit[-1])
    return float(np.max(ratios))


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("case", document_code.CASES, ids=lambda case: case.example)
def test_pasted_code_sees_the_losses_of_the_jax_side(case: Case, dtype: str) -> None:
    for seed in SEEDS:
        ran = run_document(case.text(dtype), seed, dtype)
        spec = spec_of(case, seed, dtype)
        trace = twinstep.run(spec, framework="jax", rounding_noise=False)
        assert max_distance(ran, trace) <= 1, f"seed {seed}"
        if case.prints:
            ours = printed_lines(spec, trace.losses.tolist(), trace.outcome())
            relative = EXACT if dtype == "float64" else allowed(dtype, len(trace))[-1]
            assert unlike(ran.lines, ours, relative) == []
            # fed with the document's own numbers, not a character differs
            end = trace.outcome()._replace(params=ran.params)
            assert printed_lines(spec, ran.losses.tolist(), end) == ran.lines


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("seed", SEEDS[:2])
def test_pasted_rnn_sees_the_losses_of_the_jax_side(seed: int, dtype: str, digits: Images) -> None:
    """30 steps over two shuffled epochs.

    Adam at 0.01 carries rounding far in this network, so how far is measured: the document's code
    runs again with every parameter perturbed by up to one eps before each step, and four times the
    largest distance of three such runs is allowed, beside what a single step rounds.
    """
    ran = run_document(RNN_CASE.code, seed, dtype)
    spec = spec_of(RNN_CASE, seed, dtype)
    trace = twinstep.run(spec, framework="jax", rounding_noise=False)
    assert len(ran.losses) == len(trace) == spec.total_steps == 30
    perturbed = [run_perturbed(seed, dtype, rerun) for rerun in range(tolerance.PERTURBED_RERUNS)]
    eps = tolerance.eps(dtype)
    rounding_noise = np.max([np.abs(rerun.losses - ran.losses) for rerun in perturbed], axis=0)
    limit = tolerance.ROUNDING_NOISE_FACTOR * np.maximum.accumulate(rounding_noise) + (
        STAGES["loss"].one_step * eps * np.maximum.accumulate(ran.losses)
    )
    assert np.all(np.abs(ran.losses - trace.losses) <= limit)
    # where another order of the samples would show: it moves a loss by a tenth
    assert np.all(limit <= {"float64": 1e-4, "float32": 1}[dtype])
    assert np.all(limit[:16] <= {"float64": 1e-8, "float32": 0.02}[dtype])
    for name, array in ran.params.items():
        gap = np.max(np.abs(array - trace.params[name][-1]))
        rounding_noise = np.max([np.abs(rerun.params[name] - array) for rerun in perturbed])
        one_step = STAGES["params"].one_step * eps * np.max(np.abs(array))
        assert gap <= tolerance.ROUNDING_NOISE_FACTOR * rounding_noise + one_step
    ours = printed_lines(spec, trace.losses.tolist(), trace.outcome())
    assert [line.split("Loss")[0] for line in ours[:-1]] == [
        f"Epoch [{epoch}/2], Step [{step}/15], " for epoch in (1, 2) for step in (5, 10, 15)
    ]
    if dtype == "float64":
        assert np.all(np.abs(ran.losses - trace.losses)[:5] <= 1e-12)
        assert ours == ran.lines
    assert printed_lines(spec, ran.losses.tolist(), trace.outcome())[:-1] == ran.lines[:-1]


def test_second_backward_of_document_000_is_refused() -> None:
    """So the document's section 4 cannot be meant as printed: the example calls it once."""
    with pytest.raises(RuntimeError, match="backward through the graph a second time"):
        run_document(document_code.GRADIENT_UPDATE, 0, "float32")
    # whichever of the two is left out, the update is the same: zero_grad comes before the second
    once = run_document(document_code.CASES[0].code, 0, "float32")
    first, _, rest = document_code.GRADIENT_UPDATE.rpartition(document_code.BACKWARD)
    assert first.count(document_code.BACKWARD) == 1
    other = run_document((first + rest).replace("optimizer.zero_grad()\n", ""), 0, "float32")
    for name, array in once.params.items():
        np.testing.assert_array_equal(array, other.params[name])
    assert len(once.losses) == twinstep.examples()["gradient_update"]().total_steps == 1


def printed_lines(spec: twinstep.Spec, losses: list[float], outcome: Outcome) -> list[str]:
    """What the twin prints of a run with these losses."""
    final = [] if spec.name == "backpropagation" else spec.final_lines(outcome)
    return logged(spec, losses) + final


VALUES = {
    "usual": (1.8362, 1.0931),
    "negative": (-0.5001, -12.25),
    "whole": (2.0, -1.0),
    "zero": (0.0, 0.0),
    "thousands": (12345.678, 999.5),
    "tiny": (1.5e-6, 3.25e-5),
    "huge": (3e10, -4.5e12),
    "diverged": (float("inf"), float("nan")),
}


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("values", VALUES.values(), ids=VALUES)
def test_state_dict_line_is_the_one_that_torch_prints(
    values: tuple[float, float], dtype: Any
) -> None:
    weight, bias = (np.array(value, dtype) for value in values)
    params = {"linear.weight": weight.reshape(1, 1), "linear.bias": bias.reshape(1)}
    torch.set_default_dtype(getattr(torch, dtype))
    model = torch.nn.ModuleDict({"linear": torch.nn.Linear(1, 1)})
    model.load_state_dict({name: torch.tensor(array) for name, array in params.items()})
    outcome = Outcome(np.zeros(1), params, params, params, {})
    lines = SgdLinearModel(dtype=dtype).final_lines(outcome)
    assert lines == f"训练后的模型参数: {model.state_dict()}".splitlines()


@pytest.mark.parametrize("correct", [9, 20, 37])
def test_accuracy_line_is_the_one_of_document_001(correct: int) -> None:
    line = document_code.MNIST_RNN[document_code.MNIST_RNN.rindex("print(") :]
    names = {"correct": correct, "total": 10000}
    said = command(call=lambda _: exec(line.replace("        ", ""), names))
    metrics = {"correct": float(correct), "test_images": 10000.0}
    outcome = Outcome(np.zeros(1), {}, {}, {}, metrics)
    assert twinstep.examples()["mnist_rnn"]().final_lines(outcome) == said.out.splitlines()


FAULTS = {
    "learning rate": ("lr=0.01", "lr=0.0100000001"),
    "another loss": ("nn.MSELoss()", "nn.HuberLoss(delta=20)"),
    "data drawn last": ("# 定义优化器", "y = 2 * x + 1 + torch.randn(100, 1) * 2"),
    "one epoch less": ("range(100)", "range(99)"),
}


@pytest.mark.parametrize(("old", "new"), FAULTS.values(), ids=FAULTS)
def test_another_code_is_noticed(old: str, new: str) -> None:
    case = Case("linear_regression", LINEAR_REGRESSION.replace(old, new, 1))
    assert case.code != LINEAR_REGRESSION
    ran = run_document(case.code, 0, "float64")
    trace = twinstep.run(spec_of(case, 0, "float64"), framework="jax", rounding_noise=False)
    with pytest.raises(AssertionError):
        assert max_distance(ran, trace) <= 1
