"""An optimizer from PyTorch's own description of it: its name and keywords, or one of its objects.

PyTorch is not imported: its objects are asked for their class' name, their groups and defaults.
"""

import inspect
from collections import abc
from collections.abc import Iterable
from typing import Any

import optax

from twinstep.errors import InputError, nearest
from twinstep.jax.layout import Mapping
from twinstep.jax.optim._adadelta import adadelta
from twinstep.jax.optim._adafactor import adafactor
from twinstep.jax.optim._adagrad import adagrad
from twinstep.jax.optim._adam import adam, adamw
from twinstep.jax.optim._adamax import adamax
from twinstep.jax.optim._asgd import asgd
from twinstep.jax.optim._lbfgs import lbfgs
from twinstep.jax.optim._muon import muon
from twinstep.jax.optim._nadam import nadam
from twinstep.jax.optim._radam import radam
from twinstep.jax.optim._rmsprop import rmsprop
from twinstep.jax.optim._rprop import rprop
from twinstep.jax.optim._sgd import sgd
from twinstep.jax.optim._sparse_adam import sparse_adam
from twinstep.jax.optim.groups import Factory, made, param_groups

TORCH: dict[str, Factory] = {
    "Adadelta": adadelta,
    "Adafactor": adafactor,
    "Adagrad": adagrad,
    "Adam": adam,
    "AdamW": adamw,
    "Adamax": adamax,
    "ASGD": asgd,
    "LBFGS": lbfgs,
    "Muon": muon,
    "NAdam": nadam,
    "RAdam": radam,
    "RMSprop": rmsprop,
    "Rprop": rprop,
    "SGD": sgd,
    "SparseAdam": sparse_adam,
}
"""{name in torch.optim: the same here}"""

FLAGS = ("foreach", "fused", "capturable", "differentiable")
"""Keywords that choose how PyTorch computes, not what."""

_OURS = ("round_to_bfloat16",)  # what PyTorch's optimizers have no keyword for
_TENSOR_BETAS = ("Adam", "AdamW")  # look at what kind of number they are given


def from_torch(
    optimizer: Any,
    named_parameters: Iterable[tuple[str, Any]] | None = None,
    *,
    layout: Mapping | None = None,
    **options: Any,
) -> optax.GradientTransformation:
    """An optimizer by PyTorch's name and keywords, or from one of PyTorch's own optimizers.

    `from_torch("Adam", lr=1e-2)`, or `from_torch(torch_optimizer, model.named_parameters())`.
    PyTorch is not imported: its objects are asked what they hold.

    Args:
        optimizer: A name in torch.optim; or one of its optimizers, whose options are taken as they
            are now, the state is not (see `opt_state_from_torch`).
        named_parameters: (name, parameter) of each, where the optimizer does not know its
            parameters' names itself; what has `requires_grad = False` stays where it is. Without
            names, one group is all parameters of the tree, and several are its leaves by number, of
            a list in their order.
        layout: As for `param_groups`: the model's, for PyTorch's names.
        options: PyTorch's own keywords, beside a name. foreach, fused, capturable and
            differentiable are accepted, and change nothing.

    Returns:
        The optimizer, as its function here makes it; over groups or names, as `param_groups` does.

    Raises:
        InputError: For a name that is not there, a keyword that PyTorch's has not, a value that it
            refuses, keywords beside an object, or a parameter that named_parameters does not have.

    Example:
        >>> import jax.numpy as jnp
        >>> import torch
        >>> from twinstep.jax.optim import from_torch
        >>> theirs = torch.optim.SGD(torch.nn.Linear(2, 1).parameters(), lr=0.5)
        >>> params = {"weight": jnp.ones((1, 2)), "bias": jnp.ones(1)}
        >>> for optimizer in (from_torch(theirs), from_torch("SGD", lr=0.5)):
        ...     updates, _ = optimizer.update(params, optimizer.init(params), params)
        ...     print(updates["bias"])
        [-0.5]
        [-0.5]

    Source: https://docs.pytorch.org/docs/stable/optim.html
    """
    if not isinstance(optimizer, str):
        if options:
            raise InputError(f"from_torch: {next(iter(options))} is given, expected it of a name")
        return _of_object(optimizer, named_parameters, layout)
    _check(optimizer, options)
    return made(TORCH[optimizer], optimizer, _numbers(options))


def torch_options(name: str) -> dict[str, Any]:
    """PyTorch's keywords of an optimizer, and its defaults.

    Args:
        name: A name in torch.optim, such as "AdamW".

    Returns:
        {keyword: default}.

    Raises:
        InputError: For a name that is not there; it says which are near.

    Example:
        >>> from twinstep.jax.optim import torch_options
        >>> torch_options("AdamW")["weight_decay"], torch_options("Adam")["weight_decay"]
        (0.01, 0.0)

    Source: https://docs.pytorch.org/docs/stable/optim.html#algorithms
    """
    if name not in TORCH:
        raise InputError(f"optimizer is {name!r}, {nearest(name, TORCH)}")
    parameters = inspect.signature(TORCH[name]).parameters
    return {key: p.default for key, p in parameters.items() if key not in _OURS}


def _of_object(
    optimizer: Any, named_parameters: Iterable[tuple[str, Any]] | None, layout: Mapping | None
) -> optax.GradientTransformation:
    kinds = [kind.__name__ for kind in type(optimizer).__mro__]
    name = next((kind for kind in kinds if kind in TORCH), kinds[0])
    if not hasattr(optimizer, "param_groups"):
        raise InputError(f"from_torch: optimizer is {optimizer!r}, expected a name or an optimizer")
    known = torch_options(name)
    names = None if named_parameters is None else {id(p): n for n, p in named_parameters}
    groups, first = [], 0
    for number, group in enumerate(optimizer.param_groups):
        options = {key: value for key, value in group.items() if key in known}
        _check(name, options)
        groups.append(_numbers(options) | {"params": _names(number, group, names, first)})
        first += len(group["params"])
    if len(groups) == 1 and names is None and "param_names" not in optimizer.param_groups[0]:
        del groups[0]["params"]
        return made(TORCH[name], name, groups[0])
    return param_groups(groups, TORCH[name], layout=layout)


def _names(
    number: int, group: abc.Mapping[str, Any], names: abc.Mapping[int, str] | None, first: int
) -> list[str | int]:
    """What a group's parameters are called, those without a gradient left out."""
    if names is not None:
        if any(id(parameter) not in names for parameter in group["params"]):
            raise InputError(
                f"from_torch: group {number} has a parameter that is not in named_parameters"
            )
        called: list[str | int] = [names[id(parameter)] for parameter in group["params"]]
    else:
        called = list(group.get("param_names", range(first, first + len(group["params"]))))
    return [c for c, p in zip(called, group["params"], strict=True) if p.requires_grad]


def _check(name: str, options: abc.Mapping[str, Any]) -> None:
    """Refuses what PyTorch refuses before it looks at the numbers themselves."""
    known = torch_options(name)
    if odd := [key for key in options if key not in known]:
        raise InputError(f"{name}: keyword {odd[0]!r} is unknown, {nearest(odd[0], known)}")
    if (size := getattr(options.get("lr"), "numel", lambda: 1)()) != 1:
        raise InputError(f"{name}: lr has {size} entries, expected one")
    by_list = options.get("foreach") and not options.get("capturable")
    if options.get("fused"):
        if options.get("differentiable"):
            raise InputError(f"{name}: fused and differentiable are both set, expected one")
        if options.get("foreach"):
            raise InputError(f"{name}: fused and foreach are both set, expected one")
    if name in _TENSOR_BETAS:
        betas = options.get("betas", (0.9, 0.999))
        tensors = [_is_tensor(beta) for beta in betas] if isinstance(betas, tuple | list) else []
        if any(tensors) and not all(tensors):
            raise InputError(f"{name}: betas is {betas!r}, expected two floats or two tensors")
        for key, given in (("lr", _is_tensor(options.get("lr"))), ("betas", any(tensors))):
            if given and by_list:
                raise InputError(f"{name}: {key} is a tensor, expected a number with foreach")


def _is_tensor(value: Any) -> bool:
    return hasattr(value, "numel")


def _numbers(options: abc.Mapping[str, Any]) -> dict[str, Any]:
    """The options with tensors as the numbers in them."""

    def plain(value: Any) -> Any:
        if isinstance(value, tuple | list):
            return tuple(map(plain, value))
        if _is_tensor(value):
            return value.item() if value.numel() == 1 else tuple(value.tolist())
        return value

    return {key: plain(value) for key, value in options.items()}
