"""The README's own figures: the fault that it shows, its table of examples, what was proved last.

`python -m parity_tests.helpers.readme` prints them; with `--write` it brings README.md, docs/fault.svg
and docs/verify.md up to date. `make readme` runs first what they are taken from: results/verify.json,
results/verify.txt and the reports of the tests, results/tests.xml and results/slow.xml.
"""

import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import twinstep
from twinstep.problems import EXAMPLES

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
PICTURE = "docs/fault.svg"
RIGHT, WRONG = "step_size=8", "step_size=9"
RESULTS = ROOT / "results"


def snippets(text: str) -> list[str]:
    """The Python of a page, block by block."""
    return re.findall(r"```python\n(.*?)```", text, re.DOTALL)


def ran(words: Sequence[str], folder: Path) -> str:
    """What a command prints, in a process and a folder of its own; its exit code may be 1."""
    done = subprocess.run([sys.executable, *words], cwd=folder, capture_output=True, text=True)
    if done.returncode not in (0, 1) or done.stderr:
        raise RuntimeError(done.stderr)
    return done.stdout


def fault(folder: Path, torch: str, jax: str) -> str:
    """The line that names the fault in the README's loop, when it is planted; draws it, too."""
    ran(["-c", torch], folder)
    head, _, tail = jax.partition(RIGHT)
    ran(["-c", f"{head}{WRONG}{tail}"], folder)
    (folder / "docs").mkdir()
    command = ["-m", "twinstep", "compare", "traces/torch", "traces/jax", "--plot", PICTURE]
    return ran(command, folder).partition("\n")[0]


def examples(verdicts: Mapping[str, Sequence[str]]) -> list[str]:
    """The table of the documents' examples, a row a document; verdicts: {example: of its dtypes}"""
    rows: dict[str, list[str]] = {}
    for name, kind in EXAMPLES.items():
        links = f"[PyTorch](torch_impl/{name}.py), [JAX](jax_impl/{name}.py)"
        rows.setdefault(kind.document.number, []).append(f"`{name}` {links}")
    found = sorted({verdict for each in verdicts.values() for verdict in each})
    head = f"| document | its examples, all {' or '.join(f'`{v}`' for v in found)} |"
    return [head, "|---|---|", *(f"| {n} | {'; '.join(rows[n])} |" for n in sorted(rows))]


def passed(report: Path) -> tuple[int, date]:
    """How many tests of a report passed, and when. ValueError where one did not."""
    (suite,) = ElementTree.parse(report).getroot().iter("testsuite")
    counts = {name: int(suite.attrib[name]) for name in ("tests", "failures", "errors", "skipped")}
    if counts["failures"] or counts["errors"]:
        raise ValueError(f"{report} has tests that failed")
    return counts["tests"] - counts["skipped"], date.fromisoformat(suite.attrib["timestamp"][:10])


def said(text: str) -> str:
    """What the README says that its loop prints."""
    return re.findall(r"^It prints `([^`]+)`", text, re.MULTILINE)[0]
