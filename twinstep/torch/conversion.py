"""Between PyTorch's modules and arrays by name."""

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
    expected = dict(model.named_parameters())
    if odd := sorted(expected.keys() ^ state.keys()):
        side = "missing" if odd[0] in expected else "unknown"
        raise InputError(f"parameter {odd[0]!r} is {side}")
    for name, tensor in state.items():
        if tensor.shape != expected[name].shape:
            shape = tuple(expected[name].shape)
            raise InputError(
                f"parameter {name!r} has shape {tuple(tensor.shape)}, expected {shape}"
            )
    for name, tensor in state.items():
        expected[name].data.copy_(tensor)


def named_opt_state(
    names: Mapping[nn.Parameter, str], optimizer: torch.optim.Optimizer
) -> dict[str, torch.Tensor]:
    """The optimizer's state by name: `weight.exp_avg`, for every parameter that has some.

    SparseAdam counts its steps in a number: a scalar, as the others have it.
    """
    if isinstance(optimizer, torch.optim.LBFGS):
        return _lbfgs_state(names, optimizer)
    return {
        f"{name}.{key}": value if isinstance(value, torch.Tensor) else torch.tensor(float(value))
        for parameter, name in names.items()
        for key, value in optimizer.state.get(parameter, {}).items()
        if isinstance(value, _KEPT)
    }


def _lbfgs_state(
    names: Mapping[nn.Parameter, str], optimizer: torch.optim.LBFGS
) -> dict[str, torch.Tensor]:
    """LBFGS's, of all parameters together and kept with the first, in arrays of fixed shapes.

    Its lists, that grow up to history_size, are rows, oldest first and zeros after the last;
    `stored` is their length. What there is not yet is as it counts: 0, but for the scale H_diag.
    """
    (group,) = optimizer.param_groups
    first = group["params"][0]
    state = optimizer.state[first]
    name = names[first]
    entries = sum(parameter.numel() for parameter in group["params"])
    found = {"stored": first.new_tensor(len(state.get("old_dirs", ())))}
    for key in ("func_evals", "n_iter", "t", "prev_loss"):
        found[key] = first.new_tensor(float(state.get(key, 0)))
    found["H_diag"] = first.new_tensor(float(state.get("H_diag", 1)))
    for key in ("d", "prev_flat_grad"):
        found[key] = state.get(key, first.new_zeros(entries))
    for key, shape in (("old_dirs", (entries,)), ("old_stps", (entries,)), ("ro", ())):
        found[key] = first.new_zeros((group["history_size"], *shape))
        for row, value in enumerate(state.get(key, ())):
            found[key][row] = value
    return {f"{name}.{key}": value.detach() for key, value in found.items()}
