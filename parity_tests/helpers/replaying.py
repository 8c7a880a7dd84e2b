"""The updates of a recorded PyTorch program, made again from what was recorded of each."""

from typing import Any

import numpy as np
import torch
from torch import nn

from twinstep.trace.ledger import Trace


def apart(trace: Trace) -> dict[str, float]:
    """{"step parameter": how far the rule's result is from what was recorded}, where it is."""
    found: dict[str, float] = {}
    names = {name for name in trace.update if name in trace.program["optimizers"]}
    for name in sorted(names):
        for step in trace.steps_of("update", name):
            if (optimizer := _optimizer(trace, name, step)) is None:
                continue
            made, params = optimizer
            made.step()
            for called, parameter in params.items():
                ours = parameter.detach().numpy()
                theirs = _at(trace, "params", called, step)
                if not np.array_equal(ours, theirs):
                    found[f"{step} {called}"] = float(np.abs(ours - theirs).max())
    return found


def _optimizer(trace: Trace, name: str, step: int) -> Any:
    """The optimizer as it was before a step, with its gradients; its parameters by name."""
    told = trace.program["optimizers"][name]
    kind = getattr(torch.optim, told["class"], None)
    if kind is None or told["class"] == "LBFGS":  # a rule of the program's own; many evaluations
        return None
    prefix = "" if name == "optimizer" else f"{name}."
    groups, params = [], dict[str, nn.Parameter]()
    for i, names in enumerate(told["groups"]):
        here = [called for called in names if _at(trace, "params", called, step) is not None]
        for called in here:
            params[called] = nn.Parameter(torch.tensor(_before(trace, "params", called, step)))
            grad = _at(trace, "grads", called, step)
            params[called].grad = None if grad is None else torch.tensor(grad)
        numbers = {
            key.removeprefix(f"{prefix}{i}."): float(
                rows[_row(trace, "hyper_parameters", key, step)]
            )
            for key, rows in trace.hyper_parameters.items()
            if key.startswith(f"{prefix}{i}.") and step in trace.steps_of("hyper_parameters", key)
        }
        if here:
            groups.append({"params": [params[called] for called in here], **_settings(numbers)})
    manner = {k: v for k, v in told["settings"].items() if k in ("fused", "foreach") and v}
    made = kind(groups, **manner)
    for called, parameter in params.items():
        state = {
            key.removeprefix(f"{called}."): torch.tensor(value)
            for key in trace.opt_state
            if key.startswith(f"{called}.")
            and "." not in key.removeprefix(f"{called}.")
            and (value := _state(trace, name, key, step)) is not None
        }
        if state and kind.__name__ != "Adagrad":
            made.state[parameter] = state
        elif state:
            made.state[parameter] |= state
    return made, params


def _settings(numbers: dict[str, float]) -> dict[str, Any]:
    """The arguments of an optimizer, tuples and flags as such."""
    found: dict[str, Any] = {}
    for key, value in numbers.items():
        whole, _, place = key.partition(".")
        if place:
            found[whole] = (*found.get(whole, ()), value)
        elif whole in ("amsgrad", "maximize", "nesterov", "decoupled_weight_decay", "centered"):
            found[whole] = bool(value)
        elif whole not in ("initial_lr", "max_lr", "min_lr", "max_momentum", "base_momentum"):
            found[whole] = value
    return found


def _row(trace: Trace, stage: str, leaf: str, step: int) -> int:
    """Which row of a leaf is a step's."""
    return int(np.searchsorted(trace.steps_of(stage, leaf), step))


def _at(trace: Trace, stage: str, leaf: str, step: int) -> Any:
    """What a leaf is after a step; None where it has no row of it."""
    rows = getattr(trace, stage).get(leaf)
    if rows is None or step not in trace.steps_of(stage, leaf):
        return None
    return rows[_row(trace, stage, leaf, step) + (stage == "params")]


def _state(trace: Trace, optimizer: str, leaf: str, step: int) -> Any:
    """What a leaf of an optimizer's state was before a step; None where the last left none."""
    if (changed := _at(trace, "before", f"opt_state/{leaf}", step)) is not None:
        return changed
    earlier = [k for k in trace.steps_of("update", optimizer) if k < step]
    renewed = "renewed" in trace.update and step in trace.steps_of("update", "renewed")
    return None if renewed or not earlier else _at(trace, "opt_state", leaf, earlier[-1])


def _before(trace: Trace, stage: str, leaf: str, step: int) -> Any:
    """What a parameter was before a step."""
    if (changed := _at(trace, "before", f"{stage}/{leaf}", step)) is not None:
        return changed
    return getattr(trace, stage)[leaf][_row(trace, stage, leaf, step)]
