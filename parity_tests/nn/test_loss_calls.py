"""The losses against torch.nn.functional's, where test_functional.py cannot compare them.

Weights that PyTorch does not derive, calls of which it warns, arrays that no eps may move; what is
NaN in a compiled step.
"""

import warnings
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from helpers import (
    functional_losses,
    functional_losses_classes,
    functional_losses_ctc,
    functional_losses_margin,
)
from helpers.kit_parity import Case, compared, differences, in_jax, in_torch
from helpers.synthetic_traces import refused
from torch.nn import functional

from twinstep.jax.nn import functional as kit

pytestmark = [pytest.mark.quick_to_compile, pytest.mark.usefixtures("x64")]

TABLES = (
    functional_losses,
    functional_losses_classes,
    functional_losses_ctc,
    functional_losses_margin,
)


def table(what: str) -> list[Any]:
    """(function, case) of a table of every module: one of each in every run, all in the slow."""
    rows = []
    for module in TABLES:
        for name, cases in getattr(module, what, {}).items():
            for i, case in enumerate(cases):
                marks = [pytest.mark.slow] if i else []
                rows.append(pytest.param(name, case, id=f"{name}-{i}", marks=marks))
    return rows


def underived(function: Callable[..., Any], stop: Callable[[Any], Any]) -> Callable[..., Any]:
    """A function whose weights have no gradient."""

    def called(*args: Any, **words: Any) -> Any:
        for weight in ("weight", "pos_weight"):
            if words.get(weight) is not None:
                words[weight] = stop(words[weight])
        return function(*args, **words)

    return called


@pytest.mark.parametrize(("name", "case"), table("WEIGHTED"))
def test_weights_that_pytorch_does_not_derive(name: str, case: Case) -> None:
    ours = underived(getattr(kit, name), jax.lax.stop_gradient)
    theirs = underived(getattr(functional, name), torch.Tensor.detach)
    assert differences(ours, theirs, case) == []


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize(("name", "case"), table("WARNED"))
def test_calls_of_which_pytorch_warns(name: str, case: Case) -> None:
    """Shapes that are broadcast, the legacy arguments, kl_div's mean."""
    assert differences(getattr(kit, name), getattr(functional, name), case) == []


@pytest.mark.parametrize(("name", "case"), table("EXACT"))
def test_calls_that_no_eps_may_move(name: str, case: Case) -> None:
    args, words = list(case.args), dict(case.kwargs)
    wanted = in_torch(getattr(functional, name), args, words)
    for jit in (False, True):
        found = in_jax(getattr(kit, name), args, words, jit)
        assert compared(found, wanted, [], [args, words], "float64", case.main) == []


@pytest.mark.parametrize("name", ["mse_loss", "l1_loss", "smooth_l1_loss", "huber_loss"])
def test_two_shapes_are_broadcast_with_a_warning(name: str) -> None:
    loss, column, row = getattr(kit, name), jnp.ones((3, 1)), jnp.zeros(3)
    with pytest.warns(UserWarning, match=rf"{name}.*\(3, 1\).*\(3,\).*\(3, 3\)"):
        assert loss(column, row, reduction="none").shape == (3, 3)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loss(row, row)
    refused(lambda: loss(row, jnp.ones(2)), name, "(3,)", "(2,)", "broadcast")


def test_the_legacy_arguments_stand_at_pytorchs_places() -> None:
    """And say the reduction without a warning, in every loss that has them."""
    x, y = jnp.array([1.0, 3.0]), jnp.array([0.0, 1.0])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert float(kit.mse_loss(x, y, False)) == 5
        assert kit.mse_loss(x, y, None, False).tolist() == [1, 4]


PROBABILITIES = jnp.array([0.5, 0.2])
IN_A_STEP: dict[str, Callable[[], Any]] = {
    "binary_cross_entropy": lambda: jax.jit(kit.binary_cross_entropy)(
        PROBABILITIES + 0.6, PROBABILITIES
    ),
    "gaussian_nll_loss": lambda: jax.jit(kit.gaussian_nll_loss)(
        PROBABILITIES, PROBABILITIES, -PROBABILITIES
    ),
    "nll_loss": lambda: jax.jit(kit.nll_loss)(jnp.ones((1, 3)), jnp.array([3])),
    "multi_margin_loss": lambda: jax.jit(kit.multi_margin_loss)(jnp.ones((1, 3)), jnp.array([-1])),
    "multilabel_margin_loss": lambda: jax.jit(kit.multilabel_margin_loss)(
        jnp.ones((1, 3)), jnp.array([[0, -2, 1]])
    ),
    "ctc_loss: label": lambda: jax.jit(kit.ctc_loss)(
        jnp.zeros((4, 1, 3)), jnp.array([[3]]), jnp.array([4]), jnp.array([1])
    ),
    "ctc_loss: length": lambda: jax.jit(kit.ctc_loss)(
        jnp.zeros((4, 1, 3)), jnp.array([[1]]), jnp.array([5]), jnp.array([1])
    ),
    "ctc_loss: sum of lengths": lambda: jax.jit(kit.ctc_loss)(
        jnp.zeros((4, 1, 3)), jnp.array([1, 2]), jnp.array([4]), jnp.array([1])
    ),
}


@pytest.mark.parametrize("what", IN_A_STEP)
def test_what_only_a_value_decides_is_nan_in_a_compiled_step(what: str) -> None:
    assert np.isnan(IN_A_STEP[what]())


def test_losses_are_mapped() -> None:
    """Under vmap each is that of its own batch; so is its gradient."""
    logs = jax.nn.log_softmax(jnp.asarray(np.random.RandomState(0).randn(4, 6, 2, 5)))
    labels = jnp.array([[1, 2], [3, 3]])

    def loss(x: jax.Array) -> jax.Array:
        return kit.ctc_loss(x, labels, (6, 5), (2, 2)) + kit.pdist(x[0]).sum()

    together, alone = jax.vmap(jax.grad(loss))(logs), [jax.grad(loss)(x) for x in logs]
    np.testing.assert_allclose(together, jnp.stack(alone), atol=1e-14)
