"""A start that is laid out wrongly is repaired by one change, which the first loss confirms."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from port.ports import torch_trace
from port.programs import conv_nnx, gru_dicts, transformer_linen
from twinstep.errors import InputError
from twinstep.jax.layout_search import repairs
from twinstep.trace.ledger import Trace

pytestmark = [pytest.mark.quick_to_compile, pytest.mark.usefixtures("x64")]

Arrays = dict[str, np.ndarray]
Change = Callable[[np.ndarray], np.ndarray]
Loss = Callable[[Any, Any], jax.Array]

theirs = functools.cache(functools.partial(torch_trace, seed=3, dtype="float64", steps=1))


def start(trace: Trace, part: str = "", change: Change = np.asarray) -> Arrays:
    """PyTorch's arrays, those of a name changed."""
    arrays = {name: array[0] for name, array in {**trace.params, **trace.buffers}.items()}
    return {name: change(a) if part and part in name else a for name, a in arrays.items()}


def conv_loss() -> Loss:
    split: Any = nnx.split(conv_nnx.ConvNet(rngs=nnx.Rngs(0)), nnx.Param, nnx.BatchStat)
    graph, _, stats = split

    def loss_fn(params: Any, batch: Any) -> jax.Array:
        given = nnx.State(jax.tree.map(nnx.Param, params))
        model = nnx.merge(graph, given, stats, copy=True)
        return conv_nnx.criterion(model(batch["x"].transpose(0, 2, 3, 1)), batch["y"])

    return loss_fn


def transformer_loss(params: Any, batch: Any) -> jax.Array:
    logits: Any = transformer_linen.Transformer().apply({"params": params}, batch["x"])
    return transformer_linen.criterion(logits, batch["y"])


def gru_loss(params: Any, batch: Any) -> jax.Array:
    parts = [jnp.split(batch[name], gru_dicts.MICRO_BATCHES) for name in "xy"]
    each = [
        gru_dicts.criterion(gru_dicts.forward(params, x), y) for x, y in zip(*parts, strict=True)
    ]
    return jnp.mean(jnp.stack(each))


def thirds(*order: int) -> Change:
    return lambda fused: np.concatenate([np.split(fused, 3)[i] for i in order])


def by_pixels(weight: np.ndarray) -> np.ndarray:
    return weight.reshape(32, 8, 4).swapaxes(1, 2).reshape(32, 32)


FAULTS: list[tuple[str, Any, Callable[[], Loss], str, Change, str]] = [
    ("conv_nnx", conv_nnx, conv_loss, "fc1.weight", np.transpose, "axes in the order (1, 0)"),
    ("conv_nnx", conv_nnx, conv_loss, "fc1.weight", by_pixels, "taken as (4, -1)"),
    ("conv_nnx", conv_nnx, conv_loss, "conv2.weight", lambda w: w.swapaxes(0, 1), "(0, 1, 3, 2)"),
    ("conv_nnx", conv_nnx, conv_loss, "conv", lambda w: w[..., ::-1, ::-1] if w.ndim > 1 else w,
     "flipped along axes (0, 1)"),
    ("transformer_linen", transformer_linen, lambda: transformer_loss, "qkv", thirds(1, 0, 2),
     "in all of their parents: q for k, k for q"),
    ("gru_dicts", gru_dicts, lambda: gru_loss, "_l0", thirds(1, 0, 2),
     "update for reset, reset for update"),
    ("gru_dicts", gru_dicts, lambda: gru_loss, "weight_hh",
     lambda w: np.concatenate([part.T for part in np.split(w, 3)]), "axes in the order (1, 0)"),
]  # fmt: skip


@pytest.mark.parametrize(("port", "program", "loss_of", "part", "change", "says"), FAULTS)
def test_one_change_repairs_a_start(
    port: str, program: Any, loss_of: Callable[[], Loss], part: str, change: Change, says: str
) -> None:
    trace = theirs(port)
    wrong, right = (program.from_torch(start(trace, part, c)) for c in (change, np.asarray))
    found = repairs(loss_of(), wrong, trace.inputs_of(0), float(trace.losses[0]))
    assert any(says in repair.says for repair in found)
    jax.tree.map(np.testing.assert_array_equal, found[0].params, right)


def test_gates_of_fused_kernels_and_all_layers_transposed() -> None:
    rng = np.random.default_rng(0)
    right = {
        f"layer_{i}": {"w": rng.normal(size=(6, 6)) / 3, "b": rng.normal(size=6)} for i in range(3)
    } | {"gru": {"w": rng.normal(size=(6, 18)), "b": rng.normal(size=18)}}

    def loss_fn(params: Any, x: Any) -> tuple[jax.Array, None]:
        for i in range(3):
            x = jnp.tanh(x @ params[f"layer_{i}"]["w"] + params[f"layer_{i}"]["b"])
        r, z, n = jnp.split(x @ params["gru"]["w"] + params["gru"]["b"], 3, -1)
        return jnp.mean(jax.nn.sigmoid(z) * jnp.tanh(n * jax.nn.sigmoid(r))), None

    x = rng.normal(size=(4, 6))
    loss = float(loss_fn(right, x)[0])
    assert not repairs(loss_fn, right, x, loss)
    turned = {
        n: layer | {"w": layer["w"].T} if "layer" in n else layer for n, layer in right.items()
    }
    (repair,) = repairs(loss_fn, turned, x, loss)
    assert repair.leaves == ("layer_0.w", "layer_1.w", "layer_2.w")
    order = np.r_[12:18, 0:6, 6:12]
    gates = right | {"gru": {n: a[..., order] for n, a in right["gru"].items()}}
    (repair,) = repairs(loss_fn, gates, x, loss)
    assert repair.says == "parts of axis -1 in the order (1, 2, 0)"
    assert repair.leaves == ("gru.b", "gru.w")


def test_no_change_repairs_what_is_no_layout() -> None:
    trace = theirs("gru_dicts")
    params = gru_dicts.from_torch(start(trace, "head", lambda w: 1.01 * w))
    loss = float(trace.losses[0])
    assert not repairs(gru_loss, params, trace.inputs_of(0), loss)
    turned = gru_dicts.from_torch(start(trace, "_l0", thirds(1, 0, 2)))
    assert not repairs(gru_loss, turned, trace.inputs_of(0), loss, budget=1)


def test_later_losses_decide_what_the_first_leaves_open() -> None:
    """Where all features are alike, a matrix turned and one exchanged may give one loss."""
    rng = np.random.default_rng(0)

    def loss_fn(params: Any, x: Any) -> jax.Array:
        return jnp.tanh(x @ params["w"])[0] @ jnp.arange(4.0) + x[0] @ params["v"] @ x[1]

    right, moved, other = rng.normal(size=(3, 4, 4))
    alike, x = np.ones((2, 4)), rng.normal(size=(2, 4))
    loss = float(loss_fn({"w": right, "v": right}, alike))
    given = {"w": right.T, "v": right}, alike, loss
    assert {repair.leaves for repair in repairs(loss_fn, *given)} == {("w",), ("v", "w")}
    of_next = float(loss_fn({"w": moved, "v": other}, x))
    later = {"w": moved.T, "v": other}, x, of_next
    (repair,) = repairs(loss_fn, *given, later=[later])
    assert (repair.says, repair.leaves) == ("axes in the order (1, 0)", ("w",))
    assert not repairs(loss_fn, *given, later=[(*later[:2], of_next + 1e-3)])


def test_the_loss_is_compiled_once() -> None:
    traced = []

    def loss_fn(params: Any, batch: Any) -> jax.Array:
        traced.append(1)
        return jnp.sum(jnp.tanh(batch @ params["w"]) ** 3)

    rng = np.random.default_rng(0)
    params = {"w": rng.normal(size=(4, 4))}
    assert not repairs(loss_fn, params, rng.normal(size=(2, 4)), 1.0)
    assert len(traced) == 1


def test_a_loss_that_is_no_number_is_refused() -> None:
    with pytest.raises(InputError, match="first loss is nan, expected a finite number"):
        repairs(lambda params, batch: params, np.zeros(1), None, float("nan"))
