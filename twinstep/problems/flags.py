"""Flags to dataclasses: each field is a flag, its docstring the help.

What does not fit is one line.
"""

import argparse
import ast
import contextlib
import dataclasses
import inspect
import sys
import textwrap
from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise, takewhile
from typing import Any, Literal, NoReturn, get_args, get_origin, get_type_hints

from twinstep.errors import InputError, unknown

HIDDEN = {"flag": False}
"""The metadata of a field that is no flag."""


Hint = Callable[[str], str | None]


def _no_hint(flag: str) -> None:
    return None


def shown(kind: Any) -> list[dataclasses.Field[Any]]:
    """The fields of a dataclass that are flags."""
    return [field for field in dataclasses.fields(kind) if field.metadata.get("flag", True)]


def of_program(
    kind: Any, name: str, arguments: Sequence[str] | None = None, without: Sequence[str] = ()
) -> Any:
    """A dataclass from the words of a program's command line; ends the program where it cannot.

    name: the program's; arguments: None: those that it was started with
    without: fields that are no flags of it
    """
    words = sys.argv[1:] if arguments is None else list(arguments)
    try:
        (made,) = _parsed([kind], words, name, _no_hint, without)
        return made
    except InputError as error:
        print(f"{name}: error: {error}", file=sys.stderr)
        raise SystemExit(2) from None


def parse(kind: Any, arguments: list[str], prog: str, hint: Hint = _no_hint) -> Any:
    """A dataclass from flags. Raises InputError for flags that are not its own or do not fit.

    hint: what to say of a flag that is not its own; None: the nearest that is
    """
    (made,) = _parsed([kind], arguments, prog, hint)
    return made


def parse_with(
    options: Any, other: Any, arguments: list[str], prog: str, hint: Hint = _no_hint
) -> tuple[Any, Any]:
    """A command's own options and another dataclass's fields, as flags of one command line."""
    made, spec = _parsed([options, other], arguments, prog, hint)
    return made, spec


def flags_of(kind: Any) -> dict[str, tuple[str, ...] | None]:
    """{flag: the values that it takes}: names where there are such, () for any, None for none."""
    found: dict[str, tuple[str, ...] | None] = {}
    for field in shown(kind):
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


def _parsed(
    kinds: list[Any], arguments: list[str], prog: str, hint: Hint, without: Sequence[str] = ()
) -> list[Any]:
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
    _add_flags(parser, first, without)
    for kind in others:
        title = f"hyper-parameters of {getattr(kind, 'name', 'every example')}"
        _add_flags(parser.add_argument_group(title, kind.__doc__), kind)
    given, left = parser.parse_known_args(_as_argparse_reads(arguments))
    if left:
        left_out = {_flag(name) for name in without}
        flags = [flag for kind in kinds for flag in flags_of(kind) if flag not in left_out]
        parser.error(_left(left[0], flags, hint))
    names = [{field.name for field in shown(kind)} for kind in kinds]
    values = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in vars(given).items()
    }
    return [
        kind(**{name: value for name, value in values.items() if name in own})
        for kind, own in zip(kinds, names, strict=True)
    ]


def _left(word: str, flags: Sequence[str], hint: Hint) -> str:
    """What to say of a word that no flag takes."""
    if not word.startswith("-"):
        return f"{word!r} is not expected there: names come first, values behind their flags"
    flag = word.partition("=")[0]
    if (said := hint(flag)) is not None:
        return said
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


def _add_flags(to: Any, kind: Any, without: Sequence[str] = ()) -> None:
    """A dataclass's fields as flags: of a parser or of a group of one."""
    said = _docstrings(kind)
    for field in shown(kind):
        if field.name in without:
            continue
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
