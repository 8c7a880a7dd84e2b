"""Twins mirror each other, what is public is said, and what is long is split.

Every rule is a function from source text to what breaks it, so that each can be given a text that
does.
"""

import ast
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from helpers.house import (
    FILES,
    FORBIDDEN,
    IMPLEMENTATIONS,
    MIRRORS,
    MODULES,
    PACKAGES,
    ROOT,
    folder_of,
    imports,
    module_of,
    package_of,
    side_of,
)

from twinstep.problems import EXAMPLES

MAX_LINES = 400
MAX_OF_A_TWIN = 80  # lines of code, docstrings and blank ones apart
JAX_ALONE = ("init_state", "make_train_step")  # what PyTorch keeps in model and optimizer

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


_ALONE = """
def init_state(model, optimizer): ...
def make_train_step(model, criterion, optimizer): ...
"""


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_twins_have_the_same_functions_in_the_same_order(implementation: str) -> None:
    ours, theirs = (
        surface((ROOT / package / f"{implementation}.py").read_text())
        for package in ("jax_impl", "torch_impl")
    )
    alone = [signature for signature in ours if signature.name in JAX_ALONE]
    assert [signature for signature in ours if signature not in alone] == theirs
    state, step = surface(_ALONE)  # only where it holds more than parameters and optimizer's state
    assert alone in ([step], [state, step])
    names = [signature.name for signature in theirs if signature.name[0].islower()]
    common = ("build", "train", "evaluate", "main")
    tested = EXAMPLES[implementation]().test_set() is not None
    assert [name for name in names if name in common] == [
        name for name in common if tested or name != "evaluate"
    ]
    # what makes the step stands between what it is made of and the loop that calls it
    order = [signature.name for signature in ours]
    first = order.index("build")
    assert order[first : first + len(alone) + 2] == [
        "build",
        *(signature.name for signature in alone),
        "train",
    ]


def code_lines(source: str) -> int:
    """The lines of a text that hold something, docstrings apart."""
    said: set[int] = set()
    for node in ast.walk(ast.parse(source)):
        kinds = (ast.Module, ast.ClassDef, ast.FunctionDef)
        if isinstance(node, kinds) and ast.get_docstring(node) is not None:
            said |= set(range(node.body[0].lineno, (node.body[0].end_lineno or 0) + 1))
    lines = enumerate(source.splitlines(), 1)
    return sum(1 for number, line in lines if line.strip() and number not in said)


@pytest.mark.parametrize("package", ["jax_impl", "torch_impl"])
@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_a_twin_is_short(implementation: str, package: str) -> None:
    assert code_lines((ROOT / package / f"{implementation}.py").read_text()) <= MAX_OF_A_TWIN


def test_lines_are_counted() -> None:
    text = '"""One.\n\nMirror.\n"""\n\nx = 1  # y\n# z\n\ndef f():\n    """Says."""\n    return 1\n'
    assert code_lines(text) == 4


@pytest.mark.parametrize("package", ["jax_impl", "torch_impl"])
def test_every_example_has_a_file_of_its_name(package: str) -> None:
    files = (ROOT / package).glob("[!_]*.py")
    assert sorted(path.stem for path in files) == sorted(EXAMPLES)


@pytest.mark.parametrize("package", ["jax_impl", "torch_impl"])
@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_line_three_of_a_twin_names_its_mirror(implementation: str, package: str) -> None:
    source = (ROOT / package / f"{implementation}.py").read_text()
    assert third_line(source) == f"Mirror: {MIRRORS[package]}/{implementation}.py"


def test_every_mirror_is_mirrored_back() -> None:
    named = {file: mirror_of(path.read_text()) for file, path in FILES.items()}
    named = {file: mirror for file, mirror in named.items() if mirror}
    assert len(named) > 2 * len(IMPLEMENTATIONS)  # the library has some too
    for file, mirror in named.items():
        assert mirror in FILES, f"{file} names {mirror}, which is not there"
        assert Path(file).name == Path(mirror).name
        folder = folder_of(file)
        assert folder is not None
        assert MIRRORS[folder] == folder_of(mirror)
        assert named.get(mirror) == file, f"{mirror} does not name {file}"


def test_files_of_one_name_are_mirrors() -> None:
    """What bears the same name on both sides is meant to be read side by side."""
    seen = 0
    for folder, mirror in MIRRORS.items():
        theirs = {path.name: path for path in (ROOT / mirror).rglob("[!_]*.py")}
        for path in (ROOT / folder).rglob("[!_]*.py"):
            if path.name in theirs:
                other = str(theirs[path.name].relative_to(ROOT))
                assert mirror_of(path.read_text()) == other, path
                seen += 1
    assert seen > 2 * len(IMPLEMENTATIONS)


_TWIN = '''"""One line.

Mirror: twinstep/torch/driver.py
"""
class Net:
    def __init__(self, size): ...
    def __call__(self, x): ...
def build(problem): ...
def train(model, *, batches): ...
def _own(): ...
'''
_BUILD, _TRAIN = "def build(problem): ...\n", "def train(model, *, batches): ...\n"


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (_BUILD + _TRAIN, _TRAIN + _BUILD),
        ("batches", "data"),
        (_BUILD, ""),
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
    assert third_line(_TWIN) == "Mirror: twinstep/torch/driver.py"
    assert mirror_of(_TWIN) == "twinstep/torch/driver.py"
    later = _TWIN.replace("\n\nMirror", "\n\nAnother line.\nMirror")
    assert third_line(later) == "Another line."
    assert mirror_of(later) == "twinstep/torch/driver.py"
    assert mirror_of(_TWIN.replace("Mirror:", "See")) is None
    assert third_line('"""One line."""') == ""


# What is public is said, and no module is in its way; what is long is split


def hidden(file: str, source: str) -> set[str]:
    """Of the names that a package exports, those that a module of it bears: either is in the way.

    A module that the package exports itself is none.
    """
    tree, package = ast.parse(source), module_of(file)
    lists = (
        n for n in tree.body if isinstance(n, ast.Assign) and ast.unparse(n.targets[0]) == "__all__"
    )
    names = {name for node in lists for name in ast.literal_eval(node.value)}
    exported = {name.rpartition(".")[2] for name in imports(source) if name in MODULES}
    return {name for name in names - exported if f"{package}.{name}" in MODULES}


@pytest.mark.parametrize("file", [file for file in FILES if file.endswith("__init__.py")])
def test_no_module_bears_the_name_of_a_public_function(file: str) -> None:
    assert hidden(file, FILES[file].read_text()) == set()


def test_module_in_the_way_of_a_function_is_noticed() -> None:
    source = 'from twinstep.jax.nn.layers import functional\n__all__ = ["functional", "Linear"]'
    assert hidden("twinstep/jax/nn/__init__.py", source) == {"functional"}
    source = source.replace(".layers", "")
    assert hidden("twinstep/jax/nn/__init__.py", source) == set()


def undocumented(source: str) -> list[str]:
    """The public functions and classes of a text without a docstring, and the module itself."""
    tree = ast.parse(source)
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    public = [n for n in tree.body if isinstance(n, kinds) and not n.name.startswith("_")]
    missing = [node.name for node in public if not (ast.get_docstring(node) or "").strip()]
    return missing if (ast.get_docstring(tree) or "").strip() else ["module", *missing]


def too_long(source: str) -> bool:
    """Whether a text has more lines than one idea takes."""
    return len(source.splitlines()) > MAX_LINES


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
    "just short enough": (too_long, "x = 1\n" * MAX_LINES, False),
    "too long": (too_long, "x = 1\n" * (MAX_LINES + 1), True),
}


@pytest.mark.parametrize(("rule", "source", "finds"), FAULTS.values(), ids=FAULTS)
def test_broken_rule_is_noticed(rule: Callable[[str], object], source: str, finds: object) -> None:
    assert rule(source) == finds


def test_rules_see_the_files() -> None:
    """No rule holds because it was shown nothing."""
    assert {package_of(file) for file in FILES} == set(PACKAGES)
    for package in ("jax_impl", "torch_impl"):
        assert {f"{package}/{name}.py" for name in IMPLEMENTATIONS} <= FILES.keys()
    assert "twinstep/runs/launch.py" in FILES
    assert {side_of(file) for file in FILES} == FORBIDDEN.keys()
