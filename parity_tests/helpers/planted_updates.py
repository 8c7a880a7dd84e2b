"""Updates of a port made wrong on purpose: random gradients, 6 leaves, 12 steps, 2 groups."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
import optax
import torch

from twinstep.port.updates import Clipping, Updates

SHAPES = {
    "in.weight": (8, 6),
    "in.bias": (8,),
    "norm.weight": (8,),
    "norm.bias": (8,),
    "out.weight": (4, 8),
    "out.bias": (4,),
}
DECAYING = ("in.weight", "out.weight")
STEPS = 12
COSINE = 0.01 + 0.04 * (1 + np.cos(np.pi * np.arange(STEPS + 1) / STEPS))
STEPPED = 0.08 * 0.5 ** (np.arange(STEPS + 1) // 4)
CONSTANT = np.full(STEPS + 1, 0.05)

Leaves = dict[str, np.ndarray]
Step = Callable[[int, Leaves, Leaves], Leaves]
"""(t, parameters, gradients) -> parameters"""


def random_grads(seed: int = 0, steps: int = STEPS) -> Leaves:
    """{leaf: (T, ...)}, of norms from .3 to 3, each leaf at another scale."""
    rng = np.random.default_rng(seed)
    sizes = rng.uniform(0.3, 3, steps)
    grads = {
        name: rng.normal(size=(steps, *shape)) * 10 ** rng.uniform(-0.5, 0.5)
        for name, shape in SHAPES.items()
    }
    norms = np.sqrt(sum((g.reshape(steps, -1) ** 2).sum(1) for g in grads.values()))
    return {name: g * (sizes / norms).reshape(-1, *[1] * (g.ndim - 1)) for name, g in grads.items()}


def initial(seed: int = 1) -> Leaves:
    """{leaf: its first values}."""
    rng = np.random.default_rng(seed)
    return {name: rng.normal(size=shape) for name, shape in SHAPES.items()}


def followed(step: Step, grads: Leaves) -> Leaves:
    """{leaf: (T + 1, ...)}, the parameters that a port's step makes of gradients."""
    now = initial()
    every = [now]
    for t in range(len(grads["in.bias"])):
        now = step(t, now, {name: g[t] for name, g in grads.items()})
        every.append({name: np.array(leaf) for name, leaf in now.items()})
    return {name: np.stack([one[name] for one in every]) for name in SHAPES}


def by_torch(
    rule: str,
    lr: np.ndarray,
    clip: Callable[[list[torch.Tensor]], Any] | None = None,
    decay: float = 0.0,
    **settings: Any,
) -> Step:
    """A step of torch.optim's own, with settings that may be another's."""
    params = {name: torch.tensor(value) for name, value in initial().items()}
    groups = [
        {"params": [p for name, p in params.items() if name in DECAYING], "weight_decay": decay},
        {"params": [p for name, p in params.items() if name not in DECAYING], "weight_decay": 0.0},
    ]
    optimizer = getattr(torch.optim, rule)(groups, lr=0.1, **settings)

    def step(t: int, now: Leaves, grads: Leaves) -> Leaves:
        for name, param in params.items():
            param.grad = torch.tensor(grads[name])
        if clip is not None:
            clip([*params.values()])
        for group in optimizer.param_groups:
            group["lr"] = float(lr[t])
        optimizer.step()
        return {name: param.numpy().copy() for name, param in params.items()}

    return step


def by_optax(transform: optax.GradientTransformation) -> Step:
    """A step of optax's."""
    with jax.enable_x64(True):
        state = transform.init(initial())

    def step(t: int, now: Leaves, grads: Leaves) -> Leaves:
        nonlocal state
        with jax.enable_x64(True):
            made, state = transform.update(grads, state, now)
        return {name: now[name] + np.asarray(made[name]) for name in now}

    return step


def scheduled(lr: np.ndarray) -> Callable[[Any], Any]:
    """A table, as optax takes schedules."""
    return lambda count: jax.numpy.asarray(lr)[count]


def updates(
    params: Leaves,
    grads: Leaves,
    rule: str,
    lr: np.ndarray,
    decay: float = 0.0,
    clipping: Clipping | None = None,
    passes: int = 1,
    **settings: Any,
) -> Updates:
    """What a port did, and what PyTorch's rule would have used."""
    count = len(grads["in.bias"])

    def of(name: str) -> Mapping[str, np.ndarray]:
        own = {"lr": lr[:count], "weight_decay": decay if name in DECAYING else 0.0, **settings}
        return {keyword: np.broadcast_to(value, (count,)) for keyword, value in own.items()}

    return Updates(rule, {name: of(name) for name in SHAPES}, grads, params, clipping, None, passes)


def rounding(made: Updates) -> Leaves:
    """How far rounding may take each update: 8 eps of the largest entry, before it or after."""
    eps = np.finfo(np.float64).eps
    largest = {
        name: np.abs(leaf).reshape(len(leaf), -1).max(1) for name, leaf in made.params.items()
    }
    return {name: 8 * eps * np.maximum(size[:-1], size[1:]) for name, size in largest.items()}
