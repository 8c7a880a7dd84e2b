"""The sets `layers` and `losses`: rows are judged, and what people write in their place is not
taken for PyTorch's."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import pytest
import torch

import twinstep
from twinstep.errors import InputError
from twinstep.jax import nn
from twinstep.jax.nn import functional
from twinstep.problems import SETS
from twinstep.problems.layers.row import Layer
from twinstep.problems.layers.training import LayerTraining, LossTraining

STEPS = 3  # of a planted fault, which shows in the first

# Every class of torch.nn has a row


LAZY = "Lazy"
NO_LAYERS = """
Buffer Container DataParallel LinearCrossEntropyOptions Module ModuleDict ModuleList NLLLoss2d
Parameter ParameterDict ParameterList RNNBase RNNCellBase SyncBatchNorm UninitializedBuffer
UninitializedParameter
"""


def kinds(layer: Layer) -> set[str]:
    """The classes of a row."""
    inner = [one for one in (*layer.args, *layer.options.values()) if isinstance(one, Layer)]
    return {layer.kind, *(kind for one in inner for kind in kinds(one))}


def test_every_class_has_a_row() -> None:
    """NLLLoss2d is another name; SyncBatchNorm needs other processes, and has its own tests."""
    tables = {**LayerTraining.rows(), **LossTraining.rows()}
    covered = {kind for row in tables.values() for kind in kinds(row.layer)}
    public = {
        name
        for name, value in vars(torch.nn).items()
        if isinstance(value, type) and not name.startswith(LAZY)
    }
    assert public - covered == {*NO_LAYERS.split()} & public


@pytest.mark.parametrize("kind", [LayerTraining, LossTraining])
def test_rows_have_names_and_the_parameters_of_pytorch(kind: Any) -> None:
    for name, row in kind.rows().items():
        layer: Any = row.layer.made(torch.nn)
        shapes = {leaf: tuple(array.shape) for leaf, array in layer.named_parameters()}
        assert shapes == dict(row.shapes), name


def test_an_unknown_row_is_refused() -> None:
    with pytest.raises(InputError, match=r"unknown layer 'Linear\(6, 4\)'"):
        LayerTraining(layer="Linear(6, 4)")


def test_sets_have_all_rows() -> None:
    for name, kind in (("layers", LayerTraining), ("losses", LossTraining)):
        specs = SETS[name](dtype="float64")
        assert [spec.name for spec in specs] == [*kind.rows()]


# What is the same


def verdict(name: str, steps: int = STEPS) -> Any:
    """What verify says of a row."""
    kind = LossTraining if name in LossTraining.rows() else LayerTraining
    return twinstep.verify(kind(layer=name, dtype="float64", steps=steps)).comparison


@pytest.mark.parametrize(
    "name", ["BatchNorm1d(6)", "Dropout(0.3)", "CrossEntropyLoss(ignore_index=2)"]
)
def test_a_row_is_the_same_in_both(name: str) -> None:
    assert verdict(name).verdict.same


@pytest.mark.slow
@pytest.mark.parametrize("name", [*LayerTraining.rows(), *LossTraining.rows()])
def test_every_row_is_the_same_in_both(name: str) -> None:
    comparison = verdict(name, steps=20)
    assert comparison.verdict.same, comparison.reason


# What is not


def settings(kind: str, **changed: Any) -> Callable[..., Any]:
    """The layer with other settings."""
    original = getattr(nn, kind)
    return lambda *args, **options: original(*args, **{**options, **changed})


def naive(kind: str, forward: Callable[..., Any]) -> Any:
    """The layer with another `forward`, which is given the layer, its own one and the inputs."""
    base = getattr(nn, kind)

    def changed(self: Any, *args: Any, **options: Any) -> Any:
        return forward(self, base.forward.__get__(self), *args, **options)

    return type(kind, (base,), {"forward": changed})


def biased(self: Any, forward: Any, x: jax.Array) -> jax.Array:
    """BatchNorm whose running variance is divided by N, as Flax's is."""
    y = forward(x)
    n = len(x)
    kept = 0.9 * jnp.ones(x.shape[1])  # one update from 1
    self.running_var[...] = kept + (self.running_var[...] - kept) * (n - 1) / n
    return y


def merged(self: Any, forward: Any, x: jax.Array) -> Any:
    """A GRU whose two biases are one, outside of the reset gate."""
    self.bias_ih_l0[...] = self.bias_ih_l0[...] + self.bias_hh_l0[...]
    self.bias_hh_l0[...] = jnp.zeros_like(self.bias_hh_l0[...])
    return forward(x)


def same_padding(self: Any, forward: Any, x: jax.Array) -> jax.Array:
    """A convolution with Flax's "SAME", which pads the end alone of an even size."""
    out = jax.lax.conv_general_dilated(
        x, self.weight[...], (2, 2), "SAME", feature_group_count=self.groups
    )
    return out + self.bias[...][:, None, None]


def first_gate_last(self: Any, forward: Any, x: jax.Array) -> Any:
    """An LSTM whose gates stand in another order."""
    for name in ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0"):
        held = getattr(self, name)
        held[...] = jnp.roll(held[...], 3, axis=0)
    return forward(x)


_attention = nn.MultiheadAttention


def one_head(width: int, heads: int, **options: Any) -> Any:
    """Attention that is not split."""
    return _attention(width, 1, **options)


def inverted(self: Any, forward: Any, *inputs: Any, attn_mask: Any) -> Any:
    """Attention whose mask has the other sign."""
    return forward(*inputs, attn_mask=-attn_mask)


PLANTS: dict[str, dict[str, Any]] = {
    "Linear(6, 3)": {
        "no bias": naive("Linear", lambda self, forward, x: forward(x) - self.bias[...]),
        "bias twice": naive("Linear", lambda self, forward, x: forward(x) + self.bias[...]),
        "few bits": naive(
            "Linear",
            lambda self, forward, x: forward(x.astype("float32").astype(x.dtype)),
        ),
    },
    "Embedding(7, 3, padding_idx=2)": {"padding": settings("Embedding", padding_idx=None)},
    "Embedding(7, 3, scale_grad_by_freq=True)": {
        "frequencies": settings("Embedding", scale_grad_by_freq=False)
    },
    "EmbeddingBag(7, 3, mode=mean)": {"mean": settings("EmbeddingBag", mode="sum")},
    "Conv2d(4, 6, 3, stride=2, padding=1, groups=2)": {"same": naive("Conv2d", same_padding)},
    "Conv2d(4, 3, 3)": {
        "transposed kernel": naive(
            "Conv2d",
            lambda self, forward, x: functional.conv2d(
                x, self.weight[...].swapaxes(2, 3), self.bias[...]
            ),
        ),
    },
    "ConvTranspose2d(4, 3, 3, stride=2, padding=1, output_padding=1)": {
        "flipped": naive(
            "ConvTranspose2d",
            lambda self, forward, x: functional.conv_transpose2d(
                x, self.weight[..., ::-1, ::-1], self.bias[...], 2, 1, 1
            ),
        ),
    },
    "GRU(4, 3)": {"merged bias": naive("GRU", merged)},
    "LSTM(4, 3)": {"order of gates": naive("LSTM", first_gate_last)},
    "RNN(4, 3)": {"relu": settings("RNN", nonlinearity="relu")},
    "BatchNorm1d(6)": {
        "momentum turned round": settings("BatchNorm1d", momentum=0.9),
        "eps": settings("BatchNorm1d", eps=1e-6),
        "biased variance": naive("BatchNorm1d", biased),
    },
    "LayerNorm(6)": {"eps": settings("LayerNorm", eps=1e-6)},
    "MultiheadAttention(6, 2, dropout=0.2)": {
        "inverted mask": naive("MultiheadAttention", inverted),
        "one head": one_head,
        "no dropout": settings("MultiheadAttention", dropout=0.0),
    },
    "GELU()": {"tanh": settings("GELU", approximate="tanh")},
    "LeakyReLU()": {"slope": settings("LeakyReLU", negative_slope=0.2)},
    "Softplus()": {"threshold": settings("Softplus", threshold=0.5)},
    "Dropout(0.3)": {
        "scaled twice": naive("Dropout", lambda self, forward, x: forward(x) / 0.7),
        "not scaled": naive("Dropout", lambda self, forward, x: forward(x) * 0.7),
        "another mask": naive("Dropout", lambda self, forward, x: forward(x[::-1])[::-1]),
    },
    "AvgPool2d(3, padding=1, count_include_pad=False)": {
        "padding counts": settings("AvgPool2d", count_include_pad=True)
    },
    "MaxPool2d(3, stride=2, padding=1, ceil_mode=True)": {
        "padded with zeros": naive(
            "MaxPool2d",
            lambda self, forward, x: functional.max_pool2d(
                jnp.pad(x, [(0, 0)] * 2 + [(1, 2)] * 2), 3, 2
            ),
        ),
    },
    "Upsample(size=(9, 4), mode=bilinear)": {"corners": settings("Upsample", align_corners=True)},
    "PixelShuffle(2)": {
        "order": naive("PixelShuffle", lambda self, forward, x: forward(x).swapaxes(2, 3))
    },
    "KLDivLoss(reduction=batchmean)": {"mean": settings("KLDivLoss", reduction="mean")},
    "CrossEntropyLoss(label_smoothing=0.2)": {
        "smoothing": settings("CrossEntropyLoss", label_smoothing=0.25)
    },
    "SmoothL1Loss(beta=0.3)": {"Huber": settings("SmoothL1Loss", beta=1.0)},
}
"""{row: {what is wrong: the class in the kit's place}}"""

EVERY = [(row, what) for row, plants in PLANTS.items() for what in plants]
SOME = [("BatchNorm1d(6)", "biased variance"), ("Dropout(0.3)", "scaled twice")]


def planted(row: str, what: str, patch: pytest.MonkeyPatch) -> Any:
    """What verify says of a row with a fault in it."""
    table = LossTraining.rows() if row in LossTraining.rows() else LayerTraining.rows()
    patch.setattr(nn, table[row].layer.kind, PLANTS[row][what])
    return verdict(row)


@pytest.mark.parametrize(("row", "what"), SOME)
def test_a_naive_layer_is_found(row: str, what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    comparison = planted(row, what, monkeypatch)
    assert comparison.verdict is twinstep.Verdict.MISMATCH
    assert comparison.first is not None
    stages = {"biased variance": "buffers"}
    assert (comparison.first.step, comparison.first.stage) == (1, stages.get(what, "loss"))


@pytest.mark.slow
@pytest.mark.parametrize(("row", "what"), EVERY)
def test_every_naive_layer_is_found(row: str, what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    comparison = planted(row, what, monkeypatch)
    assert comparison.verdict is twinstep.Verdict.MISMATCH, comparison.reason
