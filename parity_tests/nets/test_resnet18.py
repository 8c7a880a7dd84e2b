"""The residual network: its twins start and train alike, and naive ports are found out."""

import math
from typing import Any

import pytest
from faults.pairs import FaultyJax, Plant, pair
from faults.plants_anywhere import replaced
from helpers.whole_models import APART, furthest, starts_where_pytorch_does

from twinstep.jax import nn
from twinstep.jax.nn.functional import batch_norms
from twinstep.problems.nets.resnet18 import ResNet18


def spec(**settings: Any) -> ResNet18:
    return ResNet18(dtype="float64", **settings)


@pytest.mark.parametrize("settings", [{}, {"seed": 1, "width": 2}])
def test_it_starts_where_pytorch_does(settings: dict[str, int]) -> None:
    assert starts_where_pytorch_does(spec(**settings))


@pytest.mark.slow
def test_both_train_the_same() -> None:
    assert furthest(spec(steps=3)) < APART


# Naive ports


def with_norms(**settings: float) -> Plant:
    """Every batch norm with other settings."""

    def wrong(right: Any) -> Any:
        class Other(right):
            def __init__(self, width: int) -> None:
                super().__init__(width)
                for module in self.modules():
                    for name, value in (
                        settings.items() if isinstance(module, nn.BatchNorm2d) else ()
                    ):
                        setattr(module, name, value)

        return Other

    return replaced("ResNet", wrong)


def biased(right: Any) -> Any:
    """Running variances of a batch's own divided by N, as Flax has them, not by N - 1."""

    def update(x: Any, axes: tuple[int, ...], mean: Any, var: Any, momentum: float) -> None:
        kept = (1 - momentum) * var[...]
        right(x, axes, mean, var, momentum)
        count = math.prod(x.shape[axis] for axis in axes)
        var[...] = kept + (var[...] - kept) * ((count - 1) / count)

    return update


NAIVE: dict[str, tuple[Plant, str]] = {
    "eps": (with_norms(eps=1e-3), "loss"),
    "momentum": (with_norms(momentum=0.9), "buffers"),
    "biased": (replaced("_update", biased, home=batch_norms), "buffers"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", NAIVE)
def test_a_naive_port_is_found_out(name: str) -> None:
    plant, stage = NAIVE[name]
    comparison = FaultyJax().compared(pair(ResNet18.name, width=2, steps=1), [], plant)
    assert comparison.first is not None
    assert (comparison.first.step, comparison.first.stage) == (1, stage)
    assert comparison.worst["gate"][stage].ratio > 1e6  # running means of honest twins: 2
