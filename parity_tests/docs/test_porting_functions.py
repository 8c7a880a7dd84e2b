"""docs/porting/functional.md and losses.md say what the tables say, and gaps that are so."""

import pytest
from helpers.porting_functions import FILES, as_stated, other_gaps, other_words, rows, stated

WRITE = "python -m parity_tests.helpers.porting_functions --write"
each_page = pytest.mark.parametrize("losses", FILES, ids=["functions", "losses"])


@each_page
def test_a_page_has_the_tables_words(losses: bool) -> None:
    text = FILES[losses].read_text()
    assert other_words(losses, text) == [], WRITE
    assert stated(text).keys() == rows(losses).keys()
    name, (port, _) = next(iter(rows(losses).items()))
    assert other_words(losses, text.replace(f"`{name}`", "`other`", 1))
    assert other_words(losses, text.replace(port.why, "for no reason", 1))


@pytest.mark.slow
@each_page
def test_a_pages_gaps_are_so(losses: bool) -> None:
    assert other_gaps(losses, FILES[losses].read_text()) == [], WRITE


def test_another_gap_is_noticed() -> None:
    assert as_stated("0.3", "0.25")
    assert as_stated("not finite", "not finite")
    for said, gap in (("0.3", "3e-4"), ("", "0.3"), ("not finite", "0.3"), ("0.3", "other shapes")):
        assert not as_stated(said, gap)
