"""The command line, in this process or in one of its own, and the one line that bad input gets."""

import contextlib
import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

from twinstep.cli import main

ROOT = Path(__file__).parents[2]


class Said(NamedTuple):
    """How a program ended: its exit code, and what it wrote."""

    code: Any
    out: str
    err: str

    def printed(self, code: int = 0) -> str:
        """What it printed; it has to end with this exit code."""
        assert self.code == code, self
        return self.out

    def well(self) -> str:
        """What it printed; it has to end well, and say nothing on stderr."""
        assert (self.code, self.err) == (0, "")
        return self.out

    def refusal(self, program: str = "twinstep") -> str:
        """The one line that bad input gets, all that it printed."""
        assert (self.code, self.out) == (2, ""), self
        assert self.err.startswith(f"{program}: error: ")
        assert self.err.count("\n") == 1
        return self.err.removeprefix(f"{program}: error: ").rstrip("\n")


def command(*words: object, call: Any = main) -> Said:
    """`twinstep` with these words, or another command, in this process."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = call([*map(str, words)])
        except SystemExit as stop:
            code = stop.code
    return Said(code, out.getvalue(), err.getvalue())


def refusal(*words: object) -> str:
    """The one line with which `twinstep` refuses these words."""
    return command(*words).refusal()


def started(
    *words: object, env: dict[str, str] | None = None, **options: Any
) -> "subprocess.Popen[str]":
    """A program in a process of its own, which finds what is here.

    env: what is changed of this process's environment
    """
    found = [str(ROOT), str(ROOT / "parity_tests"), os.environ.get("PYTHONPATH", "")]
    env = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, found))} | (env or {})
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, **options}
    return subprocess.Popen([*map(str, words)], env=env, **options)


def ran(*words: object, input: str | None = None, timeout: float = 240, **options: Any) -> Said:
    """What a program says in a process of its own; as `started`."""
    if input is not None:
        options["stdin"] = subprocess.PIPE
    with started(*words, **options) as process:
        try:
            out, err = process.communicate(input, timeout)
        except BaseException:
            process.kill()
            raise
    return Said(process.returncode, out, err)


def python(*words: object, **options: Any) -> Said:
    """Python in a process of its own; as `ran`."""
    return ran(sys.executable, *words, **options)


WITHOUT = """
import sys

class Without:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {names}:
            error = {error}(f"No module named {{name!r}}")
            error.name = name
            raise error

sys.meta_path.insert(0, Without())
"""


def without(*names: str, error: str = "ModuleNotFoundError") -> str:
    """The code after which these packages cannot be imported."""
    return WITHOUT.format(names=names, error=error)


ONE_BY_ONE = """
import json, sys
from helpers.commands import command

found = {line: command(*words, call=call) for line, words in json.load(sys.stdin).items()}
print(json.dumps([found, [*sys.modules]]))
"""


def one_by_one(
    call: str, lines: dict[str, list[str]], *flags: str, **options: Any
) -> tuple[dict[str, Said], set[str]]:
    """Many command lines in one process: {name: what it said}, and the modules loaded in the end.

    call: the code that defines `call(words)`
    """
    said = python(*flags, "-c", call + ONE_BY_ONE, input=json.dumps(lines), **options).well()
    found, loaded = json.loads(said)
    return {line: Said(*each) for line, each in found.items()}, set(loaded)
