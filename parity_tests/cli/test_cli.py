"""The command line: what it prints and writes, its exit codes, and what it says is missing."""

import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers.commands import command, python, refusal, without
from helpers.synthetic_traces import refused

import twinstep
from twinstep import extras
from twinstep.problems import EXAMPLES, SETS
from twinstep.runs import launch


def test_help_imports_neither_framework() -> None:
    code = (
        "import sys; from twinstep.cli import main; main(['--help']);"
        "sys.exit(len({'torch', 'jax', 'rich'} & set(sys.modules)))"
    )
    assert "verify [EXAMPLE ...]" in python("-c", code).well()


def test_list_names_every_example() -> None:
    printed = command("list").well()
    listed = json.loads(command("list", "--json", "-").well())
    assert [row["example"] for row in listed["examples"]] == [*EXAMPLES]
    assert [(row["set"], row["rows"]) for row in listed["sets"]] == [
        (name, len(make())) for name, make in SETS.items()
    ]
    above, below = printed.split("\nsets of many small trainings, for verify:\n")
    assert not [name for name in SETS if name in above]
    assert all(name in below for name in SETS)


def test_run_prints_the_documents_lines() -> None:
    printed = command("run", "linear_regression", "--steps", 20).well().splitlines()
    assert printed[0].startswith("== torch")
    assert re.fullmatch(r"Epoch \[10/20\], Loss: \d+\.\d{4}", printed[1])
    assert printed[1:3] == printed[4:6], "both frameworks print the same"


def test_run_writes_json() -> None:
    value = json.loads(command("run", "zero_grad", "--framework", "jax", "--json", "-").well())
    trace = twinstep.run(EXAMPLES["zero_grad"](), framework="jax", rounding_noise=False)
    assert value["jax"]["losses"] == trace.losses.tolist()
    assert value["jax"]["params"]["2.bias"] == trace.params["2.bias"][-1].tolist()


def test_a_loss_that_is_no_number_is_said() -> None:
    arguments = ["linear_regression", "--learning-rate", "1e200", "--dtype", "float64"]
    with np.errstate(all="ignore"):
        said = command("run", *arguments, "--framework", "torch", "--json", "-")
    assert re.search(r"step \d+: the loss is (inf|nan)", said.err)
    json.loads(said.printed(1), parse_constant=pytest.fail)
    printed = command("verify", *arguments).printed(1)
    assert re.search(r"invalid.*\n(.*\n)*.*step \d+: .* is (inf|nan)", printed)


def test_verify_and_compare(tmp_path: Path) -> None:
    out, report = tmp_path / "traces", tmp_path / "report.json"
    said = command("verify", "zero_grad", "--out", out, "--json", report)
    assert "2 verified" in said.printed()
    value = json.loads(report.read_text())
    assert value["same"]
    assert [result["spec"]["dtype"] for result in value["results"]] == ["float64", "float32"]

    folder, faulty = out / "zero_grad" / "float64", tmp_path / "faulty"
    assert "rounding" in command("compare", folder / "torch", folder / "jax").printed()
    other = out / "zero_grad" / "float32" / "jax"
    assert "different settings: dtype" in refusal("compare", folder / "torch", other)

    trace = twinstep.load_trace(folder / "jax")
    trace.params["2.bias"][3] += 1e-12
    trace.save(faulty)
    printed = command("compare", folder / "torch", faulty).printed(1)
    assert re.search(r"mismatch: step 3, params, 2\.bias\[0\]", printed)
    for steps, code in ((2, 0), (6, 2)):
        assert command("compare", folder / "torch", faulty, "--steps", steps).code == code


def test_several_examples_in_two_processes() -> None:
    arguments = ["chain_rule", "linear_regression", "--dtype", "float64", "--steps", 3]
    printed = command("verify", *arguments, "--jobs", 2, "--json", "-").printed()
    results = json.loads(printed)["results"]
    assert [result["example"] for result in results] == ["chain_rule", "linear_regression"]
    assert [result["steps"] for result in results] == [3, 3]


def test_a_mismatch_is_exit_code_1(monkeypatch: pytest.MonkeyPatch) -> None:
    import optax

    sgd = optax.sgd
    monkeypatch.setattr(optax, "sgd", lambda lr: sgd(lr * (1 + 1e-9)))
    printed = command("verify", "zero_grad", "--dtype", "float64").printed(1)
    says = r"mismatch step 1, params, .+: torch \S+, jax \S+, apart \S+, allowed \S+\n"
    assert re.search(says, printed)


MISSING = [
    ("run zero_grad --framework jax", "flax", "framework jax", "jax"),
    ("run zero_grad", "optax", "framework jax", "jax"),
    ("verify zero_grad", "jax", "framework jax", "jax"),
    ("verify zero_grad", "torch", "framework torch", "torch"),
    ("verify zero_grad --report page.html", "jinja2", "--report", "report"),
    ("verify zero_grad --report page.html", "matplotlib", "--report", "report"),
    ("bench zero_grad", "torch", "framework torch", "torch"),
    ("bench zero_grad --plot plot.png", "matplotlib", "--plot", "report"),
]


@pytest.mark.parametrize(("line", "module", "what", "extra"), MISSING)
def test_what_is_missing_is_said_before_anything_trains(
    line: str, module: str, what: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    says = f'{what} needs {module}, not installed: pip install "twinstep[{extra}]"'
    assert refusal(*line.split()) == says


def test_what_is_missing_is_said_in_python_too(monkeypatch: pytest.MonkeyPatch) -> None:
    import twinstep.jax

    monkeypatch.setattr(twinstep, "jax", twinstep.jax)  # it is another one in the meantime
    ours = ("jax_impl", "twinstep.jax")
    for name in [name for name in sys.modules if name.startswith(ours)]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "optax", None)
    says = "needs optax, not installed: pip install"
    refused(lambda: launch.run(EXAMPLES["zero_grad"](), "jax"), says)


COMMANDS = """
from twinstep.cli import main
print(*(main(words.split()) for words in sys.argv[1:]))
"""


def test_the_jax_side_runs_where_pytorch_is_not_installed() -> None:
    commands = ["run zero_grad --framework jax", "run zero_grad"]
    said = python("-c", without("torch") + COMMANDS, *commands)
    assert "Epoch 5, Loss: " in said.printed()
    assert said.out.splitlines()[-1] == "0 2"
    says = 'framework torch needs torch, not installed: pip install "twinstep[torch]"'
    assert said.err == f"twinstep: error: {says}\n"


def test_the_core_needs_no_extra(stored: Path) -> None:
    """Lists, shows, and judges what was recorded elsewhere."""
    brought = {name for names in extras.MODULES.values() for name in names}
    code = without(*brought - {"pygments"}) + COMMANDS  # which rich brings
    said = python("-c", code, "list", "show zero_grad", f"compare {stored} {stored}")
    assert said.well().splitlines()[-1] == "0 0 0"
    assert "usage: twinstep verify" in python("-c", code, "verify --help").well()
