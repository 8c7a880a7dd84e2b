"""torch.nn.utils.stateless: a module called with other arrays than its own."""

import copy
from collections.abc import Mapping, MutableMapping
from typing import Any

import jax.numpy as jnp
from flax import nnx

from twinstep.errors import InputError
from twinstep.jax.nn.module import Buffer, Module, Parameter

__all__ = ["functional_call"]


def functional_call(
    module: Module,
    parameters_and_buffers: Mapping[str, Any],
    args: Any = None,
    kwargs: Mapping[str, Any] | None = None,
    *,
    tie_weights: bool = True,
    strict: bool = False,
) -> Any:
    """What a module gives with other arrays in place of its own; it is not changed itself.

    A parametrized array that is given by its own name is taken as it is. Of buffers that are
    changed by the call, those that are given are changed in `parameters_and_buffers`.

    Args:
        module: One of the kit's.
        parameters_and_buffers: {dotted name: array}.
        args: What it is called with: a tuple, or the one argument.
        kwargs: What it is called with by name.
        tie_weights: Whether what is tied in the module is tied here.
        strict: Whether all names have to be given, and no others.

    Returns:
        The output.

    Raises:
        InputError: For names that do not fit if strict, and two arrays of what is tied.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax import nn
        >>> layer, x = nn.Linear(3, 2), jnp.ones(3)
        >>> arrays = {"weight": jnp.ones((2, 3)), "bias": jnp.zeros(2)}
        >>> nn.utils.stateless.functional_call(layer, arrays, x)
        Array([3., 3.], dtype=float32)

    Source: https://docs.pytorch.org/docs/stable/generated/torch.func.functional_call.html
    """
    copied = copy.deepcopy(module)
    parted = {name: name.rpartition(".") for name in parameters_and_buffers}
    places = {name: (_at(copied, path), key) for name, (path, _, key) in parted.items()}
    held = {
        name: vars(home)[key]
        for name, (home, key) in places.items()
        if home is not None and isinstance(vars(home).get(key), nnx.Variable)
    }
    if strict:
        _check_names(copied, parameters_and_buffers, held)
    if tie_weights:
        _check_tied(parameters_and_buffers, held)
    for name, array in parameters_and_buffers.items():
        home, key = places[name]
        if name in held and tie_weights:
            held[name].set_value(jnp.asarray(array))
        elif name in held:
            kind = Parameter if isinstance(held[name], nnx.Param) else Buffer
            setattr(home, key, kind(array))
        elif home is not None and any(one.name == key for one in home._computed):
            home._computed = tuple(one for one in home._computed if one.name != key)
            setattr(home, key, Parameter(array))
    given = args if isinstance(args, tuple) else () if args is None else (args,)
    output = copied(*given, **(kwargs or {}))
    if isinstance(parameters_and_buffers, MutableMapping):
        for name in held:
            home, key = places[name]
            if isinstance(variable := vars(home)[key], nnx.BatchStat):
                parameters_and_buffers[name] = variable[...]
    return output


def _at(module: Module, path: str) -> Any:
    """The module at a path, or None."""
    try:
        return module.get_submodule(path)
    except InputError:
        return None


def _check_names(module: Module, given: Mapping[str, Any], held: Mapping[str, Any]) -> None:
    wrong = [f"unexpected {name!r}" for name in given if name not in held]
    tied = {id(variable) for variable in held.values()}
    everything = (*module.named_parameters(), *module.named_buffers())
    wrong += [f"missing {name!r}" for name, variable in everything if id(variable) not in tied]
    if wrong:
        raise InputError(f"functional_call: {', '.join(wrong)}")


def _check_tied(given: Mapping[str, Any], held: Mapping[str, Any]) -> None:
    first: dict[int, str] = {}
    for name, variable in held.items():
        other = first.setdefault(id(variable), name)
        if given[other] is not given[name]:
            raise InputError(
                f"functional_call: {other!r} and {name!r} are tied and have two arrays, expected "
                "one, or tie_weights=False"
            )
