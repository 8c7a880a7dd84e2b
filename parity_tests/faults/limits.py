"""What float32, and float64, can hide: the smallest size at which a fault of a kind is seen.

    PYTHONPATH=parity_tests python -m faults.limits

prints the table of docs/limits.md. PyTorch has the fault, JAX is as it is.
"""

import functools
import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import pytest

from faults.kinds import KINDS, cell
from faults.pairs import Honest, HonestJax, Pair, Plant
from faults.plants_anywhere import replaced
from faults.plants_of_kinds import in_float32, leaky, rounded_states
from faults.plants_torch import torch_optimizer
from twinstep import Verdict

LARGEST = 1.0
HALVINGS = 7  # of a decade's logarithm: sizes to 2 %

EXAMPLES = ("adam_update", "backpropagation")


class Sized(NamedTuple):
    """A kind of fault whose size can be anything; at 0 it is not there."""

    says: str
    examples: tuple[str, ...]
    plant: Callable[[float], Plant]


def _kind(says: str) -> Callable[[float], Plant]:
    (found,) = (kind.plants.torch for kind in KINDS if kind.says == says)
    assert found is not None
    return found


def _adam(**changes: Any) -> Plant:
    """Other arguments of Adam, where this one run makes it."""

    def wrong(right: Callable[..., Any]) -> Callable[..., Any]:
        def build(problem: Any) -> Any:
            with pytest.MonkeyPatch.context() as inner:
                torch_optimizer("Adam", None, **changes)(inner, None)
                return right(problem)

        return build

    return replaced("build", wrong)


def _forgets(index: int) -> Callable[[float], Plant]:
    """The part of a moment that is forgotten, 1 - beta, is so much more."""

    def moved(size: float, betas: tuple[float, float]) -> list[float]:
        found = list(betas)
        found[index] = 1 - (1 - found[index]) * (1 + size)
        return found

    return lambda size: _adam(betas=functools.partial(moved, size))


WITH_ADAM = ("adam_update",)
SIZED = [
    Sized("loss, in value alone", EXAMPLES, _kind("loss a part too large in value alone")),
    Sized("gradients", EXAMPLES, _kind("gradients a part too large")),
    Sized("learning rate", EXAMPLES, _kind("learning rate a part too large")),
    Sized("decay of the parameters", EXAMPLES, _kind("parameters decay")),
    Sized("slope of ReLU below 0", ("backpropagation",), leaky),
    Sized("Adam's 1 - beta1", WITH_ADAM, _forgets(0)),
    Sized("Adam's 1 - beta2", WITH_ADAM, _forgets(1)),
    Sized("Adam's eps", WITH_ADAM, lambda size: _adam(eps=lambda eps: eps * (1 + size))),
]


def seen(plant: Plant, where: Pair, honest: Honest) -> bool:
    """Whether the judge calls a fault one."""
    return honest.compared(where, torch=plant).verdict is Verdict.MISMATCH


def smallest(sized: Sized, where: Pair, honest: Honest) -> float:
    """The smallest size that is seen, to 2 %; inf where even 1 is not."""

    def at(exponent: float) -> bool:
        return seen(in_float32_or_not(sized.plant(10**exponent), where), where, honest)

    if not at(math.log10(LARGEST)):
        return math.inf
    high = math.log10(LARGEST)
    while high > -17 and at(high - 1):
        high -= 1
    low = high - 1
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        low, high = (low, middle) if at(middle) else (middle, high)
    return float(10**high)


def in_float32_or_not(plant: Plant, where: Pair) -> Plant:
    """A fault in float32 alone, or in a pair of float64."""
    return in_float32(plant) if dict(where.settings)["dtype"] == "float32" else plant


def rows(honest: Honest) -> Iterator[tuple[str, str, float, float]]:
    """Kind, example, smallest size in float32 and in float64."""
    for sized in SIZED:
        for example in sized.examples:
            low, high = (smallest(sized, cell(example, dtype), honest) for dtype in DTYPES)
            yield sized.says, example, low, high


DTYPES = ("float32", "float64")
FEWEST_BITS = range(4, 23)


def bits(where: Pair, honest: Honest) -> int:
    """The most bits to which recurrent states may be rounded and it is seen."""
    plants = {n: in_float32_or_not(rounded_states(n), where) for n in FEWEST_BITS}
    return max((n for n, plant in plants.items() if seen(plant, where, honest)), default=0)


def main() -> None:
    """Prints the table."""
    honest = HonestJax()
    print("| a part too large | example | float32 sees from | float64 sees from |")
    print("|---|---|---|---|")
    for says, example, low, high in rows(honest):
        print(f"| {says} | `{example}` | {_figure(low)} | {_figure(high)} |", flush=True)
    most = bits(cell("mnist_rnn", "float32"), honest)
    print(f"| states rounded | `mnist_rnn` | {most} bits or fewer | |", flush=True)


def _figure(size: float) -> str:
    return f"{size:.1e}" if math.isfinite(size) else "not at all"


if __name__ == "__main__":
    main()
