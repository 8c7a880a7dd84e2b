"""The vision transformer: what naive ports of it lead to."""

from typing import Any

import jax
import pytest
from faults.pairs import FaultyJax, Plant, Spot, pair, spot_of
from faults.plants_anywhere import replaced

from twinstep.jax import nn
from twinstep.problems.nets.vision_transformer import VisionTransformer


def with_tanh_gelu(right: Any) -> Any:
    """GELU as jax.nn has it where nothing is said."""

    class Tanh(right):
        def __init__(self, problem: VisionTransformer) -> None:
            super().__init__(problem)
            for layer in self.encoder.layers:
                layer.activation = jax.nn.gelu

    return Tanh


def with_flax_eps(right: Any) -> Any:
    """Norms with Flax's eps."""

    class Eps(right):
        def __init__(self, problem: VisionTransformer) -> None:
            super().__init__(problem)
            for module in self.modules():
                if isinstance(module, nn.LayerNorm):
                    module.eps = 1e-6

    return Eps


def with_optax_decay(right: Any) -> Any:
    """AdamW with the weight decay that optax has where nothing is said."""
    return lambda lr, weight_decay: right(lr=lr, weight_decay=1e-4)


LOSS = Spot(1, "loss", "loss")
NAIVE: dict[str, tuple[Plant, Spot]] = {
    "gelu": (replaced("ViT", with_tanh_gelu), LOSS),
    "eps": (replaced("ViT", with_flax_eps), LOSS),
    "decay": (replaced("adamw", with_optax_decay), Spot(1, "params", "class_token")),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", NAIVE)
def test_a_naive_port_is_found_out(name: str) -> None:
    plant, spot = NAIVE[name]
    comparison = FaultyJax().compared(pair(VisionTransformer.name, steps=3), [], plant)
    assert spot_of(comparison) == spot
