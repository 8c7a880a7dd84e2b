"""Imports point one way, room by room, and neither framework's side loads the other.

Every rule is a function from source text to what breaks it, so that each can be given a text that
does. The imports are checked a second time by importing: in a new process, every module of a side
is loaded and the frameworks that are there afterwards are counted.
"""

import ast
import subprocess
import sys

import pytest
from helpers.house import (
    FILES,
    FORBIDDEN,
    IMPLEMENTATIONS,
    JAX,
    MODULES,
    ROOMS,
    ROOT,
    TORCH,
    imports,
    module_of,
    room_of,
    side_of,
)

import twinstep


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
    assert circles(graph) == []


@pytest.mark.parametrize(
    ("module", "source", "found"),
    [
        ("twinstep.trace.ledger", "from twinstep.judge import judge", {"twinstep.judge.judge"}),
        ("twinstep.judge.judge", "from twinstep.problems import Spec", {"twinstep.problems"}),
        ("twinstep.errors", "import twinstep.trace.ledger", {"twinstep.trace.ledger"}),
        ("twinstep.jax.driver", "from twinstep.runs.launch import run", {"twinstep.runs.launch"}),
        ("jax_impl.zero_grad", "from twinstep.judge.judge import Judge", {"twinstep.judge.judge"}),
        ("twinstep.runs.pool", "def f():\n    from twinstep.cli import main", {"twinstep.cli"}),
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
        ("import twinstep.torch.programs.matrix_training", "twinstep.torch"),
        ("def f():\n    if True:\n        from flax import nnx", "flax"),
        ("try:\n    import jax.numpy\nexcept ImportError:\n    pass", "jax"),
    ],
)
def test_forbidden_import_is_noticed(source: str, name: str) -> None:
    assert within(imports(source), FORBIDDEN["neither"]) == {name}


@pytest.mark.parametrize("source", ["from . import driver", "from ..torch_impl import driver"])
def test_relative_import_is_noticed(source: str) -> None:
    assert "." in imports(source)
    assert within(imports("from twinstep.jax_like import torches"), JAX | TORCH) == set()


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
