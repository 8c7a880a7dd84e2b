"""Optimizer state both ways: a training begun in one framework goes on in the other.

Held against the run that was not interrupted: every rounding of both frameworks included, it stays
within 1e-12.
"""

import copy
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from helpers.training import (
    BATCHES,
    NAMES,
    TorchNetwork,
    jax_params,
    jax_steps,
    network,
    settings,
    tensors,
    torch_steps,
    worst,
)

from twinstep.jax.layout import tree_layout
from twinstep.jax.optim import (
    from_torch,
    opt_state_from_torch,
    opt_state_to_torch,
)

pytestmark = pytest.mark.quick_to_compile

BAR = 1e-12
HALF = 4
STEPS = BATCHES[: 2 * HALF]
FULL = np.tile(np.arange(512), (4, 1))

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
IDS = [f"{name} {options}" for name, options in CASES]


def made(name: str, options: dict[str, Any], model: TorchNetwork) -> torch.optim.Optimizer:
    return getattr(torch.optim, name)(model.parameters(), **options)


def batches_of(name: str) -> np.ndarray:
    return FULL if name == "LBFGS" else STEPS


def torch_then_jax(
    name: str, options: dict[str, Any], change: Any = lambda state_dict: state_dict
) -> tuple[float, Any]:
    """(gap of the second half in JAX from PyTorch's whole run, the state that was handed over)."""
    batches = batches_of(name)
    model = TorchNetwork()
    optimizer = made(name, options, model)
    torch_steps(model, optimizer, batches[: len(batches) // 2])
    state_dict = copy.deepcopy(optimizer.state_dict())
    params = {key: p.detach().numpy().copy() for key, p in model.named_parameters()}
    theirs = torch_steps(model, optimizer, batches[len(batches) // 2 :])
    with settings():
        ours = from_torch(name, **options)
        start = {key: jnp.asarray(array) for key, array in params.items()}
        opt_state = opt_state_from_torch(
            change(state_dict), ours.init(start), tree_layout(start), names=NAMES
        )
        _, _, seen = jax_steps(ours, start, opt_state, batches[len(batches) // 2 :])
        return worst(theirs, seen), opt_state


def jax_then_torch(name: str, options: dict[str, Any]) -> float:
    batches = batches_of(name)
    with settings():
        ours = from_torch(name, **options)
        params, opt_state, _ = jax_steps(
            ours, jax_params(), ours.init(jax_params()), batches[: len(batches) // 2]
        )
        _, _, seen = jax_steps(ours, params, opt_state, batches[len(batches) // 2 :])
        model = network(params)
        optimizer = made(name, options, model)
        state_dict = opt_state_to_torch(
            opt_state, optimizer.state_dict()["param_groups"], tree_layout(params), names=NAMES
        )
    optimizer.load_state_dict(tensors(state_dict))
    return worst(seen, torch_steps(model, optimizer, batches[len(batches) // 2 :]))


@pytest.mark.parametrize(("name", "options"), CASES, ids=IDS)
def test_goes_on_in_jax(name: str, options: dict[str, Any]) -> None:
    gap, _ = torch_then_jax(name, options)
    assert gap <= BAR, gap


@pytest.mark.parametrize(("name", "options"), CASES, ids=IDS)
def test_goes_on_in_torch(name: str, options: dict[str, Any]) -> None:
    gap = jax_then_torch(name, options)
    assert gap <= BAR, gap


@pytest.mark.parametrize(("name", "options"), CASES, ids=IDS)
def test_state_before_the_first_step(name: str, options: dict[str, Any]) -> None:
    """PyTorch has none yet: nothing is written, and nothing read changes nothing."""
    model = TorchNetwork()
    optimizer = made(name, options, model)
    with settings():
        ours = from_torch(name, **options)
        opt_state, layout = ours.init(jax_params()), tree_layout(jax_params())
        written = opt_state_to_torch(
            opt_state, optimizer.state_dict()["param_groups"], layout, names=NAMES
        )
        assert written["state"] == {}
        read = opt_state_from_torch(optimizer.state_dict(), opt_state, layout, names=NAMES)
        assert jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), read, opt_state))
    optimizer.load_state_dict(tensors(written))


@pytest.mark.parametrize(("name", "options"), CASES, ids=IDS)
def test_there_and_back_changes_no_bit(name: str, options: dict[str, Any]) -> None:
    """Of what PyTorch keeps: its own numbers come back, of their own kinds."""
    model = TorchNetwork()
    optimizer = made(name, options, model)
    torch_steps(model, optimizer, batches_of(name)[:2])
    before = optimizer.state_dict()
    with settings():
        ours, layout = from_torch(name, **options), tree_layout(jax_params())
        read = opt_state_from_torch(before, ours.init(jax_params()), layout, names=NAMES)
        back = opt_state_to_torch(read, before["param_groups"], layout, names=NAMES)
    assert back["param_groups"] == before["param_groups"]
    assert back["state"].keys() == before["state"].keys()
    for number, entries in before["state"].items():
        for key, value in entries.items():
            if value is None or key == "al":  # a scratch list of LBFGS's
                continue
            flat = [np.asarray(v) for v in (value if isinstance(value, list) else [value])]
            got = back["state"][number][key]
            for a, b in zip(flat, got if isinstance(got, list) else [got], strict=True):
                np.testing.assert_array_equal(b, a)
            if key in ("step", "n_iter", "func_evals"):
                assert isinstance(got, int) == isinstance(value, int)


def without(key: str) -> Any:
    """What forgets a part of the state."""

    def change(state_dict: Any) -> Any:
        for entries in state_dict["state"].values():
            if isinstance(entries[key], list):
                for array in entries[key]:
                    array.zero_()
            else:
                entries[key] = torch.ones_like(torch.as_tensor(entries[key]))
        return state_dict

    return change


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
    gap, _ = torch_then_jax(*case, without(key))
    assert not gap <= BAR


def test_muon_hands_over_its_buffer() -> None:
    """Its bfloat16 parts two trainings soon: one step is compared, and the buffer itself."""
    model = TorchNetwork()
    weights = {name: p for name, p in model.named_parameters() if p.ndim == 2}
    optimizer = torch.optim.Muon(list(weights.items()), lr=0.05)
    torch_steps(model, optimizer, STEPS[:2])
    before = copy.deepcopy(optimizer.state_dict())
    with settings():
        start = {name: jnp.array(p.detach().numpy()) for name, p in model.named_parameters()}
        ours = from_torch(optimizer)
        layout = tree_layout(start)
        opt_state = opt_state_from_torch(before, ours.init(start), layout)
        _, _, seen = jax_steps(ours, start, opt_state, STEPS[2:3])
        back = opt_state_to_torch(opt_state, before["param_groups"], layout)
    theirs = torch_steps(model, optimizer, STEPS[2:3])
    assert worst(theirs, seen) <= 1e-3
    for number, entries in before["state"].items():
        np.testing.assert_array_equal(
            back["state"][number]["momentum_buffer"], entries["momentum_buffer"].numpy()
        )
