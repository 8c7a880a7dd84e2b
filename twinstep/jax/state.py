"""What a training carries from step to step, and what a step leaves.

Mirror: twinstep/torch/state.py
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, Self

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from twinstep.jax.layout import Layout, module_layout

Tree = Any
Batch = Mapping[str, jax.Array]
Criterion = Callable[[jax.Array, jax.Array], jax.Array]


class Step(NamedTuple):
    """loss: (), as the update found it; grads: like params, what the optimizer was given."""

    loss: jax.Array
    grads: Tree


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class TrainState:
    """Parameters and optimizer state, a plain tree each; the rest is fixed.

    params: nested dicts of arrays in Flax's layout
    grads: like params, where an example keeps gradients from step to step, as `.grad` does
    graph: the model without its parameters: `nnx.merge(graph, params)` is the model
    layout: how params go by PyTorch's names, in PyTorch's layout
    """

    params: Tree
    opt_state: optax.OptState
    grads: Tree  # or None
    graph: nnx.GraphDef = field(metadata={"static": True})
    criterion: Criterion = field(metadata={"static": True})
    optimizer: optax.GradientTransformation = field(metadata={"static": True})
    layout: Layout = field(metadata={"static": True})

    @classmethod
    def create(
        cls,
        model: nnx.Module,
        initial_params: Mapping[str, np.ndarray],
        criterion: Criterion,
        optimizer: optax.GradientTransformation,
        *,
        keep_grads: bool = False,
    ) -> Self:
        """The state before the first step.

        model: its own initial values are overwritten
        initial_params: by PyTorch's names, in PyTorch's layout. InputError where they don't fit.
        keep_grads: start with gradients of zero that the example carries on itself
        """
        layout = module_layout(model)
        params = layout.from_torch({name: jnp.asarray(a) for name, a in initial_params.items()})
        return cls(
            params=params,
            opt_state=optimizer.init(params),
            grads=jax.tree.map(jnp.zeros_like, params) if keep_grads else None,
            graph=nnx.graphdef(model),
            criterion=criterion,
            optimizer=optimizer,
            layout=layout,
        )

    @property
    def keep_grads(self) -> bool:
        """Whether gradients pile up from step to step."""
        return self.grads is not None

    def replace(self, **changes: Any) -> Self:
        """A state with some fields changed."""
        return replace(self, **changes)
