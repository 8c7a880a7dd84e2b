"""functional.md, losses.md and layers.md of docs/porting say what the tables say, and true gaps."""

import pytest
from helpers.porting_tables import PAGES, Page, as_stated, other_gaps, other_words, stated

WRITE = "python -m parity_tests.helpers.porting_tables --write"
each_page = pytest.mark.parametrize("page", PAGES, ids=[page.name for page in PAGES])


@each_page
def test_a_page_has_the_tables_words(page: Page) -> None:
    text = page.file.read_text()
    assert other_words(page, text) == [], WRITE
    assert stated(text).keys() == page.rows().keys()
    cell, why = next((cell, port.why) for cell, (port, _) in page.rows().items() if port.why)
    assert other_words(page, text.replace(f"| {cell} |", "| `other` |", 1))
    assert other_words(page, text.replace(why, "for no reason", 1))


@pytest.mark.slow
@each_page
def test_a_pages_gaps_are_so(page: Page) -> None:
    assert other_gaps(page, page.file.read_text()) == [], WRITE


def test_another_gap_is_noticed() -> None:
    assert as_stated("0.3", "0.25")
    assert as_stated("not finite", "not finite")
    for said, gap in (("0.3", "3e-4"), ("", "0.3"), ("not finite", "0.3"), ("0.3", "other shapes")):
        assert not as_stated(said, gap)
