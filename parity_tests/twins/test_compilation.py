"""Training leaves nothing behind: no second compilation, no changed setting, no changed array.

A chunk of steps is one compiled call; a chunk of the same length must find it compiled already.
`jax.no_tracing` refuses every trace, and so every compilation, while it lasts.
"""

import dataclasses
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
import pytest
import torch

import twinstep
from twinstep.problems.mnist_rnn import MnistRnn
from twinstep.problems.regression import LinearRegression
from twinstep.runs import launch

each_training = pytest.mark.parametrize(
    ("spec", "max_steps", "warm", "still"),
    [
        pytest.param(LinearRegression(steps=100), 25, 1, 3, id="full batch"),
        pytest.param(LinearRegression(dtype="float64", steps=60), 20, 1, 2, id="rounding noise"),
        # an epoch of 1500 digits is three full batches, in one chunk, and one of 300, in another
        pytest.param(MnistRnn(hidden_size=12, batch_size=400, epochs=3), 3, 2, 2, id="mnist_rnn"),
    ],
)
"""In chunks of at most `max_steps` steps: the first `warm` may compile, the `still` that come next
may not. A last chunk is followed by the evaluation of the test images, which is no part of the
loop. In float64 the rounding noise is measured too.
"""


@each_training
def test_recorder_compiles_no_chunk_twice(
    spec: twinstep.Spec, max_steps: int, warm: int, still: int
) -> None:
    driver = launch.driver("jax", spec, rounding_noise=spec.dtype == "float64")
    chunks = driver.chunks(max_steps)
    lengths = [len(next(chunks)) for _ in range(warm)]
    with jax.no_tracing(True):
        later = [len(next(chunks)) for _ in range(still)]
    assert set(later) <= set(lengths)
    assert sum(lengths) + sum(later) <= spec.total_steps


@each_training
def test_replay_compiles_no_chunk_twice(
    spec: twinstep.Spec, max_steps: int, warm: int, still: int
) -> None:
    recorded = launch.driver("torch", spec).chunks(max_steps)
    pairs = zip(recorded, spec.batches().chunks(max_steps), strict=False)
    replay = launch.replay(spec)
    for _ in range(warm):
        replay(*next(pairs))
    with jax.no_tracing(True):
        for _ in range(still):
            theirs, index = next(pairs)
            replayed, _ = replay(theirs, index)
            assert replayed.start == theirs.start > 0


def test_another_length_is_noticed() -> None:
    """Uneven chunks: 100 steps in chunks of 33, 33 and 34 compile twice."""
    driver = launch.driver("jax", LinearRegression(steps=100))
    chunks = driver.chunks(34)
    assert len(next(chunks)) == 33
    with jax.no_tracing(True):
        assert len(next(chunks)) == 33
        with pytest.raises(RuntimeError, match="no_tracing"):
            next(chunks)


def settings() -> dict[str, Any]:
    """What belongs to the user: dtypes, random states, threads, precisions, JAX's switches."""
    return {
        "torch dtype": torch.get_default_dtype(),
        "torch draws": torch.get_rng_state().numpy().tobytes(),
        "torch threads": torch.get_num_threads(),
        "torch precision": torch.get_float32_matmul_precision(),
        "torch tf32": torch.backends.cudnn.allow_tf32,
        "torch gradients": torch.is_grad_enabled(),
        "torch deterministic": torch.are_deterministic_algorithms_enabled(),
        "numpy draws": repr(np.random.get_state(legacy=False)),
        "numpy errors": tuple(np.geterr().items()),
        **{name: getattr(jax.config, f"jax_{name}") for name in _JAX.split()},
    }


_JAX = "enable_x64 default_matmul_precision default_device numpy_dtype_promotion debug_nans"


@pytest.fixture(params=["untouched", "set by the user"])
def users(request: pytest.FixtureRequest) -> Iterator[None]:
    """The defaults, or settings that a user made before; PyTorch's are put back after any test."""
    x64 = jax.config.read("jax_enable_x64")
    if request.param == "set by the user":
        jax.config.update("jax_enable_x64", True)
        torch.set_default_dtype(torch.float16)
        torch.manual_seed(77)
    yield
    jax.config.update("jax_enable_x64", x64)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("framework", launch.FRAMEWORKS)
def test_run_leaves_settings_as_they_were(framework: str, dtype: Any, users: None) -> None:
    before = settings()
    twinstep.run(LinearRegression(dtype=dtype, steps=3), framework, rounding_noise=False)
    assert settings() == before
    # also where a run is broken off
    chunks = launch.driver(framework, LinearRegression(dtype=dtype, steps=4)).chunks(2)
    next(chunks)
    assert settings() == before
    chunks.close()
    assert settings() == before


def test_failing_run_leaves_settings_as_they_were(monkeypatch: pytest.MonkeyPatch) -> None:
    before = settings()
    spec = LinearRegression(dtype="float64", steps=3)
    for framework, function in (("torch", "train"), ("jax", "make_train_step")):
        monkeypatch.setattr(launch.example(framework, spec), function, lambda *_, **__: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            twinstep.run(spec, framework, rounding_noise=False)
        assert settings() == before


def test_changed_setting_is_noticed() -> None:
    before = settings()
    with torch.random.fork_rng(devices=[]):
        torch.rand(1)
        assert settings() != before
    with jax.enable_x64(True):
        assert settings() != before
    assert settings() == before


READERS = {
    "full batch": LinearRegression(steps=3),
    "single samples": twinstep.examples()["sgd_single_sample"](steps=3),
    "Adam, GRU": twinstep.examples()["parameter_groups"](steps=3),
    "gradients that pile up": twinstep.examples()["without_zero_grad"](steps=3),
    "images": MnistRnn(hidden_size=4, steps=3),
}


def arrays(spec: twinstep.Spec) -> dict[str, np.ndarray]:
    """Every array that a spec hands out."""
    given = {f"params.{name}": array for name, array in spec.initial_params().items()}
    given |= {f"data.{name}": array for name, array in spec.batches().data.items()}
    if isinstance(spec, MnistRnn):
        given |= {name: array for name, array in vars(spec.images).items() if name != "name"}
    return given


def contents(spec: twinstep.Spec) -> dict[str, bytes]:
    """What is in every array that a spec hands out."""
    return {name: array.tobytes() for name, array in arrays(spec).items()}


@pytest.mark.parametrize("spec", READERS.values(), ids=READERS)
def test_runs_leave_the_specs_arrays_alone(spec: twinstep.Spec) -> None:
    spec = dataclasses.replace(spec)
    before = contents(spec)
    for framework in launch.FRAMEWORKS:
        trace = twinstep.run(spec, framework, rounding_noise=False)
        assert contents(spec) == before
        for name, array in arrays(spec).items():
            assert not array.flags.writeable, name
            with pytest.raises(ValueError, match="read-only"):
                array.flat[0] = 0
        # nor does a trace share their memory, or that of the parameters that went on changing
        for name, array in trace.params.items():
            assert not any(np.shares_memory(array, given) for given in arrays(spec).values())
            np.testing.assert_array_equal(array[0], spec.initial_params()[name])
            assert np.any(array[1:] != array[:-1])


def test_changed_array_is_noticed() -> None:
    spec = LinearRegression()
    before = contents(spec)
    bias = spec.initial_params()["bias"]
    bias.setflags(write=True)
    bias += 1e-7
    assert contents(spec) != before
