"""A golden: what it holds, that it comes back as it was, and what is refused."""

import dataclasses
import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.commands import command, refusal
from helpers.synthetic_traces import refused

from port import small_pair
from port.small_pair import to_renamed
from twinstep import Trace
from twinstep.port import golden as module
from twinstep.port.golden import DATA, MANIFEST, Golden, golden_of, load_golden, save_golden
from twinstep.port.mapping import Mapping
from twinstep.trace import dtypes
from twinstep.trace.sketch import sketch

torch_side = functools.cache(small_pair.torch_side)


# What it holds


def held(golden: Golden) -> dict[str, Any]:
    """All of it as what can be compared: bits, dtypes, shapes."""

    def plain(value: Any) -> Any:
        if isinstance(value, np.ndarray):
            return value.dtype.str, value.shape, value.tobytes()
        if isinstance(value, dict):
            return {name: plain(one) for name, one in value.items()}
        return [plain(one) for one in value] if isinstance(value, tuple | list) else value

    return {f.name: plain(getattr(golden, f.name)) for f in dataclasses.fields(golden)}


@pytest.mark.parametrize("mapping", [None, to_renamed()])
def test_it_comes_back_bit_for_bit(mapping: Mapping | None, tmp_path: Path) -> None:
    golden = golden_of(torch_side(), mapping=mapping)
    size = save_golden(golden, tmp_path / "new" / "golden")
    assert size == sum(path.stat().st_size for path in (tmp_path / "new" / "golden").iterdir())
    assert held(load_golden(tmp_path / "new" / "golden")) == held(golden)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["golden"], "nothing beside it"


def test_it_is_the_same_files_whenever_it_is_made(tmp_path: Path) -> None:
    for name in ("one", "other"):
        save_golden(golden_of(torch_side(), mapping=to_renamed()), tmp_path / name)
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "other" / path.name).read_bytes()


def test_batches_of_several_shapes_and_other_dtypes_come_back(tmp_path: Path) -> None:
    golden = golden_of(torch_side(), 2)
    calls = [np.zeros((2, 3)), np.zeros((3, 2)), np.zeros(6, "int64"), np.ones((), bool)]
    half = np.arange(6, dtype=np.uint16).view(dtypes.bfloat16())
    changed = dataclasses.replace(
        golden,
        batches=({"x": calls, "y": half}, {"y": half}),
        buffers={"half": half},
        losses=np.array([0.1, np.nan]),
        sketches={**golden.sketches, "buffers/half": sketch(np.stack([half] * 3))},
    )
    save_golden(changed, tmp_path / "golden")
    assert held(load_golden(tmp_path / "golden")) == held(changed)


def test_it_holds_what_the_trace_has() -> None:
    trace = torch_side()
    golden = golden_of(trace, 3)
    assert len(golden) == 3
    assert golden.losses.tobytes() == trace.losses[:3].tobytes()
    assert golden.params["2.weight"].tobytes() == trace.params["2.weight"][0].tobytes()
    assert golden.batches[2]["x"].tobytes() == trace.inputs_of(2)["x"].tobytes()
    assert golden.hyper_parameters["0.lr"] == small_pair.RATE
    for stage, rows in (("params", 4), ("raw_grads", 3)):
        array = getattr(trace, stage)["2.weight"][:rows]
        assert golden.sketches[f"{stage}/2.weight"].tobytes() == sketch(array).tobytes()


def test_a_leaf_without_a_row_stays_and_has_no_gradient() -> None:
    trace = torch_side()
    keys = [f"{stage}/2.bias" for stage in ("params", "raw_grads", "grads")]
    rows = dict.fromkeys(keys, np.array([1, 3]))
    cut: dict[str, Any] = {
        stage: {**getattr(trace, stage), "2.bias": getattr(trace, stage)["2.bias"][:length]}
        for stage, length in (("params", 3), ("raw_grads", 2), ("grads", 2))
    }
    golden = golden_of(dataclasses.replace(trace, **cut, rows=rows), 5)
    one, two, three = sketch(trace.params["2.bias"][:3])
    assert np.array_equal(golden.sketches["params/2.bias"], [one, one, two, two, three, three])
    grads = golden.sketches["raw_grads/2.bias"]
    assert np.isnan(grads).all(axis=1).tolist() == [True, False, True, False, True]
    assert np.array_equal(grads[[1, 3]], sketch(trace.raw_grads["2.bias"][:2]))


# Bad input


def changed_manifest(folder: Path, **values: Any) -> None:
    """Gives a golden's manifest other values, and seals it."""
    manifest = json.loads((folder / MANIFEST).read_text()) | values
    manifest["sha256"] = module.seal(manifest)
    (folder / MANIFEST).write_text(json.dumps(manifest))


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "another format": (lambda f: changed_manifest(f, format=2), "has format 2, expected 1"),
    "no JSON": (lambda f: (f / MANIFEST).write_text("{"), "is damaged: it is not JSON"),
    "a list": (lambda f: (f / MANIFEST).write_text("[]"), "has format None, expected 1"),
    "edited": (
        lambda f: (f / MANIFEST).write_text((f / MANIFEST).read_text().replace("torch", "jax")),
        "is damaged: it is not what was written",
    ),
    "a bit": (
        lambda f: (f / DATA).write_bytes((f / DATA).read_bytes()[:-1] + b"\1"),
        "is damaged: its bytes are not those written",
    ),
    "no data": (lambda f: (f / DATA).unlink(), "cannot be read: No such file or directory"),
    "no manifest": (lambda f: (f / MANIFEST).unlink(), "is no golden: it has no golden.json"),
    "losses": (lambda f: changed_manifest(f, losses=[1.0]), "1 losses, 8 batches"),
    "batches": (lambda f: changed_manifest(f, batches=[{"x": "y"}] * 8), "is damaged: KeyError"),
    "metadata": (lambda f: changed_manifest(f, metadata={}), "is damaged: TypeError"),
    "a map": (lambda f: (f / module.MAP).write_text("{"), "is damaged: it is not JSON"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_a_damaged_golden_gets_one_line(name: str, tmp_path: Path) -> None:
    save_golden(golden_of(torch_side()), tmp_path / "golden")
    damage, says = DAMAGE[name]
    damage(tmp_path / "golden")
    refused(lambda: load_golden(tmp_path / "golden"), says)


def without(**changed: Any) -> Trace:
    """The small trace, changed."""
    return dataclasses.replace(torch_side(), **changed)


def test_a_trace_of_which_none_can_be_made_gets_one_line() -> None:
    trace = torch_side()
    refused(lambda: golden_of(without(inputs={})), "no values of batch x, a fingerprint alone")
    refused(lambda: golden_of(without(batch={})), "step 1 has no batch, expected its values")
    refused(lambda: golden_of(trace, 9), "steps is 9, expected 1 to 8")
    refused(lambda: golden_of(trace, 0), "steps is 0, expected 1 to 8")
    still = {name: np.repeat(array[:1], len(array), 0) for name, array in trace.params.items()}
    refused(lambda: golden_of(without(params=still)), "no parameter ever moved")
    none = {name: np.zeros_like(array) for name, array in trace.raw_grads.items()}
    refused(lambda: golden_of(without(raw_grads=none)), "all gradients are zero")
    losses = np.where(np.arange(8) == 4, np.nan, trace.losses)
    refused(lambda: golden_of(without(losses=losses)), "step 5: the loss is nan")


# The command


def test_the_command_writes_one_and_keeps_the_map(tmp_path: Path) -> None:
    torch_side().save(tmp_path / "torch")
    to_renamed().save(tmp_path / "own.json")
    words = ("golden", tmp_path / "torch", "--out", tmp_path / "golden", "--steps", 3)
    said = command(*words, "--map", tmp_path / "own.json").well()
    assert said.startswith(f"{tmp_path / 'golden'}: 3 steps, 4 parameters, 0 buffers, ")
    assert held(load_golden(tmp_path / "golden")) == held(golden_of(torch_side(), 3, to_renamed()))


def test_a_disk_that_is_full_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, content: bytes) -> None:
        if path.name == MANIFEST:
            raise OSError(28, "No space left on device")
        path.write_bytes(content)

    monkeypatch.setattr(module.files, "replace", full)
    out = tmp_path / "golden"
    line = refused(lambda: save_golden(golden_of(torch_side()), out))
    assert line == f"output folder {out} cannot be written: No space left on device"
    assert [*tmp_path.iterdir()] == []


def test_the_command_refuses_and_leaves_nothing(tmp_path: Path) -> None:
    torch_side().save(tmp_path / "torch")
    without(inputs={}).save(tmp_path / "bare")
    Mapping({}, {}, {}).save(tmp_path / "map.json")
    before, trace, out = {*tmp_path.iterdir()}, tmp_path / "torch", tmp_path / "golden"
    for words, says in {
        (): "golden takes PyTorch's trace, 0 given",
        (trace, trace): "golden takes PyTorch's trace, 2 given",
        (tmp_path / "bare", "--out", out): "no values of batch x",
        (trace, "--out", out, "--steps", 9): "steps is 9, expected 1 to 8",
        (trace, "--out", out, "--map", tmp_path / "map.json"): "the map leaves out '0.weight'",
        (trace, "--out", trace): f"output folder {trace} is not empty",
        (tmp_path / "none", "--out", out): "is no trace",
    }.items():
        assert says in refusal("golden", *words)
    assert {*tmp_path.iterdir()} == before
    refused(lambda: load_golden(trace), "is no golden", f"twinstep golden {trace} makes one")
