"""An optimizer that sees the parameters as PyTorch's does: by its names, in its layout."""

from collections.abc import Iterable, Sequence
from dataclasses import field, replace
from typing import Any, Self

import jax
import optax
from flax import serialization, struct

from twinstep.errors import InputError
from twinstep.jax.mapping import Mapping, is_slot
from twinstep.jax.optim.base import require_params
from twinstep.jax.trees import by_name


@jax.tree_util.register_pytree_with_keys_class
class InOrder(dict[str, Any]):
    """{name: array}, its leaves in the order that they were put in; JAX sorts a plain dict's."""

    def tree_flatten_with_keys(self) -> tuple[list[tuple[Any, Any]], tuple[str, ...]]:
        """As JAX asks for it."""
        return [(jax.tree_util.DictKey(name), leaf) for name, leaf in self.items()], tuple(self)

    @classmethod
    def tree_unflatten(cls, names: tuple[str, ...], leaves: Iterable[Any]) -> Self:
        """As JAX asks for it."""
        return cls(zip(names, leaves, strict=True))


serialization.register_serialization_state(  # type: ignore[no-untyped-call]  # Flax says no types
    InOrder,
    lambda kept: {name: serialization.to_state_dict(leaf) for name, leaf in kept.items()},
    lambda kept, state: InOrder(
        (name, serialization.from_state_dict(leaf, state[name])) for name, leaf in kept.items()
    ),
)


@struct.dataclass
class TorchLayoutState:
    """inner: the optimizer's own state, over {PyTorch's name: array in PyTorch's layout}.

    names: the order that it has them in, if any was asked for
    """

    inner: Any
    names: tuple[str, ...] | None = field(default=None, metadata={"pytree_node": False})

    def parts(self, params: Any) -> list[tuple[Any, Any]]:
        """The one state, and its parameters by name; params: slots, which need no axes there."""
        slots = by_name(params, is_slot).values()
        named = {slot.names[0]: slot._replace(axes=None) for slot in slots}
        return [(self.inner, _ordered(named, self.names))]

    def rebuilt(self, states: list[Any]) -> Self:
        """The same around another state."""
        (inner,) = states
        return replace(self, inner=inner)


def in_torch_layout(
    optimizer: optax.GradientTransformation,
    layout: Mapping,
    names: Sequence[str] | None = None,
) -> optax.GradientTransformationExtraArgs:
    """An optimizer over a Flax tree that is given its arrays as PyTorch has them.

    For those that look at axes: `adafactor` keeps means over the last axis, `muon`'s rate is by
    rows over columns. The others are entry by entry, the same in any layout.

    Args:
        optimizer: Any of optax's or of this package's.
        layout: The model's, `module_layout(model)`.
        names: PyTorch's order of the parameters, for one that has them all in one vector (`lbfgs`).

    Returns:
        An `optax.GradientTransformationExtraArgs`, whose `update` needs the parameters. Its state
        is `TorchLayoutState`: the optimizer's own, over {PyTorch's name: array in PyTorch's
        layout}. `update`'s further arguments go the same way: `lbfgs`'s closure, and what has the
        form of the parameters (`sparse_adam`'s rows), which is named only, its axes being its own.

    Example:
        Flax's kernel is (in, out), PyTorch's weight (out, in): a number for each of 3 outputs.

        >>> from flax import nnx
        >>> from twinstep.jax.layout import module_layout
        >>> from twinstep.jax.optim import adafactor, in_torch_layout
        >>> model = nnx.Linear(2, 3, rngs=nnx.Rngs(0))
        >>> params = nnx.to_pure_dict(nnx.state(model, nnx.Param))
        >>> state = in_torch_layout(adafactor(), module_layout(model)).init(params)
        >>> params["kernel"].shape, state.inner.row_var["weight"].shape
        ((2, 3), (3, 1))

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.Linear.html
    """
    optimizer = optax.with_extra_args_support(optimizer)
    order = None if names is None else tuple(names)

    def to_torch(tree: Any) -> dict[str, jax.Array]:
        return _ordered(layout.part(tree).to_torch(tree), order)

    def seen(argument: Any, params: Any) -> Any:
        if callable(argument):

            def value_and_grad(named: dict[str, jax.Array]) -> tuple[jax.Array, Any]:
                value, grads = argument(layout.part(params).to_jax(named))
                return value, to_torch(grads)

            return value_and_grad
        found = by_name(argument)
        if found.keys() == by_name(params).keys():
            of = layout.part(argument).slots
            named = zip((slot.names[0] for slot in of), found.values(), strict=True)
            return _ordered(dict(named), order)
        return argument

    def init(params: optax.Params) -> TorchLayoutState:
        return TorchLayoutState(optimizer.init(to_torch(params)), order)

    def update(
        grads: optax.Updates,
        state: TorchLayoutState,
        params: optax.Params | None = None,
        **extra: Any,
    ) -> tuple[optax.Updates, TorchLayoutState]:
        if not isinstance(state, TorchLayoutState):
            raise InputError(
                f"in_torch_layout: state is a {type(state).__name__}, expected the "
                "TorchLayoutState that init gives: a checkpoint is restored into that"
            )
        extra = {key: seen(argument, params) for key, argument in extra.items()}
        updates, inner = optimizer.update(
            to_torch(grads), state.inner, to_torch(require_params(params)), **extra
        )
        return layout.part(grads).to_jax(updates), replace(state, inner=inner)

    return optax.GradientTransformationExtraArgs(init, update)


def _ordered(named: dict[str, Any], names: Sequence[str] | None) -> dict[str, Any]:
    """The same, its leaves in the order of names."""
    if names is None:
        return named
    if odd := sorted(named.keys() ^ set(names)):
        raise InputError(f"in_torch_layout: parameter {odd[0]!r} is on one side only, of names")
    return InOrder((name, named[name]) for name in names)
