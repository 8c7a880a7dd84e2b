"""What was recorded, in one screen; and of two recordings, what cannot be the same."""

import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.commands import command, refusal
from torch import nn

from twinstep.torch import record
from twinstep.trace.description import apart, described
from twinstep.trace.ledger import Trace


def recorded(
    hidden: int = 4,
    samples: int = 8,
    lr: float = 0.1,
    clip: float | None = None,
    passes: int = 1,
    reduce: Callable[[Any], Any] = torch.mean,
    dtype: torch.dtype = torch.float32,
    steps: int = 4,
    out: Path | None = None,
) -> Trace:
    """A small training."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, hidden), nn.Tanh(), nn.Linear(hidden, 1)).to(dtype)
    optimizer = torch.optim.Adam(model.parameters(), lr=lr)
    schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)
    with record(model, out=out) as rec:
        for _ in range(steps):
            optimizer.zero_grad()
            for _ in range(passes):
                reduce(model(torch.ones(samples, 3, dtype=dtype)) ** 2).backward()
            if clip is not None:
                nn.utils.clip_grad_norm_(model.parameters(), clip)
            optimizer.step()
            schedule.step()
    return rec.trace


def lines_of(trace: Trace) -> list[str]:
    return described(trace.metadata, [trace]).lines()


def test_all_that_was_seen_is_said() -> None:
    said = lines_of(recorded(clip=1e-3, passes=2))
    assert said[0].startswith("torch, float32 on cpu: 4 steps, loss ")
    assert said[1:4] == [
        "model: 4 parameters, 21 numbers",
        "  0: Linear(in_features=3, out_features=4, bias=True): weight (4, 3), bias (4,)",
        "  2: Linear(in_features=4, out_features=1, bias=True): weight (1, 4), bias (1,)",
    ]
    assert said[4] == "optimizer: Adam, 4 updates"
    assert said[5].startswith("  group 0 of 4 parameters: lr 0.1 to 0.0125, betas.0 0.9")
    assert said[6] == "backward passes an update: 2 in 4"
    assert said[7].startswith("gradients: changed before 4 updates; norm ")
    assert said[7].endswith(" as backpropagated, 0.001 as given there")
    assert said[8] == "batch: input (16, 3)"
    assert said[9].startswith("leaves, and numbers a step: update 1 of 1, batch 1 of 1, ")


def test_however_it_is_cut_a_trace_is_described_alike() -> None:
    trace = recorded(clip=0.1, passes=2, steps=7)
    for cuts in ((0, 7), (0, 1, 7), (0, 3, 4, 7)):
        pieces = [trace.slice(a, b) for a, b in itertools.pairwise(cuts)]
        assert described(trace.metadata, pieces).lines() == lines_of(trace)


def test_a_large_model_is_one_screen() -> None:
    model = nn.Sequential(*(nn.Linear(2, 2) for _ in range(200)))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with record(model) as rec:
        model(torch.ones(1, 2)).sum().backward()
        optimizer.step()
    said = lines_of(rec.trace)
    assert len(said) < 40
    assert "  and 176 more layers" in said


DIFFERENT: dict[str, tuple[dict[str, Any], str]] = {
    "width": ({"hidden": 5}, "parameters: 4 units against 5"),
    "reduction": ({"reduce": torch.sum}, "loss: a mean against a sum"),
    "dtype": ({"dtype": torch.float64}, "dtype: float32 against float64"),
    "batch": ({"samples": 9}, "batch: 8 samples against 9"),
    "rate": ({"lr": 0.2}, "0.lr: 0.1 to 0.0125 against 0.2 to 0.025"),
    "clipping": ({"clip": 1e-3}, "gradients: only the second changes them before its updates"),
    "passes": ({"passes": 2, "samples": 4}, "backward passes an update: 1 against 2"),
    "length": ({"steps": 5}, "updates: 4 against 5"),
}


@pytest.mark.parametrize(("options", "says"), DIFFERENT.values(), ids=DIFFERENT)
def test_what_cannot_be_the_same_is_said(options: dict[str, Any], says: str) -> None:
    one, other = (described(trace.metadata, [trace]) for trace in (recorded(), recorded(**options)))
    assert any(line.startswith(says) for line in apart(one, other)), apart(one, other)
    assert apart(one, one) == apart(other, other) == []


def test_the_command_prints_it(tmp_path: Path) -> None:
    trace = recorded(out=tmp_path / "a")
    recorded(hidden=5, out=tmp_path / "b")
    assert command("describe", tmp_path / "a").printed().splitlines() == lines_of(trace)
    same = command("describe", tmp_path / "a", tmp_path / "a").printed()
    assert same.endswith("nothing says that they cannot be the same\n")
    differ = command("describe", tmp_path / "a", tmp_path / "b").printed(1)
    assert "cannot be the same:\n  parameters: 4 units against 5\n" in differ
    told = json.loads(command("describe", tmp_path / "a", tmp_path / "b", "--json", "-").printed(1))
    assert [each["steps"] for each in told["traces"]] == [4, 4]
    assert told["apart"][0] == "parameters: 4 units against 5"
    assert "takes one or two trace folders, 0 given" in refusal("describe")
    assert "is no trace" in refusal("describe", tmp_path)
