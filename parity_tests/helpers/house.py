"""The house as its rules see it: files, rooms, sides, and what a source text says."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
PACKAGES = ("twinstep", "jax_impl", "torch_impl")
SIDES = {"jax": ("jax_impl", "twinstep/jax"), "torch": ("torch_impl", "twinstep/torch")}
MIRRORS = dict(zip(SIDES["jax"], SIDES["torch"], strict=True))
MIRRORS |= {theirs: ours for ours, theirs in MIRRORS.items()}
FILES = {
    str(path.relative_to(ROOT)): path.read_text()
    for package in PACKAGES
    for path in sorted((ROOT / package).rglob("*.py"))
}
"""{path: source}"""


def folder_of(file: str) -> str | None:
    """The folder of one framework's side that a file is in; None: of neither."""
    return next((folder for folder in MIRRORS if file.startswith(f"{folder}/")), None)


def side_of(file: str) -> str:
    """The framework whose side a file is on, or "neither"."""
    folder = folder_of(file)
    return next((side for side, folders in SIDES.items() if folder in folders), "neither")


def module_of(file: str) -> str:
    """The dotted name of a file."""
    return file.removesuffix(".py").replace("/", ".").removesuffix(".__init__")


def room_of(module: str) -> str:
    """The folder of the house that a module is in; "root": of none."""
    if not module.startswith("twinstep."):
        return "front" if module == "twinstep" else module.partition(".")[0]
    parts = module.split(".")
    if f"twinstep/{parts[1]}/__init__.py" in FILES:
        return parts[1]
    return "start" if parts[1] in ("__main__", "pytest_plugin") else "root"


MODULES = {module_of(file): file for file in FILES}


def imports(source: str) -> set[str]:
    """The dotted names of all that a text imports, wherever in it; "." for a relative one."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            known = node.level == 0
            found |= {f"{node.module}.{alias.name}" for alias in node.names} if known else {"."}
    return found


def modules_in(source: str) -> set[str]:
    """The house's own modules that a text imports."""
    found = set()
    for name in imports(source):
        while name and name not in MODULES:
            name = name.rpartition(".")[0]
        found.add(name)
    return found - {""}


def loading(side: str) -> list[str]:
    """The modules of a side that can be loaded for themselves."""
    return [m for m, file in MODULES.items() if side_of(file) == side and "__main__" not in file]


def imports_by_name(source: str) -> list[str]:
    """The calls in a text that import what a string names."""
    names = {"import_module", "__import__", "exec", "spec_from_file_location", "run_module"}
    calls = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
    called = [(call, ast.unparse(call.func)) for call in calls]
    return [
        ast.unparse(call)
        for call, name in called
        if name == "eval" or name.rpartition(".")[2] in names  # a model's own eval() is another
    ]


def circles(graph: dict[str, set[str]]) -> list[list[str]]:
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
    round_ = {
        n: tuple(sorted(o for o in reach[n] if n in reach[o])) for n in graph if n in reach[n]
    }
    return [list(circle) for circle in sorted(set(round_.values()))]


class Signature(NamedTuple):
    """A public function or class: its name, the names of its parameters, its methods."""

    name: str
    parameters: tuple[str, ...]
    methods: tuple["Signature", ...] = ()


def surface(source: str) -> list[Signature]:
    """The public functions and classes of a text, in its order."""
    return list(_signatures(ast.parse(source).body))


def _signatures(body: list[ast.stmt]) -> Iterator[Signature]:
    for node in body:
        name = getattr(node, "name", "_").replace("__call__", "forward")  # what PyTorch calls it
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


def code_lines(source: str) -> int:
    """The lines of a text that hold something, docstrings apart."""
    said: set[int] = set()
    for node in ast.walk(ast.parse(source)):
        kinds = (ast.Module, ast.ClassDef, ast.FunctionDef)
        if isinstance(node, kinds) and ast.get_docstring(node) is not None:
            said |= set(range(node.body[0].lineno, (node.body[0].end_lineno or 0) + 1))
    lines = enumerate(source.splitlines(), 1)
    return sum(1 for number, line in lines if line.strip() and number not in said)


def undocumented(source: str) -> list[str]:
    """The public functions and classes of a text without a docstring, and the module itself."""
    tree = ast.parse(source)
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    public = [n for n in tree.body if isinstance(n, kinds) and not n.name.startswith("_")]
    missing = [node.name for node in public if not (ast.get_docstring(node) or "").strip()]
    return missing if (ast.get_docstring(tree) or "").strip() else ["module", *missing]
