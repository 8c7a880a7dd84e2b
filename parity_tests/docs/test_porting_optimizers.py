"""docs/porting/optimizers.md says what is so: every gap on it is measured again."""

import math

import pytest
from helpers.optimizer_runs import OPTIM_DB
from helpers.porting_optimizers import PAGE, ROWS, Row, faults, gaps, is_as_stated, shown
from helpers.porting_schedules import stated

pytestmark = pytest.mark.slow


def test_the_page_is_true() -> None:
    measured = {row.torch: gaps(row) for row in ROWS}
    text = PAGE.read_text()

    def measure(row: Row) -> tuple[float, float]:
        return measured[row.torch]

    assert faults(text, measure) == [], "python -m parity_tests.helpers.porting_optimizers --write"
    off = {row.name for row in ROWS if stated(text)[row.torch][1] != "rounding"}
    assert off == {"Muon"}  # whose bfloat16 is PyTorch's own
    # and it is seen when it is not
    first = ROWS[0]
    for old, new in (
        (first.twin, "sgd(lr=0.1)"),
        (first.optax, "sgd(0.1)"),
        (first.why, "for no reason"),
        ("A gap is", "No gap is"),
        ("| rounding | rounding |", "| 0.5 | rounding |"),
        ("| rounding | rounding |", "| rounding | about 0.1 |"),
        (f"| `{first.torch}`", "| `Other(params)`"),
    ):
        assert old in text
        assert faults(text.replace(old, new, 1), measure)


def test_how_gaps_are_stated() -> None:
    for gap in (0.0, 1e-15, 3e-9, 0.0123, 0.5, 4.0, math.inf, math.nan):
        for about in (True, False):
            assert is_as_stated(shown(gap, about), gap)
    assert shown(0.04, about=True) == "about 0.1"


@pytest.mark.parametrize(
    ("words", "gap"),
    [
        ("rounding", 1e-9),
        ("1e-8", 1e-15),
        ("0.5", 0.4),
        ("NaN", 0.1),
        ("about 0.1", 1.1),
        ("about 0.1", 1e-13),
        ("0.1", math.nan),
        ("about 1", math.inf),
        ("no such optimizer", 0.1),
    ],
)
def test_other_gaps_are_seen(words: str, gap: float) -> None:
    assert not is_as_stated(words, gap)


def test_every_optimizer_is_on_the_page() -> None:
    assert {row.name for row in ROWS} == set(OPTIM_DB)
    assert len({row.torch for row in ROWS}) == len(ROWS)
