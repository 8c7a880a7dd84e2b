"""docs/differences.md stays true: every difference is still there, as large as it says, and mended
by what it says.

The pages are read, run and measured by `differences`; here each entry is a test, and the machinery
is held to a page that is planted with what it must find.
"""

import dataclasses
import math
import os
import re
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
import torch
from helpers.differences import (
    INDEX,
    VERSIONS,
    Entry,
    check,
    entries,
    faults,
    gap,
    gone,
    index,
    is_as_stated,
    is_here,
    measure,
    pages,
    parse,
    rewritten,
    shown,
    traits,
)

ENTRIES = entries()
EPS = 2.0**-52
PROLOGUE = "import torch\nimport jax\nimport jax.numpy as jnp\nimport numpy as np\n" + (
    "torch.set_default_dtype(torch.float64)\njax.config.update('jax_enable_x64', True)\n"
)

PAGE = f"""# Planted

```python
TWO = 2.0
```

## Half of it

PyTorch gives twice what JAX gives, and nobody knows why.

```python
torch_value = TWO * torch.ones(3)
jax_value = jnp.ones(3)
fixed = 2 * jnp.ones(3)
```

- Gap: 0.5; fixed: 0 (float64)
- Seen on: {VERSIONS}
"""


def with_fault(*changes: tuple[str, str]) -> Entry:
    """The entry of PAGE, with changes made to its text."""
    text = PAGE
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    (entry,) = parse(text, "docs/differences/planted.md", PROLOGUE)
    return entry


def found(*changes: tuple[str, str]) -> list[str]:
    """What is wrong with the entry of PAGE after changes to its text."""
    return check(with_fault(*changes))


# The pages


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.title)
def test_the_difference_is_there_and_the_fix_fixes_it(entry: Entry) -> None:
    if not is_here(entry):
        pytest.skip(f"seen only with {' or '.join(entry.only)}, this is {', '.join(traits())}")
    found = check(entry)
    assert not found, "\n".join(found)


def test_the_index_has_every_entry_and_no_other() -> None:
    assert index(ENTRIES) in INDEX.read_text(), "python -m parity_tests.helpers.differences --write"


def test_every_page_is_linked_and_has_entries() -> None:
    assert sorted(pages()) == sorted((INDEX.parent / "differences").glob("*.md"))
    assert {Path(entry.page).name for entry in ENTRIES} == {page.name for page in pages()}


def test_titles_differ() -> None:
    titles = [entry.title for entry in ENTRIES]
    assert sorted(titles) == sorted(set(titles))


def test_links_between_the_pages_lead_somewhere() -> None:
    anchors = {entry.anchor for entry in ENTRIES} | {"differences.md#how-to-read-an-entry"}
    for page in pages():
        links = re.findall(r"\]\(([\w./]+\.md#[^)]+)\)", page.read_text())
        found = {os.path.normpath(Path("differences") / link) for link in links}
        assert "differences.md#how-to-read-an-entry" in found
        assert found <= anchors


# What the machinery must find


def test_what_is_true_passes() -> None:
    assert found() == []


def test_a_difference_that_has_gone_is_found() -> None:
    (fault,) = found(("jnp.ones(3)\nfixed", "2 * jnp.ones(3)\nfixed"))
    assert fault.startswith("Half of it: JAX now agrees with PyTorch (gap 0, seen last on torch ")
    assert fault.endswith("take the entry out of docs/differences/planted.md, or mend it")


def test_a_difference_that_has_become_rounding_is_found() -> None:
    (fault,) = found(("jnp.ones(3)\nfixed", "2 * jnp.ones(3) * (1 + 2.0**-50)\nfixed"))
    assert "now agrees" in fault


def test_one_case_of_many_that_has_gone_is_found() -> None:
    cases = (
        ("torch_value = TWO * torch.ones(3)", "torch_value = {'a': 2.0, 'b': 2.0}"),
        ("jax_value = jnp.ones(3)", "jax_value = {'a': 1.0, 'b': 2.0}"),
        ("fixed = 2 * jnp.ones(3)", "fixed = {'a': 2.0, 'b': 2.0}"),
    )
    assert "now agrees with PyTorch in b (gap 0," in found(*cases)[0]


def test_a_missing_function_that_has_come_is_found() -> None:
    assert "now agrees" in found(("= jnp.ones(3)", "= getattr(jnp, 'ones', None)"))[0]
    missing = ("= jnp.ones(3)", "= getattr(jnp, 'no_such', None)"), ("0.5;", "infinite;")
    assert found(*missing) == []


@pytest.mark.parametrize("stated", ["0.4", "0.52", "5e-2", "infinite", "1e-3 to 0.4", "last bits"])
def test_a_wrong_gap_is_found(stated: str) -> None:
    (fault,) = found(("Gap: 0.5", f"Gap: {stated}"))
    assert fault == f"Half of it: the gap is 0.5, docs/differences/planted.md says {stated}"


@pytest.mark.parametrize("fix", ["jnp.ones(3)", "2.000001 * jnp.ones(3)", "jnp.ones(3) * np.nan"])
def test_a_fix_that_does_not_fix_is_found(fix: str) -> None:
    (fault,) = found(("fixed = 2 * jnp.ones(3)", f"fixed = {fix}"))
    assert "the fix is off by" in fault


def test_a_fix_that_leaves_the_last_bits_off_is_found() -> None:
    """Where rounding is the difference, what rounding explains explains nothing."""
    near = "2 * jnp.ones(3) * (1 + 2.0**-52)"
    last_bits = ("jnp.ones(3)\nfixed", f"{near}\nfixed"), ("0.5;", "last bits;")
    assert found(*last_bits) == []
    (fault,) = found(*last_bits, ("fixed = 2 * jnp.ones(3)", f"fixed = {near}"))
    assert "the fix is off by" in fault


def test_a_fix_on_the_side_of_pytorch_is_measured_there() -> None:
    assert found(("fixed = 2 * jnp.ones(3)", "torch_fixed = torch.ones(3)")) == []
    (fault,) = found(("fixed = 2 * jnp.ones(3)", "torch_fixed = 2 * torch.ones(3)"))
    assert "the fix is off by" in fault


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("fixed: 0", "no fix"),
        ("fixed = ", "unfixed = "),
    ],
)
def test_a_fix_that_only_page_or_code_knows_is_found(old: str, new: str) -> None:
    (fault,) = found((old, new))
    assert fault.endswith("its code do not agree on there being a fix")


def test_another_dtype_than_the_page_says_is_found() -> None:
    (fault,) = found(("(float64)", "(float32)"))
    assert fault.startswith("Half of it: computed in float64")


def test_a_table_that_is_not_what_was_measured_is_found() -> None:
    cases = (
        ("torch_value = TWO * torch.ones(3)", "torch_value = {'a': 2.0}"),
        ("jax_value = jnp.ones(3)", "jax_value = {'a': 1.0}"),
        ("fixed = 2 * jnp.ones(3)", "fixed = {'a': 2.0}"),
    )
    assert "the table in docs/differences/planted.md should be" in found(*cases)[0]
    table = "| case | PyTorch | JAX |\n|---|---|---|\n| a | 2 | 1 |\n"
    assert found(*cases, ("\n- Gap", f"\n{table}\n- Gap")) == []


@pytest.mark.parametrize(
    ("old", "new", "lacks"),
    [
        ("```python\ntorch", "```\ntorch", "one ```python block"),
        ("torch_value =", "value =", "a value for torch_value"),
        ("jax_value =", "value =", "a value for jax_value"),
        ("- Gap: 0.5", "- Off: 0.5", "one line '- Gap:"),
        ("; fixed: 0", "", "one line '- Gap:"),
        ("- Seen on:", "- Seen:", "one line '- Seen on:"),
        ("PyTorch gives twice what JAX gives, and nobody knows why.", "", "a sentence"),
        ("- Seen", "- Only where: a PDP-11\n- Seen", "a known trait"),
    ],
)
def test_an_entry_that_lacks_a_part_is_found(old: str, new: str, lacks: str) -> None:
    assert any(f"Half of it lacks {lacks}" in fault for fault in found((old, new)))


def test_code_that_no_longer_runs_says_whose_it_is() -> None:
    with pytest.raises(AttributeError) as caught:
        found(("jnp.ones(3)\nfixed", "jnp.no_such(3)\nfixed"))
    note = "the code of 'Half of it' in docs/differences/planted.md does not run on torch"
    assert caught.value.__notes__[0].startswith(note)


def test_a_page_is_brought_up_to_date() -> None:
    stale = PAGE.replace("0.5; fixed: 0", "?; fixed: ?").replace(VERSIONS, "torch 1.0")
    assert rewritten(stale, "docs/differences/planted.md", PROLOGUE) == PAGE


def test_a_page_with_a_difference_that_has_gone_is_left_to_a_person() -> None:
    same = PAGE.replace("TWO * ", "")
    (entry,) = parse(same, "", PROLOGUE)
    assert gone(entry, measure(entry)) == {"": 0.0}
    assert rewritten(same, "docs/differences/planted.md", PROLOGUE) == same


def test_measuring_leaves_the_settings_alone() -> None:
    before = torch.get_default_dtype(), jax.config.read("jax_enable_x64")
    measure(with_fault())
    with pytest.raises(ZeroDivisionError):
        measure(with_fault(("jnp.ones(3)\nfixed", "1 / 0\nfixed")))
    assert (torch.get_default_dtype(), jax.config.read("jax_enable_x64")) == before


@pytest.mark.parametrize(
    ("here", "there", "expected"),
    [
        (torch.tensor([4.0, 1.0]), np.array([3.0, 1.0]), 0.25),
        ([torch.ones(2), torch.ones(2)], np.ones((2, 2)), 0.0),
        (0.0, 3.0, 3.0),
        (np.nan, 1.0, math.inf),
        (1.0, np.nan, math.inf),
        (np.inf, -np.inf, math.inf),
        ([np.nan, 2.0], [np.nan, 1.0], 0.5),  # both say NaN: what is left decides
        (np.ones(1), np.ones(()), math.inf),
        (np.zeros((2, 0)), np.zeros((0, 2)), math.inf),
        ("float64", "float32", math.inf),
        ("float64", "float64", 0.0),
        (None, 0.0, math.inf),
        (True, 1.0, math.inf),
        (False, False, 0.0),
        (1.0, max, 0.0),
    ],
)
def test_gap(here: Any, there: Any, expected: float) -> None:
    assert gap(here, there) == expected


@pytest.mark.parametrize(
    ("stated", "measured", "true"),
    [
        ("0.13", 0.134, True),
        ("0.13", 0.145, False),
        ("4.3e-2", 0.0434, True),
        ("1e-9", 1.04e-9, True),
        ("1e-9", 1.2e-9, False),
        ("infinite", math.inf, True),
        ("infinite", 1.0, False),
        ("0.5", math.inf, False),
        ("0.5", math.nan, False),
        ("at least 0.01", 0.5, True),
        ("at least 0.01", 0.009, False),
        ("at least 0.01", math.nan, False),
        ("1e-9 to 1e-6", 1e-8, True),
        ("1e-9 to 1e-6", 1e-5, False),
        ("last bits", EPS, True),
        ("last bits", 0.0, False),
        ("last bits", 100 * EPS, False),
        ("?", 0.5, False),
    ],
)
def test_is_as_stated(stated: str, measured: float, true: bool) -> None:
    assert is_as_stated(stated, measured, EPS) is true


@pytest.mark.parametrize("number", [0.0, 0.013, 0.5, 1.0, 12.3, 65.4, 386.2, 9999.0, 2.5e-11])
def test_what_is_shown_is_as_stated(number: float) -> None:
    assert number == 0 or is_as_stated(shown(number), number, EPS)


def test_every_fix_is_held_to_a_tenth_of_its_gap() -> None:
    """A bound in eps alone would let a fix pass that leaves a small gap as it is."""
    entry = with_fault()
    measured = dataclasses.replace(measure(entry), gaps={"": 1e-14}, fixed=5e-15)
    assert any("the fix is off by" in fault for fault in faults(entry, measured))
