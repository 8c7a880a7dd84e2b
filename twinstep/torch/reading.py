"""What a recorder reads off PyTorch: arrays, gradients, an optimizer's numbers, what runs."""

import numpy as np
import torch
from torch import nn

from twinstep.errors import InputError
from twinstep.torch import devices
from twinstep.trace.ledger import Metadata

_MANNERS = ("foreach", "fused", "capturable", "differentiable")


def array(tensor: torch.Tensor) -> np.ndarray:
    """A tensor's own memory, where it is the CPU's."""
    tensor = tensor.detach()
    return (tensor if tensor.device.type == "cpu" else tensor.cpu()).numpy()


def grad(parameter: nn.Parameter) -> np.ndarray:
    """What backpropagation left; zeros where it left nothing."""
    grad = parameter.grad
    if grad is None:
        return np.zeros(tuple(parameter.shape), array(parameter.new_empty(0)).dtype)
    if grad.is_sparse:  # summed as by the optimizer
        grad = grad.coalesce().to_dense()
    return array(grad)


def joined(parts: list[torch.Tensor]) -> np.ndarray:
    """The parts of a batch one after the other, (N, ...)."""
    arrays = [array(part) for part in parts]
    return arrays[0] if len(arrays) == 1 else np.concatenate(list(map(np.atleast_1d, arrays)))


def numbers(optimizer: torch.optim.Optimizer) -> dict[str, float]:
    """{"group.name": value}: each number of each group, but for those that say how to compute."""
    found: dict[str, float] = {}
    for i, group in enumerate(optimizer.param_groups):
        for key, value in ((k, v) for k, v in group.items() if k not in _MANNERS):
            several = enumerate(value) if type(value) is tuple else [(None, value)]
            for k, number in several:
                if isinstance(number, torch.Tensor) and number.ndim == 0:
                    number = number.item()
                if isinstance(number, int | float):
                    found[f"{i}.{key}" if k is None else f"{i}.{key}.{k}"] = float(number)
    return found


def metadata(parameters: list[nn.Parameter]) -> Metadata:
    """What runs, of a loop of one's own. InputError for parameters of a dtype that is not kept."""
    kinds = {str(p.dtype).removeprefix("torch."): p for p in parameters}
    if len(kinds) > 1 or not kinds.keys() <= {"float32", "float64"}:
        raise InputError(
            f"parameters are {' and '.join(sorted(kinds))}, expected all float32 or all float64"
        )
    (dtype,) = kinds
    device = parameters[0].device
    return Metadata(
        example=None,
        spec=None,
        framework="torch",
        dtype=dtype,
        device=devices.name(device),
        precision=devices.in_force(dtype, device),
        versions=devices.versions(),
    )
