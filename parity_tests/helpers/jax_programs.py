"""Small JAX programs, each with a trait of real ones, which know nothing of being recorded."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from flax.training.train_state import TrainState

Tree = Any
STEPS = 6
X = jnp.asarray(np.random.RandomState(0).randn(STEPS, 4, 3), jnp.float32)
Y = jnp.sum(X, axis=-1, keepdims=True) ** 2


class Left(NamedTuple):
    """What a program has left: its parameters, and what each update's loss was, where it knows."""

    params: Tree
    losses: list[Any]


def start() -> Tree:
    rng = np.random.RandomState(1)
    return {
        "in": {"w": jnp.asarray(rng.randn(3, 4), jnp.float32), "b": jnp.zeros(4)},
        "out": {"w": jnp.asarray(rng.randn(4, 1), jnp.float32)},
    }


def rule() -> optax.GradientTransformation:
    return optax.adamw(0.05)


def loss_fn(params: Tree, x: jax.Array, y: jax.Array) -> jax.Array:
    hidden = jnp.tanh(x @ params["in"]["w"] + params["in"]["b"])
    return jnp.mean((hidden @ params["out"]["w"] - y) ** 2)


def jitted_step() -> Left:
    """One compiled function makes the step, whose memory is donated."""
    tx = optax.chain(optax.clip_by_global_norm(0.5), rule())

    @partial(jax.jit, donate_argnums=(0, 1))
    def train_step(params: Tree, opt_state: Any, x: jax.Array, y: jax.Array) -> Any:
        loss, grads = jax.value_and_grad(loss_fn)(params, x, y)
        updates, opt_state = tx.update(grads, opt_state, params)
        return optax.apply_updates(params, updates), opt_state, loss

    params, losses = start(), []
    opt_state = tx.init(params)
    for x, y in zip(X, Y, strict=True):
        params, opt_state, loss = train_step(params, opt_state, x, y)
        losses.append(loss)
    return Left(params, losses)


def train_state() -> Left:
    """Flax's TrainState, its step a method, the loss that of an inner compiled function."""

    class Net(nn.Module):
        @nn.compact
        def __call__(self, x: jax.Array) -> Any:
            return nn.Dense(1)(jnp.tanh(nn.Dense(4)(x)))

    class Trainer:
        def __init__(self) -> None:
            self.net = Net()

        @partial(jax.jit, static_argnums=0)
        def gradients(self, params: Tree, batch: dict[str, jax.Array]) -> Any:
            def loss(params: Tree) -> Any:
                out: Any = self.net.apply({"params": params}, batch["x"])
                return jnp.mean((out - batch["y"]) ** 2), out

            return jax.value_and_grad(loss, has_aux=True)(params)

        @partial(jax.jit, static_argnums=(0,))
        def step(self, state: TrainState, batch: dict[str, jax.Array]) -> Any:
            (loss, _), grads = self.gradients(state.params, batch)
            return state.apply_gradients(grads=grads), loss

    trainer = Trainer()
    params = trainer.net.init(jax.random.key(0), X[0])["params"]
    state = TrainState.create(apply_fn=trainer.net.apply, params=params, tx=rule())
    losses = []
    for x, y in zip(X, Y, strict=True):
        state, loss = trainer.step(state, {"x": x, "y": y})
        losses.append(loss)
    return Left(state.params, losses)


def updated_outside() -> Left:
    """Only the gradients are compiled; the optimizer is not."""
    tx, params, losses = rule(), start(), []
    gradients = jax.jit(jax.value_and_grad(loss_fn))
    opt_state = tx.init(params)
    for x, y in zip(X, Y, strict=True):
        loss, grads = gradients(params, x, y)
        updates, opt_state = tx.update(grads, opt_state, params)
        params = optax.apply_updates(params, updates)
        losses.append(loss)
    return Left(params, losses)


def without_parameters() -> Left:
    """An optimizer that is given gradients alone, outside of any compiled function."""
    tx, params, losses = optax.adam(0.05), start(), []
    opt_state = tx.init(params)
    for x, y in zip(X, Y, strict=True):
        loss, grads = jax.value_and_grad(loss_fn)(params, x, y)
        updates, opt_state = tx.update(grads, opt_state)
        params = optax.apply_updates(params, updates)
        losses.append(loss)
    return Left(params, losses)


def added_by_hand() -> Left:
    """The updates are added by the program itself, in a compiled function of its own."""
    tx, params = rule(), start()
    opt_state = tx.init(params)

    @jax.jit
    def add(params: Tree, updates: Tree) -> Tree:
        return jax.tree.map(lambda p, u: p + u, params, updates)

    for x, y in zip(X, Y, strict=True):
        grads = jax.grad(loss_fn)(params, x, y)
        updates, opt_state = jax.jit(tx.update)(grads, opt_state, params)
        params = add(params, updates)
    tx.update(grads, opt_state, params)  # of which nothing comes
    return Left(params, [])


class _Net(nnx.Module):
    def __init__(self, rngs: nnx.Rngs) -> None:
        self.hidden = nnx.Linear(3, 4, rngs=rngs)
        self.norm = nnx.BatchNorm(4, rngs=rngs)
        self.drop = nnx.Dropout(0.2, rngs=rngs)
        self.out = nnx.Linear(4, 1, rngs=rngs)

    def __call__(self, x: jax.Array) -> Any:
        return self.out(self.drop(jnp.tanh(self.norm(self.hidden(x)))))


def _nnx_training(compiled: Callable[..., Any]) -> Left:
    model = _Net(nnx.Rngs(0))
    optimizer = nnx.Optimizer(model, rule(), wrt=nnx.Param)

    def train_step(model: Any, optimizer: Any, x: jax.Array, y: jax.Array) -> jax.Array:
        loss, grads = nnx.value_and_grad(lambda m: jnp.mean((m(x) - y) ** 2))(model)
        optimizer.update(model, grads)
        return loss

    step = compiled(train_step)
    losses = [step(model, optimizer, x, y) for x, y in zip(X, Y, strict=True)]
    return Left(nnx.to_pure_dict(nnx.state(model, nnx.Param)), losses)


def nnx_compiled() -> Left:
    """A model and an optimizer of nnx, which a compiled function changes in place."""
    return _nnx_training(nnx.jit)


def nnx_eager() -> Left:
    """The same, and nothing of it is compiled."""
    return _nnx_training(lambda step: step)


def with_average() -> Left:
    """A mean of the parameters, of their very form, stands between them and the state."""
    tx, params, losses = rule(), start(), []

    @jax.jit
    def train_step(state: Any, x: jax.Array, y: jax.Array) -> Any:
        average, params, opt_state = state
        loss, grads = jax.value_and_grad(loss_fn)(params, x, y)
        updates, opt_state = tx.update(grads, opt_state, params)
        params = optax.apply_updates(params, updates)
        return (optax.incremental_update(params, average, 0.1), params, opt_state), loss

    state = params, params, tx.init(params)
    for x, y in zip(X, Y, strict=True):
        state, loss = train_step(state, x, y)
        losses.append(loss)
    return Left(state[1], losses)


def _turn(tx: Any, carry: Any, batch: Any) -> Any:
    params, opt_state = carry
    loss, grads = jax.value_and_grad(loss_fn)(params, *batch)
    updates, opt_state = tx.update(grads, opt_state, params)
    return (optax.apply_updates(params, updates), opt_state), loss


def whole_in_one() -> Left:
    """The whole training, its optimizer too, is one compiled function, of loops in one another."""
    tx = rule()

    @jax.jit
    def train(params: Tree) -> Any:
        def epoch(carry: Any, batches: Any) -> Any:
            return jax.lax.scan(partial(_turn, tx), carry, batches)

        batches = jax.tree.map(lambda a: a.reshape(2, STEPS // 2, *a.shape[1:]), (X, Y))
        return jax.lax.scan(epoch, (params, tx.init(params)), batches)

    (params, _), losses = train(start())
    return Left(params, list(losses.reshape(-1)))


def seeds_beside_each_other() -> Left:
    """The same of three seeds at once, by a vmap around it."""
    tx = rule()

    @jax.jit
    @jax.vmap
    def train(shift: jax.Array) -> Any:
        params = jax.tree.map(lambda p: p + shift, start())
        return jax.lax.scan(partial(_turn, tx), (params, tx.init(params)), (X, Y))

    (params, _), losses = train(jnp.asarray([0.0, 0.1, 0.2]))
    return Left(params, list(losses.T))


def fori() -> Left:
    """A compiled loop that counts; the first of its arguments is donated."""
    tx, params = rule(), start()

    @partial(jax.jit, donate_argnums=0)
    def train(params: Tree, opt_state: Any) -> Any:
        def body(i: jax.Array, carry: Any) -> Any:
            return _turn(tx, carry, (X[i], Y[i]))[0]

        return jax.lax.fori_loop(0, STEPS, body, (params, opt_state))

    return Left(train(params, tx.init(params))[0], [])


def loop_alone() -> Left:
    """A compiled loop that stands in no compiled function."""
    tx, params = rule(), start()
    (params, _), losses = jax.lax.scan(partial(_turn, tx), (params, tx.init(params)), (X, Y))
    return Left(params, list(losses))


def unrolled() -> Left:
    """Three updates in a call, in a loop of Python's, through which another one differentiates."""
    tx, meta = optax.inject_hyperparams(optax.rmsprop)(0.05), optax.adam(0.03)
    params, rate = start(), jnp.asarray(-3.0)
    opt_state, meta_state = tx.init(params), meta.init(rate)

    def inner(rate: Any, params: Tree, opt_state: Any, xs: Any, ys: Any) -> Any:
        opt_state.hyperparams["learning_rate"] = jax.nn.sigmoid(rate)
        for x, y in zip(xs, ys, strict=True):
            grads = jax.grad(loss_fn)(params, x, y)
            updates, opt_state = tx.update(grads, opt_state)
            params = optax.apply_updates(params, updates)
        return loss_fn(params, xs[0], ys[0]), (params, opt_state)

    @jax.jit
    def outer(rate: Any, params: Tree, meta_state: Any, opt_state: Any, xs: Any, ys: Any) -> Any:
        grads, (params, opt_state) = jax.grad(inner, has_aux=True)(rate, params, opt_state, xs, ys)
        updates, meta_state = meta.update(grads, meta_state)
        return optax.apply_updates(rate, updates), params, meta_state, opt_state

    for i in (slice(0, 3), slice(3, 6)):
        rate, params, meta_state, opt_state = outer(rate, params, meta_state, opt_state, X[i], Y[i])
    return Left({"rate": rate, "params": params}, [])


def asked_and_set() -> Left:
    """The program takes the optimizer's state apart, and sets its learning rate."""
    tx = optax.inject_hyperparams(optax.adamw)(learning_rate=0.0)
    params, losses = start(), []
    opt_state = tx.init(params)

    @jax.jit
    def train_step(params: Tree, opt_state: Any, x: jax.Array, y: jax.Array) -> Any:
        return _turn(tx, (params, opt_state), (x, y))

    for x, y in zip(X, Y, strict=True):
        opt_state.hyperparams["learning_rate"] = jnp.asarray(0.05)
        opt_state = opt_state._replace(count=opt_state.count)
        assert optax.tree.get(opt_state, "learning_rate") == jnp.float32(0.05)
        _, inner = opt_state[0], opt_state.inner_state
        assert len(inner) == 3
        (params, opt_state), loss = train_step(params, opt_state, x, y)
        losses.append(loss)
    return Left(params, losses)


def of_micro_steps() -> Left:
    """optax.MultiSteps: two calls make an update, of which the losses' mean is told."""
    tx = optax.MultiSteps(rule(), every_k_schedule=2)
    params, losses = start(), []
    opt_state = tx.init(params)

    @jax.jit
    def train_step(params: Tree, opt_state: Any, x: jax.Array, y: jax.Array) -> Any:
        return _turn(tx, (params, opt_state), (x, y))

    for x, y in zip(X, Y, strict=True):
        pair = []
        for i in (slice(0, 2), slice(2, 4)):
            (params, opt_state), loss = train_step(params, opt_state, x[i], y[i])
            pair.append(loss)
        losses.append(sum(pair) / 2)
    return Left(params, losses)


def on_devices() -> Left:
    """pmap keeps copies of everything, and averages the gradients."""
    n = jax.local_device_count()
    tx, losses = rule(), []

    @partial(jax.pmap, axis_name="devices", donate_argnums=(0,))
    def train_step(carry: Any, x: jax.Array, y: jax.Array) -> Any:
        params, opt_state = carry
        loss, grads = jax.value_and_grad(loss_fn)(params, x, y)
        grads = jax.lax.pmean(grads, "devices")
        updates, opt_state = tx.update(grads, opt_state, params)
        return (optax.apply_updates(params, updates), opt_state), loss

    copies = jax.tree.map(lambda a: jnp.stack([a] * n), (start(), tx.init(start())))
    for x, y in zip(X, Y, strict=True):
        copies, loss = train_step(copies, jnp.stack([x] * n), jnp.stack([y] * n))
        losses.append(loss.mean())
    return Left(jax.tree.map(lambda a: a[0], copies[0]), losses)


PROGRAMS: tuple[Callable[[], Left], ...] = (
    jitted_step,
    train_state,
    updated_outside,
    without_parameters,
    added_by_hand,
    nnx_compiled,
    nnx_eager,
    with_average,
    whole_in_one,
    seeds_beside_each_other,
    fori,
    loop_alone,
    asked_and_set,
    of_micro_steps,
    on_devices,
)


def two_in_turns() -> Left:
    """Two optimizers, each with a compiled function, the second every other time."""
    tx, other = rule(), optax.sgd(0.1)
    actor, critic = start(), {"w": jnp.ones((3, 1))}
    actor_state, critic_state = tx.init(actor), other.init(critic)
    losses = []

    @jax.jit
    def train_critic(critic: Tree, critic_state: Any, x: jax.Array, y: jax.Array) -> Any:
        loss, grads = jax.value_and_grad(lambda c: jnp.mean((x @ c["w"] - y) ** 2))(critic)
        updates, critic_state = other.update(grads, critic_state)
        return optax.apply_updates(critic, updates), critic_state, loss

    @jax.jit
    def train_actor(actor: Tree, actor_state: Any, critic: Tree, x: jax.Array) -> Any:
        loss, grads = jax.value_and_grad(loss_fn)(actor, x, x @ critic["w"])
        updates, actor_state = tx.update(grads, actor_state, actor)
        return optax.apply_updates(actor, updates), actor_state, loss

    for step, (x, y) in enumerate(zip(X, Y, strict=True)):
        critic, critic_state, loss = train_critic(critic, critic_state, x, y)
        losses.append(loss)
        if step % 2:
            actor, actor_state, loss = train_actor(actor, actor_state, critic, x)
            losses.append(loss)
    return Left({"actor": actor, "critic": critic}, losses)
