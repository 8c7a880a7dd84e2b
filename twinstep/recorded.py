"""The command line of `python -m twinstep.torch` and `python -m twinstep.jax`, which is the same.

The program runs as by `python train.py ...`, in this process; its exit code is this one's.
"""

import argparse
import contextlib
import os
import runpy
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from twinstep.errors import InputError


class Finished(BaseException):
    """Ends a program of which enough is recorded: no `except Exception` stops it."""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise InputError(message)


def _parser(framework: str) -> _Parser:
    of = {"torch": "PyTorch", "jax": "JAX"}[framework]
    parser = _Parser(
        prog=f"python -m twinstep.{framework}",
        usage="%(prog)s --out FOLDER [options] program.py [arguments ...]\n"
        "       %(prog)s --out FOLDER [options] -m module [arguments ...]",
        description=f"Records every update of a {of} program, which stays as it is.",
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--out", required=True, metavar="FOLDER", help="a new folder for the trace")
    add(
        "--steps",
        type=_steps,
        metavar="N",
        help="so many updates; or these of each optimizer's, "
        "as 1,10,100. The program ends after the last",
    )
    add("--every", type=int, default=1, metavar="N", help="record one update in so many")
    add(
        "--batch", default="values", metavar="KIND", help="values, or fingerprint: a number of each"
    )
    add("--no-raw-grads", action="store_true", help="not the gradients before clipping")
    add("--no-opt-state", action="store_true", help="not the optimizers' state")
    add("--exclude", action="append", default=[], metavar="PATTERN", help="leave out such names")
    add(
        "--start",
        "--start-from",  # torchrun takes the other for its own --start-method, cut short
        dest="start",
        metavar="FILE",
        help="PyTorch: what parameters and buffers start from, a .safetensors file by the trace's "
        "names or a trace",
    )
    add("-m", action="store_true", help="the program is a module")
    add("program", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    return parser


def _steps(text: str) -> int | list[int]:
    try:
        numbers = [int(part) for part in text.split(",")]
    except ValueError:
        says = f"steps is {text!r}, expected numbers as 20, or 1,10,100"
        raise argparse.ArgumentTypeError(says) from None
    return numbers if "," in text else numbers[0]


def main(framework: str, record: Callable[..., Any], arguments: Sequence[str]) -> int:
    """Runs a program, recorded. Returns 2 for what cannot be; else the program ends the process.

    record: makes of the options a recorder of all that the program does
    """
    try:
        options = _parser(framework).parse_args([*arguments])
        if not options.program:
            raise InputError("expected a program to run: program.py, or -m module")
        program, *rest = options.program
        if not options.m and not os.path.isfile(program):
            raise InputError(f"program {program!r} is no file")
        if options.start is not None and framework != "torch":
            raise InputError(
                "--start is of python -m twinstep.torch alone: a JAX program loads its own values"
            )
        started = {} if options.start is None else {"start": options.start}
        recorder = record(
            out=options.out,
            steps=options.steps,
            every=options.every,
            batch=options.batch,
            raw_grads=not options.no_raw_grads,
            opt_state=not options.no_opt_state,
            exclude=options.exclude,
            **started,
        )
    except InputError as error:
        print(f"twinstep: error: {error}", file=sys.stderr)
        return 2
    recorder.on_last = _finish
    try:
        with recorder, contextlib.suppress(Finished):
            _run(program, rest, options.m)
    except Exception as error:
        if error is not recorder.failed and not isinstance(error, InputError):
            raise  # the program's own
        kind = "" if isinstance(error, InputError) else f"{type(error).__name__}: "
        early = error is recorder.failed
        ended = f"recording ended after {recorder.steps} updates: " if early else ""
        print(f"twinstep: {ended}{' '.join(f'{kind}{error}'.split())}", file=sys.stderr)
        return 0 if recorder.steps else 2
    return 0


def _run(program: str, arguments: list[str], module: bool) -> None:
    """As `python program` does; that it ends itself, and that all went well, is an end."""
    sys.argv = [program, *arguments]
    try:
        if module:
            sys.path.insert(0, os.getcwd())
            runpy.run_module(program, run_name="__main__", alter_sys=True)
        else:
            program = os.path.abspath(program)  # as Python has it in __file__
            sys.path[0] = os.path.dirname(program)
            runpy.run_path(program, run_name="__main__")
    except SystemExit as end:
        if end.code:
            raise


def _finish() -> Any:
    raise Finished
