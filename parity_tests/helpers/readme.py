"""The README's own figures: the fault that it shows, its table of examples, what was proved last.

`python -m parity_tests.helpers.readme` prints them; `--write` brings README.md, docs/fault.svg and
docs/verify.md up to date. `make readme` first runs what they are taken from, in results/:
verify.json, verify.txt and the reports of the tests, tests.xml and slow.xml.
"""

import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from xml.etree import ElementTree

from twinstep.problems import EXAMPLES, MODELS
from twinstep.problems.nets import RECORDED

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
PICTURE = "docs/fault.svg"
WRONG, RIGHT = "staircase=True))", "staircase=True), weight_decay=0.01)"
TRACES = "traces/torch", "traces/jax"
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
    """What is said of the README's port, as it stands; draws it, too."""
    for side, name, program in (("torch", "train.py", torch), ("jax", "port.py", jax)):
        (folder / name).write_text(program)
        ran(["-m", f"twinstep.{side}", "--out", f"traces/{side}", name], folder)
    (folder / "docs").mkdir()
    found = ran(["-m", "twinstep", "prove", *TRACES, "--plot", PICTURE], folder)
    return "\n".join(found.split("\n")[:2])


def examples(verdicts: Mapping[str, Sequence[str]]) -> list[str]:
    """The table of the documents' examples, a row a document; verdicts: {example: of its dtypes}"""

    def linked(name: str) -> str:
        return f"`{name}` [PyTorch](torch_impl/{name}.py), [JAX](jax_impl/{name}.py)"

    rows: dict[str, list[str]] = {}
    for name, kind in EXAMPLES.items():
        rows.setdefault(kind.document.number, []).append(linked(name))
    rows["whole models"] = [linked(name) for name in (*MODELS, *RECORDED)]
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
    """What the README says of its port when it is right."""
    return re.findall(r"it says\n`([^`]+)`", text)[0]


def planted() -> list[str]:
    """What the tests hold the judge and the kit to, in numbers, line by line."""
    from faults.kinds import KINDS
    from faults.test_fault_table import FAULTS
    from faults.test_many_pairs import CELLS, MANY_SEEDS, RATED_SEEDS, TABLE
    from helpers.optimizer_runs import BAR
    from optim.test_torch_optim import CASES

    from twinstep.problems.layers.training import LayerTraining, LossTraining

    layers = len(LayerTraining.rows()) + len(LossTraining.rows())
    pairs = len(CELLS) * (len(MANY_SEEDS) + len(RATED_SEEDS))
    text = f"""
- {len(TABLE):,} faults of {len(KINDS)} kinds planted in the examples, and {len(FAULTS)} others: \
each is found at its step and tensor.
- {pairs:,} honest pairs, by other seeds, rates and threads: none is called different.
- {len(CASES)} rows of optimizers' options are within {BAR:g}; {layers} of layers and losses \
are `equal` or `rounding`.
- The documents' own code, seeded and run as it stands, prints the losses that JAX prints.
"""
    return text.strip().splitlines()


def proof(tests: tuple[int, date], slow: tuple[int, date]) -> list[str]:
    """The same, with when all of it was last run, on what; tests, slow: what `passed` gives."""
    from twinstep.runs import launch

    versions = {
        name: launch.driver(name, EXAMPLES["zero_grad"]()).metadata.versions
        for name in ("torch", "jax")
    }
    ran_on = f"PyTorch {versions['torch']['torch'].partition('+')[0]}, JAX {versions['jax']['jax']}"
    last = (
        f"Last run {tests[1]}, {ran_on}: {tests[0]:,} tests passed; {slow[0]} long ones {slow[1]}."
    )
    return [last, *planted()]


def between(text: str, head: str, lines: Sequence[str]) -> str:
    """A page with what stands below a heading, up to the next one, replaced."""
    before, found, after = text.partition(f"{head}\n")
    assert found, head
    return f"{before}{found}{chr(10).join(lines)}\n\n## {after.partition('## ')[2]}"


def main() -> None:
    """Prints the figures, or writes them where they stand."""
    text = README.read_text()
    with tempfile.TemporaryDirectory() as folder:
        line = fault(Path(folder), *snippets(text))
        picture = (Path(folder) / PICTURE).read_bytes()
    results = json.loads((RESULTS / "verify.json").read_text())["results"]
    verdicts: dict[str, list[str]] = {}
    for result in results:
        verdicts.setdefault(result["example"], []).append(result["verdict"])
    proved = proof(*(passed(RESULTS / f"{name}.xml") for name in ("tests", "slow")))
    print(line, *proved, *examples(verdicts), sep="\n")
    if "--write" not in sys.argv:
        return
    said_of_it = "\n".join(f"    {one}" for one in line.split("\n"))
    text = re.sub(r"^    mismatch: .*\n.*$", said_of_it, text, flags=re.MULTILINE)
    text = between(text, "## How it is known to be right", proved)
    rows = "\n".join(examples(verdicts))
    text = re.sub(r"^\| document \|.*?\n(?=\n)", f"{rows}\n", text, flags=re.DOTALL | re.MULTILINE)
    README.write_text(text)
    (ROOT / PICTURE).write_bytes(picture)
    page = ROOT / "docs/verify.md"
    printed = "\n".join(map(str.rstrip, (RESULTS / "verify.txt").read_text().strip().split("\n")))
    table = f"<!-- verify -->\n```\n{printed}\n```\n"
    page.write_text(
        re.sub(
            r"<!-- verify -->\n```\n.*?```\n", lambda _: table, page.read_text(), flags=re.DOTALL
        )
    )


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT / "parity_tests"))
    main()
