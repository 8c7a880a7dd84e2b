"""docs/limits.md says the smallest fault that is seen of each kind: it is what is measured."""

import re
from pathlib import Path

import pytest
from faults.limits import DTYPES, SIZED, rows, seen
from faults.pairs import HonestJax, pair
from faults.plants_of_kinds import in_float32

pytestmark = pytest.mark.quick_to_compile

PAGE = Path(__file__).parents[2] / "docs" / "limits.md"
ROW = re.compile(
    r"^\| (?P<says>[^|]+) \| `(?P<example>\w+)` \| (?P<low>[^|]+) \| (?P<high>[^|]+) \|"
)


def table() -> dict[tuple[str, str], tuple[float, float]]:
    """{(kind, example): (smallest size in float32, in float64)}; inf: at no size."""
    lines = PAGE.read_text().replace("not at all", "inf").splitlines()
    found = (ROW.match(line) for line in lines)
    return {
        (row["says"], row["example"]): (float(row["low"]), float(row["high"]))
        for row in found
        if row and "bits" not in row["low"]
    }


def test_every_kind_is_in_the_table() -> None:
    assert table().keys() == {(s.says, example) for s in SIZED for example in s.examples}
    for low, high in table().values():
        assert high < low  # float64 sees less


def test_faults_of_twice_the_size_are_seen_and_of_half_are_not() -> None:
    honest = HonestJax()
    (sized,) = (each for each in SIZED if each.says == "learning rate")
    for dtype, size in zip(DTYPES, table()[sized.says, "adam_update"], strict=True):
        where = pair("adam_update", dtype)
        for factor, found in ((2, True), (0.5, False)):
            plant = sized.plant(factor * size)
            only = in_float32(plant) if dtype == "float32" else plant
            assert seen(only, where, honest) == found


@pytest.mark.slow
def test_table_is_what_is_measured() -> None:
    for says, example, *measured in rows(HonestJax()):
        for said, size in zip(table()[says, example], measured, strict=True):
            assert said == size or said / 2 < size < said * 2, (says, example, said, size)
