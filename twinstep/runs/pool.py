"""Many verifications, some at a time, each in a process of its own; what they do as they do it."""

import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from twinstep import workers
from twinstep.device_config import CPU, DeviceConfig
from twinstep.problems.base import Spec
from twinstep.runs import launch
from twinstep.runs.claims import with_claims
from twinstep.runs.verification import Verification, verify

REPORT_INTERVAL = (
    0.1  # seconds between two times that one side of a verification says how far it is
)


@dataclass(frozen=True)
class Progress:
    """What the verification of one spec is doing.

    index: of the spec, among all that are verified
    side: "start" (loads the frameworks), "torch", "jax", "gate", or "claims"
    step: how many of `steps` this side has done
    """

    index: int
    side: str
    step: int
    steps: int


@dataclass(frozen=True)
class Lost:
    """A spec without a verdict: what judged it died, or crashed.

    why: one line; traceback: that of the exception, "" where the process died
    """

    spec: Spec
    why: str
    traceback: str = ""

    def __str__(self) -> str:
        return f"{self.spec.name} ({self.spec.dtype}) has no verdict: {self.why}"

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "example": self.spec.name,
            "spec": self.spec.hyper_parameters(),
            "verdict": None,
            "same": False,
            "reason": self.why,
        }


@dataclass(frozen=True)
class Finished:
    """The verification of one spec is over."""

    index: int
    result: Verification | Lost


def verify_all(
    specs: Sequence[Spec],
    device_config: DeviceConfig = CPU,
    *,
    jobs: int = 1,
    threads: int = 1,
    enable_cache: bool = False,
    out: str | None = None,
    hear: Callable[[Progress | Finished], None] = lambda event: None,
) -> list[Verification | Lost]:
    """Verifies many specs, `jobs` at a time, each job a process; results in the specs' order.

    threads: PyTorch's, in each; out: a folder for traces, EXAMPLE/DTYPE/FRAMEWORK
    enable_cache: keep JAX's compiled programs for the next time, in the user's cache folder
    hear: told what each is doing, and as each is finished; here, in the order in which it comes
    Raises InputError as `verify` does.
    """
    folders = [None if out is None else f"{out}/{spec.name}/{spec.dtype}" for spec in specs]
    tasks = [
        (spec, device_config, threads, enable_cache, folder)
        for spec, folder in zip(specs, folders, strict=True)
    ]
    # a long run leaves a GiB behind in its process: each gets one that ends with it
    one_each = len(specs) > 1 and all(spec.total_steps > spec.steps_at_once for spec in specs)

    def tell(index: int, said: Any) -> None:
        hear(Progress(index, *said))

    if jobs == 1 and not one_each:
        found = workers.in_this_process(_verify_one, tasks, tell)
    else:
        found = workers.in_processes(_verify_one, tasks, tell, jobs=jobs, one_each=one_each)
    results: dict[int, Verification | Lost] = {}
    with contextlib.closing(found):
        for index, result in found:
            if isinstance(result, workers.Lost):
                result = Lost(specs[index], *result)
            results[index] = result
            hear(Finished(index, result))
    return [result for _, result in sorted(results.items())]


def _verify_one(
    spec: Spec,
    device_config: DeviceConfig,
    threads: int,
    enable_cache: bool,
    out: str | None,
    say: workers.Say,
) -> Verification:
    progress = _report_rarely(say)
    progress("start", 0, spec.total_steps)
    launch.set_threads("torch", threads)
    if enable_cache:
        launch.enable_cache("jax")
    result = verify(
        spec,
        device_config.device,
        devices=device_config.devices,
        precision=device_config.precision,
        out=out,
        progress=progress,
    )
    progress("claims", spec.total_steps, spec.total_steps)
    return with_claims(result, device_config)


def _report_rarely(say: workers.Say) -> Callable[[str, int, int], None]:
    """Says what each side does, but not more often than anyone can read."""
    last: dict[str, float] = {}

    def progress(side: str, step: int, steps: int) -> None:
        now = time.monotonic()
        if step == steps or now - last.get(side, -REPORT_INTERVAL) >= REPORT_INTERVAL:
            last[side] = now
            say((side, step, steps))

    return progress
