"""The kit's activations, norms, dropouts, tables and distances: what PyTorch refuses, trainings,
masks in compiled steps, batch norm over a mapped axis.

Their outputs and gradients are compared in test_layers.py.
"""

import copy
import warnings
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx
from helpers.layer_parity import Layer, differences_of_layer, layers
from helpers.layers_pointwise import FLAT, IDS, LAYERS, OFFSETS, X1, X2, X3, drawn

from twinstep import InputError, TorchGenerator
from twinstep.jax import nn
from twinstep.jax.nn.functional.taking_in import value_of

pytestmark = pytest.mark.quick_to_compile

TRAINED = 1e-12
"""Allowed of parameters of size 1 after 20 steps, of which each adds about an eps."""

# ------------------------------------------------------------------------------ what is refused

ONE = drawn(1, 3)
MADE: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = [
    *[(n, (p,), {}) for n in LAYERS if "Dropout" in n for p in (-0.1, 1.5, "much")],
    ("GroupNorm", (3, 4), {}),
    ("GroupNorm", (0, 4), {}),
    ("Embedding", (3, 2, 3), {}),
    ("Embedding", (3, 2, -4), {}),
    ("Embedding", (-1, 2), {}),
    ("Embedding", (3, 2), {"_weight": drawn(2, 3)}),
    ("EmbeddingBag", (3, 2), {"padding_idx": 3}),
    ("EmbeddingBag", (3, 2), {"_weight": drawn(2, 3)}),
    ("LayerNorm", (-1,), {}),
    ("LayerNorm", (2.5,), {}),
    ("RMSNorm", ("a",), {}),
    ("PReLU", (-1,), {}),
    ("BatchNorm1d", (-1,), {}),
    ("InstanceNorm2d", (1.5,), {"affine": True}),
    ("Bilinear", (0, 2, 3), {}),
    ("Bilinear", (2, 2, -3), {}),
    ("Hardtanh", (1.0, 1.0), {}),
]
CALLED: list[tuple[str, tuple[Any, ...], dict[str, Any], tuple[Any, ...]]] = [
    ("BatchNorm1d", (3,), {}, (X2,)),
    ("BatchNorm1d", (3,), {}, (ONE,)),
    ("BatchNorm1d", (4,), {}, (X1,)),
    ("BatchNorm1d", (4,), {"affine": False}, (X1,)),
    ("BatchNorm2d", (3,), {}, (X1,)),
    ("BatchNorm3d", (3,), {}, (X2,)),
    ("BatchNorm2d", (3,), {}, (X2 + 1j,)),
    ("SyncBatchNorm", (3,), {}, (X1[0, 0],)),
    ("SyncBatchNorm", (3,), {}, (ONE,)),
    ("SyncBatchNorm", (0,), {}, (X1[:, :0],)),
    ("InstanceNorm1d", (3,), {}, (X2,)),
    ("InstanceNorm1d", (3,), {}, (X1[..., :1],)),
    ("InstanceNorm1d", (5,), {"affine": True}, (X1,)),
    ("InstanceNorm2d", (3,), {}, (X3,)),
    ("InstanceNorm3d", (3,), {}, (X2[0],)),
    ("LayerNorm", (4,), {}, (X1,)),
    ("LayerNorm", ((),), {}, (X1,)),
    ("RMSNorm", ((2, 5),), {}, (X1,)),
    ("GroupNorm", (3, 6), {}, (X1,)),
    ("LocalResponseNorm", (0,), {}, (X1,)),
    ("LocalResponseNorm", (2,), {}, (ONE,)),
    ("CrossMapLRN2d", (0,), {}, (X2,)),
    ("CrossMapLRN2d", (3,), {}, (X1,)),
    ("CrossMapLRN2d", (3,), {}, (X2[:, :0],)),
    ("Dropout", (), {}, (np.arange(3),)),
    ("Dropout1d", (), {}, (X2,)),
    ("Dropout2d", (), {}, (X1[0, 0],)),
    ("FeatureAlphaDropout", (), {}, (X1[0, 0],)),
    ("RReLU", (0.5, 0.25), {}, (X1,)),
    ("Embedding", (3, 2), {}, (IDS,)),
    ("Embedding", (5, 2), {}, (X1,)),
    ("EmbeddingBag", (5, 2), {"mode": "median"}, (IDS,)),
    ("EmbeddingBag", (5, 2), {}, (FLAT,)),
    ("EmbeddingBag", (5, 2), {}, (FLAT, OFFSETS[::-1].copy())),
    ("EmbeddingBag", (5, 2), {}, (FLAT, OFFSETS, drawn(7))),
    ("Bilinear", (3, 2, 5), {}, (drawn(4, 3), drawn(4, 3))),
    ("Bilinear", (3, 2, 5), {}, (drawn(4, 3), drawn(5, 2))),
    ("CosineSimilarity", (9,), {}, (X1, X1)),
    ("CosineSimilarity", (), {}, (X1, drawn(2, 2))),
    ("PairwiseDistance", (), {}, (X1, drawn(2, 2))),
    ("PReLU", (4,), {}, (X1,)),
    ("Softmax2d", (), {}, (ONE,)),
    ("Softmax", (3,), {}, (X1,)),
    ("LogSoftmax", (0,), {}, (np.arange(3),)),
    ("Softmin", (-4,), {}, (X1,)),
    ("GLU", (), {}, (X1,)),
    ("GELU", ("exact",), {}, (X1,)),
    ("CELU", (0.0,), {}, (X1,)),
    ("Softshrink", (-1.0,), {}, (X1,)),
]


REFUSED = RuntimeError, ValueError, TypeError, AssertionError, ArithmeticError, IndexError


def _torch(values: Any) -> Any:
    return torch.tensor(values) if isinstance(values, np.ndarray) else values


def _jax(values: Any) -> Any:
    return jnp.asarray(values) if isinstance(values, np.ndarray) else values


def _refused(name: str, args: Any, kwargs: Any, inputs: Any = None) -> None:
    """By both, as one line of ours that names the layer or its function."""

    def called(home: Any, ported: Callable[[Any], Any]) -> None:
        made = getattr(home, name)(*args, **{k: ported(v) for k, v in kwargs.items()})
        if inputs is not None:
            made(*map(ported, inputs))

    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with pytest.raises(REFUSED):
                called(torch.nn, _torch)
            with jax.enable_x64(True), pytest.raises(InputError) as ours:
                called(nn, _jax)
    finally:
        torch.set_default_dtype(before)
    assert "\n" not in str(ours.value)


@pytest.mark.parametrize(("name", "args", "kwargs"), MADE)
def test_what_pytorch_does_not_make_is_refused(name: str, args: Any, kwargs: Any) -> None:
    _refused(name, args, kwargs)


@pytest.mark.parametrize(("name", "args", "kwargs", "inputs"), CALLED)
def test_what_pytorch_does_not_take_is_refused(
    name: str, args: Any, kwargs: Any, inputs: Any
) -> None:
    _refused(name, args, kwargs, inputs)


def _of_pytorch() -> list[Any]:
    """(name, args, kwargs, inputs or None) of what module_db says is refused."""
    from torch.testing._internal.common_modules import ModuleErrorEnum, module_db

    found = []
    for info in module_db:
        name = info.module_cls.__name__
        if name not in LAYERS or not info.module_error_inputs_func:
            continue
        for row in info.module_error_inputs_func(
            info, device="cpu", dtype=torch.float64, requires_grad=False, training=True
        ):
            given = row.module_error_input
            made, called = given.constructor_input, given.forward_input
            whole = row.error_on is not ModuleErrorEnum.CONSTRUCTION_ERROR
            inputs = [x.detach().numpy() for x in called.args] if whole else None
            found.append(pytest.param(name, made.args, made.kwargs, inputs))
    return found


@pytest.mark.parametrize(("name", "args", "kwargs", "inputs"), _of_pytorch())
def test_what_pytorchs_table_refuses_is_refused(
    name: str, args: Any, kwargs: Any, inputs: Any
) -> None:
    _refused(name, args, kwargs, inputs)


def test_a_gradient_that_pytorch_has_not_is_refused() -> None:
    total = torch.nn.CrossMapLRN2d(1)(torch.ones(1, 2, 1, 1, requires_grad=True)).sum()
    with pytest.raises(RuntimeError, match="exceeds dimension size"):
        total.backward()
    with pytest.raises(InputError, match="CrossMapLRN2d: size is 1"):
        jax.grad(lambda x: nn.CrossMapLRN2d(1)(x).sum())(jnp.ones((1, 2, 1, 1)))


def test_old_names_are_warned_of() -> None:
    with pytest.warns(FutureWarning, match="min_value is now min_val"):
        layer = nn.Hardtanh(min_value=-3.0, max_val=2.0)
    assert layer(jnp.array([-4.0, 3.0])).tolist() == [-3.0, 2.0]
    with pytest.warns(UserWarning, match="expected 4 channels"):
        nn.InstanceNorm1d(4)(jnp.ones((2, 3, 5)))


# ------------------------------------------------------------------------------ naive ports


class BiasedBatchNorm(nn.BatchNorm1d):
    """As Flax's: the running variance is divided by N."""

    def forward(self, input: Any) -> Any:
        old = self.running_var[...]
        output = super().forward(input)
        self.running_var[...] = old + (jnp.var(input, (0, 2)) - old) * self.momentum
        return output


class FlaxEmbedding(nn.Embedding):
    """Of whose options nnx.Embed has none."""

    def forward(self, input: Any) -> Any:
        return self.weight[...][input]


class OtherMask(nn.Dropout1d):
    """An entry's own."""

    def forward(self, input: Any) -> Any:
        return nn.functional.dropout(input, self.p, self.training, generator=self.generator)


class LateNorm(nn.LayerNorm):
    """With the eps of flax.nnx."""

    def forward(self, input: Any) -> Any:
        weight, bias = value_of(self.weight), value_of(self.bias)
        return nn.functional.layer_norm(input, self.normalized_shape, weight, bias, 1e-6)


class PlainNorm(nn.CrossMapLRN2d):
    """What its name promises."""

    def forward(self, input: Any) -> Any:
        return nn.functional.local_response_norm(input, self.size, self.alpha, self.beta, self.k)


NAIVE: dict[str, tuple[str, Layer, Callable[[], Any]]] = {
    "biased": ("BatchNorm1d", Layer((3,), {}, (X1,)), lambda: BiasedBatchNorm(3)),
    "no padding": (
        "Embedding", Layer((5, 3, 3), {}, (IDS,)), lambda: FlaxEmbedding(5, 3, 3)
    ),
    "no max_norm": (
        "Embedding",
        Layer((5, 3), {"max_norm": 0.5}, (IDS,)),
        lambda: FlaxEmbedding(5, 3, max_norm=0.5),
    ),
    "mask": ("Dropout1d", Layer((), {}, (X1,)), OtherMask),
    "seed": ("Dropout", Layer((), {}, (X1,)), lambda: nn.Dropout(generator=TorchGenerator(1))),
    "tanh": ("GELU", Layer((), {}, (X1,)), lambda: nn.GELU("tanh")),
    "eps": ("LayerNorm", Layer((5,), {}, (X1,)), lambda: LateNorm(5)),
    "window": (
        "CrossMapLRN2d", Layer((3, 0.5), {}, (drawn(2, 7, 3, 2),)), lambda: PlainNorm(3, 0.5)
    ),
    "axis": ("Softmax", Layer((1,), {}, (X1,)), lambda: nn.Softmax(-1)),
}  # fmt: skip


@pytest.mark.parametrize("name", NAIVE)
def test_a_naive_port_is_reported(name: str) -> None:
    kind, layer, naive = NAIVE[name]
    assert differences_of_layer(kind, layer, jit=False, ours=naive)


# ------------------------------------------------------------------------------ trainings


def _table_net(home: Any) -> list[Any]:
    """(N, L) numbers of rows to (N, 3)."""
    return [
        home.Embedding(11, 6, 2, 1.5, scale_grad_by_freq=True),  # (N, 4, 6)
        home.LayerNorm(6),
        home.Linear(6, 8),
        home.GELU(),
        home.BatchNorm1d(4),
        home.Dropout1d(0.3),
        home.PReLU(4),
        home.AlphaDropout(0.1),
        home.RMSNorm((4, 8)),
        home.GLU(1),
        home.Linear(8, 3),
        home.RReLU(),
        home.LogSoftmax(-1),
    ]


def _norm_net(home: Any) -> list[Any]:
    """(N, 6, 3, 2) to the same."""
    return [
        home.InstanceNorm2d(6, affine=True, track_running_stats=True),
        home.BatchNorm2d(6, momentum=None),
        home.Hardswish(),
        home.GroupNorm(3, 6),
        home.Dropout2d(0.4),
        home.CrossMapLRN2d(3, 0.5),
        home.LocalResponseNorm(2),
        home.SELU(),
        home.FeatureAlphaDropout(0.2),
        home.SyncBatchNorm(6),
        home.Mish(),
        home.Dropout(0.2),
    ]


NETS: dict[str, tuple[Callable[[Any], list[Any]], Any]] = {
    "table": (_table_net, lambda i: np.random.default_rng(i).integers(0, 11, (5, 4))),
    "norms": (_norm_net, lambda i: drawn(5, 6, 3, 2, seed=i)),
}


@pytest.mark.parametrize("jit", [False, pytest.param(True, marks=pytest.mark.slow)])
@pytest.mark.parametrize("net", NETS)
def test_twenty_steps_are_pytorchs(net: str, jit: bool) -> None:
    """With what they draw: first values and masks come from the same seed."""
    made, batch = NETS[net]
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    with jax.enable_x64(True):
        torch.manual_seed(3)
        theirs = torch.nn.Sequential(*made(torch.nn))
        nn.manual_seed(3)
        ours = nn.Sequential(*made(nn))

        def step(model: Any, x: Any) -> Any:
            def loss_of(model: Any) -> Any:
                return jnp.mean(model(x) ** 2 * jnp.arange(1.0, 4)[: x.shape[-1], None].mean())

            loss, grads = nnx.value_and_grad(loss_of)(model)
            params = nnx.state(model, nnx.Param)
            nnx.update(model, jax.tree.map(lambda p, g: p - 0.1 * g, params, grads))
            return loss

        ours_step = nnx.jit(step) if jit else step
        optimizer = torch.optim.SGD(theirs.parameters(), lr=0.1)
        for i in range(20):
            x = batch(i)
            scale = np.arange(1.0, 4)[: x.shape[-1]].mean()
            optimizer.zero_grad()
            loss = (theirs(torch.tensor(x)) ** 2 * scale).mean()
            loss.backward()
            optimizer.step()
            found = ours_step(ours, jnp.asarray(x))
            assert abs(float(found) - loss.item()) <= TRAINED * abs(loss.item())
        mine = nn.state_dict(ours)
        for name, tensor in theirs.state_dict().items():
            gap = np.max(np.abs(np.asarray(mine[name]) - tensor.numpy()), initial=0.0)
            assert gap <= TRAINED * max(1.0, float(tensor.abs().max())), name
    torch.set_default_dtype(before)


# ------------------------------------------------------------------------------ from_torch

NAMES = sorted(LAYERS)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_from_torch_gives_the_same_layer(name: str) -> None:
    """With its settings, weights and buffers, and not in training, as it was."""
    for layer in layers()[name][:1]:
        kwargs = {k: _torch(v) for k, v in layer.kwargs.items()}
        theirs = getattr(torch.nn, name)(*layer.args, **kwargs).double().eval()
        with torch.no_grad():
            for tensor in [*theirs.parameters(), *theirs.buffers()]:
                if tensor.is_floating_point():
                    tensor.copy_(torch.linspace(0.5, 1.5, tensor.numel()).reshape(tensor.shape))
        options = {k: _torch(v) for k, v in layer.options.items()}
        wanted = theirs(*map(_torch, layer.inputs), **options).detach().numpy()
        with jax.enable_x64(True):
            ours = nn.from_torch(theirs)
            assert type(ours) is getattr(nn, name)
            assert ours.training is False
            options = {k: _jax(v) for k, v in layer.options.items()}
            found = ours(*map(_jax, layer.inputs), **options)
        np.testing.assert_allclose(found, wanted, rtol=1e-12, atol=1e-12)  # inputs are up to 100


def test_a_state_dict_of_batch_norm_is_taken_without_x64() -> None:
    """PyTorch counts its batches in int64, which JAX has not then."""
    theirs = torch.nn.BatchNorm1d(3)
    theirs(torch.ones(2, 3))
    layer = nn.BatchNorm1d(3)
    nn.load_state_dict(layer, {k: v.numpy() for k, v in theirs.state_dict().items()})
    assert int(layer.num_batches_tracked[...]) == 1
    wide = {k: v.numpy() for k, v in copy.deepcopy(theirs).double().state_dict().items()}
    with pytest.raises(InputError, match="float64, expected float32"):
        nn.load_state_dict(layer, wide)


# ------------------------------------------------------------------------------ masks in steps
