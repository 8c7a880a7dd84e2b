"""What is bad input is said in one line, before a framework is loaded: of every command's flags,
names and outputs, and of what Python is given.
"""

import os
import socket
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from helpers.commands import Said, one_by_one, python, refusal, without
from helpers.synthetic_traces import made, refused

import twinstep
from twinstep import memory
from twinstep.device_config import DeviceConfig
from twinstep.problems import EXAMPLES
from twinstep.problems.closures import ClosureTraining
from twinstep.problems.mnist_rnn import MnistRnn
from twinstep.problems.optimizers import OptimizerTraining
from twinstep.problems.sgd import SgdLinearModel

HUGE = str(10**18)
TRAIN = ("run zero_grad", "verify zero_grad", "verify zero_grad chain_rule")

# command line -> what its one line says; {blank} stands for an empty name, a|b for either word
TABLE = {
    # names that are not known, and what is near
    "frobnicate": "unknown command 'frobnicate': expected one of list, run, verify, describe",
    "verfy": "unknown command 'verfy': did you mean verify?",
    "run liner_regression": "unknown example 'liner_regression': did you mean linear_regression",
    "show zer_grad": "unknown example 'zer_grad': did you mean zero_grad or ",
    "bench mnist_rn": "unknown example 'mnist_rn': did you mean mnist_rnn",
    "verify optimisers": "unknown example 'optimisers': did you mean optimizers?",
    "verify zero_grad zero_gard": "unknown example 'zero_gard': did you mean zero_grad or ",
    "run zero_grad --device gpus": "unknown device 'gpus': did you mean gpu?",
    "verify --dtype flaot32": "unknown dtype 'flaot32': did you mean float32?",
    "run zero_grad --dtype float46": "unknown dtype 'float46': did you mean float64 or float32?",
    "run mnist_rnn --dtype folat64": "unknown dtype 'folat64': did you mean float64?",
    "verify --precision hihgest": "unknown precision 'hihgest': did you mean highest?",
    "run zero_grad --framework jaxx": "unknown framework 'jaxx': did you mean jax?",
    "bench --cores bth": "unknown cores 'bth': did you mean both?",
    "run mnist_rnn --data mnits": "unknown data 'mnits': did you mean mnist?",
    "run zero_grad --lerning-rate 1": "unknown flag '--lerning-rate': did you mean --learning-rate",
    "show zero_grad --dif": "unknown flag '--dif': did you mean --diff or ",
    "list --jsn -": "unknown flag '--jsn': did you mean --json?",
    "compare a b --stps 1": "unknown flag '--stps': did you mean --steps?",
    "verify --reprot x.html": "unknown flag '--reprot': did you mean --report",
    "--prnt-completion bash": "unknown flag '--prnt-completion': did you mean --print-completion",
    "--print-completion bsh": "unknown shell 'bsh': did you mean bash",
    "verify --xyzzy": "unknown flag '--xyzzy' (see twinstep verify --help)",
    "run zero_grad --framework keras": "unknown framework 'keras': expected one of both, jax",
    "bench --cores two": "unknown cores 'two': expected one of one, all, both",
    "run|bench zero_grad --dtype int8": "unknown dtype 'int8': expected one of float32, float64",
    "verify|bench --dtype int8": "unknown dtype 'int8': expected one of float32, float64",
    # words that lack, or stand where none is expected
    "run": "run takes an example first",
    "show": "show takes an example first",
    "compare one": "compare takes two trace folders, 1 given",
    "compare here there": "here is no trace: it has no manifest.json",
    "--print-completion": "--print-completion takes SHELL, of bash, zsh",
    "--write-completion bash": "--write-completion takes SHELL FILE",
    "run optimizers": "optimizers is a set of many trainings: twinstep verify optimizers",
    "verify --seed 1 zero_grad": "'zero_grad' is not expected there: names come first",
    "show zero_grad adam_update": "'adam_update' is not expected there",
    "show zero_grad --diff=maybe": "--diff/--no-diff: takes no argument 'maybe'",
    "run zero_grad --learning-rate fast": "--learning-rate: 'fast' is no number",
    "verify --epochs|--learning-rate 1": " is a flag of single examples",
    # ranges
    **{
        f"{train} --{flag} {n}": f"{flag} is {n}, expected at least 1"
        for train in TRAIN
        for flag in ("threads", "devices", "steps")
        for n in (0, -1)
    },
    **{f"{train} --threads {10**9}": f"threads is {10**9}" for train in TRAIN},
    **{f"{train} --devices {10**6}": f"devices is {10**6}" for train in TRAIN},
    **{f"{train} --steps {HUGE}": f"steps is {HUGE}" for train in TRAIN},
    **{f"{train} --seed {n}": f"seed is {n}" for train in TRAIN for n in (2**64, -(2**63) - 1)},
    "verify --steps 0": "steps is 0, expected at least 1",
    "run zero_grad --devices 4000": "devices is 4000: as many PyTorch processes need",
    "run zero_grad --framework jax --threads 2": "threads is 2: PyTorch's",
    **{f"verify zero_grad --jobs {n}": f"jobs is {n}, expected at" for n in (0, -1, 10**9)},
    "verify --jobs 28": "jobs is 28: they need about 28 GiB",
    "run zero_grad --epochs 0": "epochs is 0, expected at least 1",
    f"run zero_grad --epochs {HUGE}": "epochs is",
    "run sgd_single_sample --epochs 10000000": "which makes 1000000000 steps",
    **{f"run sgd_linear_model --data-seed {n}": f"data_seed is {n}" for n in (-1, 2**32)},
    "run zero_grad --learning-rate=-1": "zero_grad: learning_rate is -1.0, expected 0 or more",
    "run zero_grad --learning-rate 1e39": "the largest float32",
    **{f"run zero_grad --learning-rate {n}": "learning_rate is inf" for n in ("1e999", "inf")},
    "run zero_grad --learning-rate nan": "zero_grad: learning_rate is nan",
    "run adam_update --eps=-1": "eps is -1.0",
    "run adam_update --eps nan": "eps is nan",
    "run adam_update --betas 0.9 1": "betas is (0.9, 1.0), expected two numbers",
    "run adam_update --betas -0.1 0.9": "--betas: expected 2 arguments",
    "run chain_rule --x inf": "x is inf",
    "run mnist_rnn --batch-size 0": "batch_size is 0",
    f"run mnist_rnn --batch-size {2**63}": "batch_size is",
    "run mnist_rnn --log-every 0": "log_every is 0",
    "run mnist_rnn --hidden-size 0": "hidden_size is 0",
    "run|verify|bench mnist_rnn --hidden-size 99999999999": "hidden_size is 99999999999",
    **{f"bench zero_grad --repeats {n}": f"repeats is {n}, expected" for n in (0, -1, 10**9)},
    "bench zero_grad --limit 0|nan|inf|1e9": "limit is",
    **{f"bench --limit {n}": f"limit is {n}, expected" for n in ("0.0", "nan")},
    f"bench zero_grad --steps {HUGE}": "steps is",
    **{f"bench --steps {n}": f"steps is {n}" for n in (0, HUGE)},
    "compare trace trace --steps 0": "steps is 0, expected at least 1",
    f"compare trace trace --steps {HUGE}": "steps is",
    # what does not go with another flag
    "verify |zero_grad --precision default --dtype float64": "but float64 has no fast mode",
    "run|verify mnist_rnn --data-dir .": "data_dir is '.', but data is 'digits'",
    "run|verify|bench mnist_rnn --data mnist --data-dir nowhere": "--data-dir is 'nowhere', ex",
    "run mnist_rnn --devices 2 --data mnist --data-dir nowhere": "--data-dir is 'nowhere'",
    "verify mnist_rnn --data mnist --data-dir {blank}": "data_dir is",
    "verify zero_grad chain_rule --row Adam": "row is 'Adam', but no set of rows",
    # what is no name, or no file
    "compare {blank} trace": "trace folder is",
    "compare trace {blank}": "trace folder is",
    "verify optimizers --row {blank}": "row is",
    "compare trace trace --json {blank}": "json is",
    "list --json {blank}": "json is",
    "run|verify|bench zero_grad --json {blank}": "json is",
    "run|verify zero_grad --out {blank}": "out is",
    "verify zero_grad --report {blank}": "report is",
    "bench zero_grad --plot {blank}": "plot is",
    "list --json no/such/a.json": "no/such/a.json cannot be written",
    "run|verify|bench zero_grad --json no/such/a.json": "no/such/a.json cannot be written",
    "verify zero_grad --report no/such/a.html": "no/such/a.html cannot be written",
    "bench zero_grad --plot no/such/a.svg": "no/such/a.svg cannot be written",
    "verify zero_grad --json|--report .|file/page.html": " cannot be written: ",
    "bench zero_grad --json .": ". cannot be written: it is a folder",
    "bench zero_grad --plot file.doc": "'file.doc', expected a name that ends in .png or .svg",
    "verify zero_grad --report -": "report is '-', expected a file",
    "verify zero_grad --json folder": "it is a folder",
    "verify zero_grad --json socket": "it is a socket",
    f"verify zero_grad --json {'n' * 300}": "too long",
    "run|verify zero_grad --out file": "cannot be written",
    "verify zero_grad --out file/below": "cannot be written",
    "run zero_grad --out dangling": "dangling is no folder",
    # what was there before: folders of any dtype and framework
    "run zero_grad --out used": "torch is not empty",
    "run zero_grad --framework jax --out used": "jax is not empty",
    "verify |chain_rule zero_grad --out used": "float32/jax is not empty",
    "verify zero_grad zero_grad --out new": "two traces would go to",
    # one file for two outputs
    "verify zero_grad --json a --report a|./a|folder/../a": "json and report name one file",
    "verify zero_grad --json file --report link|hard": "json and report name one file",
    "bench zero_grad --json a.svg --plot a.svg": "json and plot name one file",
    "run zero_grad --out a --json a": "where out puts the trace",
    "run zero_grad --out folder --json folder/torch": "where out puts the trace",
    "verify zero_grad --out a/b --json a": "where out puts the trace",
    "verify zero_grad --out a --report ./a": "where out puts the trace",
    "compare trace trace --json trace/manifest.json": "which is in the trace",
    "compare trace trace --json to-trace/new.json": "which is in the trace",
}
BAD = {
    " ".join(filter(None, words)): says
    for line, says in TABLE.items()
    for words in product(*(word.split("|") for word in line.split()))
}

CALL = """
from twinstep import memory
from twinstep.cli import main as call

memory.available = lambda: 24 * 2**30
"""


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Said]:
    """What every command line says where no framework can be loaded."""
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
    lines = {
        line + blank: [blank if word == "{blank}" else word for word in line.split()]
        for line in BAD
        for blank in (("", "  ") if "{blank}" in line else ("",))
    }
    none = without("torch", "jax", "matplotlib", error="AssertionError")
    found, _ = one_by_one(none + CALL, lines, cwd=folder)
    assert sorted(folder.rglob("*")) == before, "nothing is left behind"
    assert (folder / "file").read_text() == "mine"
    return found


@pytest.mark.parametrize("line", BAD)
def test_a_flag_is_refused_in_one_line_before_anything_is_loaded(
    said: dict[str, Said], line: str
) -> None:
    assert BAD[line] in said[line].refusal()
    assert BAD[line] in said.get(f"{line}  ", said[line]).refusal()  # a name of spaces


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
    variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, "  ")
    line = refusal("run", "mnist_rnn", "--data", "mnist", "--framework", "jax")
    assert f"{variable} is '  ', expected a" in line


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
    said = python("-c", code, env={"OPENBLAS_NUM_THREADS": "1"}).well()
    assert int(said) == limit
