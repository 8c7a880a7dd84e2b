"""The variational autoencoder: its twins start and train alike, and naive ports are found out."""

from typing import Any

import jax
import jax.numpy as jnp
import pytest
from faults.pairs import FaultyJax, Plant, pair, spot_of
from faults.plants_anywhere import replaced
from helpers.whole_models import APART, furthest, starts_where_pytorch_does

from twinstep.problems.nets.vae import VariationalAutoencoder


def spec(**settings: Any) -> VariationalAutoencoder:
    return VariationalAutoencoder(dtype="float64", **settings)


@pytest.mark.parametrize("seed", [0, 1])
def test_it_starts_where_pytorch_does(seed: int) -> None:
    assert starts_where_pytorch_does(spec(seed=seed))


@pytest.mark.quick_to_compile
@pytest.mark.parametrize("steps", [3, pytest.param(50, marks=pytest.mark.slow)])
def test_both_train_the_same(steps: int) -> None:
    assert furthest(spec(steps=steps)) < APART


# Naive ports


def without_the_half(right: Any) -> Any:
    """The variance taken for the standard deviation."""

    class Variance(right):
        def draw(self, mean: Any, log_variance: Any) -> Any:
            std = jnp.exp(log_variance)
            return mean + self.generator.randn(*std.shape) * std

    return Variance


def with_one_key(right: Any) -> Any:
    """The same numbers in every step, by a key that is never split."""

    class Key(right):
        def draw(self, mean: Any, log_variance: Any) -> Any:
            std = jnp.exp(0.5 * log_variance)
            return mean + jax.random.normal(jax.random.key(0), std.shape) * std

    return Key


def with_mean(right: Any) -> Any:
    """The divergence as a mean, as most losses are."""

    def criterion(output: Any, images: Any, mean: Any, log_variance: Any) -> Any:
        whole, none = right(output, images, mean, log_variance), jnp.zeros_like(mean)
        reconstruction = right(output, images, none, none)  # a divergence of 0
        return reconstruction + (whole - reconstruction) / mean.size

    return criterion


def with_eps(right: Any) -> Any:
    """Adam with another eps."""
    return lambda lr: right(lr=lr, eps=1e-7)


NAIVE: dict[str, tuple[Plant, str]] = {
    "variance for deviation": (replaced("VAE", without_the_half), "loss"),
    "one key": (replaced("VAE", with_one_key), "loss"),
    "mean for sum": (replaced("criterion", with_mean), "loss"),
    "eps": (replaced("adam", with_eps), "params"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", NAIVE)
def test_a_naive_port_is_found_out(name: str) -> None:
    plant, stage = NAIVE[name]
    found = spot_of(FaultyJax().compared(pair(VariationalAutoencoder.name, steps=3), [], plant))
    assert found is not None
    assert (found.step, found.stage) == (1, stage)
