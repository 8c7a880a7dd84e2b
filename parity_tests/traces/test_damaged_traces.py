"""A file that is not what was written is refused by name, so that no verdict ever rests on it."""

import hashlib
import json
import shutil
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.storing import FIRST, SEARCH, SECOND, bits, unreadable, write
from helpers.synthetic_traces import made, refused
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save

from twinstep import InputError, Trace, Verdict, cli, load_trace, open_trace
from twinstep.runs.verification import compare_stored
from twinstep.trace.writing import MANIFEST

# ----------------------------------------------------------------------------------- damaged shards


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
    "another shard": lambda shard: shutil.copy(shard.with_name(FIRST), shard),
    "the same steps of another run": lambda shard: shutil.copy(
        write(shard.parent.with_name("other"), made(seed=1, rounding_noise=0.5)) / SECOND, shard
    ),
    "missing": lambda shard: shard.unlink(),
    "a folder": lambda shard: shard.rename(shard.with_name("away")).with_name(SECOND).mkdir(),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES.keys())
def test_a_damaged_shard_is_named(
    stored: Path, damage: Callable[[Path], object], capsys: pytest.CaptureFixture[str]
) -> None:
    whole = stored.with_name("whole")
    shutil.copytree(stored, whole)
    damage(stored / SECOND)
    line = refused(lambda: load_trace(stored), str(stored / SECOND))
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
    assert bits(load_trace(stored)) == bits(made(rounding_noise=0.5))


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
    "oldest format": (b'{"format": 1}', "an older twinstep wrote it"),
    "older format": (b'{"format": 5}', "has format 5, expected 6: an older twinstep wrote it"),
    "newer format": (b'{"format": 7}', "use a newer twinstep"),
    "format alone": (b'{"format": 6}', "sha256"),
}


@pytest.mark.parametrize(("text", "says"), TEXTS.values(), ids=TEXTS.keys())
def test_a_manifest_that_is_none(stored: Path, text: bytes, says: str) -> None:
    (stored / MANIFEST).write_bytes(text)
    unreadable(stored, str(stored / MANIFEST), says)


Change = Callable[[dict[str, Any]], object]


def _with(**changes: Any) -> Change:
    return lambda manifest: manifest.update(changes)


def _second(**changes: Any) -> Change:
    """Changes what is said of the second shard."""
    return lambda manifest: manifest["shards"][1].update(changes)


FORGED: dict[str, tuple[Change, str]] = {
    "newer format": (_with(format=7), "newer"),
    "no metadata": (lambda m: m.pop("metadata"), "metadata"),
    "metadata a list": (_with(metadata=[]), "metadata"),
    "a field more": (lambda m: m["metadata"].update(more=1), "more"),
    "a field less": (lambda m: m["metadata"].pop("example"), "metadata"),
    "example a number": (lambda m: m["metadata"].update(example=1), "example"),
    "spec a list": (lambda m: m["metadata"].update(spec=[]), "spec"),
    "dtype unknown": (lambda m: m["metadata"].update(dtype="float99"), "float99"),
    "dtype not of the arrays": (lambda m: m["metadata"].update(dtype="float32"), "float32"),
    "complete as text": (_with(complete="no"), "complete"),
    "metrics null": (_with(metrics=None), "metrics"),
    "a metric as text": (_with(metrics={"correct": "all"}), "correct"),
    "shards an object": (_with(shards={}), "shards"),
    "a shard a name": (_with(shards=["x"]), "shard"),
    "no file": (lambda m: m["shards"][1].pop("file"), "file"),
    "file null": (_second(file=None), "file"),
    "start as text": (lambda m: m["shards"][0].update(start="0"), "start"),
    "start infinite": (lambda m: m["shards"][0].update(start=float("inf")), "start"),
    "steps a fraction": (_second(steps=1.0), "steps"),
    "steps true": (_second(steps=True), "steps"),
    "steps 0": (_second(steps=0), "at least 1"),
    "steps below 0": (lambda m: m["shards"][2].update(steps=-3), "at least 1"),
    "steps beyond all": (lambda m: m["shards"][2].update(steps=10**4200), ""),
    "no size": (lambda m: m["shards"][1].pop("bytes"), "bytes"),
    "size as text": (_second(bytes="9"), "bytes"),
    "size below 0": (_second(bytes=-1), "at least 0"),
    "size below the file's": (_second(bytes=9), "expected at most 9"),
    "size beyond the memory": (_second(bytes=10**30), "of memory"),
    "checksum a number": (_second(sha256=0), "sha256"),
    "checksum of no file": (lambda m: m["shards"][1].update(sha256="0"), SECOND),
    "a gap": (lambda m: m["shards"].pop(1), "starts at step 3, expected 2"),
    "twice": (lambda m: m["shards"].insert(1, m["shards"][1]), "expected 3"),
    "out of order": (lambda m: m["shards"].reverse(), "expected 0"),
    "the beginning missing": (lambda m: m["shards"].pop(0), "expected 0"),
    "a path out": (_second(file="../../etc/passwd"), "../../etc/passwd"),
    "a path to the shard": (_second(file=f"../stored/{SECOND}"), "../stored"),
    "a path from the root": (_second(file="/etc/passwd"), "/etc/passwd"),
    "a name of no file": (_second(file="a\0b"), "named"),
    "a name of two lines": (_second(file="a\nb"), "named"),
    "an empty name": (_second(file=""), "named"),
    "another name": (_second(file="x.safetensors"), "x.safetensors"),
    "held once missing": (lambda m: m["shards"][1].pop("held_once"), "held_once"),
    "held once null": (_second(held_once=None), "held_once"),
    "held once no names": (_second(held_once=[1]), "held_once"),
    "one held twice": (lambda m: m["shards"][1]["held_once"].remove("bias"), "leaves"),
    "absent missing": (lambda m: m["shards"][1].pop("absent"), "absent"),
    "absent null": (_second(absent=None), "absent"),
    "absent no names": (_second(absent=[1]), "absent"),
    "a leaf absent that is there": (_second(absent=["params/bias"]), "leaves"),
    "leaves of a shard missing": (lambda m: m["shards"][1].pop("leaves"), "leaves"),
    "leaves of a shard a fraction": (_second(leaves=1.5), "leaves"),
    "no leaves of a shard": (_second(leaves=0), "has 0 leaves"),
    "fewer leaves of a shard": (_second(leaves=3), "leaves"),
    "more leaves of a shard": (_second(leaves=10**30), "leaves"),
    "leaves missing": (lambda m: m.pop("leaves"), "leaves"),
    "no loss": (lambda m: m["leaves"].remove("loss"), "loss"),
    "leaves no names": (lambda m: m["leaves"].append([]), "name"),
    "a leaf more": (lambda m: m["leaves"].append("raw_grads/more"), "leaves"),
    "a leaf less": (lambda m: m["leaves"].remove("raw_grads/bias"), "leaves"),
    "a gradient less that is held once": (lambda m: m["leaves"].remove("grads/bias"), "leaves"),
}


@pytest.mark.parametrize(("change", "says"), FORGED.values(), ids=FORGED.keys())
def test_a_forged_manifest_is_named(stored: Path, change: Change, says: str) -> None:
    rewrite(stored, change)
    unreadable(stored, str(stored), says)


BY_HAND: dict[str, Change] = {
    "complete": _with(complete=False),
    "dtype": lambda m: m["metadata"].update(dtype="float32"),
    "seed": lambda m: m["metadata"]["spec"].update(seed=1),
    "last shard": lambda m: m["shards"].pop(),
    "checksum": lambda m: m.pop("sha256"),
}


@pytest.mark.parametrize("change", BY_HAND.values(), ids=BY_HAND.keys())
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


def first_shard(changes: Mapping[str, np.ndarray] = {}, steps: int = 2) -> bytes:
    """The first shard of `stored`, with some of its arrays changed."""
    trace = made(rounding_noise=0.5).slice(0, steps)
    arrays = {"loss": trace.losses}
    for stage in ("batch", "raw_grads", "opt_state", "params", "rounding_noise", "rounding_scale"):
        arrays |= {f"{stage}/{name}": array for name, array in getattr(trace, stage).items()}
    return shard_of({**arrays, **changes})


CONTENTS: dict[str, bytes] = {
    "nothing": b"",
    "no safetensors": b"PK\x03\x04" * 9,
    "a pickle": b"\x80\x04N.",
    "no tensors": shard_of({}),
    "losses alone": shard_of({"loss": np.zeros(2)}),
    "a type that NumPy lacks": typed("BF16", 2),
    "complex": first_shard({"loss": np.zeros(2, np.complex64)}),
    "bfloat16 of no bits": first_shard({"bfloat16/buffers/b": np.zeros((3, 2))}),
    "complex of no pairs": first_shard({"complex64/buffers/b": np.zeros(3, np.float32)}),
    "one leaf twice": first_shard({"complex64/loss": np.zeros((2, 2), np.float32)}),
    "losses a scalar": first_shard({"loss": np.zeros(())}),
    "losses a table": first_shard({"loss": np.zeros((2, 1))}),
    "losses integers": first_shard({"loss": np.zeros(2, int)}),
    "three losses": first_shard({"loss": np.zeros(3)}),
    "a gradient too short": first_shard({"raw_grads/bias": np.zeros((1, 3))}),
    "a gradient a scalar": first_shard({"raw_grads/bias": np.zeros(())}),
    "params without the first": first_shard({"params/gain": np.zeros(2)}),
    "rounding noise too short": first_shard({"rounding_noise/loss/loss": np.zeros(1)}),
    "rounding scale a table": first_shard({"rounding_scale/loss/loss": np.zeros((2, 2))}),
    "other steps": first_shard(steps=3),
    "rows of no leaf": first_shard({"rows/params/more": np.arange(2)}),
    "rows of steps to come": first_shard({"rows/raw_grads/bias": np.arange(1, 3)}),
    "rows in no order": first_shard({"rows/raw_grads/bias": np.array([1, 0])}),
    "more rows than steps": first_shard({"rows/raw_grads/bias": np.array([0, 0, 1])}),
    "rows in fractions": first_shard({"rows/raw_grads/bias": np.zeros(2)}),
    "rows a table": first_shard({"rows/raw_grads/bias": np.zeros((2, 1), int)}),
}


def put_first_shard(folder: Path, content: bytes) -> None:
    """Replaces the first shard and lists it as if it had been written so."""
    (folder / FIRST).write_bytes(content)
    told = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    rewrite(folder, lambda manifest: manifest["shards"][0].update(told))


def test_a_shard_put_in_its_place_is_read(stored: Path) -> None:
    put_first_shard(stored, first_shard())
    assert bits(load_trace(stored)) == bits(made(rounding_noise=0.5))


@pytest.mark.parametrize("content", CONTENTS.values(), ids=CONTENTS.keys())
def test_a_forged_shard_is_named(stored: Path, content: bytes) -> None:
    put_first_shard(stored, content)
    refused(lambda: load_trace(stored), str(stored / FIRST))


def test_shards_of_different_shapes_do_not_make_a_trace(stored: Path) -> None:
    put_first_shard(stored, first_shard({"raw_grads/bias": np.zeros((2, 4))}))
    refused(lambda: load_trace(stored), "raw_grads", "step")


# ------------------------------------------------------------------------------------ random damage


@pytest.fixture(scope="module")
def victim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("victim") / "trace", made(rounding_noise=0.5))


def loaded(folder: Path, name: str, content: bytes) -> Trace | None:
    """The trace with another content of a file, or None: one line says why there is none.

    Anything but a trace or an InputError goes through.
    """
    before = (folder / name).read_bytes()
    (folder / name).write_bytes(content)
    try:
        return load_trace(folder)
    except InputError as error:
        line = str(error)
    finally:
        (folder / name).write_bytes(before)
    assert str(folder) in line
    assert "\n" not in line
    return None


@SEARCH
@given(
    name=st.sampled_from([MANIFEST, SECOND]),
    position=st.integers(0, 10_000),
    garbage=st.binary(min_size=1, max_size=12),
)
def test_random_bytes_give_the_trace_or_one_line(
    victim: Path, name: str, position: int, garbage: bytes
) -> None:
    content = bytearray((victim / name).read_bytes())
    position %= len(content)
    content[position : position + len(garbage)] = garbage
    trace = loaded(victim, name, bytes(content))
    if trace is not None:
        assert bits(trace) == bits(made(rounding_noise=0.5))


SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4)
JSON = SCALARS | st.lists(SCALARS, max_size=2) | st.dictionaries(st.just("file"), SCALARS)


def places(value: Any) -> list[tuple[Any, Any]]:
    """(container, key) of everything in a JSON value."""
    keys = list(value) if isinstance(value, dict) else range(len(value))
    inner = [value[key] for key in keys if isinstance(value[key], (dict, list))]
    return [(value, key) for key in keys] + [
        position for each in inner for position in places(each)
    ]


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
    trace = loaded(victim, MANIFEST, json.dumps(sealed(manifest)).encode())
    if trace is not None:
        assert len(trace) in {6, 3, 2}, "whole shards, if some were taken off the list"
