"""Optimizer state to and from PyTorch: what `state_dict()` gives and `load_state_dict` takes.

PyTorch numbers the parameters over all groups, in the order that they were given in. `names` says
what each number is called: `[name for name, _ in model.named_parameters()]` where the optimizer was
given `model.parameters()`; not needed where it was given names itself, or for a list of arrays.
"""

from collections import abc
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from twinstep.errors import InputError, nearest
from twinstep.jax.mapping import Mapping
from twinstep.jax.optim._arrays import as_array, for_torch
from twinstep.jax.optim._from_torch import torch_options
from twinstep.jax.optim._lbfgs import LBFGSState
from twinstep.jax.optim._sparse_adam import SparseAdamState
from twinstep.jax.optim._state_parts import (
    is_of_optax,
    kind_of,
    layout_of,
    mapped,
    refuse_twice,
    renamed,
)
from twinstep.jax.optim.lbfgs_state import lbfgs_from_torch, lbfgs_to_torch
from twinstep.jax.state_layout import opt_state_layout

_OURS = ("count", "stored")  # what PyTorch keeps elsewhere, or not at all
_CLOCKS = ("step", "count", "func_evals")  # say by 0 that there was no step yet


def opt_state_to_torch(
    opt_state: Any,
    param_groups: Sequence[abc.Mapping[str, Any]],
    layout: Mapping,
    *,
    names: Sequence[str] | None = None,
    optimizer: str | None = None,
    count: int | None = None,
) -> dict[str, Any]:
    """An optimizer's state as PyTorch's `state_dict()` has it, with NumPy arrays for tensors.

    Before the first step 'state' is empty, as PyTorch's is.
    With tensors for arrays it is what `load_state_dict` takes:

    `jax.tree.map(lambda a: torch.tensor(a) if isinstance(a, np.ndarray) else a, state_dict)`

    bfloat16, which NumPy has not, is given as float32: `load_state_dict` rounds nothing as it turns
    it into the parameters' own dtype.

    Args:
        opt_state: The state of an optimizer of this package, or of optax's `sgd`, `adam`, `adamw`,
            `radam`, `adamax`, `adadelta`, `rmsprop` and `adagrad`, alone or within others.
        param_groups: The other optimizer's `state_dict()["param_groups"]`, for its numbers and
            options; or written here, `params` being names.
        layout: Of the parameters: a model's (`module_layout`), or `tree_layout(params)` of a tree
            that has PyTorch's layout.
        names: What the parameters of number 0, 1, ... are called, where param_groups does not say,
            such as `[name for name, _ in model.named_parameters()]`.
        optimizer: Its name in torch.optim, to complete options with PyTorch's defaults; of one of
            optax's, to say whose it is to be where several keep the same (Adam's if left out).
        count: The updates made, for one of optax's that does not count them, as PyTorch does.

    Returns:
        {'state': {number: {PyTorch's name: NumPy array}}, 'param_groups': [...]}.

    Raises:
        InputError: For names that the layout does not have, or too few of them; for a state that
            PyTorch has not, or that lacks what PyTorch keeps.

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
    kept: dict[str, dict[str, Any]] = {}

    def read(state: Any, part: Any) -> Any:
        entries = _entries(state, part, list(called.values()), optimizer, count)
        refuse_twice(kept, entries)
        kept.update(entries)
        return state

    mapped(opt_state, layout.tree, read, lambda clock: clock)
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

    Options are not read: `from_torch` takes them. What PyTorch keeps with a parameter, such as its
    number of steps, is one for a group here: where a group's differ, `from_torch` of the optimizer
    object makes groups in which they don't, and `param_groups` any.

    Args:
        state_dict: PyTorch's, of tensors, or of arrays; by numbers or, as torch.distributed's are,
            by the parameters' names.
        opt_state: The state before the first step, `optimizer.init(params)`, of one of those that
            `opt_state_to_torch` takes, which stays where PyTorch has none.
        layout: Of the parameters, as for `opt_state_to_torch`.
        names: What the parameters of number 0, 1, ... are called, as for `opt_state_to_torch`.
        count: The updates made, for a schedule, where PyTorch doesn't keep them: SGD's, Muon's,
            LBFGS's, and those of optax's.

    Returns:
        A state like opt_state, for the optimizer to go on from.

    Raises:
        InputError: Where the two don't fit, or parameters that share a number here (such as `step`)
            differ in it; where a schedule needs `count`.

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
    for key in ("state", "param_groups"):
        if key not in state_dict:
            raise InputError(f"state_dict has no {key!r}, expected optimizer.state_dict()")
    groups, called = _numbered(state_dict["param_groups"], names, layout)
    given: dict[str, Any] = {}
    for number, entries in state_dict["state"].items():
        name = called.get(number, number)
        if name not in called.values():
            raise InputError(f"optimizer state of parameter {number} is unknown, in no group")
        given |= {f"{name}.{key}": value for key, value in entries.items() if value is not None}
    unbuffered = all(group.get("momentum") == 0 for group in groups)
    read = _Read(given, list(called.values()), count, unbuffered)
    filled = mapped(opt_state, layout.tree, read.state, read.clock)
    if odd := sorted(given.keys() - read.used):
        raise InputError(f"optimizer state {odd[0]!r} is unknown, {nearest(odd[0], read.used)}")
    return filled


def _entries(
    state: Any, part: Any, names: Sequence[str], optimizer: str | None, count: int | None
) -> dict[str, dict[str, Any]]:
    """{parameter: {PyTorch's name: array}}, of those that have made a step."""
    if isinstance(state, LBFGSState):
        return lbfgs_to_torch(state, part, names)
    theirs = renamed(state, optimizer) if is_of_optax(state) else state
    found: dict[str, dict[str, Any]] = {}
    reset = set()
    for name, array in opt_state_layout(theirs, layout_of(part)).to_torch(theirs).items():
        parameter, _, key = name.rpartition(".")
        if key in _CLOCKS and int(array) == 0:
            reset.add(parameter)
        value: Any = for_torch(array)
        if key == "step":
            # PyTorch's is a float tensor, but for SparseAdam's
            is_whole = isinstance(state, SparseAdamState)
            value = int(array) if is_whole else np.array(array, np.float32)
        if key not in _OURS:
            found.setdefault(parameter, {})[key] = value
    if is_of_optax(state) and not {"step", "momentum_buffer"} & {*theirs._fields}:
        if count is None:
            raise InputError(
                f"count is None, expected the updates made: optax's {type(state).__name__} does "
                "not count them, PyTorch does"
            )
        found = {name: {"step": np.array(count, np.float32)} | e for name, e in found.items()}
    return {} if count == 0 else {name: e for name, e in found.items() if name not in reset}


class _Read:
    """What is given by name, {parameter.key: tensor or number}, put into states.

    names: in PyTorch's order; unbuffered: whether PyTorch's momentum is 0, for which it keeps no
    buffer, where an array of 0 has one here
    """

    def __init__(
        self, given: dict[str, Any], names: Sequence[str], count: int | None, unbuffered: bool
    ) -> None:
        self.given, self.names, self.count = given, names, count
        self.unbuffered = unbuffered
        self.used: set[str] = set()
        self.owners: set[str] = set()

    def clock(self, before: Any) -> Any:
        """The count of a schedule that optax keeps beside the optimizer's state."""
        return jnp.asarray(self._made(self.given), before.dtype)

    def state(self, state: Any, part: Any) -> Any:
        """An optimizer's own state, like the one before."""
        if isinstance(state, LBFGSState):
            self.used |= self.given.keys()
            asked = state.count is not None and self.given
            count = self._made({}) if asked else None
            return lbfgs_from_torch(self.given, state, part, self.names, count)
        params, theirs = layout_of(part), state
        held = {_owner(n) for slot in opt_state_layout(state, params).slots for n in slot.names}
        refuse_twice(self.owners, held)
        self.owners |= held
        mine = {name: value for name, value in self.given.items() if _owner(name) in held}
        if is_of_optax(state):
            theirs = renamed(state, kind_of(state, {name.rpartition(".")[2] for name in mine}))
            self.used |= {f"{owner}.step" for owner in held}  # it counts only where it has to
        layout = opt_state_layout(theirs, params)
        named = layout.to_torch(theirs)
        self.used |= named.keys()
        for slot in layout.slots:
            dtype, alone = named[slot.names[0]].dtype, len(layout.slots) == 1
            if slot.names[0].endswith(".count"):
                value = self._count(mine, dtype, alone=alone)
            else:
                value = self._value(slot.names, mine)
            if value is not None:
                named |= dict.fromkeys(slot.names, jnp.array(value, dtype))
        filled = layout.to_jax(named)
        return type(state)(*filled) if is_of_optax(state) else filled

    def _count(self, mine: abc.Mapping[str, Any], dtype: Any, *, alone: bool) -> int | bool:
        """Updates made, or whether any was. alone: PyTorch keeps nothing that would say so"""
        if jnp.issubdtype(dtype, bool):
            return bool(mine)
        return self._made(mine) if mine or alone or self.count is not None else 0

    def _value(self, names: Sequence[str], mine: abc.Mapping[str, Any]) -> Any:
        """What is given for one leaf of a state; None where nothing is."""
        key = names[0].rpartition(".")[2]
        absent = key == "momentum_buffer" and self.unbuffered and not mine.keys() & {*names}
        if not mine or absent:
            return None
        for name in names:
            if name not in mine:
                raise InputError(f"optimizer state {name!r} is missing, others have one")
        first, *others = [as_array(mine[name]) for name in names]
        for name, other in zip(names[1:], others, strict=True):
            if not np.array_equal(first, other):
                raise InputError(
                    f"optimizer state {key!r} differs between parameters, {names[0]!r} is {first}, "
                    f"{name!r} is {other}: expected groups of their own"
                )
        return first

    def _made(self, given: abc.Mapping[str, Any]) -> int:
        """The updates made, as was said, or as PyTorch counts them."""
        if self.count is not None:
            return self.count
        steps = {int(as_array(v)) for name, v in given.items() if name.endswith(".step")}
        if len(steps) != 1:
            raise InputError("count is None, expected the updates made: a schedule needs them")
        return steps.pop()


def _owner(name: str) -> str:
    return name.rpartition(".")[0]


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
