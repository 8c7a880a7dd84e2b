"""torch.nn.utils.parametrizations: weight norm, spectral norm, orthogonal matrices."""

from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from flax import nnx

from twinstep.errors import InputError
from twinstep.jax.nn import functional
from twinstep.jax.nn.drawing import drawing
from twinstep.jax.nn.module import Buffer, Module
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
from twinstep.jax.nn.utils.orthogonality import MAPS, Orthogonal
from twinstep.jax.nn.utils.parametrize import register_parametrization
from twinstep.jax.nn.utils.parametrized import Parametrized

__all__ = ["orthogonal", "spectral_norm", "weight_norm"]

M = TypeVar("M", bound=Module)

_FIRST_STEPS = 15  # of the power method, when a spectral norm is registered


class WeightNorm(Module):
    """g v / |v|, the norm of each slice along dim."""

    def __init__(self, dim: int | None = 0) -> None:
        self.dim = -1 if dim is None else dim

    def forward(self, weight_g: jax.Array, weight_v: jax.Array) -> jax.Array:
        """The weight."""
        return rescaled(weight_v, weight_g, self.dim)

    def right_inverse(self, weight: jax.Array) -> tuple[jax.Array, jax.Array]:
        """g and v of a weight."""
        check_dim("weight_norm", weight, self.dim)
        return sizes(weight, self.dim), weight


class SpectralNorm(Module):
    """W divided by its largest singular value, which the power method finds; a vector by its norm.

    In training each call takes steps.
    """

    _u: Buffer
    _v: Buffer

    def __init__(
        self, weight: jax.Array, n_power_iterations: int, dim: int, eps: float, draws: Any
    ) -> None:
        check_dim("spectral_norm", weight, dim)
        check_steps(n_power_iterations)
        self.dim, self.eps = dim % weight.ndim, eps
        self.n_power_iterations = n_power_iterations
        if weight.ndim == 1:
            return
        matrix = as_matrix(weight, self.dim)
        u, v = first_vectors(matrix, eps, draws)
        self.register_buffer("_u", u)
        self.register_buffer("_v", v)
        self._step(matrix, _FIRST_STEPS)

    def _step(self, matrix: jax.Array, steps: int) -> None:
        u, v = self._u[...], self._v[...]
        self._u[...], self._v[...] = power_steps(matrix, u, v, steps, self.eps, left_first=True)

    def forward(self, weight: jax.Array) -> jax.Array:
        """The weight, its largest singular value near 1."""
        if weight.ndim == 1:
            return functional.normalize(weight, dim=0, eps=self.eps)
        matrix = as_matrix(weight, self.dim)
        if self.training:
            self._step(matrix, self.n_power_iterations)
        return over_largest(weight, matrix, self._u[...], self._v[...])

    def right_inverse(self, value: jax.Array) -> jax.Array:
        """The same, taken for a weight that is not divided."""
        return value


def weight_norm(module: M, name: str = "weight", dim: int | None = 0) -> M:
    """Has a weight computed of norms, `original0`, and directions, `original1`: g v / |v|.

    `load_state_dict` takes the names of `nn.utils.weight_norm` too, name + "_g" and name + "_v".

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
        >>> layer = nn.utils.parametrizations.weight_norm(nn.Linear(3, 2))
        >>> {name: array.shape for name, array in nn.state_dict(layer).items() if name != "bias"}
        {'parametrizations.weight.original0': (2, 1), 'parametrizations.weight.original1': (2, 3)}

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.utils.parametrizations.weight_norm.html
    """
    register_parametrization(module, name, WeightNorm(dim), unsafe=True)
    at = f"parametrizations.{name}.original"
    loaded = Parametrized(name, ((f"{name}_g", f"{at}0"), (f"{name}_v", f"{at}1")))
    module._computed = tuple(loaded if one.name == name else one for one in module._computed)
    return module


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
    """Has a weight divided by its largest singular value, which the power method keeps near.

    In training each reading of the weight takes steps: the vectors are buffers, `_u` and `_v`.

    Args:
        module: Whose weight it is.
        name: The attribute.
        n_power_iterations: The steps of a reading.
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
        >>> layer = nn.utils.parametrizations.spectral_norm(nn.Linear(3, 2))
        >>> list(nn.state_dict(layer))[1:]  # doctest: +NORMALIZE_WHITESPACE
        ['parametrizations.weight.original', 'parametrizations.weight.0._u',
        'parametrizations.weight.0._v']

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.utils.parametrizations.spectral_norm.html
    """
    weight, dim = weight_of(module, name), outputs_dim(module, dim)
    found = SpectralNorm(weight, n_power_iterations, dim, eps, drawing(generator, rngs))
    return register_parametrization(module, name, found)


def orthogonal(
    module: M,
    name: str = "weight",
    orthogonal_map: str | None = None,
    *,
    use_trivialization: bool = True,
    generator: Any = None,
    rngs: Any = None,
) -> M:
    """Has a matrix orthogonal, or a batch of matrices: its columns, or its rows if they are fewer.

    Args:
        module: Whose matrix it is, (..., m, n).
        name: The attribute.
        orthogonal_map: What makes it of a triangle: "matrix_exp", "cayley" or "householder"; None:
            the first for a square or complex matrix, else the last.
        use_trivialization: Whether it is multiplied with a first matrix, the buffer `base`.
        generator: What completes a base that is not square: a TorchGenerator or a Generator; None:
            the default one, which `manual_seed` seeds.
        rngs: nnx.Rngs in its place.

    Returns:
        The module.

    Raises:
        InputError: For what PyTorch refuses.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax import nn
        >>> layer = nn.utils.parametrizations.orthogonal(nn.Linear(2, 3))
        >>> bool(jnp.allclose(layer.weight.T @ layer.weight, jnp.eye(2), atol=1e-6))
        True

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.utils.parametrizations.orthogonal.html
    """
    weight = weight_of(module, name)
    if weight.ndim < 2:
        raise InputError(f"orthogonal: {name} has shape {weight.shape}, expected two axes or more")
    whole = weight.shape[-1] == weight.shape[-2] or jnp.iscomplexobj(weight)
    chosen = orthogonal_map or ("matrix_exp" if whole else "householder")
    if chosen not in MAPS:
        raise InputError(f"orthogonal: orthogonal_map is {chosen!r}, expected one of {MAPS}")
    found = Orthogonal(weight, chosen, use_trivialization, drawing(generator, rngs))
    return register_parametrization(module, name, found, unsafe=True)


def weight_of(module: Any, name: str) -> jax.Array:
    """A parameter, a buffer or what is computed in its place. InputError where there is none."""
    value = getattr(module, name, None)
    if not isinstance(value, nnx.Variable | jax.Array):
        raise InputError(
            f"{type(module).__name__}: {name!r} is no parameter or buffer of it, expected one"
        )
    array: jax.Array = value[...]
    return array
