"""Optimizer state to and from PyTorch: what `state_dict()` gives and `load_state_dict` takes.

PyTorch numbers the parameters over all groups, in the order that they were given in. `names` says
what each number is called: `[name for name, _ in model.named_parameters()]` where the optimizer was
given `model.parameters()`; not needed where it was given names itself, or for a list of arrays.
"""

from collections import abc
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from twinstep.errors import InputError, nearest
from twinstep.jax.layout import Mapping, opt_state_layout
from twinstep.jax.optim._from_torch import torch_options
from twinstep.jax.optim._lbfgs import LBFGSState
from twinstep.jax.optim._sparse_adam import SparseAdamState
from twinstep.jax.optim.lbfgs_state import lbfgs_from_torch, lbfgs_to_torch

_OURS = ("count", "stored", "micro_step", "grad")  # what PyTorch keeps elsewhere, or not at all
_CLOCKS = ("step", "count", "func_evals")  # say by 0 that there was no step yet


def opt_state_to_torch(
    opt_state: Any,
    param_groups: Sequence[abc.Mapping[str, Any]],
    layout: Mapping,
    *,
    names: Sequence[str] | None = None,
    optimizer: str | None = None,
) -> dict[str, Any]:
    """An optimizer's state as PyTorch's `state_dict()` has it, with NumPy arrays for tensors.

    Before the first step 'state' is empty, as PyTorch's is.
    With tensors for arrays it is what `load_state_dict` takes:

    `jax.tree.map(lambda a: torch.tensor(a) if isinstance(a, np.ndarray) else a, state_dict)`

    Args:
        opt_state: The state of an optimizer of this package, alone or within others.
        param_groups: The other optimizer's `state_dict()["param_groups"]`, for its numbers and
            options; or written here, `params` being names.
        layout: Of the parameters: a model's (`module_layout`), or `tree_layout(params)` of a tree
            that has PyTorch's layout.
        names: What the parameters of number 0, 1, ... are called, where param_groups does not say,
            such as `[name for name, _ in model.named_parameters()]`.
        optimizer: Its name in torch.optim, to complete options with PyTorch's defaults.

    Returns:
        {'state': {number: {PyTorch's name: NumPy array}}, 'param_groups': [...]}.

    Raises:
        InputError: For names that the layout does not have, or too few of them.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax.layout import tree_layout
        >>> from twinstep.jax.optim import adam, opt_state_to_torch
        >>> optimizer, params = adam(lr=0.1), {"w": jnp.ones(2)}
        >>> _, state = optimizer.update({"w": jnp.full(2, 3.0)}, optimizer.init(params), params)
        >>> state_dict = opt_state_to_torch(state, [{"params": ["w"]}], tree_layout(params))
        >>> state_dict["param_groups"]
        [{'params': [0]}]
        >>> [round(m, 4) for m in state_dict["state"][0]["exp_avg"].tolist()]
        [0.3, 0.3]

    Source: https://docs.pytorch.org/docs/stable/generated/torch.optim.Optimizer.state_dict.html
    """
    groups, called = _numbered(param_groups, names, layout)
    defaults = {} if optimizer is None else torch_options(optimizer)
    states = _lbfgs_states(opt_state, _slots(layout))
    if states:
        kept = lbfgs_to_torch(*states[0], list(called.values()))
    else:
        kept = _entries(opt_state, layout)
    return {
        "state": {number: kept[name] for number, name in called.items() if name in kept},
        "param_groups": [defaults | group for group in groups],
    }


def opt_state_from_torch(
    state_dict: abc.Mapping[str, Any],
    opt_state: Any,
    layout: Mapping,
    *,
    names: Sequence[str] | None = None,
    count: int | None = None,
) -> Any:
    """An optimizer's state as `optimizer.state_dict()` has it, in the form of opt_state.

    Options are not read: `from_torch` takes them.

    Args:
        state_dict: PyTorch's, of tensors, or of arrays.
        opt_state: The state before the first step, `optimizer.init(params)`, which stays where
            PyTorch has none.
        layout: Of the parameters, as for `opt_state_to_torch`.
        names: What the parameters of number 0, 1, ... are called, as for `opt_state_to_torch`.
        count: The updates made, for a schedule of SGD's, Muon's or LBFGS's, which PyTorch doesn't
            keep.

    Returns:
        A state like opt_state, for the optimizer to go on from.

    Raises:
        InputError: Where the two don't fit, or parameters that share a number here (such as `step`)
            differ in it.

    Example:
        >>> import jax.numpy as jnp
        >>> import torch
        >>> from twinstep.jax.layout import tree_layout
        >>> from twinstep.jax.optim import from_torch, opt_state_from_torch
        >>> w = torch.nn.Parameter(torch.ones(2))
        >>> theirs = torch.optim.Adam([w])
        >>> w.sum().backward()
        >>> theirs.step()
        >>> params = {"w": jnp.asarray(w.detach().numpy())}
        >>> state, layout = from_torch(theirs).init(params), tree_layout(params)
        >>> state = opt_state_from_torch(theirs.state_dict(), state, layout, names=["w"])
        >>> print(state.step, state.exp_avg["w"])
        1 [0.1 0.1]

    Source: https://docs.pytorch.org/docs/stable/generated/torch.optim.Optimizer.state_dict.html
    """
    _, called = _numbered(state_dict["param_groups"], names, layout)
    given: dict[str, Any] = {}
    for number, state in state_dict["state"].items():
        if number not in called:
            raise InputError(f"optimizer state of parameter {number} is unknown, in no group")
        given |= {
            f"{called[number]}.{key}": value for key, value in state.items() if value is not None
        }
    states = _lbfgs_states(opt_state, _slots(layout))
    if states:
        new = lbfgs_from_torch(given, *states[0], list(called.values()), count)
        return jax.tree.map(
            lambda node: new if isinstance(node, LBFGSState) else node,
            opt_state,
            is_leaf=lambda node: isinstance(node, LBFGSState),
        )
    return _filled(opt_state, layout, given, count)


def _filled(opt_state: Any, layout: Mapping, given: dict[str, Any], count: int | None) -> Any:
    """opt_state with the entries that are given by name, {name.key: tensor or number}."""
    named_layout = opt_state_layout(opt_state, layout)
    named = named_layout.to_torch(opt_state)
    if odd := sorted(given.keys() - named.keys()):
        raise InputError(f"optimizer state {odd[0]!r} is unknown, {nearest(odd[0], named)}")
    with_state = {name.rpartition(".")[0] for name in given}
    for slot in named_layout.slots:
        key = slot.names[0].rpartition(".")[2]
        values = [given[name] for name in slot.names if name in given]
        if key == "count":
            # SGD asks it whether there is a buffer yet
            values = [bool(given) if count is None else count]
        elif key not in _OURS and (
            missing := [
                name
                for name in slot.names
                if name not in given and name.rpartition(".")[0] in with_state
            ]
        ):
            raise InputError(f"optimizer state {missing[0]!r} is missing")
        if values:
            arrays = [_array(value) for value in values]
            if any(not np.array_equal(array, arrays[0]) for array in arrays):
                raise InputError(f"optimizer state {key!r} differs between parameters")
            dtype = named[slot.names[0]].dtype
            named |= dict.fromkeys(slot.names, jnp.array(arrays[0], dtype))
    return named_layout.to_jax(named)


def _entries(opt_state: Any, layout: Mapping) -> dict[str, dict[str, Any]]:
    """{parameter: {PyTorch's name: array}}, of those that have made a step."""
    whole_steps = any(
        isinstance(node, SparseAdamState)
        for node in jax.tree.leaves(
            opt_state, is_leaf=lambda node: isinstance(node, SparseAdamState)
        )
    )
    found: dict[str, dict[str, Any]] = {}
    reset = set()
    for name, array in opt_state_layout(opt_state, layout).to_torch(opt_state).items():
        parameter, _, key = name.rpartition(".")
        if key in _CLOCKS and int(array) == 0:
            reset.add(parameter)
        value: Any = np.array(array)
        if key == "step":
            # PyTorch's is a float tensor, but for SparseAdam's
            value = int(array) if whole_steps else np.array(array, np.float32)
        if key not in _OURS:
            found.setdefault(parameter, {})[key] = value
    return {name: entries for name, entries in found.items() if name not in reset}


def _numbered(
    param_groups: Sequence[abc.Mapping[str, Any]], names: Sequence[str] | None, layout: Mapping
) -> tuple[list[dict[str, Any]], dict[int, str]]:
    """The groups with numbers for parameters, and {number: name}."""
    groups: list[dict[str, Any]] = []
    called: dict[int, str] = {}
    for group in param_groups:
        members = list(group["params"])
        if members and isinstance(members[0], str):
            titles, members = members, list(range(len(called), len(called) + len(members)))
        elif names is not None:
            if any(number >= len(names) for number in members):
                raise InputError(f"names has {len(names)} entries, expected one a parameter")
            titles = [names[number] for number in members]
        else:
            titles = list(group.get("param_names", map(str, members)))
        called |= zip(members, titles, strict=True)
        groups.append(dict(group) | {"params": members})
    known = {slot.names[0] for slot in layout.slots}
    if odd := [name for name in called.values() if name not in known]:
        raise InputError(f"parameter {odd[0]!r} is unknown, {nearest(odd[0], sorted(known))}")
    return groups, called


def _slots(layout: Mapping) -> Any:
    return jax.tree.unflatten(layout.treedef, layout.slots)


def _lbfgs_states(opt_state: Any, part: Any) -> list[tuple[LBFGSState, Any]]:
    """(LBFGS's state, the slots of the parameters it is for), of every one in a state."""
    return list(_each_lbfgs(opt_state, part))


def _each_lbfgs(state: Any, part: Any) -> Iterator[tuple[LBFGSState, Any]]:
    if isinstance(state, LBFGSState):
        yield state, part
    elif hasattr(state, "parts"):
        for inner, of in state.parts(part):
            yield from _each_lbfgs(inner, of)
    elif isinstance(state, tuple):
        for inner in state:
            yield from _each_lbfgs(inner, part)


def _array(value: Any) -> np.ndarray:
    """A tensor, an array or a number as an array of its own."""
    if hasattr(value, "detach"):
        value = value.detach().cpu().numpy()
    return np.array(value)
