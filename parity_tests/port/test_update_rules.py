"""Honest updates have no cause, unknown rules none, and what is solved for is what was planted."""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import optax
import pytest
from helpers.planted_rules import (
    ADAM_PLAIN,
    ADAMW,
    ADAMW_PLAIN,
    BASES,
    DECAY,
    DECAY_MASK,
    LATE,
    LR,
    NO_CLIP,
    SGD,
    SGD_BARE,
    Base,
    adam_core,
    adamw,
    by_base,
    causes,
    clip,
    given_grads,
    in_float32,
    moved,
    optax_adamw,
    other,
    plain_optax,
    sgd,
)
from helpers.planted_updates import (
    COSINE,
    SHAPES,
    STEPS,
    Leaves,
    Step,
    by_optax,
    by_torch,
    rounding,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from twinstep.port.causes import update_rules
from twinstep.port.causes.update_base import rule_of
from twinstep.port.causes.update_causes import causes_of
from twinstep.port.causes.update_entries import entries_of, sizes_of
from twinstep.port.causes.update_steps import fits

pytestmark = pytest.mark.usefixtures("torch_float64")

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
    "adafactor": (
        ADAM_PLAIN,
        other(optax.adafactor),
        "optax.adafactor",
    ),
    "optax.lion": (SGD, other(optax.lion), "optax.lion"),
    "optax.adamw": (SGD, other(optax.adamw), "optax.adamw"),
    "novograd": (ADAM_PLAIN, other(optax.novograd), "NovoGrad"),
    "adan": (ADAM_PLAIN, other(optax.adan), "Adan"),
}


@pytest.mark.parametrize("name", OTHERS)
def test_another_optimizer_is_named(name: str) -> None:
    base, make, expected = OTHERS[name]
    found = causes(base.made(make()))
    assert {cause.kind for cause in found} == {f"another optimizer: {expected}"}


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
    "RAdam": ("betas.0",),  # beta2 below .6 never comes into play
    "Adamax": ("betas.0", "betas.1"),
    "Adadelta": ("rho", "eps"),
}
RANGES = {
    "eps": (1e-7, 1e-2),
    "limit": (0.31, 0.95),
    "lr_decay": (0.2, 2),
    "momentum_decay": (6e-3, 0.5),
}


@settings(max_examples=40, deadline=None, derandomize=True)
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
    "clipping by root mean squares": (
        NO_CLIP,
        lambda: optax_adamw(adam_core(), optax.clip_by_block_rms(0.05)),
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
    monkeypatch.setattr("twinstep.port.causes.update_steps.CORES", wrong)
    assert not fits(rule, entries)


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
