"""Parameter groups: which optimizer moves which part of the parameters, and with what options."""

import inspect
from collections import abc
from collections.abc import Callable, Sequence
from dataclasses import field, replace
from typing import Any, Self

import jax
import jax.numpy as jnp
import optax
from flax import struct

from twinstep.errors import InputError, nearest
from twinstep.jax.mapping import Mapping, is_slot
from twinstep.jax.optim.selecting import Selector, chosen
from twinstep.jax.trees import by_name, children

Factory = Callable[..., optax.GradientTransformation]
Choice = Callable[[optax.Params], list[str]]
"""What says which parameters, by the tree's own names."""


@struct.dataclass
class GroupsState:
    """states: of each group's optimizer, over {name: array}; members: each group's names."""

    states: tuple[Any, ...]
    members: tuple[tuple[str, ...], ...] = field(metadata={"pytree_node": False})

    def parts(self, params: Any) -> list[tuple[Any, Any]]:
        """(state, its parameters by name) of each group."""
        named = by_name(params, is_slot)
        return [
            (state, _part(named, names))
            for state, names in zip(self.states, self.members, strict=True)
        ]

    def rebuilt(self, states: list[Any]) -> Self:
        """The same groups with other states."""
        return replace(self, states=tuple(states))


def param_groups(
    groups: Sequence[abc.Mapping[str, Any]] | abc.Mapping[str, optax.GradientTransformation],
    optimizer: Factory | None = None,
    *,
    layout: Mapping | None = None,
    **defaults: Any,
) -> optax.GradientTransformation:
    """PyTorch's list of groups; parameters in no group get gradients and don't move.

    `param_groups([{"params": "gru", "lr": 1e-3}, {"params": "model"}], optimizer=adam, lr=1e-2)`

    Args:
        groups: Each a dict of `params`, which parameters (a name, a list's number, the start of
            names up to a dot, several of those, an empty list included, or a function of a name),
            and the options that it has for itself, its own `optimizer` among them. In short, {key
            at the top of the tree: its optimizer}, alone, with a state of that form.
        optimizer: `adam` or another of this package, for the groups without their own.
        layout: A model's, for PyTorch's names of parameters beside the tree's own.
        defaults: Options of the groups without their own.

    Returns:
        An `optax.GradientTransformation`; its state is `GroupsState`, with each group's state and
        names. What `update` is given besides goes on to the groups: what has the form of the
        parameters, and a closure, for their own part.

    Raises:
        InputError: For an option that the optimizer has not, or a value that it refuses, here; in
            `init`, for a parameter that does not exist, or is in two groups; in `update`, for
            gradients of other parameters.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax.optim import param_groups, sgd
        >>> groups = [{"params": "model", "lr": 1.0}, {"params": "head"}]
        >>> optimizer = param_groups(groups, optimizer=sgd, lr=0.25)
        >>> params = {"model": {"w": jnp.ones(1)}, "head": jnp.ones(1), "other": jnp.ones(1)}
        >>> updates, state = optimizer.update(params, optimizer.init(params), params)
        >>> print(updates["model"]["w"], updates["head"], updates["other"])
        [-1.] [-0.25] [0.]

    Source: https://docs.pytorch.org/docs/stable/optim.html#per-parameter-options
    """
    if isinstance(groups, abc.Mapping):
        beside = {"optimizer": optimizer, "layout": layout} | defaults
        if odd := [key for key, value in beside.items() if value is not None]:
            raise InputError(
                f"param_groups: {odd[0]} is given, expected it with a list of groups alone"
            )
        return _by_key(groups)
    if not groups:
        raise InputError("param_groups: groups is empty, expected at least one group")
    if optimizer is not None:
        made(optimizer, "param_groups", defaults)  # refuses what the defaults alone make wrong
    parts: list[tuple[Choice, optax.GradientTransformation]] = []
    for number, group in enumerate(groups):
        what = f"param_groups: group {number}"
        if not isinstance(group, abc.Mapping) or "params" not in group:
            raise InputError(f"{what} is {group!r}, expected a dict with 'params'")
        options = defaults | {k: v for k, v in group.items() if k not in ("params", "optimizer")}
        factory = group.get("optimizer", optimizer)
        if factory is None:
            raise InputError(f"{what} has no optimizer, expected one, or one for all groups")
        parts.append((_choice(group["params"], layout, what), made(factory, what, options)))
    return _over_parts(parts)


def frozen(
    optimizer: optax.GradientTransformation, params: Selector, *, layout: Mapping | None = None
) -> optax.GradientTransformation:
    """The optimizer over all parameters but some, which neither move nor have a state.

    As PyTorch's optimizers pass by what `requires_grad = False` leaves without a gradient. So does
    PyTorch's clipping: it goes inside, `frozen(optax.chain(clip_grad_norm(1.0), adam()), "head")`;
    in front of `frozen` it would count the frozen parameters' gradients, which JAX has.

    Args:
        optimizer: Any of optax's or of this package's, or a chain of them.
        params: Which are frozen: a name, a list's number, the start of names up to a dot, several
            of those, or a function of a name.
        layout: As for `param_groups`.

    Returns:
        An `optax.GradientTransformation`; its state is `GroupsState`, of one group: the parameters
        that are left.

    Raises:
        InputError: In `init`, where a parameter does not exist; in `update`, for gradients of other
            parameters.

    Example:
        The norm that is clipped is that of what moves, 4.

        >>> import jax.numpy as jnp
        >>> import optax
        >>> from twinstep.jax.optim import clip_grad_norm, frozen, sgd
        >>> clipped = optax.chain(clip_grad_norm(1.0), sgd(lr=0.5, momentum=0.9))
        >>> optimizer = frozen(clipped, "embedding")
        >>> params = {"embedding": {"table": jnp.ones(1)}, "head": jnp.ones(1)}
        >>> grads = {"embedding": {"table": jnp.full(1, 3.0)}, "head": jnp.full(1, 4.0)}
        >>> updates, state = optimizer.update(grads, optimizer.init(params), params)
        >>> print(updates["embedding"]["table"], updates["head"].round(4), state.members)
        [0.] [-0.5] (('head',),)

    Source: https://docs.pytorch.org/docs/stable/notes/autograd.html#setting-requires-grad
    """

    def rest(tree: optax.Params) -> list[str]:
        held = set(chosen(tree, params, layout, "frozen"))
        return [name for name in by_name(tree) if name not in held]

    return _over_parts([(rest, optimizer)])


def made(
    factory: Factory, what: str, options: abc.Mapping[str, Any]
) -> optax.GradientTransformation:
    """An optimizer of these options; InputError names one that it has not."""
    known = inspect.signature(factory).parameters
    free = any(parameter.kind is parameter.VAR_KEYWORD for parameter in known.values())
    if not free and (odd := [name for name in options if name not in known]):
        raise InputError(f"{what}: option {odd[0]!r} is unknown, {nearest(odd[0], known)}")
    return factory(**options)


def _choice(params: Selector, layout: Mapping | None, what: str) -> Choice:
    return lambda tree: chosen(tree, params, layout, what)


def _over_parts(
    parts: Sequence[tuple[Choice, optax.GradientTransformation]],
) -> optax.GradientTransformationExtraArgs:
    """Each optimizer over its own parameters, {name: array}."""
    optimizers = [optax.with_extra_args_support(optimizer) for _, optimizer in parts]

    def init(params: optax.Params) -> GroupsState:
        groups = [choice(params) for choice, _ in parts]
        owner: dict[str, int] = {}
        for number, names in enumerate(groups):
            for name in names:
                if (other := owner.setdefault(name, number)) != number:
                    raise InputError(
                        f"param_groups: parameter {name!r} is in groups {other} and {number}, "
                        "expected in one at most"
                    )
        named = by_name(params)
        states = [
            optimizer.init(_part(named, names)) if names else optax.EmptyState()
            for optimizer, names in zip(optimizers, groups, strict=True)
        ]
        return GroupsState(tuple(states), tuple(map(tuple, groups)))

    def update(
        grads: optax.Updates, state: GroupsState, params: optax.Params | None = None, **extra: Any
    ) -> tuple[optax.Updates, GroupsState]:
        if not isinstance(state, GroupsState):
            raise InputError(
                f"param_groups: state is a {type(state).__name__}, expected the GroupsState that "
                "init gives: a checkpoint is restored into that"
            )
        named, states = by_name(grads), []
        updates: dict[str, Any] = {}
        # what has the form of the parameters goes in parts, as a mask of touched rows does
        given = {"params": params} | extra
        whole = {key: found for key, tree in extra.items() if (found := _like(named, tree))}
        if params is not None:
            whole["params"] = by_name(params)
        for optimizer, inner, names in zip(optimizers, state.states, state.members, strict=True):
            if not names:
                states.append(inner)
                continue
            of_part = given | {key: _part(found, names) for key, found in whole.items()}
            for key, function in extra.items():
                if callable(function):
                    of_part[key] = _of_part(function, names, params)
            moved, new = optimizer.update(
                _part(named, names), inner, of_part.pop("params"), **of_part
            )
            updates |= moved
            states.append(new)
        leaves = [updates.get(name, jnp.zeros_like(grad)) for name, grad in named.items()]
        return jax.tree.unflatten(jax.tree.structure(grads), leaves), state.rebuilt(states)

    return optax.GradientTransformationExtraArgs(init, update)


def _part(named: abc.Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """Those of a group, by name."""
    for name in names:
        if name not in named:
            raise InputError(f"param_groups: parameter {name!r} is missing")
    return {name: named[name] for name in names}


def _like(named: abc.Mapping[str, Any], tree: Any) -> dict[str, Any] | None:
    """A tree's leaves by name, where it has the form of the gradients."""
    found = by_name(tree)
    return found if found.keys() == named.keys() else None


def _of_part(
    value_and_grad: Callable[[Any], tuple[jax.Array, Any]], names: Sequence[str], params: Any
) -> Callable[[abc.Mapping[str, jax.Array]], tuple[jax.Array, dict[str, jax.Array]]]:
    """LBFGS's closure as a function of some of the parameters, by name; the others stay."""

    def of_part(part: abc.Mapping[str, jax.Array]) -> tuple[jax.Array, dict[str, jax.Array]]:
        leaves = [part.get(name, leaf) for name, leaf in by_name(params).items()]
        value, grads = value_and_grad(jax.tree.unflatten(jax.tree.structure(params), leaves))
        return value, _part(by_name(grads), names)

    return of_part


def _by_key(groups: abc.Mapping[str, optax.GradientTransformation]) -> optax.GradientTransformation:
    """{key at the top of the parameters' tree: its optimizer}, with a state of that form."""

    def parts(tree: Any, what: str) -> tuple[dict[str, Any], Any]:
        found, treedef = children(tree)
        for key in groups:
            if str(key) not in found:
                raise InputError(f"param_groups: {what} has no key {key!r}, {nearest(key, found)}")
        return found, treedef

    def init(params: optax.Params) -> dict[str, Any]:
        found, _ = parts(params, "params")
        return {key: optimizer.init(found[str(key)]) for key, optimizer in groups.items()}

    def update(
        grads: optax.Updates, state: abc.Mapping[str, Any], params: optax.Params | None = None
    ) -> tuple[optax.Updates, dict[str, Any]]:
        found, treedef = parts(grads, "gradients")
        own = None if params is None else parts(params, "params")[0]
        states, _ = parts(state, "state")
        updates = {key: jax.tree.map(jnp.zeros_like, grad) for key, grad in found.items()}
        new = {}
        for key, optimizer in groups.items():
            part = None if own is None else own[str(key)]
            updates[str(key)], new[key] = optimizer.update(found[str(key)], states[str(key)], part)
        return jax.tree.unflatten(treedef, list(updates.values())), new

    return optax.GradientTransformation(init, update)
