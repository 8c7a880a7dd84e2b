"""PyTorch's rule of an optimizer, from its class and its settings."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from twinstep.port.causes.update_steps import LAST_FORMS, LAST_NUMBERS, Rule, as_number
from twinstep.port.updates import Updates

_CORES = {
    "SGD": "sgd",
    "Adam": "adam",
    "AdamW": "adam",
    "NAdam": "nadam",
    "RAdam": "radam",
    "Adamax": "adamax",
    "Adagrad": "adagrad",
    "Adadelta": "adadelta",
    "RMSprop": "rmsprop",
}
_DEFAULTS: Mapping[str, Mapping[str, float]] = {
    "AdamW": {"weight_decay": 1e-2},
    "Adagrad": {"eps": 1e-10, "lr": 1e-2},
    "Adadelta": {"eps": 1e-6, "lr": 1.0},
    "RMSprop": {"lr": 1e-2},
}
_RENAMED = {"initial_accumulator_value": "initial"}
_FLAGS = ("maximize", "nesterov", "centered", "amsgrad", "decoupled_weight_decay")


def rule_of(updates: Updates) -> Rule | None:
    """PyTorch's rule; None where it is none of those that are known here."""
    if updates.rule not in _CORES:
        return None
    numbers: dict[str, Any] = {**LAST_NUMBERS, **_DEFAULTS.get(updates.rule, {})}
    forms = dict(LAST_FORMS)
    if updates.rule == "RAdam":
        forms["eps_form"] = "before the correction"
    settings = {
        keyword: _by_leaf([updates.settings[name][keyword] for name in updates.grads])
        for keyword in next(iter(updates.settings.values()))
        if keyword in (*LAST_NUMBERS, *_RENAMED, *_FLAGS)
    }
    for keyword, value in settings.items():
        numbers[_RENAMED.get(keyword, keyword)] = value
    numbers["first_lr"] = as_number(numbers["lr"])[:1]
    flags = {keyword: bool(np.any(value)) for keyword, value in settings.items()}
    forms["maximize"] = flags.get("maximize", False)
    forms["nesterov"] = flags.get("nesterov", False)
    forms["centered"] = flags.get("centered", False)
    forms["amsgrad"] = "torch" if flags.get("amsgrad") else ""
    if updates.rule == "AdamW" or flags.get("decoupled_weight_decay"):
        forms["decay"] = "decoupled"
    if updates.clipping is not None:
        numbers["limit"] = updates.clipping.limit
        forms |= {"clip": updates.clipping.kind, "clip_type": float(updates.clipping.norm_type)}
    forms["together"] = forms["clip_type"]
    known = {name: as_number(numbers[name]) for name in LAST_NUMBERS}
    return Rule(_CORES[updates.rule], known, forms)


def _by_leaf(values: Sequence[np.ndarray]) -> np.ndarray:
    """A setting at each update, (T, 1, L), or (T, 1, 1) where all leaves have the same."""
    table = np.stack([np.asarray(value, np.float64) for value in values], 1)[:, None, :]
    return table[..., :1] if np.all(table == table[..., :1]) else table
