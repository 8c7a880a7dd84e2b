"""A folder of traces is no trace: what lies in it is named, whoever opens it."""

from collections.abc import Callable
from pathlib import Path

import pytest
from helpers.commands import refusal
from helpers.synthetic_traces import made, refused

from twinstep import load_trace, open_trace
from twinstep.runs.verification import compare_stored

READERS: dict[str, Callable[[Path], object]] = {
    "compare": lambda folder: compare_stored(folder, folder),
    "load": load_trace,
    "open": open_trace,
}


@pytest.mark.parametrize("sides", [("torch", "jax"), ("torch",), ("jax",), ()])
@pytest.mark.parametrize("read", READERS.values(), ids=READERS.keys())
def test_traces_in_the_folder_are_offered(
    read: Callable[[Path], object], sides: tuple[str, ...], tmp_path: Path
) -> None:
    for side in sides:
        made().save(tmp_path / side)
    (tmp_path / "other").mkdir()
    line = refused(lambda: read(tmp_path), f"{tmp_path} is no trace: it has no manifest.json")
    offered = " and ".join(str(tmp_path / side) for side in sides)
    verb = "are" if sides[1:] else "is"
    assert line.endswith(f"; {offered} {verb}" if sides else "manifest.json")


def test_the_command_offers_them_too(tmp_path: Path) -> None:
    for side in ("torch", "jax"):
        made().save(tmp_path / "a" / side)
    folder = tmp_path / "a"
    for order in ((folder, folder / "jax"), (folder / "jax", folder)):
        line = refusal("compare", *map(str, order))
        assert line.endswith(f"manifest.json; {folder / 'torch'} and {folder / 'jax'} are")
