"""Unique numbers through a port's own converter say all that it does."""

import importlib
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from helpers.commands import command, refusal
from safetensors.numpy import load_file, save_file

from port.ports import PORTS, torch_trace
from twinstep import InputError, load_mapping, match
from twinstep.port.probing import probe
from twinstep.trace import dtypes
from twinstep.trace.ledger import Trace

Arrays = dict[str, np.ndarray]


def by_names(tree: Any) -> Arrays:
    """The leaves of a tree by dotted names."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {
        jax.tree_util.keystr(path, simple=True, separator="."): np.ascontiguousarray(leaf)
        for path, leaf in leaves
        if isinstance(leaf, np.ndarray)
    }


def converted(port: str, named: Arrays) -> Arrays:
    """What a port's own converter makes of PyTorch's arrays, buffers and all."""
    program: Any = importlib.import_module(f"port.programs.{port}")
    if "equinox" in port:
        return by_names(program.from_torch(named, program.Classifier(jax.random.key(0))))
    made = by_names(program.from_torch(named))
    if hasattr(program, "stats_from_torch"):
        made |= {f"stats.{n}": a for n, a in by_names(program.stats_from_torch(named)).items()}
    return made


@pytest.fixture(params=PORTS)
def port(request: pytest.FixtureRequest) -> str:
    """Each port whose framework is installed."""
    if "equinox" in request.param:
        pytest.importorskip("equinox")
    return request.param


def shapes_of(trace: Trace) -> dict[str, tuple[tuple[int, ...], str]]:
    """Of its parameters and buffers."""
    every = {**trace.params, **trace.buffers}
    return {n: (a.shape[1:], dtypes.name(a.dtype)) for n, a in every.items()}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_converters_are_read_off_whole(port: str, dtype: str) -> None:
    made = probe(shapes_of(torch_trace(port, 0, dtype, steps=1)))
    found = match(made, converted(port, made))
    assert found.complete, found.lines()
    draws = np.random.RandomState(1)
    other = {n: draws.standard_normal(a.shape).astype(a.dtype) for n, a in made.items()}
    leaves = converted(port, other)
    for one, right in (
        (found.mapping.to_jax(other), leaves),
        (found.mapping.to_torch(leaves), other),
    ):
        assert one.keys() == right.keys()
        for name, array in right.items():
            assert one[name].tobytes() == array.tobytes(), name


def test_the_commands(port: str, tmp_path: Path) -> None:
    trace, weights, map_file = tmp_path / "t", tmp_path / "p.safetensors", tmp_path / "map.json"
    torch_trace(port, 0, "float32", steps=2).save(trace)
    said = command("probe", trace, "--out", weights).well()
    named = load_file(weights)
    entries = sum(array.size for array in named.values())
    assert said == f"{weights}: {len(named)} tensors of {entries} numbers, no two the same\n"
    save_file(converted(port, named), tmp_path / "converted.safetensors")
    said = command("match", weights, tmp_path / "converted.safetensors", "--out", map_file).well()
    mapping = load_mapping(map_file)
    count = len(mapping.leaves)
    assert said.startswith(f"{count} of {count} leaves matched: {count} by values\n")
    made = mapping.to_jax(named)
    for name, array in converted(port, named).items():
        np.testing.assert_array_equal(made[name], array, err_msg=name)


def test_more_entries_than_float32_has_whole_numbers() -> None:
    """One float after the other: 5 million of them, sums apart all unique."""
    shapes = {"qkv.weight": ((3 * 1024, 1024), "float32"), "fc.weight": ((2048, 1024), "float32")}
    made = probe(shapes)
    every = np.concatenate([array.reshape(-1) for array in made.values()])
    assert len(np.unique(every)) == len(every) > 2**22
    blocks = np.split(made["qkv.weight"], 3)
    ours = {x: block.T.reshape(1024, 16, 64) for x, block in zip("qkv", blocks, strict=True)}
    ours["fc"] = made["fc.weight"].T
    found = match(made, ours)
    assert found.complete, found.lines()
    back = found.mapping.to_jax(made)
    assert all(np.array_equal(back[name], array) for name, array in ours.items())


def test_what_a_probe_holds() -> None:
    made = probe(
        {
            "w": ((2, 3), "float64"),
            "half": ((2,), "bfloat16"),
            "one": ((), "float32"),
            "none": ((0, 3), "float32"),
            "count": ((), "int64"),
        }
    )
    assert {name: (a.shape, str(a.dtype)) for name, a in made.items()} == {
        "w": ((2, 3), "float64"),
        "half": ((2,), "float32"),
        "one": ((), "float32"),
        "none": ((0, 3), "float32"),
    }
    assert made["one"] == 9


def test_too_many_entries_are_refused() -> None:
    with pytest.raises(
        InputError, match="a probe of 2147483648 entries, expected at most 1073741824"
    ):
        probe({"w": ((2**16, 2**15), "float32")})


def test_what_is_open_ends_with_1(tmp_path: Path) -> None:
    one, other = tmp_path / "one.safetensors", tmp_path / "other.safetensors"
    save_file({"w": np.arange(6, dtype="f4").reshape(2, 3)}, one)
    save_file({"kernel": np.arange(6, dtype="f4").reshape(2, 3).T + 7}, other)
    said = command("match", one, other).printed(1)
    assert said == (
        "0 of 1 leaves matched\n"
        "open: kernel is like nothing there\n"
        "open: w of PyTorch's: 6 entries are in no leaf\n"
    )


def test_bad_input_gets_a_line(tmp_path: Path) -> None:
    text = tmp_path / "text.safetensors"
    text.write_text("not weights")
    assert "is no safetensors file" in refusal("match", text, text)
    assert refusal("match", text) == "match takes PyTorch's trace and the port's, 1 given"
    missing = tmp_path / "missing.safetensors"
    assert f"{missing} cannot be read: No such file" in refusal("match", missing, missing)
    assert "probe takes PyTorch's trace, 0 given" in refusal("probe")
    assert "missing" in refusal("probe", tmp_path / "missing")
