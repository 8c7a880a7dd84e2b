"""What steps were made on, and the random numbers' state, as another program is given them."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.storing import write, write_pieces
from helpers.synthetic_traces import made, refused
from torch import nn

import twinstep
from twinstep import TorchGenerator, Trace
from twinstep.torch import record
from twinstep.trace.fingerprint import fingerprint
from twinstep.trace.ranks import folder_of


def of_calls(steps: int = 6) -> Trace:
    """Batches of one call and, at odd steps, of two whose shapes differ."""
    arrays = [np.full((4 + call, 2), 10 * step + call) for step in range(steps) for call in (0, 1)]
    kept = [array for i, array in enumerate(arrays) if i % 4 != 1]
    of = [step for step in range(steps) for call in (0, 1) if call == 0 or step % 2]
    numbers = [fingerprint(array) for array in kept]
    return dataclasses.replace(
        made(steps),
        batch={"x": np.array(numbers, np.uint32)},
        inputs={"x": dict(zip(numbers, kept, strict=True))},
        rows={"batch/x": np.array(of)},
    )


def shown(batches: Iterator[dict[str, Any]]) -> list[Any]:
    """Of each batch its first numbers, those of lists as such."""
    return [
        [int(one[0, 0]) for one in batch["x"]]
        if isinstance(batch["x"], list)
        else int(batch["x"][0, 0])
        for batch in batches
    ]


EACH = [0, [10, 11], 20, [30, 31], 40, [50, 51]]


def test_batches_are_the_steps_inputs() -> None:
    """A list where there were several calls; with `micro` always."""
    trace = of_calls()
    assert shown(trace.batches()) == EACH
    assert shown(trace.batches(micro=True)) == [[0], [10, 11], [20], [30, 31], [40], [50, 51]]
    assert shown(trace.slice(2, 4).batches()) == EACH[2:4]


def test_saved_batches_are_read_shard_by_shard(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "trace", of_calls())
    stored = twinstep.open_trace(tmp_path / "trace")
    assert shown(stored.batches()) == EACH
    assert shown(stored.batches(micro=True))[0] == [0]
    (tmp_path / "trace" / stored.shards[-1]["file"]).unlink()
    batches = stored.batches()
    assert shown(next(batches) for _ in range(3)) == EACH[:3], "no shard before it is its turn"
    refused(lambda: next(batches), "cannot be read")


def test_batches_of_several_ranks_are_put_together(tmp_path: Path) -> None:
    def part(rank: int) -> Trace:
        arrays = [np.full((2, 3), 10 * step + rank) for step in range(6)]
        numbers = [fingerprint(array) for array in arrays]
        return dataclasses.replace(
            made(),
            batch={"x": np.array(numbers, np.uint32)},
            inputs={"x": dict(zip(numbers, arrays, strict=True))},
        )

    for rank in (0, 1):
        write_pieces(tmp_path / folder_of(rank, 2), part(rank))
    found = [batch["x"][:, 0].tolist() for batch in twinstep.open_trace(tmp_path).batches()]
    assert found == [[10 * step, 10 * step, 10 * step + 1, 10 * step + 1] for step in range(6)]


def test_fingerprints_are_no_batches(tmp_path: Path) -> None:
    trace = made()
    refused(lambda: next(trace.batches()), "the trace has no values of batch x, a fingerprint")
    write(tmp_path / "trace", trace)
    stored = twinstep.open_trace(tmp_path / "trace")
    refused(lambda: next(stored.batches()), "the trace has no values of batch x")


def test_what_a_step_drew_is_drawn_again() -> None:
    """In PyTorch and in NumPy, from the state before it; another drew nothing."""
    torch.manual_seed(3)
    model, drawn = nn.Linear(2, 1), []
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with record(model) as rec:
        for step in range(3):
            output = model(torch.ones(4, 2))
            drawn.append(torch.rand(4, 1) if step != 1 else torch.ones(4, 1))
            optimizer.zero_grad()
            (output * drawn[-1]).sum().backward()
            optimizer.step()
    trace = rec.trace
    assert [[*trace.rng_of(step)] for step in range(3)] == [["torch"], [], ["torch"]]
    for step in (0, 2):
        state = trace.rng_of(step)["torch"]
        torch.set_rng_state(torch.tensor(state))
        assert torch.equal(torch.rand(4, 1), drawn[step])
        generator = TorchGenerator(0)
        generator.set_state(state)
        assert np.array_equal(generator.rand(4, 1), drawn[step].numpy())
    refused(lambda: trace.rng_of(3), "step 3 of a trace that has 3")


def test_of_several_calls_there_are_several_states() -> None:
    states = np.arange(12, dtype=np.uint32).reshape(6, 2)
    trace = dataclasses.replace(
        made(3), rng={"key": states}, rows={"rng/key": np.array([0, 0, 1, 1, 2, 2])}
    )
    assert np.array_equal(trace.rng_of(1)["key"], states[2:4])
