"""Every flag is checked before a framework is loaded: range, name, and what it would overwrite."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from helpers.storing import HERE
from helpers.synthetic_traces import made, refused

import twinstep
from twinstep import cli, memory
from twinstep.device_config import DeviceConfig
from twinstep.problems import EXAMPLES
from twinstep.problems.closures import ClosureTraining
from twinstep.problems.mnist_rnn import MnistRnn
from twinstep.problems.optimizers import OptimizerTraining
from twinstep.problems.sgd import SgdLinearModel

# ------------------------------------------------------------------------- of the command line

HUGE = str(10**18)
TRAIN = ("run zero_grad", "verify zero_grad", "verify zero_grad chain_rule")

# command line -> what its one line says; {blank} stands for an empty name
BAD = {
    **{f"{train} --threads {n}": "threads is" for train in TRAIN for n in (0, -1, 10**9)},
    **{f"{train} --devices {n}": "devices is" for train in TRAIN for n in (0, -1, 10**6)},
    "run zero_grad --devices 4000": "devices is 4000: as many PyTorch processes need",
    "run zero_grad --framework jax --threads 2": "threads is 2: PyTorch's",
    **{f"verify zero_grad --jobs {n}": "jobs is" for n in (0, -1, 10**9)},
    "verify --jobs 28": "jobs is 28: they need about 28 GiB",
    **{f"{train} --steps {n}": "steps is" for train in TRAIN for n in (0, -1, 10**18)},
    **{f"{train} --seed {n}": "seed is" for train in TRAIN for n in (2**64, -(2**63) - 1)},
    "run zero_grad --epochs 0": "epochs is 0, expected at least 1",
    f"run zero_grad --epochs {HUGE}": "epochs is",
    "run sgd_single_sample --epochs 10000000": "which makes 1000000000 steps",
    f"run sgd_linear_model --data-seed {2**32}": "data_seed is",
    "run zero_grad --learning-rate=-1": "learning_rate is -1.0",
    "run zero_grad --learning-rate 1e39": "the largest float32",
    "run zero_grad --learning-rate 1e999": "learning_rate is inf",
    "run adam_update --eps=-1": "eps is -1.0",
    "run adam_update --eps nan": "eps is nan",
    "run adam_update --betas 0.9 1": "betas is",
    "run adam_update --betas -0.1 0.9": "",
    "run chain_rule --x inf": "x is inf",
    "run mnist_rnn --batch-size 0": "batch_size is 0",
    f"run mnist_rnn --batch-size {2**63}": "batch_size is",
    "run mnist_rnn --log-every 0": "log_every is 0",
    "run mnist_rnn --hidden-size 0": "hidden_size is 0",
    "run mnist_rnn --hidden-size 99999999999": "hidden_size is 99999999999",
    "verify mnist_rnn --hidden-size 99999999999": "hidden_size is 99999999999",
    "bench mnist_rnn --hidden-size 99999999999": "hidden_size is 99999999999",
    "run mnist_rnn --data-dir .": "data_dir is '.', but data is 'digits'",
    "verify mnist_rnn --data-dir .": "data_dir is '.', but data is 'digits'",
    "verify mnist_rnn --data mnist --data-dir nowhere": "nowhere",
    "verify mnist_rnn --data mnist --data-dir {blank}": "data_dir is",
    **{f"bench zero_grad --repeats {n}": "repeats is" for n in (0, -1, 10**9)},
    **{f"bench zero_grad --limit {n}": "limit is" for n in ("0", "nan", "inf", "1e9")},
    f"bench zero_grad --steps {HUGE}": "steps is",
    f"bench --steps {HUGE}": "steps is",
    "compare trace trace --steps 0": "steps is 0, expected at least 1",
    f"compare trace trace --steps {HUGE}": "steps is",
    "compare {blank} trace": "trace folder is",
    "compare trace {blank}": "trace folder is",
    "verify zero_grad chain_rule --row Adam": "row is 'Adam', but no set of rows",
    "verify optimizers --row {blank}": "row is",
    # what is no name, or no file
    **{
        f"{command} {flag} {{blank}}": f"{flag.removeprefix('--')} is"
        for command, flags in {
            "list": "--json",
            "compare trace trace": "--json",
            "run zero_grad": "--json --out",
            "verify zero_grad": "--json --out --report",
            "bench zero_grad": "--json --plot",
        }.items()
        for flag in flags.split()
    },
    "verify zero_grad --report -": "report is '-', expected a file",
    "verify zero_grad --json folder": "it is a folder",
    "verify zero_grad --json socket": "it is a socket",
    f"verify zero_grad --json {'n' * 300}": "too long",
    "verify zero_grad --out file": "cannot be written",
    "verify zero_grad --out file/below": "cannot be written",
    "run zero_grad --out dangling": "dangling is no folder",
    # what was there before: folders of any dtype and framework
    "run zero_grad --out used": "torch is not empty",
    "run zero_grad --framework jax --out used": "jax is not empty",
    "verify zero_grad --out used": "float32/jax is not empty",
    "verify chain_rule zero_grad --out used": "float32/jax is not empty",
    "verify zero_grad zero_grad --out new": "two traces would go to",
    # one file for two outputs
    "verify zero_grad --json a --report a": "json and report name one file",
    "verify zero_grad --json a --report ./a": "json and report name one file",
    "verify zero_grad --json a --report folder/../a": "json and report name one file",
    "verify zero_grad --json file --report link": "json and report name one file",
    "verify zero_grad --json file --report hard": "json and report name one file",
    "bench zero_grad --json a.svg --plot a.svg": "json and plot name one file",
    "run zero_grad --out a --json a": "where out puts the trace",
    "run zero_grad --out folder --json folder/torch": "where out puts the trace",
    "verify zero_grad --out a/b --json a": "where out puts the trace",
    "verify zero_grad --out a --report ./a": "where out puts the trace",
    "compare trace trace --json trace/manifest.json": "which is in the trace",
    "compare trace trace --json to-trace/new.json": "which is in the trace",
}

RUNNER = """
import json, sys

class Without:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "jax", "matplotlib"):
            raise AssertionError(f"{name} is imported")

sys.meta_path.insert(0, Without())
import contextlib, io
from twinstep import memory
from twinstep.cli import main

memory.available = lambda: 24 * 2**30
found = {}
for line, words in json.load(sys.stdin).items():
    out, error = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(error):
        try:
            code = main(words)
        except BaseException as failure:
            code = f"{type(failure).__name__}: {failure}"
    found[line] = code, out.getvalue(), error.getvalue()
print(json.dumps(found))
"""


def words_of(line: str, blank: str) -> list[str]:
    """The words of a command line, with a name that is none in its place."""
    return [blank if word == "{blank}" else word for word in line.split()]


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Any]]:
    """{command line: exit code, stdout, stderr} of all, where no framework can be loaded."""
    folder = tmp_path_factory.mktemp("bad")
    made().save(folder / "trace")
    (folder / "folder").mkdir()
    (folder / "file").write_text("mine")
    (folder / "link").symlink_to("file")
    os.link(folder / "file", folder / "hard")
    (folder / "dangling").symlink_to("nowhere")
    (folder / "to-trace").symlink_to("trace")
    for used in ("torch", "jax", "zero_grad/float32/jax"):
        (folder / "used" / used / "here").mkdir(parents=True)
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(os.path.relpath(folder / "socket"))
    before = sorted(folder.rglob("*"))
    lines = {line: words_of(line, "") for line in BAD}
    lines |= {f"{line} (spaces)": words_of(line, "  ") for line in BAD if "{blank}" in line}
    done = subprocess.run(
        [sys.executable, "-c", RUNNER],
        input=json.dumps(lines),
        capture_output=True,
        text=True,
        check=True,
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(HERE.parent)},
    )
    assert sorted(folder.rglob("*")) == before, "nothing is left behind"
    assert (folder / "file").read_text() == "mine"
    found: dict[str, list[Any]] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("line", BAD)
def test_a_flag_is_refused_in_one_line_before_anything_is_loaded(
    said: dict[str, list[Any]], line: str
) -> None:
    for one in (line, f"{line} (spaces)")[: 1 + ("{blank}" in line)]:
        code, out, error = said[one]
        assert code == 2, (code, error)
        assert out == ""
        assert error.startswith("twinstep: error: ")
        assert error.count("\n") == 1
        assert BAD[line] in error


# --------------------------------------------------------------------------------- in Python

FIELDS: dict[str, tuple[dict[str, Any], str]] = {
    "float of thousands of digits": ({"learning_rate": 10**5000}, "learning_rate is inf"),
    "int of thousands of digits": ({"seed": 10**5000}, "thousands of digits"),
    "true for a number": ({"learning_rate": True}, "a finite number"),
    "true for a count": ({"steps": True}, "a whole number"),
    "text for a number": ({"eps": "1e-8"}, "a finite number"),
    "no pair": ({"betas": 0.9}, "two numbers"),
    "text in a pair": ({"betas": ("0.9", 0.999)}, "two numbers"),
    "true in a pair": ({"betas": (True, 0.999)}, "two numbers"),
    "three": ({"betas": (0.9, 0.9, 0.9)}, "two numbers"),
    "a list for a word": ({"dtype": ["float32"]}, "unknown dtype ('float32',)"),
    "data_dir without mnist": ({"data_dir": "x"}, "data_dir is 'x', but data is 'digits'"),
    "data_dir blank": ({"data": "mnist", "data_dir": " "}, "expected a name"),
    "data_dir no text": ({"data": "mnist", "data_dir": 3}, "expected a name"),
    "too large": ({"hidden_size": 10**11}, "hidden_size is 100000000000"),
    "too large to count": ({"hidden_size": 2**63 - 1}, "to be had"),
}


@pytest.mark.parametrize(("fields", "says"), FIELDS.values(), ids=FIELDS)
def test_a_spec_refuses_what_it_cannot_be(fields: dict[str, Any], says: str) -> None:
    refused(lambda: MnistRnn(**fields), "mnist_rnn: ", says)


def test_what_is_at_the_bounds_is_taken() -> None:
    MnistRnn(seed=2**64 - 1, steps=10**8, epochs=10**8, batch_size=2**63 - 1)
    SgdLinearModel(seed=-(2**63), data_seed=2**32 - 1).initial_params()
    OptimizerTraining(optimizer="SGD", options={"lr": 0.1})
    ClosureTraining(options={"lr": 1})


@pytest.mark.parametrize("variable", ["TWINSTEP_CACHE", "TWINSTEP_DATA"])
def test_a_variable_that_is_a_blank_is_refused(
    variable: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(variable, "  ")
    assert cli.main(["run", "mnist_rnn", "--data", "mnist", "--framework", "jax"]) == 2
    assert f"{variable} is '  ', expected a" in capsys.readouterr().err


@pytest.mark.parametrize("devices", [0, 10**6, True, 1.0])
def test_a_place_has_its_bounds(devices: Any) -> None:
    refused(lambda: DeviceConfig(devices=devices), f"devices is {devices}")


def test_an_output_folder_that_is_none_is_refused_in_python(tmp_path: Path, stored: Path) -> None:
    spec = EXAMPLES["zero_grad"]()
    for blank in ("", "  ", "a\0b"):
        refused(lambda blank=blank: twinstep.verify(spec, out=blank), repr(blank))  # type: ignore[misc]
        refused(lambda blank=blank: made().save(blank), repr(blank))  # type: ignore[misc]
        refused(lambda blank=blank: twinstep.load_trace(blank), repr(blank))  # type: ignore[misc]
    (tmp_path / "out" / "jax" / "here").mkdir(parents=True)
    refused(lambda: twinstep.verify(spec, out=tmp_path / "out"), "jax is not empty")
    assert not (tmp_path / "out" / "torch").exists()


# ------------------------------------------------------------------------------------ memory


@pytest.mark.parametrize("name", EXAMPLES)
def test_sizes_are_known_without_drawing(name: str) -> None:
    spec = EXAMPLES[name]()
    parameters, step = spec.entries()
    assert (parameters > 0) == (step > 0) == bool(spec.sized_by)
    if parameters:
        assert parameters == sum(array.size for array in spec.initial_params().values())


def test_what_does_not_fit_is_said_with_both_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "available", lambda: 2**30)
    # 10,000 x 10,000 float32: 0.37 GiB, of which there are ten
    line = refused(lambda: MnistRnn(hidden_size=10_000, batch_size=7))
    assert line == (
        "mnist_rnn: hidden_size is 10000, batch_size is 7: training needs at least 3.7 GiB, the "
        "parameters alone 0.37 GiB; 1 GiB are to be had"
    )
    refused(lambda: MnistRnn(hidden_size=5000, dtype="float64"), "to be had")
    MnistRnn(hidden_size=5000)
    refused(lambda: twinstep.verify(MnistRnn(hidden_size=5000)), "verifying needs at least 3.8 GiB")


GROUPS = {
    "v2": ("0::/a/b", "a/b/memory.max", 1),
    "v2, above": ("0::/a/b", "a/memory.max", 1),
    "v2, in a container": ("0::/", "memory.max", 1),
    "v2, unlimited": ("0::/a", "a/memory.max", None),
    "v2, another group": ("0::/a", "b/memory.max", None),
    "v1": ("4:memory:/a", "memory/a/memory.limit_in_bytes", 1),
    "v1, with others": ("4:cpu,memory:/a", "memory/a/memory.limit_in_bytes", 1),
    "v1, above": ("4:memory:/a/b", "memory/memory.limit_in_bytes", 1),
    "no memory": ("4:cpu:/a", "memory/a/memory.limit_in_bytes", None),
    "none": (None, "memory.max", None),
}


@pytest.mark.parametrize("case", GROUPS)
def test_the_limit_of_a_group_counts(case: str, tmp_path: Path) -> None:
    line, file, found = GROUPS[case]
    root, listed = tmp_path / "cgroup", tmp_path / "self"
    (root / file).parent.mkdir(parents=True)
    (root / file).write_text("max\n" if "unlimited" in case else "1000\n")
    (root.parent / "memory.max").write_text("1\n")  # above the root: no group
    if line is not None:
        listed.write_text(f"1:name=systemd:/x\n{line}\n")
    assert list(memory._of_cgroups(listed, root)) == ([] if found is None else [1000])


def test_the_machine_and_the_process_have_a_limit() -> None:
    assert 2**28 < memory.available() < 2**50
    limit = 2**31
    code = (
        f"import resource; resource.setrlimit(resource.RLIMIT_AS, ({limit}, {limit})); "
        "from twinstep import memory; print(memory.available())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"OPENBLAS_NUM_THREADS": "1"},
    )
    assert int(done.stdout) == limit
