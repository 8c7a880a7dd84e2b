"""The optimizers of a program: what each is called, which parameters are its own, its numbers."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from twinstep.torch import naming, reading
from twinstep.torch.conversion import named_opt_state
from twinstep.torch.naming import Names
from twinstep.trace import dtypes

Optimizer = Any  # a torch.optim.Optimizer, or what stands around one
ONLY = "optimizer"
"""What the only optimizer is called: it stands in no name of what is its own."""


def parameters_of(optimizer: Optimizer) -> list[nn.Parameter]:
    """Those that an optimizer updates, in the order of its groups."""
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


class Optimizers:
    """Every optimizer that updates what is recorded.

    names: of the parameters; called: {optimizer: its name}; owner: {parameter: which optimizer's}
    driven: whether the program is one of ours, with one optimizer
    """

    def __init__(self, names: Names, driven: bool) -> None:
        self.names, self._driven = names, driven
        self.called: dict[Optimizer, str] = {}
        self.owner: dict[nn.Parameter, str] = {}
        self._made: dict[Optimizer, None] = {}
        self._theirs: set[nn.Parameter] = set()
        self._variables: dict[str, str | None] = {}
        self._count: dict[Optimizer, int] = {}
        self._rows: dict[tuple[Optimizer | None, bool], dict[nn.Parameter, str]] = {}
        self._of_state: dict[Optimizer, dict[nn.Parameter, str]] = {}
        self._all: dict[nn.Parameter, None] = {}
        self._held = 0
        self._settings: dict[str, tuple[Any, dict[str, float]]] = {}

    def made(self, optimizer: Optimizer) -> None:
        """One is there; it may never step."""
        self._made[optimizer] = None
        self._theirs.update(parameters_of(optimizer))
        self._forget()

    def _forget(self) -> None:
        """What was put together of the parameters is to be so anew."""
        self._rows.clear()
        self._of_state.clear()
        self._all = {}

    def parameters(self) -> dict[nn.Parameter, None]:
        """All that is known or may be updated."""
        held = sum(len(group["params"]) for one in self._made for group in one.param_groups)
        if not self._all or held != self._held:  # groups may be added, unseen
            self._held = held
            self._all = dict.fromkeys(self.names.parameters)
            for optimizer in self._made:
                self._all |= dict.fromkeys(parameters_of(optimizer))
        return self._all

    def places(self) -> dict[nn.Parameter, str]:
        """What a parameter of any is called that no module and no variable holds."""
        found: dict[nn.Parameter, str] = {}
        for optimizer in self._made:
            found |= _places(optimizer, self.called.get(optimizer, ONLY))
        return found

    def joins(self, optimizer: Optimizer, everything: bool) -> bool:
        """Whether it updates what is recorded; what it brings besides is named.

        everything: whether all is recorded that any optimizer updates
        """
        parameters = parameters_of(optimizer)
        if self._count.get(optimizer) == len(parameters):
            return True
        if not everything and not self.names.parameters.keys() & set(parameters):
            return False
        self.made(optimizer)
        name = self.called.get(optimizer) or self._name(optimizer, set(parameters))
        self.called[optimizer] = name
        others = dict.fromkeys(parameters)
        if everything:  # of idle ones what may be in a run with these: an old program may be there
            own = {reading.dtype_name(parameter) for parameter in parameters}
            together = (
                other
                for other in self.parameters()
                if other in others or dtypes.in_one_run(own | {reading.dtype_name(other)})
            )
            others = dict.fromkeys(together)
        if not self._driven:
            self.names.learn(others, _places(optimizer, name))
        for parameter in parameters:
            self.owner.setdefault(parameter, name)
        self._count[optimizer] = len(parameters)
        self._forget()
        return True

    def _name(self, optimizer: Optimizer, parameters: set[nn.Parameter]) -> str:
        """That of the one it renews; "optimizer" where no other is; else its variable's."""
        if self._driven:
            return ONLY
        held_by = naming.variable(optimizer)
        for other, name in self.called.items():
            theirs = set(parameters_of(other))
            if parameters == theirs or (parameters & theirs and held_by == self._variables[name]):
                return name
        name = self._new_name(optimizer, parameters, held_by)
        self._variables[name] = held_by
        return name

    def _new_name(
        self, optimizer: Optimizer, parameters: set[nn.Parameter], held_by: str | None
    ) -> str:
        rivals = [
            other
            for other in naming.alive(torch.optim.Optimizer)
            if parameters != (theirs := set(parameters_of(other)))
            and (other in self._made or theirs & self.names.parameters.keys())
            and not theirs >= parameters  # what stands around it
        ]
        for rival in rivals:
            self.made(rival)
        taken = set(self.called.values())
        if not rivals and not taken:
            return ONLY
        return naming.free(held_by or type(optimizer).__name__.lower(), taken)

    def in_row(self, optimizer: Optimizer | None, alone: bool = False) -> dict[nn.Parameter, str]:
        """{parameter: its name} of what a row of an optimizer holds: what is nobody's, too.

        None: no optimizer makes it. alone: only what it updates
        """
        if (optimizer, alone) not in self._rows:
            own = set() if optimizer is None else set(parameters_of(optimizer))
            self._rows[optimizer, alone] = {
                parameter: called
                for parameter, called in self.names.parameters.items()
                if parameter in own or (not alone and parameter not in self._theirs)
            }
        return self._rows[optimizer, alone]

    def described(self) -> dict[str, Any]:
        """{name: its class, its settings, and the names of the parameters of each group}"""
        return {
            name: {
                "class": type(optimizer).__name__,
                "settings": reading.settings(optimizer),
                "groups": [
                    [self.names.parameters[p] for p in group["params"]]
                    for group in optimizer.param_groups
                ],
            }
            for optimizer, name in self.called.items()
        }

    def numbers(self, optimizer: Optimizer) -> dict[str, float]:
        """The hyper-parameters of its groups; the very same mapping where none has changed."""
        name = self.called[optimizer]
        known, numbers = self._settings.get(name, (None, {}))
        if known != optimizer.param_groups:
            groups = [dict(group) for group in optimizer.param_groups]
            prefix = _prefix(name)
            numbers = {prefix + key: n for key, n in reading.numbers(optimizer).items()}
            tensors = any(isinstance(v, torch.Tensor) for group in groups for v in group.values())
            # a tensor may be changed in place: then all are read at every step
            self._settings[name] = None if tensors else groups, numbers
        return numbers

    def state(self, optimizer: Optimizer) -> Mapping[str, torch.Tensor]:
        """{"weight.exp_avg": tensor}; of a parameter that is another's too, behind its own name."""
        if not optimizer.state:
            return {}
        if optimizer not in self._of_state:
            name = self.called[optimizer]
            self._of_state[optimizer] = {
                parameter: called if self.owner[parameter] == name else f"{name}.{called}"
                for parameter, called in self.names.parameters.items()
                if parameter in self.owner
            }
        return named_opt_state(self._of_state[optimizer], optimizer)


def _places(optimizer: Optimizer, name: str) -> dict[nn.Parameter, str]:
    """Where each parameter stands in an optimizer of that name."""
    return {
        parameter: f"{_prefix(name)}{g}.{i}"
        for g, group in enumerate(optimizer.param_groups)
        for i, parameter in enumerate(group["params"])
    }


def _prefix(name: str) -> str:
    """What stands before the numbers of an optimizer."""
    return "" if name == ONLY else f"{name}."
