"""The parts of the JAX kit against the parts of PyTorch whose names they bear.

Losses, layers, `to_tensor`, the conversion of names and layouts, Adam's bias correction: each is
given random numbers of many shapes on both sides, values and gradients alike. Each check gives one
number, the worst distance in units of what rounding explains (0 where not a bit may differ), and
beside each stands a fault that this number shows.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from faults.plants_jax import GRUWithoutHiddenBias
from flax import nnx
from helpers.synthetic_traces import refused
from helpers.training import settings
from torch.nn import functional

import twinstep
from twinstep.errors import InputError
from twinstep.jax import nn
from twinstep.jax.layout import Mapping, load_params, module_layout, opt_state_layout
from twinstep.jax.nn import functional as kit
from twinstep.jax.optim import adam
from twinstep.jax.optim._adam import bias_correction
from twinstep.judge import tolerance
from twinstep.runs import launch

DTYPES = ("float64", "float32")
EPS = tolerance.eps("float64")


def ratio(a: Any, b: Any, limit: Any) -> float:
    """The largest distance in units of what is allowed; inf for a NaN or another dtype."""
    a, b = np.asarray(a), np.asarray(b)
    assert a.shape == b.shape
    if a.dtype != b.dtype:
        return np.inf
    gap = np.abs(a.astype(float) - b.astype(float))
    limit = np.broadcast_to(limit, gap.shape)
    units = np.where(gap == 0, 0.0, gap / np.maximum(limit, np.finfo(float).tiny))
    return float(np.max(np.where(np.isnan(units), np.inf, units), initial=0))


# Losses

Loss = Callable[[jax.Array, jax.Array], jax.Array]


def regression_pair(shape: tuple[int, ...], seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Outputs and targets of many sizes; a fifth of them tie exactly."""
    numbers = np.random.RandomState(seed)
    output, target = numbers.randn(2, *shape) * 10.0 ** numbers.uniform(-3, 3, (2, *shape))
    return output, np.where(numbers.rand(*shape) < 0.2, output, target)


def class_pair(shape: tuple[int, ...], seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Logits, some of them far apart, and class numbers."""
    numbers = np.random.RandomState(seed)
    output = numbers.randn(*shape) * 10.0 ** numbers.uniform(-2, 2, (shape[0], 1))
    return output, numbers.randint(shape[1], size=shape[0])


REGRESSION_SHAPES = [(1,), (5, 1), (2, 3, 4), (1000,)]
CLASS_SHAPES = [(1, 10), (33, 2), (5, 100), (64, 10)]
LOSSES: dict[str, tuple[Loss, Any, Any, list[Any]]] = {
    "mse_loss": (kit.mse_loss, functional.mse_loss, regression_pair, REGRESSION_SHAPES),
    "l1_loss": (kit.l1_loss, functional.l1_loss, regression_pair, REGRESSION_SHAPES),
    "huber_loss": (kit.huber_loss, functional.huber_loss, regression_pair, REGRESSION_SHAPES),
    "cross_entropy": (kit.cross_entropy, functional.cross_entropy, class_pair, CLASS_SHAPES),
}


def loss_off(ours: Loss, theirs: Any, output: np.ndarray, target: np.ndarray) -> float:
    """How far value and gradient of a loss are from PyTorch's, in 16 eps.

    A squared or absolute error has one rounding or two, and the mean of n sums in parts, log2(n)
    more. Of the gradient every entry stands alone: 16 eps of itself. A cross entropy rounds by
    itself and its largest logit, and its gradient, a difference of probabilities over N, by 1 / N.
    """
    eps = float(np.finfo(output.dtype).eps)
    theirs_in = torch.tensor(output, requires_grad=True)
    value = theirs(theirs_in, torch.tensor(target))
    value.backward()
    with settings(str(output.dtype)):
        got, grad = jax.jit(jax.value_and_grad(ours))(output, target)
    assert theirs_in.grad is not None
    expected, expected_grad = value.detach().numpy(), theirs_in.grad.numpy()
    if np.issubdtype(target.dtype, np.floating):
        size, grad_size = np.abs(expected), np.abs(expected_grad)
    else:
        size, grad_size = np.abs(output).max() + expected, np.array(1 / len(output))
    return max(
        ratio(got, expected, 16 * eps * size), ratio(grad, expected_grad, 16 * eps * grad_size)
    )


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", LOSSES)
def test_loss_is_torchs(name: str, dtype: str) -> None:
    ours, theirs, pair, shapes = LOSSES[name]
    for seed, shape in enumerate(shapes):
        output, target = pair(shape, seed)
        target = target.astype(dtype) if target.dtype == float else target
        assert loss_off(ours, theirs, output.astype(dtype), target) <= 1, shape


def test_l1_gradient_at_a_tie_is_zero() -> None:
    output = np.array([1.0, 2.0, -3.0, 0.0])
    target = np.array([1.0, 1.0, -2.0, -0.0])
    with settings("float64"):
        grad = jax.grad(kit.l1_loss)(jnp.asarray(output), jnp.asarray(target))
    np.testing.assert_array_equal(grad, [0, 0.25, -0.25, 0])


def test_a_delta_that_is_not_above_0_is_refused() -> None:
    x = jnp.ones(2)
    refused(lambda: kit.huber_loss(x, x, delta=0.0), "huber_loss", "delta", "0.0")


WRONG_LOSSES: dict[str, tuple[str, Loss]] = {
    "tie": ("l1_loss", lambda a, b: jnp.mean(jnp.abs(a - b))),
    "sum": ("mse_loss", lambda a, b: jnp.sum((a - b) ** 2)),
    "half": ("mse_loss", lambda a, b: jnp.mean((a - b) ** 2) / 2),
    "huber": ("l1_loss", lambda a, b: jnp.mean(jnp.where(abs(a - b) < 1e-3, 0, abs(a - b)))),
    "a line alone": ("huber_loss", lambda a, b: jnp.mean(abs(a - b) - 0.5)),
    "no logarithm": ("cross_entropy", lambda a, b: -jnp.mean(jax.nn.softmax(a)[jnp.arange(64), b])),
    "warmer": ("cross_entropy", lambda a, b: kit.cross_entropy(a * (1 + 1e-13), b)),
}


@pytest.mark.parametrize(("name", "wrong"), WRONG_LOSSES.values(), ids=WRONG_LOSSES)
def test_wrong_loss_is_noticed(name: str, wrong: Loss) -> None:
    _, theirs, pair, shapes = LOSSES[name]
    assert loss_off(wrong, theirs, *pair(shapes[-1], 0)) > 1


# Layers


class Whole(nnx.Module):
    """A layer under a name, as an example's model holds it."""

    def __init__(self, layer: nnx.Module) -> None:
        self.layer = layer


Sizes = tuple[int, int, tuple[int, ...]]
# inputs, outputs, the shape before the inputs; the last ones are past the small dots
LINEAR: list[Sizes] = [(1, 1, (7,)), (10, 3, (5,)), (3, 4, (2, 6)), (5, 5, (1,)), (64, 33, (32,))]
RECURRENT: list[Sizes] = [(1, 1, (1, 1)), (3, 5, (2, 7)), (10, 16, (5, 4)), (28, 40, (9, 12))]
LAYERS: dict[str, tuple[Any, Any, list[Sizes]]] = {
    "Linear": (nn.Linear, torch.nn.Linear, LINEAR),
    "RNN": (nn.RNN, torch.nn.RNN, RECURRENT),
    "GRU": (nn.GRU, torch.nn.GRU, RECURRENT),
}


def unchanged(array: np.ndarray) -> np.ndarray:
    return array


def layer_off(
    name: str,
    sizes: Sizes,
    change: Callable[[np.ndarray], np.ndarray] = unchanged,
    wrong: Any = None,
) -> float:
    """How far a layer's outputs and gradients are from torch.nn's, in 16 eps of the largest entry.

    The gradient is that of a random weighting of all outputs, for parameters, input and h0. A dot
    product of up to 64 terms rounds by a few eps of its terms, which random signs make up to 8
    times what they come to; a recurrence carries this on without making more of it.
    change, wrong: what is done to the parameters on the way, and another layer, to plant a fault
    """
    ours, theirs, _ = LAYERS[name]
    inputs, outputs, shape = sizes
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(inputs + outputs)
    recurrent = issubclass(theirs, torch.nn.RNNBase)
    options: Any = {"batch_first": True} if recurrent else {}
    twin = theirs(inputs, outputs, **options)
    x = torch.randn(*shape, inputs, requires_grad=True)
    h0 = torch.randn(1, shape[0], outputs, requires_grad=True)
    weighting = torch.randn(*shape, outputs)
    expected = twin(x, h0)[0] if recurrent else twin(x)
    (expected * weighting).sum().backward()
    named = {f"layer.{name}": p.detach().numpy() for name, p in twin.named_parameters()}
    wanted = {f"layer.{name}": p.grad.numpy() for name, p in twin.named_parameters()}
    with settings("float64"):
        model = Whole((wrong or ours)(inputs, outputs, **options))
        load_params(model, {name: change(array) for name, array in named.items()})
        graph, layout = nnx.graphdef(model), module_layout(model)

        def weighted(params: Any, x: Any, h0: Any) -> Any:
            layer = nnx.merge(graph, params).layer
            got = layer(x, h0)[0] if recurrent else layer(x)
            return jnp.sum(got * weighting.numpy()), got

        params = nnx.to_pure_dict(nnx.state(model, nnx.Param))
        arguments = (params, x.detach().numpy(), h0.detach().numpy())
        gradient = jax.jit(jax.grad(weighted, argnums=(0, 1, 2), has_aux=True))
        (grads, x_grad, h_grad), got = gradient(*arguments)
        named_grads = layout.to_torch(grads)
    assert named_grads.keys() == wanted.keys()
    pairs = [(got, expected.detach().numpy()), (x_grad, x.grad)]
    pairs += [(named_grads[name], grad) for name, grad in wanted.items()]
    if recurrent:
        pairs.append((h_grad, h0.grad))
    return max(ratio(a, np.asarray(b), 16 * EPS * np.abs(np.asarray(b)).max()) for a, b in pairs)


@pytest.mark.parametrize("name", LAYERS)
def test_layer_is_torchs(name: str) -> None:
    for sizes in LAYERS[name][2]:
        assert layer_off(name, sizes) <= 1, sizes


def perturbed(array: np.ndarray) -> np.ndarray:
    return array * (1 + 1e-13)


WRONG_LAYERS: dict[str, tuple[Any, ...]] = {
    "another place of a bias": ("GRU", RECURRENT[1], unchanged, GRUWithoutHiddenBias),
    "gates swapped": ("GRU", RECURRENT[1], lambda array: np.roll(array, len(array) // 3, axis=0)),
    **{f"{name} perturbed": (name, LAYERS[name][2][1], perturbed) for name in LAYERS},
    "transposed": ("Linear", (5, 5, (1,)), lambda array: array.T),
}


@pytest.mark.parametrize("fault", WRONG_LAYERS)
def test_wrong_layer_is_noticed(fault: str) -> None:
    assert layer_off(*WRONG_LAYERS[fault]) > 1


# Bytes to numbers


@pytest.mark.parametrize("dtype", DTYPES)
def test_to_tensor_is_torchs_bit_for_bit(dtype: str) -> None:
    images = np.arange(256, dtype=np.uint8).reshape(4, 8, 8)
    torch.set_default_dtype(getattr(torch, dtype))
    expected = torch.tensor(images).to(torch.get_default_dtype()).div(255).numpy()
    with settings(dtype):
        ours = np.asarray(jax.jit(nn.to_tensor)(jnp.asarray(images)))
        product = np.asarray(jnp.asarray(images, dtype) * (1 / 255))
    assert ratio(ours, expected, 0) == 0
    assert ratio((torch.tensor(images) / 255).numpy(), expected, 0) == 0  # as the twin has it
    assert ratio(product, expected, 0) > 0


# Names and layouts


def leaves_differ(a: Any, b: Any) -> bool:
    """Whether two trees differ in structure, dtype, shape or any bit."""
    (ours, structure), (theirs, other) = jax.tree.flatten(a), jax.tree.flatten(b)
    if str(structure) != str(other):
        return True
    pairs = [(np.asarray(x), np.asarray(y)) for x, y in zip(ours, theirs, strict=True)]
    return any(x.dtype != y.dtype or x.shape != y.shape or np.any(x != y) for x, y in pairs)


def test_conversion_there_and_back_changes_nothing(name: str) -> None:
    spec = twinstep.examples()[name](dtype="float64")
    twin = launch.driver("torch", spec).start[0]
    with settings("float64"):
        driver = launch.driver("jax", spec)
        params, layout = driver.start[0], driver.layout
        named = layout.to_torch(params)
        expected = {key: tensor.shape for key, tensor in twin.state_dict().items()}
        assert {key: array.shape for key, array in named.items()} == expected
        for key, array in spec.initial_params().items():
            np.testing.assert_array_equal(named[key], array)
        assert not leaves_differ(layout.to_jax(named), params)
        # optimizer state, of Adam over everything, with different numbers in every entry
        opt_state = adam().init(params)
        numbers = iter(range(10**6))
        opt_state = jax.tree.map(
            lambda a: jnp.asarray([next(numbers) for _ in range(a.size)], a.dtype).reshape(a.shape),
            opt_state,
        )
        layout = opt_state_layout(opt_state, layout)
        named = layout.to_torch(opt_state)
        assert {key: array.shape for key, array in named.items() if not key.endswith(".step")} == {
            f"{key}.{moment}": shape
            for key, shape in expected.items()
            for moment in ("exp_avg", "exp_avg_sq")
        }
        assert not leaves_differ(layout.to_jax(named), opt_state)


def test_conversion_that_forgets_to_transpose_is_noticed() -> None:
    """Even of a square matrix, whose shape does not tell."""
    with settings("float64"):
        layout = module_layout(nnx.Linear(3, 3, rngs=nnx.Rngs(0)))
        forgetful = Mapping(layout.treedef, tuple(s._replace(axes=None) for s in layout.slots))
        named = {"weight": jnp.arange(9.0).reshape(3, 3), "bias": jnp.zeros(3)}
        assert leaves_differ(forgetful.to_jax(named), layout.to_jax(named))


@pytest.mark.parametrize(
    ("named", "says"),
    [
        ({"weight": (2, 3)}, "parameter 'bias' is missing"),
        ({"weight": (2, 3), "bias": (2,), "scale": ()}, "parameter 'scale' is unknown"),
        ({"weight": (3, 2), "bias": (2,)}, r"'weight' has shape \(3, 2\), expected \(2, 3\)"),
    ],
    ids=["missing", "unknown", "shape"],
)
def test_parameters_that_do_not_fit_are_refused(named: dict[str, Any], says: str) -> None:
    layout = module_layout(nn.Linear(3, 2))
    with pytest.raises(InputError, match=says):
        layout.to_jax({name: jnp.zeros(shape) for name, shape in named.items()})


# Adam's bias correction

BETAS = (0.0, 0.5, 0.8, 0.9, 0.99, 0.999, 0.9999)


@pytest.mark.parametrize("beta", BETAS)
def test_bias_correction_is_pythons_bit_for_bit(beta: float) -> None:
    steps = np.arange(1, 3001, dtype=np.int32)
    expected = np.array([1 - beta ** float(t) for t in steps])
    with settings("float64"):
        got = jax.jit(jax.vmap(lambda step: bias_correction(beta, step)))(jnp.asarray(steps))
        computed = 1 - beta ** jnp.asarray(steps, jnp.float32)
    assert ratio(got, expected, 0) == 0
    if beta > 0.5:
        assert ratio(np.asarray(computed, float), expected, 0) > 0


def test_bias_correction_in_float32_is_the_rounded_one() -> None:
    """optax's own, computed in float32, is up to 2e-5 off."""
    steps = np.arange(1, 3001, dtype=np.int32)
    expected = np.array([1 - 0.999 ** float(t) for t in steps]).astype(np.float32)
    limit = 2 * tolerance.eps("float32") * expected
    with settings("float32"):
        got = jax.vmap(lambda step: bias_correction(0.999, step))(jnp.asarray(steps))
        computed = 1 - jnp.float32(0.999) ** jnp.asarray(steps, jnp.float32)
    assert ratio(got, expected, limit) <= 1
    assert ratio(computed, expected, limit) > 1
