"""Optimizers from PyTorch's own objects: their groups, names, options and schedulers; what is not
torch.optim's own, or would move more than it, is refused.
"""

import copy
import re
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
import torch
from helpers.torch_schedules import CLASSES, Case, case, steps_without_updates
from helpers.training import (
    BATCHES,
    NAMES,
    WEIGHTS,
    TorchNetwork,
    arrays,
    flax_parts,
    gap,
    jax_params,
    jax_steps,
    plain_parts,
    settings,
    torch_setup,
    torch_steps,
    worst,
)

from twinstep.errors import InputError
from twinstep.jax.layout import tree_layout
from twinstep.jax.optim import from_torch, opt_state_from_torch
from twinstep.jax.optim._from_torch import TORCH
from twinstep.torch.muon import Muon

pytestmark = pytest.mark.quick_to_compile

STEPS = BATCHES[:4]
BAR = 1e-12


def two_groups(model: TorchNetwork, *, named: bool) -> torch.optim.Optimizer:
    first, second, _ = model.children()
    second.bias.requires_grad = False
    parts: list[Any] = [
        [(f"{i}.{name}", p) if named else p for name, p in layer.named_parameters()]
        for i, layer in ((1, second), (0, first))
    ]
    groups: list[Any] = [{"params": parts[0], "lr": 0.1, "momentum": 0.9}, {"params": parts[1]}]
    return torch.optim.SGD(groups, lr=0.03)


class Mine(torch.optim.Adam):
    """Of a name of its own."""


OBJECTS: dict[str, Callable[[TorchNetwork], torch.optim.Optimizer]] = {
    "groups, the model's names": lambda model: two_groups(model, named=False),
    "groups, its own names": lambda model: two_groups(model, named=True),
    "one group": lambda model: torch.optim.AdamW(
        model.parameters(), lr=torch.tensor(0.02), amsgrad=True
    ),
    "a subclass": lambda model: Mine(model.parameters(), lr=0.02),
    "named parameters": lambda model: torch.optim.LBFGS(
        [(name, p) for name, p in model.named_parameters() if name in WEIGHTS], max_iter=4
    ),
}


@pytest.mark.parametrize("kind", OBJECTS)
def test_an_optimizer_is_taken_over(kind: str) -> None:
    """Its groups, its names, and its options as they are now; one group is the whole tree."""
    model = TorchNetwork()
    optimizer = OBJECTS[kind](model)
    names = model.named_parameters() if "the model's" in kind else None
    with settings():
        ours = from_torch(optimizer, names, layout=flax_parts()[0])
    assert gap(torch_steps(model, optimizer, STEPS), ours, STEPS) <= BAR


def test_groups_without_names_are_numbers() -> None:
    with settings():
        params = [jax_params()["0.bias"], jax_params()["2.bias"]]
        one, two = (torch.nn.Parameter(torch.tensor(np.array(p))) for p in params)
        groups: list[Any] = [{"params": [two]}, {"params": [one], "lr": 0.5}]
        ours = from_torch(torch.optim.SGD(groups, lr=0.25))
        params.reverse()  # PyTorch numbers them over all groups
        updates, _ = ours.update(params, ours.init(params), params)
        assert bool((updates[0] == -0.25 * params[0]).all())
        assert bool((updates[1] == -0.5 * params[1]).all())


# What is not torch.optim's own


class Elsewhere(torch.optim.Optimizer):
    """Another library's, under a name of PyTorch's."""

    def __init__(self, params: Any) -> None:
        super().__init__(params, {"lr": 0.1, "correct_bias": False})

    def step(self, closure: Any = None) -> Any:
        return closure


Elsewhere.__name__ = Elsewhere.__qualname__ = "AdamW"


class OtherStep(torch.optim.Adam):
    """A step of its own."""

    def step(self, closure: Any = None) -> Any:
        return closure


class OtherGroup(torch.optim.Adam):
    """A part of the step of its own."""

    def _init_group(self, *args: Any) -> Any:
        return super()._init_group(*args)


def patched(params: Any) -> Any:
    optimizer: Any = torch.optim.Adam(params)
    optimizer.step = lambda closure=None: closure
    return optimizer


NOT_TORCHS: dict[str, tuple[Callable[[Any], Any], str]] = {
    "another library's": (Elsewhere, f"optimizer is a {__name__}.AdamW, expected one of torch"),
    "a step of its own": (OtherStep, f"is a {__name__}.OtherStep, whose step is not Adam's"),
    "a part of it": (OtherGroup, f"is a {__name__}.OtherGroup, whose _init_group is not Adam's"),
    "twinstep's Muon": (Muon, "is a twinstep.torch.muon.Muon, whose step is not Muon's"),
    "a patched step": (patched, "optimizer has a step of its own"),
    "a class": (lambda params: torch.optim.Adam, "expected a name or an optimizer"),
}


@pytest.mark.parametrize("kind", NOT_TORCHS)
def test_what_is_not_torchs_own_is_refused(kind: str) -> None:
    make, says = NOT_TORCHS[kind]
    with pytest.raises(InputError, match=re.escape(says)):
        from_torch(make([torch.nn.Parameter(torch.ones(2, 2))]))


@pytest.mark.parametrize("name", TORCH)
def test_all_of_torchs_own_are_known_with_a_scheduler_around_the_step(name: str) -> None:
    parameter = torch.nn.Parameter(torch.ones(2, 2))
    optimizer = getattr(torch.optim, name)([parameter], lr=0.5)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1)
    with settings():
        from_torch(optimizer, scheduler=scheduler).init(jnp.ones((2, 2)))
    with pytest.raises(InputError, match="has a learning rate scheduler"):
        from_torch(optimizer)


# No more parameters than PyTorch's


def partly_frozen() -> list[torch.nn.Parameter]:
    model = TorchNetwork()
    next(model.parameters()).requires_grad = False
    return list(model.parameters())


MORE: dict[str, tuple[Callable[[], Any], str]] = {
    "requires_grad=False": (lambda: partly_frozen(), "a parameter has no gradient, expected named"),
    "parameters outside": (
        lambda: list(TorchNetwork().parameters())[:-1],
        "the tree has 6 parameters, the optimizer 5",
    ),
    "other parameters": (
        lambda: [*list(TorchNetwork().parameters())[:-1], torch.nn.Parameter(torch.ones(4))],
        "parameter '2.bias' has shape (3,), which the optimizer's has not",
    ),
    "a group outside": (
        lambda: [{"params": [p]} for p in list(TorchNetwork().parameters())[:-1]],
        "the tree has 6 parameters, the optimizer 5",
    ),
    "another order": (
        lambda: [{"params": [p]} for p in reversed(list(TorchNetwork().parameters()))],
        "parameter '0.bias' has shape (16,)",
    ),
}


@pytest.mark.parametrize("kind", MORE)
def test_nothing_moves_that_torch_does_not_move(kind: str) -> None:
    make, says = MORE[kind]
    with settings(), pytest.raises(InputError, match=re.escape(says)):
        from_torch(torch.optim.Adam(make())).init(jax_params())


def test_what_requires_no_gradient_stays() -> None:
    model = TorchNetwork()
    for name, parameter in model.named_parameters():
        parameter.requires_grad = not name.startswith("1")
    optimizer = torch.optim.Adam(
        [{"params": [*model.parameters()][2:4]}, {"params": [*model.parameters()][:2]}]
    )
    with settings():
        ours = from_torch(optimizer, model.named_parameters())
    assert gap(torch_steps(model, optimizer, STEPS), ours, STEPS, plain_parts) <= BAR


# With a scheduler


def on_both(one: Case, optimizer: Any) -> Any:
    with steps_without_updates():
        return one.torch_side(optimizer)


SCHEDULES: dict[str, Case] = {
    one.name: one
    for one in (
        case("lambda_lr", lr_lambda=lambda count: 1 / (count + 1)),
        case("multiplicative_lr", lr_lambda=lambda count: 0.9 + 0.01 * count),
        case("step_lr", step_size=2, gamma=0.3),
        case("multi_step_lr", milestones=[1, 3, 3]),
        case("constant_lr", factor=0.3, total_iters=3),
        case("linear_lr", start_factor=0.1, end_factor=0.7, total_iters=5),
        case("exponential_lr", gamma=0.7),
        case("polynomial_lr", total_iters=6, power=1.3),
        case("cosine_annealing_lr", T_max=5, eta_min=0.003),
        case("cosine_annealing_warm_restarts", T_0=2, T_mult=2, eta_min=0.003),
        case("cyclic_lr", base_lr=0.01, max_lr=0.07, step_size_up=3, step_size_down=4),
        case("one_cycle_lr", max_lr=0.07, total_steps=9, pct_start=0.37, div_factor=7.0),
    )
}
SCHEDULES |= {
    "cyclic by a function": case(
        "cyclic_lr", base_lr=0.01, max_lr=0.07, step_size_up=2, scale_fn=lambda cycle: 0.5**cycle
    ),
    "cyclic exp_range": case(
        "cyclic_lr", base_lr=0.01, max_lr=0.07, step_size_up=2, mode="exp_range", gamma=0.9
    ),
    "three phases": case(
        "one_cycle_lr",
        max_lr=0.07,
        total_steps=9,
        three_phase=True,
        anneal_strategy="linear",
        cycle_momentum=False,
        final_div_factor=3.0,
    ),
    "chained": case(
        "chained_scheduler", SCHEDULES["constant_lr"], SCHEDULES["cosine_annealing_lr"]
    ),
    "sequential": case(
        "sequential_lr", SCHEDULES["linear_lr"], SCHEDULES["exponential_lr"], milestones=[4]
    ),
    "nested": case(
        "sequential_lr",
        case("chained_scheduler", SCHEDULES["constant_lr"], SCHEDULES["exponential_lr"]),
        SCHEDULES["cosine_annealing_lr"],
        milestones=[3],
    ),
}


@pytest.mark.parametrize("kind", ["SGD", "Adam"])
@pytest.mark.parametrize("one", SCHEDULES)
def test_a_scheduler_is_taken_over(one: str, kind: str) -> None:
    """With the momentum that it moves, in each group from the group's own rate."""
    model = TorchNetwork()
    layers = [list(layer.parameters()) for layer in model.children()]
    more = {"momentum": 0.9} if kind == "SGD" else {}
    groups = [{"params": layers[0] + layers[2]}, {"params": layers[1], "lr": 0.01}]
    optimizer = getattr(torch.optim, kind)(groups, lr=0.02, **more)
    scheduler = on_both(SCHEDULES[one], optimizer)
    with settings():
        ours = from_torch(optimizer, model.named_parameters(), scheduler=scheduler)
    with steps_without_updates():
        theirs = torch_steps(model, optimizer, BATCHES[:8], scheduler=scheduler)
    assert gap(theirs, ours, BATCHES[:8], plain_parts) <= BAR


@pytest.mark.parametrize("kind", ["SGD", "Adam"])
def test_a_scheduler_goes_on_in_the_middle(kind: str) -> None:
    """Adam's steps are its count; SGD's has to be said."""
    more = {"momentum": 0.9} if kind == "SGD" else {}
    model, optimizer = torch_setup(kind, lr=0.02, **more)
    scheduler = on_both(SCHEDULES["sequential"], optimizer)
    torch_steps(model, optimizer, BATCHES[:3], scheduler=scheduler)
    state_dict, params = copy.deepcopy(optimizer.state_dict()), arrays(model)
    with settings():
        ours = from_torch(optimizer, model.named_parameters(), scheduler=scheduler)
        layout = tree_layout(jax_params())
        count = {"count": 3} if kind == "SGD" else {}
        start = {name: jnp.asarray(array) for name, array in params.items()}
        state = opt_state_from_torch(state_dict, ours.init(start), layout, names=NAMES, **count)
        _, _, seen = jax_steps(ours, BATCHES[3:8], start, state)
    assert worst(torch_steps(model, optimizer, BATCHES[3:8], scheduler=scheduler), seen) <= BAR


def test_every_kind_of_scheduler_is_tried() -> None:
    names = {one.name for one in SCHEDULES.values()}
    assert names == CLASSES.keys() - {"reduce_lr_on_plateau"}


def test_schedulers_that_cannot_be_taken_over_are_refused() -> None:
    def refuses(says: str, make: Callable[[Any], Any], given: Any = None) -> None:
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(2))])
        scheduler = make(optimizer)
        with pytest.raises(InputError, match=says):
            from_torch(given or optimizer, scheduler=scheduler)

    class Mine(torch.optim.lr_scheduler.StepLR):
        """Of a name of its own."""

    kinds = torch.optim.lr_scheduler
    refuses("is a torch.optim.lr_scheduler.ReduceLROnPlateau", kinds.ReduceLROnPlateau)
    refuses("SWALR, expected one of", lambda o: torch.optim.swa_utils.SWALR(o, 0.1))
    refuses("Mine, expected one of", lambda o: Mine(o, 1))
    refuses("is a int, expected one of the optimizer", lambda o: 3)
    refuses("is a StepLR, expected one of the optimizer", lambda o: kinds.StepLR(OTHER, 1))
    refuses("expected it with an optimizer object", lambda o: kinds.StepLR(o, 1), "SGD")


OTHER = torch.optim.SGD([torch.nn.Parameter(torch.ones(2))])
