"""The rows of docs/porting/layers.md, which stand in porting_layers_*.py.

A row's calls are given PyTorch's module, whose settings they read, its parameters by their names
and the inputs; they return its outputs, or these and its buffers.
"""

import functools
import importlib
import pkgutil
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import helpers
import jax
import jax.numpy as jnp
import numpy as np
import torch
from flax import nnx
from helpers.kit_parity import Port, Result, cast, gap, in_jax, in_torch, leaves
from helpers.layer_parity import (
    Layer,
    differences_from,
    given,
    in_pytorch,
    other_values,
    torch_function,
)
from helpers.porting_functions import tables as functions

from twinstep.jax.nn.rules import Rules

INTRO = """\
What to write for each layer of `torch.nn`; its losses are in [losses.md](losses.md).
`twinstep.jax.nn` has each under its name: the first column is PyTorch's call and the kit's. Beside
it stands what of Flax or JAX equals it, for those who need no kit, and what is often written and is
another layer. In Flax's calls `x` has its channels last, `rngs=rngs` is left out, and the weights
are PyTorch's: `nn.load_state_dict(layer, state_dict)` gives them, to layers without a rule with
`rules=`.

Off by is how far the naive port with the same weights is from PyTorch: the largest difference of an
output, a buffer or a gradient of an input or a weight, relative to PyTorch's largest entry, of a
call in float64; for first values, of their standard deviations. "Not finite": one is NaN or
infinite where the other is not; "other shapes": an output has another shape. Rows without a call
are a function each, of [functional.md](functional.md).

`ModuleList` is `nnx.List`, `ModuleDict` `nnx.Dict`, `Parameter` `nnx.Param`, and `ParameterList`
and `ParameterDict` are those of `nnx.Param`: the kit's have PyTorch's names for what is in them."""


FIRST = "first values"
SPREAD = 0.02  # of each side's standard deviation: of the 12,000 draws and more, three times theirs


class LayerPort(NamedTuple):
    """A row: how PyTorch's layer is made and called, and its port.

    of: what of it, or of which input; of FIRST the calls return {parameter: array}, which are drawn
        and so compared by their standard deviations
    """

    layer: Layer
    port: Port
    of: str = ""


def _modules() -> Iterator[Any]:
    for found in pkgutil.iter_modules(helpers.__path__):
        if found.name.startswith("porting_layers_"):
            yield importlib.import_module(f"helpers.{found.name}")


def every() -> Iterator[tuple[str, LayerPort]]:
    """(class, its row) of what is called."""
    for module in _modules():
        for name, rows in module.PORTS.items():
            yield from ((name, row) for row in rows)


def ports() -> dict[str, tuple[str, LayerPort]]:
    """{first cell: (class, its row)} of what is called."""
    return {cell_of(name, row): (name, row) for name, row in every()}


def as_functions() -> dict[str, str]:
    """{class: the function of torch.nn.functional that it is}"""
    return {k: v for module in _modules() for k, v in getattr(module, "FUNCTIONS", {}).items()}


def rows() -> dict[str, tuple[Port, Callable[[], float]]]:
    """{first cell: (what the row says, how far its naive port is off)}, by the classes' names."""
    found: list[tuple[str, str, Port, Callable[[], float]]] = [
        (name, cell, row.port, functools.partial(off_by, name, row))
        for cell, (name, row) in ports().items()
    ]
    known = {name: port for _, name, port, _ in functions()}
    for name, function in as_functions().items():
        why = f"[{function}](functional.md)" + (f": {w}" if (w := known[function].why) else "")
        port = Port(known[function].pure, None, None, None, why)
        found.append((name, f"`{name}`", port, lambda: 0.0))
    return {cell: (port, gap) for _, cell, port, gap in sorted(found, key=lambda row: row[0])}


def cell_of(name: str, row: LayerPort) -> str:
    """A row's first cell: PyTorch's call."""
    made = [*(_text("", value) for value in row.layer.args), *_keywords(row.layer.kwargs)]
    called = ["...", *_keywords(row.layer.options)]
    return (
        f"`{name}({', '.join(made)})"
        + ("" if row.layer.training else ".eval()")
        + (f"({', '.join(called)})" if row.layer.options else "")
        + ("`" if not row.of else f"`, {row.of}")
    )


def _keywords(options: Mapping[str, Any]) -> list[str]:
    return [f"{key}={_text(key, value)}" for key, value in options.items()]


def _text(key: str, value: Any) -> str:
    if isinstance(value, torch.nn.Module):
        return f"{type(value).__name__}(...)"
    return key if isinstance(value, np.ndarray) else repr(value)


def made_in_pytorch(name: str, row: LayerPort) -> Any:
    """PyTorch's module, with running statistics that are no first ones."""
    module = in_pytorch(name, row.layer, "float64")
    for buffer in module.buffers():
        if buffer.is_floating_point():
            buffer.add_(torch.linspace(0.1, 0.5, buffer.numel(), dtype=buffer.dtype))
    return module


def off_by(name: str, row: LayerPort) -> float:
    """How far its naive port is off, as `gap` has it; 0 where there is none."""
    if row.port.naive_call is None:
        return 0.0
    with jax.enable_x64(True):
        module = made_in_pytorch(name, row)
        if row.of == FIRST:
            return _gap_at_first(module, row.port.naive_call)
        args, kwargs = cast([list(row.layer.inputs), dict(row.layer.options)], "float64")
        args = [other_values(module), *args]
        wanted = in_torch(torch_function(module), args, kwargs)
        return gap(in_jax(functools.partial(row.port.naive_call, module), args, kwargs), wanted)


def _gap_at_first(module: Any, call: Callable[..., Any]) -> float:
    found = call(module)
    return gap(
        Result([np.std(found[name]) for name in found], {}),
        Result([module.state_dict()[name].std(correction=0).numpy() for name in found], {}),
    )


def differences(name: str, row: LayerPort, call: Any) -> list[str]:
    """What a call does otherwise than PyTorch's layer, a line each."""
    with jax.enable_x64(True):
        module = made_in_pytorch(name, row)
        if row.of == FIRST:
            off = _gap_at_first(module, call)
            return [] if off <= SPREAD else [f"spread is off by {off:.2g}, allowed {SPREAD}"]
        return differences_from(module, functools.partial(call, module), row.layer, jit=False)


def flax(kind: Any, params: Any, *args: Any, rules: Rules | None = None, **kwargs: Any) -> Any:
    """One of Flax's layers with PyTorch's weights."""
    layer = kind(*args, **kwargs, param_dtype=jnp.float64, rngs=nnx.Rngs(0))
    return given(layer, params, rules)


def first(kind: Any, *args: Any, **kwargs: Any) -> dict[str, Any]:
    """The first values of one of Flax's layers, by the last word of their names."""
    state = nnx.to_pure_dict(nnx.state(kind(*args, **kwargs, rngs=nnx.Rngs(0)), nnx.Param))
    return {path.rpartition(".")[2]: np.asarray(value) for path, value in leaves(state).items()}


def last(x: Any) -> jax.Array:
    """The channels last."""
    return jnp.moveaxis(x, 1, -1)


def second(x: Any) -> jax.Array:
    """The channels where PyTorch has them."""
    return jnp.moveaxis(x, -1, 1)


def drawn(*shape: int, seed: int = 0) -> Any:
    """Numbers of a normal distribution."""
    return np.random.default_rng(seed).normal(size=shape)
