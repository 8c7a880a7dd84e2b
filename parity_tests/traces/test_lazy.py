"""A saved trace leaf by leaf: the same bits as when it is loaded, and no more of it in memory."""

import dataclasses
import gc
import shutil
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from helpers.storing import FIRST, SECOND, bits, write, write_pieces
from helpers.synthetic_traces import full, made, metadata, refused, with_leaf

import twinstep
from twinstep import Trace, lazy_trace, load_trace
from twinstep.trace import dtypes
from twinstep.trace.leaves import ReadLeaves
from twinstep.trace.ranks import folder_of
from twinstep.trace.writing import TraceWriter

STAGES = "before", "rng", "activations", "raw_grads", "grads", "opt_state", "params", "buffers"


def check_same(folder: Path) -> Trace:
    """Asserts that it is as `load_trace` reads it, leaf by leaf; the trace."""
    lazy = lazy_trace(folder)
    assert bits(lazy) == bits(load_trace(folder))
    assert all(isinstance(getattr(lazy, stage), ReadLeaves) for stage in STAGES)
    assert lazy.validation_error() is None
    return lazy


def ragged() -> Trace:
    """One leaf has no first row, one no last, one gradient is given later than backpropagated."""
    trace = full()
    rows = {"grads/bias": np.arange(3), "opt_state/gain.exp_avg": np.array([0, 2, 5])}
    grads = {**trace.grads, "bias": trace.grads["bias"][:3].copy()}
    state = {**trace.opt_state, "gain.exp_avg": trace.opt_state["gain.exp_avg"][:3]}
    return dataclasses.replace(trace, grads=grads, opt_state=state, rows=rows)


def of_dtypes() -> Trace:
    """A leaf of each dtype that a file holds in a manner of its own."""
    trace = made(dtype="float32")
    real = np.arange(28, dtype="float32").reshape(7, 4)
    half = dtypes.bfloat16()
    bits_of = (real.view(np.uint32) >> 16).astype(np.uint16)
    params = {"b": bits_of.view(half), "c": real.astype("complex64"), "h": real.astype("float16")}
    return dataclasses.replace(trace, params={**trace.params, **params})


TRACES: dict[str, Callable[[], Trace]] = {
    "all stages": full,
    "rounding": lambda: full(rounding_noise=0.5),
    "given otherwise": lambda: with_leaf(full(), "grads", "weight", full().grads["weight"] + 1),
    "not one row a step": ragged,
    "dtypes": of_dtypes,
}


@pytest.mark.parametrize("trace", TRACES.values(), ids=TRACES)
def test_it_is_the_trace_that_was_saved(trace: Callable[[], Trace], tmp_path: Path) -> None:
    lazy = check_same(write(tmp_path / "trace", trace()))
    assert bits(lazy) == bits(trace())
    assert bits(lazy.slice(1, 4)) == bits(trace().slice(1, 4))
    lazy.save(tmp_path / "again")
    assert bits(load_trace(tmp_path / "again")) == bits(trace())


@pytest.mark.parametrize("framework", ["torch", "jax"])
def test_of_a_twin(framework: str, tmp_path: Path) -> None:
    spec = twinstep.examples()["zero_grad"](steps=5)
    trace = twinstep.run(spec, framework=framework)
    trace.save(tmp_path / "trace")
    lazy = check_same(tmp_path / "trace")
    assert twinstep.compare(trace, lazy).reason == "the same bits"


def test_a_leaf_is_read_anew_and_gradients_are_held_once(stored: Path) -> None:
    lazy = lazy_trace(stored)
    assert lazy.params["weight"] is not lazy.params["weight"]
    assert [lazy.held_once(leaf) for leaf in (*lazy.grads, "none such")] == [True] * 4 + [False]
    changed = dataclasses.replace(lazy, grads=dict(lazy.raw_grads))
    assert not changed.held_once("weight"), "these are others"
    changed = dataclasses.replace(lazy, raw_grads=dict(lazy.raw_grads))
    assert not changed.held_once("weight")
    with pytest.raises(KeyError):
        lazy.params["none such"]


def test_batches_are_read_one_by_one(tmp_path: Path) -> None:
    trace = dataclasses.replace(full(), batch={"x": full().batch["x"]})
    lazy = check_same(write(tmp_path / "trace", trace))
    assert isinstance(lazy.inputs["x"], ReadLeaves)
    for ours, theirs in zip(lazy.batches(), trace.batches(), strict=True):
        assert np.array_equal(ours["x"], theirs["x"])


# Several processes


def sharded(trace: Trace, rank: int) -> Trace:
    """Of every weight the rows of one of two ranks, with their place."""
    rows = (slice(0, 2), slice(2, 3))[rank]
    shards = {}
    for stage, leaf in (("raw_grads", "weight"), ("params", "weight")):
        part = getattr(trace, stage)[leaf][:, rows].copy()
        trace = with_leaf(trace, stage, leaf, part)
        shards[f"{stage}/{leaf}"] = {"shape": [3, 2], "at": [rows.start, 0]}
    shards["grads/weight"] = shards["raw_grads/weight"]
    return dataclasses.replace(trace, program={"shards": shards})


def ranked(folder: Path, *parts: Trace) -> Path:
    """A folder with a part of each rank, cut otherwise on each."""
    for rank, part in enumerate(parts):
        cuts = range(0, len(part), 1 + rank)
        pieces = [part.slice(low, min(low + 1 + rank, len(part))) for low in cuts]
        write_pieces(folder / folder_of(rank, len(parts)), *pieces)
    return folder


def test_the_ranks_parts_of_a_leaf_are_put_together(tmp_path: Path) -> None:
    lazy = check_same(ranked(tmp_path / "trace", *(sharded(full(), rank) for rank in (0, 1))))
    assert lazy.params["weight"].tobytes() == full().params["weight"].tobytes()
    assert lazy.held_once("weight")
    assert [*lazy.rng] == ["torch.0", "torch.1"]


@pytest.mark.parametrize("behind", [0, 1])
def test_as_far_as_all_ranks_have_come(behind: int, tmp_path: Path) -> None:
    """Also where that is in the middle of another's shard."""
    parts = [sharded(made(), rank) for rank in (0, 1)]
    parts[behind] = parts[behind].slice(0, 3)
    assert len(check_same(ranked(tmp_path / "trace", *parts))) == 3


def test_replicas_that_differ_are_named_when_they_are_asked_for(tmp_path: Path) -> None:
    bias = made().params["bias"].copy()
    bias[3, 0] += 1
    folder = ranked(tmp_path / "trace", made(), with_leaf(made(), "params", "bias", bias))
    lazy = lazy_trace(folder)
    assert lazy.params["weight"].shape == (7, 3, 2)
    refused(lambda: lazy.params["bias"], "step 3: params, bias of rank 1 differs from rank 0's")


PROGRAM = """
import sys, torch
import torch.distributed as dist
from torch import nn
from torch.distributed.fsdp import fully_shard
torch.manual_seed(0)
dist.init_process_group("gloo")
model = nn.Sequential(nn.Linear(3, 5), nn.BatchNorm1d(5), nn.Linear(5, 1))
mesh = dist.device_mesh.init_device_mesh("cpu", (2,))
for layer in [*model, model]:
    fully_shard(layer, mesh=mesh)
optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
for step in range(4):
    optimizer.zero_grad()
    model(torch.randn(4, 3)).square().mean().backward()
    optimizer.step()
dist.destroy_process_group()
"""


def test_shards_of_two_processes(tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text(PROGRAM)
    words = "-m torch.distributed.run --standalone --nproc_per_node=2 -m twinstep.torch --out"
    command = [sys.executable, *words.split(), f"{tmp_path}/trace", f"{tmp_path}/train.py"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    lazy = check_same(tmp_path / "trace")
    assert lazy.params["0.weight"].shape == (5, 5, 3)


# What it takes, and what it refuses

ENTRIES, LEAVES, STEPS = 500_000, 4, 4  # 4 MB a row and leaf


def large(folder: Path) -> Path:
    """A trace of some 200 MB, a step a shard."""
    draw = np.random.default_rng(0)
    with TraceWriter(folder, metadata()) as writer:
        for step in range(STEPS):
            grads = {f"w{i}": draw.uniform(size=(1, ENTRIES)) for i in range(LEAVES)}
            trace = dataclasses.replace(
                made(1),
                raw_grads=grads,
                grads=dict(grads),
                params={name: np.concatenate([grad, grad]) for name, grad in grads.items()},
                opt_state={},
                start=step,
            )
            writer.write(trace)
        writer.finish({})
    return folder


def peak(read: Callable[[], object]) -> int:
    """Bytes that are held at most meanwhile."""
    gc.collect()
    tracemalloc.start()
    try:
        read()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_no_more_than_a_leaf_is_in_memory(tmp_path: Path) -> None:
    folder = large(tmp_path / "trace")
    size = sum(path.stat().st_size for path in folder.iterdir())
    leaf = (STEPS + 1) * ENTRIES * 8

    def read() -> None:
        lazy = lazy_trace(folder)
        for stage in ("params", "raw_grads", "grads"):
            for name in getattr(lazy, stage):
                assert len(getattr(lazy, stage)[name])

    assert size > 3 * LEAVES * STEPS * ENTRIES * 8
    assert peak(read) < 2 * leaf < 0.25 * size  # a leaf, and what one shard has of it
    assert peak(lambda: lazy_trace(folder)) < 0.1 * leaf, "opened, and nothing read"
    assert peak(lambda: load_trace(folder)) > size, "which measures what it says"


def as_folder(path: Path) -> None:
    """Puts a folder in the place of a file."""
    path.unlink()
    path.mkdir()


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "a bit": (
        lambda path: path.write_bytes(path.read_bytes()[:-1] + bytes([path.read_bytes()[-1] ^ 1])),
        "is damaged: its bytes are not those written",
    ),
    "cut": (lambda path: path.write_bytes(path.read_bytes()[:-8]), "is damaged"),
    "longer": (lambda path: path.write_bytes(path.read_bytes() + b"0"), "bytes, expected at most"),
    "gone": (Path.unlink, "cannot be read: No such file"),
    "a folder": (as_folder, "is a folder"),
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("file", [FIRST, SECOND])
def test_a_damaged_shard_is_refused_at_once(file: str, damage: str, stored: Path) -> None:
    change, says = DAMAGES[damage]
    change(stored / file)
    refused(lambda: lazy_trace(stored), f"trace shard {stored / file} ", says)


def test_a_shard_that_changes_later_is_refused(stored: Path) -> None:
    lazy = lazy_trace(stored)
    content = (stored / SECOND).read_bytes()
    (stored / SECOND).unlink()
    refused(lambda: lazy.params["weight"], f"trace shard {stored / SECOND} cannot be read")
    (stored / SECOND).write_bytes(content[:-1] + b"0")
    refused(lambda: lazy.params["weight"], f"{stored / SECOND} was changed since it was opened")


def test_a_trace_of_no_steps_is_refused(tmp_path: Path) -> None:
    TraceWriter(tmp_path / "trace", metadata())
    refused(lambda: lazy_trace(tmp_path / "trace"), "holds no steps")
    shutil.rmtree(tmp_path / "trace")
    refused(lambda: lazy_trace(tmp_path / "trace"), "is no trace")
