"""twinstep.jax.optim against torch.optim, free-running: every option, every step, every state.

The options are those of PyTorch's own optimizer tests, and each once more at a value that shows it.
LBFGS, whose iterations amplify rounding, is in test_lbfgs.py.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers.optimizer_runs import (
    BAR,
    NAMES,
    OPTIM_DB,
    PROBES,
    STEPS,
    Options,
    Run,
    default_dtype,
    sharpest,
    torch_run,
    twin_run,
    worst,
)
from helpers.training import PARAMS, off

from twinstep.jax.optim import muon
from twinstep.jax.optim._from_torch import FLAGS, TORCH, from_torch, torch_options
from twinstep.jax.optim.lr_scheduler import lambda_lr

pytestmark = pytest.mark.quick_to_compile

CASES = {
    f"{name} {dict(options)}": (name, options)
    for name in NAMES
    for options in [*OPTIM_DB[name], *PROBES[name]]
}
HAVE_FOREACH = [name for name in NAMES if "foreach" in torch_options(name)]
HAVE_FUSED = ["Adagrad", "Adam", "AdamW", "SGD"]
IMPLEMENTATIONS = [
    *((name, {"foreach": True}) for name in HAVE_FOREACH),
    *((name, {"fused": True}) for name in HAVE_FUSED),
]


@functools.cache
def twin_with_defaults(name: str) -> Run:
    return twin_run(name, {}, rounded=False)


@pytest.mark.parametrize(("name", "options"), CASES.values(), ids=CASES.keys())
def test_parameters_and_state_are_torchs_after_every_step(name: str, options: Options) -> None:
    ours = twin_run(name, options, rounded=False) if options else twin_with_defaults(name)
    assert worst(torch_run(name, options, rounded=False), ours) <= BAR


def test_nothing_is_left_out() -> None:
    assert {*NAMES, "LBFGS"} == set(TORCH) == set(OPTIM_DB)
    for name in NAMES:
        shown = {option for options in [*OPTIM_DB[name], *PROBES[name]] for option in options}
        assert shown == set(torch_options(name)) - {*FLAGS}, name


def test_a_comparison_sees_what_is_missing_wrong_or_not_a_number() -> None:
    theirs = {"a": np.ones((3, 2)), "b": np.zeros((3, 2))}
    assert worst(theirs, theirs) == 0
    with pytest.raises(AssertionError):
        worst(theirs, {"a": np.ones((3, 2))})
    with pytest.raises(AssertionError):
        worst(theirs, theirs | {"a": np.ones((3, 2), np.float32)})
    with pytest.raises(AssertionError):
        worst(theirs, theirs | {"a": np.ones((3, 1))})
    assert worst(theirs, theirs | {"a": np.array([[1, 1], [1, 1 + 1e-6], [1, 1]])}) >= 9e-7
    assert worst(theirs, theirs | {"a": np.full((3, 2), np.nan)}) == np.inf
    assert worst(theirs, theirs | {"b": np.full((3, 2), 1e-300)}) == np.inf
    # of the size that a tensor has had so far, not of what it may shrink to
    assert off(np.array([[1.0], [1e-3]]), np.array([[1.0], [2e-3]]), "") == 1e-3


@pytest.mark.parametrize("options", [*OPTIM_DB["Muon"], *PROBES["Muon"]], ids=str)
def test_muon_rounds_its_first_update_as_torch_does(options: Options) -> None:
    theirs = torch_run("Muon", options, steps=1)
    assert of_first_update(theirs, twin_run("Muon", options, steps=1)) <= BAR


def test_muons_newest_rule_does_not_clamp() -> None:
    """sqrt(rows / columns) for every matrix, where the first rule has 1 for a wide one."""

    def updates(rule: str) -> Any:
        twin = muon(weight_decay=0.0, adjust_lr_fn=rule)
        return twin.update(matrices, twin.init(matrices), matrices)[0]

    matrices = {"wide": jnp.ones((2, 8)), "tall": jnp.ones((8, 2))}
    ours, first = updates("spectral_unclamped"), updates("original")
    for name, share in (("wide", 0.5), ("tall", 1.0)):
        assert jnp.allclose(ours[name], share * first[name], rtol=1e-3), name


def test_muon_without_rounding_is_off_from_the_first_update_on() -> None:
    exact = twin_run("Muon", {}, rounded=False, steps=1)
    assert of_first_update(torch_run("Muon", {}, steps=1), exact) >= 1e-4


def of_first_update(theirs: Run, ours: Run) -> float:
    """How far the first step's parameters are apart, as a share of what the step changed."""
    return max(
        np.max(np.abs(ours[key] - theirs[key])) / np.max(np.abs(theirs[key] - start))
        for key, start in PARAMS.items()
        if key in theirs
    )


@pytest.mark.parametrize("name", NAMES)
def test_learning_rate_may_be_a_schedule(name: str) -> None:
    def factor(count: Any) -> Any:
        return 1 / (1 + 0.05 * count) + 0.2 * (count % 3)

    options = {**sharpest(name), "lr": sharpest(name).get("lr", 0.01)}
    theirs = torch_run(name, options, factor=factor, rounded=False)
    options["lr"] = lambda_lr(options["lr"], factor)
    assert worst(theirs, twin_run(name, options, rounded=False)) <= BAR


@pytest.mark.parametrize(("name", "options"), IMPLEMENTATIONS, ids=str)
def test_torchs_other_implementations_compute_the_same(name: str, options: Options) -> None:
    assert worst(torch_run(name, options), twin_with_defaults(name)) <= BAR


def small(name: str, options: Options) -> tuple[Callable[..., Any], Any, Any]:
    """(a step of a twin as a function of parameters and state, the initial ones)."""
    twin = optax.with_extra_args_support(from_torch(name, **options))
    params, rows = {"w": jnp.ones((3, 2))}, {"w": jnp.ones(3, bool)}

    def step(params: Any, state: Any) -> tuple[Any, Any]:
        updates, state = twin.update(params, state, params, touched=rows)
        return optax.apply_updates(params, updates), state

    return step, params, twin.init(params)


@pytest.mark.parametrize("name", NAMES)
def test_implementation_flags_change_nothing(name: str) -> None:
    def program(**flags: Any) -> str:
        step, params, state = small(name, flags)
        return str(jax.make_jaxpr(step)(params, state))

    for flag in set(FLAGS) & set(torch_options(name)):
        for value in (True, False):
            assert program(**{flag: value}) == program()


@pytest.mark.parametrize("name", NAMES)
def test_second_step_is_not_compiled_again(name: str) -> None:
    with default_dtype("float64"):
        step, params, state = small(name, sharpest(name))
        compiled: Any = jax.jit(step)
        for _ in range(3):
            params, state = compiled(params, state)
        assert compiled._cache_size() == 1


@pytest.mark.parametrize("name", ["Adam", "AdamW", "Adafactor", "NAdam", "RAdam", "SGD"])
def test_float32(name: str) -> None:
    options = sharpest(name)
    theirs = torch_run(name, options, dtype="float32")
    ours = twin_run(name, options, dtype="float32")
    assert {array.dtype for array in theirs.values() if array.ndim > 1} == {np.dtype("float32")}
    assert 0 < worst(theirs, ours) <= 1e-4


def test_runs_are_as_long_as_they_say() -> None:
    run = twin_with_defaults("SGD")
    assert {len(array) for array in run.values()} == {STEPS}
