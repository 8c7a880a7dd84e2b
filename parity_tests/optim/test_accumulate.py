"""Gradients of several micro-batches against `.grad` that piles up, bit for bit in every dtype."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch
from helpers.synthetic_traces import refused

from twinstep.jax.optim import accumulate, adam, clip_grad_norm, sgd, zero_grad

pytestmark = [pytest.mark.quick_to_compile, pytest.mark.usefixtures("x64")]

N, BATCHES, EPOCHS = 3, 7, 3  # an epoch leaves one over
NUMBERS = np.random.RandomState(0)
CURVES = NUMBERS.uniform(0.2, 2.0, (EPOCHS, BATCHES, 4))
TOKENS = NUMBERS.randint(1, 9, (EPOCHS, BATCHES))
START = NUMBERS.randn(4)


# ------------------------------------------------------------------------------------ whole epochs


class Habit(NamedTuple):
    """What a PyTorch loop does with what an epoch leaves over, and how that is said here.

    steps: (batch of all, batch of the epoch) -> whether the optimizer steps after it
    divisor: batch of the epoch -> what its loss is divided by; tokens: the sum is, by its tokens
    zeroed: whether `zero_grad` comes as an epoch begins, too
    """

    how: dict[str, Any]
    given: tuple[str, ...] = ()
    steps: Callable[[Any, Any], Any] = lambda t, i: (i + 1) % N == 0
    divisor: Callable[[int], int] = lambda i: 1
    tokens: bool = False
    zeroed: bool = False


def or_last(t: Any, i: Any) -> Any:
    return ((i + 1) % N == 0) | (i + 1 == BATCHES)


HABITS = {
    "carried": Habit({}, steps=lambda t, i: (t + 1) % N == 0),
    "carried, counted anew": Habit({}, ("move",)),
    "thrown away": Habit({}, zeroed=True),
    "flushed": Habit({"mean": True}, ("move",), or_last, divisor=lambda i: N),
    "flushed with its own mean": Habit(
        {"mean": "own"}, ("move",), or_last, divisor=lambda i: min(N, BATCHES - i // N * N)
    ),
    "over tokens": Habit({"mean": "own"}, ("move", "weight"), or_last, tokens=True),
}
OPTIMIZERS: dict[str, tuple[Any, Any, dict[str, float]]] = {
    "SGD": (torch.optim.SGD, sgd, {"lr": 0.05, "momentum": 0.9}),
    "Adam": (torch.optim.Adam, adam, {"lr": 0.05}),
}


def torch_path(habit: Habit, name: str) -> np.ndarray:
    """(micro-batches, 4) the parameters after each."""
    kind, _, words = OPTIMIZERS[name]
    p = torch.nn.Parameter(torch.tensor(START))
    optimizer, path, tokens = kind([p], **words), [], 0
    for t in range(EPOCHS * BATCHES):
        epoch, i = divmod(t, BATCHES)
        if habit.zeroed and i == 0:
            optimizer.zero_grad()
        loss = 0.5 * (torch.tensor(CURVES[epoch, i]) * p * p).sum()
        (loss / habit.divisor(i)).backward()
        tokens += int(TOKENS[epoch, i])
        if habit.steps(t, i):
            assert p.grad is not None
            p.grad /= tokens if habit.tokens else 1
            optimizer.step()
            optimizer.zero_grad()
            tokens = 0
        path.append(p.detach().numpy().copy())
    return np.array(path)


def jax_path(habit: Habit, name: str) -> np.ndarray:
    """The same, an epoch in one compiled loop."""
    _, kind, words = OPTIMIZERS[name]
    ours = accumulate(kind(**words), N, **habit.how)

    def epoch(carry: Any, e: Any) -> Any:
        def body(carry: Any, i: Any) -> Any:
            params, state = carry
            said = {"move": habit.steps(None, i) if habit.given else None, "weight": tokens[e, i]}
            grads = jnp.asarray(CURVES)[e, i] * params
            updates, state = ours.update(grads, state, params, **{w: said[w] for w in habit.given})
            params = optax.apply_updates(params, updates)
            return (params, state), params

        params, state = carry
        started = params, zero_grad(state) if habit.zeroed else state
        return jax.lax.scan(body, started, jnp.arange(BATCHES))

    start, tokens = jnp.asarray(START), jnp.asarray(TOKENS)
    _, path = jax.lax.scan(epoch, (start, ours.init(start)), jnp.arange(EPOCHS))
    return np.asarray(path).reshape(-1, 4)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("name", HABITS)
def test_what_an_epoch_leaves_over(name: str, optimizer: str) -> None:
    path = jax_path(HABITS[name], optimizer)
    for other, habit in HABITS.items():
        expected = torch_path(habit, optimizer)
        if other == name:  # some dozens of roundings of numbers about 1
            np.testing.assert_allclose(path, expected, rtol=1e-12, atol=1e-14)
        else:
            assert not np.allclose(path, expected, rtol=1e-6)


def test_a_state_within_others_is_emptied() -> None:
    clipped = optax.chain(clip_grad_norm(1.0), accumulate(sgd(lr=1.0), 2, mean="own"))
    params = {"w": jnp.ones(2)}
    fresh = clipped.init(params)
    _, state = clipped.update({"w": jnp.full(2, 0.1)}, fresh, params)
    assert int(state[1].micro_step) == 1
    jax.tree.map(np.testing.assert_array_equal, zero_grad(state), fresh)
    refused(lambda: zero_grad(sgd(momentum=0.9).init(params)), "opt_state has no gradients")


# ------------------------------------------------------------------------------------------- dtypes

PAIRS = [  # of the parameter, of the gradient as it is computed
    *[(name, name) for name in ("float64", "float32", "bfloat16", "float16", "complex128")],
    ("bfloat16", "float32"),
    ("float16", "float32"),
    ("float32", "float64"),
    ("float64", "float32"),
    ("complex128", "float64"),
    ("complex64", "complex128"),
]
GIVEN = optax.GradientTransformation(lambda p: optax.EmptyState(), lambda g, s, p=None: (g, s))


def _draws(dtype: str, seed: int) -> np.ndarray:
    """(5, 300) of many sizes, so that sums round."""
    numbers = np.random.RandomState(seed)
    real, imaginary = numbers.randn(2, 5, 300) * 10.0 ** numbers.uniform(-2, 2, (2, 5, 300))
    return (real + 1j * imaginary if "complex" in dtype else real).astype(
        dtype if dtype not in ("bfloat16", "float16") else "float32"
    )


def summed_by_autograd(param: str, computed: str, mean: bool) -> torch.Tensor:
    """`.grad` after five `backward`, each of a gradient that is computed in another dtype."""
    p = torch.nn.Parameter(torch.zeros(300, dtype=getattr(torch, param)))
    for grad in torch.tensor(_draws(computed, 1)).to(getattr(torch, computed)):

        class Given(torch.autograd.Function):
            @staticmethod
            def forward(ctx: Any, p: torch.Tensor) -> torch.Tensor:
                return p.sum()

            @staticmethod
            def backward(ctx: Any, out: torch.Tensor, grad: torch.Tensor = grad) -> torch.Tensor:
                return grad.to(grad.dtype)

        Given.apply(p).backward(torch.ones((), dtype=p.dtype))
    assert p.grad is not None
    return p.grad / 5 if mean else p.grad


def bits(array: Any) -> np.ndarray:
    """In a dtype that has a place for all: of numbers, exactly."""
    if isinstance(array, torch.Tensor):
        wide = torch.complex128 if array.is_complex() else torch.float64
        return array.to(wide).numpy()
    return np.asarray(array, complex if jnp.iscomplexobj(array) else float)


@pytest.mark.parametrize("scan", [True, False], ids=["scan", "unrolled"])
@pytest.mark.parametrize(("param", "computed"), PAIRS, ids=lambda name: name)
def test_sums_are_those_of_autograd(param: str, computed: str, scan: bool) -> None:
    """Of the parameter's dtype, rounded each time, in one compiled program."""
    params = jnp.zeros(300, param)
    grads = jnp.asarray(_draws(computed, 1), computed)
    for mean in (False, "own"):
        ours = accumulate(GIVEN, 5, mean=mean)

        def run(grads: jax.Array, ours: Any = ours) -> jax.Array:
            state, updates = ours.init(params), jnp.zeros_like(params)
            if scan:
                _, all_updates = jax.lax.scan(
                    lambda s, g: ours.update(g, s, params)[::-1], state, grads
                )
                return all_updates[-1]
            for grad in grads:
                updates, state = ours.update(grad, state, params)
            return updates

        got = jax.jit(run)(grads)
        assert got.dtype == params.dtype
        expected = bits(summed_by_autograd(param, computed, mean == "own"))
        np.testing.assert_array_equal(bits(got), expected)


def test_a_mean_that_is_taken_first_is_rounded_first() -> None:
    """`(loss / n).backward()`, which bfloat16's 8 bits show."""
    grads = jnp.asarray(_draws("bfloat16", 1), jnp.bfloat16)
    ours, params = accumulate(GIVEN, 5, mean=True), jnp.zeros(300, jnp.bfloat16)
    state = ours.init(params)
    for grad in grads:
        updates, state = jax.jit(ours.update)(grad, state, params)
    total = torch.zeros(300, dtype=torch.bfloat16)
    for grad in torch.tensor(_draws("bfloat16", 1)).to(torch.bfloat16):
        total += grad / 5
    np.testing.assert_array_equal(bits(updates), bits(total))


def test_updates_of_another_dtype_wait_in_it() -> None:
    """optax's own may give float32 for bfloat16 parameters."""
    wider = optax.stateless(lambda g, p: jax.tree.map(lambda x: x.astype(jnp.float32), g))
    ours, params = accumulate(wider, 2), jnp.ones(2, jnp.bfloat16)
    first, state = ours.update(params, ours.init(params), params)
    second, _ = ours.update(params, state, params)
    assert first.dtype == second.dtype == jnp.float32


# ------------------------------------------------------------------------------------------ refused


@pytest.mark.parametrize("number", [0, -1, 2.5, np.float64(1.5), np.nan, np.inf, "3", None])
def test_micro_batches_that_are_no_number_of_any(number: Any) -> None:
    refused(lambda: accumulate(sgd(), number), f"micro_batches is {number!r}", "a whole number")


@pytest.mark.parametrize("number", [2, np.int32(2), np.int64(2), np.uint8(2), 2.0])
def test_every_whole_number_of_micro_batches(number: Any) -> None:
    ours, params = accumulate(sgd(lr=1.0), number), jnp.zeros(())
    state, seen = ours.init(params), []
    for _ in range(4):
        updates, state = ours.update(jnp.ones(()), state, params)
        seen.append(float(updates))
    assert seen == [0, -2, 0, -2]


def test_what_does_not_go_together() -> None:
    params = {"w": jnp.ones(2), "b": jnp.ones(())}
    ours = accumulate(sgd(), 2)
    state = ours.init(params)
    refused(lambda: accumulate(sgd(), 2, mean="all"), "mean is 'all'", "'own'")
    refused(lambda: ours.update(params, state, params, weight=2), "weight is given", "mean='own'")
    refused(lambda: ours.update({"w": jnp.ones(2)}, state, params), "grads: 'b' is missing")
    turned = jax.tree.map(lambda p: p * 1j, params)
    refused(lambda: ours.update(turned, state, params), "a gradient is complex128", "float64")
    odd = {"w": jnp.ones((1, 2)), "b": jnp.ones(())}
    refused(lambda: ours.update(odd, state, params), "grads: 'w' has shape (1, 2)", "(2,)")
