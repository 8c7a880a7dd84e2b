"""Parameter groups: which optimizer moves which part of the parameters."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax


def param_groups(
    groups: Mapping[str, optax.GradientTransformation],
) -> optax.GradientTransformation:
    """{part of the parameters: its optimizer}; parts in no group get gradients and don't move.

    A part is a key at the top of the parameters' tree, such as the name of one of two networks.
    Source: https://docs.pytorch.org/docs/stable/optim.html#per-parameter-options
    """

    def init(params: Mapping[str, Any]) -> dict[str, Any]:
        return {name: optimizer.init(params[name]) for name, optimizer in groups.items()}

    def update(
        grads: Mapping[str, Any], state: Mapping[str, Any], params: Mapping[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        updates = {name: jax.tree.map(jnp.zeros_like, grad) for name, grad in grads.items()}
        new_state = {}
        for name, optimizer in groups.items():
            part = None if params is None else params[name]
            updates[name], new_state[name] = optimizer.update(grads[name], state[name], part)
        return updates, new_state

    return optax.GradientTransformation(init, update)
