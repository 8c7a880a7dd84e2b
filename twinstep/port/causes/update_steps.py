"""A rule around its core: what is done to gradients before it and to the step after it.

Shapes as in `update_rules`; a rule's numbers are (T or 1, B or 1, L or 1).
"""

import dataclasses
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np

from twinstep.port.causes.update_entries import Entries
from twinstep.port.causes.update_norms import (
    TRUSTS,
    clip_scales,
    lars,
    leaf_squares,
    rescaled,
    spread,
)
from twinstep.port.causes.update_rules import CORES, Forms, Numbers, State

LAST_FORMS: Mapping[str, Any] = {
    "nesterov": False,
    "first": "gradient",
    "lr_inside": False,
    "debiased": False,
    "eps_form": "outside",
    "corrected": "both",
    "amsgrad": "",
    "ahead": 0,
    "variance": "",
    "sums": "",
    "moment_dtype": "",
    "bound": math.inf,
    "threshold": 5.0,
    "centered": False,
    "decay": "coupled",
    "maximize": False,
    "clip": "",
    "clip_scope": "all",
    "clip_eps": 1e-6,
    "clip_type": 2.0,
    "clip_after_decay": False,
    "trust": "",
    "reset": -1,
    "reset_counts": True,
    "skip": -1,
    "stale": -1,
    "returned": (),
    "times": MappingProxyType({}),
    "stored": "params",
    "period": 0,
    "update_clip": "",
}
"""{form: PyTorch's, where its optimizer does not say}"""
LAST_NUMBERS: Mapping[str, float] = {
    "lr": 1e-3,
    "first_lr": 1e-3,
    "weight_decay": 0.0,
    "momentum": 0.0,
    "dampening": 0.0,
    "betas.0": 0.9,
    "betas.1": 0.999,
    "eps": 1e-8,
    "eps_root": 0.0,
    "initial": 0.0,
    "alpha": 0.99,
    "rho": 0.9,
    "lr_decay": 0.0,
    "momentum_decay": 4e-3,
    "factor": 1.0,
    "limit": math.inf,
    "average": 0.0,
    "coefficient": 1e-3,
}


_NEARLY = 64.0
"""A rule that is off by more of what is allowed is none: only below is noise measured."""


@dataclass(frozen=True)
class Rule:
    """A rule: the core's name, its numbers and its forms."""

    core: str
    numbers: Mapping[str, np.ndarray]
    forms: Mapping[str, Any]

    def but(self, changes: Mapping[str, Any]) -> "Rule":
        """The same, but for some numbers and forms, and for the core, by "core"."""
        numbers, forms = dict(self.numbers), dict(self.forms)
        for name, value in changes.items():
            if name in LAST_NUMBERS:
                numbers[name] = as_number(value)
            elif name != "core":
                forms[name] = value
        return dataclasses.replace(
            self, core=changes.get("core", self.core), numbers=numbers, forms=forms
        )


def as_number(value: Any) -> np.ndarray:
    """As a rule has it, (T or 1, B or 1, L or 1)."""
    array = np.asarray(value, np.float64)
    return array if array.ndim == 3 else array.reshape(1, 1, 1)


def predict(rule: Rule, entries: Entries) -> np.ndarray:
    """The updates that a rule makes, (T, B, N)."""
    return np.stack(np.broadcast_arrays(*steps(rule, entries)))


def fits(rule: Rule, entries: Entries) -> bool:
    """Whether a rule makes all updates to rounding; looks no further than the first it does not."""
    wanted = zip(entries.updates, allowance(rule, entries), strict=True)
    least, within = _NEARLY if is_unsure(rule, entries) else 1.0, True
    for made, (was, may) in zip(steps(rule, entries), wanted, strict=True):
        gap = np.abs(made - was)
        if not np.all(gap <= least * may):
            return False
        within = within and bool(np.all(gap <= may))
    if within:
        return True
    gaps = np.abs(predict(rule, entries) - entries.updates[:, None])
    return bool(np.all(gaps <= allowance(rule, entries) + noise(rule, entries)))


def is_unsure(rule: Rule, entries: Entries) -> bool:
    """Whether what rounding does to gradients may be far more of an update than it is of them."""
    return entries.sizes.unsure > 0 and rule.core not in ("sgd", "lion", "signed")


def noise(rule: Rule, entries: Entries) -> np.ndarray:
    """What a rule makes of the rounding of gradients that sum several passes, (T, B, N)."""
    count = len(entries.grads)
    off = entries.sizes.unsure * entries.sizes.largest[:count, entries.leaf]
    made, found = predict(rule, entries), np.zeros(1)
    for signs in (np.ones(count), (-1.0) ** np.arange(count)):
        other = dataclasses.replace(entries, grads=entries.grads + signs[:, None] * off)
        found = np.maximum(found, np.abs(predict(rule, other) - made))
    return found


def allowance(rule: Rule, entries: Entries) -> np.ndarray:
    """How far a rule's updates may be off, (T, B, N).

    Adafactor's decay is 1 - t^-.8 in float32, whose last bit is t^.8 eps of what is new in the
    second moment, and half of that in the update; the powers that it is made of differ by a bit.

    RAdam's rectification is a difference of numbers near 2 / (1 - beta2), of which 1 is left at the
    sixth update: there the last bit of beta2^6 moves an update by eps / (10 (1 - beta2)^2) of it,
    and powers differ by a bit or two.
    """
    if rule.core == "factored":
        count = 1.0 + np.arange(len(entries.updates))[:, None, None]
        single = np.finfo(np.float32).eps * count**0.8
        return entries.allowed[:, None] + single * np.abs(entries.updates)[:, None]
    if rule.core != "radam":
        return entries.allowed[:, None]
    rest = 1 - rule.numbers["betas.1"].max(axis=(0, 2))
    part = np.finfo(np.float64).eps / (3 * rest**2)
    return entries.allowed[:, None] + part[:, None] * np.abs(entries.updates)[:, None]


def steps(rule: Rule, entries: Entries) -> Iterator[np.ndarray]:
    """The updates that a rule makes, one after another, each (B, N)."""
    with np.errstate(all="ignore"):  # what a wrong rule makes of honest numbers may be no number
        yield from _steps(rule, entries)


def _steps(rule: Rule, entries: Entries) -> Iterator[np.ndarray]:
    count, forms = len(entries.grads), rule.forms
    numbers = {name: spread(value, entries) for name, value in rule.numbers.items()}
    constant = {name: value[0] for name, value in numbers.items() if len(value) == 1}
    moving = {name: value for name, value in numbers.items() if len(value) > 1}
    scales = clip_scales(rule.numbers, forms, entries)
    state: State = {}
    before: list[State] = []
    around: State = {"hidden": entries.params[0], "slow": entries.params[0]}
    for t in range(count):
        n: dict[str, Any] = {**constant, **{name: value[t] for name, value in moving.items()}}
        before.append(dict(state))
        if t == forms["reset"]:
            state = {} if forms["reset_counts"] else _counts(state)
        if t == forms["skip"]:
            yield np.zeros_like(entries.grads[:1])
            continue
        of = t - (t == forms["stale"])  # whose gradient it is
        params = around["hidden"] if forms["stored"] == "average" else entries.params[t]
        grad = _clipped(entries.grads[of] * n["factor"], n, forms)
        if not forms["clip_after_decay"] and scales is not None:
            grad = grad * scales[of % len(scales)]
        if forms["maximize"]:
            grad = -grad
        if forms["decay"] == "coupled":
            grad = grad + n["weight_decay"] * params
        if forms["clip_after_decay"] and scales is not None:
            grad = grad * scales[of % len(scales)]
        if forms["trust"] == "lars":
            grad = grad * lars(entries, t, n)
        n["params"] = params
        if rule.core == "novograd":
            n["leaf_square"] = leaf_squares(entries, of) * n["factor"] ** 2
        update = -_decayed(CORES[rule.core](state, grad, n, forms), params, n, forms)
        if forms["trust"] in TRUSTS or forms["update_clip"]:
            update = rescaled(update, entries, t, n, forms)
        update = _stored(update, entries, t, n, forms, around)
        if forms["bound"] < math.inf:
            now = entries.params[t]
            update = np.clip(now + update, -forms["bound"], forms["bound"]) - now
        if t in forms["returned"][:1]:
            _, back, with_state = forms["returned"]
            update = (entries.params[back] - entries.params[t])[None]
            state = before[back] if with_state else state
        yield update * forms["times"].get(t, 1.0)


def _counts(state: State) -> State:
    return {name: value for name, value in state.items() if name == "count"}


def _clipped(grad: np.ndarray, n: Numbers, forms: Forms) -> np.ndarray:
    return np.clip(grad, -n["limit"], n["limit"]) if forms["clip"] == "value" else grad


def _decayed(step: np.ndarray, params: np.ndarray, n: Numbers, forms: Forms) -> np.ndarray:
    """The step with the decay that is not part of the gradient."""
    decay = n["weight_decay"]
    if forms["decay"] == "decoupled":
        return step + n["lr"] * decay * params
    if forms["decay"] == "unscaled":
        return step + decay * params
    if forms["decay"] == "first lr":
        return step + n["first_lr"] * decay * params
    if forms["decay"] == "after":
        return step + n["lr"] * decay * (params - step)
    return step


def _stored(
    update: np.ndarray,
    entries: Entries,
    t: int,
    n: Numbers,
    forms: Forms,
    around: State,
) -> np.ndarray:
    """What becomes of the parameters that are stored: they may be averaged, or come back."""
    now = entries.params[t]
    if forms["stored"] == "average":
        around["hidden"] = around["hidden"] + update
        average: np.ndarray = (1 - n["average"]) * (around["hidden"] - now)
        return average
    if forms["stored"] == "lookahead" and (t + 1) % forms["period"] == 0:
        around["slow"] = around["slow"] + n["average"] * (now + update - around["slow"])
        return around["slow"] - now
    return update
