"""A judge that cries wolf is worth nothing: what differs only in rounding is never a mismatch.

Each row changes the order or the manner of the arithmetic on one side and nothing that it means:
another kernel, another number of threads, another compiler, another order of a batch's samples.
"""

from typing import Any

import jax.numpy as jnp
import pytest
import torch
from faults.honest import HonestPair, judged
from faults.models_torch import gru
from faults.pairs import Honest, HonestJax, Pair, Plant, compared, pair
from faults.plants_anywhere import built, criterion, replaced, rewritten
from faults.plants_jax import jax_adam
from faults.plants_torch import forward, torch_optimizer

from twinstep.jax.nn import linear
from twinstep.judge.findings import Comparison

DTYPES = ("float64", "float32")
SEEDS: list[tuple[str, dict[str, Any], tuple[int, ...]]] = [
    ("gradient_update", {}, (1, 2, 3)),
    ("linear_regression", {"steps": 60}, (1, 2, 3)),
    ("linear_regression_l1", {"steps": 60}, (1, 2)),
    ("linear_regression_adam", {"steps": 60}, (1, 2)),
    ("zero_grad", {"steps": 20}, (1,)),
    ("backpropagation", {"steps": 20}, (1,)),
]
PROBES: list[dict[str, Any]] = [
    {"eps": 1e-2, "betas": (0.5, 0.9)},
    {"eps": 0.0, "betas": (0.0, 0.0), "learning_rate": 1e-4},
    {"eps": 1e-2, "betas": (0.999, 0.5), "learning_rate": 1.0},
]


@pytest.fixture(scope="module")
def honest_jax() -> Honest:
    """The JAX side as it is, shared by all rows that change the other side."""
    return HonestJax()


def is_no_mismatch(comparison: Comparison) -> None:
    """Within both allowances, with something proved."""
    assert comparison.verdict.same, comparison.reason
    assert comparison.first is None
    for mode in ("gate", "free"):
        assert comparison.smallest_allowance(mode) <= 1


AS_THEY_ARE = [
    *(
        pair(name, dtype, seed=seed, **settings)
        for name, settings, seeds in SEEDS
        for dtype in DTYPES
        for seed in seeds
    ),
    *(pair("adam_update", dtype, **probe) for probe in PROBES for dtype in DTYPES),
    pair("mnist_rnn", steps=5, hidden_size=2, batch_size=1),
]


@pytest.mark.slow
@pytest.mark.parametrize("pair", AS_THEY_ARE, ids=str)
def test_pairs_as_they_are(pair: Pair, monkeypatch: pytest.MonkeyPatch, honest_jax: Honest) -> None:
    honest_jax.programs.share(monkeypatch)
    is_no_mismatch(compared(pair))


LINEAR = pair("linear_regression", steps=20)
LINEAR32 = pair("linear_regression", "float32", steps=20)
ADAM = pair("adam_update")
ADAM32 = pair("adam_update", "float32")
RELU = pair("backpropagation", steps=10)
GROUPS = pair("parameter_groups", steps=10)
DIGITS = pair("mnist_rnn", steps=5, hidden_size=40)


def compiled(model: Any, criterion: Any, optimizer: Any) -> Any:
    """The loss by torch.compile, its graphs made and run without generated code."""
    forward = model.forward
    model.forward = lambda x: x
    whole = torch.compile(lambda x, y: criterion(forward(x), y), backend="aot_eager")
    return model, whole, optimizer


def backward_sum(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """The mean squared error, its samples added from the last to the first."""
    return (output - target).square().flip(0).cumsum(0)[-1, 0] / len(output)


def in_halves(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """The mean squared error, half of it at a time."""
    halves = (output - target).square().chunk(2)
    return sum(half.sum() for half in halves) / len(output)  # type: ignore[return-value]


RARE = [
    # a sample that crosses a kink a step sooner, an update across 0
    HonestPair(pair("linear_regression_l1", "float32", seed=114), 1, {"fused": True}),
    HonestPair(pair("linear_regression_adam", "float32", seed=134), 1, {"foreach": False}),
    *(HonestPair(DIGITS, threads, {}) for threads in (1, 2)),
]


@pytest.mark.parametrize("each", RARE, ids=str)
def test_pairs_by_any_number_of_threads_and_those_that_rounding_parts_most(
    each: HonestPair, honest_jax: Honest
) -> None:
    is_no_mismatch(judged(each, honest_jax.programs))


# as the loop had them, in the other order: the batch that it is given is the same
BACKWARDS = "outputs = model(images)", "labels = labels.flip(0); outputs = model(images.flip(0))"

IN_TORCH: dict[str, tuple[Pair, Plant]] = {
    **{
        f"{kind} with {how}=True, {pair}": (pair, torch_optimizer(kind, None, **{how: True}))
        for kind, pairs in {"SGD": (LINEAR, LINEAR32), "Adam": (ADAM, ADAM32, GROUPS)}.items()
        for pair in pairs
        for how in ("foreach", "fused")
    },
    "torch.compile": (RELU, built(compiled)),
    "loss added up backwards": (LINEAR, criterion(backward_sum)),
    "loss added up backwards in float32": (LINEAR32, criterion(backward_sum)),
    "loss in two halves": (LINEAR, criterion(in_halves)),
    "GRU written out": (GROUPS, forward(gru())),
    "samples backwards within the step": (DIGITS, rewritten("train", *BACKWARDS)),
    "bytes times 1 / 255": (DIGITS, rewritten("train", "/ 255", "* (1 / 255)")),
}


@pytest.mark.parametrize(("pair", "plant"), IN_TORCH.values(), ids=IN_TORCH)
def test_another_manner_in_torch(pair: Pair, plant: Plant, honest_jax: Honest) -> None:
    is_no_mismatch(honest_jax.compared(pair, torch=plant))


IN_JAX: dict[str, tuple[Pair, Plant]] = {
    "Adam written out": (ADAM, jax_adam()),
    # however small, none written out as multiply-and-sum
    "dots as matrix products": (RELU, replaced("_SMALL_DOT", lambda right: 0, home=linear)),
    "sum over number of samples": (
        LINEAR32,
        criterion(lambda output, y: jnp.sum((output - y) ** 2) / len(y)),
    ),
}


@pytest.mark.parametrize(("pair", "plant"), IN_JAX.values(), ids=IN_JAX)
def test_another_manner_in_jax(pair: Pair, plant: Plant) -> None:
    is_no_mismatch(compared(pair, jax=plant))
