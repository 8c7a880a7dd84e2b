"""What every test shares: one thread for PyTorch, which two would race for on a small machine, and
one folder of compiled programs: many tests run the same ones."""

import gc
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import jax
import platformdirs
import pytest
import torch
from helpers.storing import write
from helpers.synthetic_traces import made

from twinstep.problems import EXAMPLES
from twinstep.runs import launch

launch.set_up_xla()
torch.set_num_threads(1)
# in the background of a script Ctrl-C is ignored, and would be by every command that a test starts
signal.signal(signal.SIGINT, signal.default_int_handler)

# of all runs, so that the next has what this one compiled: that is most of its time
_MAX_COMPILED = 2**32  # bytes: more is mostly of versions that are gone
_COMPILED = platformdirs.user_cache_path("twinstep-tests")
os.environ["TWINSTEP_CACHE"] = str(_COMPILED)  # for the commands, whose own is the user's
jax.config.update("jax_compilation_cache_dir", str(_COMPILED / "compiled"))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)


@pytest.fixture(autouse=True, scope="module")
def _leave_no_programs() -> Iterator[None]:
    """Compiled programs stay in memory as long as JAX remembers them: GiB after some modules."""
    dtype = torch.get_default_dtype()
    yield
    torch.set_default_dtype(dtype)
    jax.clear_caches()
    gc.collect()


@pytest.fixture(autouse=True, scope="module")
def _compile_quickly(request: pytest.FixtureRequest, _leave_no_programs: None) -> Iterator[None]:
    """Most of the time goes into compiling, and a fault is one whatever LLVM makes of the program.

    As users compile: all other tests, every command, and make test-slow, which runs these too.
    """
    marked = request.node.get_closest_marker("quick_to_compile") is not None
    quickly = marked and request.config.option.markexpr == "not slow"  # what make test selects
    jax.config.update("jax_disable_most_optimizations", quickly)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


@pytest.fixture
def x64() -> Iterator[None]:
    """JAX in float64, for the tests of a file that asks for it."""
    with jax.enable_x64(True):
        yield


@pytest.fixture(autouse=True)
def _leave_torch_as_it_was() -> Iterator[None]:
    dtype = torch.get_default_dtype()
    with torch.random.fork_rng(devices=[]):
        yield
    torch.set_default_dtype(dtype)


@pytest.fixture(params=sorted(EXAMPLES))
def name(request: pytest.FixtureRequest) -> str:
    """Each of the documents' examples; a new one joins every test by being listed."""
    return request.param


@pytest.fixture
def stored(tmp_path: Path) -> Path:
    """A saved trace of 6 steps in three shards, `made(rounding_noise=0.5)`."""
    return write(tmp_path / "stored", made(rounding_noise=0.5))


def pytest_sessionfinish(session: pytest.Session) -> None:
    """The first process to start is the last to end."""
    if "PYTEST_XDIST_WORKER" not in os.environ:
        files = [path for path in _COMPILED.rglob("*") if path.is_file()]
        if sum(path.stat().st_size for path in files) > _MAX_COMPILED:
            shutil.rmtree(_COMPILED, ignore_errors=True)
