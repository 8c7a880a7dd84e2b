"""The LSTM that learns to count: what a naive port of it leads to."""

from typing import Any

import jax
import pytest
from faults.pairs import FaultyJax, Plant, Spot, pair, spot_of
from faults.plants_anywhere import replaced

from twinstep.problems.nets.lstm_language_model import LstmLanguageModel


def masked_as_its_axes_are(right: Any) -> Any:
    """The last mask is drawn sample by sample: PyTorch's output lies time step by time step."""

    class Masked(right):
        def forward(self, tokens: Any) -> Any:
            output, _ = self.lstm(self.drop(self.encoder(tokens)))
            return self.decoder(self.drop(output))

    return Masked


def with_one_bias(right: Any) -> Any:
    """Both biases of a layer are one: what PyTorch moves twice moves once."""

    class OneBias(right):
        def forward(self, tokens: Any) -> Any:
            for layer in range(self.lstm.num_layers):
                bias = getattr(self.lstm, f"bias_hh_l{layer}")
                bias[...] = jax.lax.stop_gradient(bias[...])
            return super().forward(tokens)

    return OneBias


NAIVE: dict[str, tuple[Plant, Spot]] = {
    "mask": (replaced("RNNModel", masked_as_its_axes_are), Spot(1, "loss", "loss")),
    "bias": (replaced("RNNModel", with_one_bias), Spot(1, "raw_grads", "lstm.bias_hh_l0")),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", NAIVE)
def test_a_naive_port_is_found_out(name: str) -> None:
    plant, spot = NAIVE[name]
    comparison = FaultyJax().compared(pair(LstmLanguageModel.name, steps=3), [], plant)
    assert spot_of(comparison) == spot
