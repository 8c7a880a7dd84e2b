"""torch.nn's fractional max pools: where their windows are is drawn in every call.

Letters: N samples, C channels.
"""

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import jax

from twinstep.errors import InputError, check_arguments
from twinstep.jax.nn import functional
from twinstep.jax.nn.axes import checked, repeated
from twinstep.jax.nn.drawing import drawing
from twinstep.jax.nn.functional.windows import Sizes
from twinstep.jax.nn.module import Buffer, Module

__all__ = ["FractionalMaxPool2d", "FractionalMaxPool3d"]


class _FractionalMaxPool(Module):
    _rank: ClassVar[int]
    _function: ClassVar[Callable[..., Any]]

    def __init__(
        self,
        kernel_size: Sizes,
        output_size: Sizes | None = None,
        output_ratio: float | Sequence[float] | None = None,
        return_indices: bool = False,
        _random_samples: Any = None,
        *,
        generator: Any = None,
        rngs: Any = None,
    ) -> None:
        name, rank = type(self).__name__, self._rank
        if (output_size is None) == (output_ratio is None):
            raise InputError(
                f"{name}: output_size is {output_size} and output_ratio {output_ratio}, expected "
                "one of them"
            )
        self.kernel_size = repeated(kernel_size, rank)
        checked(name, kernel_size=(self.kernel_size, rank))
        self.return_indices = return_indices
        self.output_size = None if output_size is None else repeated(output_size, rank)
        self.output_ratio = None if output_ratio is None else repeated(output_ratio, rank)
        check_arguments(
            name,
            output_ratio=(
                output_ratio,
                f"a number above 0 and below 1, or {rank} of them",
                lambda _: (
                    self.output_ratio is None
                    or (
                        len(self.output_ratio) == rank and all(0 < v < 1 for v in self.output_ratio)
                    )
                ),
            ),
        )
        self._random_samples = None if _random_samples is None else Buffer(_random_samples)
        self.generator = (
            drawing(generator, rngs, "dropout") if self._random_samples is None else None
        )

    def forward(self, input: jax.Array) -> jax.Array | tuple[jax.Array, jax.Array]:
        """As said above."""
        samples = self._random_samples
        pooled: jax.Array | tuple[jax.Array, jax.Array] = type(self)._function(
            input,
            self.kernel_size,
            self.output_size,
            self.output_ratio,
            self.return_indices,
            None if samples is None else samples[...],
            generator=self.generator,
        )
        return pooled


class FractionalMaxPool2d(_FractionalMaxPool):
    """2-D max pooling of windows whose places are drawn in every call.

    Args:
        kernel_size: A number, or one for each axis.
        output_size: How many windows there are, the same; or
        output_ratio: what part of the input's size that is, between 0 and 1.
        return_indices: Whether the places of the largest are returned too.
        _random_samples: (N, C, 2), from 0 to 1, of input's dtype, for width, height; a
            buffer; None: they are drawn.
        generator: What draws them: a TorchGenerator or a Generator; None: the default one, which
            `manual_seed` seeds.
        rngs: nnx.Rngs in its place, of which the stream dropout is used.

    Shape:
        (N, C, H, W) to (N, C, H', W'), or both without N; with return_indices the places besides,
        int, in a channel's flat array.

    Raises:
        InputError: For what PyTorch refuses; where the input is traced and the generator is not: a
            module is an argument of the function that is compiled.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep import TorchGenerator
        >>> from twinstep.jax import nn
        >>> pool = nn.FractionalMaxPool2d(2, output_ratio=0.5, generator=TorchGenerator(0))
        >>> pool(jnp.ones((1, 2, 8, 8))).shape
        (1, 2, 4, 4)

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.FractionalMaxPool2d.html
    """

    _rank = 2
    _function = staticmethod(functional.fractional_max_pool2d)


class FractionalMaxPool3d(_FractionalMaxPool):
    """3-D max pooling of windows whose places are drawn in every call.

    Args:
        kernel_size: A number, or one for each axis.
        output_size: How many windows there are, the same; or
        output_ratio: what part of the input's size that is, between 0 and 1.
        return_indices: Whether the places of the largest are returned too.
        _random_samples: (N, C, 3), from 0 to 1, of input's dtype, for depth, height, width; a
            buffer; None: they are drawn.
        generator: What draws them: a TorchGenerator or a Generator; None: the default one, which
            `manual_seed` seeds.
        rngs: nnx.Rngs in its place, of which the stream dropout is used.

    Shape:
        (N, C, D, H, W) to (N, C, D', H', W'), or both without N; with return_indices the places
        besides, int, in a channel's flat array.

    Raises:
        InputError: For what PyTorch refuses; where the input is traced and the generator is not: a
            module is an argument of the function that is compiled.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep import TorchGenerator
        >>> from twinstep.jax import nn
        >>> pool = nn.FractionalMaxPool3d(2, output_ratio=0.5, generator=TorchGenerator(0))
        >>> pool(jnp.ones((1, 2, 8, 8, 8))).shape
        (1, 2, 4, 4, 4)

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.FractionalMaxPool3d.html
    """

    _rank = 3
    _function = staticmethod(functional.fractional_max_pool3d)
