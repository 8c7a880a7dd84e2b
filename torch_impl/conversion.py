"""Between PyTorch's modules and arrays by name.

Mirror: jax_impl/conversion.py
"""

from collections.abc import Mapping

import numpy as np
import torch
from torch import nn

from twinstep.errors import InputError

_KEPT = (torch.Tensor, float, int)


def load_params(model: nn.Module, named: Mapping[str, np.ndarray]) -> None:
    """Gives a model the arrays; copies, so that no update reaches the spec's own.

    InputError where names or shapes differ.
    """
    state = {name: torch.tensor(array) for name, array in named.items()}
    expected = model.state_dict()
    if odd := sorted(expected.keys() ^ state.keys()):
        side = "missing" if odd[0] in expected else "unknown"
        raise InputError(f"parameter {odd[0]!r} is {side}")
    for name, tensor in state.items():
        if tensor.shape != expected[name].shape:
            shape = tuple(expected[name].shape)
            raise InputError(
                f"parameter {name!r} has shape {tuple(tensor.shape)}, expected {shape}"
            )
    model.load_state_dict(state)


def opt_state(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    """The optimizer's state by name: `weight.exp_avg`, for every parameter that has some.

    SparseAdam counts its steps in a number: a scalar, as the others have it.
    """
    return {
        f"{name}.{key}": value if isinstance(value, torch.Tensor) else torch.tensor(float(value))
        for name, parameter in model.named_parameters()
        for key, value in optimizer.state.get(parameter, {}).items()
        if isinstance(value, _KEPT)
    }
