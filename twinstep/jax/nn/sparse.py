"""torch.nn's tables, whose rows are looked up."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from twinstep.errors import InputError


class Embedding(nnx.Module):
    """Rows of a table by their numbers, (N,) -> (N, embedding_dim).

    The gradient is dense, as PyTorch's is unless sparse=True: 0 in rows that no number names.
    flax.nnx.Embed keeps the dtype that it was made in. All is 0 until values are loaded.

    Args:
        num_embeddings: Rows of the table, an int.
        embedding_dim: Numbers in a row, an int.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax.layout import load_params
        >>> from twinstep.jax.nn import Embedding
        >>> layer = Embedding(3, 2)
        >>> load_params(layer, {"weight": jnp.array([[0.0, 1.0], [2.0, 3.0], [4.0, 5.0]])})
        >>> layer(jnp.array([2, 0])).tolist()
        [[4.0, 5.0], [0.0, 1.0]]

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.Embedding.html
    """

    def __init__(self, num_embeddings: int, embedding_dim: int) -> None:
        self.weight = nnx.Param(jnp.zeros((num_embeddings, embedding_dim)))

    def __call__(self, numbers: jax.Array) -> jax.Array:
        """The rows of these numbers.

        Args:
            numbers: Which rows, (N,) int, from 0.

        Returns:
            The rows, (N, embedding_dim); in a compiled function NaN for a number that is no row's.

        Raises:
            InputError: For a number that is no row's, where numbers are known.
        """
        table, rows = self.weight[...], jnp.asarray(numbers)
        if not isinstance(rows, jax.core.Tracer):
            known = np.asarray(rows)
            if (odd := known[(known < 0) | (known >= len(table))]).size:
                raise InputError(
                    f"Embedding: number {odd[0]} is no row's, expected 0 to {len(table) - 1}"
                )
        rows = jnp.where(rows < 0, len(table), rows)  # which JAX would count from the end
        found: jax.Array = table.at[rows].get(mode="fill", fill_value=jnp.nan)
        return found
