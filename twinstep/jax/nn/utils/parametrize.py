"""torch.nn.utils.parametrize: parameters that are computed of others, each time they are read."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import jax
from flax import nnx

from twinstep.errors import InputError
from twinstep.jax.nn.container import ModuleDict
from twinstep.jax.nn.module import Module, Parameter
from twinstep.jax.nn.utils.parametrized import (
    CACHE,
    ParametrizationList,
    Parametrized,
    check_kept,
    is_trained,
    like,
)

__all__ = [
    "ParametrizationList",
    "cached",
    "is_parametrized",
    "register_parametrization",
    "remove_parametrizations",
    "transfer_parametrizations_and_params",
    "type_before_parametrizations",
]

M = TypeVar("M", bound=Module)


@contextmanager
def cached() -> Iterator[None]:
    """While it is entered, each parametrized array is computed once, not at each reading.

    Under jit and grad once a trace: enter it in the function that is traced.

    Yields:
        Nothing.

    Example:
        >>> from twinstep.jax import nn
        >>> layer = nn.utils.parametrizations.spectral_norm(nn.Linear(3, 3))
        >>> with nn.utils.parametrize.cached():
        ...     same = layer.weight is layer.weight
        >>> same, layer.weight is layer.weight
        (True, False)

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.utils.parametrize.cached.html
    """
    CACHE.entered += 1
    try:
        yield
    finally:
        CACHE.entered -= 1
        if not CACHE.entered:
            CACHE.found.clear()


def register_parametrization(
    module: M, tensor_name: str, parametrization: nnx.Module, *, unsafe: bool = False
) -> M:
    """Has a parameter or buffer computed by a module, each time that it is read.

    What it is computed of stands under `parametrizations`; a further parametrization takes what the
    one before it gives. An array that the attribute is set to goes through their `right_inverse`.

    Args:
        module: Whose parameter it is; one of the kit's.
        tensor_name: The attribute.
        parametrization: Its `forward` takes what is trained and gives the array. If it has a
            `right_inverse`, that takes the array and gives what is trained, or several of such.
        unsafe: Whether it may change the shape and the dtype.

    Returns:
        The module.

    Raises:
        InputError: For what PyTorch refuses.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax import nn
        >>> class Symmetric(nn.Module):
        ...     def forward(self, x):
        ...         return jnp.triu(x) + jnp.triu(x, 1).T
        >>> layer = nn.Linear(3, 3)
        >>> layer = nn.utils.parametrize.register_parametrization(layer, "weight", Symmetric())
        >>> bool(jnp.all(layer.weight == layer.weight.T)), list(nn.state_dict(layer))
        (True, ['bias', 'parametrizations.weight.original'])

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.utils.parametrize.register_parametrization.html
    """
    for what, value in (("module", module), ("parametrization", parametrization)):
        if not isinstance(value, Module):
            raise InputError(f"{what} is {value!r}, expected a module of the kit's")
    added: Any = parametrization
    added.train(module.training)
    if is_parametrized(module, tensor_name):
        if not unsafe:
            _check_next(added, getattr(module, tensor_name))
        found = _of(module)[tensor_name]
        found.append(added)
        found.unsafe |= unsafe
        return module
    original = vars(module).get(tensor_name)
    if not isinstance(original, nnx.Param | nnx.BatchStat):
        raise InputError(
            f"{type(module).__name__}: {tensor_name!r} is no parameter or buffer of it, expected "
            "one"
        )
    found = ParametrizationList([added], original, unsafe)
    delattr(module, tensor_name)
    if not is_parametrized(module):
        module.add_module("parametrizations", ModuleDict())
    _of(module)[tensor_name] = found
    module._computed = (*module._computed, Parametrized(tensor_name))
    return module


def is_parametrized(module: Any, tensor_name: str | None = None) -> bool:
    """Whether a module has parametrizations.

    Args:
        module: A module.
        tensor_name: Those of which attribute; None: of any.

    Returns:
        Whether it has them.

    Example:
        >>> from twinstep.jax import nn
        >>> layer = nn.utils.parametrizations.weight_norm(nn.Linear(3, 2))
        >>> [nn.utils.parametrize.is_parametrized(layer, name) for name in ("weight", "bias")]
        [True, False]

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.utils.parametrize.is_parametrized.html
    """
    found = vars(module).get("parametrizations")
    if not isinstance(found, ModuleDict):
        return False
    return len(found) > 0 if tensor_name is None else tensor_name in found


def remove_parametrizations(module: M, tensor_name: str, leave_parametrized: bool = True) -> M:
    """Has a parameter or buffer in its place again.

    Args:
        module: Whose it is.
        tensor_name: The attribute.
        leave_parametrized: Whether it has the value that was computed; else the original's.

    Returns:
        The module.

    Raises:
        InputError: Where it is not parametrized, or the original is asked for of several.

    Example:
        >>> from twinstep.jax import nn
        >>> layer = nn.utils.parametrizations.weight_norm(nn.Linear(3, 2))
        >>> layer = nn.utils.parametrize.remove_parametrizations(layer, "weight")
        >>> list(nn.state_dict(layer))
        ['bias', 'weight']

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.utils.parametrize.remove_parametrizations.html
    """
    if not is_parametrized(module, tensor_name):
        raise InputError(f"{type(module).__name__}: {tensor_name!r} is not parametrized")
    found = _of(module)[tensor_name]
    if not (found.is_tensor or leave_parametrized):
        raise InputError(
            f"{type(module).__name__}: {tensor_name!r} is computed of {found.ntensors} arrays, "
            "expected leave_parametrized"
        )
    originals = found.originals()
    restored = originals[0]
    if leave_parametrized:
        value = getattr(module, tensor_name)
        if found.is_tensor:
            restored.set_value(value)
        else:
            restored = like(next((o for o in originals if is_trained(o)), originals[0]), value)
    module._computed = tuple(one for one in module._computed if one.name != tensor_name)
    del _of(module)[tensor_name]
    if not is_parametrized(module):
        delattr(module, "parametrizations")
    setattr(module, tensor_name, restored)
    return module


def type_before_parametrizations(module: Any) -> type:
    """The class of a module: here parametrizations leave it as it is.

    Args:
        module: A module.

    Returns:
        Its class.

    Example:
        >>> from twinstep.jax import nn
        >>> layer = nn.utils.parametrizations.weight_norm(nn.Linear(3, 2))
        >>> nn.utils.parametrize.type_before_parametrizations(layer).__name__
        'Linear'

    Source: https://docs.pytorch.org/docs/stable/nn.html#utilities
    """
    return type(module)


def transfer_parametrizations_and_params(
    from_module: Any, to_module: M, tensor_name: str | None = None
) -> M:
    """Has a module's parameters computed by another one's parametrizations, of its originals.

    Args:
        from_module: Whose parametrizations they are.
        to_module: Where they are registered too; what it has not, it is given.
        tensor_name: Those of which attribute; None: of all.

    Returns:
        to_module.

    Raises:
        InputError: Where tensor_name is not parametrized.

    Example:
        >>> from twinstep.jax import nn
        >>> one = nn.utils.parametrizations.weight_norm(nn.Linear(3, 2))
        >>> two = nn.utils.parametrize.transfer_parametrizations_and_params(one, nn.Linear(3, 2))
        >>> bool((one.weight == two.weight).all())
        True

    Source: https://docs.pytorch.org/docs/stable/nn.html#utilities
    """
    if not is_parametrized(from_module):
        return to_module
    for name in list(_of(from_module)) if tensor_name is None else [tensor_name]:
        found = _of(from_module)[name]
        if not hasattr(to_module, name):
            setattr(to_module, name, Parameter(getattr(from_module, name)))
        for parametrization in found:
            register_parametrization(to_module, name, parametrization)
        for i, original in enumerate(found.originals()):
            key = "original" if found.is_tensor else f"original{i}"
            setattr(_of(to_module)[name], key, original)
    return to_module


def _of(module: Any) -> ModuleDict:
    """Those of a module that has some."""
    found: ModuleDict = module.parametrizations
    return found


def _check_next(parametrization: Any, before: jax.Array) -> None:
    """Raises InputError where a further parametrization or its right_inverse does not fit."""
    after = parametrization(before)
    check_kept("parametrization", after, before)
    if hasattr(parametrization, "right_inverse"):
        try:
            back = parametrization.right_inverse(after)
        except NotImplementedError:
            return
        check_kept("right_inverse", back, before)
