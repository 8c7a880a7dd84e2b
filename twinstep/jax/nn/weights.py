"""A module's parameters and buffers under PyTorch's names, in its layout: to and from a state_dict.

Kit modules keep both as PyTorch does; of Flax's own layers the table in `rules` says where they
are. A tied weight is held once and has all its names.
"""

import os
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from safetensors.flax import load_file

from twinstep.errors import InputError
from twinstep.jax.nn.module import Buffer, children_of, held_by, walked
from twinstep.jax.nn.rules import RULES, Rules, rules_of

__all__ = ["load_state_dict", "state_dict"]


class Entry(NamedTuple):
    """An array of a state_dict's: its variable, where that is in the module, PyTorch's axes."""

    variable: nnx.Variable[Any]
    path: tuple[Any, ...]
    axes: tuple[int, ...] | None

    def to_torch(self, array: Any) -> Any:
        """PyTorch's array of a module's."""
        return array if self.axes is None else jnp.transpose(array, self.axes)

    def to_jax(self, array: Any) -> Any:
        """A module's array of PyTorch's."""
        return array if self.axes is None else jnp.transpose(array, np.argsort(self.axes).tolist())


def entries(module: nnx.Module, rules: Rules | None = None) -> dict[str, Entry]:
    """{PyTorch's name: what is there}, in PyTorch's order. InputError for a layer of no rule."""
    if not isinstance(module, nnx.Module):
        raise InputError(f"module is {module!r}, expected a flax.nnx.Module")
    return dict(_entries(module, "", (), {**RULES, **(rules or {})}))


def _entries(
    module: Any, prefix: str, path: tuple[Any, ...], rules: Rules
) -> Iterator[tuple[str, Entry]]:
    known = rules_of(module, rules)
    for name, rule in known.items():
        if (variable := _at(module, rule.path)) is not None:
            entry = Entry(variable, (*path, *rule.path), rule.axes_of(variable.ndim))
            yield f"{prefix}{name}", entry
    passed = {rule.path[0] for rule in known.values()}
    own = {key: value for key, value in held_by(module).items() if key not in passed}
    for kind in (nnx.Param, nnx.BatchStat):  # PyTorch has the parameters first
        for key, value in own.items():
            if isinstance(value, kind) and not _is_passing(value):
                if _is_flax(type(module)):
                    _refuse(module, prefix)
                yield f"{prefix}{key}", Entry(value, (*path, key), None)
    numbered = isinstance(module, nnx.Sequential)  # whose layers are in a list of its own
    for name, child in children_of(module):
        if name not in passed:
            inner = prefix if numbered and name == "layers" else f"{prefix}{name}."
            step = int(name) if isinstance(module, nnx.List) else name
            yield from _entries(child, inner, (*path, step), rules)


def _refuse(module: Any, prefix: str) -> None:
    kind = type(module).__name__
    raise InputError(
        f"{prefix.removesuffix('.') or 'module'} is Flax's {kind}, which has no rule, expected one "
        f"in rules={{{kind}: ...}}"
    )


def _is_passing(variable: nnx.Variable[Any]) -> bool:
    return isinstance(variable, Buffer) and not variable.get_metadata().get("persistent", True)


def _is_flax(kind: type) -> bool:
    return kind.__module__.startswith("flax.") and kind not in (nnx.List, nnx.Dict)


def _at(module: Any, path: tuple[str, ...]) -> Any:
    for key in path:
        module = getattr(module, key, None)
    return module


def state_dict(
    module: nnx.Module, state: Any = None, *, rules: Rules | None = None
) -> dict[str, jax.Array]:
    """A module's parameters and buffers, as PyTorch's `state_dict` has them.

    Args:
        module: Of the kit's layers, of Flax's that have a rule, and of modules of one's own.
        state: What to take in place of the module's own arrays, an nnx.State or its pure dict, as
            `nnx.grad` gives; what it does not have is left out.
        rules: {kind of layer: {PyTorch's name: its `Rule`}} of further layers.

    Returns:
        {name: array}, in PyTorch's names, order and layout; a tied weight under all its names.

    Raises:
        InputError: For a layer of Flax's that has no rule.

    Example:
        >>> from twinstep.jax import nn
        >>> net = nn.Sequential(nn.Linear(3, 2), nn.Identity())
        >>> {name: array.shape for name, array in nn.state_dict(net).items()}
        {'0.weight': (2, 3), '0.bias': (2,)}

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.Module.html
    """
    found = entries(module, rules)
    if state is None:
        return {name: entry.to_torch(entry.variable[...]) for name, entry in found.items()}
    pure = state if isinstance(state, Mapping) else nnx.to_pure_dict(state)
    flat = {_key(path): value for path, value in _flat(nnx.to_pure_dict(nnx.State(pure)))}
    first: dict[int, tuple[Any, ...]] = {}  # the one path under which Flax has a tied weight
    for entry in found.values():
        if id(entry.variable) not in first or _key(entry.path) in flat:
            first[id(entry.variable)] = entry.path
    paths = {name: _key(first[id(entry.variable)]) for name, entry in found.items()}
    return {n: e.to_torch(flat[paths[n]]) for n, e in found.items() if paths[n] in flat}


def load_state_dict(
    module: nnx.Module,
    state_dict: Mapping[str, Any] | str | os.PathLike[str],
    strict: bool = True,
    *,
    cast: bool = False,
    rules: Rules | None = None,
) -> None:
    """Gives a module's parameters and buffers the arrays of a PyTorch `state_dict`.

    Args:
        module: As for `state_dict`; it is changed in place.
        state_dict: {name: array}, NumPy's or JAX's; or a .safetensors file.
        strict: Whether an entry that is missing or unexpected is refused.
        cast: Whether arrays of another dtype are cast to the module's; else they are refused.
        rules: {kind of layer: {PyTorch's name: its `Rule`}} of further layers.

    Raises:
        InputError: For all that does not fit, in one line: what is missing, unexpected, of another
            shape or dtype, or NaN; nothing is loaded then.

    Example:
        >>> import numpy as np
        >>> from twinstep.jax import nn
        >>> layer = nn.Linear(3, 2)
        >>> weights = {"weight": np.ones((2, 3), "float32"), "bias": np.zeros(2, "float32")}
        >>> nn.load_state_dict(layer, weights)
        >>> layer.weight.sum()
        Array(6., dtype=float32)

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.Module.html
    """
    given = state_dict if isinstance(state_dict, Mapping) else read(state_dict)
    found, given = entries(module, rules), _renamed(module, given)
    arrays = {name: np.asarray(array) for name, array in given.items() if name in found}
    wrong = _unfit(found, given, arrays, strict, cast)
    if wrong:
        raise InputError(f"load_state_dict: {'; '.join(wrong)}")
    for name, array in arrays.items():
        entry = found[name]
        # a copy: JAX may share an array's memory, which its owner writes into
        entry.variable[...] = jnp.array(entry.to_jax(array), entry.variable.dtype)


def _renamed(module: nnx.Module, given: Mapping[str, Any]) -> dict[str, Any]:
    """What has older names that a computed array may be loaded by, under the module's own."""
    named = dict(given)
    for path, one in walked(module, "", set()):
        prefix = f"{path}." if path else ""
        for computed in getattr(one, "_computed", ()):
            names = {prefix + old: prefix + new for old, new in computed.loaded().items()}
            if names.keys() <= named.keys():
                named |= {new: named.pop(old) for old, new in names.items()}
    return named


def _unfit(
    found: Mapping[str, Entry],
    given: Mapping[str, Any],
    arrays: Mapping[str, np.ndarray[Any, Any]],
    strict: bool,
    cast: bool,
) -> list[str]:
    """What does not fit, all of it."""
    wrong = []
    if strict and (missing := [name for name in found if name not in given]):
        wrong.append(f"missing {_listed(missing)}")
    if strict and (more := [name for name in given if name not in found]):
        wrong.append(f"unexpected {_listed(more)}")
    for name, array in arrays.items():
        entry = found[name]
        shape = jax.eval_shape(entry.to_torch, entry.variable[...]).shape
        if array.shape != shape:
            wrong.append(f"{name!r} has shape {array.shape}, expected {shape}")
        elif held_dtype(array.dtype) != entry.variable.dtype and not cast:
            wrong.append(
                f"{name!r} is {array.dtype}, expected {entry.variable.dtype}, or cast=True"
            )
        elif _has_nan(array):
            wrong.append(f"{name!r} has NaN")
    return wrong


def held_dtype(dtype: Any) -> Any:
    """What JAX holds a dtype in: integers of 64 bits in 32 without x64, as they are counts."""
    return jax.dtypes.canonicalize_dtype(dtype) if jnp.issubdtype(dtype, jnp.integer) else dtype


def _has_nan(array: np.ndarray[Any, Any]) -> bool:
    return bool(jnp.issubdtype(array.dtype, jnp.inexact) and np.isnan(array).any())


def _listed(names: list[str]) -> str:
    return ", ".join(map(repr, names))


def read(file: str | os.PathLike[str]) -> dict[str, Any]:
    """The arrays of a .safetensors file. InputError for what is none."""
    path = os.fspath(file)
    if not path.endswith(".safetensors"):
        raise InputError(f"{path}: expected a .safetensors file")
    try:
        return dict(load_file(path))
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or error}") from None
    except Exception as error:  # safetensors has no public class of its own errors
        raise InputError(f"{path}: no safetensors file: {error}") from None


def _key(path: tuple[Any, ...]) -> tuple[str, ...]:
    """A path by text: what is restored from a file has texts where a list has numbers."""
    return tuple(map(str, path))


def _flat(tree: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], Any]]:
    if not isinstance(tree, Mapping):
        yield path, tree
        return
    for key, value in tree.items():
        yield from _flat(value, (*path, key))
