"""`twinstep bench`: every way trains the same, and one that does not has no figure.

No test asserts a speed. What is timed is a few steps, once.
"""

import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from faults.plants_anywhere import loss
from faults.plants_jax import jax_grads
from helpers.commands import command
from helpers.tasks import dies, fails, hangs

import twinstep.jax.variants
import twinstep.torch.variants
from twinstep import compare
from twinstep.bench import process, table
from twinstep.bench.parity import with_result
from twinstep.bench.process import Task, find, measured
from twinstep.bench.rows import Row
from twinstep.bench.timing import Spread
from twinstep.bench.training import Setting, call, training_rows
from twinstep.cli import main
from twinstep.problems import EXAMPLES, Spec
from twinstep.problems.regression import LinearRegression
from twinstep.runs import launch
from twinstep.trace.joining import concatenate
from twinstep.trace.variants import LABELS, TrainingResult

pytestmark = pytest.mark.quick_to_compile

ONCE = Setting(repeats=1)
VARIANTS = [variant for variant in LABELS if variant != "compile"]

SOON_COMPILED = {"linear_regression", "adam_update", "zero_grad", "sgd_single_sample"}
SMALL: dict[str, dict[str, Any]] = {"mnist_rnn": {"hidden_size": 4, "batch_size": 8}}


def all_variants(spec: Spec) -> dict[str, Any]:
    return launch.variants("torch", spec) | launch.variants("jax", spec)


def apart(variants: dict[str, Any], steps: int) -> list[str]:
    """The ways that do not train as eager PyTorch, whose recorded run is the measure.

    Of each: its recorded run and, twice from the same start, what a timed one leaves.
    """
    reference, found = concatenate(list(variants["eager"].recorded())), []
    for label, variant in variants.items():
        results = []
        for _ in range(2):
            call(variant)
            results.append(variant.result())
        runs = [with_result(reference, result, steps) for result in results]
        for run in (*runs, concatenate(list(variant.recorded()))):
            comparison = compare(reference, run)
            found += [] if comparison.verdict.same else [f"{label}: {comparison.reason}"]
    return found


@pytest.mark.parametrize(
    "name",
    [
        name if name in SOON_COMPILED else pytest.param(name, marks=pytest.mark.slow)
        for name in EXAMPLES
    ],
)
def test_every_way_of_every_example_trains_the_same(name: str) -> None:
    spec = EXAMPLES[name](dtype="float64", steps=2, **SMALL.get(name, {}))
    variants = all_variants(spec)
    assert list(variants) == VARIANTS
    assert apart(variants, 2) == []


def test_a_run_in_several_pieces() -> None:
    """An epoch of single samples is a piece: 100 steps and 20, each length compiled."""
    variants = all_variants(EXAMPLES["sgd_single_sample"](dtype="float64", steps=120))
    assert [chunk.steps for chunk in variants["scan"].chunks] == [100, 20]
    assert apart(variants, 120) == []


@pytest.mark.parametrize("kind", ["foreach", "fused"])
def test_optimizer_is_of_the_kind_that_is_asked_for(kind: str) -> None:
    for name in ("linear_regression", "parameter_groups"):
        spec = EXAMPLES[name](steps=1)
        plain, other = (launch.variants("torch", spec)[variant] for variant in ("eager", kind))
        before, after = plain.start[2], other.start[2]
        assert type(before) is type(after)
        for a, b in zip(before.param_groups, after.param_groups, strict=True):
            assert b[kind] is True
            assert a[kind] is None
            assert a.keys() == b.keys()
            for key in a.keys() - {"foreach", "fused", "params"}:
                assert a[key] == b[key], key
            assert [p.shape for p in a["params"]] == [p.shape for p in b["params"]]


def test_optimizer_that_has_no_such_kind_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    class Plain(torch.optim.SGD):
        def __init__(self, params: Any, **settings: Any) -> None:
            if settings.get("fused"):
                raise RuntimeError("`fused=True` is not for this one\nand more")
            super().__init__(params, **settings)

    monkeypatch.setattr(torch.optim, "SGD", Plain)
    rows = rows_of(LinearRegression(steps=5))
    assert rows["fused"].problem == "`fused=True` is not for this one"
    assert rows["fused"].same  # not to be there is no fault
    assert has_figures(rows["foreach"])
    text = "\n".join(table.lines(list(rows.values())))
    assert "PyTorch fused              not timed: `fused=True` is not" in text


def test_put_in_a_piece_of_a_run() -> None:
    trace = concatenate(list(launch.driver("torch", LinearRegression(steps=6)).chunks()))
    params = {name: array[-1] + 1 for name, array in trace.params.items()}
    result = TrainingResult(np.array([50.0, 60.0], "float32"), params)  # those of steps 5 and 6
    assert compare(trace, with_result(trace.slice(0, 3), result, 6), steps=3).verdict == "equal"
    losses = with_result(trace.slice(2, 6), result, 6).losses
    assert losses.tolist() == [*trace.losses[2:4].tolist(), 50, 60]
    changed = with_result(trace.slice(2, 6), result, 6).params["bias"]
    assert np.array_equal(changed[:-1], trace.params["bias"][2:6])
    assert np.array_equal(changed[-1], params["bias"])


def rows_of(spec: Spec, setting: Setting = ONCE) -> dict[str, Row]:
    return {row.variant: row for row in training_rows(spec, setting)}


def has_figures(row: Row) -> bool:
    figures = [row.ratio, row.us, row.first]
    assert all(figure is None for figure in figures) or None not in figures
    return row.ratio is not None


@pytest.mark.parametrize("name", ["linear_regression", "linear_regression_adam"])
def test_honest_rows_have_figures(name: str) -> None:
    rows = rows_of(EXAMPLES[name](steps=5))
    assert list(rows) == VARIANTS
    for row in rows.values():
        assert row.verdict in ("equal", "rounding")
        assert has_figures(row)
        assert row.problem is None
    assert rows["eager"].ratio == Spread(1, 1, 1)


Plant = Callable[[pytest.MonkeyPatch], None]


def scaled_jax_step(patch: pytest.MonkeyPatch) -> None:
    """JAX's step takes gradients that are off by a thousandth: no side is above suspicion."""
    scaled = jax_grads(lambda grads, _: {name: 1.001 * grad for name, grad in grads.items()})
    scaled(patch, launch.example("jax", LinearRegression()))


def scaled_torch_step(patch: pytest.MonkeyPatch) -> None:
    """PyTorch's step, of every kind of optimizer."""
    loss(lambda value: value * 1.001)(patch, launch.example("torch", LinearRegression()))


def other(owner: Any, name: str, wrong: Callable[..., Any]) -> Plant:
    """Another function: wrong(the honest one, what it is given)."""

    def plant(patch: pytest.MonkeyPatch) -> None:
        honest = getattr(owner, name)
        patch.setattr(owner, name, lambda *given: wrong(honest, *given))

    return plant


def wrong_lr(honest: Any, flags: dict[str, bool], start: Any) -> Any:
    """The foreach optimizer has another learning rate."""
    made = honest(flags, start)
    if flags.get("foreach"):
        made[2].param_groups[0]["lr"] *= 1.001
    return made


def lost_step(honest: Any, loop: Any) -> None:
    """The timed loop of PyTorch's fused optimizer, not its recorded run, makes a step less."""
    if loop.start[2].defaults["fused"]:
        loop._chunks[:] = [chunk._replace(steps=4) for chunk in loop._chunks]
    honest(loop)


def lost_jax_step(honest: Any, loop: Any) -> None:
    """The Python loop over jitted steps ends early."""
    honest(loop)
    vars(loop)["_index"] = loop._index[:4]


def moved(honest: Any, way: Any) -> TrainingResult:
    """A way ends with parameters that are off by a hundred-thousandth."""
    true = honest(way)
    return true._replace(params={n: a * np.float32(1.00001) for n, a in true.params.items()})


def not_a_number(honest: Any, way: Any) -> TrainingResult:
    """A way ends in NaN."""
    true = honest(way)
    return true._replace(losses=true.losses * np.float32("nan"))


OF_TORCH, OF_JAX = twinstep.torch.variants, twinstep.jax.variants
FAULTS: dict[str, tuple[Plant, set[str]]] = {
    "jax gradient": (scaled_jax_step, set(VARIANTS)),
    "torch gradient": (scaled_torch_step, set(VARIANTS)),
    "foreach lr": (other(OF_TORCH, "_made", wrong_lr), {"foreach"}),
    "fused loop": (other(OF_TORCH.Loop, "run", lost_step), {"fused"}),
    "jax loop": (other(OF_JAX.Steps, "reset", lost_jax_step), {"step"}),
    "scan parameters": (other(OF_JAX.Scan, "result", moved), {"scan"}),
    "trace nan": (other(OF_JAX.TraceScan, "result", not_a_number), {"trace"}),
}


@pytest.mark.parametrize(("plant", "lost"), FAULTS.values(), ids=FAULTS)
def test_a_fault_takes_the_figure_away(
    plant: Plant, lost: set[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    plant(monkeypatch)
    monkeypatch.setattr(process, "measured", lambda tasks, how: (find(task, how) for task in tasks))
    file = tmp_path / "bench.json"
    words = ["linear_regression", "--steps", 5, "--repeats", 1, "--cores", "one"]
    lines = command("bench", *words, "--json", file).printed(1).splitlines()
    value = json.loads(file.read_text())
    assert not value["same"]
    for row in value["rows"]:
        line = next(x for x in lines if x.startswith(f"  {LABELS[row['variant']]:26}"))
        if row["variant"] in lost:
            assert (row["ratio"], row["us"], row["first"], row["same"]) == (None, None, None, False)
            assert row["problem"].startswith("mismatch: "), row["problem"]
            assert f"not timed: {row['problem']}" in line
        else:
            assert row["same"]
            assert row["problem"] is None
            assert row["ratio"]["median"] > 0


def test_a_run_that_is_too_slow_has_no_figure() -> None:
    rows = rows_of(LinearRegression(steps=5), Setting(repeats=1, limit=1e-9))
    assert not any(has_figures(row) for row in rows.values())
    assert all("too long for --limit" in (row.problem or "") for row in rows.values())
    assert all(row.same for row in rows.values())


@pytest.mark.parametrize(
    ("serve", "says"),
    [
        (hangs, "not done after 0 s"),
        (dies, "its process ended with exit code 0"),
        (fails, "TypeError: planted"),
    ],
)
def test_a_process_that_gives_nothing_hangs_nobody(
    serve: Any, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "_serve", serve)
    if serve is hangs:
        monkeypatch.setattr(process, "STARTING", 0.1)
    spec = LinearRegression(steps=3)
    tasks = [Task("training", spec), Task("gate", spec), Task("start")]
    results = list(measured(tasks, Setting(limit=0.1)))
    assert [len(found) for found in results] == [len(VARIANTS), 1, 1]
    for found in itertools.chain(*results):
        assert says in str(found.problem)
        assert not found.same


def test_settings_are_one_core_and_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {1, 4, 5}, raising=False)
    monkeypatch.setattr("os.sched_setaffinity", lambda *_: None, raising=False)
    found, notes = process.settings("both", repeats=4)
    assert [(s.cores, s.threads, s.repeats) for s in found] == [("one", 1, 4), ("all", 3, 4)]
    assert not notes
    assert [s.cores for s in process.settings("all")[0]] == ["all"]
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {1}, raising=False)
    found, notes = process.settings("both")
    assert [s.cores for s in found] == ["one"]
    assert "one core" in notes[0]
    monkeypatch.delattr("os.sched_setaffinity")
    found, notes = process.settings("one")
    assert [s.cores for s in found] == ["all"]
    assert "keeps no process on one core" in notes[0]


def test_the_command_from_end_to_end(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """In processes of its own, with JSON and a plot; the gate too."""
    files = [tmp_path / name for name in ("bench.json", "bench.svg")]
    line = "bench zero_grad --steps 4 --repeats 2 --cores one --gate --learning-rate 0.02"
    assert main([*line.split(), "--json", str(files[0]), "--plot", str(files[1])]) == 0
    printed, said = capfd.readouterr()
    assert said == ""
    assert printed.startswith("\nzero_grad, 4 steps, float32, one core\n")
    assert all(f"\n  {LABELS[variant]}  " in printed for variant in VARIANTS)
    assert "gate / both trainings, zero_grad, 2000 steps, float64: " in printed
    value = json.loads(files[0].read_text(), parse_constant=pytest.fail)
    assert value["same"]
    assert [row["variant"] for row in value["rows"]] == VARIANTS
    for row in value["rows"]:
        assert row["ratio"]["low"] <= row["ratio"]["median"] <= row["ratio"]["high"]
        assert row["us"]["median"] > 0
        assert row["threads"] == 1
    assert [(cost["what"], cost["asked"]) for cost in value["costs"]] == [("gate", 1.15)]
    assert value["machine"]["versions"].keys() == {"torch", "jax", "flax", "optax"}
    assert files[1].read_text().startswith("<?xml")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU, and it is no bad input")
def test_a_device_that_is_not_there(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "chain_rule", "--device", "gpu", "--cores", "one"]) == 2
    printed, error = capfd.readouterr()
    assert printed == ""
    assert error.startswith("twinstep: error: device is 'gpu', but PyTorch found only: cpu")
