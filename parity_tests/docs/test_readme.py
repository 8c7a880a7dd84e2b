"""Every command and snippet of the README works as it is printed."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.screens import results

from twinstep.cli import main
from twinstep.problems import EXAMPLES
from twinstep.report.verdicts import print_verifications

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
MNIST = ROOT.parent / "shared" / "mnist"

# A command's words end where two spaces begin the remark beside it.
COMMANDS = re.findall(r"^    twinstep ((?:\S+ ?)+)", README, re.MULTILINE)

# What takes a minute as it is printed is tried with fewer steps.
SHORTER = {
    "mnist": ["--data-dir", str(MNIST), "--steps", "3", "--dtype", "float64"],
    "--devices": ["--steps", "3", "--dtype", "float64"],
    "bench": ["--steps", "3", "--cores", "one"],
}


def test_there_are_commands_to_test() -> None:
    assert len(COMMANDS) >= 8


def test_the_commands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In order and in one folder: one writes the traces that another compares."""
    monkeypatch.chdir(tmp_path)
    for command in COMMANDS:
        words = shlex.split(command)
        if "mnist" in words and not MNIST.is_dir():
            continue
        words += [more for name in SHORTER if name in words for more in SHORTER[name]]
        if "--devices" in words:  # JAX takes the number of its devices once, when it starts
            code = subprocess.run(
                [sys.executable, "-m", "twinstep", *words], check=False
            ).returncode
        else:
            code = main(words)
        assert code == 0, command
    capsys.readouterr()


def test_the_python(tmp_path: Path) -> None:
    snippets = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    verified, torch, jax, ported = (
        subprocess.run(
            [sys.executable, "-c", snippet],
            capture_output=True,
            text=True,
            check=True,
            cwd=tmp_path,
        )
        for snippet in snippets
    )
    assert verified.stdout.startswith("rounding within")
    assert "(100,) (101, 1, 1)" in verified.stdout
    assert torch.stdout.startswith("torch, float32 on cpu: 20 steps")
    assert jax.stdout == "rounding\n"
    assert ported.stdout == ported.stderr == ""


def test_the_table_is_what_verify_prints(capsys: pytest.CaptureFixture[str]) -> None:
    """The README's table has a row for every example and dtype, all the same."""
    (table,) = re.findall(r"<!-- verify -->\n```\n(.*?)```", README, re.DOTALL)
    rows = re.findall(r"^(\w+) +(float\d\d) +\d+ +(equal|rounding) ", table, re.MULTILINE)
    assert sorted((name, dtype) for name, dtype, _ in rows) == sorted(
        (name, dtype) for name in EXAMPLES for dtype in ("float32", "float64")
    )
    print_verifications(results())
    assert table.split("\n")[0].split() == capsys.readouterr().out.split("\n")[0].split()
