"""Leaves with rows at some steps, several at one, or held once: saved, sliced, joined, compared.

What stands once in memory stays one array, and one on disk.
"""

import dataclasses
import itertools
from pathlib import Path

import numpy as np
import pytest
from helpers.judging import where
from helpers.storing import SEARCH, bits, write, write_pieces
from helpers.synthetic_traces import STEPS as LENGTH
from helpers.synthetic_traces import full, leaf_by, leaf_of, made, refused, rows_of, with_leaf
from hypothesis import given
from hypothesis import strategies as st

from twinstep import Trace, Verdict, compare, load_trace, open_trace
from twinstep.trace.fingerprint import fingerprint, joined
from twinstep.trace.joining import concatenate
from twinstep.trace.rows import Rows
from twinstep.trace.stages import STAGES
from twinstep.trace.streaming import Stream


def ragged(rounding_noise: float | None = None) -> Trace:
    """A trace in which leaves come late, are there at some steps, or several times at one."""
    trace, draw = full(rounding_noise), np.random.default_rng(2)
    grad, odd = draw.uniform(1, 2, (LENGTH - 2, 3)), draw.uniform(1, 2, (2, 3))
    rows = {"late": [2, 3, 4, 5], "late.exp_avg": [3, 4, 5], "odd": [1, 4], "loss": [0, 0, 4, 4, 4]}
    return dataclasses.replace(
        trace,
        raw_grads={**trace.raw_grads, "odd": odd, "late": grad},
        grads={**trace.grads, "odd": odd, "late": grad},
        opt_state={**trace.opt_state, "late.exp_avg": draw.uniform(1, 2, (LENGTH - 3, 3))},
        params={
            **trace.params,
            "odd": np.concatenate([odd[:1], odd * 2]),  # in the order in which they come
            "late": draw.uniform(1, 2, (LENGTH - 1, 3)),
        },
        micro_losses={"loss": draw.uniform(1, 2, 5)},
        rows={
            f"{stage}/{leaf}": np.array(steps)
            for leaf, steps in rows.items()
            for stage in ("raw_grads", "grads", "params", "opt_state", "micro_losses")
            if (stage == "opt_state") == ("exp" in leaf)
            and (stage == "micro_losses") == (leaf == "loss")
        },
    )


def test_held_once_is_one_array(tmp_path: Path) -> None:
    trace = full()
    apart = leaf_by("grads", "weight", np.copy)(trace)
    assert [leaf for leaf in apart.grads if apart.held_once(leaf)] == ["bias", "gain", "none"]
    write(tmp_path / "apart", apart)
    for other in (
        apart.slice(1, 5),
        concatenate([apart.slice(0, 2), apart.slice(2, 6)]),
        load_trace(tmp_path / "apart"),
        *open_trace(tmp_path / "apart").chunks(),
    ):
        for leaf in other.grads:
            assert (other.grads[leaf] is other.raw_grads[leaf]) is (leaf != "weight")
    # in a shard it stands once
    for name, stored in (("one", trace), ("two", apart)):
        stored.save(tmp_path / name)
    one, two = (open_trace(tmp_path / name).shards[0] for name in ("one", "two"))
    assert ["weight" in shard["held_once"] for shard in (one, two)] == [True, False]
    assert two["bytes"] - one["bytes"] >= apart.grads["weight"].nbytes


def test_what_is_once_of_some_shards_alone_is_joined_as_two(tmp_path: Path) -> None:
    trace = full()
    first, last = trace.slice(0, 3), trace.slice(3, 6)
    last = leaf_by("grads", "bias", lambda rows: rows / 2)(last)
    whole = concatenate([first, last])
    assert not whole.held_once("bias")
    assert whole.held_once("weight")
    assert whole.grads["bias"][:3].tobytes() == trace.grads["bias"][:3].tobytes()
    assert whole.raw_grads["bias"].tobytes() == trace.raw_grads["bias"].tobytes()
    assert bits(load_trace(write_pieces(tmp_path / "trace", first, last))) == bits(whole)
    # the clip that starts with step 4 is found there, and not in what was backpropagated
    assert where(compare(trace, whole).first) == (4, "grads", "bias")


@SEARCH
@given(cuts=st.sets(st.integers(1, LENGTH - 1)))
def test_leaves_keep_their_rows(tmp_path_factory: pytest.TempPathFactory, cuts: set[int]) -> None:
    trace = ragged()
    bounds = list(itertools.pairwise([0, *sorted(cuts), LENGTH]))
    pieces = [trace.slice(low, high) for low, high in bounds]
    assert bits(concatenate(pieces)) == bits(trace)
    for piece, (low, high) in zip(pieces, bounds, strict=True):
        assert piece.validation_error() is None
        for key, steps in trace.rows.items():
            name, _, leaf = key.partition("/")
            held = piece.leaves(STAGES[name]).get(leaf)
            first, end = np.searchsorted(steps, (low, high))
            assert (held is None) is bool(first == end)
            if held is not None:
                rows = trace.leaves(STAGES[name])[leaf][first : end + STAGES[name].initial]
                assert (held.shape, held.tobytes()) == (rows.shape, rows.tobytes())
                assert piece.steps_of(name, leaf).tolist() == steps[first:end].tolist()
        assert ("late" not in piece.grads) or piece.held_once("late")
    folder = tmp_path_factory.mktemp("ragged") / "trace"
    write(folder, trace, tuple(bounds))
    assert bits(load_trace(folder)) == bits(trace)
    for piece, chunk in zip(pieces, open_trace(folder).chunks(), strict=True):
        assert bits(chunk) == bits(piece)
    assert compare(trace, load_trace(folder)).verdict is Verdict.EQUAL


def test_rows_have_their_steps() -> None:
    trace = ragged()
    rows = {(stage, leaf): array for stage, leaf, array in trace.entries()}
    assert rows["params", "late"].tobytes() == trace.params["late"][1:].tobytes()
    assert trace.steps_of("params", "late").tolist() == [2, 3, 4, 5]
    assert trace.steps_of("params", "bias").tolist() == list(range(LENGTH))
    whole = dataclasses.replace(trace, rows={})
    assert "rows" in str(whole.validation_error())
    early = rows_of("params", "late", slice(1, None))(trace)
    assert "params, late" in str(early.validation_error())


@pytest.mark.parametrize(
    ("key", "steps", "says"),
    [
        ("raw_grads/odd", [1, 3], "raw_grads, odd: at step 4 only the second trace has it"),
        ("params/late", [1, 3, 4, 5], "params, late: at step 2 only the second trace has it"),
        (
            "micro_losses/loss",
            [0, 0, 0, 4, 4],
            "at step 1 the first trace has 2 rows, the second 3",
        ),
    ],
)
def test_rows_at_other_steps_are_another_structure(key: str, steps: list[int], says: str) -> None:
    trace = ragged()
    other = dataclasses.replace(trace, rows={**trace.rows, key: np.array(steps)})
    refused(lambda: compare(trace, other), says)


@pytest.mark.parametrize(
    ("stage", "leaf", "row", "step"),
    [("raw_grads", "odd", 1, 5), ("params", "late", 2, 4), ("micro_losses", "loss", 3, 5)],
)
def test_a_fault_in_a_leaf_of_some_steps_is_found_at_its_step(
    stage: str, leaf: str, row: int, step: int
) -> None:
    trace = ragged()
    array = leaf_of(trace, stage, leaf).copy()
    array[row] *= 2
    off = with_leaf(trace, stage, leaf, array)
    if stage == "raw_grads":
        off = with_leaf(off, "grads", leaf, array)
    assert where(compare(trace, off).first) == (step, stage, leaf)


def test_a_loss_that_is_not_known_is_not_compared() -> None:
    trace = full()
    unknown = {"loss/loss": np.array([0, 1, 2, 4, 5])}
    losses = np.where(np.arange(LENGTH) == 3, np.nan, trace.losses)
    one = dataclasses.replace(trace, losses=losses, rows=unknown)
    assert compare(one, one).verdict is Verdict.EQUAL
    refused(lambda: compare(one, trace), "loss, loss: at step 4 only the second trace has it")


def filled(max_rows: int) -> list[Trace]:
    """What `Rows` gives away of six steps, `most` at a time: one leaf comes with the third.

    Another is not given at the fifth, and is not put at the sixth.
    """
    rows, stream = Rows(max_rows, "float64"), Stream(None)
    pieces, draw = list[Trace](), np.random.default_rng(3)
    rows.initial("params", "w", np.zeros(2))
    for step in range(LENGTH):
        for name in ["w"] + ["late"] * (step >= 2) + ["odd"] * (step != 5):
            if name != "w" and step == {"late": 2, "odd": 0}[name]:
                rows.initial("params", name, np.ones(2))
            grad = draw.uniform(1, 2, 2)
            rows.put("raw_grads", name, grad)
            if name != "odd" or step != 4:
                rows.given(name, grad if name != "w" or step != 4 else grad / 2)
            rows.put("params", name, draw.uniform(1, 2, 2))
        for part in range(step % 3):
            rows.put("micro_losses", "loss", np.array(float(part)), more=True)
        rows.batch({"x": np.full(3, step, float)}, values=True)
        of = "odd." if step % 2 else ""
        rows.hyper_parameters({f"{of}0.lr": 0.5**step}, of)
        rows.finish(float(step) if step != 3 else None)
        if rows.full or step == LENGTH - 1:
            rows.flush(made().metadata, stream)
            pieces.append(stream.take())
    return pieces


def test_a_row_that_is_being_filled_is_given_away_with_its_step() -> None:
    """However often the finished ones are: of a run that ends in it nothing of it stays."""
    rows, stream = Rows(LENGTH, "float64"), Stream(None)
    rows.initial("params", "w", np.zeros(2))
    for step in range(3):
        for part in range(2):
            rows.put("micro_losses", "loss", np.array(float(part)), more=True)
            rows.flush(made().metadata, stream)
        rows.put("params", "w", np.full(2, step + 1.0))
        rows.put("raw_grads", "w", np.full(2, step + 1.0))
        rows.given("w", np.full(2, step + 1.0))
        if step < 2:
            rows.finish(1.0)
    rows.flush(made().metadata, stream)
    trace = stream.whole()
    assert trace.validation_error() is None
    assert trace.rows["micro_losses/loss"].tolist() == [0, 0, 1, 1]
    assert trace.params["w"][:, 0].tolist() == [0.0, 1.0, 2.0]
    assert trace.raw_grads["w"][:, 0].tolist() == [1.0, 2.0]
    assert trace.held_once("w")
    rows.discard()
    rows.put("params", "w", np.full(2, 9.0))
    rows.finish(1.0)
    rows.flush(made().metadata, stream)
    assert stream.whole().params["w"][:, 0].tolist() == [0.0, 1.0, 2.0, 9.0]


@pytest.mark.parametrize("max_rows", range(1, LENGTH + 1))
def test_rows_filled_in_pieces_are_those_filled_at_once(max_rows: int, tmp_path: Path) -> None:
    (whole,) = filled(LENGTH)
    late, odd = [2, 3, 4, 5], [0, 1, 2, 3, 4]
    assert {key: steps.tolist() for key, steps in whole.rows.items()} == {
        "raw_grads/late": late,
        "grads/late": late,
        "params/late": late,
        "raw_grads/odd": odd,
        "grads/odd": odd[:4],
        "params/odd": odd,
        "hyper_parameters/0.lr": [0, 2, 4],
        "hyper_parameters/odd.0.lr": [1, 3, 5],
        "micro_losses/loss": [1, 2, 2, 4, 5, 5],
        "loss/loss": [0, 1, 2, 4, 5],
    }
    assert [whole.held_once(leaf) for leaf in ("w", "late", "odd")] == [False, True, False]
    pieces = filled(max_rows)
    assert bits(concatenate(pieces)) == bits(whole)
    assert bits(load_trace(write_pieces(tmp_path / "trace", *pieces))) == bits(whole)


def test_parts_of_a_batch_are_one_where_their_shapes_join() -> None:
    one, two = np.ones((2, 3)), np.zeros((1, 3))
    assert joined([one]) is one
    assert np.array_equal(joined([one, two]), np.concatenate([one, two]))
    assert np.array_equal(joined([np.array(1), np.array(2)]), [1, 2])
    for other in (np.zeros((1, 4)), two.astype(np.float32)):
        assert isinstance(joined([one, other]), list)


@pytest.mark.parametrize("on_disk", [False, True])
def test_a_leaf_is_what_it_was_last_also_after_its_rows_were_given_away(
    on_disk: bool, tmp_path: Path
) -> None:
    """Two rows are held: from the fourth step on their memory is filled a second time."""
    rows, stream = Rows(2, "float64"), Stream(tmp_path / "trace" if on_disk else None)
    metadata = made().metadata
    rows.initial("params", "w", np.zeros(3, np.float64))
    for step in range(1, 8):
        moment, weight = rows.last("opt_state", "m"), rows.last("params", "w")
        assert weight is not None
        assert weight.tolist() == [step - 1] * 3
        assert (moment is None) == (step == 1)
        assert moment is None or moment.tolist() == [10 * (step - 1)] * 3
        rows.put("opt_state", "m", np.full(3, 10 * step, np.float64))
        rows.put("params", "w", np.full(3, step, np.float64))
        rows.finish(1.0 / step)
        if rows.full:
            rows.flush(metadata, stream)


def test_batches_of_labels_have_numbers_of_their_own() -> None:
    """Small whole numbers, masks and one-hots are alike, and no two batches share a number."""
    draw = np.random.default_rng(0)
    labels = draw.integers(0, 10, (20000, 8))
    rows: dict[str, np.ndarray] = {
        "labels": np.unique(labels, axis=0),
        "masks": np.unique(draw.integers(0, 2, (20000, 32)).astype(np.float32), axis=0),
        "pairs": np.array([[a, b] for a in range(100) for b in range(100)]),
        "floats": np.unique(np.round(draw.normal(size=(20000, 2)), 2), axis=0),
    }
    for kind, batches in rows.items():
        numbers = {fingerprint(batch) for batch in batches}
        # of n numbers drawn from 2**32 n**2 / 2**33 are expected to meet: 0.05 of 20,000
        assert len(numbers) >= len(batches) - 1, kind


def test_a_part_of_a_batch_adds_its_number() -> None:
    array = np.random.default_rng(0).normal(size=(6, 3)).astype(np.float32)
    parts = fingerprint(array[:2]) + fingerprint(array[2:], first=6)
    assert parts % 2**32 == fingerprint(array)


def test_batches_that_share_a_number_are_kept_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("twinstep.trace.rows.fingerprint", lambda array: 2**32 - 1)
    rows, stream = Rows(4, "float64"), Stream(None)
    rows.initial("params", "w", np.zeros(1))
    batches = [np.array([3, 0]), np.array([0, 1]), np.array([3, 0])]
    for batch in batches:
        rows.put("params", "w", np.ones(1))
        rows.batch({"x": batch}, values=True)
        rows.finish(1.0)
    rows.flush(made().metadata, stream)
    trace = stream.whole()
    assert [trace.inputs_of(t)["x"].tolist() for t in range(3)] == [b.tolist() for b in batches]
    assert trace.batch["x"].tolist() == [2**32 - 1, 0, 2**32 - 1]
