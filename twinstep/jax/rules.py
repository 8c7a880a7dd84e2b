"""PyTorch's update rules, made again on recorded gradients and parameters, by the kit.

Each update starts from the parameters that were recorded before it; the optimizer's state is what
the rule itself has made of the gradients so far.
"""

import inspect
from collections.abc import Mapping
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from twinstep.errors import InputError
from twinstep.jax.optim._from_torch import TORCH

ENTRYWISE = ("Adadelta", "Adagrad", "Adam", "AdamW", "Adamax", "ASGD", "NAdam", "RAdam",
             "RMSprop", "Rprop", "SGD")  # fmt: skip
"""Classes whose update of an entry asks for no other one."""
KNOWN = (*ENTRYWISE, "Adafactor", "Muon")
"""Classes whose updates can be made again; LBFGS asks for losses, SparseAdam for places."""
_KNOWN_NUMBERS = ("ASGD", "NAdam", "Rprop", "Adafactor", "Muon")
"""Classes that make something of their numbers, beside lr, before any update."""
_BLOCK = 1 << 18  # entries at a time, of all updates together at most 64 times as many
_SMALLEST = 1 << 10

Settings = Mapping[str, np.ndarray]


def updated(
    rule: str,
    settings: Settings,
    grads: np.ndarray,
    before: np.ndarray,
    renewed: np.ndarray,
    dtype: str = "float64",
) -> np.ndarray:
    """What a rule makes of parameters, update by update.

    Args:
        rule: The class in torch.optim.
        settings: {its keyword, as "lr" or "betas.0": (T,)}; of another class none is taken.
        grads: (T, ...), what the optimizer is given.
        before: (T, ...), the parameters before each update.
        renewed: (T,), whether the optimizer begins anew at an update.
        dtype: In which it computes.

    Returns:
        (T, ...), the parameters after each update.

    Raises:
        InputError: For a class that is not known.

    Example:
        >>> import numpy as np
        >>> from twinstep.jax.rules import updated
        >>> ones = np.ones((2, 3))
        >>> updated("SGD", {"lr": np.array([0.5, 0.25])}, ones, ones, np.array([True, False]))
        array([[0.5 , 0.5 , 0.5 ],
               [0.75, 0.75, 0.75]])

    Source: https://docs.pytorch.org/docs/stable/optim.html
    """
    if rule not in KNOWN:
        raise InputError(f"optimizer is {rule!r}, expected one of {', '.join(KNOWN)}")
    fixed, moving = _split(rule, settings)
    narrow = dtype if dtype in ("float16", "bfloat16") else ""
    with jax.enable_x64(dtype == "float64"):
        kind = jnp.dtype(dtype)
        run = _compiled(rule, tuple(sorted(fixed.items())), narrow)
        numbers = {
            name: jnp.asarray(a, "float32" if narrow else kind) for name, a in moving.items()
        }
        again = jnp.asarray(renewed, bool)

        def make(g: np.ndarray, p: np.ndarray) -> np.ndarray:
            made = run(jnp.asarray(g, kind), jnp.asarray(p, kind), numbers, again)
            return np.asarray(made.astype(jnp.float64 if dtype == "float64" else jnp.float32))

        if rule not in ENTRYWISE or grads[0].size == 0:
            return make(grads, before)
        return _in_blocks(make, grads, before)


def _in_blocks(make: Any, grads: np.ndarray, before: np.ndarray) -> np.ndarray:
    """The same of so many entries at a time, always of the same few sizes: each is compiled."""
    steps, shape = len(grads), grads.shape
    g, p = grads.reshape(steps, -1), before.reshape(steps, -1)
    block = max(_SMALLEST, min(_BLOCK, 1 << int(np.ceil(np.log2(max(1, g.shape[1]))))))
    block = max(_SMALLEST, min(block, 64 * _BLOCK // steps))
    parts = []
    for low in range(0, g.shape[1], block):
        part = slice(low, low + block)
        short = block - g[:, part].shape[1]
        pad = ((0, 0), (0, short))
        made = make(np.pad(g[:, part], pad), np.pad(p[:, part], pad))
        parts.append(made[:, : block - short])
    return np.concatenate(parts, axis=1).reshape(shape)


def _split(rule: str, settings: Settings) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """What chooses a formula, and the numbers in it: those are compiled anew for every value."""
    known = inspect.signature(TORCH[rule]).parameters
    fixed: dict[str, Any] = {}
    moving: dict[str, np.ndarray] = {}
    for name, values in settings.items():
        keyword = name.partition(".")[0]
        if keyword not in known or keyword == "decoupled_weight_decay":
            continue
        default = known[keyword].default
        constant = bool((values == values[0]).all())
        if isinstance(default, bool):
            fixed[name] = bool(values[0])
        elif constant and (
            values[0] == 0
            or isinstance(default, int)
            or (rule in _KNOWN_NUMBERS and keyword != "lr")
        ):
            whole = isinstance(default, int) and float(values[0]).is_integer()
            fixed[name] = int(values[0]) if whole else float(values[0])
        else:
            moving[name] = values
    return fixed, moving


@cache
def _compiled(rule: str, fixed: tuple[tuple[str, Any], ...], narrow: str) -> Any:
    def run(grads: jax.Array, before: jax.Array, numbers: Any, renewed: jax.Array) -> jax.Array:
        def optimizer(values: Mapping[str, Any]) -> Any:
            return TORCH[rule](**_keywords({**dict(fixed), **values}))

        first = optimizer({name: a[0] for name, a in numbers.items()}).init(before[0])

        def step(state: Any, at: Any) -> Any:
            g, p, values, again = at
            state = jax.tree.map(lambda new, old: jnp.where(again, new, old), first, state)
            updates, state = optimizer(values).update(g, state, p)
            return state, (p + updates).astype(p.dtype)

        made: jax.Array = jax.lax.scan(step, first, (grads, before, numbers, renewed))[1]
        return made

    return jax.jit(run)


def _keywords(values: Mapping[str, Any]) -> dict[str, Any]:
    """{"betas.0": a, "betas.1": b} as {"betas": (a, b)}; None where there is no number."""
    found: dict[str, Any] = {}
    for name in sorted(values):
        keyword, _, number = name.partition(".")
        known = found.get(keyword, ())
        missing = (None,) * (int(number) - len(known)) if number else ()
        found[keyword] = (*known, *missing, values[name]) if number else values[name]
    return found
