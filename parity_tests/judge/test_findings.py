"""A finding in a sentence: whose number is whose, in as many digits as tell them apart."""

import dataclasses
import math

import pytest
from helpers.synthetic_traces import made, metadata, with_fault

from twinstep import Trace, compare
from twinstep.judge.findings import Comparison, Finding
from twinstep.report import terminal


def of(trace: Trace, framework: str) -> Trace:
    """The same trace, said to be of another framework."""
    return dataclasses.replace(trace, metadata=metadata(framework=framework))


def spoilt(*frameworks: str) -> Comparison:
    """Two traces of these frameworks, of which the second is off at step 3."""
    return compare(of(made(), frameworks[0]), with_fault(of(made(), frameworks[1]), *AT, 9))


AT = ("raw_grads", "bias", 3)


@pytest.mark.parametrize("frameworks", [("torch", "jax"), ("jax", "torch")])
def test_numbers_name_their_framework(
    frameworks: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    comparison = spoilt(*frameworks)
    says = f"step 3, raw_grads, bias[2]: {frameworks[0]} 2, {frameworks[1]} 9, apart 7, allowed "
    assert comparison.reason.startswith(says)
    assert comparison.to_dict()["first"]["sides"] == list(frameworks)
    terminal.print_comparison(comparison)
    assert capsys.readouterr().out.count(f"{frameworks[0]} 2, {frameworks[1]} 9,") == 2
    both_nan = [with_fault(of(made(), name), *AT, float("nan")) for name in frameworks]
    assert compare(*both_nan).reason.endswith(f"is nan ({frameworks[0]}) and nan ({frameworks[1]})")


def test_numbers_of_one_framework_are_the_first_and_the_second() -> None:
    assert "bias[2]: first 2, second 9, apart" in spoilt("jax", "jax").reason


@pytest.mark.parametrize(
    ("pair", "says"),
    [
        ((0.00389, 0.0389), "first 0.00389, second 0.0389"),
        ((1.0, 1.0 + 2**-52), "first 1, second 1.0000000000000002"),
        ((0.123456789, 0.123456799), "first 0.12345679, second 0.1234568"),
        ((5e-324, 1e-323), "first 4.94e-324, second 9.88e-324"),
        ((0.0, -0.0), "first 0, second -0"),
        ((2.0, 2.0), "first 2, second 2"),
        ((0.12345, 0.12345), "first 0.123, second 0.123"),
        ((1.0, 1.000000000000001), "first 1, second 1.000000000000001"),
        ((float("nan"), 1e300), "first nan, second 1e+300"),
        ((4294967295, 4294967294), "first 4294967295, second 4294967294"),
    ],
)
def test_two_numbers_are_told_apart(pair: tuple[float, float], says: str) -> None:
    finding = Finding(1, "loss", "loss", (), *pair, difference=0.035, allowed=6.9e-18, ulps=1)
    assert str(finding) == f"step 1, loss, loss: {says}, apart 0.035, allowed 6.9e-18"


@pytest.mark.parametrize("pair", [(float("nan"), 1.0), (1.0, float("inf"))])
def test_what_is_no_number_is_within_nothing(pair: tuple[float, float]) -> None:
    assert Finding(1, "loss", "loss", (), *pair, difference=1, allowed=9, ulps=1).ratio == math.inf
    assert Finding(1, "loss", "loss", (), 1, 2, difference=3, allowed=2, ulps=1).ratio == 1.5


def test_batches_that_are_alike_need_no_allowance() -> None:
    """But a batch that is not has none that would do; and of nothing judged there is no figure."""
    same = compare(made(), made())
    assert same.smallest_allowance("free") == 0
    assert math.isnan(same.smallest_allowance("gate"))
    batch = same.worst["free"]["batch"]
    alone = dataclasses.replace(same, worst={"free": {"batch": batch}})
    assert math.isnan(alone.smallest_allowance("free"))
    other = dataclasses.replace(batch, difference=math.inf)
    alone = dataclasses.replace(same, worst={"free": {"batch": other}})
    assert alone.smallest_allowance("free") == math.inf
