"""One table says what a step leaves: by its row a stage is recorded, saved, judged and shown.

Of a trace that holds every stage nothing is lost, and what is off is found in its stage.
"""

import dataclasses
import functools
import html
from pathlib import Path

import numpy as np
import pytest
from helpers.judging import EPS, gate, perturbed, where
from helpers.pages import honest
from helpers.screens import results
from helpers.storing import bits, reloaded, write
from helpers.synthetic_traces import STEPS as LENGTH
from helpers.synthetic_traces import (
    entry,
    full,
    leaf_by,
    leaf_of,
    refused,
    with_fault,
    with_field,
    with_leaf,
)

from twinstep import Trace, Verdict, compare
from twinstep.report.verdicts import print_verifications
from twinstep.runs.verification import compare_stored
from twinstep.trace.stages import LEAVES, STAGES, STEPS, Stage

AT = 3
LEAF = {
    "update": "optimizer",
    "before": "params/bias",
    "batch": "x",
    "rng": "torch",
    "activations": "relu",
    "micro_losses": "loss",
    "loss": "loss",
    "raw_grads": "bias",
    "grads": "bias",
    "hyper_parameters": "0.lr",
    "opt_state": "bias.exp_avg",
    "params": "bias",
    "buffers": "norm.running_mean",
}
each_stage = pytest.mark.parametrize("stage", STEPS, ids=lambda stage: stage.name)


def changed(trace: Trace, stage: Stage, leaf: str, value: float) -> Trace:
    """The trace with another value at step AT."""
    if not np.issubdtype(leaf_of(trace, stage.name, leaf).dtype, np.integer):
        return with_fault(trace, stage.name, leaf, AT, value)
    array = leaf_of(trace, stage.name, leaf).copy()
    array[AT - 1 + stage.initial, ...] ^= 1
    return with_leaf(trace, stage.name, leaf, array)


# ----------------------------------------------------------------------------- the table's columns


def test_the_table_and_a_trace_have_the_same_stages() -> None:
    fields = {field.name for field in dataclasses.fields(Trace)}
    assert {stage.field for stage in STAGES.values()} <= fields
    assert [stage.name for stage in STEPS] == list(LEAF)
    assert STAGES.keys() - LEAF.keys() == {"evaluation"}
    assert [stage for stage in STEPS if stage.name != "loss"] == LEAVES
    assert len({stage.holds for stage in STAGES.values()} - {""}) > 5
    assert all(stage.exact or stage.one_step for stage in STAGES.values())


@each_stage
def test_a_stage_is_walked_saved_and_found_by_its_row(stage: Stage, tmp_path: Path) -> None:
    """name, field: of what is off the name is said, and the leaf, and the first is found."""
    trace, leaf = full(), LEAF[stage.name]
    names = [name for name, _, _ in trace.entries()]
    assert names == sorted(names, key=list(STAGES).index)
    before, off = bits(trace), changed(trace, stage, leaf, 1e3)
    again = reloaded(off, tmp_path)
    whole = write(tmp_path / "whole", trace)
    assert bits(trace) == before, "a replaced field leaves the trace alone"
    assert bits(again) == bits(off) != before
    for comparison in (
        compare(trace, off),
        gate(trace, again),
        compare_stored(whole, tmp_path / "trace"),
    ):
        assert comparison.verdict is Verdict.MISMATCH
        assert where(comparison.first) == (AT, stage.name, leaf)
        assert f"step {AT}, {stage.name}, {leaf}" in comparison.reason


@each_stage
def test_rows_before_the_first_step(stage: Stage) -> None:
    """initial: one row more, which is the state from which the first step is made."""
    trace, leaf = full(), LEAF[stage.name]
    array = leaf_of(trace, stage.name, leaf)
    assert len(array) == LENGTH + stage.initial
    assert trace.validation_error() is None
    longer = with_leaf(trace, stage.name, leaf, np.concatenate([array, array[:1]]))
    if stage.name != "loss":
        assert f"{stage.name}, {leaf}" in str(longer.validation_error())
    cut = leaf_of(trace.slice(2, 4), stage.name, leaf)
    assert cut.tobytes() == array[2 : 4 + stage.initial].tobytes()


@each_stage
def test_what_is_in_the_runs_dtype(stage: Stage) -> None:
    """numbers: of another dtype it is no trace; else each leaf has its own."""
    trace, leaf = full(), LEAF[stage.name]
    other = leaf_by(stage.name, leaf, lambda rows: rows.astype(np.float32))(trace)
    assert (other.validation_error() is not None) is stage.numbers
    if stage.numbers:
        assert f"{stage.name}, {leaf} is float32, expected float64" in str(other.validation_error())
    else:
        refused(lambda: compare(trace, other), stage.name, leaf, "float32")


@each_stage
def test_what_one_step_may_be_off(stage: Stage) -> None:
    """exact, one_step: not at all, or so many eps of what the entry is made of."""
    trace, leaf = full(), LEAF[stage.name]
    array = leaf_of(trace, stage.name, leaf)
    if stage.exact:
        assert stage.one_step == 0
        value = float(perturbed(entry(trace, stage.name, leaf, AT), 1))
        for judged in (gate, compare):
            comparison = judged(trace, changed(trace, stage, leaf, value))
            assert where(comparison.first) == (AT, stage.name, leaf)
            assert comparison.first is not None
            assert comparison.first.allowed == 0
        return
    one, two = array[AT - 2 + stage.initial : AT + stage.initial]
    made_of = [one, two, two - one] if stage.name == "params" else [one, two]
    size = float(np.max(np.abs(made_of)))
    if stage.name in ("loss", "raw_grads"):
        size = 1.0  # as `gate` says of them
    limit = stage.one_step * EPS * size
    for part, verdict in ((0.75, Verdict.ROUNDING), (1.25, Verdict.MISMATCH)):
        value = entry(trace, stage.name, leaf, AT) + part * limit
        comparison = gate(trace, changed(trace, stage, leaf, value))
        assert comparison.verdict is verdict, comparison.reason


@each_stage
def test_of_what_noise_is_known(stage: Stage) -> None:
    """noisy: where any is known, that of this stage has to be."""
    trace, key = full(rounding_noise=EPS), f"{stage.name}/{LEAF[stage.name]}"
    assert trace.rounding_noise is not None
    assert (key in trace.rounding_noise) is stage.noisy
    less = {name: sizes for name, sizes in trace.rounding_noise.items() if name != key}
    left = with_field(trace, "rounding_noise", less)
    assert (left.validation_error() is not None) is stage.noisy


@each_stage
def test_what_one_side_alone_may_hold(stage: Stage) -> None:
    """both: compared only where both sides have it; else its lack is another structure."""
    trace = full()
    if stage.name == "loss":
        return
    without = with_field(trace, stage.field, {})
    for pair in ((trace, without), (without, trace)):
        if stage.both:
            assert compare(*pair).verdict is Verdict.EQUAL
        else:
            refused(functools.partial(compare, *pair), stage.name, "only the")
    kept = dict(trace.leaves(stage))
    kept.pop(LEAF[stage.name])
    if kept:  # where both have some of it, both have to have all
        part = with_field(trace, stage.field, kept)
        refused(lambda: compare(trace, part), f"{stage.name}, {LEAF[stage.name]}")


def test_columns_of_the_terminals_table(capsys: pytest.CaptureFixture[str]) -> None:
    """column: those that have one, in the ledger's order."""
    print_verifications(results())
    heads = capsys.readouterr().out.splitlines()[0].split()
    assert [head for head in heads if head in STAGES] == [s.name for s in STEPS if s.column]


def test_the_page_says_what_a_stage_holds() -> None:
    """holds: beside the name of each that the summary shows."""
    for stage in STAGES.values():
        assert (f'title="{html.escape(stage.holds)}">{stage.name}<' in honest()) is stage.noisy
