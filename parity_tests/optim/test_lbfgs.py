"""torch.optim.LBFGS step by step: parameters, and how many iterations and evaluations it made.

Its iterations amplify rounding by ten or more a step: 1e-9 after five of twenty iterations each.
"""

import importlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch
from helpers.optim_database import optim_db
from helpers.training import (
    TorchNetwork,
    X,
    Y,
    flax_parts,
    jax_params,
    jax_steps,
    named_loss,
    settings,
    torch_steps,
    worst,
)

from twinstep.errors import InputError
from twinstep.jax.optim import in_torch_layout, lbfgs

pytestmark = pytest.mark.quick_to_compile

FULL = np.tile(np.arange(512), (5, 1))
BAR = 1e-9
INFO: Any = next(info for info in optim_db if str(info.optim_cls).endswith("LBFGS'>"))
CONFIGS: list[dict[str, Any]] = [c.kwargs for c in INFO.optim_inputs_func(device="cpu")]
MORE: list[dict[str, Any]] = [
    {"history_size": 4, "max_iter": 7},
    {"history_size": 3, "line_search_fn": "strong_wolfe", "max_iter": 8},
    {"max_eval": 7, "line_search_fn": "strong_wolfe"},
    {"lr": 5.0, "line_search_fn": "strong_wolfe", "max_iter": 4},
    {"tolerance_grad": 0.05},
    {"tolerance_change": 0.05},
]


def numbers(options: dict[str, Any]) -> dict[str, Any]:
    return {k: v.item() if isinstance(v, torch.Tensor) else v for k, v in options.items()}


def compared(options: dict[str, Any], ours: Any = None) -> tuple[float, list[Any], list[Any]]:
    """(worst gap, PyTorch's counts after each step, ours) of five steps."""
    model = TorchNetwork()
    sign = -1 if options.get("maximize") else 1  # so that what is made large is bounded
    optimizer = torch.optim.LBFGS(model.parameters(), **options)
    theirs, counts = [], []
    for batch in FULL:
        theirs += torch_steps(model, optimizer, batch[None], sign=sign)
        state = optimizer.state[next(model.parameters())]
        counts.append((state["n_iter"], state["func_evals"]))
    with settings():
        made = lbfgs(**numbers(options)) if ours is None else ours
        params, opt_state = jax_params(), made.init(jax_params())
        seen, ours_counts = [], []
        step = make_step(made, sign)
        for batch in FULL:
            params, opt_state = step(params, opt_state, batch)
            seen.append(params)
            ours_counts.append((int(opt_state.n_iter), int(opt_state.func_evals)))
    return worst(theirs, seen), counts, ours_counts


def make_step(made: Any, sign: int) -> Any:
    @jax.jit
    def step(params: Any, opt_state: Any, batch: Any) -> Any:
        def loss(params: Any) -> Any:
            return sign * named_loss(params, jnp.asarray(X)[batch], jnp.asarray(Y)[batch])

        closure = jax.value_and_grad(loss)

        value, grads = closure(params)
        updates, opt_state = made.update(
            grads, opt_state, params, value=value, value_and_grad_fn=closure
        )
        return optax.apply_updates(params, updates), opt_state

    return step


@pytest.mark.parametrize("options", CONFIGS + MORE, ids=str)
def test_lbfgs_is_torchs(options: dict[str, Any]) -> None:
    gap, theirs, ours = compared(options)
    assert ours == theirs
    assert gap <= BAR, gap


@pytest.mark.parametrize("search", [None, "strong_wolfe"])
def test_what_is_made_large_is_made_small_with_its_sign_turned(search: str | None) -> None:
    """Whatever PyTorch is installed: its LBFGS has maximize since 2.15. The state is the same."""
    with settings():
        ends = []
        for maximize, sign in ((False, 1), (True, -1)):
            made = lbfgs(max_iter=6, line_search_fn=search, maximize=maximize)
            step = make_step(made, sign)
            params, state = jax_params(), made.init(jax_params())
            for batch in FULL[:2]:
                params, state = step(params, state, batch)
            ends.append((params, state))
    assert int(ends[0][1].n_iter) > 6
    assert all(jax.tree.leaves(jax.tree.map(np.array_equal, *ends)))


def test_flax_model_trains_alike_in_its_own_layout() -> None:
    """The order of the entries changes the sums' rounding alone."""
    model = TorchNetwork()
    theirs = torch_steps(model, torch.optim.LBFGS(model.parameters(), max_iter=5), FULL[:3])
    with settings():
        layout, params, loss = flax_parts()
        for optimizer in (lbfgs(max_iter=5), in_torch_layout(lbfgs(max_iter=5), layout)):
            _, _, seen = jax_steps(optimizer, params, optimizer.init(params), FULL[:3], loss)
            assert worst(theirs, [layout.to_torch(p) for p in seen]) <= BAR


def test_schedule_gives_each_steps_learning_rate() -> None:
    model = TorchNetwork()
    optimizer = torch.optim.LBFGS(model.parameters(), max_iter=4)
    theirs = []
    for number, batch in enumerate(FULL[:3]):
        optimizer.param_groups[0]["lr"] = 0.5 / (number + 1)
        theirs += torch_steps(model, optimizer, batch[None])
    with settings():
        ours = lbfgs(lambda count: 0.5 / (count + 1), max_iter=4)
        _, _, seen = jax_steps(ours, jax_params(), ours.init(jax_params()), FULL[:3])
    assert worst(theirs, seen) <= BAR


FAULTS: dict[str, tuple[dict[str, Any], Any]] = {
    "learning rate": ({}, lambda: lbfgs(1 + 1e-7)),
    "history": ({"history_size": 4}, lambda: lbfgs(history_size=5)),
    "evaluations": ({"max_eval": 7}, lambda: lbfgs(max_eval=8)),
    "no line search": ({"line_search_fn": "strong_wolfe"}, lambda: lbfgs()),
}


@pytest.mark.parametrize(("options", "wrong"), FAULTS.values(), ids=FAULTS)
def test_fault_is_noticed(options: dict[str, Any], wrong: Any) -> None:
    with settings():
        gap, theirs, ours = compared(options, wrong())
    assert ours != theirs or not gap <= BAR


def test_forgotten_pair_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    module = importlib.import_module("twinstep.jax.optim._lbfgs")
    monkeypatch.setattr(module, "_CURVED", 1e9)
    gap, theirs, ours = compared({"max_iter": 3})
    assert ours != theirs or not gap <= BAR


BAD: list[tuple[dict[str, Any], str]] = [
    ({"lr": -1.0}, "lr is -1.0, expected 0 or more"),
    ({"line_search_fn": "armijo"}, "line_search_fn is 'armijo'"),
    ({"history_size": 0}, "history_size is 0, expected 1 or more"),
    ({"max_eval": 0, "line_search_fn": "strong_wolfe"}, "max_eval is 0, expected 1 or more"),
    ({"tolerance_change": "small"}, "tolerance_change is 'small', expected a number"),
]


@pytest.mark.parametrize(("options", "says"), BAD, ids=str)
def test_what_torch_refuses_is_refused(options: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError, match=says):
        lbfgs(**options)
    model = TorchNetwork()

    def torchs_step() -> None:
        torch_steps(model, torch.optim.LBFGS(model.parameters(), **options), FULL[:1])

    with pytest.raises((ValueError, RuntimeError, IndexError, UnboundLocalError, TypeError)):
        torchs_step()
