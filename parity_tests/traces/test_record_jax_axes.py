"""What stands in front of a state: seeds of a vmap, replicas; and watch, which changes no bit."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers.recording_jax import START, X, loss_fn, recorded, same, states
from helpers.synthetic_traces import refused

from twinstep.jax import record, watch
from twinstep.jax.layout import tree_layout
from twinstep.trace.ledger import Trace

STEPS, SEEDS = 6, 5
BATCHES = jnp.stack([X[3 * (t % 4) : 3 * (t % 4) + 3] for t in range(STEPS)])


def starts() -> Any:
    """Parameters of every seed."""
    return jax.tree.map(
        lambda leaf: leaf + jnp.arange(SEEDS).reshape(-1, *[1] * leaf.ndim) / 8, START
    )


def train(tx: Any, params: Any, batches: jax.Array = BATCHES) -> Any:
    """A whole training in one scan: state and loss after each step."""

    def body(state: Any, x: jax.Array) -> Any:
        params, opt_state = state
        loss, grads = jax.value_and_grad(loss_fn)(params, x)
        updates, opt_state = tx.update(grads, opt_state, params)
        state = optax.apply_updates(params, updates), opt_state
        return state, (state, loss)

    return jax.lax.scan(body, (params, tx.init(params)), batches)[1]


def seeds(tx: Any, order: str, layout: Any = None, out: Path | None = None) -> Trace:
    """Every seed's training in one jit; order: which axis comes first."""
    front = 0 if order == "seed" else 1
    run = jax.jit(jax.vmap(lambda params: train(tx, params), out_axes=front))
    state, loss = run(starts())
    axes = ("seed", "step") if order == "seed" else ("step", "seed")
    batch = jnp.stack([BATCHES] * SEEDS, axis=front)
    with record(starts(), layout=layout, out=out) as rec:
        rec.steps(state, loss=loss, axes=axes, batch={"x": batch})
    return rec.trace


RULES: dict[str, Any] = {
    "plain": lambda: optax.adam(0.1),
    "micro-steps": lambda: optax.MultiSteps(optax.adam(0.1), 2),
    "injected": lambda: optax.inject_hyperparams(optax.sgd)(0.1, momentum=0.9),
}


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_seeds_stay_an_axis_of_every_leaf(rule: Callable[[], Any], tmp_path: Path) -> None:
    tx = watch(rule())
    trace = seeds(tx, "seed", out=tmp_path / "trace")
    same(trace, seeds(tx, "step"))
    assert trace.program["axes"] == {"seed": SEEDS}
    rows = len(trace)
    for i in range(SEEDS):
        with record(jax.tree.map(lambda leaf, i=i: leaf[i], starts())) as rec:
            state, loss = jax.jit(lambda i=i: train(tx, jax.tree.map(lambda a: a[i], starts())))()
            rec.steps(state, loss=loss)
        alone = rec.trace
        assert len(alone) == rows
        for stage in ("params", "opt_state", "raw_grads", "grads"):
            ours = getattr(trace, stage)
            for leaf, array in getattr(alone, stage).items():
                assert ours[leaf].shape == (len(array), SEEDS, *array.shape[1:])
                assert np.allclose(ours[leaf][:, i], array, rtol=1e-4, atol=1e-5), (stage, leaf)
        of_seed = trace.micro_losses["loss.seed"][:, i]
        told = alone.micro_losses.get("loss", alone.losses)
        assert np.allclose(of_seed, told, rtol=1e-5)
    means = trace.micro_losses["loss.seed"].reshape(rows, -1).mean(1)
    assert np.allclose(trace.losses, means, rtol=1e-6)
    assert trace.hyper_parameters.get("0.lr", np.full(rows, 0.1)).tolist() == [0.1] * rows


def test_layout_takes_seeds_along() -> None:
    tx = watch(optax.adam(0.1))
    layout = tree_layout(START)
    plain, laid = seeds(tx, "seed"), seeds(tx, "step", layout)
    assert plain.params["w"].tobytes() == laid.params["w"].tobytes()


# Replicas


def copies(tree: Any, count: int = 2) -> Any:
    return jax.tree.map(lambda leaf: jnp.stack([leaf] * count), tree)


def test_replicas_are_recorded_once() -> None:
    tx = watch(optax.adam(0.1))
    start = copies((START, tx.init(START)))
    with record(start, replicas=2) as rec, record(start[0], replicas=2) as all_at_once:
        every = list(states(tx, STEPS))
        for state, loss, x in every:
            off = jnp.array([0.25, -0.25])
            rec.step(copies(state), loss=loss + off, batch={"x": x})
        state, losses, x = jax.tree.map(lambda *leaves: jnp.stack(leaves), *every)
        all_at_once.steps(copies(state), loss=losses, batch={"x": x})
    same(rec.trace, recorded(tx))
    same(all_at_once.trace, recorded(tx))


def test_raw_gradients_of_replicas_are_averaged_and_all_else_must_agree() -> None:
    tx = watch(optax.chain(optax.clip(1.0), watch("grads"), optax.sgd(0.1)))
    ((params, opt_state), loss, _), *_ = states(tx, 1)
    told = copies((params, opt_state))
    raw = {"w": jnp.stack([opt_state.grads["w"], 3 * opt_state.grads["w"]])}
    told = told[0], told[1]._replace(grads=told[1].grads | raw)
    with record(copies(START), replicas=2) as rec:
        rec.step(told, loss=jnp.stack([loss, loss]))
    assert np.allclose(rec.trace.raw_grads["w"][0], 2 * opt_state.grads["w"])
    odd = told[0] | {"w": told[0]["w"].at[1, 2].add(1e-6)}

    def differ() -> None:
        with record(copies(START), replicas=2) as rec:
            rec.step(odd, opt_state=told[1], loss=loss)

    refused(differ, "step 1: params, w differs on replica 1 from that on replica 0")
    says = "before step 1: params, b has shape (), expected 2 replicas in front"
    refused(lambda: record(START, replicas=2), says)
    says = "before step 1: params, w differs on replica 1"
    refused(lambda: record(copies(START) | {"w": odd["w"]}, replicas=2), says)


# What is refused


def told(tx: Any, *of: int, again: bool = False) -> Callable[[], Any]:
    """Steps of a training, by number, told to a recorder."""

    def run() -> None:
        every = list(states(tx, max(of)))
        with record(START) as rec:
            for t in of:
                state, loss, _ = every[t - 1]
                state = jax.tree.map(jnp.copy, state) if again else state
                rec.step(state, loss=loss)

    return run


def traced() -> None:
    tx = watch(optax.sgd(0.1))
    with record(START) as rec:

        @jax.jit
        def train_step(params: Any) -> Any:
            loss, grads = jax.value_and_grad(loss_fn)(params, X)
            _, opt_state = tx.update(grads, tx.init(params), params)
            rec.step((params, opt_state), loss=loss)
            return loss

        train_step(START)


def stacks(axes: Any, **told: Any) -> Callable[[], Any]:
    def run() -> None:
        with record({"w": jnp.zeros(3)}) as rec:
            rec.steps(axes=axes, **told)

    return run


def told_state(state: Any) -> None:
    with record(START) as rec:
        rec.step(state, loss=1.0)


def apart() -> None:
    """Of one seed alone an update is thrown away."""
    tx = watch(optax.apply_if_finite(optax.sgd(0.1), 5))
    params = {name: leaf[:2] for name, leaf in starts().items()}
    batches = jnp.stack([BATCHES, BATCHES.at[3].set(jnp.inf)])
    state, loss = jax.vmap(lambda params, x: train(tx, params, x))(params, batches)
    with record(params) as rec:
        rec.steps(state, loss=loss, axes=("seed", "step"))


WATCHED = watch(optax.sgd(0.1))
INSIDE: dict[str, tuple[Any, str]] = {
    "chain": (optax.chain(optax.clip(1.0), WATCHED), "watch stands inside an optax.chain, where"),
    "apply_if_finite": (optax.apply_if_finite(WATCHED, 5), "inside optax.apply_if_finite, where"),
    "MultiSteps": (optax.MultiSteps(WATCHED, 2), "watch stands inside optax.MultiSteps, where"),
    "masked": (optax.masked(WATCHED, {"w": True, "b": False}), "inside optax.masked, where"),
    "watch": (watch(optax.chain(WATCHED)), "a watch stands inside a watch, expected one"),
    "two parts": (
        optax.multi_transform({"w": WATCHED, "b": WATCHED}, {"w": "w", "b": "b"}),
        "the optimizer's state has 2 watched optimizers, expected one: tx = watch(...) around",
    ),
    "two links": (
        watch(optax.chain(watch("grads"), watch("grads"), optax.sgd(0.1))),
        "2 links are watch('grads') for one parameter, expected one before the rule",
    ),
}
LINE = {"w": jnp.zeros((4, 3))}
REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "twice": (told(WATCHED, 1, 1), "step 1 was recorded already: optimizer 'optimizer' is still"),
    "twice, as copies": (told(WATCHED, 1, 2, 2, again=True), "step 2 was recorded already: "),
    "missed": (
        told(WATCHED, 1, 2, 5),
        "step 3: 2 updates of optimizer 'optimizer' were missed: it is at its update 5, the last",
    ),
    "back": (
        told(WATCHED, 2, 3, 4, 2),
        "step 4: optimizer 'optimizer' is at its update 2 again, the last one that was told is 4",
    ),
    "traced": (traced, "step 1: loss is traced: rec.step stands outside of jit, scan, vmap"),
    "no step": (stacks(("seed",), loss=jnp.ones(4), params=LINE), "axes is ('seed',), expected"),
    "losses": (
        stacks(("seed", "step"), loss=jnp.ones(4), params=LINE),
        "step 1: loss is float32 of shape (4,), expected a number a seed and a step",
    ),
    "lengths": (
        stacks("step", loss=jnp.ones(5), params=LINE),
        "step 1: params, w has shape (4, 3), expected step 5 in front",
    ),
    "batch": (
        stacks("step", loss=jnp.ones(4), params=LINE, batch={"x": jnp.ones(5)}),
        "step 1: batch, x has shape (5,), expected step 4 in front",
    ),
    "one in a tuple": (
        lambda: told_state((START,)),
        "a state is a tuple of 1, expected (params, opt_state, ...)",
    ),
    "seeds apart": (
        lambda: apart(),
        "step 1: finite differs along seed: [False  True], expected runs that go together",
    ),
}


@pytest.mark.parametrize(("act", "says"), REFUSED.values(), ids=REFUSED)
def test_refused_in_one_line(act: Callable[[], Any], says: str) -> None:
    assert refused(act).startswith(says)


@pytest.mark.parametrize(("tx", "says"), INSIDE.values(), ids=INSIDE)
def test_watch_that_would_tell_untruths_is_refused(tx: Any, says: str) -> None:
    refused(told(tx, 1), says, *([] if "links" in says else ["tx = watch(...) around"]))


# watch changes no bit


def trainings(tx: Any) -> dict[str, Any]:
    """Parameters and losses of a training by each of JAX's transformations, on one device."""
    whole = jax.jit(train, static_argnums=0)
    steps = [(state, loss) for state, loss, _ in states(tx, STEPS)]

    def step(params: Any, opt_state: Any, x: jax.Array) -> Any:
        loss, grads = jax.value_and_grad(loss_fn)(params, x)
        updates, opt_state = tx.update(grads, opt_state, params)
        return optax.apply_updates(params, updates), opt_state, loss

    donating = jax.jit(step, donate_argnums=(0, 1))
    params = jax.tree.map(jnp.copy, START)
    opt_state, losses = jax.tree.map(jnp.copy, tx.init(params)), []
    for x in BATCHES:
        params, opt_state, loss = donating(params, opt_state, x)
        losses.append(loss)
    scanned, seeds = whole(tx, START), jax.jit(jax.vmap(lambda p: train(tx, p)))(starts())
    return {
        "jit": [(state[0], loss) for state, loss in steps],
        "donation": (params, losses),
        "scan": (scanned[0][0], scanned[1]),
        "vmap": (seeds[0][0], seeds[1]),
    }


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_watch_leaves_every_bit_as_it_is(rule: Callable[[], Any]) -> None:
    plain, watching = trainings(rule()), trainings(watch(rule()))
    for how, left in plain.items():
        ours = jax.tree.leaves(watching[how])
        for one, other in zip(jax.tree.leaves(left), ours, strict=True):
            assert np.asarray(one).tobytes() == np.asarray(other).tobytes(), how


ON_TWO_DEVICES = """
from functools import partial
import jax, jax.numpy as jnp, numpy as np, optax
jax.config.update("jax_num_cpu_devices", 2)
from jax.sharding import Mesh, PartitionSpec as P
from twinstep.jax import record, watch

x = jnp.asarray(np.random.RandomState(0).randn(6, 2, 4, 3), jnp.float32)
start = {"w": jnp.asarray([0.5, -1.0, 2.0]), "b": jnp.zeros(())}
loss_fn = lambda p, x: jnp.mean((x @ p["w"] + p["b"] - 1) ** 2)
pmean = optax.stateless(lambda grads, _: jax.lax.pmean(grads, "data"))
rule = optax.chain(pmean, watch("grads"), optax.adam(0.1))
plain = optax.chain(pmean, optax.identity(), optax.adam(0.1))

def step(tx, params, opt_state, x):
    loss, grads = jax.value_and_grad(loss_fn)(params, x)
    updates, opt_state = tx.update(grads, opt_state, params)
    return optax.apply_updates(params, updates), opt_state, loss

def pmapped(tx):
    run = jax.pmap(partial(step, tx), axis_name="data")
    params = jax.tree.map(lambda a: jnp.stack([a, a]), start)
    opt_state = jax.pmap(tx.init)(params)
    for batch in x:
        params, opt_state, loss = run(params, opt_state, batch)
        yield params, opt_state, loss, batch

def sharded(tx):
    def one(params, opt_state, x):
        params, opt_state, loss = step(tx, params, opt_state, x[0])
        return params, opt_state, jax.lax.pmean(loss, "data")
    mesh = Mesh(np.array(jax.devices()), ("data",))
    specs = dict(in_specs=(P(), P(), P("data")), out_specs=(P(), P(), P()))
    run = jax.jit(jax.shard_map(one, mesh=mesh, check_vma=False, **specs))
    params, opt_state = start, tx.init(start)
    for batch in x:
        params, opt_state, loss = run(params, opt_state, batch)
        yield params, opt_state, loss, batch

traces = []
for loop, replicas in ((pmapped, 2), (sharded, None)):
    ours, theirs = list(loop(watch(rule))), list(loop(plain))
    for one, other in zip(ours, theirs, strict=True):
        pairs = zip(jax.tree.leaves((one[0], one[2])), jax.tree.leaves((other[0], other[2])))
        assert all(np.asarray(a).tobytes() == np.asarray(b).tobytes() for a, b in pairs), loop
    first = jax.tree.map(lambda a: jnp.stack([a, a]), start) if replicas else start
    with record(first, replicas=replicas) as rec:
        for params, opt_state, loss, batch in ours:
            rec.step((params, opt_state), loss=loss, batch=batch)
    traces.append(rec.trace)
one, other = traces
assert np.allclose(one.params["w"], other.params["w"], rtol=1e-6)
assert np.allclose(one.losses, other.losses, rtol=1e-6)
assert np.allclose(one.raw_grads["w"], one.grads["w"], rtol=1e-5, atol=1e-6)
print("same")
"""


def test_watch_leaves_every_bit_as_it_is_on_two_devices() -> None:
    done = subprocess.run([sys.executable, "-c", ON_TWO_DEVICES], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "same\n"), done.stderr
