"""What is taken away: the source package has all that builds and tests it, the wheel what runs.

Both are built by the build backend itself, from a copy of this folder, and nothing is installed.
"""

import re
import shutil
import tarfile
import tomllib
import zipfile
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
def packages(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, zipfile.ZipFile]:
    """The source package unpacked, and the wheel that is built from it."""
    folder = tmp_path_factory.mktemp("package")
    ignored = shutil.ignore_patterns(*NEITHER, "build", "dist", "results")
    shutil.copytree(ROOT, folder / "copy", ignore=ignored)
    with tarfile.open(build("sdist", folder / "copy", folder / "sdist")) as archive:
        archive.extractall(folder, filter="data")
    source = folder / f"twinstep-{PROJECT['version']}"
    return source, zipfile.ZipFile(build("wheel", source, folder / "wheel"))


@pytest.fixture
def wheel(packages: tuple[Path, zipfile.ZipFile]) -> zipfile.ZipFile:
    return packages[1]


def read(wheel: zipfile.ZipFile, end: str) -> str:
    """Its one file whose name ends so."""
    (name,) = (name for name in wheel.namelist() if name.endswith(end))
    return wheel.read(name).decode()


def files(folder: Path) -> set[str]:
    return {
        str(path.relative_to(folder))
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


def test_the_source_package_has_all_that_is_here(packages: tuple[Path, zipfile.ZipFile]) -> None:
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


def test_its_license_is_apaches(wheel: zipfile.ZipFile) -> None:
    assert "\nLicense-Expression: Apache-2.0\n" in read(wheel, "/METADATA")
    text = read(wheel, "/licenses/LICENSE")
    assert "Apache License" in text
    assert "Copyright 2026 The twinstep contributors" in text


def test_each_side_installs_without_the_other(wheel: zipfile.ZipFile) -> None:
    requirements = re.findall(r"^Requires-Dist: (.*)", read(wheel, "/METADATA"), re.MULTILINE)

    def brought(extra: str | None) -> set[str]:
        mark = "" if extra is None else f"extra == {extra!r}".replace("'", '"')
        lines = [n for n in requirements if (mark in n if extra else "extra ==" not in n)]
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
    pinned = re.findall(r"^([^#\s]+)==(\S+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    tested = dict(pinned)
    for line in lowest():
        name, version = line.split("==")
        numbers = [[int(n) for n in v.split(".")] for v in (version, tested[name])]
        assert numbers[0] <= numbers[1], line
