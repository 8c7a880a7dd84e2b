"""What norms do to gradients and steps: clipping by them, and optimizers that scale by them.

Shapes as in `update_rules`; a rule's numbers are (T or 1, B or 1, L or 1).
"""

import math
from typing import Any

import numpy as np

from twinstep.port.causes.update_entries import Entries, Sizes
from twinstep.port.causes.update_groups import summed
from twinstep.port.causes.update_rules import Forms, Numbers

TRUSTS = ("lamb", "adafactor")
"""Forms of "trust" that scale a step"""
_UNIT_LEAST, _DIVISOR_LEAST = 1e-3, 1e-6  # optax.adaptive_grad_clip's
_ADAFACTOR_LEAST = 1e-3  # of a leaf's root mean square, as in optax


def spread(value: np.ndarray, entries: Entries) -> np.ndarray:
    """A number of each leaf, to each of its entries."""
    return value if value.shape[2] == 1 else value[..., entries.leaf]


def clip_scales(numbers: Numbers, forms: Forms, entries: Entries) -> np.ndarray | None:
    """What clipping by a norm makes of each update's gradients, (T or 1, B, N or 1)."""
    numbers = {name: value[: len(entries.grads)] for name, value in numbers.items()}
    if forms["clip"] == "adaptive":
        return _by_unit(numbers, entries)
    if forms["clip"] != "norm":
        return None
    if forms["clip_scope"] == "own leaf":
        norms = _of_group("leaf", entries)[0] * np.abs(spread(numbers["factor"], entries))
        limit = spread(numbers["limit"], entries)
        return _least_one(limit, norms + forms["clip_eps"])
    sizes, kind = entries.sizes, forms["clip_type"]
    if forms["clip_after_decay"]:
        by_leaf = _decayed_squares(numbers, forms, sizes)
    else:
        tables = {1.0: sizes.absolute, 2.0: sizes.grads, math.inf: sizes.largest}
        by_leaf = tables[kind][:, None, :]
    if forms["clip_scope"] == "leaf":
        norms = by_leaf
    elif sizes.together is not None and kind == forms["together"]:
        norms = sizes.together[:, None, None] ** (2 if kind == 2 else 1)
    else:
        joined = np.max if kind == math.inf else np.sum
        norms = joined(by_leaf, axis=2, keepdims=True)
    if kind == 2:
        norms = np.sqrt(np.maximum(norms, 0.0))
    if not forms["clip_after_decay"]:
        norms = norms * np.abs(numbers["factor"])
    return spread(_least_one(numbers["limit"], norms + forms["clip_eps"]), entries)


def _least_one(limit: np.ndarray, norms: np.ndarray) -> np.ndarray:
    with np.errstate(all="ignore"):
        scales = np.minimum(limit / norms, 1.0)
    return np.where(np.isnan(scales), 1.0, scales)


def _of_group(scope: str, entries: Entries) -> tuple[np.ndarray, np.ndarray]:
    """The norms of gradients and parameters of each entry's group, each (T, 1, N)."""
    table, ids, count = entries.sizes.groups[scope], entries.groups[scope], len(entries.grads)
    g, p = (np.sqrt(sums[:count, None, ids]) for sums in (table.grads, table.params))
    return g, p


def _by_unit(numbers: Numbers, entries: Entries) -> np.ndarray:
    """optax.adaptive_grad_clip: at most a part of the parameters' norm, unit by unit."""
    g, p = _of_group("unit", entries)
    g = g * np.abs(spread(numbers["factor"], entries))
    most = spread(numbers["limit"], entries) * np.maximum(p, _UNIT_LEAST)
    return np.where(g < most, 1.0, most / np.maximum(g, _DIVISOR_LEAST))


def _decayed_squares(numbers: Numbers, forms: Forms, sizes: Sizes) -> np.ndarray:
    """The squared norms of gradients that decay has been added to, (T, B, L)."""
    sign = -1.0 if forms["maximize"] else 1.0
    factor, decay = sign * numbers["factor"], numbers["weight_decay"]
    g, p, gp = (table[:, None, :] for table in (sizes.grads, sizes.params, sizes.products))
    return factor**2 * g + 2 * factor * decay * gp + decay**2 * p


def leaf_squares(entries: Entries, t: int) -> np.ndarray:
    """(N,) the squared norm of the gradient of each entry's own leaf."""
    squares: np.ndarray = entries.sizes.groups["leaf"].grads[t][entries.groups["leaf"]]
    return squares


def lars(entries: Entries, t: int, n: Numbers) -> np.ndarray:
    """What LARS multiplies a gradient with that decay has been added to."""
    table, ids, decay = entries.sizes.groups["leaf"], entries.groups["leaf"], n["weight_decay"]
    g, p, gp = (sums[t][ids] for sums in (table.grads, table.params, table.products))
    given = np.sqrt(
        np.maximum(n["factor"] ** 2 * g + 2 * n["factor"] * decay * gp + decay**2 * p, 0)
    )
    return np.where((p == 0) | (given == 0), 1.0, n["coefficient"] * np.sqrt(p) / given)


def rescaled(update: np.ndarray, entries: Entries, t: int, n: Numbers, forms: Forms) -> np.ndarray:
    """A step as its own norm has it, of leaves taken whole; of some entries, as fits them best."""
    ids, was = entries.groups["leaf"], entries.updates[t]
    if not entries.whole:
        if forms["update_clip"]:
            ids = np.zeros_like(ids)
        above, below = (summed(one * update, ids) for one in (was, update))
        return update * np.where(below == 0, 1.0, above / below)
    if forms["update_clip"]:
        norm = np.sqrt((update**2).sum(-1, keepdims=True))
        inner = n["lr"] if forms["update_clip"] == "norm before lr" else 1.0
        return update * np.minimum(inner * n["limit"] / norm, 1.0)
    norms = np.sqrt(summed(update**2, ids))
    params = np.sqrt(entries.sizes.groups["leaf"].params[t][ids])
    wanted: Any = n["lr"] * params
    if forms["trust"] == "adafactor":
        root = np.sqrt(entries.sizes.groups["leaf"].counts[ids])
        above = np.maximum(params / root, _ADAFACTOR_LEAST)
        return update * above / np.maximum(norms / (n["lr"] * root), 1.0)
    return update * np.where((wanted == 0) | (norms == 0), 1.0, wanted / norms)
