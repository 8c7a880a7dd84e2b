"""A saved trace is the trace, bit for bit, or one clear line: never anything between."""

import dataclasses
import functools
import itertools
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.storing import SEARCH, SECOND, SHARDS, bits, reloaded, write, write_pieces
from helpers.synthetic_traces import Change, leaf_by, made, refused, rows_of, with_leaf
from hypothesis import given
from hypothesis import strategies as st

import twinstep
from twinstep import Trace, Verdict, load_trace, open_trace
from twinstep.trace.joining import concatenate
from twinstep.trace.writing import MANIFEST, TraceWriter

# -------------------------------------------------------------------------------------- round trips

RUNS: list[tuple[str, dict[str, Any]]] = [
    ("linear_regression_adam", {"dtype": "float64", "steps": 7}),  # two moments and a count
    ("sgd_single_sample", {"dtype": "float32", "steps": 7}),  # another batch each step
    ("chain_rule", {"dtype": "float64"}),
]


@pytest.mark.parametrize("framework", ["torch", "jax"])
@pytest.mark.parametrize(("example", "fields"), RUNS, ids=[name for name, _ in RUNS])
def test_a_run_comes_back_bit_for_bit(
    example: str, fields: dict[str, Any], framework: str, tmp_path: Path
) -> None:
    trace = twinstep.run(twinstep.examples()[example](**fields), framework)
    loaded = reloaded(trace, tmp_path)
    assert open_trace(tmp_path / "trace").complete
    assert twinstep.compare(trace, loaded).verdict is Verdict.EQUAL
    assert (loaded.rounding_noise is None) is (framework == "torch")


ODD = {
    "nan and inf": [np.nan, -np.inf, np.inf],
    "signed zeros": [-0.0, 0.0, -0.0],
    "subnormal": [5e-324, -5e-324, 2.2e-308],
    "nan with a payload": np.array([0x7FF8_0000_0000_BEEF] * 3, np.uint64).view(np.float64),
}


@pytest.mark.parametrize("values", ODD.values(), ids=ODD.keys())
def test_odd_numbers_come_back_bit_for_bit(values: Any, tmp_path: Path) -> None:
    trace = with_leaf(made(3), "loss", "loss", np.array(values))
    trace = with_leaf(trace, "raw_grads", "bias", np.tile(np.array(values), (3, 1)))
    reloaded(trace, tmp_path)


def test_names_layouts_and_order_come_back(tmp_path: Path) -> None:
    trace = made()
    names = ("z/a", "grads/weight", "0.weight", "rounding_noise/loss", "loss", "größe")
    rows = np.arange(6 * 4.0).reshape(4, 6).T  # not contiguous
    trace = dataclasses.replace(trace, grads={name: rows + i for i, name in enumerate(names)})
    assert list(reloaded(trace, tmp_path).grads) == list(names)


# ------------------------------------------------------------------------------------- step by step


def test_shards_are_read_one_by_one(stored: Path) -> None:
    trace = made(rounding_noise=0.5)
    opened = open_trace(stored)
    assert (opened.steps, opened.complete) == (6, True)
    for chunk, (low, high) in zip(opened.chunks(), SHARDS, strict=True):
        assert bits(chunk) == bits(trace.slice(low, high))
    assert bits(load_trace(stored)) == bits(trace)


def test_metrics_are_those_of_the_end(tmp_path: Path) -> None:
    trace = made()
    ended = dataclasses.replace(trace, metrics={"correct": 355.0, "test_images": 360.0})
    assert concatenate([trace.slice(0, 3), ended.slice(3, 6)]).metrics == ended.metrics
    assert bits(load_trace(write(tmp_path / "trace", ended))) == bits(ended)
    assert open_trace(write_pieces(tmp_path / "killed", ended, complete=False)).metrics == {}


def test_a_shard_is_read_when_its_turn_comes(stored: Path) -> None:
    (stored / SECOND).unlink()
    chunks = open_trace(stored).chunks()
    assert len(next(chunks)) == 2
    refused(lambda: next(chunks), SECOND, "cannot be read")


@SEARCH
@given(cuts=st.sets(st.integers(1, 11)), low=st.integers(0, 12), high=st.integers(0, 12))
def test_cut_and_join_undo_each_other(cuts: set[int], low: int, high: int) -> None:
    trace = made(12, rounding_noise=0.5)
    bounds = [0, *sorted(cuts), 12]
    pieces = [trace.slice(a, b) for a, b in itertools.pairwise(bounds)]
    assert bits(concatenate(pieces)) == bits(trace)
    low, high = min(low, high), max(low, high)
    part = trace.slice(low, high)
    assert (len(part), part.start) == (high - low, low)
    assert part.params["bias"].tobytes() == trace.params["bias"][low : high + 1].tobytes()
    assert part.losses.tobytes() == trace.losses[low:high].tobytes()
    assert part.slice(0, len(part)).start == low


@pytest.mark.parametrize(("low", "high"), [(-1, 3), (4, 3), (0, 7), (7, 7)])
def test_cut_refuses_steps_that_are_not_there(low: int, high: int) -> None:
    refused(lambda: made().slice(low, high), str(low), str(high), "6")


OTHER_DTYPE = leaf_by("params", "bias", lambda rows: rows.astype(np.float32))


def _then(change: Change) -> Callable[[Trace], list[Trace]]:
    """The first half of a trace, and the second of what a change makes of it."""
    return lambda trace: [trace.slice(0, 3), change(trace).slice(3, 6)]


NO_NEIGHBOURS: dict[str, tuple[Callable[[Trace], list[Trace]], tuple[str, ...]]] = {
    "none": (lambda t: [], ("at least 1",)),
    "gap": (lambda t: [t.slice(0, 2), t.slice(3, 6)], ("3", "2")),
    "overlap": (lambda t: [t.slice(0, 3), t.slice(2, 6)], ("2", "3")),
    "backwards": (lambda t: [t.slice(3, 6), t.slice(0, 3)], ("0", "6")),
    "shape": (_then(leaf_by("raw_grads", "bias", lambda rows: rows[:, :2])), ("raw_grads", "3")),
    "dtype": (_then(OTHER_DTYPE), ("params", "3")),
}


@pytest.mark.parametrize(("pieces", "says"), NO_NEIGHBOURS.values(), ids=NO_NEIGHBOURS.keys())
def test_join_refuses_what_does_not_follow(
    pieces: Callable[[Trace], list[Trace]], says: tuple[str, ...]
) -> None:
    refused(lambda: concatenate(pieces(made())), *says)


UNSAVEABLE: dict[str, tuple[Change, tuple[str, ...]]] = {
    "no steps": (lambda t: t.slice(0, 0), ("no steps",)),
    "not from the start": (lambda t: t.slice(2, 6), ("step 2", "expected 0")),
    "rows missing": (rows_of("raw_grads", "bias", slice(4)), ("raw_grads, bias", "6 rows")),
    "no initial params": (rows_of("params", "gain", slice(1, None)), ("params, gain", "7 rows")),
    "other dtype": (OTHER_DTYPE, ("params, bias", "float32", "float64")),
}


@pytest.mark.parametrize(("change", "says"), UNSAVEABLE.values(), ids=UNSAVEABLE.keys())
def test_what_could_not_be_loaded_is_not_saved(
    change: Change, says: tuple[str, ...], tmp_path: Path
) -> None:
    refused(lambda: change(made()).save(tmp_path / "trace"), str(tmp_path / "trace"), *says)


def test_a_writer_takes_consecutive_steps_of_one_run(tmp_path: Path) -> None:
    trace = made()
    writer = TraceWriter(tmp_path / "trace", trace.metadata)
    writer.write(trace.slice(0, 2))
    refused(lambda: writer.write(trace.slice(3, 6)), "step 3", "expected 2")
    refused(lambda: writer.write(made(rounding_noise=1.0).slice(2, 6)), "some steps alone")
    writer.write(trace.slice(2, 6))
    assert bits(load_trace(tmp_path / "trace")) == bits(trace)


# ------------------------------------------------------------------------------------------ folders


def test_what_is_no_trace_is_named(tmp_path: Path, stored: Path) -> None:
    file = tmp_path / "file"
    file.write_text("text")
    (tmp_path / "empty").mkdir()
    refused(lambda: load_trace(tmp_path / "nowhere"), "nowhere", MANIFEST)
    refused(lambda: load_trace(tmp_path / "empty"), "empty", MANIFEST)
    refused(lambda: load_trace(file), str(file), "folder")
    (stored / MANIFEST).unlink()
    refused(lambda: load_trace(stored), str(stored), MANIFEST)


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path, stored: Path) -> None:
    file = tmp_path / "file"
    file.write_text("text")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes").write_text("mine")
    before = bits(load_trace(stored))
    for folder, says in (
        (file, "cannot be written"),
        (file / "trace", "cannot be written"),
        (tmp_path / "other", "not empty"),
        (stored, "not empty"),
    ):
        refused(functools.partial(made().save, folder), str(folder), says)
    assert file.read_text() == "text"
    assert os.listdir(tmp_path / "other") == ["notes"]
    assert bits(load_trace(stored)) == before, "a complete trace is never overwritten"


def test_a_new_folder_is_made_with_those_above_it(tmp_path: Path) -> None:
    made().save(tmp_path / "a" / "b" / "c")
    (tmp_path / "empty").mkdir()
    made().save(str(tmp_path / "empty"))
    assert bits(load_trace(str(tmp_path / "empty"))) == bits(load_trace(tmp_path / "a/b/c"))


@pytest.mark.parametrize("what", ["shard", "finish"])
def test_a_folder_that_goes_away_is_named(tmp_path: Path, what: str) -> None:
    writer = TraceWriter(tmp_path / "trace", made().metadata)
    if what == "finish":
        writer.write(made())
    shutil.rmtree(tmp_path / "trace")
    call = (lambda: writer.write(made())) if what == "shard" else (lambda: writer.finish({}))
    refused(call, str(tmp_path / "trace"), "cannot be written")
