"""torch.optim.LBFGS step by step: parameters, and how many iterations and evaluations it made.

Its iterations amplify rounding by ten or more a step: 1e-9 after five of twenty iterations each.
"""

import functools
import importlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch
from helpers.optimizer_runs import OPTIM_DB
from helpers.training import (
    FULL,
    gap,
    jax_steps,
    named_loss,
    plain_parts,
    settings,
    torch_setup,
    torch_steps,
    worst,
)

from twinstep.errors import InputError
from twinstep.jax.optim import from_torch, in_torch_layout, lbfgs

pytestmark = pytest.mark.quick_to_compile

BAR = 1e-9
MORE: list[dict[str, Any]] = [
    {"history_size": 4, "max_iter": 7},
    {"history_size": 3, "line_search_fn": "strong_wolfe", "max_iter": 8},
    {"max_eval": 7, "line_search_fn": "strong_wolfe"},
    {"lr": 5.0, "line_search_fn": "strong_wolfe", "max_iter": 4},
    {"tolerance_grad": 0.05},
    {"tolerance_change": 0.05},
]


def minus(*arguments: Any) -> jax.Array:
    """The loss with its sign turned, so that what is made large is bounded."""
    return -named_loss(*arguments)


def compared(options: Any, ours: Any = None) -> tuple[float, list[Any], list[Any]]:
    """(worst gap, PyTorch's counts after each step, ours) of five steps."""
    model, optimizer = torch_setup("LBFGS", **options)
    sign, loss = (-1, minus) if options.get("maximize") else (1, named_loss)
    theirs, seen, counts, our_counts = [], [], [], []
    with settings():
        made = from_torch("LBFGS", **options) if ours is None else ours
        params = opt_state = None
        for batch in FULL[:, None]:
            theirs += torch_steps(model, optimizer, batch, sign=sign)
            state = optimizer.state[next(model.parameters())]
            counts.append((state["n_iter"], state["func_evals"]))
            params, opt_state, new = jax_steps(made, batch, params, opt_state, loss)
            seen += new
            our_counts.append((int(opt_state.n_iter), int(opt_state.func_evals)))
    return worst(theirs, seen), counts, our_counts


@pytest.mark.parametrize("options", [*OPTIM_DB["LBFGS"], *MORE], ids=str)
def test_lbfgs_is_torchs(options: dict[str, Any]) -> None:
    off, theirs, ours = compared(options)
    assert ours == theirs
    assert off <= BAR, off


@pytest.mark.parametrize("search", [None, "strong_wolfe"])
def test_what_is_made_large_is_made_small_with_its_sign_turned(search: str | None) -> None:
    """Whatever PyTorch is installed: its LBFGS has maximize since 2.15. The state is the same."""
    with settings():
        ends = []
        for maximize, loss in ((False, named_loss), (True, minus)):
            made = lbfgs(max_iter=6, line_search_fn=search, maximize=maximize)
            ends.append(jax_steps(made, FULL[:2], loss=loss)[:2])
    assert int(ends[0][1].n_iter) > 6
    assert all(jax.tree.leaves(jax.tree.map(np.array_equal, *ends)))


@pytest.mark.parametrize("wrapped", [False, True])
def test_flax_model_trains_alike_in_its_own_layout(wrapped: bool) -> None:
    """The order of the entries changes the sums' rounding alone."""
    theirs, ours = torch_steps(*torch_setup("LBFGS", max_iter=5), FULL[:3]), lbfgs(max_iter=5)
    made = functools.partial(in_torch_layout, ours) if wrapped else ours
    assert gap(theirs, made, FULL[:3]) <= BAR


def test_schedule_gives_each_steps_learning_rate() -> None:
    model, optimizer = torch_setup("LBFGS", max_iter=4)
    theirs = []
    for number, batch in enumerate(FULL[:3]):
        optimizer.param_groups[0]["lr"] = 0.5 / (number + 1)
        theirs += torch_steps(model, optimizer, batch[None])
    ours = lbfgs(lambda count: 0.5 / (count + 1), max_iter=4)
    assert gap(theirs, ours, FULL[:3], plain_parts) <= BAR


@pytest.mark.parametrize("search", [None, "strong_wolfe"])
def test_complex_parameters_are_torchs(search: str | None) -> None:
    """|A z - b|^2 of a complex and a real parameter; the closure's gradients as PyTorch's are."""
    numbers = np.random.RandomState(0)
    matrix, target = (numbers.randn(*shape, 2) @ [1, 1j] for shape in ((6, 4), (6,)))
    start = [numbers.randn(3, 2) @ [1, 1j], numbers.randn(1)]
    options: dict[str, Any] = {"max_iter": 4, "line_search_fn": search}
    theirs = [torch.nn.Parameter(torch.tensor(array)) for array in start]
    optimizer = torch.optim.LBFGS(theirs, **options)

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        both = torch.cat([theirs[0], theirs[1].to(theirs[0].dtype)])
        loss = ((torch.tensor(matrix) @ both - torch.tensor(target)).abs() ** 2).sum()
        loss.backward()
        return loss

    with settings():
        ours, twin = [jnp.asarray(array) for array in start], lbfgs(**options)

        def loss(params: Any) -> jax.Array:
            both = jnp.concatenate([params[0], params[1].astype(complex)])
            return jnp.sum(jnp.abs(matrix @ both - target) ** 2)

        def value_and_grad(params: Any) -> tuple[jax.Array, Any]:
            value, grads = jax.value_and_grad(loss)(params)
            return value, jax.tree.map(jnp.conj, grads)

        state = twin.init(ours)
        for _ in range(3):
            optimizer.step(closure)
            value, grads = value_and_grad(ours)
            updates, state = twin.update(
                grads, state, ours, value=value, value_and_grad_fn=value_and_grad
            )
            ours = optax.apply_updates(ours, updates)
            for p, q in zip(theirs, ours, strict=True):
                assert np.abs(p.detach().numpy() - q).max() <= BAR
        kept = optimizer.state[theirs[0]]
        assert (int(state.n_iter), int(state.func_evals)) == (kept["n_iter"], kept["func_evals"])


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_narrow_parameters_are_refused(dtype: str) -> None:
    with pytest.raises(InputError, match=f"lbfgs: parameter 'w' has dtype {dtype}, expected"):
        lbfgs().init({"w": jnp.ones(2, dtype)})


# what PyTorch has, and what is wrong beside it
FAULTS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "learning rate": ({}, {"lr": 1 + 1e-7}),
    "history": ({"history_size": 4}, {"history_size": 5}),
    "evaluations": ({"max_eval": 7}, {"max_eval": 8}),
    "no line search": ({"line_search_fn": "strong_wolfe"}, {}),
}


@pytest.mark.parametrize(("options", "wrong"), FAULTS.values(), ids=FAULTS)
def test_fault_is_noticed(options: dict[str, Any], wrong: dict[str, Any]) -> None:
    off, theirs, ours = compared(options, lbfgs(**wrong))
    assert ours != theirs or not off <= BAR


def test_forgotten_pair_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    module = importlib.import_module("twinstep.jax.optim._lbfgs")
    monkeypatch.setattr(module, "_CURVED", 1e9)
    off, theirs, ours = compared({"max_iter": 3})
    assert ours != theirs or not off <= BAR


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
    with pytest.raises((ValueError, RuntimeError, IndexError, UnboundLocalError, TypeError)):
        torch_steps(*torch_setup("LBFGS", **options), FULL[:1])
