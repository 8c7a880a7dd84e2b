"""Pointwise layers that keep something: what they draw from, under jit and scan; batch norm's
statistics, over a mapped axis too; tables."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx
from helpers.layers_pointwise import X1, drawn

from twinstep import InputError, TorchGenerator
from twinstep.jax import nn

pytestmark = pytest.mark.quick_to_compile

DROPPING: dict[str, tuple[int, ...]] = {
    "Dropout": (3, 4),
    "Dropout1d": (3, 4, 2),
    "Dropout2d": (3, 4, 2, 2),
    "Dropout3d": (3, 4, 2, 2, 2),
    "AlphaDropout": (3, 4),
    "FeatureAlphaDropout": (3, 4, 2),
    "RReLU": (3, 4),
}


@pytest.mark.parametrize("name", DROPPING)
def test_five_steps_draw_as_pytorchs(name: str) -> None:
    """Compiled, and in a scan that carries the state; where as many words are used as PyTorch."""
    xs = drawn(5, *DROPPING[name]).astype("float32")
    torch.manual_seed(7)
    theirs = getattr(torch.nn, name)()
    wanted = np.stack([theirs(torch.tensor(x)).numpy() for x in xs])
    left = torch.rand(3).numpy()

    layer = getattr(nn, name)(generator=TorchGenerator(7))
    compiled = nnx.jit(lambda layer, x: layer(x))
    found = jnp.stack([compiled(layer, x) for x in jnp.asarray(xs)])
    np.testing.assert_allclose(found, wanted, rtol=1e-6, atol=1e-7)
    assert np.array_equal(layer.generator.rand(3), left)

    graph, state = nnx.split(getattr(nn, name)(generator=TorchGenerator(7)))

    def stepped(state: Any, x: Any) -> Any:
        layer = nnx.merge(graph, state)
        out = layer(x)
        return nnx.state(layer), out

    state, found = jax.jit(lambda state, xs: jax.lax.scan(stepped, state, xs))(
        state, jnp.asarray(xs)
    )
    np.testing.assert_allclose(found, wanted, rtol=1e-6, atol=1e-7)
    assert np.array_equal(nnx.merge(graph, state).generator.rand(3), left)


def test_a_module_that_a_compiled_function_closes_over_is_refused() -> None:
    """Its masks would be the same in every call."""
    layer = nn.Dropout()
    with pytest.raises(InputError, match=r"dropout: .* pass generator= of the module or key="):
        jax.jit(layer)(jnp.ones(3))
    assert jax.jit(layer.eval())(jnp.ones(3)).tolist() == [1.0, 1.0, 1.0]


def test_a_copy_draws_for_itself() -> None:
    """It writes into no array that the layer has too."""
    layer = nn.Dropout(generator=TorchGenerator(0))
    graph, state = nnx.split(layer)
    copied = nnx.merge(graph, state, copy=True)
    one = copied(jnp.ones(40))
    assert not np.array_equal(one, copied(jnp.ones(40)))
    assert np.array_equal(one, layer(jnp.ones(40)))


def test_keys_draw_too() -> None:
    layer = nn.Dropout(0.25, rngs=nnx.Rngs(dropout=0))
    jitted = nnx.jit(lambda layer, x: layer(x))
    one, other = jitted(layer, jnp.ones(4000)), jitted(layer, jnp.ones(4000))
    assert not np.array_equal(one, other)
    assert abs(float(jnp.mean(one)) - 1) < 0.05  # its standard deviation is .009
    assert {*np.unique(one)} == {np.float32(0), np.float32(4 / 3)}


# ------------------------------------------------------------------------------ SyncBatchNorm


@pytest.mark.parametrize("momentum", [0.3, None])
def test_batches_of_a_mapped_axis_are_one(momentum: float | None) -> None:
    """Output, gradients and buffers are those of BatchNorm of the whole batch."""
    with jax.enable_x64(True):
        x = jnp.asarray(drawn(12, 3, 5))
        weight = {"weight": drawn(3, seed=1), "bias": drawn(3, seed=2)}
        whole = nn.BatchNorm1d(3, momentum=momentum)
        parts = nn.SyncBatchNorm(3, momentum=momentum, axis_name="batch")
        for layer in (whole, parts):
            nn.load_state_dict(layer, weight, strict=False)
        scale = jnp.asarray(drawn(12, 3, 5, seed=3))

        def total(layer: Any, mapped: bool) -> Any:
            graph, *states = nnx.split(layer, nnx.Param, ...)
            params, rest = states

            def loss(params: Any, x: Any) -> Any:
                def called(x: Any) -> Any:
                    fresh = nnx.merge(graph, params, rest, copy=True)
                    return fresh(x), nnx.state(fresh, nnx.BatchStat)

                if not mapped:
                    out, buffers = called(x)
                else:
                    out, buffers = jax.vmap(called, axis_name="batch", out_axes=(0, None))(
                        x.reshape(4, 3, 3, 5)
                    )
                return jnp.sum(out.reshape(x.shape) * scale), (out.reshape(x.shape), buffers)

            return jax.grad(loss, (0, 1), has_aux=True)(params, x)

        for one, other in zip(
            jax.tree.leaves(total(parts, True)), jax.tree.leaves(total(whole, False)), strict=True
        ):
            np.testing.assert_allclose(one, other, rtol=1e-12, atol=1e-13)


def test_what_is_over_a_mapped_axis_is_refused() -> None:
    layer = nn.SyncBatchNorm(3, axis_name="batch")
    with pytest.raises(InputError, match="axis_name is 'batch', expected an axis that is mapped"):
        layer(jnp.ones((2, 3)))
    assert layer.eval()(jnp.ones((1, 3))).shape == (1, 3)
    plain = nn.SyncBatchNorm(3, track_running_stats=False, axis_name="batch")
    with pytest.raises(InputError, match="more than 1 value per channel"):
        jax.vmap(plain, axis_name="batch")(jnp.ones((1, 1, 3)))
    assert jax.vmap(plain, axis_name="batch")(jnp.ones((2, 1, 3))).shape == (2, 1, 3)
    with pytest.raises(InputError, match="process_group"):
        nn.SyncBatchNorm(3, process_group="gloo")
    with pytest.raises(InputError, match=r"expected \(N, 3, ...\)"):
        jax.vmap(plain, axis_name="batch")(jnp.ones((2, 2, 4)))


def test_a_net_is_converted() -> None:
    net = nn.Sequential(nn.Linear(2, 3), nn.Sequential(nn.BatchNorm1d(3, 1e-3, None, bias=False)))
    norm = net[1][0].eval()
    made = nn.SyncBatchNorm.convert_sync_batchnorm(net, axis_name="batch")
    assert made is net
    sync = net[1][0]
    assert type(sync) is nn.SyncBatchNorm
    assert (sync.eps, sync.momentum, sync.axis_name) == (1e-3, None, "batch")
    assert sync.weight is norm.weight
    assert sync.bias is None
    assert sync.training is False
    alone = nn.SyncBatchNorm.convert_sync_batchnorm(norm)
    assert type(alone) is nn.SyncBatchNorm


# ------------------------------------------------------------------------------ tables


def test_a_table_of_ones_own() -> None:
    table = jnp.asarray(drawn(4, 3), "float32")
    for kind in (nn.Embedding, nn.EmbeddingBag):
        layer = kind.from_pretrained(table, padding_idx=1)
        assert np.array_equal(layer.weight[...], table)  # row 1 too, as in PyTorch
        assert layer.weight.get_metadata()["requires_grad"] is False
        assert kind.from_pretrained(table, False).weight.get_metadata()["requires_grad"]
        with pytest.raises(InputError, match="embeddings is of shape"):
            kind.from_pretrained(table[0])


def test_running_statistics_start_anew() -> None:
    layer = nn.BatchNorm1d(3)
    layer(jnp.asarray(X1))
    layer.reset_running_stats()
    fresh = nn.state_dict(nn.BatchNorm1d(3))
    assert all(np.array_equal(a, fresh[k]) for k, a in nn.state_dict(layer).items())
