"""The GAN's two optimizers update in turn: both programs recorded as they are, row by row."""

import dataclasses
import functools
from collections.abc import Iterator
from types import ModuleType

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from faults.plants_anywhere import altered
from flax import nnx

import jax_impl.dcgan as ours
import torch_impl.dcgan as theirs
import twinstep.jax
import twinstep.torch
from twinstep.jax import nn
from twinstep.jax.layout import module_layout
from twinstep.judge.findings import Comparison
from twinstep.problems.nets.dcgan import Dcgan
from twinstep.trace.ledger import Trace

NETWORKS = ("generator", "discriminator")
UPDATES = 50
"""Of both networks together, in turn."""
ALIKE = 1e-11
"""Of a leaf's largest entry, in float64, after 50 updates: thousands of times what was measured."""


@functools.cache
def problem() -> Dcgan:
    return Dcgan(dtype="float64")


def batches(steps: int) -> list[np.ndarray]:
    chunk = next(problem().chunks(steps))
    assert chunk.indices is not None
    return list(problem().batches().data["images"][chunk.indices])


def silent(line: str) -> None:
    """Says nothing."""


@pytest.fixture(autouse=True)
def in_float64() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    with jax.enable_x64(True):
        yield
    torch.set_default_dtype(torch.float32)


def torch_trace(steps: int) -> Trace:
    """PyTorch's program, recorded from outside: a row an update."""
    torch.manual_seed(problem().seed)
    model, criterion, optimizer = theirs.build(problem())
    loader = [(torch.tensor(images),) for images in batches(steps)]
    names = dict(zip(NETWORKS, optimizer, strict=True))
    with twinstep.torch.record(**dict(zip(NETWORKS, model, strict=True)), optimizers=names) as rec:
        theirs.train(model, criterion, optimizer, [loader], problem().noise_size, log=silent)
    return rec.trace


def jax_trace(program: ModuleType, steps: int) -> tuple[Trace, dict[str, np.ndarray]]:
    """JAX's step, told update by update in PyTorch's order, and the buffers after the last."""
    nn.manual_seed(problem().seed)
    model, criterion, optimizer = program.build(problem())
    optimizer = tuple(map(twinstep.jax.watch, optimizer))
    states = program.init_state(model, optimizer)
    train_step = program.make_train_step(model, criterion, optimizer)
    layout = {name: module_layout(one) for name, one in zip(NETWORKS, model, strict=True)}
    start = {name: state[0] for name, state in zip(NETWORKS, states, strict=True)}
    with twinstep.jax.record(start, layout=layout) as rec:
        for images in batches(steps):
            noise = nn.default_generator().randn(len(images), problem().noise_size, 1, 1)
            states, (against, loss) = train_step(states, jnp.asarray(images), noise)
            (made_by, made_state, _), (params, opt_state, _) = states
            rec.step(name="discriminator", loss=against, params=params, opt_state=opt_state)
            rec.step(name="generator", loss=loss, params=made_by, opt_state=made_state)
    buffers: dict[str, np.ndarray] = {}
    for name, network, (_, _, rest) in zip(NETWORKS, model, states, strict=True):
        nnx.update(network, rest)
        found = network.named_buffers()
        buffers |= {f"{name}.{key}": np.asarray(buffer[...]) for key, buffer in found}
    return rec.trace, buffers


def verdict(one: Trace, other: Trace) -> Comparison:
    """What the judge says of both, of what JAX's side was told of."""
    return twinstep.compare(*map(_bare, (one, other)))


def _bare(trace: Trace) -> Trace:
    left_out = "batch", "rng", "buffers"
    rows = {key: at for key, at in trace.rows.items() if key.partition("/")[0] not in left_out}
    return dataclasses.replace(trace, rows=rows, batch={}, rng={}, buffers={})


def farthest(one: Trace, other: Trace) -> float:
    """How far two traces are apart anywhere, as a part of a leaf's largest entry."""
    assert len(one) == len(other)
    apart = [np.max(np.abs(one.losses - other.losses)) / np.max(np.abs(one.losses))]
    for stage in ("raw_grads", "opt_state", "params"):
        left, right = getattr(one, stage), getattr(other, stage)
        assert left.keys() == right.keys()
        for name, array in left.items():
            assert array.shape == right[name].shape
            largest = max(float(np.max(np.abs(array))), 1e-300)
            apart.append(float(np.max(np.abs(array - right[name]))) / largest)
    return max(apart)


def starting_values() -> dict[str, np.ndarray]:
    model, _, _ = theirs.build(problem())
    return {
        f"{name}.{key}": parameter.detach().numpy()
        for name, network in zip(NETWORKS, model, strict=True)
        for key, parameter in network.named_parameters()
    }


def test_it_starts_where_pytorch_does() -> None:
    torch.manual_seed(problem().seed)
    wanted, ours = starting_values(), problem().initial_params()
    assert list(ours) == list(wanted)
    assert all(ours[name].tobytes() == wanted[name].tobytes() for name in ours)
    stands = torch.get_rng_state().numpy()
    assert np.array_equal(stands, problem().generator().get_state())


@pytest.fixture(scope="module")
def recorded() -> Iterator[Trace]:
    torch.set_default_dtype(torch.float64)
    yield torch_trace(UPDATES // 2)
    torch.set_default_dtype(torch.float32)


def test_both_train_the_same(recorded: Trace) -> None:
    trace, buffers = jax_trace(ours, UPDATES // 2)
    assert len(trace) == UPDATES
    assert farthest(recorded, trace) < ALIKE
    assert recorded.buffers.keys() == buffers.keys()
    for name, rows in recorded.buffers.items():
        np.testing.assert_allclose(buffers[name], rows[-1], rtol=ALIKE)
    assert verdict(recorded, trace).verdict == "rounding"


# Naive ports

NAIVE = {
    "one optimizer's betas": (
        (
            "generators = adam(lr=problem.learning_rate, betas=problem.betas)",
            "generators = adam(lr=problem.learning_rate)",
        ),
        (2, "opt_state"),
    ),
    "real and made images in one batch": (
        (
            "        real_loss = criterion(discriminator(images), jnp.ones(len(images)))\n"
            "        fake_loss = criterion(discriminator(fakes), jnp.zeros(len(images)))\n",
            "        both = discriminator(jnp.concatenate([images, fakes]))\n"
            "        real_loss = criterion(both[: len(images)], jnp.ones(len(images)))\n"
            "        fake_loss = criterion(both[len(images) :], jnp.zeros(len(images)))\n",
        ),
        (1, "loss"),
    ),
    "both at once, from the same parameters": (
        (
            "grad_fn(made_by, made_rest, noise, params, rest)",
            "grad_fn(made_by, made_rest, noise, states[1][0], rest)",
        ),
        (2, "loss"),
    ),
}


@pytest.mark.parametrize("name", NAIVE)
def test_a_naive_port_is_found_out(name: str, recorded: Trace) -> None:
    texts, spot = NAIVE[name]
    trace, _ = jax_trace(altered(ours, *texts), UPDATES // 2)
    assert farthest(recorded, trace) > 1e3 * ALIKE
    first = verdict(recorded, trace).first
    assert first is not None
    assert (first.step, first.stage) == spot
