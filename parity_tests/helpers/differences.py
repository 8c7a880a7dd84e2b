"""The differences between the frameworks, read from their pages, run and measured.

`python -m parity_tests.helpers.differences` prints every gap beside what the pages say; with
`--write` it brings the pages up to date: gaps, versions, tables and the index. Gaps that have an
interval there stay as they are.
"""

import ast
import functools
import math
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import numpy as np
import torch

from twinstep.runs import launch

ROOT = Path(__file__).parents[2]
INDEX = ROOT / "docs" / "differences.md"
_NAMES = ("torch", "jax", "flax", "optax")
VERSIONS = ", ".join(f"{name} {version(name).partition('+')[0]}" for name in _NAMES)

# Each of a reproducer's few operations rounds by half an eps of the largest number it meets, and
# none runs for more than some dozens of steps.
_FIXED = 64
# A fix that leaves a tenth of the gap is none, however small the gap.
_LEFT = 0.1
# The last bits: what an elementary function or a short sum may round differently. A gap that is no
# larger could be rounding, and then its page has to say that it is.
_LAST_BITS = 16

_CODE = re.compile(r"^```python\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_HEADING = re.compile(r"^## (.+)$", re.MULTILINE)
_GAP = re.compile(r"^- Gap: (.+?); (?:(no fix)|fixed: (\S+)) \((float32|float64)\)$", re.MULTILINE)
_SEEN = re.compile(r"^- Seen on: (.+)$", re.MULTILINE)
_ONLY = re.compile(r"^- Only where: (.+)$", re.MULTILINE)
_TABLE = re.compile(r"^\| (?:case) \|.*\n(?:\|.*\n)+", re.MULTILINE)
_ROWS = re.compile(r"<!-- index -->\n.*?<!-- /index -->", re.DOTALL)


# What a difference may hang on, beside the versions.
TRAITS = ("AVX2", "AVX512", "dropout draws from PyTorch's own generator")


@dataclass(frozen=True)
class Entry:
    """One difference: its place, the code that shows it and what the page says of it."""

    page: str
    title: str
    prologue: str
    code: str
    gap: str
    fixed: str | None
    dtype: str
    seen: str
    only: tuple[str, ...]
    table: str
    faults: tuple[str, ...]

    @property
    def anchor(self) -> str:
        """The heading's link, relative to docs/, as GitHub makes it."""
        slug = re.sub(r"[^\w\- ]", "", self.title.lower()).replace(" ", "-")
        return f"{self.page.removeprefix('docs/')}#{slug}"


@dataclass(frozen=True)
class Measured:
    """What running an entry gave. gaps: of each of its cases, by name; "" where there is one."""

    gaps: Mapping[str, float]
    fixed: float | None
    dtype: str
    table: str

    @property
    def gap(self) -> float:
        """The largest of all cases."""
        return max(self.gaps.values())

    @property
    def eps(self) -> float:
        """That of the dtype in which it was computed."""
        return float(np.finfo(self.dtype).eps)


def pages() -> list[Path]:
    """The pages with entries, in the order in which the index links to them first."""
    names = dict.fromkeys(re.findall(r"\]\((differences/\w+\.md)\)", INDEX.read_text()))
    return [INDEX.parent / name for name in names]


def entries() -> list[Entry]:
    """Every entry of every page."""
    (prologue,) = _CODE.findall(INDEX.read_text())
    texts = {str(page.relative_to(ROOT)): page.read_text() for page in pages()}
    return [entry for page, text in texts.items() for entry in parse(text, page, prologue)]


def parse(text: str, page: str, prologue: str = "") -> list[Entry]:
    """The entries of one page. What an entry lacks is among its faults."""
    before, *rest = _HEADING.split(text)
    prologue += "".join(_CODE.findall(before))
    return [
        _entry(title.strip(), body, page, prologue)
        for title, body in zip(rest[::2], rest[1::2], strict=True)
    ]


def _entry(title: str, body: str, page: str, prologue: str) -> Entry:
    blocks, gaps, seen = _CODE.findall(body), _GAP.findall(body), _SEEN.findall(body)
    code = blocks[0] if blocks else ""
    only = tuple(name for names in _ONLY.findall(body) for name in names.split(", "))
    gap, _, fixed, dtype = gaps[0] if gaps else ("", "", "", "")
    names = (node for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Name))
    assigned = {name.id for name in names if isinstance(name.ctx, ast.Store)}
    wanted = {
        "one ```python block": len(blocks) == 1,
        "a value for torch_value": "torch_value" in assigned,
        "a value for jax_value": "jax_value" in assigned,
        "one line '- Gap: ...; fixed: ... (float64)'": len(gaps) == 1,
        "one line '- Seen on: ...'": len(seen) == 1,
        "a known trait after '- Only where:'": set(only) <= set(TRAITS),
        "a sentence that says what differs": len(body.partition("```")[0].split()) >= 8,
    }
    return Entry(
        page=page,
        title=title,
        prologue=prologue,
        code=code,
        gap=gap,
        fixed=fixed or None,
        dtype=dtype,
        seen="".join(seen),
        only=only,
        table="".join(_TABLE.findall(body)),
        faults=tuple(f"{title} lacks {part}" for part, there in wanted.items() if not there),
    )


@functools.cache
def traits() -> frozenset[str]:
    """Those of TRAITS that this machine has."""
    capability, dropout = torch.backends.cpu.get_cpu_capability(), TRAITS[-1]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        torch.empty(4).bernoulli_(0.5)
        after_mask = torch.rand(1)
        torch.manual_seed(0)
        torch.rand(1)  # all that PyTorch takes to seed MKL's generator
        one_word = torch.equal(after_mask, torch.rand(1))
    return frozenset({capability} if one_word else {capability, dropout})


def is_here(entry: Entry) -> bool:
    """Whether an entry says anything of this machine."""
    return not entry.only or not traits().isdisjoint(entry.only)


def measure(entry: Entry) -> Measured:
    """Runs an entry, on the CPU; the settings of both frameworks stay as they were."""
    dtype, x64 = torch.get_default_dtype(), jax.config.read("jax_enable_x64")
    namespace: dict[str, Any] = {"__name__": "differences"}
    try:
        with jax.default_device(jax.devices("cpu")[0]):
            for code, where in ((entry.prologue, "prologue"), (entry.code, entry.title)):
                exec(compile(code, f"<{entry.page}: {where}>", "exec"), namespace)
        used = str(torch.get_default_dtype()).removeprefix("torch.")
    except Exception as error:
        error.add_note(f"the code of {entry.title!r} in {entry.page} does not run on {VERSIONS}")
        raise
    finally:
        torch.set_default_dtype(dtype)
        jax.config.update("jax_enable_x64", x64)
    here, there = namespace["torch_value"], namespace["jax_value"]
    # where it is PyTorch's side that is mended, it is held against JAX's
    mended = {"torch_fixed": there, "fixed": here}.items()
    gaps = [_gaps(right, namespace[name]) for name, right in mended if name in namespace]
    fixed = max(gaps[0].values()) if gaps else None
    return Measured(_gaps(here, there), fixed, used, _table(here, there))


def _gaps(here: Any, there: Any) -> dict[str, float]:
    """{case: gap}"""
    if not isinstance(here, Mapping):
        return {"": gap(here, there)}
    if here.keys() != there.keys():
        raise ValueError(f"cases {sorted(here)} against {sorted(there)}")
    return {case: gap(here[case], there[case]) for case in here}


def gap(here: Any, there: Any) -> float:
    """The largest difference, relative to the largest entry of PyTorch's value unless that is 0.

    Infinite between a number and NaN or infinity, between two shapes, between a number and a word.
    None stands for what JAX has not got: a callable there says that it has it now, which is no gap.
    """
    if callable(there):
        return 0.0
    if isinstance(here, (str, bool, type(None))) or isinstance(there, (str, bool, type(None))):
        return 0.0 if type(here) is type(there) and here == there else math.inf
    a, b = _array(here), _array(there)
    if a.shape != b.shape:
        return math.inf
    finite = np.isfinite(a) & np.isfinite(b)
    if not np.array_equal(a[~finite], b[~finite], equal_nan=True):
        return math.inf
    largest = float(np.max(np.abs(a[finite] - b[finite]), initial=0.0))
    return largest / (float(np.max(np.abs(a[finite]), initial=0.0)) or 1.0)


def _array(value: Any) -> np.ndarray:
    if isinstance(value, torch.Tensor):
        return value.detach().double().numpy()
    if isinstance(value, (list, tuple)):
        return np.array([_array(part) for part in value], float)
    return np.asarray(value, float)


def _table(here: Any, there: Any) -> str:
    """A Markdown table of the cases, "" where there is only one."""
    if not isinstance(here, Mapping):
        return ""
    rows = "".join(f"| {key} | {_cell(here[key])} | {_cell(there[key])} |\n" for key in here)
    return f"| case | PyTorch | JAX |\n|---|---|---|\n{rows}"


def _cell(value: Any) -> str:
    if isinstance(value, (str, bool, type(None))):
        return str(value)
    return ", ".join(f"{float(number) + 0.0:.4g}" for number in np.ravel(_array(value)))


def shown(number: float) -> str:
    """A gap in two digits, as the pages have it."""
    if math.isinf(number):
        return "infinite"
    if number == 0 or 1e-2 <= number < 1e4:
        return f"{number:.2g}" if number < 100 else f"{number:.0f}"
    mantissa, exponent = f"{number:.1e}".split("e")
    return f"{mantissa.removesuffix('.0')}e{int(exponent)}"


def is_as_stated(stated: str, measured: float, eps: float) -> bool:
    """Whether a gap is what a page says: to two digits, in an interval, or in the last bits."""
    if stated == "last bits":
        return 0 < measured <= _LAST_BITS * eps
    if stated == "infinite":
        return math.isinf(measured)
    if at_least := re.fullmatch(r"at least (\S+)", stated):
        return measured >= float(at_least[1])
    if interval := re.fullmatch(r"(\S+) to (\S+)", stated):
        return float(interval[1]) <= measured <= float(interval[2])
    if stated == "?" or not math.isfinite(measured) or measured == 0:
        return False
    # one of the second digit: a last bit may tip it over
    return abs(float(stated) - measured) <= 10.0 ** (math.floor(math.log10(measured)) - 1)


def gone(entry: Entry, measured: Measured) -> dict[str, float]:
    """{case: gap} of those whose difference is no more than rounding, or nothing at all."""
    least = 0.0 if entry.gap == "last bits" else _LAST_BITS * measured.eps
    return {case: gap for case, gap in measured.gaps.items() if not gap > least}


def faults(entry: Entry, measured: Measured) -> list[str]:
    """Everything in which an entry is not what was measured, a sentence each."""
    found, page, gap = [], entry.page, shown(measured.gap)
    if lost := gone(entry, measured):
        cases = ", ".join(filter(None, lost))
        found.append(
            f"JAX now agrees with PyTorch{cases and f' in {cases}'} (gap "
            f"{shown(max(lost.values()))}, seen last on {entry.seen}, this is {VERSIONS}): take "
            f"the entry out of {page}, or mend it"
        )
    elif not is_as_stated(entry.gap, measured.gap, measured.eps):
        found.append(f"the gap is {gap}, {page} says {entry.gap}")
    if measured.dtype != entry.dtype:
        found.append(f"computed in {measured.dtype}, {page} says {entry.dtype}")
    if (measured.fixed is None) != (entry.fixed is None):
        found.append(f"{page} and its code do not agree on there being a fix")
    elif measured.fixed is not None:
        allowed = min(_FIXED * measured.eps, _LEFT * measured.gap)
        if not measured.fixed <= allowed:
            found.append(
                f"the fix is off by {shown(measured.fixed)}, rounding explains {shown(allowed)} "
                f"(gap without it: {gap})"
            )
    if measured.table != entry.table:
        found.append(f"the table in {page} should be\n{measured.table}")
    return [f"{entry.title}: {fault}" for fault in found]


def check(entry: Entry) -> list[str]:
    """Everything in which an entry is not true; it is run only if it has all its parts."""
    return list(entry.faults) or faults(entry, measure(entry))


def index(all_entries: list[Entry]) -> str:
    """The index of all entries, between its two markers."""
    rows = "".join(
        f"| {entry.title} | {entry.gap} | [{Path(entry.page).stem}]({entry.anchor}) |\n"
        for entry in all_entries
    )
    head = "| what differs | gap | where |\n|---|---|---|\n"
    return f"<!-- index -->\n{head}{rows}<!-- /index -->"


def rewritten(text: str, page: str, prologue: str) -> str:
    """A page with the gaps, versions and tables that are measured now."""
    for entry in filter(is_here, parse(text, page, prologue)):
        before, heading, body = text.partition(f"\n## {entry.title}\n")
        measured = measure(entry)
        if gone(entry, measured):
            continue
        true = is_as_stated(entry.gap, measured.gap, measured.eps)
        stated = entry.gap if true else shown(measured.gap)
        fixed = "no fix" if measured.fixed is None else f"fixed: {shown(measured.fixed)}"
        body = _GAP.sub(f"- Gap: {stated}; {fixed} ({measured.dtype})", body, count=1)
        body = _SEEN.sub(f"- Seen on: {VERSIONS}", body, count=1)
        if entry.table:
            body = body.replace(entry.table, measured.table, 1)
        elif measured.table:
            body = body.replace("\n- Gap:", f"\n{measured.table}\n- Gap:", 1)
        text = before + heading + body
    return text


def main(arguments: list[str]) -> int:
    """Prints every gap, or with --write brings the pages up to date. 1 where one is not true."""
    launch.set_up_xla()
    if "--write" in arguments:
        (prologue,) = _CODE.findall(INDEX.read_text())
        for page in pages():
            page.write_text(rewritten(page.read_text(), str(page.relative_to(ROOT)), prologue))
        INDEX.write_text(_ROWS.sub(lambda _: index(entries()), INDEX.read_text()))
    wrong = 0
    for entry in filter(is_here, entries()):
        measured = measure(entry)
        fixed = "" if measured.fixed is None else shown(measured.fixed)
        print(f"{entry.title:60} {entry.gap:16} {shown(measured.gap):10} {fixed}")
        for fault in faults(entry, measured):
            wrong += 1
            print(f"  {fault}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
