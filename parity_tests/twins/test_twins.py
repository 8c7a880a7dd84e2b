"""Each twin is a program of one file: run as such it does what its document does, and no more.

PyTorch's programs print what the document's own code prints under the same seed, to the bit; JAX's
the same lines, up to the last printed digit. Their data and first parameters are the spec's, and
the loop in sight leaves what the driver's compiled scan leaves.
"""

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import jax
import numpy as np
import pytest
import torch
from flax import nnx
from helpers.commands import ROOT, Said, one_by_one, python
from helpers.document_code import CASES, MNIST_RNN, Case, run_document, torchvision
from helpers.printed import EXACT, NUMBER, logged, said_alike, unlike

import twinstep
from twinstep.jax.layout import module_layout
from twinstep.judge import tolerance
from twinstep.problems import EXAMPLES, Spec
from twinstep.problems.datasets import load_digits
from twinstep.problems.torch_loader import TorchDataLoader
from twinstep.problems.torch_random import TorchGenerator
from twinstep.runs import launch
from twinstep.trace.stages import STAGES

SIDES = {"torch": ("torch", "torchvision"), "jax": ("jax", "jaxlib", "flax", "optax")}
RUNS = {"float64": 3, "float32": 0}  # dtype: seed
EPOCHS = {"mnist_rnn": 1}  # of ten: its first lines are enough

_RNN_CODE = MNIST_RNN.replace("epochs = 10", "epochs = 1").replace("% 100 ==", "% 24 ==")
DOCUMENTS = {
    **{case.example: case for case in CASES},
    "mnist_rnn": Case("mnist_rnn", _RNN_CODE.replace("the 10000 test", "the 297 test")),
}

# one process runs the programs one after the other, each as if it were alone
CALL = """
import runpy, sys

def call(words):
    sys.argv = words
    runpy.run_path(words[0], run_name="__main__")
    return 0
"""


def environment() -> dict[str, str]:
    """One thread for PyTorch, by which sums are grouped; and the tests' compiled programs."""
    return {
        "JAX_COMPILATION_CACHE_DIR": str(Path(os.environ["TWINSTEP_CACHE"]) / "compiled"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.1",
        "OMP_NUM_THREADS": "1",
    }


def run_all(side: str) -> tuple[dict[str, Said], set[str]]:
    """Runs a framework's programs in one process: {command line: what it said}, loaded modules."""
    lines = [command(side, name, dtype) for name in EXAMPLES for dtype in RUNS]
    lines += [f"{side}_impl/{name}.py {bad}" for name in EXAMPLES for bad in BAD]
    words = {line: line.split() for line in lines}
    return one_by_one(CALL, words, "-W", "error", cwd=ROOT, env=environment())


def command(side: str, name: str, dtype: str) -> str:
    epochs = f" --epochs {EPOCHS[name]}" if name in EPOCHS else ""
    return f"{side}_impl/{name}.py --dtype {dtype} --seed {RUNS[dtype]}{epochs}"


BAD = {
    "--nonsense 1": "unknown flag '--nonsense'",
    "--seed one": "'one' is no whole number",
    "--epochs 0": "epochs is 0, expected at least 1",
    "--steps 3": "unknown flag '--steps': did you mean --e",  # of its own flags
    "more": "'more' is not expected there",
}


@pytest.fixture(scope="module")
def ran() -> dict[str, tuple[dict[str, Said], set[str]]]:
    """What each framework's programs said, and what they had loaded in the end."""
    return {side: run_all(side) for side in SIDES}


def lines_of(ran: Any, side: str, name: str, dtype: str) -> list[str]:
    """The lines that a program printed, having ended well."""
    said: Said = ran[side][0][command(side, name, dtype)]
    return said.well().splitlines()


def spec_of(name: str, dtype: Any) -> Spec:
    fields: dict[str, Any] = {"epochs": EPOCHS[name]} if name in EPOCHS else {}
    return EXAMPLES[name](dtype=dtype, seed=RUNS[dtype], **fields)


@pytest.mark.parametrize("dtype", RUNS)
@pytest.mark.parametrize("name", DOCUMENTS)
def test_pytorch_prints_what_the_document_prints(
    ran: Any, name: str, dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torchvision", torchvision(load_digits()))
    document = run_document(DOCUMENTS[name].text(dtype), RUNS[dtype], dtype)
    lines = lines_of(ran, "torch", name, dtype)
    if name == "backpropagation":  # whose document prints the loss alone
        lines = [line for line in lines if ".grad" not in line]
    if not DOCUMENTS[name].prints:
        assert document.lines == []
        document = document._replace(lines=[f"Loss: {loss}" for loss in document.losses])
    assert lines == document.lines
    assert lines


@pytest.mark.parametrize("dtype", RUNS)
def test_jax_prints_the_same_lines(ran: Any, name: str, dtype: str) -> None:
    theirs, mine = (lines_of(ran, side, name, dtype) for side in SIDES)
    assert theirs
    if name == "mnist_rnn":  # chaotic: of float64 the first line, of float32 the form
        assert [NUMBER.sub("#", one) for one in theirs] == [NUMBER.sub("#", one) for one in mine]
        assert theirs[0] == mine[0] or dtype == "float32"
        return
    bound = tolerance.PLAIN_EPS + tolerance.PLAIN_EPS_A_STEP * spec_of(name, dtype).total_steps
    assert unlike(theirs, mine, EXACT if dtype == "float64" else bound * tolerance.eps(dtype)) == []


@pytest.mark.parametrize("side", SIDES)
def test_the_lines_are_those_of_the_command(ran: Any, side: str, name: str) -> None:
    """`twinstep run` prints them too; what only one of them prints are figures of other forms."""
    spec = spec_of(name, "float64")
    trace = twinstep.run(spec, framework=side, rounding_noise=False)
    expected = logged(spec, trace.losses.tolist())
    lines = lines_of(ran, side, name, "float64")[: len(expected)]
    if name == "mnist_rnn":
        assert lines == expected or (side, len(lines)) == ("jax", len(expected))
    else:
        assert unlike(lines, expected, EXACT) == []


ALIKE = "Epoch [10/100], Loss: 4.6310"


@pytest.mark.parametrize(
    ("line", "relative", "alike"),
    [
        (ALIKE, EXACT, True),
        ("Epoch [10/100], Loss: 4.6311", 1e-6, True),
        ("Epoch [10/100], Loss: 4.6311", EXACT, False),
        ("Epoch [10/100], Loss: 4.6312", 1e-6, False),
        ("Epoch [10/100], Loss: 14.6310", 1e-4, False),
        ("Epoch [11/100], Loss: 4.6310", 1e-6, False),
        ("Epoch [10/100], loss: 4.6310", 1e-6, False),
        ("Epoch [10/100], Loss: nan", 1e-6, False),
    ],
)
def test_another_line_is_noticed(line: str, relative: float, alike: bool) -> None:
    assert said_alike(ALIKE, line, relative) is alike
    assert (unlike([ALIKE, ALIKE], [ALIKE, line], relative) == []) is alike
    assert unlike([ALIKE, ALIKE], [ALIKE], relative) == [f"{ALIKE}\nnothing"]


@pytest.mark.parametrize("side", SIDES)
def test_a_program_by_itself_says_the_same(ran: Any, side: str, tmp_path: Path) -> None:
    """From wherever it is started, and with nothing of the other framework."""
    file, *words = command(side, "linear_regression", "float32").split()
    said = python(ROOT / file, *words, cwd=tmp_path, env=environment()).well()
    assert said.splitlines() == lines_of(ran, side, "linear_regression", "float32")


@pytest.mark.parametrize("side", SIDES)
def test_no_program_loads_the_other_framework(ran: Any, side: str) -> None:
    loaded = {module.partition(".")[0] for module in ran[side][1]}
    (other,) = SIDES.keys() - {side}
    assert loaded & {*SIDES[side]} >= {side}
    assert loaded & {*SIDES[other], f"{other}_impl"} == set()
    assert {module for module in ran[side][1] if module.startswith(f"twinstep.{other}")} == set()


@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("side", SIDES)
def test_a_bad_flag_is_one_line(ran: Any, side: str, name: str, bad: str) -> None:
    assert BAD[bad] in ran[side][0][f"{side}_impl/{name}.py {bad}"].refusal(name)


@pytest.mark.parametrize("side", SIDES)
def test_help_names_every_flag_of_the_problem(side: str) -> None:
    text = python(ROOT / f"{side}_impl" / "adam_update.py", "--help", env=environment()).well()
    flags = ("seed", "dtype", "epochs", "learning-rate", "betas", "eps")
    assert [flag for flag in flags if f"  --{flag} " not in text] == []


def given(twin: ModuleType, name: str, dtype: str) -> dict[str, Any]:
    """What a program hands to its loop, and to its test where it has one; it is not trained."""
    found: dict[str, Any] = {}

    def train(model: Any, criterion: Any, optimizer: Any, batches: Any) -> Any:
        (epoch,) = {id(epoch): epoch for epoch in batches}.values()  # the same one each time
        if isinstance(model, torch.nn.Module):
            named: Mapping[str, Any] = {n: t.detach() for n, t in model.state_dict().items()}
            found["data"] = epoch if isinstance(epoch, tuple) else epoch.dataset.tensors
        else:
            params = nnx.to_pure_dict(nnx.state(model, nnx.Param))
            named = module_layout(model).to_torch(params)
            found["data"] = epoch if isinstance(epoch, tuple) else epoch.dataset
        found["params"] = {name: np.asarray(array).copy() for name, array in named.items()}
        if not hasattr(twin, "evaluate"):
            raise InterruptedError
        return None if isinstance(model, torch.nn.Module) else (params, None)

    def evaluate(model: Any, images: Any, labels: Any) -> Any:
        found["tested"] = images, labels
        raise InterruptedError

    x64 = jax.config.read("jax_enable_x64")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", command("either", name, dtype).split())
        patch.setattr(twin, "train", train)
        if hasattr(twin, "evaluate"):
            patch.setattr(twin, "evaluate", evaluate)
        try:
            with pytest.raises(InterruptedError):
                twin.main()
        finally:
            jax.config.update("jax_enable_x64", x64)
    return found


def same_bits(one: np.ndarray, other: np.ndarray) -> bool:
    """Whether two arrays are the same; of whole numbers JAX may hold 32 bits for 64."""
    if one.dtype.kind == other.dtype.kind == "i":
        return np.array_equal(one, other)
    alike = (one.dtype, one.shape) == (other.dtype, other.shape)
    return alike and one.tobytes() == other.tobytes()


@pytest.mark.parametrize("dtype", RUNS)
@pytest.mark.parametrize("side", SIDES)
def test_it_starts_from_the_problem_s_own_numbers(side: str, name: str, dtype: str) -> None:
    spec = spec_of(name, dtype)
    found = given(launch.example(side, spec), name, dtype)
    params, expected = found["params"], spec.batches().data
    data = {n: np.asarray(a) for n, a in zip(expected, found["data"], strict=True)}
    for one, other in zip(found.get("tested", ()), spec.test_set() or (), strict=True):
        assert same_bits(np.asarray(one), other)
    assert params.keys() == spec.initial_params().keys()
    for leaf, array in spec.initial_params().items():
        assert same_bits(params[leaf], array), leaf
    if side == "torch" and name.startswith("linear_regression"):
        # torch.linspace's last bit depends on the processor's vector width
        x, y = (np.abs(data[n] - expected[n]) for n in ("x", "y"))
        assert np.all(x <= np.spacing(expected["x"]))
        line = 2 * expected["x"] + 1  # which is rounded, and then the noise added to it
        assert np.all(y <= 2 * x + np.spacing(line) + np.spacing(np.abs(expected["y"])))
        data = {n: np.where(x > 0, expected[n], array) for n, array in data.items()}
    for leaf, array in expected.items():
        assert same_bits(data[leaf], array), leaf


def epochs_of(spec: Spec, data: dict[str, jax.Array]) -> list[Any]:
    """What a twin's loop is given: an epoch's one batch, or what gives its batches."""
    batches = spec.batches()
    arrays: tuple[Any, ...] = tuple(data.values())
    if batches.batch_size is None:
        return [arrays] * spec.total_steps
    generator = TorchGenerator(spec.seed)
    spec.draw_params(generator)
    loader = TorchDataLoader(
        arrays, batches.batch_size, shuffle=batches.shuffle, default_generator=generator
    )
    return [loader] * spec.epochs


ANOTHER_COURSE = {"parameter_groups", "mnist_rnn"}


@pytest.mark.parametrize("dtype", RUNS)
def test_the_loop_in_sight_leaves_what_the_scan_leaves(name: str, dtype: str) -> None:
    """Bit for bit: the scan's body is the very step that the loop calls, and rounds alike on a CPU.

    Within a scan XLA fuses a network that reads sequences in another way; there it may differ by
    what rounding does to this very run, which is measured on it.
    """
    spec = spec_of(name, dtype)
    measured, lines = name in ANOTHER_COURSE, list[str]()
    trace = twinstep.run(spec, framework="jax", rounding_noise=measured)
    driver = launch.driver("jax", spec)
    with driver.settings():
        built, data = driver.example.build(spec), driver.data
        state = driver.example.train(*built, epochs_of(spec, data), log=lines.append)
        params = module_layout(built[0]).to_torch(state[0])
    expected = logged(spec, trace.losses.tolist())
    if name == "mnist_rnn":
        expected, lines = ([NUMBER.sub("#", line) for line in said] for said in (expected, lines))
    assert lines == expected
    for leaf, array in trace.params.items():
        if not measured:
            assert same_bits(np.asarray(params[leaf]), array[-1]), leaf
            continue
        assert trace.rounding_noise is not None
        one_step = STAGES["params"].one_step * tolerance.eps(dtype) * np.max(np.abs(array[-2:]))
        carried = tolerance.ROUNDING_NOISE_FACTOR * np.max(trace.rounding_noise[f"params/{leaf}"])
        assert np.max(np.abs(np.asarray(params[leaf]) - array[-1])) <= carried + one_step, leaf
