"""How a fault is planted on the JAX side."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx

import twinstep.jax.devices
from faults.dials import either
from faults.pairs import Plant
from faults.plants_anywhere import Size, built, compiled, replaced
from twinstep.jax.nn import rnn
from twinstep.jax.optim._adam import AdamState

Update = Callable[..., Any]  # (the honest update, grads, state, params) -> (updates, state)


def jax_update_by(wrong: Callable[..., Any]) -> Plant:
    """Another update: wrong(the optimizer's own, the fault's size, grads, state, params)."""

    def change(size: Size, model: Any, criterion: Any, right: Any) -> Any:
        def update(grads: Any, state: Any, params: Any = None) -> Any:
            return wrong(right.update, size(), grads, state, params)

        return model, criterion, optax.GradientTransformation(right.init, update)

    return compiled(lambda size: built(functools.partial(change, size)))


def jax_update(wrong: Update) -> Plant:
    """Another update: wrong(the optimizer's own, grads, state, params) -> (updates, state)."""
    return jax_update_by(
        lambda right, size, *given: either(size, wrong(right, *given), right(*given))
    )


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

    def wrong(right: Any) -> Any:
        def make_train_step(model: Any, criterion: Any, optimizer: Any) -> Any:
            return change(functools.partial(right, model, criterion), optimizer)

        return make_train_step

    return replaced("make_train_step", wrong)


def after_jax_step(wrong: Callable[[Any, Any], Any]) -> Plant:
    """Something more after the training step: wrong(state before, state) -> state."""

    def change(size: Size, make: Any, optimizer: Any) -> Any:
        original = make(optimizer)

        def train_step(before: Any, batch: Any) -> Any:
            state, loss = original(before, batch)
            return either(size(), wrong(before, state), state), loss

        return train_step

    return compiled(lambda size: in_jax_step(functools.partial(change, size)))


def jax_grads(wrong: Callable[[Any, Any], Any]) -> Plant:
    """Other gradients, between backward pass and optimizer: wrong(those, the fault's size)."""

    def change(size: Size, make: Any, honest: Any) -> Any:
        def update(grads: Any, opt_state: Any, params: Any = None) -> Any:
            amount = size()
            return honest.update(either(amount, wrong(grads, amount), grads), opt_state, params)

        return make(optax.GradientTransformation(honest.init, update))

    return compiled(lambda size: in_jax_step(functools.partial(change, size)))


def jax_loss_by(wrong: Callable[..., jax.Array]) -> Plant:
    """Another loss: wrong(the right criterion, the fault's size, output, target)."""

    def change(size: Size, model: Any, right: Any, optimizer: Any) -> Any:
        return model, lambda *given: wrong(right, size(), *given), optimizer

    return compiled(lambda size: built(functools.partial(change, size)))


def jax_criterion(wrong: Callable[[jax.Array, jax.Array], jax.Array]) -> Plant:
    """Another loss function."""
    return jax_loss_by(lambda right, size, *given: either(size, wrong(*given), right(*given)))


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

    def one_of_both(size: Size, right: Any, **options: Any) -> optax.GradientTransformation:
        written, own = adam(**options), right(**options)

        def init(params: Any) -> Any:
            return either(size(), written.init(params), own.init(params))

        def update(*given: Any) -> Any:
            return either(size(), written.update(*given), own.update(*given))

        return optax.GradientTransformation(init, update)

    return compiled(
        lambda size: replaced("adam", lambda own: functools.partial(one_of_both, size, own))
    )


class GRUWithoutHiddenBias(rnn.GRU):
    """As flax.nnx.GRUCell has it: b_hn stands beside the reset gate's product, not in it."""

    def forward(self, input: Any, hx: Any = None) -> Any:
        """With b_hn, where the input's bias is, and no other one."""
        graph: Any = nnx.graphdef(self)
        params: Any = nnx.state(self)
        of_input, hidden = self.bias_ih_l0[...], self.bias_hh_l0[...]
        last = slice(2 * self.hidden_size, None)
        params["bias_ih_l0"].set_value(of_input.at[last].add(hidden[last]))
        params["bias_hh_l0"].set_value(hidden.at[last].set(0))
        return rnn.GRU.forward(nnx.merge(graph, params), input, hx)


jax_float32 = replaced(
    "settings", lambda right: lambda dtype, *rest: right("float32", *rest), twinstep.jax.devices
)
"""JAX as it is when nobody asks for float64."""
