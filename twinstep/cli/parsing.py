"""Flags to dataclasses: a command's own options, and an example's hyper-parameters.

Each field of a dataclass is a flag, its docstring the help. What does not fit is one line.
"""

import argparse
import ast
import contextlib
import dataclasses
import inspect
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise, takewhile
from typing import Any, Literal, NoReturn, get_args, get_origin, get_type_hints

from twinstep.errors import InputError, unknown
from twinstep.place import Device, Place, Precision
from twinstep.problems import EXAMPLES, SETS


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
    """Flags of every example; behind one EXAMPLE, --help shows its own too."""

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


def example(
    command: str, arguments: list[str], others: Sequence[str] = ()
) -> tuple[Any, list[str]]:
    """The spec's class that the first argument names, and the other arguments.

    others: what else the command takes, to be offered where the name is close to one of them
    """
    if not arguments or arguments[0].startswith("-"):
        if {"-h", "--help"} & set(arguments):
            print(f"usage: twinstep {command} EXAMPLE [--help | flags]\n")
            print("EXAMPLE is one of: " + ", ".join(EXAMPLES))
            raise SystemExit(0)
        raise InputError(f"{command} takes an example first: one of {', '.join(EXAMPLES)}")
    name, *rest = arguments
    if name in SETS:
        raise InputError(f"{name} is a set of many trainings: twinstep verify {name}")
    if name not in EXAMPLES:
        raise InputError(unknown("example", name, [*EXAMPLES, *others]))
    return EXAMPLES[name], rest


def parse(kind: Any, arguments: list[str], prog: str) -> Any:
    """A dataclass from flags. Raises InputError for flags that are not its own or do not fit."""
    (made,) = _parsed([kind], arguments, prog)
    return made


def parse_with(options: Any, other: Any, arguments: list[str], prog: str) -> tuple[Any, Any]:
    """A command's own options and another dataclass's fields, as flags of one command line."""
    made, spec = _parsed([options, other], arguments, prog)
    return made, spec


def flags_of(kind: Any) -> dict[str, tuple[str, ...] | None]:
    """{flag: the values that it takes}: names where there are such, () for any, None for none."""
    found: dict[str, tuple[str, ...] | None] = {}
    for field in dataclasses.fields(kind):
        hint, flag = _hint(kind, field.name), _flag(field.name)
        if hint is bool:
            found |= {flag: None, f"--no-{flag[2:]}": None}
        else:
            found[flag] = get_args(hint) if get_origin(hint) is Literal else ()
    return found


class _Parser(argparse.ArgumentParser):
    """Raises InputError where argparse prints its usage and ends the process."""

    def error(self, message: str) -> NoReturn:
        command = " ".join(takewhile(lambda word: word == word.lower(), self.prog.split()))
        message = message.removeprefix("argument ").replace("ignored explicit", "takes no")
        raise InputError(f"{message} (see {command} --help)")


def _parsed(kinds: list[Any], arguments: list[str], prog: str) -> list[Any]:
    """One of each dataclass; a flag that was not given has the dataclass's own default."""
    first, *others = kinds
    parser = _Parser(
        prog,
        usage=f"{prog} [flags]",
        description=first.__doc__,
        allow_abbrev=False,
        argument_default=argparse.SUPPRESS,
        formatter_class=partial(argparse.HelpFormatter, max_help_position=28),
    )
    _add_flags(parser, first)
    for kind in others:
        title = f"hyper-parameters of {getattr(kind, 'name', 'every example')}"
        _add_flags(parser.add_argument_group(title, kind.__doc__), kind)
    given, left = parser.parse_known_args(_as_argparse_reads(arguments))
    if left:
        flags = [flag for kind in kinds for flag in flags_of(kind)]
        parser.error(_left(left[0], flags))
    names = [{field.name for field in dataclasses.fields(kind)} for kind in kinds]
    values = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in vars(given).items()
    }
    return [
        kind(**{name: value for name, value in values.items() if name in own})
        for kind, own in zip(kinds, names, strict=True)
    ]


def _left(word: str, flags: Sequence[str]) -> str:
    """What to say of a word that no flag takes."""
    if not word.startswith("-"):
        return f"{word!r} is not expected there: names come first, values behind their flags"
    flag = word.partition("=")[0]
    having = [name for name, spec in EXAMPLES.items() if flag in flags_of(spec)]
    if having:
        return f"{flag} is a flag of single examples: name one, such as {having[0]}, and no other"
    message = unknown("flag", flag, flags)
    # all flags are too many for a line
    return message if "did you mean" in message else message.partition(":")[0]


def _as_argparse_reads(arguments: Sequence[str]) -> list[str]:
    """--learning_rate as --learning-rate, and --x -1e-3 as --x=-1e-3, which looks like a flag."""
    words: list[str] = []
    for word in arguments:
        if word.startswith("--"):
            flag, equals, value = word.partition("=")
            words.append(flag.replace("_", "-") + equals + value)
        elif word.startswith("-") and _is_number(word) and words and words[-1].startswith("--"):
            words[-1] += f"={word}"
        else:
            words.append(word)
    return words


def _is_number(word: str) -> bool:
    with contextlib.suppress(ValueError):
        float(word)
        return True
    return False


def _add_flags(to: Any, kind: Any) -> None:
    """A dataclass's fields as flags: of a parser or of a group of one."""
    said = _docstrings(kind)
    for field in dataclasses.fields(kind):
        hint, help_text = _hint(kind, field.name), said.get(field.name, "")
        if field.default is not None and "(default: " not in help_text:
            help_text += f" (default: {_shown(field.default)})"
        options: dict[str, Any] = {"help": help_text.strip().replace("%", "%%")}
        if hint is bool:
            options["action"] = argparse.BooleanOptionalAction
        elif get_origin(hint) is Literal:
            names = get_args(hint)
            options |= {"type": partial(_one_of, field.name, names)}
            options |= {"metavar": "{" + ",".join(names) + "}"}
        elif get_origin(hint) is tuple:
            options |= {"nargs": len(get_args(hint)), "type": _READ[float], "metavar": "NUMBER"}
        else:
            options |= {"type": _READ[hint], "metavar": _METAVARS[hint]}
        to.add_argument(_flag(field.name), **options)


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def _shown(value: Any) -> str:
    """A default as it is written on the command line."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _hint(kind: Any, name: str) -> Any:
    """A field's type; None, which is a flag that is not given, is no part of it."""
    hint = get_type_hints(kind)[name]
    some = [part for part in get_args(hint) if part is not type(None)]
    return some[0] if type(None) in get_args(hint) else hint


def _whole(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number") from None


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no number") from None


def _one_of(field: str, names: Sequence[str], text: str) -> str:
    if text not in names:
        raise argparse.ArgumentTypeError(unknown(field.replace("_", " "), text, names))
    return text


_READ = {int: _whole, float: _number, str: str}
_METAVARS = {int: "INT", float: "NUMBER", str: "TEXT"}


def _docstrings(kind: Any) -> dict[str, str]:
    """{field: the string below it in the source}, those of the classes it is made of too."""
    found: dict[str, str] = {}
    for part in reversed(kind.__mro__[:-1]):
        try:
            source = textwrap.dedent(inspect.getsource(part))
        except (OSError, TypeError):  # no source, no help
            continue
        (body,) = [node.body for node in ast.parse(source).body if isinstance(node, ast.ClassDef)]
        for field, below in pairwise(body):
            match field, below:
                case (
                    ast.AnnAssign(target=ast.Name(id=name)),
                    ast.Expr(value=ast.Constant(value=str(text))),
                ):
                    found[name] = " ".join(text.split())
    return found
