"""`twinstep run`: trains an example and prints what its document prints."""

import contextlib
import os
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

from twinstep.cli.background import Say, Train, in_background
from twinstep.cli.parsing import DeviceOptions, example, parse_with
from twinstep.device_config import DeviceConfig
from twinstep.errors import InputError
from twinstep.problems import Spec
from twinstep.report import check_outputs, terminal, write_json
from twinstep.runs import launch, training
from twinstep.trace.ledger import Outcome


@dataclass(frozen=True)
class RunOptions(DeviceOptions):
    """Trains an example and prints what its document prints."""

    framework: Literal["both", "jax", "torch"] = "both"
    """Which framework trains."""
    out: str | None = None
    """A new folder for the traces, one a framework."""
    json: str | None = None
    """Write losses, parameters and test figures as JSON to this file (-: to stdout)."""


def command(arguments: list[str]) -> int:
    """Runs `twinstep run`."""
    kind, rest = example("run", arguments)
    options, spec = parse_with(RunOptions, kind, rest, f"twinstep run {kind.name}")
    frameworks = launch.FRAMEWORKS if options.framework == "both" else (options.framework,)
    quiet = options.json == "-"
    say = terminal.nothing if quiet else print
    results, finite = {}, True
    if options.framework == "jax" and options.threads != 1:
        raise InputError(f"threads is {options.threads}: PyTorch's, but framework is 'jax'")
    folders = [] if options.out is None else [f"{options.out}/{name}" for name in frameworks]
    check_outputs({"json": options.json}, out=options.out, folders=folders)
    launch.check(
        [spec],
        options.device_config,
        frameworks,
        threads=options.threads,
        enable_cache=options.compilation_cache,
    )
    launch.check_installed(*frameworks)
    if options.device != "cpu":  # so that none trains before it is known that all can
        for name in frameworks:
            launch.driver(name, spec, _device_config(name, options))
    with contextlib.ExitStack() as stack:
        train: dict[str, Train] = {
            name: partial(_train, name, spec, options) for name in frameworks
        }
        if len(frameworks) > 1 and options.out is None and _background_pays(options):
            train["jax"] = stack.enter_context(in_background(train["jax"]))
        for framework in frameworks:
            outcome = train[framework](say)
            results[framework] = terminal.outcome_values(outcome)
            finite = terminal.report_finite(outcome) and finite
    if options.json is not None:
        write_json(options.json, {"example": spec.name, "spec": spec.hyper_parameters(), **results})
    return 0 if finite else 1


def _background_pays(options: RunOptions) -> bool:
    """Whether two processes are sooner done than one: loading the frameworks is most of a run."""
    loaded = {"torch", "jax"} & sys.modules.keys()
    return options.device == "cpu" and not loaded and (os.cpu_count() or 1) > 1


def _train(framework: str, spec: Spec, options: RunOptions, say: Say) -> Outcome:
    """Trains and prints chunk by chunk; keeps a trace only in the folder that was asked for."""
    launch.set_threads(framework, options.threads)
    if options.compilation_cache:
        launch.enable_cache(framework)
    keep = options.out is not None
    driver = launch.driver(framework, spec, _device_config(framework, options), rounding_noise=keep)
    folder = None if options.out is None else Path(options.out) / framework
    return training.train(driver, spec, folder, say)


def _device_config(framework: str, options: RunOptions) -> DeviceConfig:
    """Where it trains; PyTorch, beside JAX on a TPU, on the CPU."""
    beside = framework == "torch" and options.framework == "both"
    return options.device_config.for_torch() if beside else options.device_config
