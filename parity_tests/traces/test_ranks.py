"""A training of several processes: each writes its part, and the trace is read as one."""

import dataclasses
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.replaying import apart
from helpers.storing import bits, write_pieces
from helpers.synthetic_traces import leaf_by, made, refused, with_leaf
from torch import nn

import twinstep
from twinstep.torch import record
from twinstep.trace.ledger import Trace
from twinstep.trace.ranks import folder_of, merged

PROGRAM = """
import os, sys, torch
import torch.distributed as dist
from torch import nn
from torch.distributed.fsdp import fully_shard
torch.manual_seed(0)
dist.init_process_group("gloo")
rank = dist.get_rank()
model = nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 1)).double()
if sys.argv[1] == "ddp":
    model = nn.parallel.DistributedDataParallel(model)
else:
    mesh = dist.device_mesh.init_device_mesh("cpu", (2,))
    for layer in [*model, model]:
        fully_shard(layer, mesh=mesh)
optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
x = torch.arange(24.0).double().reshape(8, 3) / 24
for step in range(4):
    optimizer.zero_grad()
    model(x[rank * 4 : rank * 4 + 4] - step).square().mean().backward()
    optimizer.step()
dist.destroy_process_group()
"""


def alone() -> Trace:
    """The same training in one process."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 1)).double()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    x = torch.arange(24.0).double().reshape(8, 3) / 24
    with record(model) as rec:
        for step in range(4):
            optimizer.zero_grad()
            model(x - step).square().mean().backward()
            optimizer.step()
    return rec.trace


@pytest.mark.parametrize("kind", ["ddp", "fsdp"])
def test_processes_that_train_together_leave_one_trace(kind: str, tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text(PROGRAM)
    words = "-m torch.distributed.run --standalone --nproc_per_node=2 -m twinstep.torch --out"
    command = [sys.executable, *words.split(), f"{tmp_path}/trace", f"{tmp_path}/train.py", kind]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    stored = twinstep.open_trace(tmp_path / "trace")
    assert (stored.complete, stored.steps) == (True, 4)
    trace, expected = twinstep.load_trace(tmp_path / "trace"), alone()
    assert apart(trace) == {}, "the rule gives what was recorded, to the bit"
    assert trace.params.keys() == expected.params.keys()
    assert trace.inputs_of(0)["input"].shape == (8, 3), "rank by rank"
    for stage in ("params", "raw_grads", "grads", "opt_state"):
        for leaf, array in getattr(expected, stage).items():
            assert np.allclose(getattr(trace, stage)[leaf], array, rtol=1e-12, atol=1e-14)
    assert np.allclose(trace.losses, expected.losses, rtol=1e-13)
    shutil.rmtree(tmp_path / "trace" / folder_of(1, 2))
    refused(lambda: twinstep.open_trace(tmp_path / "trace"), "lacks the part of rank 1")


def ranked(folder: Path, *pieces: Trace) -> Path:
    """A folder with a part of each rank."""
    for rank, piece in enumerate(pieces):
        steps = (piece.slice(step, step + 1) for step in range(len(piece)))
        write_pieces(folder / folder_of(rank, len(pieces)), *steps)
    return folder


def sharded(trace: Trace, rows: slice) -> Trace:
    """Some rows of every weight, with their place."""
    keys = [("raw_grads", "weight"), ("params", "weight"), ("opt_state", "weight.exp_avg")]
    shards = {}
    for stage, leaf in keys:
        shape = getattr(trace, stage)[leaf].shape[1:]
        shards[f"{stage}/{leaf}"] = {"shape": [*shape], "at": [rows.start, 0]}
        trace = leaf_by(stage, leaf, lambda array: array[:, rows].copy())(trace)
    shards["grads/weight"] = shards["raw_grads/weight"]
    grads = {**trace.grads, "weight": trace.raw_grads["weight"]}
    return dataclasses.replace(trace, grads=grads, program={"shards": shards})


def test_shards_stand_in_their_place(tmp_path: Path) -> None:
    trace = made()
    parts = [sharded(trace, rows) for rows in (slice(0, 2), slice(2, 3))]
    whole = twinstep.load_trace(ranked(tmp_path / "trace", *parts))
    expected = dataclasses.replace(trace, batch=whole.batch, rows=whole.rows)
    assert bits(whole) == bits(expected)
    assert whole.batch["x"].tolist() == np.repeat(trace.batch["x"], 2).tolist()
    gap = [parts[0], sharded(trace, slice(1, 2))]
    refused(lambda: merged(gap), "the ranks' shards do not make up its shape")


def test_the_loss_is_the_mean(tmp_path: Path) -> None:
    one = made()
    two = dataclasses.replace(one, losses=one.losses + 1)
    assert np.allclose(merged([one, two]).losses, one.losses + 0.5)


@pytest.mark.parametrize("stage", ["raw_grads", "params", "opt_state"])
def test_replicas_that_differ_are_named(stage: str) -> None:
    trace, leaf = made(), "bias.exp_avg" if stage == "opt_state" else "bias"
    array = getattr(trace, stage)[leaf].copy()
    array[3] += 1
    other = with_leaf(trace, stage, leaf, array)
    step = 3 if stage == "params" else 4
    says = f"step {step}: {stage}, {leaf} of rank 2 differs from rank 0's"
    refused(lambda: merged([trace, trace, other]), says)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda t: dataclasses.replace(t, opt_state={}), "opt_state, weight.exp_avg is not there"),
        (
            lambda t: dataclasses.replace(
                t,
                raw_grads={**t.raw_grads, "bias": t.raw_grads["bias"][:5]},
                grads={**t.grads, "bias": t.raw_grads["bias"][:5]},
                rows={"raw_grads/bias": np.arange(5), "grads/bias": np.arange(5)},
            ),
            "step 6: raw_grads, bias is not there on every rank",
        ),
    ],
)
def test_a_leaf_that_a_rank_lacks_is_named(change: Callable[[Trace], Trace], says: str) -> None:
    refused(lambda: merged([made(), change(made())]), says)


def test_as_far_as_all_ranks_have_come(tmp_path: Path) -> None:
    folder = ranked(tmp_path / "trace", made(), made().slice(0, 4))
    manifest = json.loads((folder / folder_of(0, 2) / "manifest.json").read_text())
    assert len(manifest["shards"]) == 6
    stored = twinstep.open_trace(folder)
    assert (stored.complete, stored.steps) == (False, 4)
    assert len(twinstep.load_trace(folder)) == 4


def test_parts_of_other_runs_are_refused(tmp_path: Path) -> None:
    folder = ranked(tmp_path / "trace", made(), made())
    write_pieces(folder / folder_of(2, 3), made())
    refused(lambda: twinstep.open_trace(folder), "holds parts of runs of [2, 3] processes")
