"""Each known difference, planted in updates of torch, optax or NumPy, is named; others are not."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import optax
import pytest
import torch
from helpers.planted_updates import (
    CONSTANT,
    COSINE,
    DECAYING,
    SHAPES,
    STEPPED,
    STEPS,
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
from hypothesis import given, settings
from hypothesis import strategies as st

from twinstep.port import update_rules
from twinstep.port.update_causes import causes_of
from twinstep.port.update_differences import rule_of
from twinstep.port.update_entries import entries_of, sizes_of
from twinstep.port.update_steps import fits
from twinstep.port.updates import Cause, Clipping, Updates

pytestmark = pytest.mark.usefixtures("float64")


@pytest.fixture
def float64() -> None:
    """NAdam keeps the product of its decays in the default dtype."""
    torch.set_default_dtype(torch.float64)


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


def causes(made: Updates) -> list[Cause]:
    found = causes_of(made, rounding(made))
    assert all(cause.ratio <= 1 for cause in found)
    return found


def kinds(made: Updates) -> set[str]:
    return {cause.kind for cause in causes(made)}


# Steps that are wrong in their own way


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


def reset(make: Callable[[], Step], at: int) -> Step:
    """A PyTorch step whose optimizer is new at an update; the parameters stay."""
    state: dict[str, Step] = {"step": make()}

    def step(t: int, now: Leaves, grads: Leaves) -> Leaves:
        if t == at:
            state["step"] = make()
        return state["step"](t, now, grads)

    return step


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
Case = tuple[Base, Callable[[], Step], set[str]]
CASES: dict[str, Case] = {
    # eps and bias corrections
    "eps inside": (
        NO_CLIP,
        lambda: optax_adamw(optax.scale_by_adam(eps=0, eps_root=1e-8)),
        {"eps inside the root"},
    ),
    "eps before": (
        NO_CLIP,
        lambda: numpy_adam(lambda v, c, eps: (np.sqrt(v) + eps) / np.sqrt(c)),
        {"eps added before the correction"},
    ),
    "eps root": (NO_CLIP, lambda: optax_adamw(optax.scale_by_adam(eps_root=1e-8)), {"eps_root"}),
    "eps root 3e-6": (
        NO_CLIP,
        lambda: optax_adamw(optax.scale_by_adam(eps_root=3e-6)),
        {"eps_root"},
    ),
    "no correction": (
        NO_CLIP,
        lambda: numpy_adam(usual_root, first=False, second=False),
        {"no bias correction"},
    ),
    "no first correction": (
        NO_CLIP,
        lambda: numpy_adam(usual_root, first=False),
        {"first moment's bias correction missing"},
    ),
    "no second correction": (
        NO_CLIP,
        lambda: numpy_adam(usual_root, second=False),
        {"second moment's bias correction missing"},
    ),
    "correction ahead": (
        NO_CLIP,
        lambda: numpy_adam(usual_root, ahead=1),
        {"bias correction one update ahead"},
    ),
    "amsgrad": (ADAMW, lambda: adamw(amsgrad=True), {"amsgrad added"}),
    "optax amsgrad": (
        NO_CLIP,
        lambda: optax_adamw(optax.scale_by_amsgrad()),
        {"amsgrad over corrected moments"},
    ),
    "nadamw": (
        NO_CLIP,
        lambda: optax_adamw(optax.scale_by_adam(nesterov=True)),
        {"nesterov added"},
    ),
    # decay
    "coupled": (ADAMW, lambda: adamw(rule="Adam"), {"coupled decay"}),
    "decoupled": (ADAM_BASE, lambda: by_torch("AdamW", COSINE, decay=0.01), {"decoupled decay"}),
    "decay of all": (
        NO_CLIP,
        lambda: by_optax(optax.adamw(LR, weight_decay=0.1)),
        {"decay on all leaves"},
    ),
    "decay of some": (
        NO_CLIP,
        lambda: by_optax(optax.adamw(LR, weight_decay=0.1, mask=DECAY_MASK | {"norm.bias": True})),
        {"decay added on leaves"},
    ),
    "decay of fewer": (
        NO_CLIP,
        lambda: by_optax(
            optax.adamw(LR, weight_decay=0.1, mask=DECAY_MASK | {"out.weight": False})
        ),
        {"decay missing on leaves"},
    ),
    "no decay": (ADAMW, lambda: adamw(decay=0.0), {"no decay"}),
    "unscaled": (
        NO_CLIP,
        lambda: by_optax(
            optax.chain(
                adam_core(),
                optax.scale_by_learning_rate(LR),
                optax.add_decayed_weights(-0.1, mask=DECAY_MASK),
            )
        ),
        {"decay not scaled by lr"},
    ),
    "unscheduled": (
        NO_CLIP,
        lambda: by_optax(
            optax.chain(
                adam_core(),
                optax.scale_by_learning_rate(LR),
                optax.add_decayed_weights(-0.1 * COSINE[0], mask=DECAY_MASK),
            )
        ),
        {"decay not scheduled"},
    ),
    "decay after": (
        NO_CLIP,
        lambda: moved(plain_optax(adam_core()), after_the_update),
        {"decay after the update"},
    ),
    "decay added": (ADAMW.but(decay=0.0), lambda: adamw(decay=0.03), {"decay of leaves"}),
    # momentum
    "nesterov": (SGD, lambda: sgd(nesterov=True), {"nesterov added"}),
    "no nesterov": (SGD.but(settings=SGD.settings | {"nesterov": 1.0}), sgd, {"nesterov missing"}),
    "dampening": (SGD, lambda: sgd(dampening=0.5), {"another dampening"}),
    "no dampening": (
        SGD.but(settings=SGD.settings | {"dampening": 0.5}),
        sgd,
        {"dampening missing"},
    ),
    "averaged": (
        SGD.but(decay=0.0),
        lambda: plain_optax(optax.ema(0.9, debias=False)),
        {"momentum averaged", "learning rate scaled", "gradients scaled"},
    ),
    "debiased": (
        SGD.but(decay=0.0),
        lambda: plain_optax(optax.ema(0.9)),
        {"momentum averaged and debiased"},
    ),
    "first buffer": (
        SGD.but(decay=0.0, settings=SGD.settings | {"dampening": 0.5}),
        lambda: plain_optax(optax.scale(0.5), optax.trace(0.9)),
        {"first buffer damped"},
    ),
    "lr inside": (
        SGD.but(decay=0.0),
        lambda: by_optax(optax.chain(optax.scale_by_learning_rate(LR), optax.trace(0.9))),
        {"lr inside the momentum"},
    ),
    "no momentum": (SGD, lambda: sgd(momentum=0.0), {"momentum missing"}),
    "momentum": (SGD_PLAIN, lambda: sgd(momentum=0.7), {"another momentum"}),
    "nesterov from none": (
        SGD_PLAIN,
        lambda: sgd(momentum=0.7, nesterov=True),
        {"nesterov momentum added"},
    ),
    # learning rates
    "late": (ADAMW, lambda: adamw(lr=LATE), {"schedule one update late"}),
    "early": (ADAMW, lambda: adamw(lr=COSINE[1:]), {"schedule one update early"}),
    "late steps": (
        ADAMW.but(lr=STEPPED),
        lambda: adamw(lr=np.r_[STEPPED[:1], STEPPED]),
        {"schedule one update late"},
    ),
    "unscheduled lr": (
        SGD,
        lambda: sgd(lr=np.full(STEPS, COSINE[0])),
        {"learning rate not scheduled"},
    ),
    "constant lr": (ADAMW, lambda: adamw(lr=CONSTANT), {"constant learning rate"}),
    "epochs": (ADAMW, lambda: adamw(lr=COSINE[np.arange(STEPS) // 4]), {"schedule by epoch"}),
    "held": (SGD, lambda: sgd(lr=COSINE[np.arange(STEPS) // 4 * 4]), {"schedule held"}),
    "other lr": (
        ADAMW,
        lambda: adamw(lr=np.random.default_rng(3).uniform(0.01, 0.1, STEPS)),
        {"another learning rate at each update"},
    ),
    "scaled lr": (ADAMW, lambda: adamw(lr=0.3 * COSINE), {"learning rate scaled"}),
    # clipping
    "no clip": (ADAMW, lambda: adamw(clip=None), {"no clipping"}),
    "by value": (
        ADAMW,
        lambda: adamw(clip=clip_value(0.1)),
        {"clipping by value; another clipping limit"},
    ),
    "value for norm": (
        ADAMW.but(clipping=Clipping("norm", 0.1)),
        lambda: adamw(clip=clip_value(0.1)),
        {"clipping by value"},
    ),
    "norm for value": (
        ADAMW.but(clipping=Clipping("value", 0.5)),
        lambda: adamw(clip=clip(0.5)),
        {"clipping by norm"},
    ),
    "by leaf": (
        ADAMW.but(clipping=Clipping("norm", 0.2)),
        lambda: adamw(clip=clip_leaves(0.2)),
        {"clipping by leaf"},
    ),
    "optax's clip": (
        ADAMW,
        lambda: optax_adamw(adam_core(), optax.clip_by_global_norm(1.0)),
        {"clipping without 1e-6"},
    ),
    "inf norm": (
        ADAMW.but(clipping=Clipping("norm", 0.1)),
        lambda: adamw(clip=clip(0.1, np.inf)),
        {"clipping by the inf-norm"},
    ),
    "update clipped": (
        NO_CLIP.but(clipping=Clipping("norm", 0.2)),
        lambda: by_optax(
            optax.chain(
                optax.adamw(LR, weight_decay=0.1, mask=DECAY_MASK), optax.clip_by_global_norm(0.2)
            )
        ),
        {"the update clipped"},
    ),
    "clip after decay": (
        SGD.but(decay=0.3, clipping=CLIP),
        lambda: plain_optax(
            optax.add_decayed_weights(0.3, mask=DECAY_MASK),
            optax.clip_by_global_norm(1.0),
            optax.trace(0.9),
        ),
        {"clipping without 1e-6; clipping after the decay"},
    ),
    "clip added": (NO_CLIP, lambda: adamw(clip=clip(0.7)), {"clipping added"}),
    # gradients
    "summed": (
        SGD.but(passes=4),
        lambda: given_grads(sgd(), lambda g: {k: 4 * v for k, v in g.items()}),
        {"gradients summed"},
    ),
    "sign": (ADAMW, lambda: adamw(maximize=True), {"other sign"}),
    "scaled": (
        ADAMW,
        lambda: given_grads(adamw(), lambda g: {k: 0.05 * v for k, v in g.items()}),
        {"gradients scaled"},
    ),
    # state
    "reset": (NO_CLIP.but(decay=0.0), lambda: reset_adam(5), {"state reset"}),
    "skipped": (NO_CLIP, lambda: skipping(adamw(clip=None), 5), {"update skipped"}),
    "not applied": (
        ADAMW,
        lambda: adamw(lr=np.where(np.arange(STEPS + 1) == 5, 0, COSINE)),
        {"update not applied"},
    ),
    "averaged weights": (
        SGD_PLAIN.but(decay=0.0),
        lambda: averaged_weights(0.9),
        {"averaged parameters stored"},
    ),
    "lookahead": (NO_CLIP, lambda: lookahead(optax_adamw(adam_core()), 5, 0.5), {"Lookahead"}),
    # leaves
    "frozen": (
        NO_CLIP,
        lambda: moved(
            optax_adamw(adam_core()), lambda t, name, was, leaf: was if name == "in.bias" else leaf
        ),
        {"leaves frozen"},
    ),
    "leaves' lr": (
        NO_CLIP,
        lambda: moved(
            optax_adamw(adam_core()),
            lambda t, name, was, leaf: was + 3 * (leaf - was) if "norm" in name else leaf,
        ),
        {"learning rate of leaves"},
    ),
}


def reset_adam(at: int) -> Step:
    """optax.adam whose state is new at an update."""
    state: dict[str, Step] = {}

    def step(t: int, now: Leaves, grads: Leaves) -> Leaves:
        if t in (0, at):
            lr = scheduled(COSINE[t:])
            state["step"] = by_optax(optax.adam(lr))
        return state["step"](t, now, grads)

    return step


@pytest.mark.parametrize("case", CASES)
def test_difference_is_named(case: str) -> None:
    base, make, expected = CASES[case]
    assert kinds(base.made(make())) == expected


def other(
    transform: Callable[..., optax.GradientTransformation], **settings: Any
) -> Callable[[], Step]:
    return lambda: by_optax(transform(scheduled(COSINE), **settings))


ADAM_PLAIN = ADAM_BASE.but(decay=0.0)
SGD_BARE = SGD_PLAIN.but(decay=0.0)
OTHERS: dict[str, tuple[Base, Callable[[], Step], str]] = {
    "sgd": (ADAM_PLAIN, other(optax.sgd), "SGD"),
    "momentum": (ADAM_PLAIN, other(optax.sgd, momentum=0.9), "SGD with momentum"),
    "adam": (SGD_BARE, other(optax.adam), "Adam"),
    "nadam": (SGD_BARE, other(optax.nadam), "optax's nadam"),
    "torch nadam": (ADAM_PLAIN, lambda: by_torch("NAdam", COSINE), "NAdam"),
    "radam": (ADAM_PLAIN, other(optax.radam), "optax's radam"),
    "torch radam": (ADAM_PLAIN, lambda: by_torch("RAdam", COSINE), "RAdam"),
    "adamax": (ADAM_PLAIN, other(optax.adamax), "Adamax"),
    "adagrad": (ADAM_PLAIN, other(optax.adagrad), "optax's adagrad"),
    "torch adagrad": (ADAM_PLAIN, lambda: by_torch("Adagrad", COSINE), "Adagrad"),
    "adadelta": (ADAM_PLAIN, other(optax.adadelta), "Adadelta"),
    "rmsprop": (ADAM_PLAIN, other(optax.rmsprop), "optax's rmsprop"),
    "tf rmsprop": (ADAM_PLAIN, other(optax.rmsprop, initial_scale=1.0), "TensorFlow's RMSprop"),
    "torch rmsprop": (ADAM_PLAIN, lambda: by_torch("RMSprop", COSINE), "RMSprop"),
    "lion": (ADAMW_PLAIN, other(optax.lion, weight_decay=0.1, mask=DECAY_MASK), "Lion"),
    "sign": (ADAM_PLAIN, other(optax.sign_sgd), "sign SGD"),
    "adabelief": (ADAM_PLAIN, other(optax.adabelief), "AdaBelief"),
    "yogi": (ADAM_PLAIN, other(optax.yogi), "Yogi"),
    "lamb": (ADAMW_PLAIN, other(optax.lamb, weight_decay=0.1, mask=DECAY_MASK), "LAMB"),
    "lars": (SGD_BARE, other(optax.lars, momentum=0.9), "LARS"),
    "novograd": (ADAM_PLAIN, other(optax.novograd), "NovoGrad"),
    "adan": (ADAM_PLAIN, other(optax.adan), "Adan"),
}


@pytest.mark.parametrize("name", OTHERS)
def test_another_optimizer_is_named(name: str) -> None:
    base, make, expected = OTHERS[name]
    found = causes(base.made(make()))
    assert {cause.kind for cause in found} == {f"another optimizer: {expected}"}


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


@pytest.mark.parametrize("name", BASES)
def test_honest_updates_have_no_cause(name: str) -> None:
    base = BASES[name]
    assert causes(base.made(by_base(base))) == []


@pytest.mark.parametrize("name", BASES)
@pytest.mark.parametrize("what", ["clip", "late", "decay"])
def test_every_rule_is_told_clipping_schedule_and_decay(name: str, what: str) -> None:
    base = BASES[name].but(clipping=None)
    changes: dict[str, Any] = {"clip": clip(0.7)} if what == "clip" else {"lr": LATE}
    if what == "decay":
        changes = {"decay": 0.07}
    expected = {"clip": "clipping added", "late": "schedule one update late"}
    found = causes(base.made(by_base(base, **changes)))
    assert [cause.kind for cause in found] == [expected.get(what, "another weight_decay")]


CONTINUOUS = {
    "SGD": ("momentum", "dampening"),
    "AdamW": ("betas.0", "betas.1", "eps", "limit"),
    "Adam": ("betas.0", "betas.1", "eps"),
    "RMSprop": ("alpha", "momentum", "eps"),
    "Adagrad": ("lr_decay",),
    "NAdam": ("betas.0", "betas.1", "momentum_decay", "eps"),
    "RAdam": ("betas.0", "betas.1"),
    "Adamax": ("betas.0", "betas.1"),
    "Adadelta": ("rho", "eps"),
}
RANGES = {
    "eps": (1e-7, 1e-2),
    "limit": (0.31, 0.95),
    "lr_decay": (0.2, 2),
    "momentum_decay": (6e-3, 0.5),
}


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.data())
def test_number_is_recovered(data: st.DataObject) -> None:
    rule = data.draw(st.sampled_from(sorted(CONTINUOUS)))
    name = data.draw(st.sampled_from(CONTINUOUS[rule]))
    low, high = RANGES.get(name, (0.2, 0.97))
    share = data.draw(st.floats(0, 1))
    value = low * (high / low) ** share if name in RANGES else low + share * (high - low)
    base = BASES[rule]
    changes: dict[str, Any] = {"clip": clip(value)} if name == "limit" else {name: value}
    found = causes(base.made(by_base(base, **changes), seed=data.draw(st.integers(0, 99))))
    assert any(cause.values.get(name) == pytest.approx(value, rel=1e-6) for cause in found), (
        rule,
        name,
        value,
        found,
    )


PAIRS: dict[str, tuple[Base, Callable[[], Step], str]] = {
    "two numbers": (ADAMW, lambda: adamw(betas=(0.8, 0.99)), "another betas.0; another betas.1"),
    "beta and eps": (
        ADAMW,
        lambda: adamw(betas=(0.83, 0.999), eps=1e-5),
        "another betas.0; another eps",
    ),
    "number and form": (
        ADAMW,
        lambda: adamw(betas=(0.9, 0.97), amsgrad=True),
        "amsgrad added; another betas.1",
    ),
    "number and schedule": (
        ADAMW,
        lambda: adamw(betas=(0.8, 0.999), lr=LATE),
        "another betas.0; schedule one update late",
    ),
    "form and schedule": (
        ADAMW,
        lambda: adamw(rule="Adam", lr=LATE),
        "coupled decay; schedule one update late",
    ),
    "two forms": (SGD, lambda: sgd(nesterov=True, decay=0.0), "nesterov added; no decay"),
    "momentum and lr": (
        SGD,
        lambda: sgd(momentum=0.77, lr=2 * COSINE),
        "another momentum; learning rate scaled",
    ),
    "optax whole": (
        ADAMW,
        lambda: by_optax(
            optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(LR, weight_decay=0.1))
        ),
        "decay on all leaves; clipping without 1e-6",
    ),
    "number and leaves": (
        NO_CLIP,
        lambda: moved(
            optax_adamw(optax.scale_by_adam(b1=0.8)),
            lambda t, name, was, leaf: was if name == "in.bias" else leaf,
        ),
        "another betas.0; leaves frozen",
    ),
    "optimizer and number": (
        ADAM_PLAIN,
        lambda: by_torch("RMSprop", COSINE, alpha=0.93),
        "another optimizer: RMSprop; another alpha",
    ),
}


@pytest.mark.parametrize("name", PAIRS)
def test_two_differences_are_named(name: str) -> None:
    base, make, expected = PAIRS[name]
    found = causes(base.made(make()))
    assert expected in [cause.kind for cause in found], [cause.says for cause in found]


def noisy(grads: Leaves) -> Leaves:
    """A millionth of each entry comes to it, in no order."""
    return {name: g * (1 + 1e-6 * np.sin(1e6 * g)) for name, g in grads.items()}


UNKNOWN: dict[str, tuple[Base, Callable[[], Step]]] = {
    "rprop": (SGD_BARE, lambda: by_torch("Rprop", COSINE)),
    "adaptive clipping": (
        NO_CLIP,
        lambda: optax_adamw(adam_core(), optax.adaptive_grad_clip(0.05)),
    ),
    "centralized": (SGD, lambda: plain_optax(optax.centralize(), DECAY, optax.trace(0.9))),
    "sm3": (ADAM_PLAIN, lambda: plain_optax(optax.scale_by_sm3())),
    "noise": (SGD, lambda: given_grads(sgd(), noisy)),
    "three": (ADAMW, lambda: adamw(betas=(0.8, 0.99), eps=1e-4, rule="Adam")),
    "normalized": (ADAM_PLAIN, lambda: plain_optax(optax.scale_by_rms(), optax.clip(0.5))),
}


@pytest.mark.parametrize("name", UNKNOWN)
def test_unknown_rule_has_no_cause(name: str) -> None:
    base, make = UNKNOWN[name]
    assert causes(base.made(make())) == []


@pytest.mark.parametrize("name", BASES)
def test_wrong_transcription_is_noticed(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Honest updates would have a cause if a rule here were off by one part in 10^9."""
    made = BASES[name].made(by_base(BASES[name]))
    rule = rule_of(made)
    assert rule is not None
    entries = entries_of(made, rounding(made), sizes_of(made), [*SHAPES])
    assert fits(rule, entries)
    right = update_rules.CORES[rule.core]
    wrong = {**update_rules.CORES, rule.core: lambda *args: right(*args) * (1 + 1e-9)}
    monkeypatch.setattr("twinstep.port.update_steps.CORES", wrong)
    assert not fits(rule, entries)


def in_float32(made: Updates) -> tuple[Updates, Leaves]:
    """The same updates as float32 keeps them, and what its rounding may do."""
    params = {name: leaf.astype(np.float32) for name, leaf in made.params.items()}
    grads = {name: leaf.astype(np.float32) for name, leaf in made.grads.items()}
    eps = np.finfo(np.float32).eps / np.finfo(np.float64).eps
    allowed = {name: eps * leaf for name, leaf in rounding(made).items()}
    return dataclasses.replace(made, params=params, grads=grads), allowed


@pytest.mark.parametrize("case", ["amsgrad", "coupled", "no clip", "late", "nesterov", "frozen"])
def test_difference_is_named_in_float32(case: str) -> None:
    base, make, expected = CASES[case]
    assert expected <= {cause.kind for cause in causes_of(*in_float32(base.made(make())))}


@pytest.mark.parametrize("name", BASES)
def test_honest_updates_in_float32_have_no_cause(name: str) -> None:
    assert causes_of(*in_float32(BASES[name].made(by_base(BASES[name])))) == []


def test_leaf_within_rounding_says_nothing() -> None:
    """A convolution's bias before BatchNorm: noise for a gradient, which Adam makes steps of."""
    made = ADAMW.made(adamw(betas=(0.8, 0.999)))
    rng = np.random.default_rng(0)
    params = {**made.params, "null": 1e-9 * rng.normal(size=(STEPS + 1, 5))}
    grads = {**made.grads, "null": 1e-17 * rng.normal(size=(STEPS, 5))}
    own = {**made.settings, "null": made.settings["in.bias"]}
    made = dataclasses.replace(made, params=params, grads=grads, settings=own)
    allowed = {**rounding(made), "null": np.full(STEPS, 1.0)}
    assert [cause.kind for cause in causes_of(made, allowed)] == ["another betas.0"]


def test_unknown_class_has_no_cause() -> None:
    assert causes(dataclasses.replace(SGD.made(sgd()), rule="LBFGS")) == []
