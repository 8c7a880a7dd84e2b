"""Every command, snippet, link and figure of the README and of the pages behind it is so."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import readme
from helpers.readme import README, ROOT, snippets
from helpers.screens import results

from twinstep.cli import main
from twinstep.problems import EXAMPLES
from twinstep.report.verdicts import print_verifications

TEXT = README.read_text()
PAGES = [README, ROOT / "CONTRIBUTING.md", ROOT / "parity_tests/README.md"]
PAGES += [*(ROOT / "docs").rglob("*.md")]
PAGES += [ROOT / "examples/README.md", ROOT / "benchmarks/README.md"]
VERIFY = (ROOT / "docs/verify.md").read_text()
MNIST = ROOT.parent / "shared" / "mnist"

# A command's words end where two spaces begin the remark beside it.
COMMANDS = re.findall(
    r"^    twinstep ((?:\S+ ?)+)", (ROOT / "docs/commands.md").read_text(), re.MULTILINE
)

# What takes a minute as it is printed is tried with fewer steps.
SHORTER = {
    "mnist": ["--data-dir", str(MNIST), "--steps", "3", "--dtype", "float64"],
    "--devices": ["--steps", "3", "--dtype", "float64"],
    "bench": ["--steps", "3", "--cores", "one"],
}


def test_the_commands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In order and in one folder: one writes the traces that another compares."""
    assert len(COMMANDS) >= 8
    monkeypatch.chdir(tmp_path)
    for command in COMMANDS:
        words = shlex.split(command)
        if "mnist" in words and not MNIST.is_dir():
            continue
        words += [more for name in SHORTER if name in words for more in SHORTER[name]]
        if "--devices" in words:  # JAX takes the number of its devices once, when it starts
            program = [sys.executable, "-m", "twinstep", *words]
            code = subprocess.run(program, check=False).returncode
        else:
            code = main(words)
        assert code == 0, command
    capsys.readouterr()


def test_the_port_and_the_fault_in_it(tmp_path: Path) -> None:
    torch, jax = snippets(TEXT)
    assert readme.WRONG in jax
    (tmp_path / "right").mkdir()
    (tmp_path / "wrong").mkdir()
    right = readme.fault(tmp_path / "right", torch, jax.replace(readme.WRONG, readme.RIGHT))
    assert right.startswith(readme.said(TEXT))
    found = readme.fault(tmp_path / "wrong", torch, jax)
    pattern = r"mismatch: (step \d+), (\w+), (.+?)\[.*\]: torch .*\n(cause: .*)"
    step, stage, leaf, cause = re.match(pattern, found).groups()  # type: ignore[union-attr]  # else it fails
    assert f"    mismatch: {step}, {stage}, {leaf}[" in TEXT
    assert f"    {cause}\n" in TEXT
    drawn = (tmp_path / "wrong" / readme.PICTURE).read_text()
    assert drawn.count("<path") == (ROOT / readme.PICTURE).read_text().count("<path") > 50


@pytest.mark.parametrize("page", ["commands", "recording", "porting/README"])
def test_the_snippets_of_a_page(page: str, tmp_path: Path) -> None:
    """In order and in one folder."""
    found = snippets((ROOT / f"docs/{page}.md").read_text())
    assert found
    for snippet in found:
        readme.ran(["-c", snippet], tmp_path)


def test_the_readme_is_short_and_its_figures_are_those_that_were_written() -> None:
    assert 90 <= len(TEXT.splitlines()) <= 110
    rows = re.findall(r"^(\w+) +(float\d\d) +\d+ +(equal|rounding) ", VERIFY, re.MULTILINE)
    assert sorted((name, dtype) for name, dtype, _ in rows) == sorted(
        (name, dtype) for name in EXAMPLES for dtype in ("float32", "float64")
    )
    verdicts = {name: [v for n, _, v in rows if n == name] for name in EXAMPLES}
    assert "\n".join(readme.examples(verdicts)) in TEXT
    for line in readme.planted():
        assert line in TEXT


def test_the_table_is_what_verify_prints(capsys: pytest.CaptureFixture[str]) -> None:
    (table,) = re.findall(r"<!-- verify -->\n```\n(.*?)```", VERIFY, re.DOTALL)
    print_verifications(results())
    assert table.split("\n")[0].split() == capsys.readouterr().out.split("\n")[0].split()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    """And every file that is named in backquotes is there."""
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    links = [link for link in re.findall(r"\]\(([^)#]+)[^)]*\)", text) if "://" not in link]
    named = re.findall(r"`((?:twinstep|parity_tests|torch_impl|jax_impl|docs)/[\w/.]+)`", text)
    assert [link for link in links if not (page.parent / link).exists()] == []
    assert [name for name in named if not (ROOT / name).exists() and "name" not in name] == []
