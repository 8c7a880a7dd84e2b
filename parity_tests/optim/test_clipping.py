"""Gradient clipping and accumulation against PyTorch's, gradients and whole trainings."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch
from helpers.optimizer_pairs import to_jax
from helpers.training import (
    BATCHES,
    arrays,
    gap,
    plain_parts,
    settings,
    torch_loss,
    torch_setup,
    torch_steps,
    worst,
)
from jax.experimental import checkify
from torch.nn.utils import clip_grad_norm_, clip_grad_value_

from twinstep.errors import InputError
from twinstep.jax.optim import accumulate, clip_grad_norm, clip_grad_value, sgd, total_norm

pytestmark = pytest.mark.quick_to_compile

BAR = 1e-13
STEPS = BATCHES[:12]
SHAPES = [(3, 4), (5,), (), (2, 1, 3)]
ORDERS = [2.0, 1.0, 3.0, 0.5, 0.0, -1.0, math.inf, -math.inf, "inf"]
LIMITS = [1.0, 1e-3, 1e9, 0.0, -1.0, math.inf]


def gradients(scale: float = 1.0) -> list[np.ndarray]:
    numbers = np.random.RandomState(3)
    made = [np.asarray(scale * numbers.randn(*shape)) for shape in SHAPES]
    made[1][2] = 0.0
    return made


def by_torch(clip: Any, arrays: list[np.ndarray]) -> tuple[list[np.ndarray], Any]:
    parameters = [torch.nn.Parameter(torch.zeros(a.shape, dtype=torch.float64)) for a in arrays]
    for parameter, array in zip(parameters, arrays, strict=True):
        parameter.grad = torch.tensor(array)
    result = clip(parameters)
    return [p.grad.numpy() for p in parameters if p.grad is not None], result


def by_us(optimizer: optax.GradientTransformation, arrays: list[np.ndarray]) -> list[Any]:
    grads = [jnp.asarray(array) for array in arrays]
    return optimizer.update(grads, optimizer.init(grads))[0]


def apart(theirs: list[np.ndarray], ours: list[Any]) -> float:
    return worst([dict(enumerate(theirs))], [dict(enumerate(ours))])


@pytest.mark.parametrize("order", ORDERS, ids=str)
def test_clip_grad_norm_is_torchs(order: Any) -> None:
    for limit in LIMITS:
        for scale in (1.0, 1e-4):
            arrays = gradients(scale)
            theirs, norm = by_torch(lambda ps, m=limit: clip_grad_norm_(ps, m, order), arrays)
            with settings():
                ours = by_us(clip_grad_norm(limit, order), arrays)
                ours_norm = total_norm([jnp.asarray(array) for array in arrays], order)
            np.testing.assert_allclose(ours_norm, norm.numpy(), rtol=BAR)
            assert apart(theirs, ours) <= BAR, (limit, scale)


def test_norm_at_the_limit_is_clipped_all_the_same() -> None:
    """The 1e-6 beside the norm, which optax has not."""
    arrays = [np.array([3.0, 4.0])]
    theirs, _ = by_torch(lambda ps: clip_grad_norm_(ps, 5.0), arrays)
    with settings():
        assert apart(theirs, by_us(clip_grad_norm(5.0), arrays)) <= BAR
        assert apart(theirs, by_us(optax.clip_by_global_norm(5.0), arrays)) > 1e-8


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_what_is_not_finite_goes_where_it_goes_in_torch(bad: float) -> None:
    arrays = [np.array([1.0, bad]), np.array([2.0])]
    for clip, ours in (
        (lambda ps: clip_grad_norm_(ps, 1.0), clip_grad_norm(1.0)),
        (lambda ps: clip_grad_value_(ps, 1.5), clip_grad_value(1.5)),
    ):
        theirs, _ = by_torch(clip, arrays)
        with settings():
            for a, b in zip(theirs, by_us(ours, arrays), strict=True):
                np.testing.assert_array_equal(a, b)


def test_error_if_nonfinite_is_an_error() -> None:
    arrays = [np.array([1.0, math.nan])]
    with pytest.raises(RuntimeError, match="non-finite"):
        by_torch(lambda ps: clip_grad_norm_(ps, 1.0, error_if_nonfinite=True), arrays)
    with settings():
        clip = clip_grad_norm(1.0, error_if_nonfinite=True)
        checked = jax.jit(checkify.checkify(lambda grads: clip.update(grads, clip.init(grads))[0]))
        error, _ = checked([jnp.asarray(array) for array in arrays])
        with pytest.raises(Exception, match="norm of the gradients is not finite"):
            error.throw()
        error, _ = checked([jnp.ones(2)])
        error.throw()


@pytest.mark.parametrize("value", [0.5, 0.0, math.inf, -1.0, 3])
def test_clip_grad_value_is_torchs_bit_for_bit(value: float) -> None:
    theirs, _ = by_torch(lambda ps: clip_grad_value_(ps, value), gradients())
    with settings():
        for a, b in zip(theirs, by_us(clip_grad_value(value), gradients()), strict=True):
            np.testing.assert_array_equal(a, b)


def test_no_gradients_have_norm_zero() -> None:
    assert float(total_norm([])) == 0.0


@pytest.mark.filterwarnings("ignore:Casting complex values to real")  # PyTorch's own, for 0
@pytest.mark.parametrize("dtype", ["complex128", "bfloat16", "float16"])
@pytest.mark.parametrize("order", ORDERS, ids=str)
def test_clip_grad_norm_in_other_dtypes(order: Any, dtype: str) -> None:
    """Narrow ones to an ulp of their own: a sum may round to the value beside PyTorch's."""
    narrow = dtype != "complex128"
    bar = float(jnp.finfo(dtype).eps) if narrow else BAR
    parameters = []
    for real, imaginary in zip(gradients(), gradients(2.0), strict=True):
        grad = torch.tensor(real if narrow else real + 1j * imaginary).to(getattr(torch, dtype))
        parameters.append(torch.nn.Parameter(torch.zeros_like(grad)))
        parameters[-1].grad = grad
    with settings():
        grads = [to_jax(p.grad) for p in parameters if p.grad is not None]
        norm = clip_grad_norm_(parameters, 0.7, order)
        theirs = [norm, *(p.grad for p in parameters if p.grad is not None)]
        clip = clip_grad_norm(0.7, order)
        update = jax.jit(lambda grads: clip.update(grads, clip.init(grads))[0])
        for tensor, ours in zip(theirs, [total_norm(grads, order), *update(grads)], strict=True):
            right = to_jax(tensor)
            assert right.dtype == ours.dtype
            off, size = (np.abs(np.complex128(a)) for a in (right - ours, right))
            assert np.all(off <= bar * size)


def test_complex_gradients_have_no_largest_value() -> None:
    with pytest.raises(InputError, match="clip_grad_value: parameter '0' has dtype complex64"):
        by_us(clip_grad_value(1.0), [np.ones(2, "complex64")])
    parameter = torch.nn.Parameter(torch.ones(2, dtype=torch.complex64))
    parameter.grad = torch.ones_like(parameter)
    with pytest.raises(RuntimeError, match="complex"):
        clip_grad_value_(parameter, 1.0)


def test_the_limit_may_be_a_schedule() -> None:
    limits = [0.5, 2.0, 0.25]
    with settings():
        clip = clip_grad_norm(lambda count: jnp.asarray(limits)[count])
        state, grads = clip.init([]), [jnp.asarray(array) for array in gradients()]
        for limit in limits:
            theirs, _ = by_torch(lambda ps, m=limit: clip_grad_norm_(ps, m), gradients())
            ours, state = jax.jit(clip.update)(grads, state)
            assert apart(theirs, ours) <= BAR


@pytest.mark.parametrize("bad", ["much", None])
def test_what_is_no_number_is_refused(bad: Any) -> None:
    for ours, theirs, name in (
        (lambda: clip_grad_norm(bad), lambda ps: clip_grad_norm_(ps, bad), "max_norm"),
        (lambda: clip_grad_norm(1.0, bad), lambda ps: clip_grad_norm_(ps, 1.0, bad), "norm_type"),
        (lambda: clip_grad_value(bad), lambda ps: clip_grad_value_(ps, bad), "clip_value"),
    ):
        with pytest.raises(InputError, match=f"{name} is {bad!r}, expected a number"):
            ours()
        with pytest.raises((TypeError, ValueError)):
            by_torch(theirs, gradients())


def test_training_with_clipped_gradients() -> None:
    theirs = torch_steps(
        *torch_setup("SGD", lr=0.1, momentum=0.9),
        STEPS,
        change=lambda model: clip_grad_norm_(model.parameters(), 0.4),
    )
    for limit, same in ((0.4, True), (0.4 + 1e-9, False)):
        ours = optax.chain(clip_grad_norm(limit), sgd(lr=0.1, momentum=0.9))
        assert (gap(theirs, ours, STEPS, plain_parts) <= 1e-12) is same


@pytest.mark.parametrize("mean", [True, False])
def test_accumulation_is_torchs(mean: bool) -> None:
    """Three micro-batches to an update."""
    model, optimizer = torch_setup("SGD", lr=0.05, momentum=0.9)
    theirs = []
    for number, batch in enumerate(STEPS):
        loss = torch_loss(model, batch)
        (loss / 3 if mean else loss).backward()
        if number % 3 == 2:
            optimizer.step()
            optimizer.zero_grad()
        theirs.append(arrays(model))
    ours = sgd(lr=0.05, momentum=0.9)
    sums_in_float32 = optax.MultiSteps(ours, 3, use_grad_mean=mean).gradient_transformation()
    for made, same in (
        (accumulate(ours, 3, mean=mean), True),
        (accumulate(ours, 3, mean=not mean), False),
        (sums_in_float32, False),
    ):
        assert (gap(theirs, made, STEPS, plain_parts) <= 1e-12) is same


def test_accumulating_nothing_is_refused() -> None:
    with pytest.raises(InputError, match="micro_batches is 0, expected 1 or more"):
        accumulate(sgd(), 0)
