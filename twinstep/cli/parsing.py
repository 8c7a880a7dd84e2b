"""Flags to dataclasses: a command's own options, and an example's hyper-parameters.

Each field of a dataclass is a flag, its docstring the help. What does not fit is one line.
"""

import contextlib
import dataclasses
import difflib
import io
import re
from dataclasses import dataclass
from typing import Any, Literal

import tyro
from tyro.conf import OmitArgPrefixes

from twinstep.errors import InputError
from twinstep.place import Device, Place, Precision
from twinstep.specs import EXAMPLES


@dataclass(frozen=True)
class PlaceOptions:
    """Where and how precisely a command trains."""

    device: Device = "cpu"
    """Where it trains; beside a TPU, PyTorch stays on the CPU."""
    devices: int = 1
    """How many devices share each batch (JAX devices; PyTorch processes)."""
    precision: Precision = "highest"
    """Of float32 matrix products: highest, or what a framework does for speed (TF32, bfloat16)."""
    threads: int = 1
    """PyTorch's threads; small models run steadier on one."""
    compilation_cache: bool = True
    """Keep JAX's compiled programs in the user's cache folder (or TWINSTEP_CACHE)."""

    @property
    def place(self) -> Place:
        """Where it trains."""
        return Place(self.device, self.devices, self.precision)


@dataclass(frozen=True)
class CommonFlags:
    """What every example has."""

    seed: int = 0
    """What torch.manual_seed gets before the document's first draw."""
    dtype: Literal["float32", "float64"] | None = None
    """The type of every parameter (default: float64, the gate, then float32)."""
    steps: int | None = None
    """Updates to make (default: the document's number)."""


def leading_words(arguments: list[str]) -> tuple[list[str], list[str]]:
    """What stands before the first flag, and the rest."""
    count = next((i for i, a in enumerate(arguments) if a.startswith("-")), len(arguments))
    return arguments[:count], arguments[count:]


def parse_spec(name: str, arguments: list[str], prog: str) -> Any:
    """An example's spec from flags. Raises InputError for an unknown example or a bad flag."""
    kind, rest = example("run", [name, *arguments])
    return parse(kind, rest, prog)


def example(command: str, arguments: list[str]) -> tuple[Any, list[str]]:
    """The spec's class that the first argument names, and the other arguments."""
    if not arguments or arguments[0].startswith("-"):
        if {"-h", "--help"} & set(arguments):
            print(f"usage: twinstep {command} EXAMPLE [--help | flags]\n")
            print("EXAMPLE is one of: " + ", ".join(EXAMPLES))
            raise SystemExit(0)
        raise InputError(f"{command} takes an example first: one of {', '.join(EXAMPLES)}")
    name, *rest = arguments
    if name not in EXAMPLES:
        raise InputError(unknown("example", name, EXAMPLES))
    return EXAMPLES[name], rest


def unknown(kind: str, name: str, known: Any) -> str:
    """What to say of a name that is not known: the one that was meant, or all."""
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.4)
    hint = f"did you mean {near[0]}?" if near else f"expected one of {', '.join(known)}"
    return f"unknown {kind} {name!r}: {hint}"


def parse_with(options: Any, other: Any, arguments: list[str], prog: str) -> tuple[Any, Any]:
    """A command's own options and another dataclass's fields, as flags of one command line."""
    flat: Any = OmitArgPrefixes  # --seed and not --spec.seed
    both = dataclasses.make_dataclass("Flags", [("options", flat[options]), ("spec", flat[other])])
    both.__doc__ = other.__doc__
    parsed = parse(both, arguments, prog)
    return parsed.options, parsed.spec


def parse(kind: Any, arguments: list[str], prog: str) -> Any:
    """A dataclass from flags. InputError in one line, where tyro draws a box of several."""
    # tyro draws in UTF-8 where stdout says that it is
    help_text, said = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8") for _ in range(2))
    try:
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(help_text):
            return tyro.cli(kind, args=arguments, prog=prog)
    except SystemExit as stop:
        code = stop.code
    if not code:
        help_text.seek(0)
        print(help_text.read(), end="")
        raise SystemExit(0)
    said.seek(0)
    raise InputError(f"{_box_to_line(said.read())} (see {prog} --help)")


def _box_to_line(box: str) -> str:
    """What a box says above its first rule, and the flag that it suggests, if any."""
    lines = [line.strip("│ \n") for line in box.splitlines()[1:-1]]
    rule = next((i for i, line in enumerate(lines) if line.startswith("─")), len(lines))
    # a field that the spec itself refuses is no matter of parsing
    text = re.sub(r"^Error parsing (spec|[A-Z]\w*): ", "", " ".join(lines[:rule]))
    hints = [line.split()[0].rstrip(",") for line in lines[rule:] if line.startswith("--")]
    if hints and any("Perhaps you meant" in line for line in lines):
        text += f"; did you mean {hints[0]}?"
    return text
