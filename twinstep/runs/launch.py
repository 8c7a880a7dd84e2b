"""(framework, example) -> a run: the only place that imports an implementation, at call time."""

import atexit
import contextlib
import dataclasses
import gc
import importlib
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from twinstep import extras, files
from twinstep.device_config import CPU, MAX_THREADS, DeviceConfig, check_in_range
from twinstep.errors import InputError, unknown
from twinstep.problems.base import Spec
from twinstep.trace.joining import concatenate
from twinstep.trace.ledger import Trace

FRAMEWORKS = ("torch", "jax")
CACHE_VARIABLE = "TWINSTEP_CACHE"
PROCESS = ("-m", "twinstep.cli.process", "torch")
"""What each of PyTorch's processes runs that share a batch."""
_XLA_OPTION = "xla_cpu_small_while_loop_byte_threshold"


def example(framework: str, spec: Spec) -> ModuleType:
    """The module that implements a spec. InputError for an unknown framework."""
    return _imported(framework, program(framework, spec))


def program(framework: str, spec: Spec | type[Spec]) -> str:
    """The name of the module that implements a spec: a twin's, or of a row of a table."""
    home = f"{framework}_impl" if spec.table is None else f"twinstep.{framework}.programs"
    return f"{home}.{spec.implementation or spec.name}"


def set_up_xla() -> None:
    """Sets, before JAX first asks for a device, what its compiler reads from the environment then.

    What is set already stays. A framework that this module loads is set up so; importing the kit
    changes nothing.
    """
    # PyTorch computes beside JAX on the same GPU, and several examples may: JAX takes memory as it
    # needs it, and not three quarters of all there is when it starts.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    # XLA runs a small loop as one compiled function instead of one dispatch an operation: a scan
    # over the steps of a small model is 4 to 16 times as fast.
    flags = os.environ.get("XLA_FLAGS", "")
    if "xla_backend_extra_options" not in flags:
        option = f"--xla_backend_extra_options={_XLA_OPTION}=1000000000"
        os.environ["XLA_FLAGS"] = f"{flags} {option}".strip()


def check(
    specs: Sequence[Spec],
    device_config: DeviceConfig = CPU,
    frameworks: Sequence[str] = FRAMEWORKS,
    *,
    threads: int = 1,
    enable_cache: bool = False,
) -> None:
    """Raises InputError for what cannot be trained, as far as can be told without a framework.

    The specs are drawn for it: their data has to be there.
    """
    check_in_range("threads", threads, 1, MAX_THREADS)
    if "torch" in frameworks:
        device_config.for_torch().check_memory_for_processes()
    if enable_cache and "jax" in frameworks:
        _cache_folder()
    for spec in specs:
        spec.initial_params()
        spec.total_steps  # noqa: B018 - refuses too many


def driver(
    framework: str, spec: Spec, device_config: DeviceConfig = CPU, *, rounding_noise: bool = False
) -> Any:
    """What trains `spec`, and records it. InputError for an unknown framework or device."""
    # drawn now: data that is not there is said before a framework is loaded or anything is written
    check([spec], device_config, (framework,))
    if spec.draws and (device_config.device, device_config.devices) != ("cpu", 1):
        where = f"device is {device_config.device}, devices is {device_config.devices}"
        raise InputError(
            f"{spec.name}: {where}, expected cpu and 1: what it draws while it trains is what "
            "PyTorch draws there"
        )
    if device_config.devices > 1:
        home = _module(framework, "parallel")
        home.find(device_config.device, device_config.devices)
    else:
        home = _module(framework, "driver")
    _module(framework, "devices").find(device_config.device, spec.dtype)
    options: dict[str, Any] = {"rounding_noise": rounding_noise} if framework == "jax" else {}
    if framework == "torch" and device_config.devices > 1:
        options["program"] = PROCESS
    return home.Driver(example(framework, spec), spec, device_config, **options)


def parallel(framework: str) -> ModuleType:
    """What one of several processes does that share each batch."""
    return _module(framework, "parallel")


def replay(spec: Spec, device_config: DeviceConfig = CPU, *, framework: str = "jax") -> Any:
    """What makes recorded steps again, each from the recorded state before it."""
    alone = dataclasses.replace(device_config, devices=1)
    return _module(framework, "replay").Replay(example(framework, spec), spec, alone)


def rules() -> ModuleType:
    """What makes PyTorch's updates again: it needs JAX."""
    extras.check_installed("jax", "to judge updates")
    set_up_xla()
    return _module("jax", "rules")


def forcing() -> ModuleType:
    """What makes steps of a user's own function from recorded parameters."""
    extras.check_installed("jax", "step_fn and loss_fn")
    set_up_xla()
    return _module("jax", "forcing")


def free_run() -> ModuleType:
    """What lets a user's own step train by itself from given parameters."""
    extras.check_installed("jax", "step_fn")
    set_up_xla()
    return _module("jax", "free_run")


def layout_search() -> ModuleType:
    """What looks for the layout of a start with which a user's first loss is another."""
    extras.check_installed("jax", "loss_fn")
    set_up_xla()
    return _module("jax", "layout_search")


def program_search() -> ModuleType:
    """What looks for the difference of a user's own loss with which it is PyTorch's."""
    extras.check_installed("jax", "loss_fn")
    set_up_xla()
    return _module("jax", "rewriting.search")


def in_float64(spec: Spec, device_config: DeviceConfig = CPU) -> Any:
    """What trains `spec` in float64 on the JAX side, and measures what its own dtype's eps does."""
    return driver("jax", spec, device_config, rounding_noise=True).in_float64()


def variants(
    framework: str, spec: Spec, device_config: DeviceConfig = CPU, *, compiled: bool = False
) -> dict[str, Any]:
    """The variants of how a framework trains `spec`.

    Args:
        framework, spec, device_config: What trains, what is trained, and where.
        compiled: Also those that take long to compile.

    Returns:
        {name: a `trace.variants.Variant`, or why there is none}.

    Raises:
        InputError: For an unknown framework or device.
    """
    _module(framework, "devices").find(device_config.device, spec.dtype)
    make: Callable[..., dict[str, Any]] = _module(framework, "variants").variants
    return make(example(framework, spec), spec, device_config, compiled=compiled)


def set_threads(framework: str, threads: int) -> None:
    """How many threads PyTorch computes with; JAX chooses for itself. InputError out of range."""
    check_in_range("threads", threads, 1, MAX_THREADS)
    if framework == "torch":
        _module("torch", "devices").set_threads(threads)


def enable_cache(framework: str) -> None:
    """From now on JAX's compiled programs are kept in the user's cache folder, and found there.

    TWINSTEP_CACHE names another folder.
    """
    if framework == "jax":
        _module("jax", "compilation_cache").enable(_cache_folder() / "compiled")


def _cache_folder() -> Path:
    """Where compiled programs are kept. InputError for a variable that is a blank."""
    from platformdirs import user_cache_path

    folder = os.environ.get(CACHE_VARIABLE)
    return files.checked_path(CACHE_VARIABLE, folder) if folder else user_cache_path("twinstep")


def cache_disabled(framework: str) -> contextlib.AbstractContextManager[None]:
    """In the meantime no compiled program is kept or found: to time compiling."""
    if framework == "jax":
        disabled: contextlib.AbstractContextManager[None]
        disabled = _module("jax", "compilation_cache").disabled()
        return disabled
    return contextlib.nullcontext()


def chunks(
    spec: Spec, framework: str, device_config: DeviceConfig = CPU, *, rounding_noise: bool
) -> Iterator[Trace]:
    """Trains `spec`; its trace in pieces that bound the memory."""
    made: Iterator[Trace]
    made = driver(framework, spec, device_config, rounding_noise=rounding_noise).chunks()
    return made


def run(
    spec: Spec,
    framework: str,
    device: str = "cpu",
    *,
    devices: int = 1,
    precision: str = "highest",
    rounding_noise: bool = True,
) -> Trace:
    """Trains a spec in one framework and gives its whole trace.

    Args:
        spec: The problem, one of `examples()`.
        framework: "jax" or "torch".
        device: "cpu", "gpu" or "tpu".
        devices: How many share each batch.
        precision: Of float32 matrix products: "highest", or "default" for what a framework does
            for speed.
        rounding_noise: On the JAX side, also measure how far rounding carries this run, which
            `compare` needs for the allowance; that trains three times more.

    Returns:
        The trace of all its steps, held in memory.

    Raises:
        InputError: For a framework that is unknown or not installed, a device that is not there,
            and data that cannot be read.

    Example:
        >>> import twinstep
        >>> trace = twinstep.run(twinstep.examples()["zero_grad"](steps=2), framework="torch")
        >>> len(trace), trace.metadata.framework, list(trace.params)
        (2, 'torch', ['0.weight', '0.bias', '2.weight', '2.bias'])
        >>> print(trace.losses.round(3))
        [1.513 1.473]
    """
    return concatenate(
        list(
            chunks(
                spec,
                framework,
                DeviceConfig(device, devices, precision),
                rounding_noise=rounding_noise,
            )
        )
    )


def check_installed(*frameworks: str) -> None:
    """Raises InputError where one of them is not installed; imports neither."""
    for framework in frameworks:
        extras.check_installed(framework, f"framework {framework}")


@contextlib.contextmanager
def _uncollected() -> Iterator[None]:
    """Loading a framework makes millions of objects, and they stay: to look for garbage among them,
    meanwhile, later and when the program ends, takes half as long again as loading it.
    """
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if "triton" in sys.modules:  # which says at the end, of all that is never freed: leaked
            atexit.register(gc.unfreeze)
        if collecting:
            gc.enable()


def _module(framework: str, name: str) -> ModuleType:
    """A module of the library's side of a framework."""
    return _imported(framework, f"twinstep.{framework}.{name}")


def _imported(framework: str, name: str) -> ModuleType:
    if framework not in FRAMEWORKS:
        raise InputError(unknown("framework", framework, FRAMEWORKS))
    loaded = name in sys.modules
    if not loaded:
        check_installed(framework)
    if framework == "jax":
        set_up_xla()
    with contextlib.nullcontext() if loaded else _uncollected():
        return importlib.import_module(name)
