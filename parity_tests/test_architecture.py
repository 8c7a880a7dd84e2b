"""The house's rules: imports point one way, no circle, twins mirror each other, nothing is long.

Each rule is a function from source text to what breaks it, so that BROKEN, at the end, can give it
a text that does.
"""

import ast
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers.house import (
    FILES,
    MIRRORS,
    MODULES,
    PACKAGES,
    ROOT,
    circles,
    code_lines,
    folder_of,
    imports,
    imports_by_name,
    loading,
    mirror_of,
    module_of,
    modules_in,
    room_of,
    side_of,
    surface,
    undocumented,
)

import twinstep
from twinstep.problems import EXAMPLES, MODELS, PROGRAMS
from twinstep.problems.nets import RECORDED

BELOW = {"root", "trace", "weights", "judge", "problems"}
ROOMS = {
    "root": {"root"},
    "trace": {"root", "trace"},
    "weights": {"root", "trace", "weights"},
    "judge": {"root", "trace", "judge"},
    "problems": {"root", "trace", "problems"},
    "torch": BELOW | {"torch"},
    "jax": BELOW | {"jax"},
    "torch_impl": {"problems", "torch", "torch_impl"},
    "jax_impl": {"problems", "jax", "jax_impl"},
    "runs": BELOW | {"runs"},  # runs/launch.py finds the four above by name
    "port": BELOW | {"runs", "port"},
    "report": BELOW | {"runs", "report"},
    "bench": BELOW | {"runs", "report", "bench"},
    "cli": BELOW | {"runs", "port", "report", "bench", "cli"},
    "start": BELOW | {"port", "cli"},  # what a process begins with, and what pytest loads
    "front": set(),  # names what is public; nothing in the house asks for it
}
"""{room: the rooms that it may import}"""
JAX = {"jax", "jaxlib", "flax", "optax", "jax_impl", "twinstep.jax"}
TORCH = {"torch", "torchvision", "torch_impl", "twinstep.torch"}
ABOVE = {"examples", "parity_tests", "benchmarks"}
FORBIDDEN = {"neither": JAX | TORCH | ABOVE, "jax": TORCH | ABOVE, "torch": JAX | ABOVE}
"""{side: what none of its files may import}"""
BY_NAME = {  # whose business it is to import what a string names
    "twinstep/runs/launch.py": ["importlib.import_module(name)"],
    "twinstep/__init__.py": ["importlib.import_module(_HOMES[name])"],
    "twinstep/weights/pickled.py": ["importlib.import_module('torch')"] * 2,
    "twinstep/weights/checkpoints.py": ["importlib.import_module('orbax.checkpoint')"],
    "twinstep/recorded.py": ["runpy.run_module(program, run_name='__main__', alter_sys=True)"],
}
WHOLE = {**MODELS, **RECORDED}
TWINS = {**PROGRAMS, **RECORDED}
MAX_LINES = 400
MAX_OF_A_MODEL = 160
MAX_OF_A_TWIN = 80  # lines of code, docstrings and blank ones apart
COMMON = ("build", "train", "evaluate", "main")  # the functions of a twin
JAX_ALONE = ("init_state", "make_train_step")  # what PyTorch keeps in model and optimizer

every_file = pytest.mark.parametrize("file", FILES)
every_twin = pytest.mark.parametrize(
    "file", [f"{package}/{name}.py" for package in ("jax_impl", "torch_impl") for name in TWINS]
)


# Imports point one way


def within(names: set[str], homes: set[str]) -> set[str]:
    """Of some homes, those that a name is of."""
    return {home for home in homes for name in names if f"{name}.".startswith(f"{home}.")}


def wrong_side(side: str, source: str) -> set[str]:
    """What a text imports that its side may not."""
    return within(imports(source), FORBIDDEN[side])


def wrong_rooms(module: str, source: str) -> set[str]:
    """The modules that a module's text imports from rooms that its own may not."""
    return {other for other in modules_in(source) if room_of(other) not in ROOMS[room_of(module)]}


@every_file
def test_imports_point_one_way(file: str) -> None:
    source, module = FILES[file], module_of(file)
    assert "." not in imports(source), "absolute, so that the rule can be read off"
    assert wrong_side(side_of(file), source) == set()
    assert room_of(module) == "front" or wrong_rooms(module, source) == set()
    assert imports_by_name(source) == BY_NAME.get(file, [])


def test_every_file_is_in_a_room_and_the_rooms_go_in_no_circle() -> None:
    assert {room_of(module) for module in MODULES} == ROOMS.keys()
    assert circles({room: below - {room} for room, below in ROOMS.items()}) == []


def test_no_import_goes_in_a_circle() -> None:
    """Those by name counted: launch may load any module of a framework's side."""
    graph = {module: modules_in(FILES[file]) for module, file in MODULES.items()}
    del graph["twinstep"]  # which is asked for nothing, as the rooms have it
    graph["twinstep.runs.launch"] |= {*loading("jax"), *loading("torch")}
    assert circles(graph) == []


_LOAD_ALL = """
import importlib, sys
for name in {modules}:
    importlib.import_module(name)
print(*sorted(name for name in {names} if name in sys.modules))
"""


def printed(script: str) -> list[str]:
    """The words that a script prints in a new process."""
    command = [sys.executable, "-c", script]
    return (
        subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stdout.decode().split()
    )


@pytest.mark.parametrize("side", FORBIDDEN)
def test_loading_a_side_loads_nothing_that_it_may_not(side: str) -> None:
    names = sorted(FORBIDDEN[side])
    assert printed(_LOAD_ALL.format(modules=loading(side), names=names)) == []


def test_loaded_framework_is_noticed() -> None:
    found = _LOAD_ALL.format(modules=["twinstep.torch.conversion"], names=sorted(TORCH))
    assert printed(found) == ["torch", "twinstep.torch"]


# What a process may have besides: the frameworks themselves set some variables.
_KIT = """
import os, sys
os.environ.pop("XLA_FLAGS", None)
import jax, flax.nnx, optax
before = dict(os.environ)
import twinstep.jax.optim.lr_scheduler
import twinstep.jax.nn
{more}
print(*sorted({{name for name, _ in {{*before.items()}} ^ {{*os.environ.items()}}}}))
print(*sorted({{name.split(".")[1] for name in sys.modules if name.startswith("twinstep.")}}))
"""


@pytest.mark.parametrize(
    ("more", "word"),
    [
        ("", None),
        ("from twinstep.runs import launch", "runs"),
        ("import twinstep; twinstep.compare", "judge"),
        ("from twinstep.runs import launch; launch.set_up_xla()", "XLA_FLAGS"),
    ],
)
def test_the_kit_changes_nothing_and_loads_no_judge(more: str, word: str | None) -> None:
    found = printed(_KIT.format(more=more))
    assert not {"judge", "runs", "torch"} & {*found} if word is None else word in found


def test_what_is_public_has_a_home() -> None:
    """And is what the types are told."""
    assert twinstep._HOMES.keys() == {*twinstep.__all__} <= {*dir(twinstep)}
    typed = {name for name in imports(FILES["twinstep/__init__.py"]) if "twinstep." in name}
    assert {f"{home}.{name}" for name, home in twinstep._HOMES.items()} == typed
    assert [getattr(twinstep, name).__name__ for name in twinstep.__all__] == twinstep.__all__
    with pytest.raises(AttributeError, match="no attribute 'verifi'"):
        getattr(twinstep, "verifi")  # noqa: B009 - no attribute to types


# Twins mirror each other


_ALONE = """
def init_state(model, optimizer): ...
def make_train_step(model, criterion, optimizer): ...
"""


@pytest.mark.parametrize("name", TWINS)
def test_twins_have_the_same_functions_in_the_same_order(name: str) -> None:
    ours, theirs = (
        surface(FILES[f"{package}/{name}.py"]) for package in ("jax_impl", "torch_impl")
    )
    alone = [signature for signature in ours if signature.name in JAX_ALONE]
    assert [signature for signature in ours if signature not in alone] == theirs
    state, step = surface(_ALONE)  # only where it holds more than parameters and optimizer's state
    assert alone in ([step], [state, step])
    tested = TWINS[name]().test_set() is not None
    found = [signature.name for signature in theirs if signature.name in COMMON]
    assert found == [function for function in COMMON if tested or function != "evaluate"]
    # what makes the step stands between what it is made of and the loop that calls it
    order = " ".join(signature.name for signature in ours)
    assert " ".join(["build", *(signature.name for signature in alone), "train"]) in order


@every_twin
def test_a_twin_is_short_and_names_its_mirror_in_line_three(file: str) -> None:
    package, name = file.split("/")
    assert code_lines(FILES[file]) <= (MAX_OF_A_MODEL if name[:-3] in WHOLE else MAX_OF_A_TWIN)
    assert FILES[file].splitlines()[2] == f"Mirror: {MIRRORS[package]}/{name}"


def test_every_example_has_a_file_of_its_name_in_both() -> None:
    for package in ("jax_impl", "torch_impl"):
        files = (ROOT / package).glob("[!_]*.py")
        assert sorted(path.stem for path in files) == sorted(TWINS)


def test_every_mirror_is_mirrored_back() -> None:
    """And what bears one name on both sides is meant to be read side by side."""
    named = {file: mirror for file, source in FILES.items() if (mirror := mirror_of(source))}
    assert len(named) > 2 * len(EXAMPLES)  # the library has some too
    for file, mirror in named.items():
        assert named.get(mirror) == file, f"{mirror} does not name {file}"
        assert Path(file).name == Path(mirror).name
        assert MIRRORS[folder_of(file) or ""] == folder_of(mirror)
    sides: dict[str, dict[str, str]] = {folder: {} for folder in MIRRORS}
    for file in FILES:
        if (folder := folder_of(file)) and not Path(file).name.startswith("_"):
            sides[folder][Path(file).name] = file
    for folder, files in sides.items():
        for name in files.keys() & sides[MIRRORS[folder]].keys():
            assert named.get(files[name]) == sides[MIRRORS[folder]][name]


# What is public is said, no module is in its way, and what is long is split


def hidden(package: str, source: str) -> set[str]:
    """Of the names that a package exports, those that a module of it bears: either is in the way.

    A module that the package exports itself is none.
    """
    lists = [node for node in ast.parse(source).body if ast.unparse(node).startswith("__all__")]
    names = {
        name
        for node in lists
        if isinstance(node, ast.Assign)
        for name in ast.literal_eval(node.value)
    }
    exported = {name.rpartition(".")[2] for name in imports(source) if name in MODULES}
    return {name for name in names - exported if f"{package}.{name}" in MODULES}


def too_long(source: str) -> bool:
    """Whether a text has more lines than one idea takes."""
    return len(source.splitlines()) > MAX_LINES


@every_file
def test_everything_public_has_a_docstring_and_its_own_name(file: str) -> None:
    assert undocumented(FILES[file]) == []
    assert not too_long(FILES[file])
    assert not file.endswith("__init__.py") or hidden(module_of(file), FILES[file]) == set()


@pytest.mark.parametrize(
    "file", sorted((ROOT / "parity_tests").rglob("*.py")), ids=lambda p: p.name
)
def test_no_test_file_is_too_long(file: Path) -> None:
    assert not too_long(file.read_text())


def test_rules_see_the_files() -> None:
    """No rule holds because it was shown nothing."""
    assert {file.partition("/")[0] for file in FILES} == set(PACKAGES)
    assert {side_of(file) for file in FILES} == FORBIDDEN.keys()
    assert all(len(loading(side)) > len(EXAMPLES) for side in FORBIDDEN)


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
_NN = 'from twinstep.jax.nn.linear import functional\n__all__ = ["functional", "Linear"]'


def differs(old: str, new: str) -> bool:
    """Whether a twin that is changed has another surface."""
    assert old in _TWIN
    return surface(_TWIN.replace(old, new)) != surface(_TWIN)


BROKEN: list[tuple[Callable[..., object], tuple[object, ...], object]] = [
    (
        wrong_rooms,
        ("twinstep.trace.ledger", "from twinstep.judge import judge"),
        {"twinstep.judge.judge"},
    ),
    (
        wrong_rooms,
        ("twinstep.judge.judge", "from twinstep.problems import Spec"),
        {"twinstep.problems"},
    ),
    (wrong_rooms, ("twinstep.errors", "import twinstep.trace.ledger"), {"twinstep.trace.ledger"}),
    (
        wrong_rooms,
        ("twinstep.jax.driver", "from twinstep.runs.launch import run"),
        {"twinstep.runs.launch"},
    ),
    (
        wrong_rooms,
        ("jax_impl.zero_grad", "from twinstep.judge.judge import Judge"),
        {"twinstep.judge.judge"},
    ),
    (
        wrong_rooms,
        ("twinstep.runs.pool", "def f():\n    from twinstep.cli import main"),
        {"twinstep.cli"},
    ),
    (wrong_rooms, ("twinstep.report.page", "from twinstep import verify"), {"twinstep"}),
    (wrong_rooms, ("twinstep.cli.run", "from twinstep.jax import driver"), {"twinstep.jax.driver"}),
    (wrong_rooms, ("twinstep.cli.run", "from twinstep.runs import launch"), set()),
    (wrong_side, ("neither", "import os, torch.nn as nn"), {"torch"}),
    (wrong_side, ("torch", "from jax_impl.zero_grad import Linear"), {"jax_impl"}),
    (wrong_side, ("jax", "from twinstep import torch"), {"twinstep.torch"}),
    (wrong_side, ("neither", "import twinstep.torch.programs.matrix_training"), {"twinstep.torch"}),
    (wrong_side, ("neither", "def f():\n    if True:\n        from flax import nnx"), {"flax"}),
    (wrong_side, ("neither", "try:\n    import jax.numpy\nexcept ImportError:\n    pass"), {"jax"}),
    (wrong_side, ("neither", "from twinstep.jax_like import torches"), set()),
    (imports, ("from ..torch_impl import driver",), {"."}),
    (
        imports_by_name,
        ("m = importlib.import_module('torch')",),
        ["importlib.import_module('torch')"],
    ),
    (imports_by_name, ("m = import_module('a.b')",), ["import_module('a.b')"]),
    (imports_by_name, ("m = __import__('jax')",), ["__import__('jax')"]),
    (imports_by_name, ("exec('import torch')",), ["exec('import torch')"]),
    (
        circles,
        ({"a": {"b"}, "b": {"c"}, "c": {"b", "d"}, "d": set(), "e": {"e"}},),
        [["b", "c"], ["e"]],
    ),
    (differs, (_BUILD + _TRAIN, _TRAIN + _BUILD), True),
    (differs, ("batches", "data"), True),
    (differs, (_BUILD, ""), True),
    (differs, ("def __call__(self, x)", "def apply(self, x)"), True),
    (differs, ("def __call__(self, x)", "def forward(self, x)"), False),
    (differs, ("def _own", "def own"), True),
    (differs, ("def _own", "def _other"), False),
    (differs, ("size", "width"), True),
    (differs, ("class Net", "class Network"), True),
    (mirror_of, (_TWIN,), "twinstep/torch/driver.py"),
    (mirror_of, (_TWIN.replace("Mirror:", "See"),), None),
    (
        code_lines,
        ('"""One.\n\nMirror.\n"""\n\nx = 1\n# z\n\ndef f():\n    """S."""\n    return 1\n',),
        4,
    ),
    (undocumented, ("x = 1",), ["module"]),
    (undocumented, ('"""  """',), ["module"]),
    (undocumented, ('"""A."""\ndef f(): ...\ndef _g(): ...',), ["f"]),
    (undocumented, ('"""A."""\nclass C:\n    x = 1',), ["C"]),
    (undocumented, ('"""A."""\ndef f():\n    x = 1\n    """Not one."""',), ["f"]),
    (hidden, ("twinstep.jax.nn", _NN), {"functional"}),
    (hidden, ("twinstep.jax.nn", _NN.replace(".linear", "")), set()),
    (too_long, ("x = 1\n" * MAX_LINES,), False),
    (too_long, ("x = 1\n" * (MAX_LINES + 1),), True),
]


@pytest.mark.parametrize(("rule", "given", "finds"), BROKEN)
def test_what_breaks_a_rule_is_noticed(
    rule: Callable[..., object], given: tuple[object, ...], finds: object
) -> None:
    assert rule(*given) == finds
