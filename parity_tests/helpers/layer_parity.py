"""Whether a layer of the kit is PyTorch's: first values, outputs, gradients, buffers, in training
and not. Both are made after the same seed, so that what is drawn has to be the same too.

PyTorch's own table of modules (module_db) has settings and inputs of most classes; LAYERS, in
helpers/layers_*.py, those that it lacks.
"""

import copy
import functools
import importlib
import inspect
import pkgutil
import typing
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import helpers
import jax
import jax.numpy as jnp
import numpy as np
import torch
from flax import nnx
from helpers.kit_parity import (
    Array,
    cast,
    compared,
    in_jax,
    in_torch,
    mapped,
    nudged,
)
from torch.func import functional_call

from twinstep.jax import nn
from twinstep.jax.nn.rules import Rules
from twinstep.jax.nn.weights import entries


class Layer(NamedTuple):
    """How a class is made and called. Arrays are NumPy's; modules and functions PyTorch's.

    main: what is allowed of the largest entry in float64, where it is not 1e-13
    """

    args: Sequence[Any] = ()
    kwargs: Mapping[str, Any] = {}
    inputs: Sequence[Any] = ()
    options: Mapping[str, Any] = {}
    training: bool = True
    main: float | None = None


MAIN = {"MultiheadAttention": 1e-12, "CTCLoss": 1e-12}
"""Of those that were measured to need more than 1e-13: transformers' attention, CTC's sums."""


WHOLE = ("SoftMarginLoss",)
"""Of which PyTorch does not derive the target: it is given as whole numbers."""


def _plain(value: Any) -> Any:
    return mapped(value, lambda _, v: v.detach().numpy() if isinstance(v, torch.Tensor) else v)


@functools.cache
def of_pytorch() -> dict[str, list[Layer]]:
    """{class: its rows in PyTorch's table}, in training and, where that differs, in evaluation."""
    from torch.testing._internal.common_modules import module_db

    found: dict[str, list[Layer]] = {}
    for info in module_db:
        name = info.module_cls.__name__
        if name.startswith("Lazy") or not info.module_cls.__module__.startswith("torch.nn.modules"):
            continue
        for training in (True, False) if info.train_and_eval_differ else (True,):
            torch.manual_seed(0)
            rows = info.module_inputs_func(
                info, device="cpu", dtype=torch.float64, requires_grad=False, training=training
            )
            for row in rows:
                made, called = row.constructor_input, row.forward_input
                if made.kwargs.get("options") is not None:
                    continue  # the same rows again, of how PyTorch cuts up its work
                if name in WHOLE:
                    called.args = [called.args[0], *(a.long() for a in called.args[1:])]
                found.setdefault(name, []).append(
                    Layer(
                        _plain(list(made.args)), _plain(dict(made.kwargs)),
                        _plain(list(called.args)), _plain(dict(called.kwargs)), training,
                    )
                )  # fmt: skip
    return found


def of_ours() -> dict[str, list[Layer]]:
    """{class: rows of our own}"""
    found: dict[str, list[Layer]] = {}
    for one in pkgutil.iter_modules(helpers.__path__):
        if one.name.startswith("layers_"):
            for name, rows in importlib.import_module(f"helpers.{one.name}").LAYERS.items():
                found.setdefault(name, []).extend(rows)
    return found


def layers() -> dict[str, list[Layer]]:
    """{class: all its rows}, of classes that the kit has; our own rows come first."""
    every = of_ours()
    for name, rows in of_pytorch().items():
        every.setdefault(name, []).extend(rows)
    return {name: rows for name, rows in sorted(every.items()) if hasattr(nn, name)}


def _ported(value: Any) -> Any:
    if isinstance(value, torch.nn.Module):
        return nn.from_torch(value)
    if isinstance(value, np.ndarray):
        return jnp.asarray(value)
    if isinstance(value, torch.dtype):
        return str(value).removeprefix("torch.")
    if callable(value) and getattr(value, "__module__", "").startswith("torch"):
        return getattr(nn.functional, value.__name__)
    return value


def in_pytorch(name: str, layer: Layer, dtype: str) -> Any:
    """PyTorch's module."""
    args, kwargs = mapped(
        cast([list(layer.args), dict(layer.kwargs)], dtype),
        lambda _, v: torch.tensor(v) if isinstance(v, np.ndarray) else v,
    )
    before = torch.get_default_dtype()
    torch.set_default_dtype(getattr(torch, dtype))
    torch.manual_seed(0)
    with warnings.catch_warnings(action="ignore"):  # of slow paths and former names
        module = getattr(torch.nn, name)(*args, **kwargs).to(getattr(torch, dtype))
    torch.set_default_dtype(before)
    return module.train(layer.training)


def in_kit(name: str, layer: Layer, dtype: str) -> Any:
    """The kit's."""
    args, kwargs = mapped(
        cast([list(layer.args), dict(layer.kwargs)], dtype), lambda _, v: _ported(v)
    )
    if "dtype" in kwargs:
        kwargs["dtype"] = dtype
    nn.manual_seed(0)
    return getattr(nn, name)(*args, **kwargs).train(layer.training)


def apart_at_first(name: str, layer: Layer) -> list[str]:
    """What of the first values is not PyTorch's, bit for bit, a line each."""
    with jax.enable_x64(True):
        ours = nn.state_dict(in_kit(name, layer, "float64"))
        theirs = in_pytorch(name, layer, "float64").state_dict()
        if list(ours) != list(theirs):
            return [f"names are {list(ours)}, expected {list(theirs)}"]
        return [
            f"first value of {key} is not PyTorch's"
            for key, array in theirs.items()
            if not np.array_equal(np.asarray(ours[key]), array.numpy())
            or np.asarray(ours[key]).dtype != array.numpy().dtype
        ]


def other_values(module: Any) -> dict[str, Array]:
    """Parameters that are no layer's first ones, of which many are 0 or 1."""
    rng = np.random.default_rng(3)
    return {
        name: (p.detach().numpy() + rng.normal(0, 0.1, p.shape)).astype(p.detach().numpy().dtype)
        for name, p in module.named_parameters()
    }


def torch_function(module: Any) -> Callable[..., Any]:
    """(parameters, *inputs) -> (outputs, buffers) of PyTorch's module, each time from the start."""
    state = torch.get_rng_state()

    def called(params: Any, *inputs: Any, **options: Any) -> Any:
        torch.set_rng_state(state)
        with warnings.catch_warnings(action="ignore"):
            fresh = copy.deepcopy(module)
            output = functional_call(fresh, params, inputs, options)
        return output, dict(sorted(fresh.named_buffers()))  # as what is jitted gives a dict

    return called


DRAWN = "drawn"
"""The argument of a kit's function that has what its module draws from."""


def drawn_from(module: Any) -> dict[str, Array]:
    """The words that a module draws from: arguments, or it is refused where it is jitted."""
    words = jax.tree.leaves(nnx.state(module, nnx.RngState))
    return {str(i): np.array(array) for i, array in enumerate(words)}


def given(module: Any, params: Any, rules: Rules | None = None) -> Any:
    """A module with PyTorch's arrays, as load_state_dict gives them, which derives by none."""
    found = entries(module, rules)
    for name, array in params.items():
        found[name].variable[...] = found[name].to_jax(array)
    return module


def kit_function(module: Any) -> Callable[..., Any]:
    """The same of the kit's."""
    parts: Any = nnx.split(module, nnx.RngState, ...)
    graph, drawn, state = parts
    held = jax.tree.structure(drawn)

    def called(params: Any, *inputs: Any, **options: Any) -> Any:
        words = jax.tree.unflatten(held, options.pop(DRAWN).values())
        fresh = given(nnx.merge(graph, words, state, copy=True), params)
        output = fresh(*inputs, **options)
        return output, {name: buffer[...] for name, buffer in sorted(fresh.named_buffers())}

    return called


def differences_of_layer(
    name: str,
    layer: Layer,
    dtype: str = "float64",
    jit: bool | None = None,
    ours: Callable[[], Any] | None = None,
) -> list[str]:
    """What the kit's layer does otherwise than PyTorch's, a line each.

    jit: only compiled, or only eagerly; None: both. ours: what makes the kit's in its place
    """
    with jax.enable_x64(dtype == "float64"):
        module = in_pytorch(name, layer, dtype)
        made = ours() if ours else in_kit(name, layer, dtype)
        return differences_from(
            module, kit_function(made), layer, dtype, jit, {DRAWN: drawn_from(made)}
        )


def differences_from(
    module: Any,
    function: Callable[..., Any],
    layer: Layer,
    dtype: str = "float64",
    jit: bool | None = None,
    more: Mapping[str, Any] = {},
) -> list[str]:
    """What a function of (parameters, *inputs) does otherwise than PyTorch's module, a line each.

    more: keywords of the function's own
    """
    theirs = torch_function(module)
    args, kwargs = cast([list(layer.inputs), dict(layer.options)], dtype)
    args = [other_values(module), *args]
    wanted = in_torch(theirs, args, kwargs)
    moved = [in_torch(theirs, *nudged([args, kwargs], seed)) for seed in (1, 2)]
    main = layer.main or next((v for k, v in MAIN.items() if k in type(module).__name__), None)
    return [
        f"{'jit' if way else 'eager'}, {dtype}: {line}"
        for way in ((False, True) if jit is None else (jit,))
        for line in compared(
            in_jax(function, args, {**kwargs, **more}, way),
            wanted, moved, [args, kwargs], dtype, main,
        )
    ]  # fmt: skip


def same_arguments(name: str) -> list[str]:
    """What of the kit's signature is not PyTorch's, a line each."""
    made = getattr(torch.nn, name).__init__
    made = next(iter(typing.get_overloads(made)), made)  # recurrent layers take *args
    theirs = inspect.signature(made).parameters
    ours = inspect.signature(getattr(nn, name).__init__).parameters
    wrong = []
    positional = [n for n, p in ours.items() if p.kind is not p.KEYWORD_ONLY]
    if positional != [n for n in theirs if n in positional] or {*theirs} - {*ours}:
        wrong.append(f"arguments are {positional}, expected {list(theirs)}")
    for key in theirs.keys() & ours.keys():
        if ours[key].default != _ported(theirs[key].default):
            wrong.append(
                f"{key} is {ours[key].default} by default, in PyTorch {theirs[key].default}"
            )
    return wrong
