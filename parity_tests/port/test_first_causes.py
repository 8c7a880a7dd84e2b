"""Each fault of a buffer or a batch is named, and nothing else is; faults of real ports too."""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from port.drawn_traces import (
    MOMENTUM,
    SAMPLES,
    drawn,
    found,
    kinds,
    roughly,
    with_batch,
    with_buffers,
    with_grads,
    with_start,
)
from twinstep.trace.ledger import Trace

Change = Callable[[np.ndarray], np.ndarray]

_rng = np.random.default_rng(7)

# Buffers

_B = 1 - MOMENTUM


def _moved(momentum: float) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    return lambda before, statistic: (1 - momentum) * before + momentum * statistic


BUFFERS: list[tuple[str, Any, Any, dict[str, float]]] = [
    ("statistics stay", lambda b, s: b, lambda b, s: b, {}),
    ("momentum turned round", _moved(_B), _moved(_B), {"momentum": _B}),
    ("momentum", _moved(0.03), _moved(0.03), {"momentum": 0.03}),
    ("moved twice", _moved(0.19), _moved(0.19), {"momentum": 0.19}),
    (
        "biased running variance",
        _moved(MOMENTUM),
        lambda b, s: _moved(MOMENTUM)(b, s * 95 / 96),
        {"values": 96},
    ),
    (
        "momentum, biased running variance",
        _moved(0.01),
        lambda b, s: _moved(0.01)(b, s * 95 / 96),
        {"momentum": 0.01},
    ),
    ("standard deviation kept", _moved(MOMENTUM), lambda b, s: _moved(MOMENTUM)(b, s**0.5), {}),
    (
        "standard deviation kept",
        _moved(MOMENTUM),
        lambda b, s: _moved(MOMENTUM)(b, (s * 95 / 96) ** 0.5),
        {},
    ),
    (
        "rounded",
        lambda b, s: _moved(MOMENTUM)(b, s).astype(np.float32),
        lambda b, s: _moved(MOMENTUM)(b, s).astype(np.float32),
        {},
    ),
]


@pytest.mark.parametrize(("kind", "mean", "var", "values"), BUFFERS)
def test_what_batch_norm_keeps(kind: str, mean: Any, var: Any, values: dict[str, float]) -> None:
    torch = drawn()
    causes = found(torch, with_buffers(torch, mean, var), "buffers", 1, "bn.running_var")
    assert kinds(causes) == [kind]
    assert causes[0].values == pytest.approx(values)


def test_mean_and_variance_swapped() -> None:
    torch = drawn()
    means, variances = (torch.buffers[f"bn.running_{n}"] for n in ("mean", "var"))
    statistics = [(b[1] - _B * b[0]) / MOMENTUM for b in (means, variances)]
    jax = with_buffers(
        torch,
        lambda b, s: _moved(MOMENTUM)(b, statistics[1]),
        lambda b, s: _moved(MOMENTUM)(b, statistics[0]),
    )
    assert kinds(found(torch, jax, "buffers", 1, "bn.running_mean")) == [
        "mean and variance swapped"
    ]


def test_honest_and_unknown_buffers_have_no_cause() -> None:
    torch = drawn()
    assert not found(torch, roughly(torch), "buffers", 1, "bn.running_mean")

    def noisy(before: np.ndarray, statistic: np.ndarray) -> np.ndarray:
        noise = 1 + 0.1 * _rng.normal(size=statistic.shape)
        return _moved(MOMENTUM)(before, statistic * noise)

    assert not found(torch, with_buffers(torch, noisy, noisy), "buffers", 1, "bn.running_mean")


def test_a_variance_that_starts_at_0_and_statistics_of_evaluation() -> None:
    torch = drawn()
    start = {
        "bn.running_mean": torch.buffers["bn.running_mean"],
        "bn.running_var": torch.buffers["bn.running_var"].copy(),
    }
    start["bn.running_var"][0] = 0
    (cause,) = found(
        torch, dataclasses.replace(torch, buffers=start), "buffers", 0, "bn.running_var"
    )
    assert cause.says == "bn.running_var is 0 everywhere"
    jax = with_buffers(torch, lambda b, s: b, lambda b, s: b)
    jax = with_grads(jax, lambda _, g: g + 1e-3 * _rng.normal(size=g.shape))
    assert kinds(found(torch, jax, "loss", 1, "loss")) == ["candidate: evaluation mode"]


# Batches

BATCHES: list[tuple[str, Callable[[dict[str, np.ndarray], Trace], dict[str, np.ndarray]], str]] = [
    (
        "samples in another order",
        lambda b, _: {n: a[::-1] for n, a in b.items()},
        "in reverse, as are those of y",
    ),
    (
        "samples in another order apart",
        lambda b, _: b | {"x": np.roll(b["x"], 1, 0)},
        "rolled by 1, those of y are not",
    ),
    ("batch of another step", lambda _, t: t.inputs_of(2), "step 4 has what PyTorch has 1 earlier"),
    ("batch of another step", lambda _, t: t.inputs_of(5), "2 later"),
    (
        "fewer samples",
        lambda b, _: {n: a[:4] for n, a in b.items()},
        "4 of PyTorch's 6 samples: 0, 1, 2, 3",
    ),
    ("samples repeated", lambda b, _: b | {"x": b["x"][[0, 1, 2, 3, 0, 1]]}, "more than once"),
    ("normalized", lambda b, _: b | {"x": b["x"] / 2 + 3}, "times 0.5 plus 3"),
    ("normalized", lambda b, _: b | {"x": (b["x"] - [1, 2, 3, 4]) / [2, 4, 8, 5]}, "along axis 1"),
    ("rounded", lambda b, _: b | {"x": b["x"].astype(np.float16).astype(float)}, "float16"),
    ("flipped", lambda b, _: b | {"x": b["x"][:, ::-1]}, "along axis 1"),
]


@pytest.mark.parametrize(("kind", "change", "says"), BATCHES)
def test_what_a_batch_is_instead(kind: str, change: Any, says: str) -> None:
    torch = drawn()
    causes = found(torch, with_batch(torch, 3, change(torch.inputs_of(3), torch)), "batch", 4, "x")
    assert kinds(causes) == [kind]
    assert says in causes[0].says


def test_honest_and_unknown_batches_have_no_cause() -> None:
    torch = drawn()
    assert not found(torch, torch, "batch", 4, "x")
    other = {"x": _rng.normal(size=(SAMPLES, 4)), "y": torch.inputs_of(3)["y"]}
    assert not found(torch, with_batch(torch, 3, other), "batch", 4, "x")


def test_an_update_is_no_business_of_this() -> None:
    torch = drawn()
    assert not found(
        torch, with_start(torch, {"head.bias": np.zeros_like}), "params", 3, "head.bias"
    )
    assert not found(torch, with_grads(torch, lambda _, g: 2 * g), "params", 1, "head.bias")
