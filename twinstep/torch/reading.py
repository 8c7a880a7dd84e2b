"""What a recorder reads off PyTorch: arrays, gradients, an optimizer's numbers, what runs."""

import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from twinstep.errors import InputError
from twinstep.torch import devices
from twinstep.trace import dtypes
from twinstep.trace.ledger import Metadata

_FLOAT8 = {d for n in dir(torch) if n.startswith("float8_") for d in [getattr(torch, n)]}
_WHOLE = (torch.Tensor, nn.Parameter)  # asked first: it is quicker
_PLAIN = (bool, str, type(None))
_MANNERS = ("foreach", "fused", "capturable", "differentiable")


def local(tensor: torch.Tensor) -> torch.Tensor:
    """Of a tensor that is spread over processes, what this one holds."""
    if type(tensor) in _WHOLE or not hasattr(tensor, "to_local"):
        return tensor
    here: torch.Tensor = tensor.to_local()
    return here


def place(tensor: Any) -> dict[str, list[int]] | None:
    """Where what this process holds of a tensor stands in the whole; None: it is the whole."""
    if local(tensor) is tensor:
        return None
    from torch.distributed.tensor._utils import compute_local_shape_and_global_offset

    _, at = compute_local_shape_and_global_offset(
        tensor.shape, tensor.device_mesh, tensor.placements
    )
    return {"shape": [*tensor.shape], "at": [*at]}


def array(tensor: torch.Tensor) -> np.ndarray:
    """A tensor's own memory, where it is the CPU's; of a dtype that NumPy lacks, its bits."""
    tensor = local(tensor)
    if tensor.requires_grad:
        tensor = tensor.detach()
    tensor = (tensor if tensor.is_cpu else tensor.cpu()).resolve_conj().resolve_neg()
    if tensor.dtype == torch.bfloat16:
        return tensor.view(torch.int16).numpy().view(dtypes.bfloat16())
    if tensor.dtype in _FLOAT8:  # under their name, by which they are refused
        kind = str(tensor.dtype).removeprefix("torch.")
        return tensor.view(torch.uint8).numpy().view([(kind, "u1")])
    return tensor.numpy()


def backpropagated(tensors: Any, weights: Any) -> float | None:
    """The sum of what `backward` is called on, each times the gradient that it is given.

    None where that is no number.
    """
    if isinstance(tensors, torch.Tensor) and weights is None:
        return tensors.item() if tensors.numel() == 1 else None
    outputs = [tensors] if isinstance(tensors, torch.Tensor) else list(tensors)
    weights_of = weights if isinstance(weights, Sequence) else [weights] * len(outputs)
    return sum(
        output.item() if factor is None else (output * factor).detach().sum().item()
        for output, factor in zip(outputs, weights_of, strict=True)
    )


def same(one: np.ndarray, other: np.ndarray) -> bool:
    """Whether two arrays of one shape have the same bits; a NaN is itself."""
    if one.dtype != other.dtype or one.shape != other.shape:
        return False
    if not (one.flags.c_contiguous and other.flags.c_contiguous):
        return one.tobytes() == other.tobytes()
    kind = f"u{min(8, one.dtype.itemsize)}"
    return np.array_equal(one.reshape(-1).view(kind), other.reshape(-1).view(kind))


class Views:
    """The memory of tensors as arrays, each made once as long as it stays.

    A view shows what is written to the tensor afterwards.
    """

    def __init__(self) -> None:
        self._kept: dict[str, tuple[torch.Tensor, int, np.ndarray]] = {}
        self._grads: dict[nn.Parameter, tuple[torch.Tensor, int, np.ndarray]] = {}

    def of(self, name: str, tensor: torch.Tensor) -> np.ndarray:
        """That of what bears a name."""
        return _view(self._kept, name, tensor)

    def grad(self, parameter: nn.Parameter) -> np.ndarray:
        """A gradient's; there has to be one."""
        tensor: Any = parameter.grad
        if tensor.is_sparse:  # summed as by the optimizer
            return array(tensor.coalesce().to_dense())
        return _view(self._grads, parameter, tensor)

    def forget(self) -> None:
        """Lets the gradients go: a loop that clears them wants their memory."""
        self._grads.clear()


def _view(held: dict[Any, Any], key: Any, tensor: torch.Tensor) -> np.ndarray:
    """A tensor's memory, from those that are held if it is that very one: `.data` may move it."""
    known = held.get(key)
    if known is not None and known[0] is tensor and known[1] == tensor.data_ptr():
        found: np.ndarray = known[2]
        return found
    found = array(tensor)
    copied = not tensor.is_cpu or tensor.is_conj() or tensor.is_neg()
    if not copied and local(tensor) is tensor:
        held[key] = tensor, tensor.data_ptr(), found
    return found


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


def settings(optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """What of its first group is no number: in which manner it computes, and words."""
    group = optimizer.param_groups[0].items()
    return {
        key: value
        for key, value in group
        if (key in _MANNERS or not isinstance(value, float | int)) and type(value) in _PLAIN
    }


def check_alone() -> None:
    """InputError where other processes are called to train with this one."""
    rpc = sys.modules.get("torch.distributed.rpc")
    if rpc is not None and rpc.is_available() and rpc.api._is_current_rpc_agent_set():
        raise InputError(
            "torch.distributed.rpc runs: what is updated through it, in other processes, is not "
            "seen; record a program that trains without it"
        )


def check_own(parameters: Mapping[nn.Parameter, str]) -> None:
    """InputError for what other processes may update meanwhile, or hold without a group."""
    check_alone()
    group = torch.distributed.is_available() and torch.distributed.is_initialized()
    for parameter, name in parameters.items():
        if parameter.is_cpu and local(parameter).is_shared():
            raise InputError(
                f"parameter {name!r} is in memory that processes share (hogwild): what others "
                "change in it is not seen; record one process that trains by itself"
            )
        if not group and local(parameter) is not parameter:
            raise InputError(
                f"parameter {name!r} is sharded, and no process group is there that holds its "
                "shards: call torch.distributed.init_process_group first"
            )


def dtype_name(parameter: torch.Tensor) -> str:
    """Without the framework's name."""
    return str(parameter.dtype).removeprefix("torch.")


def dtype_of_run(parameters: Mapping[nn.Parameter, str]) -> str:
    """In which its losses are kept. InputError for parameters of a dtype that is not kept."""
    return dtypes.of_run({name: dtype_name(p) for p, name in parameters.items()})


def metadata(parameters: Mapping[nn.Parameter, str]) -> Metadata:
    """What runs, of a loop of one's own. InputError for parameters of a dtype that is not kept."""
    dtype = dtype_of_run(parameters)
    device = next(iter(parameters)).device
    return Metadata(
        example=None,
        spec=None,
        framework="torch",
        dtype=dtype,
        device=devices.name(device),
        precision=devices.in_force(dtype, device),
        versions=devices.versions(),
    )
