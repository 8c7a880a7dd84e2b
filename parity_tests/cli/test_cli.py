"""The command line: what it prints, its exit codes, and one clear line for bad input."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import twinstep
from twinstep.cli import main
from twinstep.problems import EXAMPLES, SETS

BAD = [
    (["frobnicate"], r"unknown command 'frobnicate'"),
    (["verfy"], r"unknown command 'verfy': did you mean verify\?"),
    (["run"], r"run takes an example first"),
    (["run", "liner_regression"], r"unknown example 'liner_regression': did you mean linear_regr"),
    (["verify", "zero_grad", "zero_gard"], r"unknown example 'zero_gard': did you mean zero_grad"),
    (["verify", "--epochs", "3"], r"--epochs"),
    (["run", "zero_grad", "--learning-rate", "nan"], r"zero_grad: learning_rate is nan"),
    (["run", "zero_grad", "--learning-rate", "inf"], r"zero_grad: learning_rate is inf"),
    (["run", "zero_grad", "--learning-rate", "fast"], r"--learning-rate.*'fast'"),
    (["run", "zero_grad", "--learning-rate=-1"], r"learning_rate is -1.0, expected 0 or more"),
    (["run", "zero_grad", "--lerning-rate", "1"], r"did you mean --learning-rate"),
    (["run", "adam_update", "--betas", "0.9", "1"], r"betas is \(0.9, 1.0\), expected two numbers"),
    (["run", "zero_grad", "--steps", "0"], r"zero_grad: steps is 0, expected at least 1"),
    (["run", "zero_grad", "--steps", "-2"], r"steps is -2, expected at least 1"),
    (["verify", "--steps", "0"], r"steps is 0, expected at least 1"),
    (["run", "zero_grad", "--epochs", "0"], r"epochs is 0, expected at least 1"),
    (["run", "zero_grad", "--seed", str(2**64)], r"seed.*18446744073709551616"),
    (["run", "sgd_linear_model", "--data-seed", "-1"], r"data_seed is -1"),
    (["run", "zero_grad", "--dtype", "int8"], r"'int8'.*float32.*float64"),
    (["verify", "--dtype", "int8"], r"'int8'"),
    (["run", "zero_grad", "--framework", "keras"], r"'keras'"),
    (["run", "zero_grad", "--device", "gpu"], r"device is 'gpu', but PyTorch found only: cpu"),
    (
        ["run", "zero_grad", "--device", "tpu", "--framework", "jax"],
        r"device is 'tpu', but JAX f",
    ),
    (["verify", "zero_grad", "--device", "gpu"], r"device is 'gpu'"),
    (["run", "zero_grad", "--threads", "0"], r"threads is 0, expected at least 1"),
    (["verify", "zero_grad", "--jobs", "0"], r"jobs is 0, expected at least 1"),
    (["compare", "one"], r"compare takes two trace folders, 1 given"),
    (["compare", "here", "there"], r"here is no trace: it has no manifest.json"),
    (["show"], r"show takes an example first"),
    (["run", "mnist_rnn", "--data", "mnist", "--data-dir", "nowhere"], r"nowhere"),
    (["run", "zero_grad", "--json", "no/such/folder/file.json"], r"no/such/folder/file.json"),
    (["list", "--json", "no/such/folder/file.json"], r"no/such/folder/file.json"),
]


@pytest.mark.parametrize(("arguments", "says"), BAD, ids=[" ".join(a)[:50] for a, _ in BAD])
def test_bad_input_is_one_line_and_exit_code_2(
    arguments: list[str],
    says: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if "gpu" in arguments:
        import torch

        if torch.cuda.is_available():
            pytest.skip("there is a GPU here, and it is no bad input")
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("twinstep: error: ")
    assert error.count("\n") == 1
    assert re.search(says, error)
    assert not list(tmp_path.iterdir()), "nothing half-written is left"


def test_output_that_cannot_be_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "file"
    file.write_text("mine")
    assert main(["run", "zero_grad", "--out", str(file)]) == 2
    assert "cannot be written" in capsys.readouterr().err
    assert file.read_text() == "mine"
    assert main(["run", "zero_grad", "--framework", "jax", "--out", str(tmp_path / "out")]) == 0
    assert main(["run", "zero_grad", "--framework", "jax", "--out", str(tmp_path / "out")]) == 2
    assert "is not empty" in capsys.readouterr().err


def test_help_imports_neither_framework() -> None:
    code = (
        "import sys; from twinstep.cli import main; main(['--help']);"
        "sys.exit(len({'torch', 'jax', 'rich'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "verify [EXAMPLE ...]" in done.stdout


WITHOUT_TORCH = """
import sys

class Without:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "torch":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Without())
from twinstep.cli import main
print(main(["run", "zero_grad", "--framework", "jax"]), main(["run", "zero_grad"]))
"""


def test_the_jax_side_runs_where_pytorch_is_not_installed() -> None:
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH], capture_output=True, text=True, check=True
    )
    assert "Epoch 5, Loss: " in done.stdout
    assert done.stdout.splitlines()[-1] == "0 2"
    says = 'framework torch needs torch, not installed: pip install "twinstep[torch]"'
    assert done.stderr == f"twinstep: error: {says}\n"


@pytest.mark.parametrize("command", ["list", "run zero_grad", "verify", "verify zero_grad"])
def test_help_of_a_command(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main([*command.split(), "--help"])
    assert stop.value.code == 0
    printed = capsys.readouterr().out
    assert "--json" in printed
    if "zero_grad" in command:
        assert "--learning-rate" in printed
        assert "SGD's step size" in printed


def test_list_names_every_example(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list"]) == 0
    printed = capsys.readouterr().out
    assert all(name in printed for name in EXAMPLES)
    assert main(["list", "--json", "-"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert [row["example"] for row in listed["examples"]] == [*EXAMPLES]
    assert [(row["set"], row["rows"]) for row in listed["sets"]] == [
        (name, len(make())) for name, make in SETS.items()
    ]
    above, below = printed.split("\nsets of many small trainings, for verify:\n")
    assert not [name for name in SETS if name in above]
    assert all(name in below for name in SETS)


def test_run_prints_the_documents_lines(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "linear_regression", "--steps", "20"]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].startswith("== torch")
    assert re.fullmatch(r"Epoch \[10/20\], Loss: \d+\.\d{4}", printed[1])
    assert printed[1:3] == printed[4:6], "both frameworks print the same"


def test_run_writes_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "zero_grad", "--framework", "jax", "--json", "-"]) == 0
    value = json.loads(capsys.readouterr().out)
    trace = twinstep.run(EXAMPLES["zero_grad"](), framework="jax", rounding_noise=False)
    assert value["jax"]["losses"] == trace.losses.tolist()
    assert value["jax"]["params"]["2.bias"] == trace.params["2.bias"][-1].tolist()


def test_a_loss_that_is_no_number_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["linear_regression", "--learning-rate", "1e200", "--dtype", "float64"]
    with np.errstate(all="ignore"):
        assert main(["run", *arguments, "--framework", "torch", "--json", "-"]) == 1
    printed = capsys.readouterr()
    assert re.search(r"step \d+: the loss is (inf|nan)", printed.err)
    json.loads(printed.out, parse_constant=pytest.fail)
    assert main(["verify", *arguments]) == 1
    assert re.search(r"invalid.*\n(.*\n)*.*step \d+: .* is (inf|nan)", capsys.readouterr().out)


def test_verify_and_compare(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "traces"
    report = tmp_path / "report.json"
    arguments = ["verify", "zero_grad", "--out", str(out), "--json", str(report)]
    assert main(arguments) == 0
    printed = capsys.readouterr().out
    assert "2 verified" in printed
    value = json.loads(report.read_text())
    assert value["same"]
    assert [result["spec"]["dtype"] for result in value["results"]] == ["float64", "float32"]

    folder = out / "zero_grad" / "float64"
    assert main(["compare", str(folder / "torch"), str(folder / "jax")]) == 0
    assert "rounding" in capsys.readouterr().out
    other = out / "zero_grad" / "float32" / "jax"
    assert main(["compare", str(folder / "torch"), str(other)]) == 2
    assert "different settings: dtype" in capsys.readouterr().err

    faulty = twinstep.load_trace(folder / "jax")
    faulty.params["2.bias"][3] += 1e-12
    faulty.save(tmp_path / "faulty")
    assert main(["compare", str(folder / "torch"), str(tmp_path / "faulty")]) == 1
    assert re.search(r"mismatch: step 3, params, 2\.bias\[0\]", capsys.readouterr().out)
    both = [str(folder / "torch"), str(tmp_path / "faulty")]
    assert main(["compare", *both, "--steps", "2"]) == 0
    assert main(["compare", *both, "--steps", "6"]) == 2


def test_several_examples_in_two_processes(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["chain_rule", "linear_regression", "--dtype", "float64", "--steps", "3"]
    assert main(["verify", *arguments, "--jobs", "2", "--json", "-"]) == 0
    results = json.loads(capsys.readouterr().out)["results"]
    assert [result["example"] for result in results] == ["chain_rule", "linear_regression"]
    assert [result["steps"] for result in results] == [3, 3]


def test_a_mismatch_is_exit_code_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import optax

    sgd = optax.sgd
    monkeypatch.setattr(optax, "sgd", lambda lr: sgd(lr * (1 + 1e-9)))
    assert main(["verify", "zero_grad", "--dtype", "float64"]) == 1
    says = r"mismatch step 1, params, .+: torch \S+, jax \S+, apart \S+, allowed \S+\n"
    assert re.search(says, capsys.readouterr().out)
