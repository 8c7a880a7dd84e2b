"""What each process of a data-parallel PyTorch run does in the tests: many runs, one start.

`torchrun ... processes.py FOLDER CASE ...`: the first process writes the trace of every case to
FOLDER/CASE. A case is an example's name, or one with a fault: `NAME:FAULT`.
"""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import distributed
from torch.nn.parallel import DistributedDataParallel

from twinstep.device_config import DeviceConfig
from twinstep.problems import EXAMPLES, Spec
from twinstep.problems.batches import Batches, IndexChunk
from twinstep.runs import launch
from twinstep.torch import parallel
from twinstep.trace.writing import TraceWriter

Plant = Callable[[pytest.MonkeyPatch, int], None]


def spec_of(case: str) -> Spec:
    """The problem of a case: a few steps in float64."""
    return EXAMPLES[case.partition(":")[0]](dtype="float64", steps=4)


def summed(patch: pytest.MonkeyPatch, rank: int) -> None:
    """Gradients are added up, and not averaged."""

    def add_up(group: Any, bucket: distributed.GradBucket) -> torch.futures.Future[torch.Tensor]:
        return (
            distributed.all_reduce(bucket.buffer(), async_op=True)
            .get_future()
            .then(lambda future: future.value()[0])
        )

    class Summed(DistributedDataParallel):
        def __init__(self, module: torch.nn.Module) -> None:
            super().__init__(module)
            self.register_comm_hook(None, add_up)

    patch.setattr(parallel, "DistributedDataParallel", Summed)


def unweighted(patch: pytest.MonkeyPatch, rank: int) -> None:
    """Every process counts the same, however many samples it has."""
    patch.setattr(parallel.WeightedLoss, "__call__", lambda self, *given: self.criterion(*given))


def other_part(patch: pytest.MonkeyPatch, rank: int) -> None:
    """Process 1 trains on what process 0 trains on."""
    if rank == 1:
        patch.setattr(distributed, "get_rank", lambda: 0)


def other_order(patch: pytest.MonkeyPatch, rank: int) -> None:
    """The last process goes through the samples in an order of its own."""
    chunks = Batches.chunks

    def turned(self: Batches, max_steps: int) -> Any:
        for chunk in chunks(self, max_steps):
            assert chunk.indices is not None
            yield IndexChunk(chunk.start, chunk.steps, np.flip(chunk.indices, 0).copy())

    if rank == distributed.get_world_size() - 1:
        patch.setattr(Batches, "chunks", turned)


def alone(patch: pytest.MonkeyPatch, rank: int) -> None:
    """No process hears of the others' gradients."""
    patch.setattr(parallel, "DistributedDataParallel", lambda module: module)


def other_start(patch: pytest.MonkeyPatch, rank: int) -> None:
    """Process 1 starts from other parameters, and none are sent to it."""

    def unsynchronised(module: torch.nn.Module) -> DistributedDataParallel:
        if rank == 1:
            with torch.no_grad():
                next(module.parameters()).mul_(1 + 1e-9)
        return DistributedDataParallel(module, init_sync=False)

    patch.setattr(parallel, "DistributedDataParallel", unsynchronised)


def drifting(patch: pytest.MonkeyPatch, rank: int) -> None:
    """Process 1 updates by another learning rate: its parameters part from the others'."""
    step = torch.optim.SGD.step

    def longer(self: torch.optim.SGD, closure: Any = None) -> Any:
        self.param_groups[0]["lr"] = 0.01 * (1 + 1e-9)
        return step(self, closure)

    if rank == 1:
        patch.setattr(torch.optim.SGD, "step", longer)


Entry = tuple[int, str, str]  # step, stage and leaf
PLANTS: dict[str, tuple[Plant, str, Entry]] = {
    "summed": (summed, "linear_regression", (1, "raw_grads", "weight")),
    "unweighted": (unweighted, "linear_regression", (1, "loss", "loss")),
    "other_part": (other_part, "linear_regression", (1, "batch", "x")),
    "other_order": (other_order, "sgd_single_sample", (1, "batch", "x")),
    "alone": (alone, "linear_regression", (1, "raw_grads", "weight")),
    "other_start": (other_start, "linear_regression", (1, "loss", "loss")),
    "drifting": (drifting, "linear_regression", (2, "loss", "loss")),
}
"""{fault: (what plants it, the example in which, where it is to be found)}"""


def main(folder: Path, cases: list[str]) -> None:
    """Trains every case, one after the other."""
    with parallel.group("cpu"):
        rank = distributed.get_rank()
        device_config = DeviceConfig(devices=distributed.get_world_size())
        for case in cases:
            spec = spec_of(case)
            with pytest.MonkeyPatch.context() as patch:
                if fault := case.partition(":")[2]:
                    PLANTS[fault][0](patch, rank)
                driver = parallel.Rank(launch.example("torch", spec), spec, device_config)
                pieces = list(driver.chunks())
            if rank == 0:
                with TraceWriter(folder / case.replace(":", "-"), driver.metadata) as writer:
                    for piece in pieces:
                        writer.write(piece)
                    writer.finish(pieces[-1].metrics)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
