"""torch.nn's linear layers.

Letters: I inputs, J second inputs, O outputs; ... any axes before them.
"""

from typing import Any

import jax
import jax.numpy as jnp

from twinstep.errors import InputError
from twinstep.jax.nn import functional, init
from twinstep.jax.nn.drawing import drawing
from twinstep.jax.nn.functional.taking_in import value_of
from twinstep.jax.nn.module import Module, Parameter, default_dtype
from twinstep.jax.nn.sizes import checked_sizes

__all__ = ["Bilinear", "Identity", "Linear", "dot_general"]

_SMALL_DOT = 2048  # products, up to which a dot is multiply-and-sum


def dot_general(
    lhs: jax.Array, rhs: jax.Array, dimension_numbers: Any, precision: Any = None, **options: Any
) -> jax.Array:
    """`jax.lax.dot_general` of (..., I) and (I, O), written out where it is small.

    XLA fuses a small sum of products with its neighbours; a call of a matrix product takes longer
    than the product. It rounds as a dot may: in some order.

    Args:
        lhs: The left side, (..., I).
        rhs: The right side, (I, O).
        dimension_numbers, precision, options: As `jax.lax.dot_general` has them.

    Returns:
        The product, (..., O).

    Example:
        >>> import jax.numpy as jnp
        >>> from flax import nnx
        >>> from twinstep.jax.nn import dot_general
        >>> layer = nnx.Linear(3, 2, dot_general=dot_general, rngs=nnx.Rngs(0))
        >>> layer(jnp.ones((4, 3))).shape
        (4, 2)

    Source: https://docs.jax.dev/en/latest/_autosummary/jax.lax.dot_general.html
    """
    (contracted, _), _ = dimension_numbers
    if contracted != (lhs.ndim - 1,) or lhs.size * rhs.shape[1] > _SMALL_DOT:
        return jax.lax.dot_general(lhs, rhs, dimension_numbers, precision=precision, **options)
    return jnp.sum(lhs[..., None] * rhs, axis=-2)


class Linear(Module):
    """x W^T + b.

    Args:
        in_features, out_features: I and O, ints.
        bias: Whether b is added.
        device: Ignored.
        dtype: Of its parameters; None: float64 under x64, else float32.
        generator: What draws its first values: a TorchGenerator or a Generator; None: the default
            one, which `manual_seed` seeds.
        rngs: nnx.Rngs in its place.

    Shape:
        (..., I) to (..., O); weight (O, I), bias (O,).

    Raises:
        InputError: For an input of another size.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep import TorchGenerator
        >>> from twinstep.jax import nn
        >>> layer = nn.Linear(3, 2, generator=TorchGenerator(0))  # as after torch.manual_seed(0)
        >>> layer(jnp.ones((4, 3))).shape, layer.weight.shape
        ((4, 2), (2, 3))

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.Linear.html
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        device: Any = None,
        dtype: Any = None,
        *,
        generator: Any = None,
        rngs: Any = None,
    ) -> None:
        self.in_features, self.out_features = in_features, out_features
        dtype, draws = default_dtype(dtype), drawing(generator, rngs)
        weight = jnp.zeros((out_features, in_features), dtype)
        self.weight = Parameter(init.kaiming_uniform_(weight, 5**0.5, generator=draws))
        self.bias = None
        if bias:
            bound = 1 / in_features**0.5 if in_features else 0
            self.bias = Parameter(draws.uniform((out_features,), -bound, bound, dtype))

    def forward(self, input: jax.Array) -> jax.Array:
        """As said above."""
        if input.ndim < 1 or input.shape[-1] != self.in_features:
            raise InputError(
                f"Linear: input has shape {input.shape}, expected (..., {self.in_features})"
            )
        axes = ((input.ndim - 1,), (0,)), ((), ())
        output = dot_general(input, self.weight[...].T, axes)
        return output if self.bias is None else output + self.bias[...]


class Bilinear(Module):
    """x W_o y + b_o for each output o.

    Args:
        in1_features, in2_features, out_features: I, J and O, ints.
        bias: Whether b is added.
        device: Ignored.
        dtype: Of its parameters; None: float64 under x64, else float32.
        generator: What draws its first values: a TorchGenerator or a Generator; None: the default
            one.
        rngs: nnx.Rngs in its place.

    Shape:
        Called with input1, (..., I), and input2, (..., J), to (..., O); weight (O, I, J), bias
        (O,).

    Raises:
        InputError: For I below 1 and inputs that do not fit.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax import nn
        >>> nn.Bilinear(3, 2, 5)(jnp.ones((4, 3)), jnp.ones((4, 2))).shape
        (4, 5)

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.Bilinear.html
    """

    def __init__(
        self,
        in1_features: int,
        in2_features: int,
        out_features: int,
        bias: bool = True,
        device: Any = None,
        dtype: Any = None,
        *,
        generator: Any = None,
        rngs: Any = None,
    ) -> None:
        self.in1_features, self.in2_features = in1_features, in2_features
        self.out_features = out_features
        shape = checked_sizes(
            "Bilinear",
            out_features=out_features,
            in1_features=in1_features,
            in2_features=in2_features,
        )
        if not in1_features:
            raise InputError("Bilinear: in1_features is 0, expected 1 or more")
        dtype, draws, bound = default_dtype(dtype), drawing(generator, rngs), 1 / in1_features**0.5
        self.weight = Parameter(draws.uniform(shape, -bound, bound, dtype))
        self.bias = Parameter(draws.uniform(shape[:1], -bound, bound, dtype)) if bias else None

    def forward(self, input1: jax.Array, input2: jax.Array) -> jax.Array:
        """As said above."""
        return functional.bilinear(input1, input2, self.weight[...], value_of(self.bias))


class Identity(Module):
    """What it is given, as it is.

    Args:
        args, kwargs: Anything, ignored.

    Shape:
        Any, the same.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax import nn
        >>> nn.Identity(54)(jnp.ones(2)).tolist()
        [1.0, 1.0]

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.Identity.html
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        pass

    def forward(self, input: Any) -> Any:
        """As said above."""
        return input
