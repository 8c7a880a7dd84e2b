"""Convolutions, pools, paddings and moves, beside what the tables of `test_layers.py` hold."""

from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx
from helpers.kit_parity import mapped
from helpers.layer_parity import Layer, differences_of_layer, in_pytorch
from helpers.layers_spatial import LAYERS, drawn

from twinstep import InputError, TorchGenerator
from twinstep.jax import nn

# Refusals

X1, X2, X3 = drawn(2, 4, 9), drawn(2, 4, 7, 6), drawn(2, 4, 6, 5, 7)
pytestmark = pytest.mark.quick_to_compile

PLACES = np.zeros((2, 4, 9), int)
REFUSED: list[tuple[str, tuple[Any, ...], dict[str, Any], tuple[Any, ...]]] = [
    ("Conv1d", (4, 6, 3), {"groups": 0}, ()),
    ("Conv1d", (4, 6, 3), {"groups": 4}, ()),
    ("Conv1d", (3, 6, 3), {"groups": 2}, ()),
    ("Conv2d", (4, 6, 3), {"padding": "full"}, ()),
    ("Conv2d", (4, 6, 3, (1, 2), "same"), {}, ()),
    ("Conv2d", (4, 6, 3), {"padding_mode": "edge"}, ()),
    ("Conv2d", (4, 6, (3,)), {}, (X2,)),
    ("Conv2d", (4, 6, 8), {}, (X2,)),
    ("Conv2d", (3, 6, 3), {}, (X2,)),
    ("Conv2d", (4, 6, 3), {}, (X1[0],)),
    ("Conv2d", (4, 6, 3, 1, 7), {"padding_mode": "reflect"}, (X2,)),
    ("Conv3d", (4, 6, 3, -1), {}, (X3,)),
    ("Conv3d", (4, 6, 3, 1, (1, 1)), {"padding_mode": "circular"}, (X3,)),
    ("ConvTranspose1d", (4, 6, 3), {"padding_mode": "reflect"}, ()),
    ("ConvTranspose1d", (4, 6, 3, 2), {"output_padding": 2}, (X1,)),
    ("ConvTranspose1d", (4, 6, 3, 2), {}, (X1, [21])),
    ("ConvTranspose1d", (4, 6, 3, 2), {}, (X1, [18])),
    ("ConvTranspose2d", (4, 6, 3, 2), {}, (X2, [15])),
    ("ConvTranspose3d", (3, 6, 3), {}, (X3,)),
    ("MaxPool1d", (3, 1, 2), {}, (X1,)),
    ("MaxPool2d", (9,), {}, (X2,)),
    ("MaxPool2d", (2, 0), {}, (X2,)),
    ("MaxPool3d", ((2, 2),), {}, (X3,)),
    ("MaxPool3d", (2,), {}, (X1,)),
    ("AvgPool1d", (3, 1, 2), {}, (X1,)),
    ("AvgPool2d", (2,), {"divisor_override": 0}, (X2,)),
    ("AvgPool3d", (9,), {}, (X3,)),
    ("LPPool1d", (2, 10), {}, (X1,)),
    ("LPPool2d", (2, (2, 9)), {}, (X2,)),
    ("AdaptiveAvgPool2d", ((2, 2, 2),), {}, (X2,)),
    ("AdaptiveMaxPool1d", (-1,), {}, (X1,)),
    ("AdaptiveMaxPool3d", (2,), {}, (X1,)),
    ("FractionalMaxPool2d", (2,), {}, ()),
    ("FractionalMaxPool2d", (2, 3, 0.5), {}, ()),
    ("FractionalMaxPool2d", (2,), {"output_ratio": (0.5, 1.5)}, ()),
    ("FractionalMaxPool2d", (2, 7), {}, (X2,)),
    ("FractionalMaxPool3d", (0, 3), {}, ()),
    ("FractionalMaxPool3d", (2, 4), {}, (X3,)),
    ("MaxUnpool1d", (2,), {}, (X1, PLACES[:, :, :8])),
    ("MaxUnpool1d", (2,), {}, (X1, PLACES + 18)),
    ("MaxUnpool1d", (2,), {}, (X1, PLACES, [25])),
    ("ReflectionPad1d", (9,), {}, (X1,)),
    ("ReflectionPad2d", ((1, 1, 1),), {}, (X2,)),
    ("ReplicationPad3d", (1,), {}, (X1,)),
    ("ZeroPad1d", (-5,), {}, (X1,)),
    ("ConstantPad2d", ((1, 1, 1), 2.0), {}, (X2,)),
    ("PixelShuffle", (3,), {}, (X2,)),
    ("PixelUnshuffle", (4,), {}, (X2,)),
    ("ChannelShuffle", (3,), {}, (X2,)),
    ("Fold", ((4, 5), 2), {}, (drawn(2, 8, 11),)),
    ("Unfold", (8,), {}, (X2,)),
    ("Upsample", (), {}, (X2,)),
    ("Upsample", (None, [2.0, 2.0]), {}, ()),
    ("Upsample", (3, None, "linear"), {}, (X2,)),
    ("Upsample", (3, None, "nearest", True), {}, (X1,)),
    ("UpsamplingBilinear2d", (3,), {}, (X1,)),
    ("UpsamplingNearest2d", (3, 2), {}, (X2,)),
    ("Flatten", (4,), {}, (X2,)),
    ("Flatten", (2, 1), {}, (X2,)),
    ("Unflatten", (1, 4), {}, ()),
    ("Unflatten", (1, (2.0, 2)), {}, ()),
    ("Unflatten", (1, (3, -1)), {}, (X2,)),
    ("Unflatten", (1, (-1, -1)), {}, (X2,)),
    ("Unflatten", (1, ()), {}, (X2,)),
    ("Unflatten", (5, (2, 2)), {}, (X2,)),
]  # fmt: skip


def erroneous() -> list[Any]:
    """PyTorch's own calls that are refused, of classes that this file is about."""
    from torch.testing._internal.common_modules import module_db

    found = []
    for info in module_db:
        name = info.module_cls.__name__
        if name not in LAYERS or info.module_error_inputs_func is None:
            continue
        rows = info.module_error_inputs_func(
            info, device="cpu", dtype=torch.float64, requires_grad=False, training=True
        )
        for row in rows:
            given = row.module_error_input
            made, called = given.constructor_input, given.forward_input
            inputs = tuple(v.numpy() for v in called.args) if called else ()
            found.append((name, tuple(made.args), dict(made.kwargs), inputs))
    return found


def slow_where(names: Iterable[str], long: Callable[[str], bool]) -> list[Any]:
    """The names; those that take long are run by `make test-slow`."""
    return [pytest.param(n, marks=[pytest.mark.slow] if long(n) else []) for n in names]


def numbered(rows: list[Any]) -> list[Any]:
    return [pytest.param(*row, id=f"{row[0]}-{i}") for i, row in enumerate(rows)]


@pytest.mark.filterwarnings("ignore")  # of PyTorch's, before it refuses
@pytest.mark.parametrize(
    ("name", "args", "kwargs", "inputs"), numbered(REFUSED) + numbered(erroneous())
)
def test_what_pytorch_refuses_is_refused(name: str, args: Any, kwargs: Any, inputs: Any) -> None:
    """Where it is made or where it is called; without inputs, where it is made."""
    with pytest.raises((RuntimeError, ValueError, IndexError, TypeError, AssertionError)):
        in_torch(name, args, kwargs, inputs)
    with jax.enable_x64(True), pytest.raises(InputError) as caught:
        in_kit(name, args, kwargs, inputs)
    assert "\n" not in str(caught.value)
    assert ":" in str(caught.value)


def in_torch(name: str, args: Any, kwargs: Any, inputs: Any) -> Any:
    made = getattr(torch.nn, name)(*args, **kwargs).double()
    return made(*mapped(list(inputs), lambda _, v: as_tensor(v))) if inputs else made


def in_kit(name: str, args: Any, kwargs: Any, inputs: Any) -> Any:
    made = getattr(nn, name)(*args, **kwargs)
    return made(*mapped(list(inputs), lambda _, v: as_array(v))) if inputs else made


def as_tensor(value: Any) -> Any:
    return torch.tensor(value) if isinstance(value, np.ndarray) else value


def as_array(value: Any) -> Any:
    return jnp.asarray(value) if isinstance(value, np.ndarray) else value


# Ports that people write


class _Naive(nn.Conv2d):
    """One that does with its input what a function says."""

    def __init__(self, call: Callable[[Any, Any], Any], *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.call = call

    def forward(self, input: Any) -> Any:
        return self.call(self, input)


class _Function(nn.Module):
    def __init__(self, call: Callable[[Any], Any]) -> None:
        self.call = call

    def forward(self, input: Any) -> Any:
        return self.call(input)


def same(layer: Any, x: Any) -> Any:
    """XLA's SAME, which pads an even input behind alone where the stride is 2."""
    out = jax.lax.conv_general_dilated(x, layer.weight[...], (2, 2), "SAME")
    return out + layer.bias[...][:, None, None]


def wrapped_by_one(layer: Any, x: Any) -> Any:
    """A circular padding that is zeros."""
    return nn.functional.conv2d(x, layer.weight[...], layer.bias[...], padding=1)


def flax_pool(pool: Any, **options: Any) -> Callable[[Any], Any]:
    return lambda x: jnp.moveaxis(pool(jnp.moveaxis(x, 1, -1), (2, 2), **options), -1, 1)


def of_last_axis_first(x: Any) -> Any:
    """jnp.pad's widths are of the first axis first."""
    return jnp.pad(x, ((0, 0), (0, 0), (2, 1), (0, 1)))


EVEN = drawn(2, 4, 6, 6)
NAIVE: dict[str, tuple[str, Layer, Callable[[], Any]]] = {
    "SAME for padding 1": (
        "Conv2d", Layer((4, 3, 3, 2, 1), {}, (EVEN,)), lambda: _Naive(same, 4, 3, 3, 2, 1)
    ),
    "zeros for circular": (
        "Conv2d",
        Layer((4, 3, 3, 1, 1), {"padding_mode": "circular"}, (EVEN,)),
        lambda: _Naive(wrapped_by_one, 4, 3, 3, 1, 1),
    ),
    "stride 1": (
        "MaxPool2d", Layer((2,), {}, (EVEN,)), lambda: _Function(flax_pool(nnx.max_pool))
    ),
    "padding is counted": (
        "AvgPool2d",
        Layer((2, 2, 1), {"count_include_pad": False}, (EVEN,)),
        lambda: _Function(flax_pool(nnx.avg_pool, strides=(2, 2), padding=((1, 1), (1, 1)))),
    ),
    "first axis first": (
        "ZeroPad2d", Layer(((2, 1, 0, 1),), {}, (EVEN,)), lambda: _Function(of_last_axis_first)
    ),
    "samples of another seed": (
        "FractionalMaxPool2d",
        Layer((2, 4), {}, (drawn(2, 4, 12, 12),)),
        lambda: nn.FractionalMaxPool2d(2, 4, generator=TorchGenerator(1)),
    ),
}  # fmt: skip


@pytest.mark.parametrize("fault", slow_where(NAIVE, lambda fault: "seed" in fault))
def test_a_naive_port_is_rejected(fault: str) -> None:
    name, layer, ours = NAIVE[fault]
    assert differences_of_layer(name, layer, jit=False, ours=ours) != []


# Training

NETS: dict[str, Callable[[], torch.nn.Sequential]] = {
    "images": lambda: torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 3, padding=1, padding_mode="reflect"),
        torch.nn.MaxPool2d(2),
        torch.nn.ConvTranspose2d(8, 4, 3, stride=2, output_padding=1, groups=2),
        torch.nn.FractionalMaxPool2d(2, 5),
        torch.nn.AvgPool2d(3, 2, padding=1),
        torch.nn.Flatten(),
        torch.nn.Linear(36, 2),
    ),
    "signals": lambda: torch.nn.Sequential(
        torch.nn.Conv1d(3, 8, 3, padding="same", dilation=2),
        torch.nn.AdaptiveMaxPool1d(5),
        torch.nn.ChannelShuffle(4),
        torch.nn.ConvTranspose1d(8, 4, 4, stride=2, padding=1),
        torch.nn.CircularPad1d((1, 2)),
        torch.nn.LPPool1d(2, 2),
        torch.nn.Flatten(),
        torch.nn.Linear(24, 2),
    ),
}
RATE = 0.05


@pytest.mark.parametrize("name", NETS)
def test_twenty_steps_are_pytorchs(name: str) -> None:
    """Within 1e-12 of the largest weight: 20 steps of roundings of 1e-16 that a net adds up."""
    torch.manual_seed(0)
    net = NETS[name]().double()
    x, y = drawn(20, 6, 3, *([10, 9] if name == "images" else [10])), drawn(20, 6, 2, seed=1)
    with jax.enable_x64(True):
        ours = nn.from_torch(net)
        torch.manual_seed(1)
        nn.manual_seed(1)
        optimizer = torch.optim.SGD(net.parameters(), RATE)
        step = nnx.jit(sgd_step)
        for inputs, targets in zip(x, y, strict=True):
            optimizer.zero_grad()
            loss = torch.nn.functional.mse_loss(net(torch.tensor(inputs)), torch.tensor(targets))
            loss.backward()
            optimizer.step()
            found = step(ours, jnp.asarray(inputs), jnp.asarray(targets))
            assert abs(float(found) - loss.item()) <= 1e-12
        for key, value in net.state_dict().items():
            np.testing.assert_allclose(nn.state_dict(ours)[key], value.numpy(), 0, 1e-12)


def sgd_step(net: Any, inputs: Any, targets: Any) -> Any:
    def loss_of(net: Any) -> Any:
        return nn.functional.mse_loss(net(inputs), targets)

    loss, grads = nnx.value_and_grad(loss_of)(net)
    params = nnx.state(net, nnx.Param)
    nnx.update(net, jax.tree.map(lambda p, g: p - RATE * g, params, grads))
    return loss


# Taken over from PyTorch


@pytest.mark.parametrize("name", slow_where(LAYERS, lambda name: "3d" in name))
def test_a_layer_is_taken_over(name: str) -> None:
    """Its settings and weights: 1e-13 is what the tables allow."""
    layer = LAYERS[name][0]
    theirs = in_pytorch(name, layer, "float64")
    with jax.enable_x64(True):
        ours = nn.from_torch(theirs)
        assert type(ours).__name__ == name
        torch.manual_seed(2)
        nn.manual_seed(2)
        wanted = theirs(*mapped(list(layer.inputs), lambda _, v: as_tensor(v)))
        found = ours(*mapped(list(layer.inputs), lambda _, v: as_array(v)))
        pairs = zip(found, wanted, strict=True) if isinstance(wanted, tuple) else [(found, wanted)]
        for one, other in pairs:
            np.testing.assert_allclose(one, other.detach().numpy(), 1e-13, 1e-13)


def test_a_list_is_static() -> None:
    """What a compiled function's module keeps has to be hashable."""
    layer = nn.MaxPool2d([2, 1], [1, 2])
    assert nnx.jit(lambda layer, x: layer(x))(layer, jnp.ones((1, 4, 4))).shape == (1, 3, 2)


# What is drawn in every call


@pytest.mark.parametrize("rank", [2, pytest.param(3, marks=pytest.mark.slow)])
def test_a_function_draws_as_pytorchs(rank: int) -> None:
    """Call after call, from the default generator and from one of its own."""
    x, name = drawn(2, 3, *[9] * rank).astype("float32"), f"fractional_max_pool{rank}d"
    ours, theirs = getattr(nn.functional, name), getattr(torch.nn.functional, name)
    torch.manual_seed(3)
    nn.manual_seed(3)
    wanted = [theirs(torch.tensor(x), 2, 4).numpy() for _ in range(2)]
    assert not np.array_equal(*wanted)
    for value in wanted:
        assert np.array_equal(ours(jnp.asarray(x), 2, 4), value)
    own = TorchGenerator(3)
    for value in wanted:
        assert np.array_equal(ours(jnp.asarray(x), 2, 4, generator=own), value)


def test_a_compiled_layer_draws_anew_in_every_call() -> None:
    """From PyTorch's generator, which is a part of it, or from keys."""
    x = drawn(2, 3, 12, 12).astype("float32")
    call = nnx.jit(lambda layer, x: layer(x))
    torch.manual_seed(4)
    wanted = [torch.nn.FractionalMaxPool2d(2, 4)(torch.tensor(x)).numpy() for _ in range(2)]
    layer = nn.FractionalMaxPool2d(2, 4, generator=TorchGenerator(4))
    assert [np.array_equal(call(layer, x), value) for value in wanted] == [True, True]
    keyed = nn.FractionalMaxPool2d(2, 4, rngs=nnx.Rngs(0))
    assert not np.array_equal(call(keyed, x), call(keyed, x))


def test_what_would_be_a_constant_is_not_drawn() -> None:
    """By a function of a traced input, whose generator is known in NumPy; a gradient knows both."""
    x = jnp.asarray(drawn(2, 3, 12, 12), "float32")
    layer = nn.FractionalMaxPool2d(2, 4)

    def pooled(x: Any) -> Any:
        out: Any = nn.functional.fractional_max_pool2d(x, 2, 4)
        return jnp.sum(out)

    for function in (jax.jit(pooled), jax.vmap(pooled), jax.jit(layer), jax.jit(jax.grad(pooled))):
        with pytest.raises(InputError, match=r"pass generator= of the module.* or key="):
            function(x)
    assert float(jnp.sum(jax.grad(pooled)(x))) == 2 * 3 * 16

    def keyed(x: Any, key: Any) -> Any:
        return nn.functional.fractional_max_pool2d(x, 2, 4, key=key)

    first, second = (jax.jit(keyed)(x, jax.random.key(i)) for i in range(2))
    assert not np.array_equal(first, second)
