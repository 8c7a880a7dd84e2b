"""Honest pairs, many of them: every example by seeds, dtypes, rates, threads and ways to update."""

import functools
import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
import pytest
import torch

import twinstep.jax.optim._adam
from faults.dials import Dial
from faults.kinds import cell
from faults.pairs import Pair, Programs, pair, spec_of, verify_only
from faults.plants_torch import torch_optimizer
from twinstep.judge.findings import Comparison

# short binary fractions: a dial turns them into neither dtype's rounding
RATES = (2.0**-5, 2.0**-7, 2.0**-9, 2.0**-12)
OPTIMIZER_FLAGS: tuple[tuple[int, dict[str, bool]], ...] = (
    (1, {}),
    (1, {"foreach": True}),
    (1, {"fused": True}),
    (2, {}),
    (1, {"foreach": False}),
    (2, {"fused": True}),
)
"""PyTorch's threads, and how its optimizer is told to compute."""


class HonestPair(NamedTuple):
    """Two right trainings of one problem, and how PyTorch computes its own."""

    pair: Pair
    threads: int
    flags: dict[str, bool]

    def __str__(self) -> str:
        return f"{self.pair}, {self.threads} threads, {self.flags or 'as it is'}"


def honest(example: str, dtype: str, seeds: range, *, rates: bool = False) -> Iterator[HonestPair]:
    """A pair a seed of one example; rates: by other learning rates than the document's, in turn."""
    flags_in_turn = itertools.cycle(OPTIMIZER_FLAGS)
    settings = dict(cell(example, dtype).settings)
    for seed, rate in zip(seeds, itertools.cycle(RATES)):
        more: dict[str, Any] = {"learning_rate": rate} if rates else {}
        yield HonestPair(pair(example, **{**settings, "seed": seed, **more}), *next(flags_in_turn))


def judged(each: HonestPair, programs: Programs) -> Comparison:
    """What the judge says of an honest pair, its JAX side run by `programs`."""
    before = torch.get_num_threads()
    with pytest.MonkeyPatch.context() as patch:
        for kind in ("SGD", "Adam"):
            torch_optimizer(kind, None, **each.flags)(patch, None)
        programs.share(patch)
        torch.set_num_threads(each.threads)
        try:
            return verify_only(patch, each.pair).comparison
        finally:
            torch.set_num_threads(before)


class AnyRate(Programs):
    """JAX's programs of an example, which ask for the learning rate as they run."""

    def __init__(self) -> None:
        super().__init__()
        self._dial = Dial()
        self.numbers = self.numbers | {"learning_rate"}

    def judged(self, each: HonestPair) -> Comparison:
        """What the judge says of an honest pair."""

        def rate_at(lr: Any, step: jax.Array) -> jax.Array:
            return jnp.asarray(self._dial(), float)

        rate: float = spec_of(each.pair).hyper_parameters()["learning_rate"]
        with pytest.MonkeyPatch.context() as patch, self._dial.at(rate):
            patch.setattr(twinstep.jax.optim._adam, "rate_at", rate_at)
            patch.setattr(optax, "sgd", functools.partial(self._sgd, optax.sgd))
            return judged(each, self)

    def _sgd(self, right: Any, learning_rate: float) -> optax.GradientTransformation:
        """optax's, its rate asked for in each update."""

        def update(grads: Any, state: Any, params: Any = None) -> Any:
            made: Any = right(jnp.asarray(self._dial(), float)).update(grads, state, params)
            return made

        return optax.GradientTransformation(right(learning_rate).init, update)


def alarms(pairs: Iterable[HonestPair], judge: Callable[[HonestPair], Comparison]) -> list[str]:
    """Of some honest pairs, those that are not called the same."""
    return [
        f"{each}: {found.verdict}, {found.reason}"
        for each in pairs
        if not ((found := judge(each)).verdict.same and found.first is None)
    ]
