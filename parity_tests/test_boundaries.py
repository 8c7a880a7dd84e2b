"""The house's rules hold: imports point one way, twins mirror each other, what is public is said.

Every rule is a function from source text to what breaks it, so that each can be given a text that
does. The imports are checked a second time by importing: in a new process, every module of a
package is loaded and the frameworks that are there afterwards are counted.
"""

import ast
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from twinstep.problems import EXAMPLES

ROOT = Path(__file__).parents[1]
PACKAGES = ("twinstep", "jax_impl", "torch_impl")
_JAX = {"jax", "jaxlib", "flax", "optax", "jax_impl"}
_TORCH = {"torch", "torchvision", "torch_impl"}
_ABOVE = {"examples", "parity_tests", "benchmarks"}
FORBIDDEN = {
    "twinstep": _JAX | _TORCH | _ABOVE,
    "jax_impl": _TORCH | _ABOVE,
    "torch_impl": _JAX | _ABOVE,
}
MIRRORS = {"jax_impl": "torch_impl", "torch_impl": "jax_impl"}
MOST_LINES = 400
FILES = {
    str(path.relative_to(ROOT)): path
    for package in PACKAGES
    for path in sorted((ROOT / package).rglob("*.py"))
}
IMPLEMENTATIONS = sorted({spec.implementation for spec in EXAMPLES.values()})


def package_of(file: str) -> str:
    """The package that a file belongs to."""
    return file.partition("/")[0]


# Imports


def imports(source: str) -> set[str]:
    """The top-level names of all that a text imports, wherever in it; "." for a relative one."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add((node.module or "").partition(".")[0] if node.level == 0 else ".")
    return found


def imports_by_name(source: str) -> list[str]:
    """The calls in a text that import what a string names."""
    calls = (node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call))
    names = {"import_module", "__import__", "exec", "eval", "spec_from_file_location", "run_module"}
    return [
        ast.unparse(call)
        for call in calls
        if (call.func.attr if isinstance(call.func, ast.Attribute) else ast.unparse(call.func))
        in names
    ]


@pytest.mark.parametrize("file", FILES)
def test_imports_point_one_way(file: str) -> None:
    found = imports(FILES[file].read_text())
    assert not found & FORBIDDEN[package_of(file)]
    assert "." not in found  # absolute, so that the rule can be read off


@pytest.mark.parametrize("file", FILES)
def test_only_launch_imports_by_name(file: str) -> None:
    calls = imports_by_name(FILES[file].read_text())
    if file == "twinstep/runs/launch.py":
        assert calls == ["importlib.import_module(f'{framework}_impl.{name}')"]
    else:
        assert calls == []


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("import torch", "torch"),
        ("import os, torch.nn as nn", "torch"),
        ("from twinstep.jax.nn.layers import Linear", "jax_impl"),
        ("def f():\n    if True:\n        from flax import nnx", "flax"),
        ("try:\n    import jax.numpy\nexcept ImportError:\n    pass", "jax"),
        ("from . import state", "."),
        ("from ..torch_impl import state", "."),
    ],
)
def test_forbidden_import_is_noticed(source: str, name: str) -> None:
    assert name in imports(source)


@pytest.mark.parametrize(
    "source",
    [
        "import importlib\nm = importlib.import_module('torch')",
        "from importlib import import_module\nm = import_module('twinstep.torch.state')",
        "m = __import__('jax')",
        "exec('import torch')",
    ],
)
def test_import_by_name_is_noticed(source: str) -> None:
    assert len(imports_by_name(source)) == 1


_LOAD_ALL = """
import importlib, pathlib, sys
import {package}
folder = pathlib.Path({package}.__file__).parent
for path in sorted(folder.rglob("*.py")):
    parts = (folder.name, *path.relative_to(folder).with_suffix("").parts)
    if parts[-1] != "__main__":
        importlib.import_module(".".join(parts).removesuffix(".__init__"))
        print(".".join(parts))
{more}
print("loaded:", *sorted(name for name in {names} if name in sys.modules))
"""


def loaded(package: str, more: str = "") -> list[str]:
    """Which of the names that a package may not import are there once all its modules are."""
    names = sorted(FORBIDDEN[package])
    script = _LOAD_ALL.format(package=package, more=more, names=names)
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    )
    *modules, last = done.stdout.splitlines()
    assert len(modules) == sum(
        package_of(file) == package and not file.endswith("__main__.py") for file in FILES
    )
    return last.removeprefix("loaded:").split()


@pytest.mark.parametrize("package", PACKAGES)
def test_loading_a_package_loads_nothing_that_it_may_not(package: str) -> None:
    assert loaded(package) == []


def test_loaded_framework_is_noticed() -> None:
    assert loaded("twinstep", more="import twinstep.torch.conversion") == ["torch", "torch_impl"]


# Twins


class Signature(NamedTuple):
    """A public function or class: its name, the names of its parameters, its methods."""

    name: str
    parameters: tuple[str, ...]
    methods: tuple["Signature", ...] = ()


_SAME = {"__call__": "forward"}  # what PyTorch calls the method that Flax calls the other


def surface(source: str) -> list[Signature]:
    """The public functions and classes of a text, in its order."""
    return list(_signatures(ast.parse(source).body))


def _signatures(body: list[ast.stmt]) -> Iterator[Signature]:
    for node in body:
        name = _SAME.get(getattr(node, "name", ""), getattr(node, "name", "_"))
        if name.startswith("_") and name != "__init__":
            continue
        if isinstance(node, ast.ClassDef):
            yield Signature(name, (), tuple(_signatures(node.body)))
        elif isinstance(node, ast.FunctionDef):
            every = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
            yield Signature(name, tuple(argument.arg for argument in every))


def mirror_of(source: str) -> str | None:
    """The file that a module's docstring names as its mirror."""
    found = re.search(r"^Mirror: (\S+)$", ast.get_docstring(ast.parse(source)) or "", re.MULTILINE)
    return found[1] if found else None


def third_line(source: str) -> str:
    """Line three of a module's docstring."""
    lines = (ast.get_docstring(ast.parse(source), clean=False) or "").splitlines()
    return lines[2] if len(lines) > 2 else ""


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_twins_have_the_same_functions_in_the_same_order(implementation: str) -> None:
    ours, theirs = (
        surface((ROOT / package / f"{implementation}.py").read_text()) for package in MIRRORS
    )
    assert ours == theirs
    names = [signature.name for signature in ours if signature.name[0].islower()]
    assert [n for n in names if n in ("init", "loss_fn", "train_step", "evaluate")][:3] == [
        "init",
        "loss_fn",
        "train_step",
    ]


@pytest.mark.parametrize("package", MIRRORS)
@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_line_three_of_a_twin_names_its_mirror(implementation: str, package: str) -> None:
    source = (ROOT / package / f"{implementation}.py").read_text()
    assert third_line(source) == f"Mirror: {MIRRORS[package]}/{implementation}.py"


def test_every_mirror_is_mirrored_back() -> None:
    named = {file: mirror_of(path.read_text()) for file, path in FILES.items()}
    named = {file: mirror for file, mirror in named.items() if mirror}
    assert len(named) > 2 * len(IMPLEMENTATIONS)  # the kits have some too
    for file, mirror in named.items():
        assert mirror in FILES, f"{file} names {mirror}, which is not there"
        assert Path(file).name == Path(mirror).name
        assert MIRRORS[package_of(file)] == package_of(mirror)
        assert named.get(mirror) == file, f"{mirror} does not name {file}"


def test_files_of_one_name_are_mirrors() -> None:
    """What bears the same name in both packages is meant to be read side by side."""
    names = [{p.name for p in (ROOT / package).glob("[!_]*.py")} for package in MIRRORS]
    for package, mirror in MIRRORS.items():
        for name in sorted(names[0] & names[1]):
            source = (ROOT / package / name).read_text()
            assert mirror_of(source) == f"{mirror}/{name}", f"{package}/{name}"


_TWIN = '''"""One line.

Mirror: twinstep/torch/state.py
"""
class Net:
    def __init__(self, size): ...
    def __call__(self, x): ...
def init(spec): ...
def loss_fn(model, *, batch): ...
def _own(): ...
'''
_INIT, _LOSS = "def init(spec): ...\n", "def loss_fn(model, *, batch): ...\n"


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (_INIT + _LOSS, _LOSS + _INIT),
        ("batch", "data"),
        (_INIT, ""),
        ("def __call__(self, x)", "def apply(self, x)"),
        ("def _own", "def own"),
        ("size", "width"),
        ("class Net", "class Network"),
    ],
    ids=["order", "parameter", "missing", "method", "extra", "constructor", "class"],
)
def test_twin_that_differs_is_noticed(old: str, new: str) -> None:
    assert surface(_TWIN) == surface(_TWIN.replace("__call__", "forward").replace("_own", "_other"))
    changed = _TWIN.replace(old, new)
    assert changed != _TWIN
    assert surface(changed) != surface(_TWIN)


def test_missing_mirror_is_noticed() -> None:
    assert third_line(_TWIN) == "Mirror: twinstep/torch/state.py"
    assert mirror_of(_TWIN) == "twinstep/torch/state.py"
    later = _TWIN.replace("\n\nMirror", "\n\nAnother line.\nMirror")
    assert third_line(later) == "Another line."
    assert mirror_of(later) == "twinstep/torch/state.py"
    assert mirror_of(_TWIN.replace("Mirror:", "See")) is None
    assert third_line('"""One line."""') == ""


# What is public is said; what is long is split


def undocumented(source: str) -> list[str]:
    """The public functions and classes of a text without a docstring, and the module itself."""
    tree = ast.parse(source)
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    public = [n for n in tree.body if isinstance(n, kinds) and not n.name.startswith("_")]
    missing = [node.name for node in public if not (ast.get_docstring(node) or "").strip()]
    return missing if (ast.get_docstring(tree) or "").strip() else ["module", *missing]


def too_long(source: str) -> bool:
    """Whether a text has more lines than one idea takes."""
    return len(source.splitlines()) > MOST_LINES


@pytest.mark.parametrize("file", FILES)
def test_everything_public_has_a_docstring(file: str) -> None:
    assert undocumented(FILES[file].read_text()) == []


@pytest.mark.parametrize("file", FILES)
def test_no_file_is_too_long(file: str) -> None:
    assert not too_long(FILES[file].read_text())


FAULTS: dict[str, tuple[Callable[[str], object], str, object]] = {
    "no module docstring": (undocumented, "x = 1", ["module"]),
    "empty module docstring": (undocumented, '"""  """', ["module"]),
    "function": (undocumented, '"""A."""\ndef f(): ...\ndef _g(): ...', ["f"]),
    "class": (undocumented, '"""A."""\nclass C:\n    x = 1', ["C"]),
    "late string": (undocumented, '"""A."""\ndef f():\n    x = 1\n    """Not one."""', ["f"]),
    "just short enough": (too_long, "x = 1\n" * MOST_LINES, False),
    "too long": (too_long, "x = 1\n" * (MOST_LINES + 1), True),
}


@pytest.mark.parametrize(("rule", "source", "finds"), FAULTS.values(), ids=FAULTS)
def test_broken_rule_is_noticed(rule: Callable[[str], object], source: str, finds: object) -> None:
    assert rule(source) == finds


def test_rules_see_the_files() -> None:
    """No rule holds because it was shown nothing."""
    assert {package_of(file) for file in FILES} == set(PACKAGES)
    for package in MIRRORS:
        assert {f"{package}/{name}.py" for name in IMPLEMENTATIONS} <= FILES.keys()
    assert "twinstep/runs/launch.py" in FILES
