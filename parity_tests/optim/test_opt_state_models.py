"""Optimizer state of Flax models and of groups, in other transformations, and what does not fit."""

import copy
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch
from helpers.training import (
    BATCHES,
    NAMES,
    TorchNetwork,
    flax_parts,
    jax_params,
    jax_steps,
    network,
    settings,
    tensors,
    torch_steps,
    worst,
)

from twinstep.errors import InputError
from twinstep.jax.layout import Mapping, tree_layout
from twinstep.jax.optim import (
    accumulate,
    adam,
    clip_grad_norm,
    from_torch,
    in_torch_layout,
    lbfgs,
    opt_state_from_torch,
    opt_state_to_torch,
    sgd,
)

pytestmark = pytest.mark.quick_to_compile

BAR = 1e-12
HALF = 4
STEPS = BATCHES[: 2 * HALF]
FULL = np.tile(np.arange(512), (4, 1))


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
    optimizer = grouped(model)
    torch_steps(model, optimizer, STEPS[:HALF])
    state_dict = copy.deepcopy(optimizer.state_dict())
    params = {name: p.detach().numpy().copy() for name, p in model.named_parameters()}
    theirs = torch_steps(model, optimizer, STEPS[HALF:])
    with settings():
        layout, _, loss = flax_parts()
        start = layout.to_jax({name: jnp.asarray(a) for name, a in params.items()})
        ours = from_torch(grouped(model), model.named_parameters(), layout=layout)
        opt_state = opt_state_from_torch(state_dict, ours.init(start), layout, names=GROUPED)
        _, _, seen = jax_steps(ours, start, opt_state, STEPS[HALF:], loss)
        assert worst(theirs, [layout.to_torch(params) for params in seen]) <= BAR
        groups: Sequence[Any] = state_dict["param_groups"]
        if not numbered:
            groups = [{"params": GROUPED[:2], "lr": 0.05}, {"params": GROUPED[2:], "lr": 0.01}]
        written = opt_state_to_torch(
            opt_state, groups, layout, names=GROUPED if numbered else None, optimizer="Adam"
        )
    assert written["param_groups"][1]["params"] == [2, 3]
    again = network(params)
    other = grouped(again)
    other.load_state_dict(tensors(written))
    assert worst(theirs, torch_steps(again, other, STEPS[HALF:])) <= BAR


@pytest.mark.parametrize("wrapped", [False, True])
def test_lbfgs_of_a_flax_model_both_ways(wrapped: bool) -> None:
    """Its vectors have PyTorch's order and layout there, and the tree's here."""
    options: dict[str, Any] = {"max_iter": 3, "history_size": 4}
    model = TorchNetwork()
    optimizer = torch.optim.LBFGS(model.parameters(), **options)
    torch_steps(model, optimizer, FULL[:2])
    state_dict = copy.deepcopy(optimizer.state_dict())
    params = {name: p.detach().numpy().copy() for name, p in model.named_parameters()}
    theirs = torch_steps(model, optimizer, FULL[2:])
    with settings():
        layout, _, loss = flax_parts()
        start = layout.to_jax({name: jnp.asarray(a) for name, a in params.items()})
        ours = in_torch_layout(lbfgs(**options), layout) if wrapped else lbfgs(**options)
        opt_state = opt_state_from_torch(state_dict, ours.init(start), layout, names=NAMES)
        _, _, seen = jax_steps(ours, start, opt_state, FULL[2:], loss)
        assert worst(theirs, [layout.to_torch(params) for params in seen]) <= BAR
        written = opt_state_to_torch(opt_state, state_dict["param_groups"], layout, names=NAMES)
    for key in ("d", "prev_flat_grad"):
        np.testing.assert_array_equal(written["state"][0][key], state_dict["state"][0][key])


def test_adafactor_of_a_flax_model() -> None:
    model = TorchNetwork()
    optimizer = torch.optim.Adafactor(model.parameters(), lr=0.05)
    torch_steps(model, optimizer, STEPS[:HALF])
    state_dict = copy.deepcopy(optimizer.state_dict())
    params = {name: p.detach().numpy().copy() for name, p in model.named_parameters()}
    theirs = torch_steps(model, optimizer, STEPS[HALF:])
    with settings():
        layout, _, loss = flax_parts()
        start = layout.to_jax({name: jnp.asarray(a) for name, a in params.items()})
        ours = in_torch_layout(from_torch(optimizer), layout)
        opt_state = opt_state_from_torch(state_dict, ours.init(start), layout, names=NAMES)
        _, _, seen = jax_steps(ours, start, opt_state, STEPS[HALF:], loss)
        assert worst(theirs, [layout.to_torch(params) for params in seen]) <= BAR


def test_count_goes_on_where_a_schedule_asks_it() -> None:
    with settings():
        ours = sgd(lr=lambda count: 0.1 / (count + 1), momentum=0.9)
        layout = tree_layout(jax_params())
        whole = jax_steps(ours, jax_params(), ours.init(jax_params()), STEPS)[2]
        params, state, _ = jax_steps(ours, jax_params(), ours.init(jax_params()), STEPS[:HALF])
        written = opt_state_to_torch(state, [{"params": NAMES}], layout, optimizer="SGD")
        reset = ours.init(jax_params())
        for count, same in ((HALF, True), (None, False)):
            read = opt_state_from_torch(written, reset, layout, names=NAMES, count=count)
            _, _, seen = jax_steps(ours, params, read, STEPS[HALF:])
            assert (worst(whole[HALF:], seen) == 0) is same


def test_state_inside_other_transformations() -> None:
    """Clipping and accumulation keep nothing that PyTorch's optimizer does."""
    with settings():
        layout = tree_layout(jax_params())
        ours = optax.chain(clip_grad_norm(1.0), accumulate(adam(lr=0.02), 2))
        _, state, _ = jax_steps(ours, jax_params(), ours.init(jax_params()), STEPS[:2])
        written = opt_state_to_torch(state, [{"params": NAMES}], layout, optimizer="Adam")
        assert set(written["state"][0]) == {"step", "exp_avg", "exp_avg_sq"}
        assert written["state"][0]["step"] == 1
        read = opt_state_from_torch(written, ours.init(jax_params()), layout, names=NAMES)
        assert jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), read, state))


def adam_state() -> Any:
    model = TorchNetwork()
    optimizer = torch.optim.Adam(model.parameters())
    torch_steps(model, optimizer, STEPS[:1])
    return optimizer.state_dict()


def steps_apart(state_dict: Any) -> None:
    state_dict["state"][1]["step"] = torch.tensor(7.0)


def lost(state_dict: Any) -> None:
    del state_dict["state"][0]["exp_avg"]


def odd(state_dict: Any) -> None:
    state_dict["state"][0]["max_exp_avg_sq"] = torch.ones(16, 8)


def misshapen(state_dict: Any) -> None:
    state_dict["state"][0]["exp_avg"] = torch.ones(8, 16)


def homeless(state_dict: Any) -> None:
    state_dict["state"][9] = state_dict["state"].pop(0)


BAD: dict[str, tuple[Any, Any, str]] = {
    "steps": (steps_apart, NAMES, "state 'step' differs between parameters"),
    "lost": (lost, NAMES, "state '0.weight.exp_avg' is missing"),
    "odd": (odd, NAMES, "state '0.weight.max_exp_avg_sq' is unknown"),
    "shape": (misshapen, NAMES, r"has shape \(8, 16\), expected \(16, 8\)"),
    "number": (homeless, NAMES, "parameter 9 is unknown"),
    "no names": (lambda state_dict: None, None, "parameter '0' is unknown"),
    "other names": (lambda state_dict: None, [*NAMES[:5], "head"], "parameter 'head' is unknown"),
    "few names": (lambda state_dict: None, NAMES[:2], "names has 2 entries"),
}


@pytest.mark.parametrize(("spoil", "names", "says"), BAD.values(), ids=BAD)
def test_state_that_does_not_fit_is_refused(spoil: Any, names: Any, says: str) -> None:
    state_dict = adam_state()
    spoil(state_dict)
    with settings():
        layout: Mapping = tree_layout(jax_params())
        with pytest.raises(InputError, match=says):
            opt_state_from_torch(state_dict, adam().init(jax_params()), layout, names=names)


def test_lbfgs_state_that_does_not_fit_is_refused() -> None:
    model = TorchNetwork()
    optimizer = torch.optim.LBFGS(model.parameters(), max_iter=5)
    torch_steps(model, optimizer, FULL[:1])
    with settings():
        layout = tree_layout(jax_params())
        reset = lbfgs(history_size=2).init(jax_params())
        with pytest.raises(InputError, match="old_dirs has 4 entries, expected up to 2"):
            opt_state_from_torch(optimizer.state_dict(), reset, layout, names=NAMES)
