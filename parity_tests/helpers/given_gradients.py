"""Two parameters and their gradients, given without a model: what an optimizer makes of them."""

from typing import Any

import jax.numpy as jnp
import numpy as np
import torch

from twinstep.jax.layout import tree_layout

SHAPES = {"w": (2, 3), "b": (3,)}
STEPS = 4


def numbers(seed: int, dtype: Any = np.float64) -> dict[str, np.ndarray]:
    drawn = np.random.RandomState(seed)
    found = {name: drawn.randn(*shape) for name, shape in SHAPES.items()}
    if np.issubdtype(dtype, np.complexfloating):
        found = {name: a + 1j * drawn.randn(*a.shape) for name, a in found.items()}
    return found


def torch_state(optimizer: Any, params: list[torch.nn.Parameter], steps: int = STEPS) -> Any:
    """The state after some steps of given gradients."""
    for step in range(steps):
        grads = numbers(step + 1, np.complex128 if params[0].is_complex() else np.float64)
        for parameter, name in zip(params, SHAPES, strict=False):
            grad = torch.tensor(grads[name]).to(parameter.dtype)
            parameter.grad = grad.to_sparse() if is_sparse(optimizer) else grad
        optimizer.step(lambda: torch.tensor(0.0))
    return optimizer.state_dict()


def is_sparse(optimizer: Any) -> bool:
    return isinstance(optimizer, torch.optim.SparseAdam)


def torch_params(dtype: torch.dtype = torch.float64) -> list[torch.nn.Parameter]:
    drawn = numbers(0, np.complex128 if dtype.is_complex else np.float64)
    return [torch.nn.Parameter(torch.tensor(array).to(dtype)) for array in drawn.values()]


def state_of(make: Any) -> tuple[Any, Any]:
    params = {key: jnp.asarray(array) for key, array in numbers(0).items()}
    return make.init(params), tree_layout(params)
