"""torch.nn's tables, whose rows are looked up.

Gradients are dense, as PyTorch's are unless sparse=True: 0 in rows that no number names.
Letters: R rows, D numbers in a row, B bags.
"""

from typing import Any, Self

import jax
import jax.numpy as jnp

from twinstep.errors import InputError, check_arguments
from twinstep.jax.nn import functional, init
from twinstep.jax.nn.drawing import drawing
from twinstep.jax.nn.functional.taking_in import value_of
from twinstep.jax.nn.module import Module, Parameter, default_dtype
from twinstep.jax.nn.sizes import checked_sizes

__all__ = ["Embedding", "EmbeddingBag"]


class Embedding(Module):
    """Rows of a table by their numbers.

    Args:
        num_embeddings, embedding_dim: R and D, ints.
        padding_idx: A row that gets no gradient and starts as 0, -R to R - 1.
        max_norm: The norm to which longer rows, of those that are named, are shortened: written
            into the weight, as in PyTorch.
        norm_type: Which norm.
        scale_grad_by_freq: Whether a row's gradient is divided by how often it is named.
        sparse: Not looked at: gradients are dense.
        _weight: The table to start from, (R, D); None: drawn.
        _freeze: Whether the weight's `requires_grad` is False.
        device: Ignored.
        dtype: Of the weight; None: float64 under x64, else float32.
        generator: What draws its first values: a TorchGenerator or a Generator; None: the default
            one.
        rngs: nnx.Rngs in its place.

    Shape:
        (...) ints to (..., D); weight (R, D). In a compiled function NaN for a number that is no
        row's.

    Raises:
        InputError: For a padding_idx that is no row, a _weight of another shape, known numbers that
            are no row's.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax import nn
        >>> layer = nn.Embedding(3, 2, _weight=jnp.array([[0.0, 1.0], [2.0, 3.0], [4.0, 5.0]]))
        >>> layer(jnp.array([2, 0])).tolist()
        [[4.0, 5.0], [0.0, 1.0]]

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.Embedding.html
    """

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        padding_idx: int | None = None,
        max_norm: float | None = None,
        norm_type: float = 2.0,
        scale_grad_by_freq: bool = False,
        sparse: bool = False,
        _weight: Any = None,
        _freeze: bool = False,
        device: Any = None,
        dtype: Any = None,
        *,
        generator: Any = None,
        rngs: Any = None,
    ) -> None:
        self.num_embeddings, self.embedding_dim = num_embeddings, embedding_dim
        self.padding_idx = _row("Embedding", padding_idx, num_embeddings)
        self.max_norm, self.norm_type = max_norm, norm_type
        self.scale_grad_by_freq, self.sparse = scale_grad_by_freq, sparse
        shape = checked_sizes(
            "Embedding", num_embeddings=num_embeddings, embedding_dim=embedding_dim
        )
        draws = drawing(generator, rngs)
        table = _table("Embedding", shape, _weight, self.padding_idx, draws, dtype)
        self.weight = Parameter(table, requires_grad=not _freeze)

    @classmethod
    def from_pretrained(
        cls,
        embeddings: jax.Array,
        freeze: bool = True,
        padding_idx: int | None = None,
        max_norm: float | None = None,
        norm_type: float = 2.0,
        scale_grad_by_freq: bool = False,
        sparse: bool = False,
    ) -> Self:
        """A layer of a given table.

        Args:
            embeddings: The table, (R, D).
            freeze: Whether the weight's `requires_grad` is False.
            padding_idx, max_norm, norm_type, scale_grad_by_freq, sparse: As the class has them.

        Returns:
            The layer.

        Raises:
            InputError: For another number of axes than 2.
        """
        return cls(
            *_shape(cls.__name__, embeddings),
            padding_idx,
            max_norm,
            norm_type,
            scale_grad_by_freq,
            sparse,
            embeddings,
            freeze,
        )

    def forward(self, input: jax.Array) -> jax.Array:
        """As said above."""
        return functional.embedding(
            input,
            self.weight,
            self.padding_idx,
            self.max_norm,
            self.norm_type,
            self.scale_grad_by_freq,
        )


class EmbeddingBag(Module):
    """Sums, means or maxima of bags of a table's rows; 0 for an empty bag.

    Args:
        num_embeddings, embedding_dim: R and D, ints.
        max_norm, norm_type, scale_grad_by_freq, sparse: See `Embedding`.
        mode: "sum", "mean" or "max".
        _weight: The table to start from, (R, D); None: drawn.
        include_last_offset: Whether the offsets end with the input's length.
        padding_idx: A row that is left out of the bags and starts as 0, -R to R - 1.
        device: Ignored.
        dtype: Of the weight; None: float64 under x64, else float32.
        generator: What draws its first values: a TorchGenerator or a Generator; None: the default
            one.
        rngs: nnx.Rngs in its place.

    Shape:
        (B, L) ints to (B, D); or (N,) with offsets, where each bag begins, (B,); per_sample_weights
        of the input's shape, in mode "sum". weight (R, D).

    Raises:
        InputError: For a padding_idx that is no row, a _weight of another shape; when it is called
            for another mode, and numbers that are known and no row's.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax import nn
        >>> table = jnp.array([[0.0, 1.0], [2.0, 3.0], [4.0, 5.0]])
        >>> nn.EmbeddingBag(3, 2, _weight=table)(jnp.array([2, 0, 1]), jnp.array([0, 2])).tolist()
        [[2.0, 3.0], [2.0, 3.0]]

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.EmbeddingBag.html
    """

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        max_norm: float | None = None,
        norm_type: float = 2.0,
        scale_grad_by_freq: bool = False,
        mode: str = "mean",
        sparse: bool = False,
        _weight: Any = None,
        include_last_offset: bool = False,
        padding_idx: int | None = None,
        device: Any = None,
        dtype: Any = None,
        *,
        generator: Any = None,
        rngs: Any = None,
    ) -> None:
        self.num_embeddings, self.embedding_dim = num_embeddings, embedding_dim
        self.max_norm, self.norm_type = max_norm, norm_type
        self.scale_grad_by_freq, self.mode, self.sparse = scale_grad_by_freq, mode, sparse
        self.include_last_offset = include_last_offset
        self.padding_idx = _row("EmbeddingBag", padding_idx, num_embeddings)
        shape = checked_sizes(
            "EmbeddingBag", num_embeddings=num_embeddings, embedding_dim=embedding_dim
        )
        draws = drawing(generator, rngs)
        self.weight = Parameter(
            _table("EmbeddingBag", shape, _weight, self.padding_idx, draws, dtype)
        )

    @classmethod
    def from_pretrained(
        cls,
        embeddings: jax.Array,
        freeze: bool = True,
        max_norm: float | None = None,
        norm_type: float = 2.0,
        scale_grad_by_freq: bool = False,
        mode: str = "mean",
        sparse: bool = False,
        include_last_offset: bool = False,
        padding_idx: int | None = None,
    ) -> Self:
        """A layer of a given table.

        Args:
            embeddings: The table, (R, D).
            freeze: Whether the weight's `requires_grad` is False.
            max_norm, norm_type, scale_grad_by_freq, mode, sparse: As the class has them.
            include_last_offset, padding_idx: These too.

        Returns:
            The layer.

        Raises:
            InputError: For another number of axes than 2.
        """
        made = cls(
            *_shape(cls.__name__, embeddings),
            max_norm,
            norm_type,
            scale_grad_by_freq,
            mode,
            sparse,
            embeddings,
            include_last_offset,
            padding_idx,
        )
        made.weight = Parameter(value_of(embeddings), requires_grad=not freeze)
        return made

    def forward(
        self,
        input: jax.Array,
        offsets: jax.Array | None = None,
        per_sample_weights: jax.Array | None = None,
    ) -> jax.Array:
        """As said above."""
        return functional.embedding_bag(
            input,
            self.weight,
            offsets,
            self.max_norm,
            self.norm_type,
            self.scale_grad_by_freq,
            self.mode,
            self.sparse,
            per_sample_weights,
            self.include_last_offset,
            self.padding_idx,
        )


def _row(name: str, padding_idx: int | None, rows: int) -> int | None:
    """padding_idx from 0 on."""
    if padding_idx is None:
        return None
    check_arguments(
        name,
        padding_idx=(padding_idx, f"{-rows} to {rows - 1}", lambda v: -rows <= v < rows),
    )
    return padding_idx + rows if padding_idx < 0 else padding_idx


def _table(
    name: str, shape: tuple[int, ...], given: Any, padding_idx: int | None, draws: Any, dtype: Any
) -> jax.Array:
    if given is not None:
        table: jax.Array = value_of(given)
        if table.shape != shape:
            raise InputError(f"{name}: _weight is of shape {table.shape}, expected {shape}")
        return table
    drawn: jax.Array = init.normal_(jnp.zeros(shape, default_dtype(dtype)), generator=draws)
    return drawn if padding_idx is None else drawn.at[padding_idx].set(0)


def _shape(name: str, embeddings: Any) -> tuple[int, int]:
    shape = jnp.shape(value_of(embeddings))
    if len(shape) != 2:
        raise InputError(f"{name}: embeddings is of shape {shape}, expected (R, D)")
    return shape[0], shape[1]
