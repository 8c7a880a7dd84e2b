"""A loss of some of the micro-batches is named, and no other loss is."""

import dataclasses
from collections.abc import Callable
from functools import cache

import numpy as np
import pytest

import twinstep
from port.ports import torch_trace
from twinstep.trace.ledger import Trace

theirs = cache(torch_trace)


def _left(parts: np.ndarray, dtype: str = "float64") -> tuple[Trace, Trace]:
    """PyTorch's, and one with another first loss and other gradients, which says nothing more."""
    one = theirs("gru_dicts", 1, dtype)
    grads = {name: 0.9 * array + 1e-3 * array**2 for name, array in one.raw_grads.items()}
    losses = one.losses.copy()
    losses[0] = parts.sum()
    return one, dataclasses.replace(one, losses=losses, raw_grads=grads)


# of four micro-batches' losses, each divided by 4
CASES: dict[str, tuple[Callable[[np.ndarray], np.ndarray], str]] = {
    "last": (lambda parts: 4 * parts[3:], "that of the last of 4 micro-batches alone;"),
    "last by 4": (lambda parts: parts[3:], "the last of 4 micro-batches alone, divided by 4"),
    "third": (lambda parts: 4 * parts[2:3], "that of number 3 of 4 micro-batches alone;"),
    "three": (lambda parts: parts[:3] * 4 / 3, "all of 4 micro-batches but the last, divided by 3"),
    "three by 4": (lambda parts: parts[1:], "all of 4 micro-batches but the first, divided by 4"),
}


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("case", CASES)
def test_micro_batches_that_are_left_out_are_named(case: str, dtype: str) -> None:
    change, says = CASES[case]
    parts = theirs("gru_dicts", 1, dtype).micro_losses["loss"][:4]
    found = twinstep.prove(*_left(change(parts), dtype))
    assert len(found.causes) == 1
    assert says in found.causes[0]


# the mean over the whole batch has other weights than the mean of means
OTHERS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "two": lambda parts: 2 * parts[1:3],
    "whole batch": lambda parts: parts * np.array([1.1, 0.9, 0.95, 1.05]),
    "nearly the last": lambda parts: 4 * parts[3:] * (1 + 1e-9),
}


@pytest.mark.parametrize("case", OTHERS)
def test_another_loss_is_not_named(case: str) -> None:
    parts = theirs("gru_dicts", 1, "float64").micro_losses["loss"][:4]
    assert twinstep.prove(*_left(OTHERS[case](parts))).causes == ()


def test_what_chance_may_make_is_not_named() -> None:
    one, other = _left(theirs("gru_dicts", 1, "float32").micro_losses["loss"][3:4] * 4, "float32")
    alike = {"loss": np.full(48, one.losses[0] / 4) * (1 + 1e-4 * np.arange(48) / 48)}
    one = dataclasses.replace(one, micro_losses=alike)
    other.losses[0] = np.sum(alike["loss"][:3]) * 4 / 3
    assert twinstep.prove(one, other).causes == ()
