"""The house as its rules see it: files, rooms, the frameworks' sides, and who imports whom."""

import ast
from pathlib import Path

from twinstep.problems import EXAMPLES

ROOT = Path(__file__).parents[2]
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
    "runs": _BELOW | {"runs"},  # launch names the four above
    "report": _BELOW | {"runs", "report"},
    "bench": _BELOW | {"runs", "report", "bench"},
    "cli": _BELOW | {"runs", "report", "bench", "cli"},
    "start": {"cli"},
    "front": set(),  # names what is public; nothing in the house asks for it
}
"""{room: the rooms that it may import}"""
SIDES = {
    "jax": ("jax_impl", "twinstep/jax"),
    "torch": ("torch_impl", "twinstep/torch"),
}
MIRRORS = dict(zip(SIDES["jax"], SIDES["torch"], strict=True))
MIRRORS |= {theirs: ours for ours, theirs in MIRRORS.items()}
_OURS = {side: {folder.replace("/", ".") for folder in folders} for side, folders in SIDES.items()}
JAX = {"jax", "jaxlib", "flax", "optax"} | _OURS["jax"]
TORCH = {"torch", "torchvision"} | _OURS["torch"]
_ABOVE = {"examples", "parity_tests", "benchmarks"}
FORBIDDEN = {
    "neither": JAX | TORCH | _ABOVE,
    "jax": TORCH | _ABOVE,
    "torch": JAX | _ABOVE,
}
FILES = {
    str(path.relative_to(ROOT)): path
    for package in PACKAGES
    for path in sorted((ROOT / package).rglob("*.py"))
}
IMPLEMENTATIONS = sorted(EXAMPLES)


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
    if len(parts) > 1 and parts[1] in ROOMS:
        return parts[1]
    return {"twinstep": "front", "twinstep.__main__": "start"}.get(module, "root")


MODULES = {module_of(file): file for file in FILES}


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
