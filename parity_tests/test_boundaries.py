"""The house's rules hold: imports point one way, twins mirror each other, what is public is said.

Every rule is a function from source text to what breaks it, so that each can be given a text that
does. The imports are checked a second time by importing: in a new process, every module of a side
is loaded and the frameworks that are there afterwards are counted.
"""

import ast
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

import twinstep
from twinstep.problems import EXAMPLES

ROOT = Path(__file__).parents[1]
PACKAGES = ("twinstep", "jax_impl", "torch_impl")
_ROOT = {"root"}
_BELOW = _ROOT | {"trace", "judge", "problems"}
ROOMS = {
    "root": _ROOT,
    "trace": _ROOT | {"trace"},
    "judge": _ROOT | {"trace", "judge"},
    "problems": _ROOT | {"trace", "problems"},
    "torch": _BELOW | {"torch"},
    "jax": _BELOW | {"jax"},
    "torch_impl": {"problems", "torch", "torch_impl"},
    "jax_impl": {"problems", "jax", "jax_impl"},
    "torch_programs": {"problems", "torch", "torch_programs"},
    "jax_programs": {"problems", "jax", "jax_programs"},
    "runs": _BELOW | {"runs"},  # launch names the six above
    "report": _BELOW | {"runs", "report"},
    "bench": _BELOW | {"runs", "report", "bench"},
    "cli": _BELOW | {"runs", "report", "bench", "cli"},
    "start": {"cli"},
    "front": set(),  # names what is public; nothing in the house asks for it
}
"""{room: the rooms that it may import}"""
SIDES = {
    "jax": ("jax_impl", "twinstep/jax", "twinstep/runs/jax_programs"),
    "torch": ("torch_impl", "twinstep/torch", "twinstep/runs/torch_programs"),
}
MIRRORS = dict(zip(SIDES["jax"], SIDES["torch"], strict=True))
MIRRORS |= {theirs: ours for ours, theirs in MIRRORS.items()}
_OURS = {side: {folder.replace("/", ".") for folder in folders} for side, folders in SIDES.items()}
_JAX = {"jax", "jaxlib", "flax", "optax"} | _OURS["jax"]
_TORCH = {"torch", "torchvision"} | _OURS["torch"]
_ABOVE = {"examples", "parity_tests", "benchmarks"}
FORBIDDEN = {
    "neither": _JAX | _TORCH | _ABOVE,
    "jax": _TORCH | _ABOVE,
    "torch": _JAX | _ABOVE,
}
KNOWN_CIRCLE = {"twinstep.trace.ledger", "twinstep.trace.storage"}  # a trace saves itself
MOST_LINES = 400
FILES = {
    str(path.relative_to(ROOT)): path
    for package in PACKAGES
    for path in sorted((ROOT / package).rglob("*.py"))
}
IMPLEMENTATIONS = sorted(EXAMPLES)
JAX_ALONE = ("init_state", "make_train_step")  # what PyTorch keeps in model and optimizer


def package_of(file: str) -> str:
    """The package that a file belongs to."""
    return file.partition("/")[0]


def folder_of(file: str) -> str | None:
    """The folder of one framework's side that a file is in; None: of neither."""
    folders = [folder for folder in MIRRORS if file.startswith(f"{folder}/")]
    return folders[0] if folders else None


def side_of(file: str) -> str:
    """The framework whose side a file is on, or "neither"."""
    folder = folder_of(file)
    return next((side for side, folders in SIDES.items() if folder in folders), "neither")


def module_of(file: str) -> str:
    """The dotted name of a file."""
    return file.removesuffix(".py").replace("/", ".").removesuffix(".__init__")


def room_of(module: str) -> str:
    """The room that a module is in."""
    parts = module.split(".")
    if parts[0] != "twinstep":
        return parts[0]
    if parts[1:2] == ["runs"] and len(parts) > 2 and f"{parts[2]}" in ROOMS:
        return parts[2]
    if len(parts) > 1 and parts[1] in ROOMS:
        return parts[1]
    return {"twinstep": "front", "twinstep.__main__": "start"}.get(module, "root")


MODULES = {module_of(file): file for file in FILES}


# Imports


def imports(source: str) -> set[str]:
    """The dotted names of all that a text imports, wherever in it; "." for a relative one."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add(".")
    return found


def within(names: set[str], homes: set[str]) -> set[str]:
    """Of some homes, those that a name is of."""
    return {home for home in homes for name in names if f"{name}.".startswith(f"{home}.")}


def modules_in(source: str) -> set[str]:
    """The house's own modules that a text imports."""
    found = set()
    for name in imports(source):
        while name and name not in MODULES:
            name = name.rpartition(".")[0]
        found.add(name)
    return found - {""}


def wrong_rooms(module: str, source: str) -> set[str]:
    """The modules that a module's text imports from rooms that its own may not."""
    return {other for other in modules_in(source) if room_of(other) not in ROOMS[room_of(module)]}


def circles(graph: dict[str, set[str]]) -> list[set[str]]:
    """The sets of modules that import each other, around any number of corners."""

    def reached(start: str) -> set[str]:
        found: set[str] = set()
        ahead = [*graph[start]]
        while ahead:
            if (name := ahead.pop()) not in found:
                found.add(name)
                ahead += graph[name]
        return found

    reach = {name: reached(name) for name in graph}
    every = {
        frozenset(other for other in reach[name] if name in reach[other])
        for name in graph
        if name in reach[name]
    }
    return [set(circle) for circle in every]


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
    source, module = FILES[file].read_text(), module_of(file)
    found = imports(source)
    assert "." not in found  # absolute, so that the rule can be read off
    assert within(found, FORBIDDEN[side_of(file)]) == set()
    if room_of(module) != "front":
        assert wrong_rooms(module, source) == set()


def test_every_file_is_in_a_room() -> None:
    """And every room is in use, by another room but for the ends."""
    assert {room_of(module) for module in MODULES} == ROOMS.keys()
    for room, below in ROOMS.items():
        assert below <= ROOMS.keys()
        for other in below - {room}:
            assert room not in ROOMS[other], "the table itself goes in a circle"


def test_no_import_goes_in_a_circle() -> None:
    """Those by name counted: launch may load any module of a framework's side."""
    graph = {module: modules_in(FILES[file].read_text()) for module, file in MODULES.items()}
    del graph["twinstep"]  # which is asked for nothing, as the rooms have it
    graph["twinstep.runs.launch"] |= {
        module for module, file in MODULES.items() if side_of(file) != "neither"
    }
    assert circles(graph) == [KNOWN_CIRCLE]


@pytest.mark.parametrize(
    ("module", "source", "found"),
    [
        ("twinstep.trace.ledger", "from twinstep.judge import judge", {"twinstep.judge.judge"}),
        ("twinstep.judge.judge", "from twinstep.problems import Spec", {"twinstep.problems"}),
        ("twinstep.errors", "import twinstep.trace.ledger", {"twinstep.trace.ledger"}),
        ("twinstep.jax.driver", "from twinstep.runs.launch import run", {"twinstep.runs.launch"}),
        ("jax_impl.zero_grad", "from twinstep.judge.judge import Judge", {"twinstep.judge.judge"}),
        ("twinstep.runs.many", "def f():\n    from twinstep.cli import main", {"twinstep.cli"}),
        ("twinstep.report.page", "from twinstep import verify", {"twinstep"}),
        ("twinstep.cli.run", "from twinstep.jax import driver", {"twinstep.jax.driver"}),
        ("twinstep.cli.run", "from twinstep.runs import launch", set()),
        ("twinstep.jax.optim._adam", "from twinstep.jax.optim.base import value_at", set()),
    ],
)
def test_import_of_a_room_above_is_noticed(module: str, source: str, found: set[str]) -> None:
    assert wrong_rooms(module, source) == found


def test_circle_is_noticed() -> None:
    graph = {"a": {"b"}, "b": {"c"}, "c": {"b", "d"}, "d": set(), "e": {"e"}}
    assert sorted(map(sorted, circles(graph))) == [["b", "c"], ["e"]]


@pytest.mark.parametrize("file", FILES)
def test_only_launch_imports_by_name(file: str) -> None:
    calls = imports_by_name(FILES[file].read_text())
    if file == "twinstep/runs/launch.py":
        assert calls == ["importlib.import_module(name)"]
    elif file == "twinstep/__init__.py":  # what is public, when it is asked for
        assert calls == ["importlib.import_module(_HOMES[name])"]
    else:
        assert calls == []


def test_what_is_public_has_a_home() -> None:
    """And is what the types are told."""
    assert twinstep._HOMES.keys() == {*twinstep.__all__} <= {*dir(twinstep)}
    typed = imports(FILES["twinstep/__init__.py"].read_text())
    assert {f"{home}.{name}" for name, home in twinstep._HOMES.items()} == {
        name for name in typed if name.startswith("twinstep.")
    }
    for name in twinstep.__all__:
        assert getattr(twinstep, name).__name__ == name
    with pytest.raises(AttributeError, match="no attribute 'verifi'"):
        getattr(twinstep, "verifi")  # noqa: B009 - no attribute to types


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("import torch", "torch"),
        ("import os, torch.nn as nn", "torch"),
        ("from jax_impl.zero_grad import Linear", "jax_impl"),
        ("from twinstep.torch import driver", "twinstep.torch"),
        ("from twinstep import torch", "twinstep.torch"),
        ("import twinstep.runs.torch_programs.matrix_training", "twinstep.runs.torch_programs"),
        ("def f():\n    if True:\n        from flax import nnx", "flax"),
        ("try:\n    import jax.numpy\nexcept ImportError:\n    pass", "jax"),
    ],
)
def test_forbidden_import_is_noticed(source: str, name: str) -> None:
    assert within(imports(source), FORBIDDEN["neither"]) == {name}


@pytest.mark.parametrize("source", ["from . import driver", "from ..torch_impl import driver"])
def test_relative_import_is_noticed(source: str) -> None:
    assert "." in imports(source)
    assert within(imports("from twinstep.jax_like import torches"), _JAX | _TORCH) == set()


@pytest.mark.parametrize(
    "source",
    [
        "import importlib\nm = importlib.import_module('torch')",
        "from importlib import import_module\nm = import_module('twinstep.torch.driver')",
        "m = __import__('jax')",
        "exec('import torch')",
    ],
)
def test_import_by_name_is_noticed(source: str) -> None:
    assert len(imports_by_name(source)) == 1


_LOAD_ALL = """
import importlib, sys
for name in {modules}:
    importlib.import_module(name)
{more}
print(*sorted(name for name in {names} if name in sys.modules))
"""


def printed(script: str) -> list[str]:
    """The words that a script prints in a new process."""
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return done.stdout.split()


def loaded(side: str, more: str = "") -> list[str]:
    """Which of the names that a side may not import are there once all its modules are."""
    modules = [
        module
        for module, file in MODULES.items()
        if side_of(file) == side and not file.endswith("__main__.py")
    ]
    assert len(modules) > len(IMPLEMENTATIONS)
    names = sorted(FORBIDDEN[side])
    return printed(_LOAD_ALL.format(modules=modules, more=more, names=names))


@pytest.mark.parametrize("side", FORBIDDEN)
def test_loading_a_side_loads_nothing_that_it_may_not(side: str) -> None:
    assert loaded(side) == []


def test_loaded_framework_is_noticed() -> None:
    assert loaded("neither", more="import twinstep.torch.conversion") == ["torch", "twinstep.torch"]


# What a process may have besides: the frameworks themselves set some variables.
_KIT = """
import os, sys
import jax, flax.nnx, optax
before = dict(os.environ)
import twinstep.jax.optim.lr_scheduler
import twinstep.jax.nn
{more}
print(*sorted({{*before.items()}} ^ {{*os.environ.items()}}))
print(*sorted({{name.split(".")[1] for name in sys.modules if name.startswith("twinstep.")}}))
"""


def test_the_kit_changes_nothing_and_loads_no_judge() -> None:
    assert printed(_KIT.format(more="")) == ["errors", "jax"]


@pytest.mark.parametrize(
    ("more", "word"),
    [
        ("from twinstep.runs import launch", "runs"),
        ("import twinstep; twinstep.compare", "judge"),
        ("from twinstep.runs import launch; launch.set_up_xla()", "'XLA_FLAGS',"),
    ],
)
def test_kit_that_does_more_is_noticed(more: str, word: str) -> None:
    script = "import os; os.environ.pop('XLA_FLAGS', None)" + _KIT.format(more=more)
    assert word in " ".join(printed(script)).replace("('", "'").split()


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
    assert alone == surface(_ALONE)
    names = [signature.name for signature in theirs if signature.name[0].islower()]
    common = ("build", "train", "evaluate", "load_data", "main")
    tested = EXAMPLES[implementation]().test_set() is not None
    assert [name for name in names if name in common] == [
        name for name in common if tested or name != "evaluate"
    ]
    # what makes the step stands between what it is made of and the loop that calls it
    order = [signature.name for signature in ours]
    first = order.index("build")
    assert order[first : first + 4] == ["build", *JAX_ALONE, "train"]


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
    for package in ("jax_impl", "torch_impl"):
        assert {f"{package}/{name}.py" for name in IMPLEMENTATIONS} <= FILES.keys()
    assert "twinstep/runs/launch.py" in FILES
    assert {side_of(file) for file in FILES} == FORBIDDEN.keys()
