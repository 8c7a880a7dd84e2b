"""Optimizer state both ways: a training begun in one framework goes on in the other.

Held against the run that was not interrupted: every rounding of both frameworks included, it stays
within 1e-12. Of Flax models and of groups too, and inside other transformations.
"""

import functools
import re
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import optax
import pytest
import torch
from helpers.training import (
    BATCHES,
    FULL,
    NAMES,
    WEIGHTS,
    TorchNetwork,
    cut,
    flax_parts,
    goes_on,
    jax_params,
    jax_steps,
    network,
    plain_parts,
    settings,
    tensors,
    torch_setup,
    torch_steps,
    worst,
)

from twinstep.errors import InputError
from twinstep.jax import optim
from twinstep.jax.layout import tree_layout
from twinstep.jax.optim import from_torch, in_torch_layout, opt_state_from_torch, opt_state_to_torch

pytestmark = pytest.mark.quick_to_compile

BAR = 1e-12
STEPS = BATCHES[:8]

CASES: list[tuple[str, dict[str, Any]]] = [
    ("Adadelta", {}),
    ("Adafactor", {"lr": 0.05}),
    ("Adagrad", {"lr_decay": 0.1}),
    ("Adam", {"lr": 0.02}),
    ("Adam", {"lr": 0.02, "amsgrad": True}),
    ("AdamW", {"lr": 0.02}),
    ("Adamax", {"lr": 0.02}),
    ("ASGD", {"lr": 0.1, "t0": 2, "lambd": 0.1}),
    ("NAdam", {"lr": 0.02, "momentum_decay": 0.1}),
    ("RAdam", {"lr": 0.02, "betas": (0.9, 0.8)}),
    ("RMSprop", {"lr": 0.01}),
    ("RMSprop", {"lr": 0.01, "momentum": 0.5, "centered": True}),
    ("Rprop", {"lr": 0.01}),
    ("SGD", {"lr": 0.1}),
    ("SGD", {"lr": 0.1, "momentum": 0.9, "dampening": 0.3}),
    ("SGD", {"lr": 0.1, "momentum": 0.9, "nesterov": True}),
    ("SparseAdam", {"lr": 0.02}),
    ("LBFGS", {"max_iter": 3, "history_size": 4}),
    ("LBFGS", {"max_iter": 3, "line_search_fn": "strong_wolfe"}),
]
each_case = pytest.mark.parametrize(
    ("name", "options"), CASES, ids=[f"{name} {options}" for name, options in CASES]
)


def batches_of(name: str) -> np.ndarray:
    return FULL[:4] if name == "LBFGS" else STEPS


def written(
    opt_state: Any, groups: Any, names: Any = NAMES, parts: Any = plain_parts, **more: Any
) -> Any:
    """A state as PyTorch has it. parts: what gives the layout of the parameters"""
    with settings():
        return opt_state_to_torch(opt_state, groups, parts()[0], names=names, **more)


def read(state_dict: Any, opt_state: Any, names: Any = NAMES, **more: Any) -> Any:
    """The other way, into the layout that PyTorch has."""
    layout = tree_layout(jax_params())
    return opt_state_from_torch(state_dict, opt_state, layout, names=names, **more)


def same(a: Any, b: Any) -> bool:
    return jax.tree.all(jax.tree.map(lambda x, y: bool((x == y).all()), a, b))


@each_case
def test_goes_on_in_jax(name: str, options: dict[str, Any]) -> None:
    half = cut(*torch_setup(name, **options), batches_of(name))
    gap, _ = goes_on(half, from_torch(name, **options))
    assert gap <= BAR, gap


@each_case
def test_goes_on_in_torch(name: str, options: dict[str, Any]) -> None:
    first, rest = np.split(batches_of(name), 2)
    with settings():
        ours = from_torch(name, **options)
        params, opt_state, _ = jax_steps(ours, first)
        _, _, seen = jax_steps(ours, rest, params, opt_state)
        model = network(params)
        optimizer = getattr(torch.optim, name)(model.parameters(), **options)
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict(tensors(written(opt_state, groups)))
    gap = worst(seen, torch_steps(model, optimizer, rest))
    assert gap <= BAR, gap


@each_case
def test_state_before_the_first_step(name: str, options: dict[str, Any]) -> None:
    """PyTorch has none yet: nothing is written, and nothing read changes nothing."""
    _, optimizer = torch_setup(name, **options)
    with settings():
        opt_state = from_torch(name, **options).init(jax_params())
        state_dict = written(opt_state, optimizer.state_dict()["param_groups"])
        assert state_dict["state"] == {}
        assert same(read(optimizer.state_dict(), opt_state), opt_state)
    optimizer.load_state_dict(tensors(state_dict))


@each_case
def test_there_and_back_changes_no_bit(name: str, options: dict[str, Any]) -> None:
    """Of what PyTorch keeps: its own numbers come back, of their own kinds."""
    model, optimizer = torch_setup(name, **options)
    torch_steps(model, optimizer, batches_of(name)[:2])
    before = optimizer.state_dict()
    with settings():
        reset = from_torch(name, **options).init(jax_params())
        back = written(read(before, reset), before["param_groups"])
    assert back["param_groups"] == before["param_groups"]
    assert back["state"].keys() == before["state"].keys()
    for number, entries in before["state"].items():
        for key, value in entries.items():
            if value is None or key == "al":  # a scratch list of LBFGS's
                continue
            got = back["state"][number][key]
            if not isinstance(value, list):
                value, got = [value], [got]
            for a, b in zip(value, got, strict=True):
                np.testing.assert_array_equal(b, np.asarray(a))
                if key in ("step", "n_iter", "func_evals"):
                    assert isinstance(b, int) == isinstance(a, int)


def forget(state_dict: Any, key: str) -> None:
    """A part of the state."""
    for entries in state_dict["state"].values():
        if isinstance(entries[key], list):
            for array in entries[key]:
                array.zero_()
        else:
            entries[key] = torch.ones_like(torch.as_tensor(entries[key]))


FAULTS = [
    (CASES[3], "step"),
    (CASES[3], "exp_avg"),
    (CASES[4], "max_exp_avg_sq"),
    (CASES[7], "eta"),
    (CASES[8], "mu_product"),
    (CASES[11], "grad_avg"),
    (CASES[12], "step_size"),
    (CASES[14], "momentum_buffer"),
    (CASES[17], "old_stps"),
    (CASES[17], "prev_flat_grad"),
]


@pytest.mark.parametrize(("case", "key"), FAULTS, ids=[f"{c[0]} {key}" for c, key in FAULTS])
def test_state_that_was_lost_is_noticed(case: tuple[str, dict[str, Any]], key: str) -> None:
    name, options = case
    half = cut(*torch_setup(name, **options), batches_of(name))
    forget(half.state_dict, key)
    assert not goes_on(half, from_torch(name, **options))[0] <= BAR


# Flax models and groups


def grouped(model: TorchNetwork) -> torch.optim.Optimizer:
    """Two groups in another order than the model's, one layer in none."""
    first, _, third = model.children()
    groups: list[Any] = [
        {"params": third.parameters(), "lr": 0.05},
        {"params": [first.bias, first.weight]},
    ]
    return torch.optim.Adam(groups, lr=0.01)


GROUPED = ["2.weight", "2.bias", "0.bias", "0.weight"]


@pytest.mark.parametrize("numbered", [True, False])
def test_groups_of_a_flax_model_both_ways(numbered: bool) -> None:
    model = TorchNetwork()
    half = cut(model, grouped(model), STEPS)

    def made(layout: Any) -> Any:
        return from_torch(grouped(model), model.named_parameters(), layout=layout)

    gap, opt_state = goes_on(half, made, flax_parts, GROUPED)
    assert gap <= BAR
    groups: Any = half.state_dict["param_groups"]
    if not numbered:
        groups = [{"params": GROUPED[:2], "lr": 0.05}, {"params": GROUPED[2:], "lr": 0.01}]
    names = GROUPED if numbered else None
    back = written(opt_state, groups, names, flax_parts, optimizer="Adam")
    assert back["param_groups"][1]["params"] == [2, 3]
    again = network(half.params)
    other = grouped(again)
    other.load_state_dict(tensors(back))
    assert worst(half.theirs, torch_steps(again, other, half.rest)) <= BAR


@pytest.mark.parametrize("wrapped", [False, True])
def test_lbfgs_of_a_flax_model_both_ways(wrapped: bool) -> None:
    """Its vectors have PyTorch's order and layout there, and the tree's here."""
    options: dict[str, Any] = {"max_iter": 3, "history_size": 4}
    half = cut(*torch_setup("LBFGS", **options), FULL[:4])
    ours = optim.lbfgs(**options)
    made = functools.partial(in_torch_layout, ours) if wrapped else ours
    gap, opt_state = goes_on(half, made, flax_parts)
    assert gap <= BAR
    back = written(opt_state, half.state_dict["param_groups"], parts=flax_parts)
    for key in ("d", "prev_flat_grad"):
        np.testing.assert_array_equal(back["state"][0][key], half.state_dict["state"][0][key])


def test_adafactor_of_a_flax_model() -> None:
    model, optimizer = torch_setup("Adafactor", lr=0.05)
    half, ours = cut(model, optimizer, STEPS), from_torch(optimizer)
    gap, _ = goes_on(half, functools.partial(in_torch_layout, ours), flax_parts)
    assert gap <= BAR


def test_muon_hands_over_its_buffer() -> None:
    """Its bfloat16 parts two trainings soon: one step is compared, and the buffer itself."""
    model = TorchNetwork()
    weights = [(name, p) for name, p in model.named_parameters() if name in WEIGHTS]
    optimizer = torch.optim.Muon(weights, lr=0.05)
    half = cut(model, optimizer, STEPS[:3], first=2)
    gap, opt_state = goes_on(half, from_torch(optimizer), names=None)
    assert gap <= 1e-3
    back = written(opt_state, half.state_dict["param_groups"], names=None)
    for number, entries in half.state_dict["state"].items():
        buffer = back["state"][number]["momentum_buffer"]
        np.testing.assert_array_equal(buffer, entries["momentum_buffer"])


def test_count_goes_on_where_a_schedule_asks_it() -> None:
    with settings():
        ours = optim.sgd(lr=lambda count: 0.1 / (count + 1), momentum=0.9)
        whole = jax_steps(ours, STEPS)[2]
        params, state, _ = jax_steps(ours, STEPS[:4])
        state_dict = written(state, [{"params": NAMES}], optimizer="SGD")
        reset = ours.init(jax_params())
        for count, is_exact in ((4, True), (3, False)):
            _, _, seen = jax_steps(ours, STEPS[4:], params, read(state_dict, reset, count=count))
            assert (worst(whole[4:], seen) == 0) is is_exact


def test_state_inside_other_transformations() -> None:
    """Clipping and accumulation keep nothing that PyTorch's optimizer does."""
    with settings():
        ours = optax.chain(optim.clip_grad_norm(1.0), optim.accumulate(optim.adam(lr=0.02), 2))
        _, state, _ = jax_steps(ours, STEPS[:2])
        state_dict = written(state, [{"params": NAMES}], optimizer="Adam")
        assert set(state_dict["state"][0]) == {"step", "exp_avg", "exp_avg_sq"}
        assert state_dict["state"][0]["step"] == 1
        assert same(read(state_dict, ours.init(jax_params())), state)


BAD: dict[str, tuple[Callable[[Any], Any], Any]] = {
    "state 'step' differs between parameters": (
        lambda state: state[1].update(step=torch.tensor(7.0)),
        NAMES,
    ),
    "state '0.weight.exp_avg' is missing": (lambda state: state[0].pop("exp_avg"), NAMES),
    "state '0.weight.max_exp_avg_sq' is unknown": (
        lambda state: state[0].update(max_exp_avg_sq=torch.ones(16, 8)),
        NAMES,
    ),
    "has shape (8, 16), expected (16, 8)": (
        lambda state: state[0].update(exp_avg=torch.ones(8, 16)),
        NAMES,
    ),
    "parameter 9 is unknown": (lambda state: state.update({9: state.pop(0)}), NAMES),
    "parameter '0' is unknown": (bool, None),
    "parameter 'head' is unknown": (bool, [*NAMES[:5], "head"]),
    "names has 2 entries": (bool, NAMES[:2]),
}


@pytest.mark.parametrize("says", BAD)
def test_state_that_does_not_fit_is_refused(says: str) -> None:
    change, names = BAD[says]
    model, optimizer = torch_setup("Adam")
    torch_steps(model, optimizer, STEPS[:1])
    state_dict = optimizer.state_dict()
    change(state_dict["state"])
    with settings():
        reset = optim.adam().init(jax_params())
        with pytest.raises(InputError, match=re.escape(says)):
            read(state_dict, reset, names)


def test_lbfgs_state_that_does_not_fit_is_refused() -> None:
    model, optimizer = torch_setup("LBFGS", max_iter=5)
    torch_steps(model, optimizer, FULL[:1])
    with settings():
        reset = optim.lbfgs(history_size=2).init(jax_params())
        with pytest.raises(InputError, match="old_dirs has 4 entries, expected up to 2"):
            read(optimizer.state_dict(), reset)
