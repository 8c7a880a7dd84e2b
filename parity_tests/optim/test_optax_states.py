"""Optax's own states, to PyTorch and back where it keeps the same; the rest is refused by name."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch
from flax import nnx
from helpers.given_gradients import (
    SHAPES,
    STEPS,
    numbers,
    state_of,
    torch_params,
    torch_state,
)
from helpers.training import (
    settings,
    tensors,
)

from twinstep.errors import InputError
from twinstep.jax import optim
from twinstep.jax.layout import tree_layout
from twinstep.jax.optim import opt_state_from_torch, opt_state_to_torch, param_groups

pytestmark = pytest.mark.quick_to_compile

BAR = 1e-12


OPTAX: dict[str, tuple[str, dict[str, Any], Callable[..., Any]]] = {
    "sgd": ("SGD", {"lr": 0.1, "momentum": 0.9}, lambda lr: optax.sgd(lr, momentum=0.9)),
    "nesterov": (
        "SGD",
        {"lr": 0.1, "momentum": 0.9, "nesterov": True},
        lambda lr: optax.sgd(lr, momentum=0.9, nesterov=True),
    ),
    "adam": ("Adam", {"lr": 0.1}, optax.adam),
    "adamw": ("AdamW", {"lr": 0.1, "weight_decay": 1e-4}, optax.adamw),
    "radam": ("RAdam", {"lr": 0.1}, optax.radam),
    "adamax": ("Adamax", {"lr": 0.1}, optax.adamax),
    "adadelta": ("Adadelta", {"lr": 0.1}, lambda lr: optax.adadelta(lr, rho=0.9, eps=1e-6)),
    "rmsprop": ("RMSprop", {"lr": 0.1}, lambda lr: optax.rmsprop(lr, decay=0.99)),
    "centered": (
        "RMSprop",
        {"lr": 0.1, "centered": True},
        lambda lr: optax.rmsprop(lr, decay=0.99, centered=True),
    ),
    "adagrad": (
        "Adagrad",
        {"lr": 0.1},
        lambda lr: optax.adagrad(lr, initial_accumulator_value=0.0),
    ),
}
AROUND: dict[str, Callable[[Callable[..., Any]], Any]] = {
    "alone": lambda make: make(0.1),
    "a schedule": lambda make: make(lambda count: 0.1),
    "clipped": lambda make: optax.chain(optim.clip_grad_norm(1e9), optax.chain(make(0.1))),
    "MultiSteps": lambda make: optax.MultiSteps(make(0.1), 1).gradient_transformation(),
    "apply_if_finite": lambda make: optax.apply_if_finite(make(0.1), 2),
    "masked": lambda make: optax.chain(
        optax.masked(make(0.1), {"w": True, "b": False}),
        optax.masked(make(0.1), {"w": False, "b": True}),
    ),
    "partition": lambda make: optax.partition(
        {"first": make(0.1), "second": make(0.1)}, {"w": "first", "b": "second"}
    ),
    "inject_hyperparams": lambda make: optax.inject_hyperparams(lambda lr: make(lr))(lr=0.1),
    "a schedule in it": lambda make: optax.inject_hyperparams(lambda lr: make(lr))(
        lr=lambda count: 0.1
    ),
    "accumulate": lambda make: optim.accumulate(make(0.1), 1),
    "groups": lambda make: param_groups(
        [
            {"params": "w", "optimizer": make, "lr": 0.1},
            {"params": "b", "optimizer": make, "lr": 0.1},
        ]
    ),
    "in a layout": lambda make: optim.in_torch_layout(
        make(0.1), tree_layout({name: np.zeros(shape) for name, shape in SHAPES.items()})
    ),
}


def with_lr(make: Callable[..., Any]) -> Callable[..., Any]:
    """Under the name that PyTorch has for it."""

    def factory(lr: Any) -> Any:
        return make(lr)

    return factory


@pytest.mark.parametrize("around", AROUND)
@pytest.mark.parametrize("kind", OPTAX)
def test_optaxs_own_states_both_ways(kind: str, around: str) -> None:
    """The same gradients leave the same state; optax keeps it under other names."""
    name, options, make = OPTAX[kind]
    given = torch_params()
    theirs = getattr(torch.optim, name)(given, **options)
    expected = torch_state(theirs, given)
    with settings():
        params = {key: jnp.asarray(array) for key, array in numbers(0).items()}
        layout, ours = tree_layout(params), AROUND[around](with_lr(make))
        reset = state = ours.init(params)
        for step in range(STEPS):
            grads = {key: jnp.asarray(array) for key, array in numbers(step + 1).items()}
            _, state = ours.update(grads, state, params)
        more: dict[str, Any] = {"names": list(SHAPES), "count": STEPS}
        groups = expected["param_groups"]
        written = opt_state_to_torch(state, groups, layout, optimizer=name, **more)
        back = opt_state_from_torch(expected, reset, layout, **more)
    theirs.load_state_dict(tensors(written))
    for number, entries in expected["state"].items():
        assert written["state"][number].keys() == entries.keys()
        for key, value in entries.items():
            np.testing.assert_allclose(written["state"][number][key], value, rtol=BAR)
    structures: list[Any] = [jax.tree.structure(tree) for tree in (back, state)]
    assert structures[0] == structures[1]
    if around != "MultiSteps":  # whose counts of micro-batches are its own
        pairs = zip(jax.tree.leaves(back), jax.tree.leaves(state), strict=True)
        for one, other in pairs:
            if around != "inject_hyperparams" or one.ndim:  # of no schedule
                np.testing.assert_allclose(one, other, rtol=BAR)


NOT_TORCHS: dict[str, tuple[Any, str, str]] = {
    "nadam": (optax.nadam(0.1), "NAdam", "ScaleByAdamState, which NAdam does not keep"),
    "amsgrad": (optax.amsgrad(0.1), "Adam", "ScaleByAmsgradState"),
    "rprop": (optax.rprop(0.1), "Rprop", "ScaleByRpropState"),
    "adafactor": (optax.adafactor(0.1), "Adafactor", "FactoredState"),
    "lion": (optax.lion(0.1), "Adam", "ScaleByLionState"),
    "novograd": (optax.novograd(0.1), "Adam", "NovogradState"),
    "lbfgs": (optax.lbfgs(), "LBFGS", "ScaleByLBFGSState"),
    "muon": (optax.contrib.muon(0.1), "Muon", "ScaleByAdamState, which Muon does not keep"),
    "its matrices": (optax.contrib.scale_by_muon(), "Muon", "MuonState"),
    "momentum of rates": (
        optax.rmsprop(0.1, momentum=0.9),
        "RMSprop",
        "TraceState, which RMSprop does not keep",
    ),
    "as another's": (optax.adam(0.1), "RMSprop", "ScaleByAdamState, which RMSprop does not keep"),
    "two in a chain": (optax.chain(optax.adam(0.1), optax.adam(0.1)), "Adam", "two states"),
    "an average": (optax.chain(optax.sgd(0.1), optax.ema(0.9)), "SGD", "EmaState"),
}


@pytest.mark.parametrize("kind", NOT_TORCHS)
def test_what_torch_does_not_keep_is_refused(kind: str) -> None:
    make, name, says = NOT_TORCHS[kind]
    state, layout = state_of(make)
    state = jax.tree.map(lambda leaf: leaf + 1, state)  # as after a step
    groups: list[Any] = [{"params": list(SHAPES)}]
    with pytest.raises(InputError, match=says):
        opt_state_to_torch(state, groups, layout, optimizer=name, count=1)
    entries = {"step": 1.0, "exp_avg": 1.0, "square_avg": 1.0, "momentum_buffer": 1.0}
    like = {
        i: {k: np.full(s, v) for k, v in entries.items()} for i, s in enumerate(SHAPES.values())
    }
    state_dict = {"state": like, "param_groups": [{"params": [0, 1]}]}
    with pytest.raises(InputError):
        opt_state_from_torch(state_dict, state, layout, names=list(SHAPES), count=1)


@pytest.mark.parametrize("kind", ["rmsprop", "adagrad", "adadelta"])
def test_a_count_that_optax_does_not_keep_is_asked_for(kind: str) -> None:
    name, _, make = OPTAX[kind]
    state, layout = state_of(make(0.1))
    with pytest.raises(InputError, match="count is None, expected the updates made"):
        opt_state_to_torch(state, [{"params": list(SHAPES)}], layout, optimizer=name)


def test_the_state_that_an_nnx_optimizer_holds_both_ways() -> None:
    class Model(nnx.Module):
        def __init__(self) -> None:
            self.w, self.b = (nnx.Param(jnp.asarray(array)) for array in numbers(0).values())

    given = torch_params()
    theirs = torch.optim.Adam(given, lr=0.1)
    expected = torch_state(theirs, given)
    with settings():
        for make in (optim.adam(lr=0.1), param_groups([{"params": ["w", "b"]}], optim.adam)):
            model = Model()
            layout = tree_layout(nnx.to_pure_dict(nnx.state(model, nnx.Param)))
            held = nnx.Optimizer(model, make, wrt=nnx.Param)
            held.opt_state = nnx.data(
                opt_state_from_torch(expected, held.opt_state, layout, names=list(SHAPES))
            )
            held.update(model, nnx.state(Model(), nnx.Param))
            groups: Any = [{"params": list(SHAPES)}]
            written = opt_state_to_torch(held.opt_state, groups, layout)
        for parameter, array in zip(given, numbers(0).values(), strict=True):
            parameter.grad = torch.tensor(array)
        theirs.step()
        for number, entries in theirs.state_dict()["state"].items():
            for key, value in entries.items():
                np.testing.assert_allclose(written["state"][number][key], value, rtol=BAR)
