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
from helpers import differences
from helpers.differences import INDEX, VERSIONS, Entry, check, measure, parse, rewritten

ENTRIES = differences.entries()
EPS = 2.0**-52
PROLOGUE = "import torch\nimport jax\nimport jax.numpy as jnp\nimport numpy as np\n" + (
    "torch.set_default_dtype(torch.float64)\njax.config.update('jax_enable_x64', True)\n"
)
PLANTED = "docs/differences/planted.md"

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
    (entry,) = parse(text, PLANTED, PROLOGUE)
    return entry


def found(*changes: tuple[str, str]) -> list[str]:
    """What is wrong with the entry of PAGE after changes to its text."""
    return check(with_fault(*changes))


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.title)
def test_the_difference_is_there_and_the_fix_fixes_it(entry: Entry) -> None:
    if not differences.is_here(entry):
        here = ", ".join(differences.traits())
        pytest.skip(f"seen only with {' or '.join(entry.only)}, this is {here}")
    found = check(entry)
    assert not found, "\n".join(found)


def test_the_index_and_the_links_lead_to_every_entry_and_nowhere_else() -> None:
    index, pages = differences.index(ENTRIES), differences.pages()
    assert index in INDEX.read_text(), "python -m parity_tests.helpers.differences --write"
    assert f"{len(ENTRIES)} differences" in (INDEX.parents[1] / "README.md").read_text()
    assert sorted(pages) == sorted((INDEX.parent / "differences").glob("*.md"))
    assert {Path(entry.page).name for entry in ENTRIES} == {page.name for page in pages}
    assert len({entry.title for entry in ENTRIES}) == len(ENTRIES)
    how_to_read = "differences.md#how-to-read-an-entry"
    for page in pages:
        links = re.findall(r"\]\(([\w./]+\.md#[^)]+)\)", page.read_text())
        found = {os.path.normpath(Path("differences") / link) for link in links}
        assert how_to_read in found
        assert found <= {entry.anchor for entry in ENTRIES} | {how_to_read}


TORCH, JAX = "torch_value = TWO * torch.ones(3)", "jax_value = jnp.ones(3)"
FIX = "fixed = 2 * jnp.ones(3)"
NEAR = "2 * jnp.ones(3) * (1 + 2.0**-52)"
LAST_BITS = ((JAX, f"jax_value = {NEAR}"), ("0.5;", "last bits;"))
TABLE = "| case | PyTorch | JAX |\n|---|---|---|\n| a | 2 | 1 |\n"


def cases(torch_value: Any, jax_value: Any) -> tuple[tuple[str, str], ...]:
    """What makes it a difference of several cases, which the fix mends."""
    return (
        (TORCH, f"torch_value = {torch_value}"),
        (JAX, f"jax_value = {jax_value}"),
        (FIX, f"fixed = {torch_value}"),
    )


@pytest.mark.parametrize(
    "changes",
    [
        (),
        ((JAX, "jax_value = getattr(jnp, 'no_such', None)"), ("0.5;", "infinite;")),
        LAST_BITS,
        ((FIX, "torch_fixed = torch.ones(3)"),),
        (*cases({"a": 2.0}, {"a": 1.0}), ("\n- Gap", f"\n{TABLE}\n- Gap")),
    ],
    ids=["as it is", "a missing function", "last bits", "a fix of PyTorch's side", "a table"],
)
def test_what_is_true_passes(changes: Any) -> None:
    assert found(*changes) == []


OFF, GONE = "the fix is off by", "now agrees"
UNKNOWN = "and its code do not agree on there being a fix"
FAULTS: list[tuple[Any, str]] = [
    ([(JAX, "jax_value = 2 * jnp.ones(3)")], f"{GONE} with PyTorch (gap 0, seen last on torch "),
    ([(JAX, "jax_value = 2 * jnp.ones(3)")], f"take the entry out of {PLANTED}, or mend it"),
    ([(JAX, "jax_value = 2 * jnp.ones(3) * (1 + 2.0**-50)")], GONE),
    (cases({"a": 2.0, "b": 2.0}, {"a": 1.0, "b": 2.0}), f"{GONE} with PyTorch in b (gap 0,"),
    ([(JAX, "jax_value = getattr(jnp, 'ones', None)")], GONE),
    *(
        ([("Gap: 0.5", f"Gap: {stated}")], f"the gap is 0.5, {PLANTED} says {stated}")
        for stated in ("0.4", "0.52", "5e-2", "infinite", "1e-3 to 0.4", "last bits")
    ),
    *(
        ([(FIX, f"fixed = {fix}")], OFF)
        for fix in ("jnp.ones(3)", "2.000001 * jnp.ones(3)", "jnp.ones(3) * np.nan")
    ),
    # where rounding is the difference, what rounding explains explains nothing
    ([*LAST_BITS, (FIX, f"fixed = {NEAR}")], OFF),
    ([(FIX, "torch_fixed = 2 * torch.ones(3)")], OFF),
    ([("fixed: 0", "no fix")], UNKNOWN),
    ([("fixed = ", "unfixed = ")], UNKNOWN),
    ([("(float64)", "(float32)")], "computed in float64"),
    (cases({"a": 2.0}, {"a": 1.0}), f"the table in {PLANTED} should be"),
    ([("```python\ntorch", "```\ntorch")], "lacks one ```python block"),
    ([("torch_value =", "value =")], "lacks a value for torch_value"),
    ([("jax_value =", "value =")], "lacks a value for jax_value"),
    ([("- Gap: 0.5", "- Off: 0.5")], "lacks one line '- Gap:"),
    ([("; fixed: 0", "")], "lacks one line '- Gap:"),
    ([("- Seen on:", "- Seen:")], "lacks one line '- Seen on:"),
    ([("PyTorch gives twice what JAX gives, and nobody knows why.", "")], "lacks a sentence"),
    ([("- Seen", "- Only where: a PDP-11\n- Seen")], "lacks a known trait"),
]


@pytest.mark.parametrize(("changes", "says"), FAULTS)
def test_what_is_not_true_is_found(changes: Any, says: str) -> None:
    fault, *others = found(*changes)
    assert fault.startswith("Half of it")
    assert says in fault
    assert all("the table in" in other or "lacks a value" in other for other in others)


def test_code_that_no_longer_runs_says_whose_it_is() -> None:
    with pytest.raises(AttributeError) as caught:
        found((JAX, "jax_value = jnp.no_such(3)"))
    note = f"the code of 'Half of it' in {PLANTED} does not run on torch"
    assert caught.value.__notes__[0].startswith(note)


def test_a_page_is_brought_up_to_date() -> None:
    stale = PAGE.replace("0.5; fixed: 0", "?; fixed: ?").replace(VERSIONS, "torch 1.0")
    assert rewritten(stale, PLANTED, PROLOGUE) == PAGE


def test_a_page_with_a_difference_that_has_gone_is_left_to_a_person() -> None:
    same = PAGE.replace("TWO * ", "")
    (entry,) = parse(same, "", PROLOGUE)
    assert differences.gone(entry, measure(entry)) == {"": 0.0}
    assert rewritten(same, PLANTED, PROLOGUE) == same


def test_measuring_leaves_the_settings_alone() -> None:
    before = torch.get_default_dtype(), jax.config.read("jax_enable_x64")
    measure(with_fault())
    with pytest.raises(ZeroDivisionError):
        measure(with_fault((JAX, "jax_value = 1 / 0")))
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
    assert differences.gap(here, there) == expected


STATED: dict[str, tuple[list[float], list[float]]] = {
    "0.13": ([0.134], [0.145]),
    "4.3e-2": ([0.0434], []),
    "1e-9": ([1.04e-9], [1.2e-9]),
    "infinite": ([math.inf], [1.0]),
    "0.5": ([], [math.inf, math.nan]),
    "at least 0.01": ([0.5], [0.009, math.nan]),
    "1e-9 to 1e-6": ([1e-8], [1e-5]),
    "last bits": ([EPS], [0.0, 100 * EPS]),
    "?": ([], [0.5]),
}
"""{what a page says: (gaps of which it is true, gaps of which it is not)}"""


@pytest.mark.parametrize(
    ("stated", "measured", "true"),
    [(s, gap, true) for s, both in STATED.items() for true in (0, 1) for gap in both[1 - true]],
)
def test_is_as_stated(stated: str, measured: float, true: int) -> None:
    assert differences.is_as_stated(stated, measured, EPS) == bool(true)


@pytest.mark.parametrize("number", [0.0, 0.013, 0.5, 1.0, 12.3, 65.4, 386.2, 9999.0, 2.5e-11])
def test_what_is_shown_is_as_stated(number: float) -> None:
    assert number == 0 or differences.is_as_stated(differences.shown(number), number, EPS)


def test_every_fix_is_held_to_a_tenth_of_its_gap() -> None:
    """A bound in eps alone would let a fix pass that leaves a small gap as it is."""
    entry = with_fault()
    measured = dataclasses.replace(measure(entry), gaps={"": 1e-14}, fixed=5e-15)
    assert any(OFF in fault for fault in differences.faults(entry, measured))
