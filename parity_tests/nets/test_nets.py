"""The whole models: PyTorch's own first values and numbers, the same training in both."""

from typing import Any

import numpy as np
import pytest
import torch

import twinstep
from twinstep.errors import InputError
from twinstep.judge.structure import pairs, structure
from twinstep.problems import MODELS
from twinstep.runs import launch

STEPS = 3  # fifty are slow
FEW = ("mnist_convnet", "resnet18")  # with numbers that are drawn, with buffers
BOUND = 1e-11  # of the largest entry, after fifty steps

every_model = pytest.mark.parametrize("name", MODELS)


@pytest.fixture
def _float64() -> Any:
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


@every_model
@pytest.mark.usefixtures("_float64")
def test_first_values_are_what_pytorch_draws(name: str) -> None:
    """And its generator stands then where the training's is."""
    spec = MODELS[name](dtype="float64", seed=3)
    torch.manual_seed(spec.seed)
    model = launch.example("torch", spec).build(spec)[0]
    drawn = {name: parameter.detach().numpy() for name, parameter in model.named_parameters()}
    assert drawn.keys() == spec.initial_params().keys()
    for leaf, array in spec.initial_params().items():
        assert np.array_equal(drawn[leaf], array), leaf
    assert torch.get_rng_state().numpy().tobytes() == spec.generator().get_state().tobytes()


def apart(spec: Any) -> dict[str, float]:
    """{"stage/leaf": how far both sides are apart}, of the leaf's largest entry, where it is.

    What has no gradient but for rounding, as the biases of attention's keys, is left to the judge:
    Adam, which divides by the root of its square, makes steps of what is rounded.
    """
    torch_side, jax_side = (
        twinstep.run(spec, framework=framework, rounding_noise=False)
        for framework in ("torch", "jax")
    )
    assert structure(torch_side, jax_side) is None
    found = {}
    for stage, leaf, array, other in pairs(torch_side, jax_side):
        if array.dtype.kind == "f":
            counted = moved(torch_side.raw_grads[leaf]) if stage == "params" else True
            differences = np.abs(array - other) * counted
            gap = np.max(differences, initial=0) / (np.max(np.abs(array), initial=0) or 1)
        else:
            gap = float(not np.array_equal(array, other))
        found[f"{stage}/{leaf}"] = float(gap)
    outputs = [side.evaluation.get("outputs", np.zeros(1)) for side in (torch_side, jax_side)]
    found["evaluation"] = float(np.max(np.abs(outputs[0] - outputs[1])))
    return found


def moved(grads: np.ndarray) -> np.ndarray:
    """Of which entries the gradient is more than rounding. grads: (T, ...)"""
    largest = np.max(np.abs(grads), axis=0)
    return largest > 1e-13 * np.max(largest, initial=0)


@pytest.mark.parametrize(
    "name", [name if name in FEW else pytest.param(name, marks=pytest.mark.slow) for name in MODELS]
)
def test_steps_are_the_same(name: str) -> None:
    found = apart(MODELS[name](dtype="float64", steps=STEPS))
    assert {leaf: gap for leaf, gap in found.items() if gap > BOUND} == {}
    assert ("rng/torch" in found) is MODELS[name].draws


@pytest.mark.slow
@every_model
def test_fifty_steps_are_the_same(name: str) -> None:
    found = apart(MODELS[name](dtype="float64"))
    assert {leaf: gap for leaf, gap in found.items() if gap > BOUND} == {}


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float64", "float32"])
@every_model
def test_verify_says_so(name: str, dtype: Any) -> None:
    kind = MODELS[name]
    if kind.float64_alone and dtype == "float32":
        with pytest.raises(InputError, match="in which PyTorch draws other numbers"):
            twinstep.verify(kind(dtype=dtype))
        return
    comparison = twinstep.verify(kind(dtype=dtype)).comparison
    assert comparison.verdict.same, comparison.reason


def test_pytorchs_own_replay_draws_what_was_drawn() -> None:
    """It measures float32 where JAX's float64 program is in doubt."""
    spec = MODELS["mnist_convnet"](dtype="float64", steps=STEPS)
    recorded = twinstep.run(spec, framework="torch")
    replay = launch.replay(spec, framework="torch")
    replay.load(recorded, next(spec.chunks()))
    made, _ = replay.replay_rows(np.array([2, 0]))
    assert made["loss"].tolist() == recorded.losses[[2, 0]].tolist()
