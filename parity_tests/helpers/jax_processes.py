"""What each process of a JAX training on several does in the tests: many trainings, one start.

`python jax_processes.py FOLDER PROCESS PROCESSES PORT`: each process writes its part of the trace
of every case to FOLDER/CASE, and what was refused to FOLDER/CASE.PROCESS. A process alone has all
devices to itself.
"""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from twinstep.errors import InputError
from twinstep.jax import record, watch
from twinstep.jax.mapping import Mapping, Slot

DEVICES = 2  # of each process
STEPS = 3
SEEDS = 8
ROWS, COLUMNS, WHOLE = PartitionSpec("x"), PartitionSpec(None, "x"), PartitionSpec()
SPECS = {"first": ROWS, "bias": WHOLE, "second": COLUMNS, "scale": WHOLE}
RANDOM = np.random.RandomState(0)
START = {
    "first": RANDOM.randn(8, 4),
    "bias": RANDOM.randn(4),
    "second": RANDOM.randn(4, 8),
    "scale": np.array(1.5),
}
BATCHES = RANDOM.randn(2 * STEPS, 8, 8)
Tree = Any


def loss_fn(params: Tree, x: jax.Array) -> jax.Array:
    hidden = jnp.tanh(x @ params["first"] + params["bias"])
    return jnp.mean((params["scale"] * hidden @ params["second"] - x) ** 2)


def mesh(order: Any = None) -> Mesh:
    """All devices of all processes along one axis."""
    devices = jax.devices()
    return Mesh(np.array([devices[i] for i in order] if order else devices), ("x",))


def put(array: np.ndarray, spec: PartitionSpec, over: Mesh) -> jax.Array:
    """A global array; each process gives what its devices hold."""
    sharding = NamedSharding(over, spec)
    return jax.make_array_from_callback(array.shape, sharding, lambda part: array[part])


def spread(over: Mesh) -> Tree:
    return {name: put(array, SPECS[name], over) for name, array in START.items()}


def step_of(tx: Any) -> Callable[..., Any]:
    """A jitted update."""

    @jax.jit
    def train_step(params: Tree, opt_state: Tree, x: jax.Array) -> Any:
        loss, grads = jax.value_and_grad(loss_fn)(params, x)
        updates, opt_state = tx.update(grads, opt_state, params)
        return optax.apply_updates(params, updates), opt_state, loss

    return train_step


def train(
    out: Path,
    over: Mesh,
    tx: Any,
    batch: PartitionSpec = ROWS,
    steps: int = STEPS,
    layout: Mapping | None = None,
) -> None:
    """Parameters spread over all devices, and the batch as is asked for."""
    tx = watch(tx)
    train_step, params = step_of(tx), spread(over)
    opt_state = tx.init(params)
    key = put(np.array([0, 7], np.uint32), WHOLE, over)
    with record(params, out=out, layout=layout) as rec:
        for t in range(steps):
            x = put(BATCHES[t], batch, over)
            params, opt_state, loss = train_step(params, opt_state, x)
            told = {"x": x, "mask": put(BATCHES[t, 0], WHOLE, over)}
            rec.step((params, opt_state), loss=loss, batch=told, rng={"key": key})


def sharded(out: Path) -> None:
    train(out, mesh(), optax.adam(0.1))


def replicated_batch(out: Path) -> None:
    """Every process has the whole batch, as under tensor parallelism."""
    train(out, mesh(), optax.adam(0.1), batch=WHOLE)


def every_other(out: Path) -> None:
    """What a process holds of an array is no block: its devices are not beside each other."""
    order = [*range(0, len(jax.devices()), 2), *range(1, len(jax.devices()), 2)]
    train(out, mesh(order), optax.adam(0.1))


def micro_steps(out: Path) -> None:
    train(out, mesh(), optax.MultiSteps(optax.adam(0.1), 2), steps=2 * STEPS)


def turned(out: Path) -> None:
    """A layout has the axes of a matrix change places, and with them where its parts stand."""
    slots = [
        Slot((name,), START[name].T.shape, (1, 0) if START[name].ndim == 2 else None)
        for name in sorted(START)
    ]
    layout = Mapping(jax.tree.structure(START), tuple(slots))
    train(out, mesh(), optax.adam(0.1), layout=layout)


def seeds(out: Path) -> None:
    """Some runs beside each other, with another learning rate in each half of them."""
    over = mesh()
    tx = watch(optax.inject_hyperparams(optax.sgd)(0.1))
    start = {
        name: np.stack([array * (1 + i / 10) for i in range(SEEDS)])
        for name, array in START.items()
    }
    params = {name: put(array, ROWS, over) for name, array in start.items()}

    def one(params: Tree, rate: jax.Array) -> Any:
        opt_state = tx.init(params)
        opt_state.inner.hyperparams["learning_rate"] = rate

        def body(state: Any, x: jax.Array) -> Any:
            loss, grads = jax.value_and_grad(loss_fn)(state[0], x)
            updates, opt_state = tx.update(grads, state[1], state[0])
            state = optax.apply_updates(state[0], updates), opt_state
            return state, (state, loss)

        return jax.lax.scan(body, (params, opt_state), jnp.asarray(BATCHES[:STEPS]))[1]

    rates = put(0.01 * (1.0 + (np.arange(SEEDS) >= SEEDS // 2)), ROWS, over)
    outputs = NamedSharding(over, ROWS)
    state, loss = jax.jit(jax.vmap(one), out_shardings=outputs)(params, rates)
    with record(params, out=out) as rec:
        rec.steps(state, loss=loss, axes=("seed", "step"))


def local(out: Path) -> None:
    """Each process has its own copy of everything, and its part of the samples."""
    alone = jax.process_count() == 1
    mine = slice(None) if alone else slice(4 * jax.process_index(), 4 * jax.process_index() + 4)
    over, tx = mesh(), watch(optax.adam(0.1))
    train_step, params = step_of(tx), spread(over)
    opt_state = tx.init(params)

    def here(tree: Tree) -> Tree:
        """Copies of what is the same everywhere, on a device of this process."""
        return jax.tree.map(lambda leaf: jnp.asarray(np.asarray(whole(leaf))), tree)

    whole = jax.jit(lambda leaf: leaf, out_shardings=NamedSharding(over, WHOLE))
    with record(here(params), out=out) as rec:
        for t in range(STEPS):
            before = here(params)
            params, opt_state, _ = train_step(params, opt_state, put(BATCHES[t], ROWS, over))
            loss = loss_fn(before, jnp.asarray(BATCHES[t, mine]))
            rec.step(here((params, opt_state)), loss=loss, batch={"x": BATCHES[t, mine]})


def copies(out: Path) -> None:
    """`pmap` keeps copies of everything, one a device; here each has its part of the samples."""
    here, every = jax.local_device_count(), jax.device_count()
    tx, params = watch(optax.adam(0.1)), {k: jnp.asarray(array) for k, array in START.items()}

    def train_step(params: Tree, opt_state: Tree, x: jax.Array) -> Any:
        loss, grads = jax.value_and_grad(loss_fn)(params, x)
        updates, opt_state = tx.update(jax.lax.pmean(grads, "x"), opt_state, params)
        return optax.apply_updates(params, updates), opt_state, loss

    def copied(tree: Tree) -> Tree:
        return jax.tree.map(lambda leaf: jnp.stack([leaf] * here), tree)

    step = jax.pmap(train_step, axis_name="x")
    params, opt_state = copied(params), copied(tx.init(params))
    first = here * jax.process_index()
    with record(params, out=out, replicas=here) as rec:
        for t in range(STEPS):
            x = BATCHES[t].reshape(every, 8 // every, 8)[first : first + here]
            params, opt_state, loss = step(params, opt_state, x)
            told = {"x": x.reshape(-1, 8)}
            rec.step((params, opt_state), loss=loss, batch=told)


def replicas_that_differ(out: Path) -> None:
    """Process 1 has another bias than process 0 from the second update on."""
    over = mesh()
    params = spread(over)
    with record(params, out=out) as rec:
        for t in range(STEPS):
            off = 1e-9 * (t > 0) * jax.process_index()
            bias = START["bias"] * (t + 2) + off
            params = params | {"bias": put(bias, WHOLE, over)}
            rec.step(params=params, loss=1.0)


def batches_that_differ(out: Path) -> None:
    """What is said to be one batch on all processes is not."""
    over, params = mesh(), spread(mesh())
    with record(params, out=out) as rec:
        x = put(BATCHES[0] + 1e-9 * jax.process_index(), WHOLE, over)
        rec.step(params=params, loss=1.0, batch={"x": x})


def moved(out: Path) -> None:
    """A leaf is spread in another way at the second update, with parts of the same shape."""
    first = mesh()
    other = mesh([*reversed(range(len(jax.devices())))])
    with record(spread(first), out=out) as rec:
        for over in (first, other):
            rec.step(params=spread(over), loss=1.0)


def diagonal(out: Path) -> None:
    """The parts that a process holds are no rows by columns."""
    devices = np.array(mesh([0, 2, 3, 1]).devices).reshape(2, 2)
    sharding = NamedSharding(Mesh(devices, ("a", "b")), PartitionSpec("a", "b"))
    w = jax.make_array_from_callback((8, 4), sharding, lambda part: START["first"][part])
    with record({"w": w}, out=out):
        pass


def elsewhere(out: Path) -> None:
    """A leaf lies on devices of the first process alone."""
    one = NamedSharding(Mesh(np.array(jax.devices()[:DEVICES]), ("x",)), ROWS)
    w = jax.make_array_from_callback(
        (8, 4), one, lambda part: START["first"][part], dtype=np.float64
    )
    with record({"w": w}, out=out):
        pass


TRAINED = [sharded, replicated_batch, every_other, micro_steps, turned, seeds, local, copies]
REFUSED = [replicas_that_differ, batches_that_differ, moved, diagonal, elsewhere]


def main(folder: str, process: str, processes: str, port: str) -> None:
    jax.config.update("jax_enable_x64", True)
    if int(processes) > 1:
        jax.config.update("jax_num_cpu_devices", DEVICES)
        jax.config.update("jax_cpu_collectives_implementation", "gloo")
        jax.distributed.initialize(f"127.0.0.1:{port}", int(processes), int(process))
    for case in (*TRAINED, *(REFUSED if int(processes) > 1 else ())):
        try:
            case(Path(folder) / case.__name__)
        except InputError as error:
            (Path(folder) / f"{case.__name__}.{process}").write_text(str(error))


if __name__ == "__main__":
    main(*sys.argv[1:])
