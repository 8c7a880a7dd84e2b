"""The command line: what it prints, what it writes, and its exit codes."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from helpers.commands import command, python, refusal

import twinstep
from twinstep.problems import EXAMPLES, SETS


def test_help_imports_neither_framework() -> None:
    code = (
        "import sys; from twinstep.cli import main; main(['--help']);"
        "sys.exit(len({'torch', 'jax', 'rich'} & set(sys.modules)))"
    )
    assert "verify [EXAMPLE ...]" in python("-c", code).well()


def test_list_names_every_example() -> None:
    printed = command("list").well()
    assert all(name in printed for name in EXAMPLES)
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
