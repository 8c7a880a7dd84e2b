"""An optimizer that sees the parameters as PyTorch's does: by its names, in its layout."""

from typing import Any, NamedTuple, Self

import jax
import optax

from jax_impl.conversion import Layout
from jax_impl.optimizers.base import needed


class TorchLayoutState(NamedTuple):
    """inner: the optimizer's own state, over {PyTorch's name: array in PyTorch's layout}."""

    inner: Any

    def parts(self, params: Any) -> list[tuple[Any, Any]]:
        """The one state, and its parameters by name; params: slots, which need no axes there."""
        slots = jax.tree.leaves(params, is_leaf=lambda node: hasattr(node, "axes"))
        return [(self.inner, {slot.names[0]: slot._replace(axes=None) for slot in slots})]

    def rebuilt(self, states: list[Any]) -> Self:
        """The same around another state."""
        return type(self)(*states)


def in_torch_layout(
    optimizer: optax.GradientTransformation, layout: Layout
) -> optax.GradientTransformationExtraArgs:
    """An optimizer over a Flax tree that is given its arrays as PyTorch has them.

    For those that look at axes: `adafactor` keeps means over the last axis, `muon` scales by rows
    over columns. The others are entry by entry, the same in any layout.
    `update`'s further arguments go the same way: `lbfgs`'s closure, and what has the form of the
    parameters (`sparse_adam`'s rows), which is named only, its axes being its own.
    layout: the model's, `module_layout(model)`
    """
    optimizer = optax.with_extra_args_support(optimizer)

    def seen(argument: Any) -> Any:
        if callable(argument):

            def value_and_grad(named: dict[str, jax.Array]) -> tuple[jax.Array, Any]:
                value, grads = argument(layout.from_torch(named))
                return value, layout.to_torch(grads)

            return value_and_grad
        if jax.tree.structure(argument) == layout.treedef:
            names = [slot.names[0] for slot in layout.slots]
            return dict(zip(names, jax.tree.leaves(argument), strict=True))
        return argument

    def init(params: optax.Params) -> TorchLayoutState:
        return TorchLayoutState(optimizer.init(layout.to_torch(params)))

    def update(
        grads: optax.Updates,
        state: TorchLayoutState,
        params: optax.Params | None = None,
        **extra: Any,
    ) -> tuple[optax.Updates, TorchLayoutState]:
        extra = {key: seen(argument) for key, argument in extra.items()}
        updates, inner = optimizer.update(
            layout.to_torch(grads), state.inner, layout.to_torch(needed(params)), **extra
        )
        return layout.from_torch(updates), TorchLayoutState(inner)

    return optax.GradientTransformationExtraArgs(init, update)
