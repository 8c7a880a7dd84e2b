"""Weight norm and spectral norm by their old names: what a weight is of is the module's own.

PyTorch computes the weight when the module is called, here it is computed when it is read: what is
read between calls is never behind its parameters.
"""

from dataclasses import dataclass
from typing import Any, TypeVar

import jax
from flax import nnx

from twinstep.errors import InputError
from twinstep.jax.nn.computed import Computed
from twinstep.jax.nn.drawing import drawing
from twinstep.jax.nn.module import Module, Parameter
from twinstep.jax.nn.utils.norms import (
    as_matrix,
    check_dim,
    check_steps,
    first_vectors,
    outputs_dim,
    over_largest,
    power_steps,
    rescaled,
    sizes,
)

__all__ = ["remove_spectral_norm", "remove_weight_norm", "spectral_norm", "weight_norm"]

M = TypeVar("M", bound=Module)


@dataclass(frozen=True)
class OwnWeightNorm(Computed):
    """A weight of name_g, the norms of its slices along dim, and name_v, their directions."""

    dim: int

    def value(self, module: Any) -> jax.Array:
        """As Computed's."""
        g, v = (getattr(module, self.name + part)[...] for part in ("_g", "_v"))
        return rescaled(v, g, self.dim)


@dataclass(frozen=True)
class OwnSpectralNorm(Computed):
    """A weight of name_orig and of its largest singular value's vectors, name_u and name_v."""

    n_power_iterations: int
    dim: int
    eps: float

    def value(self, module: Any) -> jax.Array:
        """As Computed's."""
        weight, u, v = (getattr(module, self.name + part)[...] for part in ("_orig", "_u", "_v"))
        return over_largest(weight, as_matrix(weight, self.dim), u, v)

    def before_forward(self, module: Any) -> None:
        """In training, steps of the power method."""
        if not module.training:
            return
        weight, u, v = (getattr(module, self.name + part) for part in ("_orig", "_u", "_v"))
        matrix = as_matrix(weight[...], self.dim)
        u[...], v[...] = power_steps(
            matrix, u[...], v[...], self.n_power_iterations, self.eps, left_first=False
        )


def weight_norm(module: M, name: str = "weight", dim: int | None = 0) -> M:
    """Has a weight computed of norms, name + "_g", and directions, name + "_v": g v / |v|.

    `parametrizations.weight_norm` is PyTorch's newer one.

    Args:
        module: Whose weight it is.
        name: The attribute.
        dim: The axis whose slices have a norm each; None or -1: the whole has one.

    Returns:
        The module.

    Raises:
        InputError: For what PyTorch refuses.

    Example:
        >>> from twinstep.jax import nn
        >>> layer = nn.utils.weight_norm(nn.Linear(3, 2))
        >>> {name: array.shape for name, array in nn.state_dict(layer).items()}
        {'bias': (2,), 'weight_g': (2, 1), 'weight_v': (2, 3)}

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.utils.weight_norm.html
    """
    weight = _parameter("weight_norm", module, name, OwnWeightNorm)[...]
    check_dim("weight_norm", weight, dim)
    delattr(module, name)
    setattr(module, f"{name}_g", Parameter(sizes(weight, dim)))
    setattr(module, f"{name}_v", Parameter(weight))
    module._computed = (*module._computed, OwnWeightNorm(name, -1 if dim is None else dim))
    return module


def remove_weight_norm(module: M, name: str = "weight") -> M:
    """Has a weight in its place again, as it is now.

    Args:
        module: Whose weight it is.
        name: The attribute.

    Returns:
        The module.

    Raises:
        InputError: Where `weight_norm` was not called.

    Example:
        >>> from twinstep.jax import nn
        >>> layer = nn.utils.remove_weight_norm(nn.utils.weight_norm(nn.Linear(3, 2)))
        >>> list(nn.state_dict(layer))
        ['bias', 'weight']

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.utils.remove_weight_norm.html
    """
    return _restored("weight_norm", module, name, OwnWeightNorm, ("_g", "_v"))


def spectral_norm(
    module: M,
    name: str = "weight",
    n_power_iterations: int = 1,
    eps: float = 1e-12,
    dim: int | None = None,
    *,
    generator: Any = None,
    rngs: Any = None,
) -> M:
    """Has a weight, name + "_orig", divided by its largest singular value.

    In training each call of the module takes steps of the power method, whose vectors are buffers,
    name + "_u" and name + "_v". `parametrizations.spectral_norm` is PyTorch's newer one, which
    takes other steps.

    Args:
        module: Whose weight it is.
        name: The attribute.
        n_power_iterations: The steps of a call.
        eps: The least norm that a vector is divided by.
        dim: The axis of the outputs; None: 0, of a transposed convolution 1.
        generator: What draws the first vectors: a TorchGenerator or a Generator; None: the default
            one, which `manual_seed` seeds.
        rngs: nnx.Rngs in its place.

    Returns:
        The module.

    Raises:
        InputError: For what PyTorch refuses.

    Example:
        >>> from twinstep.jax import nn
        >>> layer = nn.utils.spectral_norm(nn.Linear(3, 2))
        >>> list(nn.state_dict(layer))
        ['bias', 'weight_orig', 'weight_u', 'weight_v']

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.utils.spectral_norm.html
    """
    dim = outputs_dim(module, dim)
    check_steps(n_power_iterations)
    original = _parameter("spectral_norm", module, name, OwnSpectralNorm)
    check_dim("spectral_norm", original[...], dim)
    matrix = as_matrix(original[...], dim)
    u, v = first_vectors(matrix, eps, drawing(generator, rngs))
    delattr(module, name)
    setattr(module, f"{name}_orig", original)
    module.register_buffer(f"{name}_u", u)
    module.register_buffer(f"{name}_v", v)
    found = OwnSpectralNorm(name, n_power_iterations, dim, eps)
    module._computed = (*module._computed, found)
    return module


def remove_spectral_norm(module: M, name: str = "weight") -> M:
    """Has a weight in its place again, as it is now.

    Args:
        module: Whose weight it is.
        name: The attribute.

    Returns:
        The module.

    Raises:
        InputError: Where `spectral_norm` was not called.

    Example:
        >>> from twinstep.jax import nn
        >>> layer = nn.utils.remove_spectral_norm(nn.utils.spectral_norm(nn.Linear(3, 2)))
        >>> list(nn.state_dict(layer))
        ['bias', 'weight']

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.utils.remove_spectral_norm.html
    """
    return _restored("spectral_norm", module, name, OwnSpectralNorm, ("_orig", "_u", "_v"))


def _parameter(what: str, module: Any, name: str, kind: type) -> nnx.Variable[Any]:
    """What is to be computed from now on."""
    if not isinstance(module, Module):
        raise InputError(f"{what}: module is {module!r}, expected one of the kit's")
    if any(isinstance(one, kind) and one.name == name for one in module._computed):
        raise InputError(f"{what}: {type(module).__name__}.{name} has it, expected it once")
    held: Any = vars(module).get(name)
    if not isinstance(held, nnx.Param):
        raise InputError(
            f"{what}: {type(module).__name__}.{name} is {type(held).__name__}, expected a parameter"
        )
    return held


def _restored(what: str, module: M, name: str, kind: type, parts: tuple[str, ...]) -> M:
    """The module with a parameter in place of what it was computed of."""
    if not any(isinstance(one, kind) and one.name == name for one in module._computed):
        raise InputError(f"{what}: {type(module).__name__}.{name} has none, expected it to")
    value = getattr(module, name)
    module._computed = tuple(one for one in module._computed if one.name != name)
    for part in parts:
        delattr(module, name + part)
    setattr(module, name, Parameter(value))
    return module
