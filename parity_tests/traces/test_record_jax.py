"""A JAX loop of one's own, recorded from outside: what is in the trace, and what is refused."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from helpers.recording import Unrecorded, check_alone, step
from helpers.synthetic_traces import refused

import twinstep
from twinstep.jax import record, watch
from twinstep.jax.layout import module_layout, tree_layout
from twinstep.jax.optim import adamw, clip_grad_norm
from twinstep.jax.watching import gradients, unwatched
from twinstep.trace.ledger import Trace


class Convolutions(nnx.Module):
    """A conv net with BatchNorm."""

    def __init__(self, rngs: nnx.Rngs) -> None:
        self.conv = nnx.Conv(1, 4, (3, 3), padding="VALID", rngs=rngs)
        self.norm = nnx.BatchNorm(4, rngs=rngs)
        self.head = nnx.Linear(144, 10, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        hidden = nnx.relu(self.norm(self.conv(x)))
        return self.head(hidden.reshape(len(x), -1))


def optimizer(rule: optax.GradientTransformation, watched: bool, given: bool) -> Any:
    """With clipping; its state carries the gradients before it, and after it too."""
    clip = optax.clip_by_global_norm(0.5)
    chain = optax.chain(clip, watch("grads"), rule) if given else optax.chain(clip, rule)
    return watch(chain) if watched else chain


def updated(tx: Any, loss_fn: Any, params: Any, opt_state: Any, *data: Any) -> Any:
    """Parameters and optimizer state after an update, and the loss."""
    loss, grads = jax.value_and_grad(loss_fn)(params, *data)
    updates, opt_state = tx.update(grads, opt_state, params)
    return optax.apply_updates(params, updates), opt_state, loss


def recorder(recorded: bool) -> Any:
    return record if recorded else Unrecorded


def convolutions(recorded: bool, given: bool = False, **options: Any) -> tuple[Any, Trace | None]:
    """AdamW with a cosine schedule and clipping, a jitted step a call."""
    model = Convolutions(nnx.Rngs(0))
    model.train()
    graph, params, *others = nnx.split(model, nnx.Param, ...)
    (rest,) = others
    tx = optimizer(optax.adamw(optax.cosine_decay_schedule(1e-2, 10)), recorded, given)
    opt_state = tx.init(params)

    @jax.jit
    def train_step(params: Any, rest: Any, opt_state: Any, x: Any, y: Any) -> Any:
        def loss_fn(params: Any) -> Any:
            model = nnx.merge(graph, params, rest, copy=True)
            loss = optax.softmax_cross_entropy_with_integer_labels(model(x), y).mean()
            return loss, nnx.state(model, nnx.Not(nnx.Param))

        (loss, after), grads = jax.value_and_grad(loss_fn, has_aux=True)(params)
        updates, opt_state = tx.update(grads, opt_state, params)
        return optax.apply_updates(params, updates), after, opt_state, loss

    draws = np.random.RandomState(0)
    with recorder(recorded)(params, buffers=rest, **options) as rec:
        for _ in range(6):
            batch = {"x": np.float32(draws.randn(8, 8, 8, 1)), "y": draws.randint(0, 10, 8)}
            params, rest, opt_state, loss = train_step(params, rest, opt_state, **batch)
            rec.step(loss=loss, params=params, opt_state=opt_state, buffers=rest, batch=batch)
    return params, rec.trace


def transformer(recorded: bool, **options: Any) -> tuple[Any, Trace | None]:
    """Causal attention with weight decay for matrices alone, all in one jitted scan."""
    keys = jax.random.split(jax.random.key(0), 5)
    shapes = {"embedding": (11, 8), "qkv": (8, 24), "out": (8, 8), "head": (8, 11)}
    params = {
        n: jax.random.normal(k, s) / 3 for k, (n, s) in zip(keys, shapes.items(), strict=False)
    }
    params["bias"] = jnp.zeros(11)
    masked = {name: leaf.ndim > 1 for name, leaf in params.items()}
    tx = optimizer(optax.adamw(1e-2, mask=masked), recorded, given=False)
    words = jax.random.randint(keys[-1], (5, 4, 7), 0, 11)

    def loss_fn(params: Any, words: jax.Array) -> jax.Array:
        x = params["embedding"][words[:, :-1]]
        q, k, v = jnp.split(x @ params["qkv"], 3, axis=-1)
        causal = jnp.tril(jnp.ones((6, 6), bool))
        scores = jnp.where(causal, q @ jnp.swapaxes(k, 1, 2), -jnp.inf)
        x = x + jax.nn.softmax(scores) @ v @ params["out"]
        logits = x @ params["head"] + params["bias"]
        return optax.softmax_cross_entropy_with_integer_labels(logits, words[:, 1:]).mean()

    @jax.jit
    def train(params: Any, opt_state: Any) -> Any:
        def body(state: Any, words: jax.Array) -> Any:
            after = updated(tx, loss_fn, *state, words)
            return after[:2], after

        return jax.lax.scan(body, (params, opt_state), words)

    with recorder(recorded)(params, **options) as rec:
        (last, _), (stacked, opt_states, losses) = train(params, tx.init(params))
        rec.steps(loss=losses, params=stacked, opt_state=opt_states, batch={"words": words})
    return last, rec.trace


def recurrent(recorded: bool, **options: Any) -> tuple[Any, Trace | None]:
    """A recurrent net by SGD with momentum, two micro-batches a step."""
    model = nnx.RNN(nnx.GRUCell(3, 5, rngs=nnx.Rngs(0)))
    graph, params, *others = nnx.split(model, nnx.Param, ...)
    (rest,) = others
    rule = optax.sgd(0.1, momentum=0.9)
    tx = watch(rule) if recorded else rule
    opt_state = tx.init(params)

    @jax.jit
    def train_step(params: Any, opt_state: Any, parts: Any) -> Any:
        def loss_fn(params: Any, x: jax.Array) -> jax.Array:
            return jnp.mean(nnx.merge(graph, params, rest, copy=True)(x) ** 2) / 2

        losses, grads = zip(*(jax.value_and_grad(loss_fn)(params, x) for x in parts), strict=True)
        total = jax.tree.map(jnp.add, *grads)
        updates, opt_state = tx.update(total, opt_state, params)
        return optax.apply_updates(params, updates), opt_state, sum(losses)

    draws = np.random.RandomState(0)
    with recorder(recorded)(params, **options) as rec:
        for _ in range(4):
            parts = draws.randn(2, 4, 7, 3).astype(np.float32)
            params, opt_state, loss = train_step(params, opt_state, parts)
            rec.step((params, opt_state), loss=loss, batch=parts)
    return params, rec.trace


LOOPS = {"convolutions": convolutions, "transformer": transformer, "recurrent": recurrent}


@pytest.mark.parametrize("loop", LOOPS.values(), ids=LOOPS)
def test_own_loop_is_recorded_saved_and_loaded(loop: Any, tmp_path: Path) -> None:
    params, trace = loop(True, out=tmp_path / "trace")
    plain, _ = loop(False)
    for ours, theirs in zip(jax.tree.leaves(params), jax.tree.leaves(plain), strict=True):
        assert np.array_equal(ours, theirs), "watching changes no bit"
    assert trace.validation_error() is None
    assert trace.metadata.example is None
    _, in_memory = loop(True)
    for one in (trace, twinstep.load_trace(tmp_path / "trace")):
        assert twinstep.compare(in_memory, one).verdict == "equal"
        assert one.summary() == in_memory.summary()
    assert not any("value" in name.split(".") for name in trace.params)


def test_conv_nets_ledger() -> None:
    _, trace = convolutions(True, given=True)
    assert trace is not None
    names = "conv.bias conv.kernel head.bias head.kernel norm.bias norm.scale"
    assert " ".join(sorted(trace.params)) == names
    norms = np.sqrt(sum((g.reshape(6, -1) ** 2).sum(1) for g in trace.grads.values()))
    assert np.allclose(norms, 0.5, rtol=1e-5)
    assert not any(map(trace.held_once, trace.grads)), "clipped gradients are others"
    assert trace.buffers["norm.mean"].shape == (7, 4)
    assert set(trace.inputs) == {"x", "y"}


def test_scan_leaves_what_single_steps_leave() -> None:
    """The same steps, told one by one and stacked, are the same trace."""
    params = {"w": jnp.arange(3.0)}
    tx = watch(optax.sgd(0.1, momentum=0.9))
    opt_state = tx.init(params)
    x = jnp.arange(12.0).reshape(4, 3)
    states = []
    with record(params) as one:
        for row in x:
            state = updated(tx, lambda p, row: jnp.sum((p["w"] - row) ** 2), params, opt_state, row)
            params, opt_state, loss = state
            states.append(state)
            one.step(loss=loss, params=params, opt_state=opt_state, batch={"x": row})
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *states)
    with record({"w": jnp.arange(3.0)}) as all_at_once:
        all_at_once.steps(stacked[:2], loss=stacked[2], batch={"x": x})
    assert twinstep.compare(one.trace, all_at_once.trace).verdict == "equal"
    assert all_at_once.trace.inputs.keys() == one.trace.inputs.keys()
    with record({"w": jnp.arange(3.0)}) as both:
        half = jax.tree.map(lambda leaf: leaf[:2], stacked)
        both.steps(half[:2], loss=half[2], batch={"x": x[:2]})
        for state, row in zip(states[2:], x[2:], strict=True):
            both.step(state[:2], loss=state[2], batch={"x": row})
    assert twinstep.compare(one.trace, both.trace).verdict == "equal"


def test_watch_carries_gradients_and_leaves_updates_as_they_are() -> None:
    params = {"w": jnp.ones(3)}
    rule = optax.chain(optax.clip(1.0), optax.adam(0.1))
    watched = watch(optax.chain(optax.clip(1.0), watch("grads"), optax.adam(0.1)))
    grads = {"w": jnp.array([0.5, 2.0, -3.0])}
    ours, state = jax.jit(watched.update)(grads, watched.init(params), params)
    theirs, _ = jax.jit(rule.update)(grads, rule.init(params), params)
    assert np.array_equal(ours["w"], theirs["w"])
    raw, given = gradients(state)
    assert raw["w"].tolist() == [0.5, 2.0, -3.0]
    assert given["w"].tolist() == [0.5, 1.0, -1.0]
    refused(lambda: gradients(rule.init(params)), "0 watched optimizers, expected one")
    refused(lambda: watch("gradients"), "watch takes an optimizer or 'grads'")


def two_sides(learning_rate: float = 1e-2) -> tuple[Trace, Trace]:
    """A small network trained in both frameworks, each recorded from outside."""
    import torch

    from twinstep.torch import record as record_torch

    torch.manual_seed(0)
    theirs = torch.nn.Linear(4, 3).double()
    x, y = torch.randn(16, 4).double(), torch.randn(16, 3).double()
    start = {name: p.detach().numpy().copy() for name, p in theirs.named_parameters()}
    rule = torch.optim.AdamW(theirs.parameters(), lr=1e-2)
    with record_torch(theirs) as rec:
        for _ in range(20):
            rec.batch(x=x, y=y)
            loss = torch.nn.functional.mse_loss(theirs(x), y)
            step(rule, loss, lambda: torch.nn.utils.clip_grad_norm_(theirs.parameters(), 0.1))
    with jax.enable_x64(True):
        model = nnx.Linear(4, 3, rngs=nnx.Rngs(0))
        layout = module_layout(model)
        params = layout.to_jax({name: jnp.asarray(array) for name, array in start.items()})
        clip = clip_grad_norm(0.1)
        tx = watch(optax.chain(clip, watch("grads"), adamw(lr=learning_rate)))
        graph, opt_state = nnx.graphdef(model), tx.init(params)
        batch = {"x": x.numpy(), "y": y.numpy()}

        @jax.jit
        def train_step(params: Any, opt_state: Any) -> Any:
            def loss_fn(params: Any) -> jax.Array:
                output = nnx.merge(graph, params)(jnp.asarray(batch["x"]))
                return jnp.mean((output - jnp.asarray(batch["y"])) ** 2)

            return updated(tx, loss_fn, params, opt_state)

        with record(params, layout=layout) as ours:
            for _ in range(20):
                params, opt_state, loss = train_step(params, opt_state)
                ours.step(loss=loss, params=params, opt_state=opt_state, batch=batch)
        return rec.trace, ours.trace


def test_two_loops_of_ones_own_are_compared_by_name() -> None:
    theirs, ours = two_sides()
    assert theirs.opt_state.keys() == ours.opt_state.keys()
    assert not any(map(ours.held_once, ours.grads))
    found = twinstep.compare(theirs, ours)
    assert found.verdict == "rounding", found.reason
    stages = {"batch", "loss", "raw_grads", "grads", "opt_state", "params"}
    assert stages <= found.worst["free"].keys()


def test_fault_in_a_loop_of_ones_own_is_found() -> None:
    found = twinstep.compare(*two_sides(learning_rate=1.0001e-2))
    assert found.verdict == "mismatch"
    assert found.first is not None
    assert (found.first.step, found.first.stage) == (1, "params")


PARAMS = {"w": jnp.ones(2)}


def told(*steps: dict[str, Any], **options: Any) -> Callable[[], None]:
    """Steps told to a recorder."""

    def run() -> None:
        with record(PARAMS, **options) as rec:
            for step in steps:
                rec.step(**step)

    return run


ONCE: dict[str, Any] = {"loss": 1.0, "params": {"w": jnp.zeros(2)}}
LARGER = {"loss": 1.0, "params": {"w": jnp.ones(3)}}
REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "no params": (record, "record was given no parameters that learn"),
    "empty params": (lambda: record({}), "record was given no parameters that learn"),
    "no step": (told(), "nothing was recorded: no step was made"),
    "loss": (
        told({"loss": jnp.ones(3), "params": PARAMS}),
        "step 1: loss is float32 of shape (3,), expected one number",
    ),
    "loss in words": (told({"loss": "1", "params": PARAMS}), "step 1: loss is <U1 of shape"),
    "twice": (told(ONCE, ONCE), "step 1 was recorded already: params are the very same arrays"),
    "shape": (
        told(LARGER),
        "step 1: params, w has shape (3,), before it had (2,)",
    ),
    "gone": (
        told(ONCE, {"loss": 1.0, "params": {"v": jnp.ones(2)}}),
        "step 2: params, w is missing, the steps before had it",
    ),
    "a leaf that its layout has not": (
        lambda: record(PARAMS, layout=tree_layout({"v": jnp.ones(2)})),
        "the layout has no leaf 'w'",
    ),
    "params": (told({"loss": 1.0}), "step 1: params is missing"),
    "new": (
        told({"loss": 1.0, "params": {"w": PARAMS["w"], "v": jnp.ones(2)}}),
        "step 1: params, v was not there before the first update: record(state)",
    ),
    "new buffers": (
        told(ONCE | {"buffers": {"mean": jnp.ones(2)}}),
        "step 1: buffers, mean was not there before the first update: record(..., buffers=...)",
    ),
}


@pytest.mark.parametrize(("act", "says"), REFUSED.values(), ids=REFUSED)
def test_refused_in_one_line(act: Callable[[], Any], says: str) -> None:
    assert refused(act).startswith(says)


@pytest.mark.parametrize("name", ["adafactor", "adam", "lion", "rmsprop", "novograd", "adabelief"])
def test_an_optimizer_of_optaxs_is_recorded_whether_the_layout_knows_its_state_or_not(
    name: str,
) -> None:
    model = nnx.Linear(3, 2, rngs=nnx.Rngs(0))
    params, layout = nnx.to_pure_dict(nnx.state(model, nnx.Param)), module_layout(model)
    tx = watch(getattr(optax, name)(0.1))
    grads = jax.tree.map(jnp.ones_like, params)
    updates, state = tx.update(grads, tx.init(params), params)
    with record(params, layout=layout) as rec:
        rec.step(loss=1.0, params=optax.apply_updates(params, updates), opt_state=state)
    assert {*rec.trace.raw_grads} == {"weight", "bias"}
    arrays = {array.tobytes() for array in rec.trace.opt_state.values()}
    assert len(arrays) >= len({leaf.tobytes() for leaf in jax.tree.leaves(unwatched(state))})


def test_what_was_finished_stays_readable(tmp_path: Path) -> None:
    refused(told(ONCE, LARGER, out=tmp_path / "trace"), "step 2")
    stored = twinstep.open_trace(tmp_path / "trace")
    assert (stored.steps, stored.complete) == (1, False)
    refused(lambda: record(PARAMS, out=tmp_path / "trace"), "is not empty")


def test_pytorch_is_not_needed() -> None:
    loop = """
import jax, jax.numpy as jnp, optax
from twinstep.jax import record, watch
params, tx = {"w": jnp.ones(2)}, watch(optax.sgd(0.1))
opt_state = tx.init(params)
with record(params, out=folder) as rec:
    for _ in range(3):
        loss, grads = jax.value_and_grad(lambda p: jnp.sum(p["w"] ** 2))(params)
        updates, opt_state = tx.update(grads, opt_state, params)
        params = optax.apply_updates(params, updates)
        rec.step(loss=loss, params=params, opt_state=opt_state)
"""
    check_alone("jax", loop, without=("torch",))
