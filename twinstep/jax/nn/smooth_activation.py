"""torch.nn's activations that are smooth, but for elu's second derivative."""

import jax

from twinstep.jax.nn import functional
from twinstep.jax.nn.module import Module

__all__ = [
    "CELU",
    "ELU",
    "GELU",
    "GLU",
    "SELU",
    "LogSigmoid",
    "Mish",
    "SiLU",
    "Sigmoid",
    "Softplus",
    "Softsign",
    "Tanh",
    "Tanhshrink",
]


class ELU(Module):
    """x above 0, else alpha (exp(x) - 1).

    Args:
        alpha: The size of what is below 0.
        inplace: Not looked at: arrays are not written into.

    Shape:
        Any, the same.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax import nn
        >>> [round(float(x), 4) for x in nn.ELU()(jnp.array([-1.0, 2.0]))]
        [-0.6321, 2.0]

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.ELU.html
    """

    def __init__(self, alpha: float = 1.0, inplace: bool = False) -> None:
        self.alpha, self.inplace = alpha, inplace

    def forward(self, input: jax.Array) -> jax.Array:
        """As said above."""
        return functional.elu(input, self.alpha)


class SELU(Module):
    """The elu whose outputs keep mean 0 and variance 1.

    Args:
        inplace: Not looked at: arrays are not written into.

    Shape:
        Any, the same.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax import nn
        >>> [round(float(x), 4) for x in nn.SELU()(jnp.array([-1.0, 2.0]))]
        [-1.1113, 2.1014]

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.SELU.html
    """

    def __init__(self, inplace: bool = False) -> None:
        self.inplace = inplace

    def forward(self, input: jax.Array) -> jax.Array:
        """As said above."""
        return functional.selu(input)


class CELU(Module):
    """x above 0, else alpha (exp(x / alpha) - 1).

    Args:
        alpha: The size of what is below 0; not 0.
        inplace: Not looked at: arrays are not written into.

    Shape:
        Any, the same.

    Raises:
        InputError: For an alpha of 0, when it is called.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax import nn
        >>> [round(float(x), 4) for x in nn.CELU(2.0)(jnp.array([-1.0, 2.0]))]
        [-0.7869, 2.0]

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.CELU.html
    """

    def __init__(self, alpha: float = 1.0, inplace: bool = False) -> None:
        self.alpha, self.inplace = alpha, inplace

    def forward(self, input: jax.Array) -> jax.Array:
        """As said above."""
        return functional.celu(input, self.alpha)


class GELU(Module):
    """x times the normal distribution's share below x.

    Args:
        approximate: "none", or "tanh" for a formula with tanh.

    Shape:
        Any, the same.

    Raises:
        InputError: For another approximation, when it is called.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax import nn
        >>> [round(float(x), 4) for x in nn.GELU()(jnp.array([-1.0, 2.0]))]
        [-0.1587, 1.9545]

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.GELU.html
    """

    def __init__(self, approximate: str = "none") -> None:
        self.approximate = approximate

    def forward(self, input: jax.Array) -> jax.Array:
        """As said above."""
        return functional.gelu(input, self.approximate)


class SiLU(Module):
    """x times its sigmoid.

    Args:
        inplace: Not looked at: arrays are not written into.

    Shape:
        Any, the same.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax import nn
        >>> [round(float(x), 4) for x in nn.SiLU()(jnp.array([-1.0, 2.0]))]
        [-0.2689, 1.7616]

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.SiLU.html
    """

    def __init__(self, inplace: bool = False) -> None:
        self.inplace = inplace

    def forward(self, input: jax.Array) -> jax.Array:
        """As said above."""
        return functional.silu(input)


class Mish(Module):
    """x tanh(log(1 + exp(x))).

    Args:
        inplace: Not looked at: arrays are not written into.

    Shape:
        Any, the same.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax import nn
        >>> [round(float(x), 4) for x in nn.Mish()(jnp.array([-1.0, 2.0]))]
        [-0.3034, 1.944]

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.Mish.html
    """

    def __init__(self, inplace: bool = False) -> None:
        self.inplace = inplace

    def forward(self, input: jax.Array) -> jax.Array:
        """As said above."""
        return functional.mish(input)


class Softplus(Module):
    """log(1 + exp(beta x)) / beta, and x where beta x is above a threshold.

    Args:
        beta: How sharp the bend is.
        threshold: From which beta x on it is x itself.

    Shape:
        Any, the same.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax import nn
        >>> [round(float(x), 4) for x in nn.Softplus()(jnp.array([-1.0, 21.0]))]
        [0.3133, 21.0]

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.Softplus.html
    """

    def __init__(self, beta: float = 1.0, threshold: float = 20.0) -> None:
        self.beta, self.threshold = beta, threshold

    def forward(self, input: jax.Array) -> jax.Array:
        """As said above."""
        return functional.softplus(input, self.beta, self.threshold)


class Softsign(Module):
    """x / (|x| + 1).

    Shape:
        Any, the same.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax import nn
        >>> [round(float(x), 4) for x in nn.Softsign()(jnp.array([-1.0, 3.0]))]
        [-0.5, 0.75]

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.Softsign.html
    """

    def forward(self, input: jax.Array) -> jax.Array:
        """As said above."""
        return functional.softsign(input)


class Tanhshrink(Module):
    """x - tanh(x).

    Shape:
        Any, the same.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax import nn
        >>> [round(float(x), 4) for x in nn.Tanhshrink()(jnp.array([-1.0, 2.0]))]
        [-0.2384, 1.036]

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.Tanhshrink.html
    """

    def forward(self, input: jax.Array) -> jax.Array:
        """As said above."""
        return functional.tanhshrink(input)


class LogSigmoid(Module):
    """log(1 / (1 + exp(-x))).

    Shape:
        Any, the same.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax import nn
        >>> [round(float(x), 4) for x in nn.LogSigmoid()(jnp.array([-1.0, 2.0]))]
        [-1.3133, -0.1269]

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.LogSigmoid.html
    """

    def forward(self, input: jax.Array) -> jax.Array:
        """As said above."""
        return functional.logsigmoid(input)


class Sigmoid(Module):
    """1 / (1 + exp(-x)).

    Shape:
        Any, the same.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax import nn
        >>> [round(float(x), 4) for x in nn.Sigmoid()(jnp.array([-1.0, 2.0]))]
        [0.2689, 0.8808]

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.Sigmoid.html
    """

    def forward(self, input: jax.Array) -> jax.Array:
        """As said above."""
        return functional.sigmoid(input)


class Tanh(Module):
    """The hyperbolic tangent.

    Shape:
        Any, the same.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax import nn
        >>> [round(float(x), 4) for x in nn.Tanh()(jnp.array([-1.0, 2.0]))]
        [-0.7616, 0.964]

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.Tanh.html
    """

    def forward(self, input: jax.Array) -> jax.Array:
        """As said above."""
        return functional.tanh(input)


class GLU(Module):
    """The first half of an axis times the sigmoid of the second.

    Args:
        dim: Which axis.

    Shape:
        (..., 2 K, ...) to (..., K, ...).

    Raises:
        InputError: For an odd length, or an axis that there is not, when it is called.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax import nn
        >>> [round(float(x), 4) for x in nn.GLU()(jnp.array([2.0, 0.0]))]
        [1.0]

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.GLU.html
    """

    def __init__(self, dim: int = -1) -> None:
        self.dim = dim

    def forward(self, input: jax.Array) -> jax.Array:
        """As said above."""
        return functional.glu(input, self.dim)
