"""Parameter groups, frozen parameters and PyTorch's layout, on a Flax model and on plain trees."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch
from helpers.training import (
    BATCHES,
    FULL,
    WEIGHTS,
    TorchNetwork,
    flax_parts,
    gap,
    jax_params,
    plain_parts,
    settings,
    torch_setup,
    torch_steps,
)

from twinstep.errors import InputError
from twinstep.jax import optim
from twinstep.jax.layout import opt_state_layout, tree_layout
from twinstep.jax.optim import adam, from_torch, frozen, in_torch_layout, param_groups, sgd
from twinstep.jax.optim._from_torch import TORCH

pytestmark = pytest.mark.quick_to_compile

STEPS = BATCHES[:8]
BAR = 1e-12


def adams(last: Any, first: Any, layout: Any = None, lr: float = 0.02) -> Any:
    """Adam with two groups, in any words for the third layer and for the first's weight."""
    groups = [
        {"params": last, "lr": 0.05, "weight_decay": 0.1},
        {"params": first, "betas": (0.5, 0.9)},
    ]
    return param_groups(groups, adam, layout=layout, lr=lr)


SPELLINGS: dict[str, Callable[[Any], Any]] = {
    "PyTorch's names": lambda layout: adams("2", ["0.weight"], layout),
    "the tree's own": lambda layout: adams("layers.2", "layers.0.kernel"),
    "a function": lambda layout: adams(
        lambda name: name.startswith("2."), lambda name: name == "0.weight", layout
    ),
    "PyTorch's layout": lambda layout: in_torch_layout(
        adams(["2.bias", "2.weight"], "0.weight"), layout
    ),
}
FAULTS: dict[str, Callable[[Any], Any]] = {
    "option of a group": lambda layout: adams("2", "0.weight", layout, 0.02 * (1 + 1e-9)),
    "one parameter more": lambda layout: adams("2", "0", layout),
    "groups swapped": lambda layout: adams("0.weight", "2", layout),
}


@pytest.fixture(scope="module")
def grouped() -> list[dict[str, np.ndarray]]:
    model = TorchNetwork()
    layers = list(model.children())
    groups: list[dict[str, Any]] = [
        {"params": list(layers[2].parameters()), "lr": 0.05, "weight_decay": 0.1},
        {"params": [layers[0].weight], "betas": (0.5, 0.9)},
    ]
    return torch_steps(model, torch.optim.Adam(groups, lr=0.02), STEPS)


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_groups_train_as_torchs(spelling: str, grouped: list[dict[str, np.ndarray]]) -> None:
    assert gap(grouped, SPELLINGS[spelling], STEPS) <= BAR
    # what is in no group stays
    assert all(np.array_equal(step["1.weight"], grouped[0]["1.weight"]) for step in grouped)


@pytest.mark.parametrize("fault", FAULTS)
def test_fault_is_noticed(fault: str, grouped: list[dict[str, np.ndarray]]) -> None:
    assert not gap(grouped, FAULTS[fault], STEPS) <= BAR


def test_groups_with_optimizers_of_their_own() -> None:
    """One for the matrices, one for the rest: two optimizers in PyTorch, one here."""
    model, first = torch_setup("RMSprop", WEIGHTS, lr=0.01, centered=True)
    second = torch.optim.AdamW([p for p in model.parameters() if p.ndim == 1])

    def other_step(_: TorchNetwork) -> None:
        second.step()
        second.zero_grad()

    theirs = torch_steps(model, first, STEPS, change=other_step)
    ours: list[dict[str, Any]] = [
        {"params": WEIGHTS, "optimizer": optim.rmsprop, "lr": 0.01, "centered": True},
        {"params": lambda name: name.endswith("bias")},
    ]
    assert gap(theirs, lambda layout: param_groups(ours, optim.adamw, layout=layout), STEPS) <= BAR


def test_mapping_of_optimizers_is_the_short_form() -> None:
    with settings():
        params = {"head": {"1.weight": jax_params()["1.weight"]}, "rest": {}}
        short = param_groups({"head": sgd(lr=0.1, momentum=0.9)})
        state = short.init(params)
        assert set(state) == {"head"}
        names = opt_state_layout(state, tree_layout(params)).to_torch(state)
        assert set(names) == {"head.1.weight.count", "head.1.weight.momentum_buffer"}
    options = {"lr": 0.1, "momentum": 0.9}
    theirs = torch_steps(*torch_setup("SGD", ["1.weight", "1.bias"], **options), STEPS)
    made = param_groups([{"params": "1", "lr": 0.1}], sgd, momentum=0.9)
    assert gap(theirs, lambda layout: in_torch_layout(made, layout), STEPS) <= BAR


@pytest.mark.parametrize(
    "made",
    [
        lambda layout: frozen(adam(lr=0.02), ["0.bias", "1"], layout=layout),
        lambda layout: param_groups([{"params": ["0.weight", "2"]}], adam, layout=layout, lr=0.02),
    ],
    ids=["frozen", "in no group"],
)
def test_frozen_parameters_stay_and_have_no_state(made: Callable[[Any], Any]) -> None:
    model, optimizer = torch_setup("Adam", lr=0.02)
    for name, parameter in model.named_parameters():
        parameter.requires_grad = name not in ("0.bias", "1.weight", "1.bias")
    theirs = torch_steps(model, optimizer, STEPS)
    assert gap(theirs, made, STEPS) <= BAR
    assert not gap(theirs, adam(lr=0.02), STEPS) <= BAR
    named = named_state(made)
    assert {name.rpartition(".")[0] for name in named} == {"0.weight", "2.weight", "2.bias"}
    assert named["0.weight.exp_avg"].shape == (16, 8)


def named_state(made: Callable[[Any], Any]) -> dict[str, Any]:
    """The initial state over the Flax model, by PyTorch's names."""
    with settings():
        layout, params, _ = flax_parts()
        state = made(layout).init(params)
        return opt_state_layout(state, layout).to_torch(state)


@pytest.mark.parametrize("order", ["inside", "in front"])
def test_clipping_counts_what_moves(order: str) -> None:
    """PyTorch's norm is of the gradients that are there; in front of `frozen` it is of all."""
    model, optimizer = torch_setup("SGD", lr=0.5)
    for parameter in list(model.children())[1].parameters():
        parameter.requires_grad = False

    def clip(model: TorchNetwork) -> None:
        torch.nn.utils.clip_grad_norm_(model.parameters(), 0.1)

    def made(layout: Any) -> Any:
        clip, rule = optim.clip_grad_norm(0.1), param_groups([{"params": ["0", "2"]}], sgd, lr=0.5)
        if order == "inside":
            return frozen(optax.chain(clip, rule), "1", layout=layout)
        return optax.chain(clip, frozen(rule, "1", layout=layout))

    theirs = torch_steps(model, optimizer, STEPS, change=clip)
    assert (gap(theirs, made, STEPS, plain_parts) <= BAR) is (order == "inside")


ALONE = [name for name in TORCH if name not in ("LBFGS", "Muon")]
STACKED = {name: from_torch(name, lr=0.1) for name in ALONE}
STACKED["Muon"] = optim.muon(lr=0.1, round_to_bfloat16=False)  # which would part any two


@pytest.mark.parametrize("name", STACKED)
def test_layers_stacked_for_a_scan_go_through_vmap(name: str) -> None:
    """Each as it goes alone; without vmap Adafactor takes all for one, and Muon refuses them."""
    drawn = np.random.RandomState(0)

    def updates(update: Any, init: Any, first: Any, grads: Any) -> Any:
        rows = {"touched": jnp.ones(first.shape[:-1], bool)} if name == "SparseAdam" else {}
        state, seen = init(first), []
        for grad in grads:
            update_, state = update(grad, state, first, **rows)
            seen.append(update_)
        return jnp.stack(seen)

    with settings():
        optimizer = STACKED[name]
        layers = jnp.asarray(drawn.randn(3, 4, 5) * np.array([1.0, 5.0, 25.0])[:, None, None])
        grads = jnp.asarray(drawn.randn(2, 3, 4, 5))
        alone = [
            updates(optimizer.update, optimizer.init, layers[i], grads[:, i]) for i in range(3)
        ]
        right = np.stack(alone, axis=1)
        vmapped = updates(jax.vmap(optimizer.update), jax.vmap(optimizer.init), layers, grads)
        np.testing.assert_allclose(vmapped, right, rtol=1e-13)
        if name == "Muon":
            with pytest.raises(InputError, match="expected a matrix"):
                optimizer.init(layers)
        elif name != "SparseAdam":  # whose rows are another axis then
            whole = updates(optimizer.update, optimizer.init, layers, grads)
            assert np.allclose(whole, right, rtol=1e-13) is (name != "Adafactor")


def test_lbfgs_of_some_parameters() -> None:
    moving = ["0.weight", "0.bias", "2.weight", "2.bias"]
    theirs = torch_steps(*torch_setup("LBFGS", moving, max_iter=5), FULL[:2])
    ours = optim.lbfgs(max_iter=5)
    assert gap(theirs, lambda layout: frozen(ours, "1", layout=layout), FULL[:2]) <= BAR


@pytest.mark.parametrize("options", [{"lr": 0.05}, {"lr": 0.01, "maximize": True}], ids=str)
def test_adafactor_needs_torchs_layout(options: dict[str, Any]) -> None:
    """Its means are over rows and columns: of a kernel that is not square, they are others."""

    def made(layout: Any) -> Any:
        return in_torch_layout(optim.adafactor(**options), layout)

    assert gap(torch_steps(*torch_setup("Adafactor", **options), STEPS), made, STEPS) <= BAR
    named = named_state(made)
    assert named["0.weight.row_var"].shape == (16, 1)
    assert named["0.weight.col_var"].shape == (1, 8)
    assert "0.weight.variance" not in named


def test_muon_scales_by_torchs_rows_and_columns() -> None:
    """One update: its bfloat16 parts two runs soon after. The other layout scales it otherwise."""
    theirs = torch_steps(*torch_setup("Muon", WEIGHTS, lr=0.05), STEPS[:1])
    one = [{"params": WEIGHTS}]
    right = param_groups(one, optim.muon, lr=0.05)
    assert gap(theirs, lambda layout: in_torch_layout(right, layout), STEPS[:1]) <= 1e-3

    def wrong(layout: Any) -> Any:
        return param_groups(one, optim.muon, layout=layout, lr=0.05)

    assert not gap(theirs, wrong, STEPS[:1]) <= 1e-2


def test_second_step_does_not_compile_again() -> None:
    with settings():
        params = jax_params()
        optimizer = param_groups([{"params": "0"}, {"params": "2", "lr": 0.1}], adam)
        update = jax.jit(optimizer.update)
        _, state = update(params, optimizer.init(params), params)
        with jax.no_tracing(True):
            update(params, state, params)


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
        param_groups(groups, **({"optimizer": adam} | rest)).init(jax_params())


def test_what_is_unknown_cannot_be_frozen() -> None:
    with settings(), pytest.raises(InputError, match="frozen: parameter 'head' is unknown"):
        frozen(adam(), "head").init(jax_params())


EMPTY: dict[str, Callable[[], Any]] = {
    "a group of none": lambda: param_groups(
        [{"params": []}, {"params": "0"}, {"params": ["1", "2"]}], adam, lr=0.02
    ),
    "nothing frozen": lambda: frozen(adam(lr=0.02), []),
}


@pytest.mark.parametrize("kind", EMPTY)
def test_groups_of_nothing_are_taken(kind: str) -> None:
    """As PyTorch takes them."""
    model = TorchNetwork()
    groups: list[Any] = [{"params": []}, {"params": list(model.parameters())}]
    theirs = torch_steps(model, torch.optim.Adam(groups, lr=0.02), STEPS)
    assert gap(theirs, EMPTY[kind](), STEPS, plain_parts) <= BAR


@pytest.mark.parametrize("name", ["adam", "lbfgs", "muon"])
def test_freezing_everything_moves_nothing(name: str) -> None:
    """As PyTorch's step does where nothing has a gradient."""
    with settings():
        params = jax_params()
        held = frozen(getattr(optim, name)(), lambda name: True)
        state = held.init(params)
        updates, after = held.update(params, state, params, value_and_grad_fn=None)
        assert not any(update.any() for update in updates.values())
        assert not jax.tree.leaves(after)
        assert optim.opt_state_to_torch(after, [{"params": []}], tree_layout(params))["state"] == {}


@pytest.mark.parametrize(
    ("beside", "says"),
    [
        ({"optimizer": adam}, "optimizer is given"),
        ({"layout": tree_layout({})}, "layout is given"),
        ({"lr": 0.1}, "lr is given"),
    ],
    ids=["optimizer", "layout", "a default"],
)
def test_what_the_short_form_has_no_use_for_is_refused(beside: Any, says: str) -> None:
    with pytest.raises(InputError, match=says):
        param_groups({"head": sgd()}, **beside)


def test_a_key_that_is_missing_is_named() -> None:
    optimizer, params = param_groups({"heat": sgd()}), {"head": jnp.ones(2)}
    with pytest.raises(InputError, match="params has no key 'heat', did you mean head"):
        optimizer.init(params)
    with pytest.raises(InputError, match="gradients has no key 'heat'"):
        optimizer.update(params, {"heat": ()})
