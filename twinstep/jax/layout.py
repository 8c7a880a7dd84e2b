"""Between Flax's trees and PyTorch's names and layouts: one explicit table, by kind of layer.

Flax keeps a dense kernel as (in, out), PyTorch as (out, in); Flax nests, PyTorch dots. Optimizer
state has the shape of the parameters and goes the same way, under PyTorch's names for it
(`weight.exp_avg`).
"""

from collections import abc
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from twinstep.errors import InputError
from twinstep.jax.mapping import Mapping, Slot
from twinstep.jax.nn.module import Module
from twinstep.jax.nn.rules import RULES, Rule, Rules, rules_of
from twinstep.jax.state_layout import opt_state_layout
from twinstep.jax.trees import Path, Tree, by_name, by_path, dotted

__all__ = ["Mapping", "Rule", "load_params", "module_layout", "opt_state_layout", "tree_layout"]

_CONTAINERS = {  # of Flax's, and no layers
    base for kind in (nnx.Module, nnx.Sequential, nnx.List, nnx.Dict) for base in kind.__mro__
}


def load_params(
    model: nnx.Module, named: abc.Mapping[str, Any], *, rules: Rules | None = None
) -> None:
    """Gives a model's parameters the arrays, by PyTorch's names, in PyTorch's layout.

    Args:
        model: A Flax model, which is changed in place.
        named: {name: array}, as a `state_dict` of PyTorch's has them; NumPy's arrays are right too.
        rules: As for `module_layout`.

    Raises:
        InputError: Where names or shapes differ, and as `module_layout` does.

    Example:
        >>> import numpy as np
        >>> from twinstep.jax.layout import load_params
        >>> from twinstep.jax.nn import Linear
        >>> model = Linear(3, 2)
        >>> load_params(model, {"weight": np.ones((2, 3)), "bias": np.zeros(2)})
        >>> model.weight.shape
        (2, 3)

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.Module.html
    """
    layout = module_layout(model, rules=rules)
    nnx.update(model, layout.to_jax({name: jnp.asarray(a) for name, a in named.items()}))


def module_layout(model: nnx.Module, *, rules: Rules | None = None) -> Mapping:
    """The layout of a model's parameters.

    A parameter that a module of one's own holds itself is the same in both, under its path.

    Args:
        model: A Flax model, of layers of `twinstep.jax.nn`, `nnx.Linear`, and modules of one's own.
        rules: {kind of layer: {PyTorch's name: its `Rule`}} of further layers, Flax's or one's own;
            subclasses are of their kind. They come before those that are known, or that
            `nn.register` made so.

    Returns:
        The layout of `nnx.state(model, nnx.Param)`.

    Raises:
        InputError: For one of Flax's layers, or a subclass, that has no rule; and for what is no
            nnx.Module.

    Example:
        >>> from flax import nnx
        >>> from twinstep.jax.layout import module_layout
        >>> from twinstep.jax.nn import Linear
        >>> class Model(nnx.Module):
        ...     def __init__(self):
        ...         self.fc = Linear(3, 2)
        >>> model = Model()
        >>> sorted(module_layout(model).to_torch(nnx.state(model, nnx.Param)))
        ['fc.bias', 'fc.weight']

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.Module.html
    """
    if not isinstance(model, nnx.Module):
        raise InputError(
            f"module_layout: model is a {_called(type(model))}, expected a flax.nnx.Module"
        )
    table = RULES if rules is None else {**RULES, **rules}
    modules = {tuple(map(str, path)): module for path, module in nnx.iter_modules(model)}
    rule_of: dict[Path, tuple[str, Rule]] = {}
    for path, module in _outermost_layers(modules, table):
        for name, rule in rules_of(module, table).items():
            rule_of[path + rule.path] = (dotted((*_torch_path(path, modules), name)), rule)
    params = nnx.to_pure_dict(nnx.state(model, nnx.Param))
    tied = _tied(model, modules)
    slots = []
    for path, leaf in by_path(params).items():
        if path not in rule_of:
            _refuse_unknown(path, modules, table)
        own = (tied.get(path, dotted(_torch_path(path, modules))), Rule(path, None))
        name, rule = rule_of.get(path, own)
        axes = rule.axes_of(leaf.ndim)
        shape = tuple(leaf.shape[axis] for axis in axes or range(leaf.ndim))
        slots.append(Slot((name,), shape, axes))
    return Mapping(jax.tree.structure(params), tuple(slots))


def tree_layout(params: Tree) -> Mapping:
    """The layout of a tree whose arrays are as PyTorch has them, under its own keys, dotted.

    Args:
        params: A tree of arrays.

    Returns:
        A layout that changes no array.

    Raises:
        InputError: For two leaves of one name, as "a.b" and b in a have.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax.layout import tree_layout
        >>> params = {"fc": {"weight": jnp.ones((2, 3)), "bias": jnp.zeros(2)}}
        >>> list(tree_layout(params).to_torch(params))
        ['fc.bias', 'fc.weight']

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.Module.html
    """
    slots = [Slot((name,), jnp.shape(leaf), None) for name, leaf in by_name(params).items()]
    return Mapping(jax.tree.structure(params), tuple(slots))


def _tied(model: nnx.Module, modules: abc.Mapping[Path, nnx.Module]) -> dict[Path, str]:
    """{each path of a parameter that has several: the name that PyTorch knows it by}, the first."""
    paths: dict[int, list[Path]] = {}
    for path, module in modules.items():
        for name, value in vars(module).items():
            if isinstance(value, nnx.Param):
                paths.setdefault(id(value), []).append((*path, str(name)))
    if all(len(several) == 1 for several in paths.values()) or not isinstance(model, Module):
        return {}
    first = {id(param): name for name, param in model.named_parameters()}
    return {
        path: first[one] for one, several in paths.items() if len(several) > 1 for path in several
    }


def _outermost_layers(
    modules: abc.Mapping[Path, nnx.Module], table: Rules
) -> list[tuple[Path, nnx.Module]]:
    """(path, layer) of every layer in the table that is not inside another one."""
    known = {path: module for path, module in modules.items() if rules_of(module, table)}
    return [
        (path, module)
        for path, module in known.items()
        if not any(path[:length] in known for length in range(len(path)))
    ]


def _refuse_unknown(path: Path, modules: abc.Mapping[Path, nnx.Module], table: Rules) -> None:
    """Raises InputError where a parameter is of one of Flax's layers, or of one made from such."""
    owner = next(path[:n] for n in range(len(path) - 1, -1, -1) if path[:n] in modules)
    layer = type(modules[owner])
    for kind in layer.__mro__:
        if kind in table and kind is not layer:  # what a layer of one's own adds is one's own
            return
        if kind.__module__.startswith("flax.") and kind not in _CONTAINERS:
            raise InputError(
                f"module_layout: {dotted(path[len(owner) :])!r} of layer {dotted(owner)!r}, a "
                f"{_called(layer)}, has no rule, expected one in rules={{{kind.__name__}: ...}}, "
                "or by nn.register"
            )


def _torch_path(path: Path, modules: abc.Mapping[Path, nnx.Module]) -> Path:
    """PyTorch's Sequential numbers its layers at its own level; Flax's keeps them in `layers`."""
    return tuple(
        key
        for i, key in enumerate(path)
        if key != "layers" or not isinstance(modules.get(path[:i]), nnx.Sequential)
    )


def _called(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"
