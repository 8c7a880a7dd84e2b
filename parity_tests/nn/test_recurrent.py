"""Recurrent layers where they are given packed sequences, trained, derived twice, mapped, refused.

Their options, outputs and gradients are in test_layers.py, by helpers/layers_recurrent.py.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from faults.plants_jax import GRUWithoutHiddenBias
from flax import nnx
from helpers.kit_parity import Case, differences
from helpers.layer_parity import Layer, differences_of_layer
from helpers.synthetic_traces import refused

from twinstep.jax import nn
from twinstep.jax.nn.utils import rnn as ours

pytestmark = [pytest.mark.quick_to_compile, pytest.mark.usefixtures("x64")]

theirs = torch.nn.utils.rnn
DEEP = {"num_layers": 2, "bidirectional": True}
LAYERS: dict[str, dict[str, Any]] = {
    "RNN": {"nonlinearity": "relu"},
    "LSTM": {"proj_size": 2, **DEEP},
    "GRU": {"dropout": 0.4, **DEEP},
}
LENGTHS = {"sorted": [5, 3, 3, 1], "not sorted": [2, 5, 1, 4], "equal": [3, 3, 3, 3]}


def made(name: str, **options: Any) -> tuple[Any, Any]:
    """PyTorch's layer and the kit's, of one seed, in float64."""
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(4)
    nn.manual_seed(4)
    return getattr(torch.nn, name)(2, 3, **options), getattr(nn, name)(2, 3, **options)


def numbers(*shape: int) -> Any:
    return np.random.default_rng(5).normal(size=shape)


# Packed sequences


def over_packed(layer: Any, kit: Any, lengths: list[int]) -> Callable[..., Any]:
    """(x, states) -> all that comes of packing, the layer, padding."""

    def run(x: Any, states: Any) -> Any:
        packed = kit.pack_padded_sequence(x, lengths, enforce_sorted=lengths[0] == max(lengths))
        output, last = layer(packed, states)
        padded, known = kit.pad_packed_sequence(output, total_length=6, padding_value=0.5)
        return output.data, padded, np.asarray(known), last

    return run


def packed_off(name: str, lengths: list[int], jit: bool) -> list[str]:
    twin, layer = made(name, **LAYERS[name])
    layers = twin.num_layers * (2 if twin.bidirectional else 1)
    h, c = numbers(layers, 4, twin.proj_size or 3), numbers(layers, 4, 3)
    graph, state = nnx.split(layer)
    seeded = torch.get_rng_state()

    def in_torch(*given: Any) -> Any:
        torch.set_rng_state(seeded)  # dropout's masks are those after the first values
        return over_packed(twin, theirs, lengths)(*given)

    def in_kit(*given: Any) -> Any:
        return over_packed(nnx.merge(graph, state, copy=True), ours, lengths)(*given)

    case = Case((numbers(5, 4, 2), (h, c) if name == "LSTM" else h))
    return differences(in_kit, in_torch, case, jit=jit)


@pytest.mark.parametrize("name", LAYERS)
def test_packed_sequences_are_run_over(name: str) -> None:
    assert packed_off(name, LENGTHS["not sorted"], jit=False) == []


@pytest.mark.slow
@pytest.mark.parametrize("lengths", LENGTHS.values(), ids=LENGTHS)
@pytest.mark.parametrize("name", LAYERS)
def test_packed_sequences_of_all_lengths(name: str, lengths: list[int]) -> None:
    assert packed_off(name, lengths, jit=True) == []


def plain(value: Any) -> Any:
    """Arrays in NumPy, all else as it is."""
    if isinstance(value, tuple | list):
        return [plain(v) for v in value]
    return value if value is None else np.asarray(value)


def test_sequences_are_packed_and_padded() -> None:
    rows = [numbers(n, 2) for n in (2, 4, 1)]
    padded, lengths = numbers(3, 4, 2), [2, 4, 1]
    calls: list[Callable[[Any, Any], Any]] = [
        lambda kit, to: kit.pack_sequence([to(r) for r in rows], enforce_sorted=False),
        lambda kit, to: kit.pack_sequence([to(r[:, 0]) for r in sorted(rows, key=len)[::-1]]),
        lambda kit, to: kit.unpack_sequence(kit.pack_sequence([to(r) for r in rows], False)),
        lambda kit, to: kit.pad_sequence([to(r) for r in rows], padding_value=2.0),
        lambda kit, to: kit.pad_sequence([to(r) for r in rows], True, padding_side="left"),
        lambda kit, to: kit.unpad_sequence(to(padded), torch.tensor(lengths), batch_first=True),
        lambda kit, to: kit.unpad_sequence(to(padded.swapaxes(0, 1).copy()), torch.tensor(lengths)),
        lambda kit, to: kit.pack_padded_sequence(to(padded), lengths, True, False),
        lambda kit, to: kit.PackedSequence(
            to(padded[:, 0]), torch.tensor([2, 1]), torch.tensor([1, 0])
        ),
    ]
    for call in calls:
        found, wanted = plain(call(ours, jnp.asarray)), plain(call(theirs, torch.tensor))
        jax.tree.map(np.testing.assert_array_equal, found, wanted)
        assert [a.dtype for a in jax.tree.leaves(found)] == [
            a.dtype for a in jax.tree.leaves(wanted)
        ]


def test_packed_sequences_pass_through_jit() -> None:
    packed = ours.pack_sequence([jnp.ones(2), jnp.ones(3)], enforce_sorted=False)
    doubled = jax.jit(lambda p: jax.tree.map(lambda a: 2 * a, p))(packed)
    assert isinstance(doubled, ours.PackedSequence)
    np.testing.assert_array_equal(doubled.data, 2 * packed.data)
    np.testing.assert_array_equal(doubled.unsorted_indices, [1, 0])


# Training, second derivatives, many at once


@pytest.mark.slow
@pytest.mark.parametrize("name", LAYERS)
def test_20_steps_of_sgd(name: str) -> None:
    """Each within 1e-12 of PyTorch's parameters, dropout's masks included."""
    twin, layer = made(name, **LAYERS[name])
    x = numbers(5, 4, 2)
    graph, (params, rest) = nnx.graphdef(layer), nnx.state(layer, nnx.Param, nnx.RngState)

    @jax.jit
    def step(params: Any, rest: Any) -> Any:
        def loss(params: Any) -> Any:
            module = nnx.merge(graph, params, rest, copy=True)
            return jnp.mean(module(x)[0] ** 2), nnx.state(module, nnx.RngState)

        grads, after = jax.grad(loss, has_aux=True)(params)
        return jax.tree.map(lambda p, g: p - 0.5 * g, params, grads), after

    optimizer = torch.optim.SGD(twin.parameters(), lr=0.5)
    for _ in range(20):
        optimizer.zero_grad()
        (twin(torch.tensor(x))[0] ** 2).mean().backward()
        optimizer.step()
        params, rest = step(params, rest)
        named = nnx.to_pure_dict(params)
        for key, wanted in twin.named_parameters():
            np.testing.assert_allclose(named[key], wanted.detach().numpy(), rtol=0, atol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("name", LAYERS)
def test_a_gradient_of_a_gradient(name: str) -> None:
    """Of the gradient's squares, by the input. 1e-12 of the largest: two sums over all steps."""
    twin, layer = made(name, **{**LAYERS[name], "dropout": 0.0})
    x = torch.tensor(numbers(5, 4, 2), requires_grad=True)
    (grad,) = torch.autograd.grad((twin(x)[0] ** 2).sum(), x, create_graph=True)
    wanted = torch.autograd.grad((grad**2).sum(), x)[0].numpy()

    def once(x: Any) -> Any:
        return jax.grad(lambda x: jnp.sum(layer(x)[0] ** 2))(x)

    found = jax.grad(lambda x: jnp.sum(once(x) ** 2))(x.detach().numpy())
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-12 * np.abs(wanted).max())


def test_many_at_once() -> None:
    _, layer = made("RNN")
    x = numbers(3, 5, 4, 2)

    def grad(x: Any) -> Any:
        return jax.grad(lambda x: jnp.sum(layer(x)[0] ** 2))(x)

    one_by_one = np.stack([grad(jnp.asarray(each)) for each in x])
    # each is a product of another shape: some eps of its terms, which are below 10
    np.testing.assert_allclose(jax.vmap(grad)(jnp.asarray(x)), one_by_one, rtol=0, atol=1e-14)


# Ports as people write them


def parts(layer: Any) -> Any:
    """What it is, and its parameters."""
    return nnx.split(layer)


class Merged(nn.RNN):
    """With one bias, as flax.nnx.SimpleCell has it: its half does not train."""

    def forward(self, input: Any, hx: Any = None) -> Any:
        graph, params = parts(self)
        both = self.bias_ih_l0[...] + self.bias_hh_l0[...]
        params["bias_ih_l0"].set_value(both - jax.lax.stop_gradient(self.bias_hh_l0[...]))
        params["bias_hh_l0"].set_value(jax.lax.stop_gradient(self.bias_hh_l0[...]) * 0)
        return nn.RNN.forward(nnx.merge(graph, params), input, hx)


class OtherOrder(nn.LSTM):
    """With gates i, g, f, o, as TensorFlow has them."""

    def forward(self, input: Any, hx: Any = None) -> Any:
        graph, params = parts(self)
        for name in ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0"):
            i, f, g, o = jnp.split(getattr(self, name)[...], 4)
            params[name].set_value(jnp.concatenate([i, g, f, o]))
        return nn.LSTM.forward(nnx.merge(graph, params), input, hx)


@pytest.mark.parametrize("wrong", [Merged, OtherOrder, GRUWithoutHiddenBias])
def test_a_naive_port_is_noticed(wrong: Any) -> None:
    name = wrong.__mro__[1].__name__
    row = Layer((2, 3), inputs=(numbers(4, 5, 2),))
    assert differences_of_layer(name, row, jit=False) == []
    assert differences_of_layer(name, row, jit=False, ours=lambda: wrong(2, 3)) != []


# What PyTorch refuses

X = np.ones((4, 3, 2))
REFUSED: dict[str, tuple[Callable[[Any, Any], Any], str]] = {
    "input size": (lambda m, to: m.GRU(2, 3)(to(np.ones((4, 3, 5)))), "expected (T, N, 2)"),
    "axes": (lambda m, to: m.RNN(2, 3)(to(np.ones(2))), "RNN: input has shape (2,)"),
    "no step": (lambda m, to: m.LSTM(2, 3)(to(np.ones((0, 3, 2)))), "a time step or more"),
    "dtype": (lambda m, to: m.GRU(2, 3)(to(X.astype("float32"))), "input is float32"),
    "hx": (lambda m, to: m.GRU(2, 3)(to(X), to(np.ones((1, 4, 3)))), "expected (1, 3, 3)"),
    "hx without N": (lambda m, to: m.RNN(2, 3)(to(X), to(np.ones((1, 3)))), "hx has shape (1, 3)"),
    "hx with N": (lambda m, to: m.RNN(2, 3)(to(X[0]), to(np.ones((1, 1, 3)))), "expected (1, 3)"),
    "no c": (lambda m, to: m.LSTM(2, 3)(to(X), to(np.ones((1, 3, 3)))), "expected (h, c)"),
    "c": (
        lambda m, to: m.LSTM(2, 3)(to(X), (to(np.ones((1, 3, 3))), to(np.ones((1, 3, 2))))),
        "hx[1] has shape (1, 3, 2)",
    ),
    "proj_size": (lambda m, to: m.LSTM(2, 3, proj_size=3), "proj_size is 3"),
    "dropout": (lambda m, to: m.GRU(2, 3, 2, dropout=1.5), "dropout is 1.5"),
    "dropout True": (lambda m, to: m.GRU(2, 3, 2, dropout=True), "dropout is True"),
    "hidden_size": (lambda m, to: m.RNN(2, 0), "hidden_size is 0"),
    "num_layers": (lambda m, to: m.RNN(2, 3, 0), "num_layers is 0"),
    "bias": (lambda m, to: m.GRU(2, 3, 1, 1), "bias is 1"),
    "nonlinearity": (lambda m, to: m.RNN(2, 3, nonlinearity="elu"), "nonlinearity is 'elu'"),
    "a cell's": (lambda m, to: m.RNNCell(2, 3, nonlinearity="elu")(to(X[0])), "is 'elu'"),
    "cell's input": (lambda m, to: m.LSTMCell(2, 3)(to(X)), "expected (N, 2) or (2,)"),
    "cell's hx": (lambda m, to: m.GRUCell(2, 3)(to(X[0]), to(np.ones((2, 3)))), "(2, 3)"),
    "lengths": (lambda m, to: m.utils.rnn.pack_padded_sequence(to(X), [4, 2]), "one of 3"),
    "order": (lambda m, to: m.utils.rnn.pack_padded_sequence(to(X), [1, 2, 4]), "longest first"),
    "a length of 0": (lambda m, to: m.utils.rnn.pack_padded_sequence(to(X), [4, 2, 0]), "1 to 4"),
    "no sequences": (lambda m, to: m.utils.rnn.pad_sequence([]), "shapes are []"),
    "side": (lambda m, to: m.utils.rnn.pad_sequence([to(X)], padding_side="up"), "'up'"),
    "total": (
        lambda m, to: m.utils.rnn.pad_packed_sequence(
            m.utils.rnn.pack_sequence([to(X)]), total_length=2
        ),
        "total_length is 2, expected 4",
    ),
}


def test_what_pytorch_refuses_is_refused() -> None:
    torch.set_default_dtype(torch.float64)
    for call, says in REFUSED.values():
        with pytest.raises((RuntimeError, ValueError, TypeError, IndexError)):
            call(torch.nn, torch.tensor)
        refused(functools.partial(call, nn, jnp.asarray), says)


def test_lengths_have_to_be_known() -> None:
    def packed(lengths: Any) -> Any:
        return ours.pack_padded_sequence(jnp.ones((2, 2)), lengths).data

    refused(lambda: jax.jit(packed)(jnp.array([2, 1])), "lengths", "known")


def test_dropout_of_one_layer_is_warned_of() -> None:
    with pytest.warns(UserWarning, match="expected num_layers above 1"):
        nn.GRU(2, 3, dropout=0.5)
