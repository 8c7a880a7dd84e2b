"""What `twinstep convert` cannot take: one line for all of it, and nothing is written."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.commands import command, refusal
from helpers.weights_files import Named, same, saved, shards
from safetensors.numpy import load_file


def convert(*words: object) -> str:
    """What `twinstep convert` prints, which has to end well."""
    return command("convert", *words).well()


MAP = {
    "format": 1,
    "torch": {"a.weight": [2, 3], "b_ih": [3], "b_hh": [3], "table": [4, 2], "unused": [2]},
    "leaves": {
        "kernel": {"shape": [3, 2], "from": [{"of": "a.weight", "axes": [1, 0]}]},
        "bias": {"shape": [3], "from": [{"of": "b_ih"}, {"of": "b_hh"}]},
        "embed": {"shape": [4, 2], "from": [{"of": "table"}]},
        "head": {"shape": [4, 2], "from": [{"of": "table"}]},
    },
}
"""A turned kernel, biases that are added, a table that is held twice, and what no leaf has."""
SKIP = ("--skip", "unused")


def theirs(**changes: Any) -> dict[str, np.ndarray]:
    """A state_dict of the map's; None: not there."""
    shapes: dict[str, list[int]] = MAP["torch"]  # type: ignore[assignment]  # of a file's words
    named = {n: np.arange(np.prod(s), dtype="float32").reshape(s) for n, s in shapes.items()}
    changed = {name.replace("a_w", "a.w"): array for name, array in changes.items()}
    return {name: array for name, array in (named | changed).items() if array is not None}


def ours(**changes: Any) -> dict[str, np.ndarray]:
    """The same as the port has it."""
    named = theirs()
    tree = {"kernel": named["a.weight"].T, "bias": named["b_ih"] + named["b_hh"]}
    return tree | {"embed": named["table"], "head": named["table"]} | changes


def folder_of(tmp_path: Path, named: Named) -> tuple[Path, Path, Path]:
    """IN, OUT and the map, which IN and the map are there of."""
    (tmp_path / "map.json").write_text(json.dumps(MAP))
    return saved(tmp_path, named), tmp_path / "out.safetensors", tmp_path / "map.json"


def test_what_is_added_held_twice_or_left_out_is_said(tmp_path: Path) -> None:
    file, out, mapping = folder_of(tmp_path, theirs())
    said = convert(file, out, "--mapping", mapping, *SKIP).splitlines()
    assert said[1:] == ["bias: the sum of b_ih and b_hh; on the way back the first has it"]
    assert same(load_file(out), ours())
    back = tmp_path / "back.safetensors"
    assert len(convert(out, back, "--mapping", mapping, *SKIP).splitlines()) == 1
    summed = {"b_ih": ours()["bias"], "b_hh": np.zeros(3, "float32")}
    assert same(load_file(back), theirs(unused=None, **summed))
    convert(back, out, "--mapping", mapping, "--to", "jax", *SKIP)
    assert same(load_file(out), ours())


NAN = np.array([1, np.nan, 3], "float32")
BAD: dict[str, tuple[Named, tuple[str, ...], str]] = {
    "another version": (
        {"decoder.weight": np.ones(2)},
        (),
        "the mapping has none of 'decoder.weight': it has 'a.weight', 'b_ih', 'b_hh', 'table', "
        "'unused', and 'kernel', 'bias', 'embed', 'head'",
    ),
    "all at once": (
        theirs(a_weight=np.ones((3, 2)), b_ih=NAN, table=None, more=np.ones(1)),
        (),
        "missing 'table'; not in the mapping: 'more'; 'a.weight' has shape (3, 2), expected "
        "(2, 3); 2 entries of 'unused' are in no leaf of the mapping; NaN in 'b_ih', expected "
        "numbers, or --allow-nan",
    ),
    "dtypes that would be mixed": (
        theirs(b_hh=np.ones(3)), SKIP, "'bias' would be made of float32 and float64",
    ),
    "two for one": (ours(head=np.ones((4, 2), "float32")), SKIP, "'head' differs from another "
                    "leaf that is 'table' too"),
    "what a tree cannot say": (ours(), (), "2 entries of 'unused' are in no leaf of the mapping"),
    "the other way": (
        ours(), ("--to", "jax", *SKIP), "missing 'a.weight', 'b_ih', 'b_hh', 'table'; not in the "
        "mapping: 'bias', 'embed', 'head', 'kernel'",
    ),
    "both sides": (
        {"kernel": np.ones((3, 2)), "table": np.ones((4, 2))},
        (), "1 names are on both sides of the mapping: say with --to which way",
    ),
    "no such name": (theirs(), ("--skip", "unused,hed"), "skip: no name is as 'hed'"),
    "out of reach": (
        theirs(a_weight=np.full((2, 3), 7e4, "float32")), (*SKIP, "--dtype", "float16"),
        "'kernel' has numbers that float16 does not reach",
    ),
    "empty": ({}, (), ""),
}  # fmt: skip


@pytest.mark.parametrize("bad", BAD)
def test_what_does_not_fit_is_one_line_and_nothing_is_written(bad: str, tmp_path: Path) -> None:
    named, words, says = BAD[bad]
    file, out, mapping = folder_of(tmp_path, named)
    out.write_bytes(b"before")
    said = refusal("convert", file, out, "--mapping", mapping, *words)
    assert said == (f"{file}: {says}" if says else f"{file} has no arrays")
    assert refusal("convert", file, tmp_path / "new", "--mapping", mapping, *words) == said
    assert out.read_bytes() == b"before"
    assert sorted(tmp_path.iterdir()) == [file, mapping, out]


@pytest.mark.parametrize(
    "dtype", ["float64", "float16", "bfloat16", "float8_e4m3fn", "float8_e5m2", "complex64"]
)
def test_a_nan_of_any_dtype_is_refused_or_asked_for(dtype: str, tmp_path: Path) -> None:
    given = torch.tensor([1, torch.nan]).to(getattr(torch, dtype))
    torch.save({"fine": torch.ones(1, dtype=torch.int64), "odd": given}, tmp_path / "a.pt")
    says = f"{tmp_path / 'a.pt'}: NaN in 'odd', expected numbers, or --allow-nan"
    assert refusal("convert", tmp_path / "a.pt", tmp_path / "b") == says
    convert(tmp_path / "a.pt", tmp_path / "b", "--allow-nan")


def spoiled(change: Callable[[dict[str, str]], object]) -> Callable[[Path], Path]:
    """An index of which something is changed."""

    def make(folder: Path) -> Path:
        index, where = shards(folder, theirs())
        change(where)
        index.write_text(json.dumps({"weight_map": where}))
        return index

    return make


def kept(name: str, value: Any) -> Callable[[Path], Path]:
    """A file of PyTorch's, of whatever."""

    def make(folder: Path) -> Path:
        torch.save(value, folder / name)
        return folder / name

    return make


def written(name: str, content: bytes = b"odd") -> Callable[[Path], Path]:
    """A file of these bytes."""

    def make(folder: Path) -> Path:
        (folder / name).write_bytes(content)
        return folder / name

    return make


ONE = torch.ones(1)
DAMAGED: dict[str, tuple[Callable[[Path], Path], str]] = {
    "no file": (lambda folder: folder / "a.pt", "a.pt cannot be read: No such file or directory"),
    "a folder": (lambda folder: folder, " is a folder, but no checkpoint of orbax's"),
    "another kind": (written("a.npz"), "which ends in one of .safetensors, "),
    "no safetensors": (written("a.safetensors"), "a.safetensors is no safetensors file: "),
    "no pt": (written("a.pt"), "a.pt is damaged, expected a saved state_dict: tensors alone"),
    "a pt cut short": (written("a.pt", b"PK\x03\x04" + b"0" * 99), "a.pt is no file of PyTorch's"),
    "a module": (kept("a.pt", torch.nn.ReLU()), "a.pt asks for torch.nn.modules.activation.ReLU, "),
    "a tensor": (kept("a.pt", ONE), "a.pt holds a Tensor, expected a state_dict"),
    "another dict": (kept("a.pt", {"w": ONE, "n": 1}), "a.pt has the keys 'w', 'n', expected te"),
    "two models": (
        kept("a.pt", {"model": {"a": ONE}, "state_dict": {"a": ONE}}),
        "expected tensors, or a state_dict under one of state_dict, model_state_dict, model",
    ),
    "more than tensors": (
        kept("a.pt", {"state_dict": {"a": ONE, "n": 1}}),
        "a.pt: state_dict['n'] is a int, expected a tensor",
    ),
    "a number for a name": (kept("a.pt", {3: ONE}), "a tensor under 3, expected names"),
    "sparse": (kept("a.pt", {"a": torch.eye(2).to_sparse()}), "'a' is a sparse_coo tensor on cpu"),
    "no index": (written("a.index.json"), "a.index.json is no index: "),
    "no weight_map": (written("a.index.json", b"{}"), "it has no weight_map of {name: file}"),
    "a name twice": (
        written("a.index.json", b'{"weight_map": {"a": "b", "a": "c"}}'), "'a' is there twice",
    ),
    "a shard elsewhere": (
        spoiled(lambda where: where.update(table="../a.safetensors")), "expected a file beside it",
    ),
    "a shard that is missing": (
        spoiled(lambda where: where.update(table="c.safetensors")),
        "model.safetensors.index.json lists what is not there: c.safetensors",
    ),
    "what no shard has": (
        spoiled(lambda where: where.update(z="model-1.safetensors")),
        "'z' is not in model-1.safetensors, nor in another",
    ),
    "what is not listed": (
        spoiled(lambda where: where.pop("table")), "model-2.safetensors has 'table', not listed",
    ),
    "another shard": (
        spoiled(lambda where: where.update(table="model-1.safetensors")),
        "'table' is not in model-1.safetensors, it is in model-2.safetensors",
    ),
}  # fmt: skip


@pytest.mark.parametrize("bad", DAMAGED)
def test_a_file_that_cannot_be_read_is_one_line(bad: str, tmp_path: Path) -> None:
    make, says = DAMAGED[bad]
    file = make(tmp_path)
    before = sorted(tmp_path.iterdir())
    assert says in refusal("convert", file, tmp_path / "out.pt")
    assert sorted(tmp_path.iterdir()) == before


def test_an_out_that_cannot_be_is_said_before_anything_is_read(tmp_path: Path) -> None:
    file = saved(tmp_path, theirs())
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    for out, says in {
        file: "which IN is read from, expected another",
        tmp_path
        / "a.npz": "expected a name that ends in .safetensors, .pt, .pth, .bin, or in none",
        tmp_path / "full": "full is not empty: name a new one",
        tmp_path / "no" / "a.pt": f"{tmp_path / 'no'} is no folder",
    }.items():
        assert says in refusal("convert", file, out)
    assert refusal("convert", file) == "convert takes the file IN and OUT, 1 given"
    says = refusal("convert", file, tmp_path / "a.pt", "--to", "jax")
    assert says == "to is 'jax', expected --mapping with it"
    index, where = shards(tmp_path, theirs())
    for shard in where.values():
        says = refusal("convert", index, tmp_path / shard)
        assert says.endswith("which IN is read from, expected another")
    inside = {"a": np.ones(1), "a.b": np.ones(1)}
    assert "which is an array" in refusal("convert", saved(tmp_path, inside), tmp_path / "tree")


@pytest.mark.parametrize("out", ["out", "out.pt", "out.safetensors"])
def test_what_cannot_be_written_to_its_end_leaves_nothing(
    out: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that is full when all is written but the name."""
    file = saved(tmp_path, theirs())

    def full(self: Path, target: Path) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", full)
        says = refusal("convert", file, tmp_path / out)
    assert says == f"{tmp_path / out} cannot be written: No space left on device"
    assert [*tmp_path.iterdir()] == [file]
    convert(file, tmp_path / out)
