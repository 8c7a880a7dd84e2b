"""How a fault is planted on the JAX side."""

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import optax
import pytest

import twinstep.jax.devices
from faults import dials
from faults.dials import either
from faults.pairs import Plant
from faults.plants_anywhere import compiled
from twinstep import Spec
from twinstep.jax.nn import layers
from twinstep.jax.optim._adam import AdamState

Update = Callable[[Any, Any, Any, Any], Any]  # (the honest update, grads, state, params)


def jax_update(wrong: Update) -> Plant:
    """Another update: wrong(the optimizer's own, grads, state, params) -> (updates, state)."""

    def plant(patch: pytest.MonkeyPatch, example: Any) -> None:
        build, size = example.build, dials.current()

        def wrong_build(problem: Spec) -> Any:
            model, criterion, optimizer = build(problem)

            def update(grads: Any, opt_state: Any, params: Any = None) -> Any:
                right = optimizer.update(grads, opt_state, params)
                return either(size(), wrong(optimizer.update, grads, opt_state, params), right)

            return model, criterion, optax.GradientTransformation(optimizer.init, update)

        patch.setattr(example, "build", wrong_build)

    return compiled(plant)


def updates_times(factor: Callable[[Any], Any]) -> Update:
    """Updates times a factor that depends on the optimizer's state before."""

    def update(honest: Any, grads: Any, state: Any, params: Any) -> Any:
        updates, after = honest(grads, state, params)
        return jax.tree.map(lambda u: u * factor(state), updates), after

    return update


def no_bias_update(honest: Any, grads: Any, state: Any, params: Any) -> Any:
    """The bias stays where it is."""
    updates, after = honest(grads, state, params)
    return updates | {"bias": jnp.zeros_like(updates["bias"])}, after


def clipped_update(honest: Any, grads: Any, state: Any, params: Any) -> Any:
    """The optimizer clips what it is given: the gradients are right, the update is not."""
    norm = jnp.sqrt(sum(jnp.sum(jnp.square(g)) for g in jax.tree.leaves(grads)))
    return honest(jax.tree.map(lambda g: g / jnp.maximum(norm, 1), grads), state, params)


def decayed_update(honest: Any, grads: Any, state: Any, params: Any) -> Any:
    """Weight decay that nobody asked for."""
    return honest(jax.tree.map(lambda g, p: g + 1e-6 * p, grads, params), state, params)


def restarted_update(honest: Any, grads: Any, state: AdamState, params: Any) -> Any:
    """Adam's state is lost before the fifth update."""
    lost = jax.tree.map(lambda leaf: jnp.where(state.step == 4, 0, leaf), state)
    return honest(grads, lost, params)


def in_jax_step(change: Callable[[Any, Any], Callable[[Any, Any], Any]]) -> Plant:
    """Another step: change(the example's own with any optimizer, the optimizer) -> a step."""

    def plant(patch: pytest.MonkeyPatch, example: Any) -> None:
        original = example.make_train_step

        def make_train_step(model: Any, criterion: Any, optimizer: Any) -> Any:
            return change(functools.partial(original, model, criterion), optimizer)

        patch.setattr(example, "make_train_step", make_train_step)

    return plant


def after_jax_step(wrong: Callable[[Any, Any], Any]) -> Plant:
    """Something more after the training step: wrong(state before, state) -> state."""

    def plant(patch: pytest.MonkeyPatch, example: Any) -> None:
        size = dials.current()

        def change(make: Any, optimizer: Any) -> Any:
            original = make(optimizer)

            def train_step(before: Any, batch: Any) -> Any:
                state, loss = original(before, batch)
                return either(size(), wrong(before, state), state), loss

            return train_step

        in_jax_step(change)(patch, example)

    return compiled(plant)


def jax_grads(wrong: Callable[[Any], Any]) -> Plant:
    """Other gradients, between the backward pass and the optimizer."""

    def plant(patch: pytest.MonkeyPatch, example: Any) -> None:
        size = dials.current()

        def change(make: Any, honest: Any) -> Any:
            def update(grads: Any, opt_state: Any, params: Any = None) -> Any:
                return honest.update(either(size(), wrong(grads), grads), opt_state, params)

            return make(optax.GradientTransformation(honest.init, update))

        in_jax_step(change)(patch, example)

    return compiled(plant)


def jax_criterion(wrong: Callable[[jax.Array, jax.Array], jax.Array]) -> Plant:
    """Another loss function."""
    return jax_loss_by(lambda right, size, *given: either(size, wrong(*given), right(*given)))


def jax_loss_by(wrong: Callable[..., jax.Array]) -> Plant:
    """Another loss: wrong(the right criterion, the fault's size, output, target)."""

    def plant(patch: pytest.MonkeyPatch, example: Any) -> None:
        build, size = example.build, dials.current()

        def wrong_build(problem: Spec) -> Any:
            model, right, optimizer = build(problem)
            return model, lambda *given: wrong(right, size(), *given), optimizer

        patch.setattr(example, "build", wrong_build)

    return compiled(plant)


def jax_adam(
    *,
    inside: bool = False,
    corrected: Callable[[float, jax.Array], Any] = lambda beta, step: 1 - beta**step,
    first_step: int = 0,
    first_square: float = 0.0,
) -> Plant:
    """The example's Adam, written out; without arguments it is right, but for rounding.

    inside: eps stands in the root; corrected: what the moments are divided by, after `step` updates
    first_step, first_square: the state before the first update
    """

    def adam(lr: float, betas: tuple[float, float], eps: float) -> optax.GradientTransformation:
        def init(params: Any) -> AdamState:
            squares = jax.tree.map(lambda p: jnp.full_like(p, first_square), params)
            zeros = jax.tree.map(jnp.zeros_like, params)
            return AdamState(jnp.asarray(first_step, jnp.int32), zeros, squares)

        def update(grads: Any, state: AdamState, params: Any = None) -> Any:
            step = state.step + 1
            m = jax.tree.map(lambda m, g: betas[0] * m + (1 - betas[0]) * g, state.exp_avg, grads)
            v = jax.tree.map(
                lambda v, g: betas[1] * v + (1 - betas[1]) * g * g, state.exp_avg_sq, grads
            )

            def move(m: jax.Array, v: jax.Array) -> jax.Array:
                v = v / corrected(betas[1], step)
                root = jnp.sqrt(v + eps) if inside else jnp.sqrt(v) + eps
                return -lr * m / corrected(betas[0], step) / root

            return jax.tree.map(move, m, v), AdamState(step, m, v)

        return optax.GradientTransformation(init, update)

    def plant(patch: pytest.MonkeyPatch, example: Any) -> None:
        right, size = example.adam, dials.current()

        def one_of_both(**options: Any) -> optax.GradientTransformation:
            written, own = adam(**options), right(**options)

            def init(params: Any) -> Any:
                return either(size(), written.init(params), own.init(params))

            def update(*given: Any) -> Any:
                return either(size(), written.update(*given), own.update(*given))

            return optax.GradientTransformation(init, update)

        patch.setattr(example, "adam", one_of_both)

    return compiled(plant)


class GRUWithoutHiddenBias(layers.GRU):
    """As flax.nnx.GRUCell has it: b_hn stands beside the reset gate's product, not in it."""

    def __call__(self, x: jax.Array, h0: jax.Array) -> tuple[jax.Array, jax.Array]:
        assert self.hidden.bias is not None
        b_hn = jnp.split(self.hidden.bias[...], 3)[2]

        def cell(h: jax.Array, i: jax.Array) -> jax.Array:
            i_r, i_z, i_n = jnp.split(i, 3, axis=-1)
            h_r, h_z, h_n = jnp.split(self.hidden(h), 3, axis=-1)
            r, z = jax.nn.sigmoid(i_r + h_r), jax.nn.sigmoid(i_z + h_z)
            n = jnp.tanh(i_n + r * (h_n - b_hn) + b_hn)
            return (1 - z) * n + z * h

        return layers._over_time(cell, self.input(x), h0)


def jax_float32(patch: pytest.MonkeyPatch, example: Any) -> None:
    """JAX as it is when nobody asks for float64."""

    @contextlib.contextmanager
    def settings(dtype: str, device: jax.Device, precision: str) -> Iterator[None]:
        with jax.enable_x64(False), jax.default_device(device):
            yield

    patch.setattr(twinstep.jax.devices, "settings", settings)
