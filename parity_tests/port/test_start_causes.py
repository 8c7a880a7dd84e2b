"""Each fault of a start is named, and nothing else is: of drawn traces, not trained ones."""

from collections.abc import Callable

import numpy as np
import pytest

from port.drawn_traces import (
    drawn,
    found,
    kinds,
    with_start,
)
from twinstep.trace.ledger import Trace

Change = Callable[[np.ndarray], np.ndarray]

_rng = np.random.default_rng(7)
STARTS: list[tuple[str, str, Change, str]] = [
    ("square.weight", "transposed", np.transpose, "PyTorch's transposed"),
    ("conv.weight", "axes in another order", lambda w: w.swapaxes(2, 3), "(0, 1, 3, 2)"),
    ("conv.weight", "axes in another order", lambda w: w.swapaxes(0, 1), "(1, 0, 2, 3)"),
    ("conv.weight", "flipped", lambda w: w[:, :, ::-1, ::-1], "axes 2 and 3"),
    ("head.bias", "flipped", lambda b: b[::-1], "axis 0"),
    (
        "gru.weight_ih_l0",
        "parts in another order",
        lambda w: np.concatenate([w[4:8], w[:4], w[8:]]),
        "z, r, n, for r, z, n",
    ),
    (
        "lstm.bias_ih_l0",
        "parts in another order",
        lambda b: np.concatenate([b[:4], b[4:8], b[12:], b[8:12]]),
        "i, f, o, g, for i, f, g, o",
    ),
    (
        "qkv.weight",
        "parts in another order",
        lambda w: np.concatenate([w[8:16], w[:8], w[16:]]),
        "k, q, v, for q, k, v",
    ),
    (
        "qkv.weight",
        "transposed",
        lambda w: np.concatenate([part.T for part in np.split(w, 3)]),
        "3 square parts",
    ),
    (
        "qkv.weight",
        "transposed",
        lambda w: np.concatenate([w[:8], w[8:16].T, w[16:]]),
        "qkv.weight[8:16] is PyTorch's transposed",
    ),
    (
        "qkv.bias",
        "constant",
        lambda b: np.where(np.arange(24) // 8 == 1, 0, b),
        "qkv.bias[8:16] is 0",
    ),
    (
        "qkv.weight",
        "split otherwise",
        lambda w: w.reshape(2, 3, 4, 8).swapaxes(0, 1).reshape(24, 8),
        "rows taken as (2, 3, 4) and turned to (3, 2, 4)",
    ),
    (
        "square.weight",
        "split otherwise",
        lambda w: w.reshape(8, 2, 4).swapaxes(1, 2).reshape(8, 8),
        "columns taken as (2, 4) and turned to (4, 2)",
    ),
    (
        "flat.weight",
        "flatten order",
        lambda w: w.reshape(6, 4, 9).swapaxes(1, 2).reshape(6, 36),
        "channels (4) last, for channels first",
    ),
    ("head.weight", "constant", np.zeros_like, "0 everywhere"),
    ("norm.weight", "constant", np.zeros_like, "0 everywhere"),
    (
        "square.weight",
        "constant",
        lambda w: np.where(np.arange(8)[:, None] == 3, 0, w),
        "in 1 of 8 rows: 3",
    ),
    ("head.weight", "scaled", lambda w: 0.02 * w, "times 0.02"),
    ("head.weight", "negative", np.negative, "by -1"),
    ("head.weight", "shifted", lambda w: w - 1, "plus -1"),
    ("head.weight", "rounded", lambda w: w.astype(np.float16).astype(float), "float16"),
    ("head.weight", "rounded", lambda w: w.astype(np.float32).astype(float), "float32"),
    ("square.weight", "rows in another order", lambda w: w[[0, 3, 1, 2, 5, 4, 6, 7]], "0, 3, 1, 2"),
    (
        "square.weight",
        "some rows",
        lambda w: np.where(np.isin(np.arange(8), (2, 5))[:, None], w[::-1] + w, w),
        "2 of 8 rows: 2, 5",
    ),
    (
        "square.weight",
        "another order",
        lambda w: _rng.permuted(w, axis=None).reshape(8, 8),
        "another order",
    ),
    ("square.weight", "another start", lambda w: _rng.normal(size=w.shape), "but as large"),
    ("square.weight", "another start", lambda w: 3 * _rng.normal(size=w.shape), "otherwise"),
]


@pytest.mark.parametrize(("leaf", "kind", "change", "says"), STARTS)
def test_what_a_start_is_instead(leaf: str, kind: str, change: Change, says: str) -> None:
    torch = drawn()
    causes = found(torch, with_start(torch, {leaf: change}), "params", 0, leaf)
    assert kinds(causes) == [kind]
    assert says in causes[0].says


def test_numbers_of_a_start_are_solved_for() -> None:
    torch = drawn()
    (cause,) = found(
        torch, with_start(torch, {"head.weight": lambda w: 0.3 * w}), "params", 0, "head.weight"
    )
    assert cause.values["factor"] == pytest.approx(0.3)


def exchanged(torch: Trace, one: str, other: str) -> Trace:
    a, b = (torch.params[name][0].copy() for name in (one, other))
    return with_start(torch, {one: lambda _: b, other: lambda _: a})


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("square.weight", "twin.weight"),
        ("norm.weight", "norm.bias"),
        ("gru.bias_ih_l0", "gru.bias_hh_l0"),
    ],
)
def test_leaves_that_stand_for_each_other(one: str, other: str) -> None:
    torch = drawn()
    causes = found(torch, exchanged(torch, one, other), "params", 0, one)
    assert kinds(causes) == ["swapped"]
    assert causes[0].says == f"{one} and {other} stand for each other"


def test_a_copy_of_another_leaf_or_of_a_part() -> None:
    torch = drawn()
    twin, fused = torch.params["twin.weight"][0], torch.params["qkv.weight"][0]
    (cause,) = found(
        torch, with_start(torch, {"square.weight": lambda _: twin}), "params", 0, "square.weight"
    )
    assert cause.says == "square.weight is PyTorch's twin.weight"
    (cause,) = found(
        torch,
        with_start(torch, {"square.weight": lambda _: fused[8:16]}),
        "params",
        0,
        "square.weight",
    )
    assert cause.says == "square.weight is PyTorch's qkv.weight[8:16]"


def test_a_part_in_the_place_of_another() -> None:
    torch = drawn()
    changes: dict[str, Change] = {"qkv.weight": lambda w: np.concatenate([w[:8], w[:8], w[16:]])}
    (cause,) = found(torch, with_start(torch, changes), "params", 0, "qkv.weight")
    assert cause.says == "qkv.weight[8:16] is PyTorch's qkv.weight[0:8]"


def test_merged_biases_move_at_half_the_speed() -> None:
    torch = drawn()
    hidden = torch.params["gru.bias_hh_l0"][0]
    changes = {
        "gru.bias_ih_l0": lambda b: np.concatenate([(b + hidden)[:8], b[8:]]),
        "gru.bias_hh_l0": lambda b: np.concatenate([0 * b[:8], b[8:]]),
    }
    (cause,) = found(torch, with_start(torch, changes), "params", 0, "gru.bias_ih_l0")
    assert cause.kind == "biases merged"


def test_leaves_that_are_off_alike_are_one_cause_and_others_are_named() -> None:
    torch = drawn()
    changes: dict[str, Change] = dict.fromkeys(("square.weight", "twin.weight"), np.transpose)
    changes["head.bias"] = np.zeros_like
    (cause,) = found(torch, with_start(torch, changes), "params", 0, "square.weight")
    assert cause.says == (
        "square.weight and twin.weight are PyTorch's transposed; head.bias differs otherwise"
    )


@pytest.mark.parametrize(
    "change",
    [
        lambda w: w + 1e-3 * _rng.normal(size=w.shape),
        lambda w: 1.01 * w.T,  # two at once
        lambda w: _rng.permuted(w, axis=None).astype(np.float16).astype(float).reshape(8, 8),
        lambda w: np.full_like(w, np.nan),
    ],
)
def test_an_unknown_start_has_no_cause(change: Change) -> None:
    torch = drawn()
    assert not found(
        torch, with_start(torch, {"square.weight": change}), "params", 0, "square.weight"
    )
