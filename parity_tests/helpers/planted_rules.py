"""What PyTorch does, and steps that do it wrong in their own way; see `planted_updates`."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import optax
import torch
from helpers.planted_updates import (
    COSINE,
    DECAYING,
    SHAPES,
    Leaves,
    Step,
    by_optax,
    by_torch,
    followed,
    random_grads,
    rounding,
    scheduled,
    updates,
)

from twinstep.port.causes.update_causes import causes_of
from twinstep.port.updates import Cause, Clipping, Updates

DECAY_MASK = {name: name in DECAYING for name in SHAPES}
CLIP = Clipping("norm", 1.0)
ADAM = {"betas.0": 0.9, "betas.1": 0.999, "eps": 1e-8}
LATE = np.r_[COSINE[:1], COSINE]


def clip(limit: float = 1.0, norm_type: float = 2.0) -> Callable[[list[torch.Tensor]], Any]:
    return lambda params: torch.nn.utils.clip_grad_norm_(params, limit, norm_type)


def clip_value(limit: float) -> Callable[[list[torch.Tensor]], Any]:
    return lambda params: torch.nn.utils.clip_grad_value_(params, limit)


def clip_leaves(limit: float) -> Callable[[list[torch.Tensor]], Any]:
    return lambda params: [torch.nn.utils.clip_grad_norm_([one], limit) for one in params]


def adamw(**settings: Any) -> Step:
    return by_torch(**{"rule": "AdamW", "lr": COSINE, "decay": 0.1, "clip": clip(), **settings})


def sgd(**settings: Any) -> Step:
    return by_torch(**{"rule": "SGD", "lr": COSINE, "decay": 0.01, "momentum": 0.9, **settings})


@dataclasses.dataclass(frozen=True)
class Base:
    """What PyTorch does, that a port does wrong."""

    rule: str
    lr: np.ndarray = dataclasses.field(default_factory=lambda: COSINE)
    decay: float = 0.0
    clipping: Clipping | None = None
    passes: int = 1
    settings: dict[str, float] = dataclasses.field(default_factory=dict)

    def but(self, **changes: Any) -> "Base":
        return dataclasses.replace(self, **changes)

    def made(self, step: Step, seed: int = 0) -> Updates:
        grads = random_grads(seed)
        params = followed(step, grads)
        return updates(
            params,
            grads,
            self.rule,
            self.lr,
            self.decay,
            self.clipping,
            self.passes,
            **self.settings,
        )


ADAMW = Base("AdamW", decay=0.1, clipping=CLIP, settings=ADAM)
ADAMW_PLAIN = ADAMW.but(clipping=None)
ADAM_BASE = Base("Adam", decay=0.01, settings=ADAM)
SGD = Base("SGD", decay=0.01, settings={"momentum": 0.9, "dampening": 0.0, "nesterov": 0.0})
SGD_PLAIN = SGD.but(settings={"momentum": 0.0, "dampening": 0.0, "nesterov": 0.0})


ADAM_PLAIN = ADAM_BASE.but(decay=0.0)
SGD_BARE = SGD_PLAIN.but(decay=0.0)


BASES: dict[str, Base] = {
    "SGD": SGD,
    "AdamW": ADAMW,
    "Adam": ADAM_BASE,
    "amsgrad": ADAM_BASE.but(settings=ADAM | {"amsgrad": 1.0}),
    "RMSprop": Base("RMSprop", decay=0.01, settings={"alpha": 0.99, "eps": 1e-8, "momentum": 0.9}),
    "centered": Base("RMSprop", decay=0.01, settings={"alpha": 0.9, "eps": 1e-4, "centered": 1.0}),
    "Adagrad": Base("Adagrad", decay=0.01, settings={"lr_decay": 0.1, "eps": 1e-10}),
    "NAdam": Base("NAdam", decay=0.01, settings=ADAM | {"momentum_decay": 4e-3}),
    "RAdam": Base("RAdam", decay=0.01, settings=ADAM),
    "Adamax": Base("Adamax", decay=0.01, settings=ADAM),
    "Adadelta": Base("Adadelta", decay=0.01, settings={"rho": 0.9, "eps": 1e-6}),
}


def torch_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """As torch.optim takes them: one tuple of betas, and flags as such."""
    own = dict(settings)
    if "betas.0" in own:
        own["betas"] = own.pop("betas.0"), own.pop("betas.1")
    flags = {"nesterov", "amsgrad", "centered", "maximize"}
    return {name: bool(value) if name in flags else value for name, value in own.items()}


def by_base(base: Base, **settings: Any) -> Step:
    """PyTorch's own step, with some settings of another."""
    clipping = None if base.clipping is None else clip(base.clipping.limit)
    own = {"lr": base.lr, "clip": clipping, "decay": base.decay, **base.settings, **settings}
    return by_torch(base.rule, **torch_settings(own))


def causes(made: Updates) -> list[Cause]:
    found = causes_of(made, rounding(made))
    assert all(cause.ratio <= 1 for cause in found)
    return found


def kinds(made: Updates) -> set[str]:
    return {cause.kind for cause in causes(made)}


# Steps that are wrong in their own way


def in_float32(made: Updates) -> tuple[Updates, Leaves]:
    """The same updates as float32 keeps them, and what its rounding may do."""
    params = {name: leaf.astype(np.float32) for name, leaf in made.params.items()}
    grads = {name: leaf.astype(np.float32) for name, leaf in made.grads.items()}
    eps = np.finfo(np.float32).eps / np.finfo(np.float64).eps
    allowed = {name: eps * leaf for name, leaf in rounding(made).items()}
    return dataclasses.replace(made, params=params, grads=grads), allowed


def optax_adamw(core: optax.GradientTransformation, *before: Any) -> Step:
    """AdamW around another core of Adam's."""
    decayed = optax.add_decayed_weights(0.1, mask=DECAY_MASK)
    return by_optax(
        optax.chain(*before, core, decayed, optax.scale_by_learning_rate(scheduled(COSINE)))
    )


def numpy_adam(
    root: Callable[..., Any], first: bool = True, second: bool = True, ahead: int = 0
) -> Step:
    """AdamW whose root is given variance, its correction and eps."""
    moments: dict[str, Any] = {}

    def step(t: int, now: Leaves, grads: Leaves) -> Leaves:
        after = {}
        for name, g in grads.items():
            m, v = moments.get(name, (0.0, 0.0))
            m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
            moments[name] = m, v
            count = t + 1 + ahead
            up = m / (1 - 0.9**count if first else 1.0)
            down = root(v, 1 - 0.999**count if second else 1.0, 1e-8)
            kept = now[name] * (1 - COSINE[t] * (0.1 if name in DECAYING else 0.0))
            after[name] = kept - COSINE[t] * up / down
        return after

    return step


def usual_root(v: Any, correction: float, eps: float) -> Any:
    return np.sqrt(v / correction) + eps


def given_grads(step: Step, change: Callable[[Leaves], Leaves]) -> Step:
    return lambda t, now, grads: step(t, now, change(grads))


def skipping(step: Step, at: int) -> Step:
    return lambda t, now, grads: now if t == at else step(t, now, grads)


def moved(step: Step, change: Callable[[int, str, np.ndarray, np.ndarray], np.ndarray]) -> Step:
    """What becomes of each leaf, from what it was and what a step makes of it.

    The step goes on from its own parameters, so it may have no decay but where change keeps them.
    """

    def changed(t: int, now: Leaves, grads: Leaves) -> Leaves:
        return {
            name: change(t, name, now[name], leaf) for name, leaf in step(t, now, grads).items()
        }

    return changed


def adam_core() -> optax.GradientTransformation:
    return optax.scale_by_adam()


def after_the_update(t: int, name: str, now: np.ndarray, leaf: np.ndarray) -> np.ndarray:
    return leaf * (1 - COSINE[t] * (0.1 if name in DECAYING else 0.0))


def plain_optax(*parts: Any) -> Step:
    return by_optax(optax.chain(*parts, optax.scale_by_learning_rate(scheduled(COSINE))))


def averaged_weights(rate: float) -> Step:
    """What is stored is the moving average of what SGD makes."""
    hidden: Leaves = {}

    def step(t: int, now: Leaves, grads: Leaves) -> Leaves:
        for name, leaf in now.items():
            hidden[name] = hidden.get(name, leaf) - COSINE[t] * grads[name]
        return {name: rate * leaf + (1 - rate) * hidden[name] for name, leaf in now.items()}

    return step


def lookahead(step: Step, period: int, rate: float) -> Step:
    """Lookahead around a step of optax's, which takes the parameters that it is given."""
    slow: Leaves = {}

    def around(t: int, now: Leaves, grads: Leaves) -> Leaves:
        for name, leaf in now.items():
            slow.setdefault(name, leaf)
        made = step(t, now, grads)
        if (t + 1) % period:
            return made
        slow.update({name: slow[name] + rate * (made[name] - slow[name]) for name in made})
        return dict(slow)

    return around


NO_CLIP = ADAMW_PLAIN
DECAY = optax.add_decayed_weights(0.1, mask=DECAY_MASK)
LR = scheduled(COSINE)


def reset_adam(at: int) -> Step:
    """optax.adam whose state is new at an update."""
    state: dict[str, Step] = {}

    def step(t: int, now: Leaves, grads: Leaves) -> Leaves:
        if t in (0, at):
            lr = scheduled(COSINE[t:])
            state["step"] = by_optax(optax.adam(lr))
        return state["step"](t, now, grads)

    return step


def other(
    transform: Callable[..., optax.GradientTransformation], **settings: Any
) -> Callable[[], Step]:
    return lambda: by_optax(transform(scheduled(COSINE), **settings))
