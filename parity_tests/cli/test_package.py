"""What is taken away: the source package has all that builds and tests it, the wheel what runs.

Both are built by the build backend itself, from a copy of this folder, and nothing is installed.
"""

import shutil
import tarfile
import tomllib
import zipfile
from email import message_from_string
from email.message import Message
from pathlib import Path

import pytest
from helpers.commands import ROOT, python
from helpers.versions import lowest

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
NEITHER = (".venv*", ".git", ".*_cache", ".hypothesis", "__pycache__", "*.egg-info")
FOLDERS = (".ci", "benchmarks", "docs", "examples", "jax_impl", "parity_tests", "torch_impl")


def build(kind: str, folder: Path, out: Path) -> Path:
    """The sdist or wheel of a folder."""
    code = f"from setuptools import build_meta as b; b.build_{kind}({str(out)!r})"
    python("-c", code, cwd=folder).printed()
    (found,) = out.iterdir()
    return found


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The source package unpacked, and the wheel that is built from it."""
    folder = tmp_path_factory.mktemp("package")
    ignored = shutil.ignore_patterns(*NEITHER, "build", "dist", "results")
    shutil.copytree(ROOT, folder / "copy", ignore=ignored)
    with tarfile.open(build("sdist", folder / "copy", folder / "sdist")) as archive:
        archive.extractall(folder, filter="data")
    source = folder / f"twinstep-{PROJECT['version']}"
    return source, build("wheel", source, folder / "wheel")


@pytest.fixture(scope="module")
def wheel(packages: tuple[Path, Path]) -> zipfile.ZipFile:
    return zipfile.ZipFile(packages[1])


@pytest.fixture(scope="module")
def metadata(wheel: zipfile.ZipFile) -> Message:
    (name,) = (name for name in wheel.namelist() if name.endswith("/METADATA"))
    return message_from_string(wheel.read(name).decode())


def files(folder: Path) -> set[str]:
    return {
        str(path.relative_to(folder))
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


def test_the_source_package_has_all_that_is_here(packages: tuple[Path, Path]) -> None:
    there = files(packages[0])
    here = {f"{name}/{file}" for name in (*FOLDERS, "twinstep") for file in files(ROOT / name)}
    here |= {path.name for path in ROOT.iterdir() if path.is_file() and path.name != ".git"}
    assert here - there == set()


def test_the_wheel_has_what_runs_and_no_tests(wheel: zipfile.ZipFile) -> None:
    there = set(wheel.namelist())
    packages = ("twinstep", "jax_impl", "torch_impl")
    here = {f"{name}/{file}" for name in packages for file in files(ROOT / name)}
    assert here - there == set()
    assert {f"{name}/py.typed" for name in packages} <= there
    assert any(name.startswith("twinstep/report/templates/") for name in there)
    tops = {name.split("/")[0] for name in there}
    assert tops == {*packages, f"twinstep-{PROJECT['version']}.dist-info"}


def test_its_license_is_apaches(wheel: zipfile.ZipFile, metadata: Message) -> None:
    assert metadata["License-Expression"] == "Apache-2.0"
    (name,) = (name for name in wheel.namelist() if name.endswith("/licenses/LICENSE"))
    text = wheel.read(name).decode()
    assert "Apache License" in text
    assert "Copyright 2026 The twinstep contributors" in text


def test_each_side_installs_without_the_other(metadata: Message) -> None:
    require_params = [str(line) for line in metadata.get_all("Requires-Dist") or []]

    def brought(extra: str | None) -> set[str]:
        mark = "" if extra is None else f"extra == {extra!r}".replace("'", '"')
        lines = [n for n in require_params if (mark in n if extra else "extra ==" not in n)]
        return {line.split(">")[0].split(";")[0].strip() for line in lines}

    frameworks = {"torch", "jax", "flax", "optax"}
    assert not brought(None) & (frameworks | {"matplotlib", "jinja2"})
    assert brought("torch") == {"torch"}
    assert brought("jax") == {"jax", "flax", "optax"}
    assert brought("all") == {"twinstep[jax,report,torch]"}


def test_what_is_cited_is_this_version() -> None:
    for name in ("CITATION.cff", "CHANGELOG.md"):
        assert PROJECT["version"] in (ROOT / name).read_text(), name


def test_every_range_names_its_lowest_version() -> None:
    """What `make test-lowest` installs; constraints.txt, which is tested, is within the ranges."""
    tested = dict(
        line.split("==")
        for line in (ROOT / "constraints.txt").read_text().splitlines()
        if "==" in line and not line.startswith("#")
    )
    for line in lowest():
        name, version = line.split("==")
        numbers = [[int(n) for n in v.split(".")] for v in (version, tested[name])]
        assert numbers[0] <= numbers[1], line
