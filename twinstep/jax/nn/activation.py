"""torch.nn's activations that have a kink, and RReLU's draws."""

import warnings
from typing import Any

import jax
import jax.numpy as jnp

from twinstep.errors import InputError
from twinstep.jax.nn import functional
from twinstep.jax.nn.drawing import drawing
from twinstep.jax.nn.module import Module, Parameter, default_dtype
from twinstep.jax.nn.sizes import checked_sizes

__all__ = [
    "Hardshrink",
    "Hardsigmoid",
    "Hardswish",
    "LeakyReLU",
    "PReLU",
    "ReLU",
    "ReLU6",
    "Softshrink",
    "Threshold",
]


class ReLU(Module):
    """max(x, 0), whose derivative at 0 is 0.

    Args:
        inplace: Not looked at: arrays are not written into.

    Shape:
        Any, the same.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax import nn
        >>> nn.ReLU()(jnp.array([-1.0, 2.0])).tolist()
        [0.0, 2.0]

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.ReLU.html
    """

    def __init__(self, inplace: bool = False) -> None:
        self.inplace = inplace

    def forward(self, input: jax.Array) -> jax.Array:
        """As said above."""
        return functional.relu(input)


class ReLU6(Module):
    """min(max(x, 0), 6), whose derivative at 0 and at 6 is 0.

    Args:
        inplace: Not looked at: arrays are not written into.

    Shape:
        Any, the same.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax import nn
        >>> nn.ReLU6()(jnp.array([-1.0, 8.0])).tolist()
        [0.0, 6.0]

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.ReLU6.html
    """

    def __init__(self, inplace: bool = False) -> None:
        self.inplace = inplace

    def forward(self, input: jax.Array) -> jax.Array:
        """As said above."""
        return functional.relu6(input)


class LeakyReLU(Module):
    """x above 0, else a part of it.

    Args:
        negative_slope: What x is multiplied with up to 0.
        inplace: Not looked at: arrays are not written into.

    Shape:
        Any, the same.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax import nn
        >>> nn.LeakyReLU(0.5)(jnp.array([-1.0, 2.0])).tolist()
        [-0.5, 2.0]

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.LeakyReLU.html
    """

    def __init__(self, negative_slope: float = 0.01, inplace: bool = False) -> None:
        self.negative_slope, self.inplace = negative_slope, inplace

    def forward(self, input: jax.Array) -> jax.Array:
        """As said above."""
        return functional.leaky_relu(input, self.negative_slope)


class PReLU(Module):
    """x above 0, else a learned part of it.

    Args:
        num_parameters: 1, or the channels, each of which has its own.
        init: What the parts start from.
        device: Ignored.
        dtype: Of the weight; None: float64 under x64, else float32.

    Shape:
        (N, C, ...) or any, the same; weight (num_parameters,).

    Raises:
        InputError: For an input of other channels.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax import nn
        >>> nn.PReLU()(jnp.array([-1.0, 2.0])).tolist()
        [-0.25, 2.0]

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.PReLU.html
    """

    def __init__(
        self, num_parameters: int = 1, init: float = 0.25, device: Any = None, dtype: Any = None
    ) -> None:
        self.num_parameters, self.init = num_parameters, init
        shape = checked_sizes("PReLU", num_parameters=num_parameters)
        self.weight = Parameter(jnp.full(shape, init, default_dtype(dtype)))

    def forward(self, input: jax.Array) -> jax.Array:
        """As said above."""
        return functional.prelu(input, self.weight[...])


class RReLU(Module):
    """x above 0, else a part of it that is drawn anew each time; the mean part in evaluation.

    Args:
        lower, upper: The bounds of the part.
        inplace: Not looked at: arrays are not written into.
        generator: What draws: a TorchGenerator or a Generator; None: the default one.
        rngs: nnx.Rngs in its place, of which the stream "dropout" is taken.

    Shape:
        Any, the same.

    Raises:
        InputError: For bounds that are none, when it is called.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax import nn
        >>> nn.RReLU(0.25, 0.75).eval()(jnp.array([-1.0, 2.0])).tolist()
        [-0.5, 2.0]

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.RReLU.html
    """

    def __init__(
        self,
        lower: float = 1.0 / 8,
        upper: float = 1.0 / 3,
        inplace: bool = False,
        *,
        generator: Any = None,
        rngs: Any = None,
    ) -> None:
        self.lower, self.upper, self.inplace = lower, upper, inplace
        self.generator = drawing(generator, rngs, "dropout")

    def forward(self, input: jax.Array) -> jax.Array:
        """As said above."""
        return functional.rrelu(
            input, self.lower, self.upper, self.training, generator=self.generator
        )


class Hardtanh(Module):
    """x between two bounds, whose derivative at them is 0.

    Args:
        min_val, max_val: The bounds.
        inplace: Not looked at: arrays are not written into.
        min_value, max_value: Old names of the bounds, which PyTorch warns of.

    Shape:
        Any, the same.

    Raises:
        InputError: For an upper bound that is not above the lower one.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax import nn
        >>> nn.Hardtanh()(jnp.array([-3.0, 0.5])).tolist()
        [-1.0, 0.5]

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.Hardtanh.html
    """

    def __init__(
        self,
        min_val: float = -1.0,
        max_val: float = 1.0,
        inplace: bool = False,
        min_value: float | None = None,
        max_value: float | None = None,
    ) -> None:
        for old, new, value in (
            ("min_value", "min_val", min_value),
            ("max_value", "max_val", max_value),
        ):
            if value is not None:
                warnings.warn(f"Hardtanh: {old} is now {new}", FutureWarning, stacklevel=2)
        self.min_val = min_val if min_value is None else min_value
        self.max_val = max_val if max_value is None else max_value
        self.inplace = inplace
        if self.max_val <= self.min_val:
            raise InputError(f"Hardtanh: max_val is {self.max_val}, expected above {self.min_val}")

    def forward(self, input: jax.Array) -> jax.Array:
        """As said above."""
        return functional.hardtanh(input, self.min_val, self.max_val)


class Hardsigmoid(Module):
    """min(max(x + 3, 0), 6) / 6.

    Args:
        inplace: Not looked at: arrays are not written into.

    Shape:
        Any, the same.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax import nn
        >>> nn.Hardsigmoid()(jnp.array([-4.0, 0.0])).tolist()
        [0.0, 0.5]

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.Hardsigmoid.html
    """

    def __init__(self, inplace: bool = False) -> None:
        self.inplace = inplace

    def forward(self, input: jax.Array) -> jax.Array:
        """As said above."""
        return functional.hardsigmoid(input)


class Hardswish(Module):
    """x min(max(x + 3, 0), 6) / 6.

    Args:
        inplace: Not looked at: arrays are not written into.

    Shape:
        Any, the same.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax import nn
        >>> nn.Hardswish()(jnp.array([0.0, 3.0])).tolist()
        [0.0, 3.0]

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.Hardswish.html
    """

    def __init__(self, inplace: bool = False) -> None:
        self.inplace = inplace

    def forward(self, input: jax.Array) -> jax.Array:
        """As said above."""
        return functional.hardswish(input)


class Hardshrink(Module):
    """x, and 0 from -lambda to lambda.

    Args:
        lambd: How far from 0.

    Shape:
        Any, the same.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax import nn
        >>> nn.Hardshrink()(jnp.array([-0.25, 1.0])).tolist()
        [0.0, 1.0]

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.Hardshrink.html
    """

    def __init__(self, lambd: float = 0.5) -> None:
        self.lambd = lambd

    def forward(self, input: jax.Array) -> jax.Array:
        """As said above."""
        return functional.hardshrink(input, self.lambd)


class Softshrink(Module):
    """x moved towards 0 by lambda, and 0 where it would cross.

    Args:
        lambd: How far, 0 or more.

    Shape:
        Any, the same.

    Raises:
        InputError: For a lambda below 0, when it is called.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax import nn
        >>> nn.Softshrink()(jnp.array([-0.25, 1.0])).tolist()
        [0.0, 0.5]

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.Softshrink.html
    """

    def __init__(self, lambd: float = 0.5) -> None:
        self.lambd = lambd

    def forward(self, input: jax.Array) -> jax.Array:
        """As said above."""
        return functional.softshrink(input, self.lambd)


class Threshold(Module):
    """x above a threshold, else a value.

    Args:
        threshold: Up to which the value stands.
        value: What stands there.
        inplace: Not looked at: arrays are not written into.

    Shape:
        Any, the same.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax import nn
        >>> nn.Threshold(1.0, 9.0)(jnp.array([-1.0, 2.0])).tolist()
        [9.0, 2.0]

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.Threshold.html
    """

    def __init__(self, threshold: float, value: float, inplace: bool = False) -> None:
        self.threshold, self.value, self.inplace = threshold, value, inplace

    def forward(self, input: jax.Array) -> jax.Array:
        """As said above."""
        return functional.threshold(input, self.threshold, self.value)
