"""Losses, attention, transformers: what is refused, naive ports that are caught, trainings, masks,
and PyTorch's modules taken over. Values are compared in test_layers.
"""

import functools
import warnings
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch
from flax import nnx
from helpers.kit_parity import cast, leaves, mapped
from helpers.layer_parity import Layer, differences_of_layer, in_kit, in_pytorch, layers
from helpers.layers_sequence import (
    ANCHOR,
    CAUSAL,
    IMAGES,
    LABELS,
    LAYERS,
    NEGATIVE,
    POSITIVE,
    SRC,
    TGT,
)  # fmt: skip

from twinstep import InputError
from twinstep.jax import nn

pytestmark = [pytest.mark.quick_to_compile, pytest.mark.usefixtures("x64")]
F64: dict[str, Any] = {"dtype": torch.float64}
NAMES = sorted(
    {name for name in layers() if name.endswith("Loss")}
    | {"AdaptiveLogSoftmaxWithLoss", "MultiheadAttention"}
    | {name for name in layers() if name.startswith("Transformer")}
)


def tensors(value: Any) -> Any:
    return mapped(value, lambda _, v: torch.tensor(v) if isinstance(v, np.ndarray) else v)


def arrays(value: Any) -> Any:
    return mapped(value, lambda _, v: jnp.asarray(v) if isinstance(v, np.ndarray) else v)


REFUSED: dict[str, list[Layer]] = {
    "L1Loss": [Layer((), {"reduction": "avg"}, (SRC, SRC)), Layer((), {}, (SRC, SRC[:, :, :3]))],
    "MSELoss": [Layer((), {"reduction": "avg"}, (SRC, SRC))],
    "HuberLoss": [
        Layer((), {"delta": "1"}, (SRC, SRC)),
        Layer((), {"delta": 0.0}, (SRC, SRC)),
    ],
    "SmoothL1Loss": [Layer((), {"beta": -1.0}, (SRC, SRC))],
    "BCELoss": [Layer((), {}, (SRC, SRC)), Layer((), {}, (abs(SRC) / 9, SRC[0]))],
    "BCEWithLogitsLoss": [Layer((), {}, (SRC, SRC[0]))],
    "GaussianNLLLoss": [Layer((), {}, (SRC, SRC, -np.ones(4)))],
    "NLLLoss": [Layer((), {}, (IMAGES, LABELS + 3)), Layer((), {}, (IMAGES, LABELS[0]))],
    "CrossEntropyLoss": [
        Layer((), {"label_smoothing": 2.0}, (IMAGES, LABELS)),
        Layer((np.ones(2),), {}, (IMAGES, LABELS)),
    ],
    "LinearCrossEntropyLoss": [
        Layer((4, 3), {"weight": np.ones(2)}),
        Layer((4, 3), {"label_smoothing": 1.5}),
    ],
    "MultiMarginLoss": [Layer((3,)), Layer((), {"weight": np.ones((2, 2))})],
    "MultiLabelMarginLoss": [Layer((), {}, (SRC[0], np.full((2, 4), 4)))],
    "MarginRankingLoss": [Layer((), {}, (SRC, SRC, SRC[0]))],
    "CosineEmbeddingLoss": [Layer((), {}, (ANCHOR, POSITIVE, np.ones((6, 1))))],
    "TripletMarginLoss": [Layer((0.0,)), Layer((), {}, (ANCHOR, POSITIVE, NEGATIVE[0]))],
    "TripletMarginWithDistanceLoss": [Layer((), {"margin": -1.0})],
    "CTCLoss": [Layer((9,), {}, (SRC, np.ones((2, 2), int), (5, 5), (2, 2)))],
    "AdaptiveLogSoftmaxWithLoss": [
        Layer((4, 10, [])),
        Layer((4, 10, [5, 3])),
        Layer((4, 10, [3, 3])),
        Layer((4, 10, [0, 3])),
        Layer((4, 10, [3, 10])),
        Layer((4, 10, [2.5])),
        Layer((4, 10, [3], 2.0), {}, (SRC[:, 0], np.array([0, 1, 2, 3]))),
        Layer((4, 10, [3], 2.0), {}, (SRC[:, 0], np.array(1))),
        Layer((4, 10, [3], 2.0), {}, (SRC, np.zeros((5, 2), int))),
        Layer((4, 10, [3], 2.0), {}, (SRC[:, 0], np.array([0, 1, 2, 3, 10]))),
    ],
    "MultiheadAttention": [
        Layer((4, 3)),
        Layer((0, 1)),
        Layer((4, 0)),
        Layer((4, 2), {}, (TGT[..., :2], SRC, SRC)),
        Layer((4, 2), {}, (TGT, SRC, SRC), {"is_causal": True}),
        Layer((4, 2), {}, (TGT, SRC, SRC), {"attn_mask": CAUSAL}),
        Layer((4, 2), {}, (TGT, SRC, SRC), {"key_padding_mask": np.zeros((2, 4), bool)}),
        Layer((4, 2), {}, (TGT, SRC, SRC), {"key_padding_mask": np.zeros((2, 5), int)}),
        Layer((4, 2), {"dropout": 1.5}, (TGT, SRC, SRC)),
    ],
    "TransformerEncoderLayer": [
        Layer((4, 2), {"activation": "tanh"}),
        Layer((4, 3)),
        Layer((4, 2), {"dropout": 1.5}),
        Layer((4, 2), {}, (SRC[..., :3],)),
    ],
    "TransformerDecoderLayer": [
        Layer((4, 2), {"activation": "tanh"}),
        Layer((4, 2), {}, (TGT, SRC[:, :1])),
    ],
    "TransformerEncoder": [Layer((*LAYERS["TransformerEncoder"][0].args[:1], 0), {}, (SRC,))],
    "TransformerDecoder": [Layer((*LAYERS["TransformerDecoder"][0].args[:1], 0), {}, (TGT, SRC))],
    "Transformer": [
        Layer((4, 2, 1, 1, 6), {}, (SRC, TGT[:, :1])),
        Layer((4, 2, 1, 1, 6), {}, (SRC[..., :3], TGT)),
        Layer((4, 2, 1, 1, 6, 0.1, "tanh")),
    ],
}


@pytest.mark.parametrize(
    ("name", "row"),
    [pytest.param(n, r, id=f"{n}-{i}") for n, rows in REFUSED.items() for i, r in enumerate(rows)],
)
@pytest.mark.filterwarnings("ignore")
def test_what_pytorch_refuses_is_refused(name: str, row: Layer) -> None:
    def made_and_called(make: Callable[..., Any], of: Callable[..., Any]) -> None:
        module = make(name, row, "float64")
        if row.inputs:
            module(*of(row.inputs), **of(row.options))

    with pytest.raises((RuntimeError, ValueError, TypeError, AssertionError, IndexError)):
        made_and_called(in_pytorch, tensors)
    with pytest.raises(InputError) as caught:
        made_and_called(in_kit, arrays)
    assert "\n" not in str(caught.value)


@functools.cache
def errors() -> list[tuple[str, Any]]:
    """(class, an error input of PyTorch's own table)"""
    from torch.testing._internal.common_modules import module_db

    return [
        (info.module_cls.__name__, row.module_error_input)
        for info in module_db
        if info.module_cls.__name__ in NAMES and info.module_error_inputs_func is not None
        for row in info.module_error_inputs_func(
            info, device="cpu", dtype=torch.float64, requires_grad=False, training=True
        )
        if row.module_error_input.forward_input is not None
    ]


def ported(value: Any) -> Any:
    return mapped(value, lambda _, v: jnp.asarray(v) if isinstance(v, torch.Tensor) else v)


def test_what_pytorchs_table_refuses_is_refused() -> None:
    for name, row in errors():
        made, inputs = row.constructor_input, ported(list(row.forward_input.args))
        args = ported(list(made.args))
        kwargs = {k: v for k, v in ported(dict(made.kwargs)).items() if k not in F64}
        with pytest.raises(InputError):
            getattr(nn, name)(*args, **kwargs)(*inputs)


# ------------------------------------------------------------------------------- naive ports


class InvertedMask(nn.MultiheadAttention):
    """flax.nnx's polarity: True takes part."""

    def forward(self, query: Any, key: Any, value: Any, *_: Any, **kwargs: Any) -> Any:
        return super().forward(query, key, value, attn_mask=~kwargs["attn_mask"])


class DroppedAsItStands(nn.TransformerEncoderLayer):
    """A mask drawn over (N, S, E), where PyTorch's tensor lies as (S, N, E)."""

    def _attended(self, attention: Any, dropped: Any, x: Any, memory: Any, *masks: Any) -> Any:
        out = attention(x, memory, memory, key_padding_mask=masks[1], need_weights=False)[0]
        return dropped(out)


class MeanOverAll(nn.CrossEntropyLoss):
    """optax's mean, not divided by the classes' weights."""

    def forward(self, input: Any, target: Any) -> Any:
        each = optax.softmax_cross_entropy_with_integer_labels(jnp.moveaxis(input, 1, -1), target)
        return jnp.mean(each * self.weight[...][target])


class ByBatch(nn.KLDivLoss):
    """The divergence by its definition, where the mean is over all entries."""

    def forward(self, input: Any, target: Any) -> Any:
        return jnp.mean(optax.losses.kl_divergence(input, target))


class OptaxTriplet(nn.TripletMarginLoss):
    """eps added to the sum, not to each difference."""

    def forward(self, anchor: Any, positive: Any, negative: Any) -> Any:
        each = optax.losses.triplet_margin_loss(anchor, positive, negative, margin=self.margin)
        return jnp.mean(each)


PLAIN = Layer((), {}, (np.log(np.full((2, 4), 0.25)), np.full((2, 4), 0.25) + SRC[0] ** 2))
WEIGHTED = Layer((np.array([0.2, 1.0, 3.0]),), {}, (IMAGES, LABELS))
NAIVE: dict[str, tuple[str, Layer, Callable[..., Any]]] = {
    "InvertedMask": ("MultiheadAttention", LAYERS["MultiheadAttention"][3], InvertedMask),
    "DroppedAsItStands": (
        "TransformerEncoderLayer", LAYERS["TransformerEncoderLayer"][0], DroppedAsItStands,
    ),
    "FlaxsEps": (
        "TransformerEncoderLayer", LAYERS["TransformerEncoderLayer"][4],
 functools.partial(nn.TransformerEncoderLayer, layer_norm_eps=1e-6),
    ),
    "MeanOverAll": ("CrossEntropyLoss", WEIGHTED, MeanOverAll),
    "ByBatch": ("KLDivLoss", PLAIN, ByBatch),
    "OptaxTriplet": ("TripletMarginLoss", LAYERS["TripletMarginLoss"][0], OptaxTriplet),
}  # fmt: skip


@pytest.mark.parametrize("naive", NAIVE)
def test_a_naive_port_is_reported(naive: str) -> None:
    name, row, made = NAIVE[naive]

    def ours(kind: Callable[..., Any]) -> Any:
        nn.manual_seed(0)
        return kind(*arrays(row.args), **arrays(row.kwargs)).train(row.training)

    assert differences_of_layer(name, row, jit=False, ours=lambda: ours(made)) != []


# ------------------------------------------------------------------------------- from PyTorch


def outputs(value: Any) -> list[Any]:
    return [v for v in leaves(value).values() if v is not None]


@pytest.mark.parametrize("name", NAMES)
def test_a_module_of_pytorchs_is_taken_over(name: str) -> None:
    row = layers()[name][0]
    inputs, options = cast([list(row.inputs), dict(row.options)], "float64")
    theirs = in_pytorch(name, row, "float64")
    ours = nn.from_torch(theirs)
    torch.manual_seed(4)
    nn.manual_seed(4)
    with warnings.catch_warnings(action="ignore"):
        wanted = outputs(theirs(*tensors(inputs), **tensors(options)))
    found = outputs(ours(*arrays(inputs), **arrays(options)))
    for one, other in zip(found, wanted, strict=True):
        np.testing.assert_allclose(one, other.detach().numpy(), rtol=1e-12, atol=1e-13)


# ------------------------------------------------------------------------------- trainings


def classifier() -> torch.nn.Module:
    """A transformer of two layers, with dropout."""
    layer = torch.nn.TransformerEncoderLayer(8, 2, 16, 0.1, batch_first=True, **F64)
    encoder = torch.nn.TransformerEncoder(layer, 2, torch.nn.LayerNorm(8, **F64))
    return torch.nn.Sequential(torch.nn.Linear(4, 8, **F64), encoder, torch.nn.Linear(8, 3, **F64))


def ranker() -> torch.nn.Module:
    """A transformer whose norms come first, for numbers."""
    layer = torch.nn.TransformerEncoderLayer(
        8, 4, 8, 0.2, torch.nn.functional.gelu, norm_first=True, **F64
    )
    encoder = torch.nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)
    return torch.nn.Sequential(torch.nn.Linear(4, 8, **F64), encoder, torch.nn.Linear(8, 1, **F64))


WEIGHT = np.array([0.5, 1.0, 2.0])
NETS: dict[str, Any] = {
    "classifier": (
        classifier,
        lambda: torch.nn.CrossEntropyLoss(torch.tensor(WEIGHT), label_smoothing=0.1),
        (3, 2),
        lambda rng: rng.integers(0, 3, (5, 2)),
    ),
    "ranker": (
        ranker,
        lambda: torch.nn.SmoothL1Loss(beta=0.5),
        (5, 2, 1),
        lambda rng: rng.normal(size=(5, 2, 1)),
    ),
}


@nnx.jit
def step(net: Any, loss: Any, x: Any, y: Any) -> Any:
    """A step of SGD."""

    def of(net: Any) -> Any:
        return loss(jnp.moveaxis(net(x), -1, 1) if y.ndim == 2 else net(x), y)

    value, grads = nnx.value_and_grad(of)(net)
    moved = jax.tree.map(lambda p, g: p - 0.1 * g, nnx.state(net, nnx.Param), grads)
    nnx.update(net, moved)
    return value


@pytest.mark.parametrize("name", NETS)
@pytest.mark.filterwarnings("ignore:enable_nested_tensor")
def test_trainings_are_pytorchs(name: str) -> None:
    """20 steps, with PyTorch's masks, in a compiled step."""
    make, criterion, _, targets = NETS[name]
    torch.manual_seed(0)
    theirs, loss = make(), criterion()
    ours, our_loss = nn.from_torch(theirs), nn.from_torch(loss)
    rng = np.random.default_rng(1)
    optimizer = torch.optim.SGD(theirs.parameters(), 0.1)
    torch.manual_seed(2)
    nn.manual_seed(2)
    for _ in range(20):
        x, y = rng.normal(size=(5, 2, 4)), targets(rng)
        output = theirs(torch.tensor(x))
        output = output.movedim(-1, 1) if y.ndim == 2 else output
        optimizer.zero_grad()
        value = loss(output, torch.tensor(y))
        value.backward()
        optimizer.step()
        found = step(ours, our_loss, jnp.asarray(x), jnp.asarray(y))
        # the losses are near 1, and 20 steps of these nets keep what rounding adds near 1e-14
        assert abs(float(found) - value.item()) <= 1e-12
    for key, tensor in theirs.state_dict().items():
        np.testing.assert_allclose(nn.state_dict(ours)[key], tensor.numpy(), rtol=0, atol=1e-12)


# ------------------------------------------------------------------------------- masks, states


def test_weights_are_buffers() -> None:
    loss = nn.BCEWithLogitsLoss(jnp.ones(3), pos_weight=jnp.full(3, 2.0))
    assert list(nn.state_dict(loss)) == ["weight", "pos_weight"]
    assert list(nn.state_dict(nn.CrossEntropyLoss())) == []
    assert list(nn.CrossEntropyLoss(jnp.ones(3)).parameters()) == []


def test_copies_of_a_layer_draw_from_one_generator() -> None:
    """Else each of them would drop the same."""
    for given in ({"generator": nn.Generator(0)}, {"rngs": nnx.Rngs(0)}):
        layer = nn.TransformerEncoderLayer(4, 2, 8, **given)
        stack = nn.TransformerEncoder(layer, 2)
        one, two = stack.layers
        assert one.dropout.generator is two.dropout.generator
        assert one.linear1.weight is not two.linear1.weight
        x = jnp.ones((3, 4))
        assert not np.array_equal(one.dropout(x), two.dropout(x))


def test_padding_has_outputs_as_where_gradients_are_taken() -> None:
    """PyTorch's fast path gives 0 there; no gradients are taken in it."""
    row = LAYERS["TransformerEncoder"][0]._replace(training=False, kwargs={})
    theirs = in_pytorch("TransformerEncoder", row, "float64")
    inputs, options = tensors([list(row.inputs), dict(row.options)])
    with torch.no_grad(), warnings.catch_warnings(action="ignore"):
        fast = theirs(*inputs, **options).numpy()
    found = np.asarray(nn.from_torch(theirs)(*arrays(row.inputs), **arrays(row.options)))
    padding = row.options["src_key_padding_mask"]
    assert not fast[padding].any()
    assert found[padding].all()
    np.testing.assert_allclose(found[~padding], fast[~padding], rtol=1e-12, atol=1e-13)


def test_the_causal_mask() -> None:
    ours = nn.Transformer.generate_square_subsequent_mask(4)
    theirs = torch.nn.Transformer.generate_square_subsequent_mask(4, dtype=torch.float64)
    np.testing.assert_array_equal(ours, theirs.numpy())


def test_adaptive_log_softmax_predicts_as_pytorch() -> None:
    theirs = torch.nn.AdaptiveLogSoftmaxWithLoss(4, 12, [4, 7], 2.0, **F64)
    ours = nn.from_torch(theirs)
    x = np.random.default_rng(0).normal(size=(40, 4)) * 5
    for scale in (1.0, -1.0, 100.0):
        given = torch.tensor(x * scale)
        np.testing.assert_array_equal(ours.predict(x * scale), theirs.predict(given).numpy())
        np.testing.assert_allclose(
            ours.log_prob(jnp.asarray(x * scale)), theirs.log_prob(given).detach().numpy(), 1e-12
        )
    assert jnp.isnan(jax.jit(ours)(jnp.asarray(x), jnp.full(40, 12)).loss)


def test_a_custom_encoder_is_drawn_anew() -> None:
    """As all of a transformer's matrices are."""
    torch.manual_seed(0)
    encoder = torch.nn.Sequential(torch.nn.Linear(4, 4, **F64))
    theirs = torch.nn.Transformer(4, 2, 1, 1, 8, custom_encoder=encoder, **F64)
    nn.manual_seed(0)
    ours = nn.Transformer(4, 2, 1, 1, 8, custom_encoder=nn.Sequential(nn.Linear(4, 4)))
    for key, tensor in theirs.state_dict().items():
        np.testing.assert_array_equal(nn.state_dict(ours)[key], tensor.numpy())
