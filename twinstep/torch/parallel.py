"""One batch over N processes: each has all parameters and computes with its part of the samples.

Mirror: twinstep/jax/parallel.py

Nothing of an example changes. DistributedDataParallel wraps its model and makes each gradient the
mean over the processes; each weights its loss by its number of samples, so that this is the mean
over the batch, however it is cut. torchrun starts the processes, on one machine or on several:
`torchrun --nproc-per-node 4 -m twinstep.cli.process torch EXAMPLE`; or a Driver does.
Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.parallel.DistributedDataParallel.html
"""

import contextlib
import dataclasses
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import distributed
from torch.nn.parallel import DistributedDataParallel

from twinstep import workers
from twinstep.device_config import DeviceConfig
from twinstep.errors import InputError, LostError
from twinstep.problems import PROGRAMS, Spec
from twinstep.problems.batches import IndexChunk
from twinstep.torch import devices, driver
from twinstep.torch.driver import Feed
from twinstep.torch.recorder import Recorder
from twinstep.trace.ledger import Metadata, Trace
from twinstep.trace.storage import open_part
from twinstep.trace.writing import MANIFEST, TraceWriter
from twinstep.workers import PROCESS_ERROR

MAX_WAITING = 3
"""Pieces of a trace that may wait to be read."""
_TASK, _TRACE, _LOG = "task.json", "trace", "log"


def find(device: str, count: int) -> list[torch.device]:
    """`count` devices of a kind; a CPU serves any number. InputError where there are fewer."""
    first = devices.find(device)
    if first.type == "cpu":
        return [first] * count
    if (found := torch.cuda.device_count()) < count:
        raise InputError(f"devices is {count}, but PyTorch found {found} {device}")
    return [torch.device("cuda", index) for index in range(count)]


@dataclass(frozen=True)
class Driver(driver.Driver):
    """Has `place.devices` processes train, and gives what the first of them records.

    program: what each of them runs, Python's arguments; with --task FOLDER it calls `serve`
    """

    program: tuple[str, ...] = ()

    @cached_property
    def metadata(self) -> Metadata:
        return _of_all(super().metadata, self.device_config)

    def chunks(self, max_steps: int | None = None) -> Iterator[Trace]:
        """Trains; the steps in pieces of at most `max_steps`. InputError, one line, if a process
        fails.

        The processes end with this one, and as soon as no more pieces are wanted.
        """
        if PROGRAMS.get(self.spec.name) is not type(self.spec):
            raise InputError(f"{self.spec.name} is not listed: other processes cannot make it")
        with tempfile.TemporaryDirectory(prefix="twinstep-", ignore_cleanup_errors=True) as name:
            folder = Path(name)
            task = {
                "example": self.spec.name,
                "spec": self.spec.hyper_parameters(),
                "device_config": dataclasses.asdict(self.device_config),
                "max_steps": max_steps,
            }
            (folder / _TASK).write_text(json.dumps(task))
            with _processes(folder, self.device_config.devices, self.program) as ended:
                yield from self._follow(folder, ended)

    def _follow(self, folder: Path, ended: Callable[[], int | None]) -> Iterator[Trace]:
        """The pieces of the trace as they come; each is deleted when it is read."""
        trace, seen, done = folder / _TRACE, 0, 0
        while done < self.spec.total_steps:
            code = ended()  # asked before looking: what was written until then is there
            pieces: list[Trace] = []
            if (trace / MANIFEST).exists():
                stored = open_part(trace)
                for shard in stored.shards[seen:]:
                    last = shard["start"] + shard["steps"] == self.spec.total_steps
                    if last and not stored.complete:  # its test figures come with the end
                        break
                    pieces += dataclasses.replace(stored, shards=(shard,)).chunks()
                    (trace / shard["file"]).unlink()
            for piece in pieces:
                seen, done = seen + 1, done + len(piece)
                yield piece
            if not pieces:
                if code is not None:
                    raise failure((folder / _LOG).read_text(errors="replace"), code)
                time.sleep(0.01)


@contextlib.contextmanager
def _processes(
    folder: Path, count: int, program: Sequence[str]
) -> Iterator[Callable[[], int | None]]:
    """Starts torchrun on the task in `folder`; gives what asks for its exit code; ends it."""
    tied = ("-m", "twinstep.bound_to_parent")  # all end with this process, whatever ends it
    torchrun = ("-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={count}")
    command = [sys.executable, *tied, *torchrun, *tied, *program, "--task", str(folder)]
    paths = [str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")]
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
        "OMP_NUM_THREADS": str(max(1, torch.get_num_threads() // count)),
        "TMPDIR": str(folder),  # torchrun leaves folders there
    }
    with (folder / _LOG).open("wb") as log:
        # a session of its own: Ctrl-C is this process's to handle
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            env=environment,
            start_new_session=True,
        )
    with process:
        try:
            yield process.poll
        finally:
            if process.stdin:
                process.stdin.close()  # what every process waits for
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(10)
            process.kill()


_LOST = re.compile(r"Connection (closed|reset|refused)|Broken pipe|Read error|Socket")
"""What a process says that misses another."""


def failure(log: str, code: int) -> InputError | LostError:
    """What went wrong, in one line, from what torchrun and its processes printed."""
    failed = re.findall(r"^ +rank +: (\d+) .*\n +exitcode +: (-?\d+)", log, re.MULTILINE)
    said = [line for line in log.splitlines() if line.startswith(PROCESS_ERROR)]
    # it said why, or torchrun ended it, or gloo aborted it as it missed one that said why
    explained = ["1", "2", "-15"] + ["-6"] * any(not _LOST.search(line) for line in said)
    for rank, exit_code in failed:
        if exit_code not in explained:
            return LostError(f"PyTorch's process {rank} {workers.exit_reason(int(exit_code))}")
    if said:  # the first that misses no other: others fail because that one is gone
        first = next((line for line in said if not _LOST.search(line)), said[0])
        return InputError(first.removeprefix(PROCESS_ERROR))
    last = next((line for line in reversed(log.splitlines()) if line.strip()), "it said nothing")
    return InputError(f"PyTorch's processes ended with {code}: {last.strip()}")


@dataclass(frozen=True)
class Rank(driver.Driver):
    """One of the processes: trains on its part of each batch; what it says is of the whole."""

    @cached_property
    def metadata(self) -> Metadata:
        return _of_all(super().metadata, self.device_config)

    def chunks(self, max_steps: int | None = None) -> Iterator[Trace]:
        """Trains; the steps in pieces of at most `max_steps`. At the end nothing holds on to the
        group.

        DistributedDataParallel must be gone before the group is destroyed. As the group's last
        owner it would hold Python's lock while it waits for gloo's thread, which may want the lock.
        """
        yield from super().chunks(max_steps)
        self.__dict__.pop("_shared", None)

    def _run(self, recorder: Recorder, chunk: IndexChunk) -> Trace:
        rank, world = distributed.get_rank(), distributed.get_world_size()
        data, indices = self.data, chunk.indices
        samples = len(next(iter(data.values()))) if indices is None else indices.shape[1]
        part = slice(samples * rank // world, samples * (rank + 1) // world)
        mine = part.stop - part.start
        if not mine:  # it takes part in every sum all the same: with a sample of no weight
            part = slice(0, 1)
        if indices is None:
            data = {name: tensor[part] for name, tensor in data.items()}
        else:
            chunk = chunk._replace(indices=indices[:, part])
        _, criterion, optimizer = self.start
        weighted = WeightedLoss(criterion, mine * world / samples)
        feed = Feed(data, chunk, recorder.made_on, first=part.start)
        with recorder:
            self.train(self._shared, weighted, optimizer, feed)
        trace = recorder.take()
        batch = {}
        for name, fingerprints in trace.batch.items():  # each the sum of those of its parts
            whole = self._sum(fingerprints.astype(np.int64) * bool(mine))
            batch[name] = (whole & 0xFFFFFFFF).astype(np.uint32)
        losses = self._sum(trace.losses) / world
        return dataclasses.replace(trace, losses=losses, batch=batch)

    def _sum(self, array: np.ndarray) -> np.ndarray:
        """The sum over all processes."""
        tensor = torch.tensor(array, device=self._device)
        distributed.all_reduce(tensor)
        return tensor.cpu().numpy()

    @cached_property
    def _shared(self) -> DistributedDataParallel:
        """The same model, with gradients that are averaged over the processes."""
        return DistributedDataParallel(self.start[0])

    @cached_property
    def _device(self) -> torch.device:
        device = devices.find(self.device_config.device)
        return torch.device("cuda", _local_rank()) if device.type == "cuda" else device


@dataclass
class WeightedLoss:
    """A criterion times a weight, by which a mean over processes is a mean over samples."""

    criterion: Any
    weight: float

    def __call__(self, output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        loss: torch.Tensor = self.criterion(output, target) * self.weight
        return loss


@contextlib.contextmanager
def group(device: str) -> Iterator[tuple[int, int]]:
    """Meets the other processes: this one's number, and how many there are.

    InputError where torchrun did not start this one.
    """
    if "RANK" not in os.environ:
        raise InputError(
            "start it with torchrun --nproc-per-node N -m twinstep.cli.process torch EXAMPLE"
        )
    if device == "gpu":
        find(device, int(os.environ["LOCAL_WORLD_SIZE"]))
        torch.cuda.set_device(_local_rank())
    distributed.init_process_group("nccl" if device == "gpu" else "gloo")
    yield distributed.get_rank(), distributed.get_world_size()
    distributed.destroy_process_group()  # not after an error: it would wait for those that are gone


def serve(folder: Path, example: Callable[[Spec], ModuleType]) -> None:
    """Does what a Driver asks for in `folder`; the first process writes the trace there.

    example: what finds the module that implements a spec
    """
    threading.Thread(target=_end_with_parent, daemon=True).start()
    task = json.loads((folder / _TASK).read_text())
    spec, device_config = (
        PROGRAMS[task["example"]](**task["spec"]),
        DeviceConfig(**task["device_config"]),
    )
    with group(device_config.device) as (number, _):
        rank = Rank(example(spec), spec, device_config)
        chunks = rank.chunks(task["max_steps"])
        if number:
            for _ in chunks:  # nothing to keep
                pass
            return
        with TraceWriter(folder / _TRACE, rank.metadata) as writer:
            for chunk in chunks:
                while len(list(writer.folder.glob("*.safetensors"))) >= MAX_WAITING:
                    time.sleep(0.01)
                writer.write(chunk)
            writer.finish(chunk.metrics)


def _end_with_parent() -> None:
    """Ends this process as soon as the one that started it, which never writes, is gone."""
    os.read(sys.stdin.fileno(), 1)  # not sys.stdin.read: its lock would be in the way of a good end
    os._exit(1)


def _of_all(metadata: Metadata, device_config: DeviceConfig) -> Metadata:
    return dataclasses.replace(metadata, device=f"{metadata.device} x {device_config.devices}")


def _local_rank() -> int:
    return int(os.environ["LOCAL_RANK"])
