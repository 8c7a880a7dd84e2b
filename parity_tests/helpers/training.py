"""A small network and its data for both frameworks, and a step of any optimizer on either side.

Letters: N samples, three layers 8-16-16-3 with tanh.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import torch
from flax import nnx

from twinstep.jax import devices
from twinstep.jax.layout import module_layout
from twinstep.jax.nn.layers import Linear

_numbers = np.random.RandomState(0)
SIZES = ((8, 16), (16, 16), (16, 3))
NAMES = [f"{i}.{kind}" for i in range(3) for kind in ("weight", "bias")]
"""The parameters in PyTorch's order."""
PARAMS = {
    name: _numbers.randn(*shape) / np.sqrt(shape[-1])
    for i, (inputs, outputs) in enumerate(SIZES)
    for name, shape in ((f"{i}.weight", (outputs, inputs)), (f"{i}.bias", (outputs,)))
}
X, Y = _numbers.randn(512, 8), _numbers.randn(512, 3)
BATCHES = _numbers.randint(0, 512, (40, 32))


def settings() -> Any:
    """float64 on the CPU."""
    return devices.settings("float64", devices.find("cpu"))


class TorchNetwork(torch.nn.Module):
    """Layers under the numbers that are their names."""

    def __init__(self) -> None:
        super().__init__()
        torch.set_default_dtype(torch.float64)
        for i, (inputs, outputs) in enumerate(SIZES):
            self.add_module(str(i), torch.nn.Linear(inputs, outputs))
        self.load_state_dict({name: torch.tensor(array) for name, array in PARAMS.items()})

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        first, second, third = self.children()
        return third(torch.tanh(second(torch.tanh(first(x)))))


class FlaxNetwork(nnx.Module):
    """The same in Flax, (in, out) kernels and all."""

    def __init__(self) -> None:
        self.layers = nnx.List([Linear(*size) for size in SIZES])

    def __call__(self, x: jax.Array) -> jax.Array:
        first, second, third = self.layers
        return third(jnp.tanh(second(jnp.tanh(first(x)))))


def torch_loss(model: TorchNetwork, batch: np.ndarray) -> torch.Tensor:
    """The mean squared error of a batch, ()."""
    return ((model(torch.tensor(X[batch])) - torch.tensor(Y[batch])) ** 2).mean()


def torch_steps(
    model: TorchNetwork,
    optimizer: Any,
    batches: np.ndarray,
    change: Callable[[TorchNetwork], Any] | None = None,
    sign: int = 1,
) -> list[dict[str, np.ndarray]]:
    """Trains; the parameters after each step. change: what is done to the gradients before it;
    sign: of the loss
    """
    seen = []
    for batch in batches:

        def closure(batch: np.ndarray = batch) -> torch.Tensor:
            optimizer.zero_grad()
            loss = sign * torch_loss(model, batch)
            loss.backward()
            if isinstance(optimizer, torch.optim.SparseAdam):
                for parameter in model.parameters():
                    if parameter.grad is not None:
                        parameter.grad = parameter.grad.to_sparse(1)
            if change is not None:
                change(model)
            return loss

        if not isinstance(optimizer, torch.optim.LBFGS):
            closure()
        optimizer.step(closure if isinstance(optimizer, torch.optim.LBFGS) else None)
        seen.append({name: p.detach().numpy().copy() for name, p in model.named_parameters()})
    return seen


def named_loss(params: Mapping[str, jax.Array], x: jax.Array, y: jax.Array) -> jax.Array:
    """The same error of parameters by PyTorch's names, in its layout, ()."""
    h = x
    for i in range(3):
        h = h @ params[f"{i}.weight"].T + params[f"{i}.bias"]
        h = jnp.tanh(h) if i < 2 else h
    return jnp.mean((h - y) ** 2)


def flax_parts() -> tuple[Any, Any, Callable[..., jax.Array]]:
    """(the Flax network's layout, its parameters, its error as a function of such)."""
    model = FlaxNetwork()
    layout = module_layout(model)
    graph = nnx.graphdef(model)
    params = layout.to_jax({name: jnp.asarray(array) for name, array in PARAMS.items()})

    def loss(params: Any, x: jax.Array, y: jax.Array) -> jax.Array:
        return jnp.mean((nnx.merge(graph, params)(x) - y) ** 2)

    return layout, params, loss


def jax_steps(
    optimizer: optax.GradientTransformation,
    params: Any,
    opt_state: Any,
    batches: np.ndarray,
    loss: Callable[..., jax.Array] = named_loss,
) -> tuple[Any, Any, list[Any]]:
    """(parameters, state, parameters after each step) of a training, one compiled step."""
    step, seen = _compiled(optimizer, loss), []
    for batch in batches:
        params, opt_state = step(params, opt_state, batch)
        seen.append(params)
    return params, opt_state, seen


@functools.cache
def _compiled(optimizer: optax.GradientTransformation, loss: Callable[..., jax.Array]) -> Any:
    update = optax.with_extra_args_support(optimizer).update

    @jax.jit
    def step(params: Any, opt_state: Any, batch: jax.Array) -> tuple[Any, Any]:
        def closure(params: Any) -> Any:
            return jax.value_and_grad(loss)(params, jnp.asarray(X)[batch], jnp.asarray(Y)[batch])

        value, grads = closure(params)
        touched = jax.tree.map(lambda p: jnp.ones(p.shape[0], bool), params)
        updates, opt_state = update(
            grads, opt_state, params, value=value, value_and_grad_fn=closure, touched=touched
        )
        return optax.apply_updates(params, updates), opt_state

    return step


def network(params: Mapping[str, Any]) -> TorchNetwork:
    """PyTorch's with other parameters."""
    model = TorchNetwork()
    model.load_state_dict({name: torch.tensor(np.array(a)) for name, a in params.items()})
    return model


def tensors(state_dict: Any) -> Any:
    """Arrays as tensors, as `opt_state_to_torch` says to do it."""
    return jax.tree.map(lambda a: torch.tensor(a) if isinstance(a, np.ndarray) else a, state_dict)


def jax_params() -> dict[str, jax.Array]:
    """The initial parameters by PyTorch's names, in its layout."""
    return {name: jnp.asarray(array) for name, array in PARAMS.items()}


def worst(theirs: Sequence[Mapping[str, Any]], ours: Sequence[Mapping[str, Any]]) -> float:
    """The largest distance of a tensor after any step, as a share of its largest entry."""
    found = 0.0
    for a, b in zip(theirs, ours, strict=True):
        assert a.keys() == b.keys()
        for name in a:
            expected, got = np.asarray(a[name]), np.asarray(b[name])
            assert got.shape == expected.shape, name
            assert got.dtype == expected.dtype, name
            gap = np.max(np.abs(got - expected)) / np.max(np.abs(expected))
            found = gap if not gap <= found else found  # a NaN stays
    return float(found)
