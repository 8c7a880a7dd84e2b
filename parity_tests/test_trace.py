"""A saved trace is the trace, bit for bit, or one clear line: never anything between.

A run that is killed, at whatever moment, leaves what it finished. A file that is not what was
written is refused by name, so that no verdict ever rests on it.
"""

import contextlib
import dataclasses
import hashlib
import itertools
import json
import os
import shutil
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from handmade import LEAVES, made, metadata, planted, refused, with_leaf
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save

import twinstep
from twinstep import InputError, Trace, Verdict, chunking, cli, load_trace, open_trace
from twinstep.storage import MANIFEST, TraceWriter
from twinstep.trace import join
from twinstep.verify import compare_stored

HERE = Path(__file__).parent
SHARDS = ((0, 2), (2, 3), (3, 6))  # how the trace of `stored` is cut
SEARCH = settings(max_examples=200, deadline=None, derandomize=True)


def bits(trace: Trace) -> dict[str, Any]:
    """All that a trace says, leaf order and bits included; equal exactly when the traces are."""

    def leaves(arrays: Any) -> Any:
        return [(name, a.dtype.str, a.shape, a.tobytes()) for name, a in arrays.items()]

    return {
        "metadata": json.loads(json.dumps(dataclasses.asdict(trace.metadata))),
        "loss": leaves({"loss": trace.losses}),
        **{name: leaves(getattr(trace, name)) for name in ("batch", "grads", "opt_state")},
        "params": leaves(trace.params),
        "noise": trace.noise and leaves(trace.noise),
        "scales": trace.scales and leaves(trace.scales),
        "start": trace.start,
        "metrics": dict(trace.metrics),
    }


def write(folder: Path, trace: Trace, cuts: tuple[tuple[int, int], ...] = SHARDS) -> Path:
    """Saves a trace in several shards."""
    with TraceWriter(folder, trace.metadata) as writer:
        for low, high in cuts:
            writer.write(trace.cut(low, high))
        writer.finish(trace.metrics)
    return folder


@pytest.fixture
def stored(tmp_path: Path) -> Path:
    """A saved trace of 6 steps in three shards, `made(noise=0.5)`."""
    return write(tmp_path / "stored", made(noise=0.5))


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
    trace.save(tmp_path / "trace")
    loaded = load_trace(tmp_path / "trace")
    assert bits(loaded) == bits(trace)
    assert open_trace(tmp_path / "trace").complete
    assert twinstep.compare(trace, loaded).verdict is Verdict.EQUAL
    assert (loaded.noise is None) is (framework == "torch")


ODD = {
    "nan and inf": [np.nan, -np.inf, np.inf],
    "signed zeros": [-0.0, 0.0, -0.0],
    "subnormal": [5e-324, -5e-324, 2.2e-308],
    "nan with a payload": np.array([0x7FF8_0000_0000_BEEF] * 3, np.uint64).view(np.float64),
}


@pytest.mark.parametrize("values", ODD.values(), ids=ODD.keys())
def test_odd_numbers_come_back_bit_for_bit(values: Any, tmp_path: Path) -> None:
    trace = with_leaf(made(3), "loss", "loss", np.array(values))
    trace = with_leaf(trace, "grads", "bias", np.tile(np.array(values), (3, 1)))
    trace.save(tmp_path / "trace")
    assert bits(load_trace(tmp_path / "trace")) == bits(trace)


def test_names_layouts_and_order_come_back(tmp_path: Path) -> None:
    trace = made()
    names = ("z/a", "grads/weight", "0.weight", "noise/loss", "loss", "größe")
    rows = np.arange(6 * 4.0).reshape(4, 6).T  # not contiguous
    trace = dataclasses.replace(trace, grads={name: rows + i for i, name in enumerate(names)})
    trace.save(tmp_path / "trace")
    loaded = load_trace(tmp_path / "trace")
    assert bits(loaded) == bits(trace)
    assert list(loaded.grads) == list(names)


@pytest.mark.parametrize("stage", LEAVES)
def test_a_replaced_field_is_saved_and_found(stage: str, tmp_path: Path) -> None:
    trace = made()
    leaf = LEAVES[stage][0]
    changed = planted(trace, stage, leaf, 3, 7)
    before = bits(trace)
    changed.save(tmp_path / "changed")
    write(tmp_path / "trace", trace)
    assert bits(trace) == before, "a replaced field leaves the trace alone"
    loaded = load_trace(tmp_path / "changed")
    assert bits(loaded) == bits(changed) != before
    comparison = compare_stored(tmp_path / "trace", tmp_path / "changed")
    assert comparison.verdict is Verdict.MISMATCH
    assert comparison.first is not None
    assert (comparison.first.step, comparison.first.stage, comparison.first.leaf) == (
        3,
        stage,
        leaf,
    )


# ------------------------------------------------------------------------------------- step by step


def test_shards_are_read_one_by_one(stored: Path) -> None:
    trace = made(noise=0.5)
    opened = open_trace(stored)
    assert (opened.steps, opened.complete) == (6, True)
    for chunk, (low, high) in zip(opened.chunks(), SHARDS, strict=True):
        assert bits(chunk) == bits(trace.cut(low, high))
    assert bits(load_trace(stored)) == bits(trace)


def test_metrics_are_those_of_the_end(tmp_path: Path) -> None:
    trace = made()
    ended = dataclasses.replace(trace, metrics={"correct": 355.0, "test_images": 360.0})
    assert join([trace.cut(0, 3), ended.cut(3, 6)]).metrics == ended.metrics
    write(tmp_path / "trace", ended)
    assert bits(load_trace(tmp_path / "trace")) == bits(ended)
    with TraceWriter(tmp_path / "killed", ended.metadata) as writer:
        writer.write(ended)
    assert open_trace(tmp_path / "killed").metrics == {}


def test_a_shard_is_read_when_its_turn_comes(stored: Path) -> None:
    (stored / "steps-00000002-00000003.safetensors").unlink()
    chunks = open_trace(stored).chunks()
    assert len(next(chunks)) == 2
    refused(lambda: next(chunks), "steps-00000002-00000003.safetensors", "cannot be read")


@SEARCH
@given(cuts=st.sets(st.integers(1, 11)), low=st.integers(0, 12), high=st.integers(0, 12))
def test_cut_and_join_undo_each_other(cuts: set[int], low: int, high: int) -> None:
    trace = made(12, noise=0.5)
    bounds = [0, *sorted(cuts), 12]
    pieces = [trace.cut(a, b) for a, b in itertools.pairwise(bounds)]
    assert bits(join(pieces)) == bits(trace)
    low, high = min(low, high), max(low, high)
    part = trace.cut(low, high)
    assert (len(part), part.start) == (high - low, low)
    assert part.params["bias"].tobytes() == trace.params["bias"][low : high + 1].tobytes()
    assert part.losses.tobytes() == trace.losses[low:high].tobytes()
    assert part.cut(0, len(part)).start == low


@pytest.mark.parametrize(("low", "high"), [(-1, 3), (4, 3), (0, 7), (7, 7)])
def test_cut_refuses_steps_that_are_not_there(low: int, high: int) -> None:
    refused(lambda: made().cut(low, high), str(low), str(high), "6")


def _of_other_shape(trace: Trace) -> Trace:
    return with_leaf(trace, "grads", "bias", trace.grads["bias"][:, :2])


def _of_other_dtype(trace: Trace) -> Trace:
    return with_leaf(trace, "params", "bias", trace.params["bias"].astype(np.float32))


def _of_other_names(trace: Trace) -> Trace:
    return dataclasses.replace(trace, opt_state={**trace.opt_state, "more": trace.losses})


NO_NEIGHBOURS: dict[str, tuple[Callable[[Trace], list[Trace]], tuple[str, ...]]] = {
    "none": (lambda t: [], ("at least 1",)),
    "gap": (lambda t: [t.cut(0, 2), t.cut(3, 6)], ("3", "2")),
    "overlap": (lambda t: [t.cut(0, 3), t.cut(2, 6)], ("2", "3")),
    "backwards": (lambda t: [t.cut(3, 6), t.cut(0, 3)], ("0", "6")),
    "shape": (lambda t: [t.cut(0, 3), _of_other_shape(t).cut(3, 6)], ("grads", "3")),
    "dtype": (lambda t: [t.cut(0, 3), _of_other_dtype(t).cut(3, 6)], ("params", "3")),
    "names": (lambda t: [t.cut(0, 3), _of_other_names(t).cut(3, 6)], ("opt_state", "3")),
}


@pytest.mark.parametrize(("pieces", "says"), NO_NEIGHBOURS.values(), ids=NO_NEIGHBOURS.keys())
def test_join_refuses_what_does_not_follow(
    pieces: Callable[[Trace], list[Trace]], says: tuple[str, ...]
) -> None:
    refused(lambda: join(pieces(made())), *says)


UNSAVEABLE: dict[str, tuple[Callable[[Trace], Trace], tuple[str, ...]]] = {
    "no steps": (lambda t: t.cut(0, 0), ("no steps",)),
    "not from the start": (lambda t: t.cut(2, 6), ("step 2", "expected 0")),
    "rows missing": (
        lambda t: with_leaf(t, "grads", "bias", t.grads["bias"][:4]),
        ("grads, bias", "6 rows"),
    ),
    "no initial params": (
        lambda t: with_leaf(t, "params", "gain", t.params["gain"][1:]),
        ("params, gain", "7 rows"),
    ),
    "other dtype": (_of_other_dtype, ("params, bias", "float32", "float64")),
}


@pytest.mark.parametrize(("change", "says"), UNSAVEABLE.values(), ids=UNSAVEABLE.keys())
def test_what_could_not_be_loaded_is_not_saved(
    change: Callable[[Trace], Trace], says: tuple[str, ...], tmp_path: Path
) -> None:
    refused(lambda: change(made()).save(tmp_path / "trace"), str(tmp_path / "trace"), *says)


def test_a_writer_takes_consecutive_steps_of_one_run(tmp_path: Path) -> None:
    trace = made()
    writer = TraceWriter(tmp_path / "trace", trace.metadata)
    writer.write(trace.cut(0, 2))
    refused(lambda: writer.write(trace.cut(3, 6)), "step 3", "expected 2")
    refused(lambda: writer.write(made(noise=1.0).cut(2, 6)), "leaves")
    writer.write(trace.cut(2, 6))
    assert bits(load_trace(tmp_path / "trace")) == bits(trace)


# -------------------------------------------------------------------------------------- killed runs

ENDLESS = """
import sys
from handmade import made
from twinstep.storage import TraceWriter

writer = TraceWriter(sys.argv[1], made().metadata)
trace = made(100_000)
for step in range(len(trace)):
    writer.write(trace.cut(step, step + 1))
"""


def child(code: str, *arguments: object) -> "subprocess.Popen[bytes]":
    return subprocess.Popen([sys.executable, "-c", code, *map(str, arguments)], cwd=HERE)


@pytest.mark.parametrize("shards", [1, 4, 15])
def test_a_run_killed_at_any_moment_leaves_what_it_finished(shards: int, tmp_path: Path) -> None:
    folder = tmp_path / "trace"
    run = child(ENDLESS, folder)
    try:
        for _ in range(3000):
            # read while it is written: half a manifest is never seen
            if (folder / MANIFEST).exists() and open_trace(folder).steps >= shards:
                break
            time.sleep(0.01)
    finally:
        run.kill()
        run.wait()
    opened = open_trace(folder)
    assert run.returncode == -signal.SIGKILL
    assert opened.steps >= shards
    assert not opened.complete
    assert bits(load_trace(folder)) == bits(made(100_000).cut(0, opened.steps))


WRITES = 8  # the empty manifest, three times a shard and the manifest that lists it, the last one
KILLED = ("half written", "not yet moved", "moved")

KILLER = """
import os, signal, sys
from pathlib import Path
from handmade import made
from test_trace import SHARDS, KILLED, WRITES, write
from twinstep import storage

def kill_at(number, moment):
    done = 0
    real = storage._replace

    def replace(path, content):
        nonlocal done
        done += 1
        if done == number and moment != "moved":
            part = path.with_name(path.name + ".part")
            part.write_bytes(content[: len(content) // 2 if moment == "half written" else None])
            os.kill(os.getpid(), signal.SIGKILL)
        real(path, content)
        if done == number:
            os.kill(os.getpid(), signal.SIGKILL)

    storage._replace = replace

for number in range(1, WRITES + 1):
    for moment in KILLED:
        process = os.fork()
        if not process:
            kill_at(number, moment)
            write(Path(sys.argv[1], f"{number} {moment}"), made(noise=0.5))
            os._exit(0)
        assert os.WTERMSIG(os.waitpid(process, 0)[1]) == signal.SIGKILL
"""


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of the traces of runs that were killed at each write, at each moment of it."""
    folder = tmp_path_factory.mktemp("killed")
    # `test_trace` is imported by it for its constants; neither framework starts a thread in it
    assert child(KILLER, folder).wait(timeout=60) == 0
    return folder


@pytest.mark.parametrize("moment", KILLED)
@pytest.mark.parametrize("number", range(1, WRITES + 1))
def test_a_run_killed_within_a_write(killed: Path, number: int, moment: str) -> None:
    folder = killed / f"{number} {moment}"
    finished = number if moment == "moved" else number - 1
    if finished == 0:
        refused(lambda: open_trace(folder), str(folder), MANIFEST)
        return
    shards = min((finished - 1) // 2, len(SHARDS))
    opened = open_trace(folder)
    assert opened.complete is (finished == WRITES)
    if not shards:
        refused(lambda: load_trace(folder), str(folder), "no steps")
    else:
        assert bits(load_trace(folder)) == bits(made(noise=0.5).cut(0, SHARDS[shards - 1][1]))
    # nothing is written over what is there, be it as little
    refused(lambda: TraceWriter(folder, metadata()), str(folder), "not empty")


VERIFIED = """
import os, signal, sys
import twinstep
from twinstep import chunking, launch

chunking.MOST_STEPS = 4
launch.set_threads("torch", 1)
done = 0

def progress(steps):
    global done
    done += steps
    if done == 12:
        os.kill(os.getpid(), signal.SIGKILL)

spec = twinstep.examples()["linear_regression_adam"](dtype="float64", steps=20)
twinstep.verify(spec, out=sys.argv[1], progress=progress)
"""


def test_a_killed_verification_is_readable_to_where_it_came(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = child(VERIFIED, tmp_path / "killed")
    monkeypatch.setattr(chunking, "MOST_STEPS", 4)
    spec = twinstep.examples()["linear_regression_adam"](dtype="float64", steps=20)
    twinstep.verify(spec, out=tmp_path / "whole")
    assert run.wait(timeout=120) == -signal.SIGKILL
    for framework in ("torch", "jax"):
        short, whole = tmp_path / "killed" / framework, tmp_path / "whole" / framework
        assert (open_trace(short).complete, open_trace(short).steps) == (False, 12)
        assert (open_trace(whole).complete, open_trace(whole).steps) == (True, 20)
        assert len(open_trace(short).shards) == 3
        assert bits(load_trace(short)) == bits(load_trace(whole).cut(0, 12))
        refused(lambda a=short, b=whole: compare_stored(a, b), str(short), "12", "20")  # type: ignore[misc]
        assert compare_stored(short, whole, steps=12).verdict is Verdict.EQUAL
    verdict = compare_stored(tmp_path / "killed" / "torch", tmp_path / "killed" / "jax").verdict
    assert verdict is Verdict.ROUNDING
    refused(lambda: twinstep.verify(spec, out=tmp_path / "whole"), "torch", "not empty")
    assert open_trace(tmp_path / "whole" / "torch").complete


@pytest.mark.parametrize("stray", ["x.safetensors.part", "steps-00000006-00000009.safetensors"])
def test_files_that_the_manifest_does_not_list_are_no_part(stored: Path, stray: str) -> None:
    shutil.copy(stored / "steps-00000000-00000002.safetensors", stored / stray)
    assert bits(load_trace(stored)) == bits(made(noise=0.5))


# ----------------------------------------------------------------------------------- damaged shards

SHARD = "steps-00000002-00000003.safetensors"


def flip(path: Path, position: int) -> None:
    content = bytearray(path.read_bytes())
    content[position] ^= 1
    path.write_bytes(content)


DAMAGES: dict[str, Callable[[Path], object]] = {
    "a bit of a value": lambda shard: flip(shard, -1),
    "a bit of the header": lambda shard: flip(shard, 9),
    "cut short": lambda shard: shard.write_bytes(shard.read_bytes()[:-8]),
    "grown": lambda shard: shard.write_bytes(shard.read_bytes() + b"\0"),
    "emptied": lambda shard: shard.write_bytes(b""),
    "another shard": lambda shard: shutil.copy(
        shard.with_name("steps-00000000-00000002.safetensors"), shard
    ),
    "the same steps of another run": lambda shard: shutil.copy(
        write(shard.parent.with_name("other"), made(seed=1, noise=0.5)) / SHARD, shard
    ),
    "missing": lambda shard: shard.unlink(),
    "a folder": lambda shard: shard.rename(shard.with_name("away")).with_name(SHARD).mkdir(),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES.keys())
def test_a_damaged_shard_is_named(
    stored: Path, damage: Callable[[Path], object], capsys: pytest.CaptureFixture[str]
) -> None:
    whole = stored.with_name("whole")
    shutil.copytree(stored, whole)
    damage(stored / SHARD)
    line = refused(lambda: load_trace(stored), str(stored / SHARD))
    assert refused(lambda: compare_stored(whole, stored)) == line
    assert refused(lambda: compare_stored(stored, whole)) == line
    # the steps before it can be read and judged
    assert compare_stored(whole, stored, steps=2).verdict is Verdict.EQUAL
    assert cli.main(["compare", str(whole), str(stored)]) == 2
    assert capsys.readouterr().err == f"twinstep: error: {line}\n"


# -------------------------------------------------------------------------------- damaged manifests


def sealed(manifest: dict[str, Any]) -> dict[str, Any]:
    """With the checksum that a manifest of this content bears, made independently of the writer."""
    content = {name: value for name, value in manifest.items() if name != "sha256"}
    checksum = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    return {**content, "sha256": checksum}


def rewrite(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Changes a manifest, as somebody who knows the format would, checksum included."""
    path = folder / MANIFEST
    manifest = json.loads(path.read_bytes())
    change(manifest)
    path.write_text(json.dumps(sealed(manifest)))


def test_the_checksum_of_the_tests_is_that_of_the_writer(stored: Path) -> None:
    before = json.loads((stored / MANIFEST).read_bytes())
    assert sealed(before) == before
    rewrite(stored, lambda manifest: None)
    assert bits(load_trace(stored)) == bits(made(noise=0.5))


TEXTS: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "not JSON"),
    "no JSON": (b"{", "not JSON"),
    "no text": (b"\xff\xfe\x00", "not JSON"),
    "too deep": (b"[" * 100_000, "not JSON"),
    "a number too long": (b"1" * 10_000, "not JSON"),
    "a list": (b"[]", "format"),
    "a word": (b'"trace"', "format"),
    "null": (b"null", "format"),
    "no format": (b"{}", "format"),
    "format true": (b'{"format": true}', "format"),
    "format as text": (b'{"format": "1"}', "format"),
    "newer format": (b'{"format": 2}', "newer"),
    "format alone": (b'{"format": 1}', "sha256"),
}


@pytest.mark.parametrize(("text", "says"), TEXTS.values(), ids=TEXTS.keys())
def test_a_manifest_that_is_none(stored: Path, text: bytes, says: str) -> None:
    (stored / MANIFEST).write_bytes(text)
    refused(lambda: load_trace(stored), str(stored / MANIFEST), says)
    refused(lambda: compare_stored(stored, stored), str(stored / MANIFEST), says)


Change = Callable[[dict[str, Any]], object]

FORGED: dict[str, tuple[Change, str]] = {
    "newer format": (lambda m: m.update(format=2), "newer"),
    "no metadata": (lambda m: m.pop("metadata"), "metadata"),
    "metadata a list": (lambda m: m.update(metadata=[]), "metadata"),
    "a field more": (lambda m: m["metadata"].update(more=1), "more"),
    "a field less": (lambda m: m["metadata"].pop("example"), "metadata"),
    "example a number": (lambda m: m["metadata"].update(example=1), "example"),
    "spec a list": (lambda m: m["metadata"].update(spec=[]), "spec"),
    "dtype unknown": (lambda m: m["metadata"].update(dtype="float99"), "float99"),
    "dtype not of the arrays": (lambda m: m["metadata"].update(dtype="float32"), "float32"),
    "complete as text": (lambda m: m.update(complete="no"), "complete"),
    "metrics null": (lambda m: m.update(metrics=None), "metrics"),
    "a metric as text": (lambda m: m.update(metrics={"correct": "all"}), "correct"),
    "shards an object": (lambda m: m.update(shards={}), "shards"),
    "a shard a name": (lambda m: m.update(shards=["x"]), "shard"),
    "no file": (lambda m: m["shards"][1].pop("file"), "file"),
    "file null": (lambda m: m["shards"][1].update(file=None), "file"),
    "start as text": (lambda m: m["shards"][0].update(start="0"), "start"),
    "start infinite": (lambda m: m["shards"][0].update(start=float("inf")), "start"),
    "steps a fraction": (lambda m: m["shards"][1].update(steps=1.0), "steps"),
    "steps true": (lambda m: m["shards"][1].update(steps=True), "steps"),
    "steps 0": (lambda m: m["shards"][1].update(steps=0), "at least 1"),
    "steps below 0": (lambda m: m["shards"][2].update(steps=-3), "at least 1"),
    "steps beyond all": (lambda m: m["shards"][2].update(steps=10**4200), ""),
    "checksum a number": (lambda m: m["shards"][1].update(sha256=0), "sha256"),
    "checksum of no file": (lambda m: m["shards"][1].update(sha256="0"), SHARD),
    "a gap": (lambda m: m["shards"].pop(1), "starts at step 3, expected 2"),
    "twice": (lambda m: m["shards"].insert(1, m["shards"][1]), "expected 3"),
    "out of order": (lambda m: m["shards"].reverse(), "expected 0"),
    "the beginning missing": (lambda m: m["shards"].pop(0), "expected 0"),
    "a path out": (lambda m: m["shards"][1].update(file="../../etc/passwd"), "../../etc/passwd"),
    "a path to the shard": (
        lambda m: m["shards"][1].update(file=f"../stored/{SHARD}"),
        "../stored",
    ),
    "a path from the root": (lambda m: m["shards"][1].update(file="/etc/passwd"), "/etc/passwd"),
    "a name of no file": (lambda m: m["shards"][1].update(file="a\0b"), "named"),
    "a name of two lines": (lambda m: m["shards"][1].update(file="a\nb"), "named"),
    "an empty name": (lambda m: m["shards"][1].update(file=""), "named"),
    "another name": (lambda m: m["shards"][1].update(file="x.safetensors"), "x.safetensors"),
    "leaves missing": (lambda m: m.pop("leaves"), "leaves"),
    "no loss": (lambda m: m["leaves"].remove("loss"), "loss"),
    "leaves no names": (lambda m: m["leaves"].append([]), "name"),
    "a leaf more": (lambda m: m["leaves"].append("grads/more"), "leaves"),
    "a leaf less": (lambda m: m["leaves"].remove("grads/bias"), "leaves"),
}


@pytest.mark.parametrize(("change", "says"), FORGED.values(), ids=FORGED.keys())
def test_a_forged_manifest_is_named(stored: Path, change: Change, says: str) -> None:
    rewrite(stored, change)
    refused(lambda: load_trace(stored), str(stored), says)
    refused(lambda: compare_stored(stored, stored), str(stored), says)


@pytest.mark.parametrize(
    "change",
    [
        lambda m: m.update(complete=False),
        lambda m: m["metadata"].update(dtype="float32"),
        lambda m: m["metadata"]["spec"].update(seed=1),
        lambda m: m["shards"].pop(),
        lambda m: m.pop("sha256"),
    ],
    ids=["complete", "dtype", "seed", "last shard", "checksum"],
)
def test_a_manifest_changed_by_hand_is_refused(stored: Path, change: Change) -> None:
    manifest = json.loads((stored / MANIFEST).read_bytes())
    change(manifest)
    (stored / MANIFEST).write_text(json.dumps(manifest))
    refused(lambda: open_trace(stored), str(stored / MANIFEST), "damaged")


def shard_of(arrays: dict[str, np.ndarray]) -> bytes:
    return save({name: np.ascontiguousarray(array) for name, array in arrays.items()})


def typed(kind: str, size: int) -> bytes:
    """A safetensors file of one tensor, of a type that NumPy may not have."""
    header = {"loss": {"dtype": kind, "shape": [1], "data_offsets": [0, size]}}
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + bytes(size)


CONTENTS: dict[str, Callable[[], bytes]] = {
    "nothing": lambda: b"",
    "no safetensors": lambda: b"PK\x03\x04" * 9,
    "a pickle": lambda: b"\x80\x04N.",
    "no tensors": lambda: shard_of({}),
    "losses alone": lambda: shard_of({"loss": np.zeros(2)}),
    "a type that NumPy lacks": lambda: typed("BF16", 2),
    "complex": lambda: shard_of(_arrays({"loss": np.zeros(2, np.complex64)})),
    "losses a scalar": lambda: shard_of(_arrays({"loss": np.zeros(())})),
    "losses a table": lambda: shard_of(_arrays({"loss": np.zeros((2, 1))})),
    "losses integers": lambda: shard_of(_arrays({"loss": np.zeros(2, int)})),
    "three losses": lambda: shard_of(_arrays({"loss": np.zeros(3)})),
    "a gradient too short": lambda: shard_of(_arrays({"grads/bias": np.zeros((1, 3))})),
    "a gradient a scalar": lambda: shard_of(_arrays({"grads/bias": np.zeros(())})),
    "params without the first": lambda: shard_of(_arrays({"params/gain": np.zeros(2)})),
    "noise too short": lambda: shard_of(_arrays({"noise/loss/loss": np.zeros(1)})),
    "scales a table": lambda: shard_of(_arrays({"scales/loss/loss": np.zeros((2, 2))})),
    "other steps": lambda: shard_of(_arrays(steps=3)),
}


def _arrays(changes: Mapping[str, np.ndarray] = {}, steps: int = 2) -> dict[str, np.ndarray]:
    """The arrays of the first shard of `stored`, with some of them changed."""
    trace = made(noise=0.5).cut(0, steps)
    arrays = {"loss": trace.losses}
    for stage in ("batch", "grads", "opt_state", "params", "noise", "scales"):
        arrays |= {f"{stage}/{name}": array for name, array in getattr(trace, stage).items()}
    return {**arrays, **changes}


def put_first_shard(folder: Path, content: bytes) -> None:
    """Replaces the first shard and lists it as if it had been written so."""
    (folder / "steps-00000000-00000002.safetensors").write_bytes(content)
    checksum = hashlib.sha256(content).hexdigest()
    rewrite(folder, lambda manifest: manifest["shards"][0].update(sha256=checksum))


def test_a_shard_put_in_its_place_is_read(stored: Path) -> None:
    put_first_shard(stored, shard_of(_arrays()))
    assert bits(load_trace(stored)) == bits(made(noise=0.5))


@pytest.mark.parametrize("content", CONTENTS.values(), ids=CONTENTS.keys())
def test_a_forged_shard_is_named(stored: Path, content: Callable[[], bytes]) -> None:
    put_first_shard(stored, content())
    refused(lambda: load_trace(stored), str(stored / "steps-00000000-00000002.safetensors"))


def test_shards_of_different_shapes_do_not_make_a_trace(stored: Path) -> None:
    put_first_shard(stored, shard_of(_arrays({"grads/bias": np.zeros((2, 4))})))
    refused(lambda: load_trace(stored), "grads", "step")


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
    (stored / MANIFEST).mkdir()
    refused(lambda: load_trace(stored), str(stored), "cannot be read")


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
        refused(lambda folder=folder: made().save(folder), str(folder), says)  # type: ignore[misc]
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


# ------------------------------------------------------------------------------------ random damage


@pytest.fixture(scope="module")
def victim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("victim") / "trace", made(noise=0.5))


@contextlib.contextmanager
def replaced(path: Path, content: bytes) -> Iterator[None]:
    """A file with another content, for a while."""
    before = path.read_bytes()
    path.write_bytes(content)
    try:
        yield
    finally:
        path.write_bytes(before)


def loaded_or_line(folder: Path) -> Trace | str:
    """What loading comes to; anything but a trace or an InputError goes through."""
    try:
        return load_trace(folder)
    except InputError as error:
        return str(error)


@SEARCH
@given(
    name=st.sampled_from([MANIFEST, SHARD]),
    place=st.integers(0, 10_000),
    noise=st.binary(min_size=1, max_size=12),
)
def test_random_bytes_give_the_trace_or_one_line(
    victim: Path, name: str, place: int, noise: bytes
) -> None:
    content = bytearray((victim / name).read_bytes())
    place %= len(content)
    content[place : place + len(noise)] = noise
    with replaced(victim / name, bytes(content)):
        result = loaded_or_line(victim)
    if isinstance(result, str):
        assert str(victim) in result
        assert "\n" not in result
    else:
        assert bits(result) == bits(made(noise=0.5))


SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4)
JSON = SCALARS | st.lists(SCALARS, max_size=2) | st.dictionaries(st.just("file"), SCALARS)


def places(value: Any) -> list[tuple[Any, Any]]:
    """(container, key) of everything in a JSON value."""
    keys = list(value) if isinstance(value, dict) else range(len(value))
    inner = [value[key] for key in keys if isinstance(value[key], (dict, list))]
    return [(value, key) for key in keys] + [place for each in inner for place in places(each)]


@SEARCH
@given(data=st.data())
def test_a_manifest_of_random_values_gives_a_trace_or_one_line(
    victim: Path, data: st.DataObject
) -> None:
    manifest = json.loads((victim / MANIFEST).read_bytes())
    container, key = data.draw(st.sampled_from(places(manifest)))
    if data.draw(st.booleans()):
        container[key] = data.draw(JSON)
    else:
        del container[key]
    with replaced(victim / MANIFEST, json.dumps(sealed(manifest)).encode()):
        result = loaded_or_line(victim)
    if isinstance(result, str):
        assert "\n" not in result
    else:
        assert len(result) in {6, 3, 2}, "whole shards, if some were taken off the list"
