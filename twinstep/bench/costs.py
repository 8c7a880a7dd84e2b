"""What proving costs: the gate against both trainings alone, and how soon a command answers."""

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from twinstep.bench.rows import ASKED_OF_GATE, ASKED_OF_START, Cost
from twinstep.bench.timing import Side, interleaved, spread, timed
from twinstep.bench.training import Setting, call
from twinstep.device_config import DeviceConfig
from twinstep.judge.findings import Comparison
from twinstep.judge.judge import Judge
from twinstep.problems.base import Spec
from twinstep.runs import launch
from twinstep.runs.gate import Gate


def gate_cost(spec: Spec, setting: Setting) -> Cost:
    """The gate (PyTorch recorded, JAX's replay, the comparison) against both trainings alone.

    Fewer turns than a training gets: each is a whole proof.
    """
    device_config = setting.device_config
    judged = Gate(spec, device_config)
    driver = launch.driver("torch", spec, device_config.for_torch())
    torch, jax = (
        _plain("torch", "eager", spec, device_config),
        _plain("jax", "trace", spec, device_config),
    )
    found: list[Comparison] = []

    def gate() -> None:
        found.append(_gate(spec, judged, driver))

    sides: dict[str, Side] = {
        "gate": lambda: timed(gate),
        "torch": lambda: call(torch),
        "jax": lambda: call(jax),
    }
    for side in sides.values():
        side()
    times = interleaved(sides, max(2, setting.repeats // 3), setting.limit)
    cost = Cost("gate", None, ASKED_OF_GATE, spec.name, spec.total_steps)
    for comparison in found:
        if not comparison.verdict.same:
            return replace(cost, problem=f"{comparison.verdict}: {comparison.reason}")
    sums = [a + b for a, b in zip(times["torch"], times["jax"], strict=True)]
    return replace(cost, value=spread([a / b for a, b in zip(times["gate"], sums, strict=True)]))


def start_cost(setting: Setting) -> Cost:
    """Seconds of `twinstep --help`."""
    command = [sys.executable, "-m", "twinstep", "--help"]

    def start() -> None:
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)

    times = interleaved({"start": lambda: timed(start)}, setting.repeats, setting.limit)
    return Cost("start", spread(times["start"]), ASKED_OF_START)


def _gate(spec: Spec, gate: Gate, driver: Any) -> Comparison:
    """What `verify` does before the free run: trains in PyTorch and judges every step."""
    judge = Judge(spec.dtype)
    chunks: Iterator[Any] = spec.chunks()
    fresh = replace(driver)  # its state is new, its example and settings the same
    for recorded, chunk in zip(fresh.chunks(), chunks, strict=True):
        gate(judge, recorded, chunk)
    return judge.comparison()


def _plain(framework: str, name: str, spec: Spec, device_config: DeviceConfig) -> Any:
    where = device_config.for_torch() if framework == "torch" else device_config
    return launch.variants(framework, spec, where)[name]
