"""Averaged parameters and their learning rate against torch.optim.swa_utils."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from helpers.synthetic_traces import refused
from helpers.training import (
    BATCHES,
    arrays,
    jax_params,
    settings,
    torch_setup,
    torch_steps,
    worst,
)
from torch.optim import swa_utils

from twinstep.errors import InputError
from twinstep.jax.optim import (
    averaged,
    ema_avg,
    ema_multi_avg,
    swa_avg,
    swa_lr,
    swa_multi_avg,
    update_averaged,
)

pytestmark = pytest.mark.quick_to_compile

STEPS = BATCHES[:15]
BAR = 1e-14


def gap(options: dict[str, Any], *avg_fn: Any) -> float:
    """How far the averages are from PyTorch's, those of its own parameters after each step.

    They begin with the fourth. avg_fn: ours
    """
    model, optimizer = torch_setup("SGD", lr=0.3)
    average, theirs, ours = swa_utils.AveragedModel(model, **options), [], []
    with settings():
        update = jax.jit(lambda state, params: update_averaged(state, params, *avg_fn))
        state = averaged(jax_params())
        for number, batch in enumerate(STEPS):
            (params,) = torch_steps(model, optimizer, batch[None])
            if number >= 3:
                average.update_parameters(model)
                state = update(state, params)
            theirs.append(arrays(average.module))
            ours.append(state.params)
        assert int(state.n_averaged) == len(STEPS) - 3
        return worst(theirs, ours)


def own(a: Any, p: Any, n: Any) -> Any:
    return (a * n + p) / (n + 2)


KINDS: dict[str, tuple[dict[str, Any], Any]] = {
    "swa": ({}, ()),
    "swa by name": ({"avg_fn": swa_utils.get_swa_avg_fn()}, (swa_avg,)),
    "swa of many": ({"multi_avg_fn": swa_utils.get_swa_multi_avg_fn()}, (swa_multi_avg,)),
    "ema": ({"avg_fn": swa_utils.get_ema_avg_fn(0.9)}, (ema_avg(0.9),)),
    "slow ema": ({"avg_fn": swa_utils.get_ema_avg_fn()}, (ema_avg(),)),
    "ema of many": ({"multi_avg_fn": swa_utils.get_ema_multi_avg_fn(0.9)}, (ema_multi_avg(0.9),)),
    "slow ema of many": ({"multi_avg_fn": swa_utils.get_ema_multi_avg_fn()}, (ema_multi_avg(),)),
    "fast ema of many": (
        {"multi_avg_fn": swa_utils.get_ema_multi_avg_fn(0.25)},
        (ema_multi_avg(0.25),),
    ),
    "own": ({"avg_fn": own}, (own,)),
}


FAULTS: dict[str, tuple[dict[str, Any], Any]] = {
    "decay": ({"multi_avg_fn": swa_utils.get_ema_multi_avg_fn(0.9)}, (ema_avg(0.9 + 1e-12),)),
    "ema for swa": ({}, (ema_avg(0.9),)),
    "count off by one": ({}, (lambda a, p, n: swa_avg(a, p, n + 1),)),
}


@pytest.mark.parametrize("kind", [*KINDS, *FAULTS])
def test_average_is_torchs_and_a_fault_is_noticed(kind: str) -> None:
    options, avg_fn = (KINDS | FAULTS)[kind]
    assert (gap(options, *avg_fn) <= BAR) is (kind in KINDS)


def test_average_is_a_copy() -> None:
    with settings():
        params = jax_params()
        state = averaged(params)
        assert all(state.params[name] is not params[name] for name in params)


# ------------------------------------------------------------------------------------------- dtypes

FLOATS = ("float64", "float32", "bfloat16", "float16", "complex128", "complex64")
INTEGERS = ("int64", "int32", "int16", "int8", "uint8", "bool")
UPDATES = 8
EVERY = [(kind, dtype) for kind in KINDS if kind != "own" for dtype in (*FLOATS, *INTEGERS)]
NO_PLACE = [  # what PyTorch refuses, too
    (kind, dtype)
    for kind, dtype in EVERY
    if (kind == "swa of many" and dtype in INTEGERS) or ("ema" not in kind and dtype == "bool")
]


def draws(dtype: str) -> torch.Tensor:
    """(UPDATES, 500) of many sizes; integers that have room for their differences."""
    numbers = np.random.RandomState(len(dtype))
    if dtype == "bool":
        return torch.tensor(numbers.rand(UPDATES, 500) < 0.5)
    if dtype in INTEGERS:
        low = 0 if dtype == "uint8" else -60
        return torch.tensor(numbers.randint(low, 60, (UPDATES, 500))).to(getattr(torch, dtype))
    drawn = numbers.randn(2, UPDATES, 500) * 10.0 ** numbers.uniform(-2, 1, (2, UPDATES, 500))
    drawn = drawn[0] + 1j * drawn[1] if "complex" in dtype else drawn[0]
    return torch.tensor(drawn).to(getattr(torch, dtype))


class Holder(torch.nn.Module):
    """A model of one tensor, a buffer where it cannot be a parameter."""

    def __init__(self, tensor: torch.Tensor) -> None:
        super().__init__()
        if tensor.is_floating_point() or tensor.is_complex():
            self.held = torch.nn.Parameter(tensor.clone())
        else:
            self.register_buffer("held", tensor.clone())


def torch_averages(numbers: torch.Tensor, options: dict[str, Any]) -> Any:
    """The averages after each update, wide enough for every one."""
    model: Any = Holder(numbers[0])
    average = swa_utils.AveragedModel(model, **options, use_buffers=True)
    held: Any = average.module.held
    for tensor in numbers:
        with torch.no_grad():
            model.held.copy_(tensor)
        average.update_parameters(model)
        yield exactly(held.detach())


def exactly(array: Any) -> np.ndarray:
    """The same numbers in a dtype of NumPy's."""
    if isinstance(array, torch.Tensor):
        array = array.float() if array.dtype in (torch.bfloat16, torch.float16) else array
        return array.numpy().copy()
    return np.asarray(array, np.float32 if array.dtype in (jnp.bfloat16, jnp.float16) else None)


def in_jax(tensor: torch.Tensor) -> jax.Array:
    return jnp.asarray(exactly(tensor), str(tensor.dtype).removeprefix("torch."))


@pytest.mark.parametrize("compiled", ["each", "together"])
@pytest.mark.parametrize(("kind", "dtype"), sorted({*EVERY} - {*NO_PLACE}))
def test_every_dtype_is_averaged_as_torch_does(kind: str, dtype: str, compiled: str) -> None:
    """Narrow floats and integers to the bit, in one program of all updates too."""
    options, avg_fn = KINDS[kind]
    numbers = draws(dtype)
    theirs = np.array(list(torch_averages(numbers, options)))
    with settings():
        given = in_jax(numbers)

        def run(given: jax.Array) -> list[jax.Array]:
            state, seen = averaged(given[0]), []
            for params in given:
                state = update(state, params)
                seen.append(state.params)
            return seen

        def update(state: Any, params: jax.Array) -> Any:
            return update_averaged(state, params, *avg_fn)

        update = jax.jit(update) if compiled == "each" else update
        seen = (jax.jit(run) if compiled == "together" else run)(given)
        assert {average.dtype for average in seen} == {given.dtype}
        ours = np.array([exactly(average) for average in seen])
    largest = np.max(np.abs(theirs), axis=0)
    if dtype in ("float64", "float32", "complex128", "complex64"):
        # a product and its sum may be rounded as one, of the largest that went in
        assert np.all(np.abs(ours - theirs) <= 4 * UPDATES * np.finfo(ours.dtype).eps * largest)
    elif "of many" in kind and dtype in FLOATS:
        # torch.lerp fuses them where it computes in vectors: half of float32's last bit, which
        # decides one in 2**16 of bfloat16's, and one in 2**13 of float16's
        assert np.mean(ours != theirs) <= 1 / 1000
        assert np.all(np.abs(ours - theirs) <= 2 * float(jnp.finfo(dtype).eps) * largest)
    else:
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize(("kind", "dtype"), NO_PLACE)
def test_what_torch_cannot_average_is_refused(kind: str, dtype: str) -> None:
    options, avg_fn = KINDS[kind]
    numbers = draws(dtype)
    with settings():
        state = averaged({"a": {"b": in_jax(numbers[0])}})
        refused(lambda: update_averaged(state, state.params, *avg_fn), "'a.b'", f"given {dtype}")
    with pytest.raises(RuntimeError):
        list(torch_averages(numbers, options))


def test_what_is_no_number_is_refused() -> None:
    for odd in (jax.random.key(0), jnp.zeros(2, jnp.float8_e4m3fn), jnp.zeros(2, jnp.uint32)):
        state = averaged({"odd": odd})
        line = refused(partial(update_averaged, state, state.params), f"'odd' is {odd.dtype}")
        assert "expected one of float64" in line


def test_a_first_update_that_is_averaged_too() -> None:
    """timm's ModelEma: `ema.copy_(decay * ema + (1 - decay) * model)` from the first on."""
    numbers = draws("float64")
    theirs = numbers[0]
    with settings():
        state = averaged(in_jax(numbers[0]), n_averaged=1)
        for tensor in numbers[1:]:
            theirs = 0.9 * theirs + (1 - 0.9) * tensor
            state = update_averaged(state, in_jax(tensor), ema_avg(0.9))
        np.testing.assert_allclose(state.params, theirs, rtol=1e-14, atol=1e-15)
        # and of equal weights, the first among them
        state = averaged(in_jax(numbers[0]), n_averaged=1)
        for tensor in numbers[1:]:
            state = update_averaged(state, in_jax(tensor))
        np.testing.assert_allclose(state.params, numbers.mean(0), rtol=1e-13, atol=1e-15)
    odd: Any
    for odd in (-1, 0.5, "1"):
        refused(partial(averaged, {}, odd), f"n_averaged is {odd!r}")


def test_a_function_of_the_count_is_asked_in_the_widest_integer() -> None:
    seen = []

    def keep(average: jax.Array, current: jax.Array, n_averaged: jax.Array) -> jax.Array:
        seen.append(n_averaged.dtype)
        return average + (current - average) * (n_averaged / 3)

    with settings():
        state = averaged(jnp.zeros((), jnp.float32), n_averaged=1)
        state = jax.jit(lambda s: update_averaged(s, jnp.ones((), jnp.float32), keep))(state)
        assert seen == [jnp.dtype("int64")]
        assert state.params.dtype == jnp.float32


def test_trees_are_paired_by_the_paths_of_their_leaves() -> None:
    state = averaged({str(i): jnp.full(2, i) for i in range(11)})
    again = update_averaged(state, {i: jnp.full(2, i) for i in reversed(range(11))})
    jax.tree.map(np.testing.assert_array_equal, again.params, state.params)
    refused(lambda: update_averaged(state, {"0": jnp.ones(2)}), "params: '1' is missing")
    odd = state.params | {"3": jnp.ones((1, 2))}
    refused(lambda: update_averaged(state, odd), "params: '3' has shape (1, 2), expected (2,)")


@pytest.mark.parametrize("decay", [-0.1, 1.1])
@pytest.mark.parametrize("make", [ema_avg, ema_multi_avg])
def test_decay_outside_its_range_is_refused(make: Any, decay: float) -> None:
    refused(lambda: make(decay), make.__name__, f"decay is {decay}, expected a number from 0 to 1")
    with pytest.raises(ValueError, match="Invalid decay"):
        swa_utils.get_ema_multi_avg_fn(decay)


# -------------------------------------------------------------------------------------------- SWALR


def torch_rates(start: int, **options: Any) -> list[float]:
    """SWALR's rates over 14 epochs, an exponential schedule before it from `start` on."""
    _, optimizer = torch_setup("SGD", lr=0.5)
    before = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9)
    after, rates = None, []
    for epoch in range(14):
        if epoch == start:
            after = swa_utils.SWALR(optimizer, **options)
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        (before if after is None else after).step()
    return rates


@pytest.mark.parametrize("start", [0, 4])
@pytest.mark.parametrize(
    "options",
    [
        {"swa_lr": 0.05},
        {"swa_lr": 0.9, "anneal_epochs": 5, "anneal_strategy": "linear"},
        {"swa_lr": 0.05, "anneal_epochs": 1},
        {"swa_lr": 0.05, "anneal_epochs": 0},
    ],
    ids=str,
)
def test_swa_lr_is_torchs(options: dict[str, Any], start: int) -> None:
    theirs = torch_rates(start, **options)
    with settings():
        made = [
            swa_lr(lambda count: 0.5 * 0.9**count, **options, start=start + late) for late in (0, 1)
        ]
        ours, late = ([float(rate(jnp.asarray(epoch))) for epoch in range(14)] for rate in made)
    np.testing.assert_allclose(ours, theirs, rtol=1e-13)
    assert not np.allclose(late, theirs, rtol=1e-13)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"anneal_epochs": -1}, "anneal_epochs is -1"),
        ({"anneal_epochs": 1.5}, "anneal_epochs is 1.5"),
        ({"anneal_strategy": "steps"}, "anneal_strategy is 'steps'"),
    ],
)
def test_bad_swa_lr_is_refused(options: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError, match=says):
        swa_lr(0.1, 0.05, **options)
    _, optimizer = torch_setup("SGD")
    with pytest.raises(ValueError, match="anneal"):
        swa_utils.SWALR(optimizer, 0.05, **options)
