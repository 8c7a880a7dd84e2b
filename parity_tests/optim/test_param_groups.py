"""Parameter groups, frozen parameters and PyTorch's layout, on a Flax model and on plain trees."""

from collections.abc import Callable
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
    flax_parts,
    jax_params,
    jax_steps,
    settings,
    torch_steps,
    worst,
)

from twinstep.errors import InputError
from twinstep.jax.layout import opt_state_layout, tree_layout
from twinstep.jax.optim import (
    adafactor,
    adam,
    adamw,
    frozen,
    in_torch_layout,
    lbfgs,
    muon,
    param_groups,
    rmsprop,
    sgd,
)

pytestmark = pytest.mark.quick_to_compile

STEPS = BATCHES[:8]
BAR = 1e-12


def torch_groups(model: TorchNetwork) -> list[dict[str, Any]]:
    layers = list(model.children())
    return [
        {"params": list(layers[2].parameters()), "lr": 0.05, "weight_decay": 0.1},
        {"params": [layers[0].weight], "betas": (0.5, 0.9)},
    ]


def groups(last: Any, first: Any) -> list[dict[str, Any]]:
    """The same groups by other words for parameters."""
    return [
        {"params": last, "lr": 0.05, "weight_decay": 0.1},
        {"params": first, "betas": (0.5, 0.9)},
    ]


def gap(made: Callable[[Any], Any], theirs: list[Any]) -> float:
    """Of a Flax training from PyTorch's. made: the optimizer, given the model's layout"""
    with settings():
        layout, params, loss = flax_parts()
        optimizer = made(layout)
        _, _, seen = jax_steps(optimizer, params, optimizer.init(params), STEPS, loss)
        return worst(theirs, [layout.to_torch(params) for params in seen])


SPELLINGS: dict[str, Callable[[Any], Any]] = {
    "PyTorch's names": lambda layout: param_groups(
        groups("2", ["0.weight"]), optimizer=adam, layout=layout, lr=0.02
    ),
    "the tree's own": lambda layout: param_groups(
        groups("layers.2", "layers.0.kernel"), optimizer=adam, lr=0.02
    ),
    "a function": lambda layout: param_groups(
        groups(lambda name: name.startswith("2."), lambda name: name == "0.weight"),
        optimizer=adam,
        layout=layout,
        lr=0.02,
    ),
    "PyTorch's layout": lambda layout: in_torch_layout(
        param_groups(groups(["2.bias", "2.weight"], "0.weight"), optimizer=adam, lr=0.02), layout
    ),
}
FAULTS: dict[str, Callable[[Any], Any]] = {
    "option of a group": lambda layout: param_groups(
        groups("2", "0.weight"), optimizer=adam, layout=layout, lr=0.02 * (1 + 1e-9)
    ),
    "one parameter more": lambda layout: param_groups(
        groups("2", "0"), optimizer=adam, layout=layout, lr=0.02
    ),
    "groups swapped": lambda layout: param_groups(
        groups("0.weight", "2"), optimizer=adam, layout=layout, lr=0.02
    ),
}


@pytest.fixture(scope="module")
def grouped() -> list[dict[str, np.ndarray]]:
    model = TorchNetwork()
    return torch_steps(model, torch.optim.Adam(torch_groups(model), lr=0.02), STEPS)


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_groups_train_as_torchs(spelling: str, grouped: list[dict[str, np.ndarray]]) -> None:
    assert gap(SPELLINGS[spelling], grouped) <= BAR
    # what is in no group stays
    assert all(np.array_equal(step["1.weight"], grouped[0]["1.weight"]) for step in grouped)


@pytest.mark.parametrize("fault", FAULTS)
def test_fault_is_noticed(fault: str, grouped: list[dict[str, np.ndarray]]) -> None:
    assert not gap(FAULTS[fault], grouped) <= BAR


def test_groups_with_optimizers_of_their_own() -> None:
    """One for the matrices, one for the rest: two optimizers in PyTorch, one here."""
    model = TorchNetwork()
    matrices = [p for p in model.parameters() if p.ndim == 2]
    rest = [p for p in model.parameters() if p.ndim == 1]
    both = [torch.optim.RMSprop(matrices, lr=0.01, centered=True), torch.optim.AdamW(rest)]

    def other_step(_: TorchNetwork) -> None:
        both[1].step()
        both[1].zero_grad()

    theirs = torch_steps(model, both[0], STEPS, change=other_step)
    ours: list[dict[str, Any]] = [
        {
            "params": lambda name: name.endswith("weight"),
            "optimizer": rmsprop,
            "lr": 0.01,
            "centered": True,
        },
        {"params": lambda name: name.endswith("bias")},
    ]
    assert gap(lambda layout: param_groups(ours, adamw, layout=layout), theirs) <= BAR


def test_mapping_of_optimizers_is_the_short_form() -> None:
    model = TorchNetwork()
    optimizer = torch.optim.SGD(list(model.children())[1].parameters(), lr=0.1, momentum=0.9)
    theirs = torch_steps(model, optimizer, STEPS)
    with settings():
        params = {"head": {"1.weight": jax_params()["1.weight"]}, "rest": {}}
        short = param_groups({"head": sgd(lr=0.1, momentum=0.9)})
        state = short.init(params)
        assert set(state) == {"head"}
        names = opt_state_layout(state, tree_layout(params)).to_torch(state)
        assert set(names) == {"head.1.weight.count", "head.1.weight.momentum_buffer"}
    made = param_groups([{"params": "1", "lr": 0.1}], sgd, momentum=0.9)
    assert gap(lambda layout: in_torch_layout(made, layout), theirs) <= BAR


@pytest.mark.parametrize("kind", ["frozen", "in no group"])
def test_frozen_parameters_stay_and_have_no_state(kind: str) -> None:
    model = TorchNetwork()
    still = ["0.bias", "1"]
    for name, parameter in model.named_parameters():
        parameter.requires_grad = name not in ("0.bias", "1.weight", "1.bias")
    theirs = torch_steps(model, torch.optim.Adam(model.parameters(), lr=0.02), STEPS)

    def made(layout: Any) -> Any:
        if kind == "frozen":
            return frozen(adam(lr=0.02), still, layout=layout)
        moving: Any = ["0.weight", "2"]
        return param_groups([{"params": moving}], adam, layout=layout, lr=0.02)

    assert gap(made, theirs) <= BAR
    assert not gap(lambda layout: adam(lr=0.02), theirs) <= BAR
    with settings():
        layout, params, _ = flax_parts()
        state = made(layout).init(params)
        named = opt_state_layout(state, layout).to_torch(state)
    assert {name.rpartition(".")[0] for name in named} == {"0.weight", "2.weight", "2.bias"}
    assert named["0.weight.exp_avg"].shape == (16, 8)


def test_lbfgs_of_some_parameters() -> None:
    model = TorchNetwork()
    moving = [p for name, p in model.named_parameters() if not name.startswith("1")]
    full = np.tile(np.arange(512), (2, 1))
    theirs = torch_steps(model, torch.optim.LBFGS(moving, max_iter=5), full)
    with settings():
        layout, params, loss = flax_parts()
        optimizer = frozen(lbfgs(max_iter=5), "1", layout=layout)
        _, _, seen = jax_steps(optimizer, params, optimizer.init(params), full, loss)
        assert worst(theirs, [layout.to_torch(params) for params in seen]) <= BAR


def test_adafactor_needs_torchs_layout() -> None:
    """Its means are over rows and columns: of a kernel that is not square, they are others."""
    model = TorchNetwork()
    theirs = torch_steps(model, torch.optim.Adafactor(model.parameters(), lr=0.05), STEPS)
    assert gap(lambda layout: in_torch_layout(adafactor(lr=0.05), layout), theirs) <= BAR
    with settings():
        layout, params, _ = flax_parts()
        state = in_torch_layout(adafactor(), layout).init(params)
        named = opt_state_layout(state, layout).to_torch(state)
    assert named["0.weight.row_var"].shape == (16, 1)
    assert named["0.weight.col_var"].shape == (1, 8)
    assert "0.weight.variance" not in named


def test_adafactor_maximizes_as_torch() -> None:
    model = TorchNetwork()
    options: dict[str, Any] = {"lr": 0.01, "maximize": True}
    theirs = torch_steps(model, torch.optim.Adafactor(model.parameters(), **options), STEPS)
    assert gap(lambda layout: in_torch_layout(adafactor(**options), layout), theirs) <= BAR


def test_muon_scales_by_torchs_rows_and_columns() -> None:
    """One update: its bfloat16 parts two runs soon after. The other layout scales it otherwise."""
    model = TorchNetwork()
    matrices = [p for p in model.parameters() if p.ndim == 2]
    theirs = torch_steps(model, torch.optim.Muon(matrices, lr=0.05), STEPS[:1])[0]

    def first(made: Callable[[Any], Any]) -> float:
        with settings():
            layout, params, loss = flax_parts()
            optimizer = made(layout)
            _, _, seen = jax_steps(optimizer, params, optimizer.init(params), STEPS[:1], loss)
            return worst([theirs], [layout.to_torch(params) for params in seen])

    weights = [name for name in NAMES if name.endswith("weight")]
    one: list[dict[str, Any]] = [{"params": weights}]
    ours = first(lambda layout: in_torch_layout(param_groups(one, muon, lr=0.05), layout))
    assert ours <= 1e-3
    assert not first(lambda layout: param_groups(one, muon, layout=layout, lr=0.05)) <= 1e-2


def test_second_step_does_not_compile_again() -> None:
    with settings():
        params = jax_params()
        optimizer = param_groups([{"params": "0"}, {"params": "2", "lr": 0.1}], adam)
        update = jax.jit(optimizer.update)
        _, state = update(params, optimizer.init(params), params)
        with jax.no_tracing(True):
            update(params, state, params)


def build(groups: Any, **rest: Any) -> Any:
    return param_groups(groups, **({"optimizer": adam} | rest)).init(jax_params())


BAD: dict[str, tuple[Any, dict[str, Any], str]] = {
    "twice": ([{"params": "0"}, {"params": ["0.bias"]}], {}, "'0.bias' is in groups 0 and 1"),
    "unknown": ([{"params": "3"}], {}, "group 0: parameter '3' is unknown"),
    "nothing": ([{"params": lambda name: False}], {}, "group 0: params selects no parameter"),
    "no params": ([{"lr": 0.1}], {}, "expected a dict with 'params'"),
    "empty": ([], {}, "groups is empty"),
    "option": ([{"params": "0", "momentum": 0.1}], {}, "group 0: option 'momentum' is unknown"),
    "default": ([{"params": "0"}], {"rho": 0.1}, "option 'rho' is unknown"),
    "value": ([{"params": "0", "lr": -1.0}], {}, "lr is -1.0, expected 0 or more"),
    "value of all": ([{"params": "0", "lr": 1.0}], {"lr": -1.0}, "lr is -1.0"),
    "no optimizer": ([{"params": "0"}], {"optimizer": None}, "group 0 has no optimizer"),
}


@pytest.mark.parametrize(("groups", "rest", "says"), BAD.values(), ids=BAD)
def test_bad_groups_are_refused(groups: Any, rest: dict[str, Any], says: str) -> None:
    with settings(), pytest.raises(InputError, match=says):
        build(groups, **rest)


def test_freezing_everything_is_refused() -> None:
    with settings(), pytest.raises(InputError, match="selects every parameter"):
        frozen(adam(), ["0", "1", "2"]).init(jax_params())
    with settings(), pytest.raises(InputError, match="frozen: parameter 'head' is unknown"):
        frozen(adam(), "head").init(jax_params())


def test_list_of_arrays_is_named_by_number() -> None:
    with settings():
        params = [jnp.ones(2), jnp.ones(3)]
        optimizer = param_groups([{"params": [1]}], sgd, lr=0.5)
        updates, _ = optimizer.update(params, optimizer.init(params))
    np.testing.assert_array_equal(updates[0], [0, 0])
    np.testing.assert_array_equal(updates[1], [-0.5, -0.5, -0.5])
