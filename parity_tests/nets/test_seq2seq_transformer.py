"""The transformer that translates: what it is trained on, what naive ports of it lead to."""

from typing import Any

import jax.numpy as jnp
import optax
import pytest
from faults.pairs import FaultyJax, Plant, Spot, pair, spot_of
from faults.plants_anywhere import replaced

from twinstep.jax import nn
from twinstep.problems.nets.seq2seq_transformer import (
    END,
    PAD,
    START,
    Seq2SeqTransformer,
    translations,
)


def test_what_it_translates() -> None:
    data, problem = translations(), Seq2SeqTransformer()
    source, target = data["source"], data["target"]
    assert source[[7, 342]].tolist() == [[8, PAD, PAD], [4, 5, 3]]
    assert target[7].tolist() == [START, target[7, 1], END, PAD, PAD, PAD]
    assert target[342, 4] == target[2, 1] != target[3, 1]
    assert {*source.flat} == {*range(problem.source_tokens)}
    assert {*target.flat} == {*range(problem.target_tokens)}
    assert problem.longest == target.shape[1] - 1


def with_masks_of_flax(right: Any) -> Any:
    """True in the source's mask is what may be looked at."""

    class Turned(right):
        def forward(self, source: Any, target: Any, **masks: Any) -> Any:
            for name in ("src_key_padding_mask", "memory_key_padding_mask"):
                masks[name] = ~masks[name]
            return super().forward(source, target, **masks)

    return Turned


def over_all_tokens(right: Any) -> Any:
    """Padding adds nothing to the loss, and is counted where the mean is taken."""

    def loss(logits: Any, words: Any) -> Any:
        each = optax.softmax_cross_entropy_with_integer_labels(logits, words)
        return jnp.mean(each * (words != PAD))

    return loss


def with_optax_eps(right: Any) -> Any:
    """Adam with the eps that optax has where nothing is said."""
    return lambda lr, betas, eps: right(lr=lr, betas=betas, eps=1e-8)


LOSS = Spot(1, "loss", "loss")
FIRST = "transformer.encoder.layers.0.self_attn.in_proj_weight"
NAIVE: dict[str, tuple[Plant, Spot]] = {
    "mask": (replaced("Transformer", with_masks_of_flax, home=nn), LOSS),
    "mean": (replaced("translation_loss", over_all_tokens), LOSS),
    "eps": (replaced("adam", with_optax_eps), Spot(1, "params", FIRST)),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", NAIVE)
def test_a_naive_port_is_found_out(name: str) -> None:
    plant, spot = NAIVE[name]
    comparison = FaultyJax().compared(pair(Seq2SeqTransformer.name, steps=3), [], plant)
    assert spot_of(comparison) == spot
