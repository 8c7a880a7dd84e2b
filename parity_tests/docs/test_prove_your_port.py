"""The page about a whole port: its programs are written, its commands run, in order."""

import doctest
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from helpers.readme import ROOT

PAGE = (ROOT / "docs/prove_your_port.md").read_text()
BLOCKS = re.findall(r'```(?:python title="(.+?)"|(console))\n(.*?)```', PAGE, re.DOTALL)
CHANGED = ", changed"


def steps(console: str) -> Iterator[tuple[str, str]]:
    """(a command, what it is said to print) of a block."""
    for part in re.split(r"^\$ ", console, flags=re.MULTILINE)[1:]:
        command, _, printed = part.partition("\n")
        yield command, printed


def changed(text: str, lines: list[str]) -> str:
    """A program with its lines of the same names replaced; what is new goes before."""
    for line in lines:
        name = line.partition(" = ")[0]
        known = re.search(rf"^{re.escape(name)} = .*$", text, re.MULTILINE)
        if line.startswith("from "):
            text = text.replace("import twinstep\n", f"import twinstep\n{line}\n")
        elif known:
            text = text.replace(known[0], line)
        else:
            text = text.replace("\nschedule = ", f"\n{line}\nschedule = ")
    return text


def printed(command: str, folder: Path) -> str:
    """What a command prints."""
    environment = dict(os.environ)
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
    environment["PYTHONPATH"] = str(ROOT)
    environment["PYTEST_ADDOPTS"] = "-p no:cacheprovider -W ignore"
    done = subprocess.run(
        command.replace("twinstep ", f"{sys.executable} -m twinstep ", 1)
        if command.startswith("twinstep ")
        else command,
        shell=True,
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode in (0, 1), done.stderr
    return done.stdout


def test_the_page_is_so(tmp_path: Path) -> None:
    check, commands = doctest.OutputChecker(), 0
    for title, _, text in BLOCKS:
        if title.endswith(CHANGED):
            path = tmp_path / title.removesuffix(CHANGED)
            path.write_text(changed(path.read_text(), text.splitlines()))
        elif title:
            (tmp_path / title).write_text(text)
        for command, says in steps("" if title else text):
            commands += 1
            found = printed(command, tmp_path)
            expected = re.sub(r"^\.\.\.\n", "...", says, flags=re.MULTILINE)
            same = check.check_output(expected, found, doctest.ELLIPSIS)
            assert same, f"{command}\n{found}"
    assert commands >= 10
    assert (tmp_path / "proof.html").stat().st_size > 10_000
