"""The map's file is to be read, and a bad one gets one line that says where it is bad."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.commands import refusal
from helpers.matching import trace

from twinstep import InputError, load_mapping, match

PAGE = (Path(__file__).parents[2] / "docs/matching.md").read_text()
START = {
    "attn.qkv.weight": np.random.RandomState(0).standard_normal((6, 4)),
    "attn.qkv.bias": np.random.RandomState(1).standard_normal(6),
    "conv.weight": np.random.RandomState(2).standard_normal((3, 2, 3)),
    "wte.weight": np.random.RandomState(3).standard_normal((5, 4)),
}
OURS = {
    "attn.q.kernel": START["attn.qkv.weight"][:2].T,
    "attn.kv.kernel": START["attn.qkv.weight"][2:].T,
    "attn.bias": START["attn.qkv.bias"].reshape(3, 2),
    "conv.kernel": START["conv.weight"].transpose(2, 1, 0)[::-1],
    "wte.embedding": START["wte.weight"],
}
TEXT = """{
  "format": 1,
  "torch": {
    "attn.qkv.weight": [6, 4],
    "attn.qkv.bias": [6],
    "conv.weight": [3, 2, 3],
    "wte.weight": [5, 4]
  },
  "leaves": {
    "attn.q.kernel": {"shape": [4, 2], "from": [{"of": "attn.qkv.weight", "take": [[0, 2], [0, 4]], "axes": [1, 0]}]},
    "attn.kv.kernel": {"shape": [4, 4], "from": [{"of": "attn.qkv.weight", "take": [[2, 6], [0, 4]], "axes": [1, 0]}]},
    "attn.bias": {"shape": [3, 2], "from": [{"of": "attn.qkv.bias"}]},
    "conv.kernel": {"shape": [3, 2, 3], "from": [{"of": "conv.weight", "axes": [2, 1, 0], "flip": [2]}]},
    "wte.embedding": {"shape": [5, 4], "from": [{"of": "wte.weight"}]}
  }
}
"""  # noqa: E501 - as the file has it, a leaf a line


def test_a_leaf_a_line_and_defaults_left_out(tmp_path: Path) -> None:
    mapping = match(START, OURS).mapping
    mapping.save(tmp_path / "map.json")
    assert (tmp_path / "map.json").read_text() == TEXT
    assert load_mapping(tmp_path / "map.json") == mapping


def test_the_map_in_the_documentation_does_what_is_said(tmp_path: Path) -> None:
    (tmp_path / "map.json").write_text(re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL)[0])
    mapping = load_mapping(tmp_path / "map.json")
    draws = np.random.RandomState(0)
    named = {name: draws.standard_normal(shape) for name, shape in mapping.torch_shapes.items()}
    made, qkv = mapping.to_jax(named), named["qkv.weight"]
    assert np.array_equal(made["q.kernel"], qkv[0:4, 0:4].transpose(1, 0).reshape(4, 2, 2))
    assert np.array_equal(made["kv.kernel"], qkv[4:].T)
    assert np.array_equal(made["deconv.kernel"], named["deconv.weight"].transpose(2, 0, 1)[::-1])
    assert np.array_equal(made["rnn.bias"], named["rnn.bias_ih"] + named["rnn.bias_hh"])
    mapping.save(tmp_path / "again.json")
    assert (tmp_path / "again.json").read_text() == (tmp_path / "map.json").read_text()
    assert match(named, made).mapping.to_jax(named).keys() == made.keys()


def test_the_snippet_in_the_documentation(capsys: pytest.CaptureFixture[str]) -> None:
    exec(re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)[0], {})
    said = "1 of 1 leaves matched: 1 by values\n(3, 2)\n"
    assert capsys.readouterr().out == said


def leaf(change: Callable[[Any], None], name: str = "attn.q.kernel") -> Callable[[Any], None]:
    """A change of a leaf's first piece."""
    return lambda plain: change(plain["leaves"][name]["from"][0])


def two(*boxes: list[list[int]]) -> Callable[[Any], None]:
    """The embedding of two pieces that have these boxes of the leaf."""

    def change(plain: Any) -> None:
        plain["leaves"]["wte.embedding"]["from"] = [
            {"of": "wte.weight", "take": box, "at": box} for box in boxes
        ]

    return change


BAD: dict[str, tuple[Callable[[Any], object], str]] = {
    "no format": (lambda p: p.pop("format"), "format is None, expected 1"),
    "another format": (lambda p: p.update(format=2), "format is 2, expected 1"),
    "true for 1": (lambda p: p.update(format=True), "format is True, expected 1"),
    "no shapes": (lambda p: p.pop("torch"), "torch is None, expected an object"),
    "no leaves": (lambda p: p.pop("leaves"), "leaves is None, expected an object"),
    "leaves as a list": (lambda p: p.update(leaves=[1]), "leaves is [1], expected an object"),
    "more": (lambda p: p.update(more=1), "the file has 'more', expected format, leaves, torch"),
    "a shape of words": (
        lambda p: p["torch"].update({"wte.weight": ["a"]}),
        "torch 'wte.weight' is ['a'], expected a list of whole numbers",
    ),
    "a negative shape": (
        lambda p: p["torch"].update({"wte.weight": [-5, -4]}),
        "torch 'wte.weight' is [-5, -4], expected a list of whole numbers",
    ),
    "another shape": (
        lambda p: p["torch"].update({"wte.weight": [5, 5]}),
        "leaf 'wte.embedding', 'wte.weight': take has 25 entries, of shape (5, 5), at has 20, "
        "of shape (5, 4)",
    ),
    "a leaf without shape": (
        lambda p: p["leaves"]["attn.bias"].pop("shape"),
        "leaf 'attn.bias': shape is None, expected a list of whole numbers",
    ),
    "a leaf from nothing": (
        lambda p: p["leaves"]["attn.bias"].update({"from": []}),
        "leaf 'attn.bias': from is [], expected a list of pieces",
    ),
    "a leaf that is a name": (
        lambda p: p["leaves"].update({"attn.bias": "attn.qkv.bias"}),
        "leaf 'attn.bias' is 'attn.qkv.bias', expected an object",
    ),
    "a piece of nothing": (
        leaf(lambda p: p.pop("of")),
        "leaf 'attn.q.kernel': of is None, expected a name that stands under torch",
    ),
    "a name that is not there": (
        leaf(lambda p: p.update(of="attn.qkv.wieght")),
        "leaf 'attn.q.kernel': unknown tensor of PyTorch 'attn.qkv.wieght': did you mean "
        "attn.qkv.weight",
    ),
    "a key that is none": (
        leaf(lambda p: p.update(axis=[1, 0])),
        "leaf 'attn.q.kernel' has 'axis', expected at, axes, flip, of, take, view",
    ),
    "axes that are no order": (
        leaf(lambda p: p.update(axes=[1, 1])),
        "leaf 'attn.q.kernel', 'attn.qkv.weight': axes (1, 1) are no order of 2",
    ),
    "a view of other size": (
        leaf(lambda p: p.update(view=[2, 3, 5], take=[[0, 2], [0, 3], [0, 5]], axes=[0, 1, 2])),
        "leaf 'attn.q.kernel', 'attn.qkv.weight': the view is (2, 3, 5), the tensor's shape (6, 4)",
    ),
    "a flip of no axis": (
        leaf(lambda p: p.update(flip=[3]), "conv.kernel"),
        "leaf 'conv.kernel', 'conv.weight': flip (3,) are no axes of 3",
    ),
    "a box outside": (
        leaf(lambda p: p.update(take=[[5, 7], [0, 4]])),
        "leaf 'attn.q.kernel', 'attn.qkv.weight': take is [[5, 7], [0, 4]], expected a box of "
        "shape (6, 4)",
    ),
    "a box the wrong way round": (
        leaf(lambda p: p.update(take=[[2, 0], [0, 4]])),
        "leaf 'attn.q.kernel', 'attn.qkv.weight': take is [[2, 0], [0, 4]], expected a box of "
        "shape (6, 4)",
    ),
    "boxes that overlap": (
        two([[0, 3], [0, 4]], [[1, 3], [0, 4]]),
        "leaf 'wte.embedding': ((0, 3), (0, 4)) and ((1, 3), (0, 4)) overlap",
    ),
    "boxes that leave a gap": (
        two([[0, 3], [0, 4]], [[4, 5], [0, 4]]),
        "leaf 'wte.embedding' has 20 entries, its pieces make 16",
    ),
}


@pytest.mark.parametrize(("change", "says"), BAD.values(), ids=BAD)
def test_bad_maps(change: Callable[[Any], object], says: str, tmp_path: Path) -> None:
    plain = json.loads(TEXT)
    change(plain)
    path = tmp_path / "map.json"
    path.write_text(json.dumps(plain))
    with pytest.raises(InputError) as error:
        load_mapping(path)
    assert str(error.value).startswith(f"map {path}: {says}")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "says"),
    {
        "": "is damaged: it is not JSON",
        "{": "is damaged: it is not JSON",
        "[" * 100_000: "is damaged: it is not JSON",
        "[]": ": format is None, expected 1",
        '{"format": 1, "format": 1}': "has 'format' twice in one place",
    }.items(),
)
def test_what_is_no_map(text: str, says: str, tmp_path: Path) -> None:
    path = tmp_path / "map.json"
    path.write_text(text)
    with pytest.raises(InputError) as error:
        load_mapping(path)
    assert str(error.value).removeprefix(f"map {path}").strip() == says


def test_files_that_cannot_be_read_or_written(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read: No such file or directory"):
        load_mapping(tmp_path / "none.json")
    with pytest.raises(InputError, match="cannot be written: No such file or directory"):
        match(START, OURS).mapping.save(tmp_path / "none" / "map.json")


def test_maps_that_do_not_fit_the_traces(tmp_path: Path) -> None:
    """A map of other leaves, or one that leaves some out: a line, and no traceback."""
    grads = {name: np.ones_like(array) for name, array in START.items()}
    ours = {name: np.ones_like(array) for name, array in OURS.items()}
    trace(START, grads).save(tmp_path / "torch")
    trace(OURS, ours).save(tmp_path / "jax")
    for change, says in (
        (lambda p: p["leaves"].pop("attn.bias"), "the map leaves out 'attn.bias' of the port"),
        (
            lambda p: (p["leaves"].pop("wte.embedding"), p["torch"].pop("wte.weight")),
            "the map leaves out 'wte.embedding' of the port",
        ),
        (
            lambda p: p["leaves"].update(
                {"more": {"shape": [6], "from": [{"of": "attn.qkv.bias"}]}}
            ),
            "the map names 'more', which the port's trace does not have",
        ),
        (
            lambda p: p["torch"].update({"more": [6]}),
            "the map names 'more', which PyTorch's trace does not have",
        ),
        (
            leaf(lambda p: p.update(take=[[2, 4], [0, 4]])),
            "the map leaves out 8 entries of 'attn.qkv.weight' of PyTorch's",
        ),
    ):
        plain = json.loads(TEXT)
        change(plain)
        (tmp_path / "map.json").write_text(json.dumps(plain))
        words = "prove", tmp_path / "torch", tmp_path / "jax", "--map", tmp_path / "map.json"
        assert refusal(*words) == says


def test_the_command_that_takes_a_map_refuses_a_bad_one(tmp_path: Path) -> None:
    path = tmp_path / "map.json"
    path.write_text(json.dumps({**json.loads(TEXT), "format": 7}))
    said = refusal("prove", tmp_path / "a", tmp_path / "b", "--map", path)
    assert said == f"map {path}: format is 7, expected 1"
