"""An optimizer from PyTorch's own description of it: its name and keywords, or one of its objects.

PyTorch is not imported: its objects are asked what they hold.
"""

import inspect
from collections import abc
from collections.abc import Iterable, Sequence
from typing import Any

import optax

from twinstep.errors import InputError, nearest
from twinstep.jax.mapping import Mapping
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
from twinstep.jax.optim._torch_objects import by_steps, check_scheduler, torch_name
from twinstep.jax.optim._torch_scheduler import schedule_of
from twinstep.jax.optim.groups import Factory, made, param_groups
from twinstep.jax.optim.lr_scheduler import Schedule
from twinstep.jax.trees import by_name

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
    scheduler: Any = None,
    **options: Any,
) -> optax.GradientTransformation:
    """An optimizer by PyTorch's name and keywords, or from one of PyTorch's own optimizers.

    `from_torch("Adam", lr=1e-2)`, or `from_torch(torch_optimizer, model.named_parameters())`.
    PyTorch is not imported: its objects are asked what they hold.

    Args:
        optimizer: A name in torch.optim; or one of its optimizers, whose options are taken as they
            are now, the state is not (see `opt_state_from_torch`). Parameters of a group that have
            made different numbers of steps are put in groups of their own.
        named_parameters: (name, parameter) of each, where the optimizer does not know its
            parameters' names itself; what has `requires_grad = False` stays where it is. Without
            names, one group is all parameters of the tree, each of which has to learn, and several
            are its leaves by number, of a list in their order; `init` looks at their number and
            shapes.
        layout: As for `param_groups`: the model's, for PyTorch's names.
        scheduler: The one of torch.optim.lr_scheduler that moves the optimizer object's learning
            rate, if any does, from its start on. A step of it is an update here.
        options: PyTorch's own keywords, beside a name. foreach, fused, capturable and
            differentiable are accepted, and change nothing.

    Returns:
        The optimizer, as its function here makes it; over groups or names, as `param_groups` does.

    Raises:
        InputError: For a name that is not there, a keyword that PyTorch's has not, a value that it
            refuses, keywords beside an object, or a parameter that named_parameters does not have;
            an object that is not torch.optim's own, or whose step is another's; a scheduler that is
            not given, or is none of PyTorch's own, or ReduceLROnPlateau, which asks for losses.

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
        return _of_object(optimizer, named_parameters, layout, scheduler)
    if scheduler is not None:
        raise InputError("from_torch: scheduler is given, expected it with an optimizer object")
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
    optimizer: Any,
    named_parameters: Iterable[tuple[str, Any]] | None,
    layout: Mapping | None,
    scheduler: Any,
) -> optax.GradientTransformation:
    name = torch_name(optimizer, TORCH)
    check_scheduler(optimizer, scheduler)
    known = torch_options(name)
    names = None if named_parameters is None else {id(p): n for n, p in named_parameters}
    groups: list[dict[str, Any]] = []
    every = [p for group in optimizer.param_groups for p in group["params"]]
    for number, group in enumerate(optimizer.param_groups):
        options = {key: value for key, value in group.items() if key in known}
        _check(name, options)
        options = _numbers(options)
        if scheduler is not None:
            options |= _scheduled(schedule_of(scheduler, number), options)
        called = _names(number, group, names, every)
        parts = [called] if name == "LBFGS" else by_steps(optimizer, called)
        groups += [options | {"params": [called for called, _ in part]} for part in parts]
    shapes = [tuple(p.shape) for p in every]
    if names is not None or "param_names" in optimizer.param_groups[0]:
        return param_groups(groups, TORCH[name], layout=layout)
    if len(optimizer.param_groups) > 1:
        return _with_shapes(param_groups(groups, TORCH[name], layout=layout), shapes, is_list=True)
    if len(groups) > 1 or not all(p.requires_grad for p in every):
        what = "made another number of steps than others" if len(groups) > 1 else "no gradient"
        raise InputError(f"from_torch: a parameter has {what}, expected named_parameters with it")
    del groups[0]["params"]
    return _with_shapes(made(TORCH[name], name, groups[0]), shapes, is_list=False)


def _names(
    number: int,
    group: abc.Mapping[str, Any],
    names: abc.Mapping[int, str] | None,
    every: Sequence[Any],
) -> list[tuple[str | int, Any]]:
    """(what it is called, parameter) of a group, those without a gradient left out."""
    called: list[str | int]
    if names is not None:
        if any(id(parameter) not in names for parameter in group["params"]):
            raise InputError(
                f"from_torch: group {number} has a parameter that is not in named_parameters"
            )
        called = [names[id(parameter)] for parameter in group["params"]]
    elif "param_names" in group:
        called = list(group["param_names"])
    else:
        places = {id(parameter): place for place, parameter in enumerate(every)}
        called = [places[id(parameter)] for parameter in group["params"]]
    return [(c, p) for c, p in zip(called, group["params"], strict=True) if p.requires_grad]


def _scheduled(schedule: Schedule, options: abc.Mapping[str, Any]) -> dict[str, Any]:
    """The options that a schedule moves."""
    moved: dict[str, Any] = {"lr": schedule}
    if schedule.momentum is not None:
        if "betas" in options:
            return moved | {"betas": (schedule.momentum, *options["betas"][1:])}
        return moved | {"momentum": schedule.momentum}
    return moved


def _with_shapes(
    optimizer: optax.GradientTransformation, shapes: Sequence[tuple[int, ...]], *, is_list: bool
) -> optax.GradientTransformationExtraArgs:
    """The same for a tree of as many parameters as PyTorch's has, of its shapes up to their axes.

    is_list: in PyTorch's order
    """
    optimizer = optax.with_extra_args_support(optimizer)

    def init(params: optax.Params) -> optax.OptState:
        found = by_name(params)
        if len(found) != len(shapes):
            raise InputError(
                f"from_torch: the tree has {len(found)} parameters, the optimizer {len(shapes)}, "
                "expected as many, or named_parameters"
            )
        left = [sorted(shape) for shape in shapes]
        for name, leaf in found.items():
            size = sorted(leaf.shape)
            if size not in left[: 1 if is_list else None]:
                raise InputError(
                    f"from_torch: parameter {name!r} has shape {leaf.shape}, which the optimizer's "
                    "has not, expected the same parameters, or named_parameters"
                )
            left.remove(size)
        return optimizer.init(params)

    return optax.GradientTransformationExtraArgs(init, optimizer.update)


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
