"""The page as it is seen and written: colours, plots, widths in a browser, files."""

import math
import re
import shutil
from pathlib import Path
from subprocess import TimeoutExpired

import numpy as np
import pytest
from helpers import pages
from helpers.commands import command, python, ran
from helpers.pages import HOSTILE, Reader, changed, diverged, flaws, honest, read, results, spoilt
from helpers.synthetic_traces import refused
from matplotlib.figure import Figure

from twinstep.judge.findings import Verdict
from twinstep.judge.history import MAX_POINTS, Curve
from twinstep.report import check_writable, plots, write_text
from twinstep.report.page import page
from twinstep.report.palette import PALETTE
from twinstep.runs.verification import Verification

pytestmark = pytest.mark.quick_to_compile


def luminance(color: str) -> float:
    """How bright a colour is, as WCAG 2 has it."""
    parts = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(a: str, b: str) -> float:
    """The ratio of two colours' brightness, 1 to 21, as WCAG 2 has it."""
    bright, dim = sorted([luminance(a), luminance(b)], reverse=True)
    return (bright + 0.05) / (dim + 0.05)


def faint(palette: dict[str, str]) -> list[str]:
    """What is too faint to be read on a ground on which it stands, or to be seen in a plot."""
    grounds = {"page", "panel", "tint"}
    text = set(palette) - grounds - {"line", "plot-grid"}
    return [
        f"{role} on {ground}"
        for role in sorted(text)
        for ground in sorted({"panel"} if role.startswith("plot-") else grounds)
        if contrast(palette[role], palette[ground]) < 4.5
    ]


def test_text_can_be_read_by_day_and_by_night() -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert set(PALETTE["light"]) == set(PALETTE["dark"])
    assert {f"plot-{role}" for role in plots.COLORS} <= set(PALETTE["light"])
    assert [faint(palette) for palette in PALETTE.values()] == [[], []]
    assert faint({**PALETTE["light"], "muted": "#8a8f96"})
    used = set(re.findall(r"var\(--([a-z-]+)", honest()))
    assert used <= set(PALETTE["light"]) | {"sans", "mono", "share"}


def test_nan_is_marked() -> None:
    result = diverged()
    assert result.comparison.verdict is Verdict.INVALID
    assert not np.isfinite(result.outcomes["jax"].losses).all()
    words = read(result).words
    assert re.search(r"(torch|jax) (inf|nan) from step \d", words)
    assert re.search(r"not a number from step \d", words)
    assert "? invalid" in words


def test_single_step_and_exact_equality_are_drawn() -> None:
    result = results()[1]
    assert (result.comparison.steps, result.comparison.verdict) == (1, Verdict.EQUAL)
    words = read(result).words
    assert words.count("exactly equal") >= 6  # three stages, two comparisons
    assert "bit for bit" in words


def test_chaos_is_drawn_where_it_begins() -> None:
    root = read(changed({"chaotic_from": 8}))
    assert "not judged: chaos" in root.words
    assert "to step 7" in root.all("table", class_="summary")[0].words
    assert "chaos" not in read(results()[0]).all("article")[0].words


def test_long_run_stays_small() -> None:
    """As many points as a history keeps, and every loss."""
    steps, draws = 20_000, np.random.default_rng(0)
    points = np.linspace(1, steps, MAX_POINTS).astype(int)
    noise, limit = draws.uniform(0, 1e-16, MAX_POINTS), np.full(MAX_POINTS, 1e-15)
    curve = Curve(points, noise, limit, np.full(MAX_POINTS, "weight"))
    history = dict.fromkeys(results()[0].history, curve)
    text = page([changed({"steps": steps}, draws.uniform(1, 2, steps), history=history)])
    assert flaws(text) == []
    assert len(text) < 500_000


@pytest.mark.parametrize("value", [0.0, 5e-324, 1e-308, 1e308, math.inf, math.nan, -0.0])
def test_any_number_can_be_drawn(value: float) -> None:
    three = np.array([1, 2, 3])
    numbers = np.array([value, 0.0, value])
    for difference, allowed in ((numbers, np.ones(3)), (numbers, numbers), (np.ones(3), numbers)):
        curve = Curve(three, difference, allowed, np.full(3, "weight"))
        result = changed(losses=numbers, history={("gate", "loss"): curve})
        for figure in (differences_of(result), plots.losses_figure([result] * 2)):
            text = plots.svg(figure, "a-", HOSTILE)
            assert Reader(text).root.all("svg")[0].attributes["aria-label"] == HOSTILE
            assert "nan" not in re.sub(r">[^<]*<", "><", text)


Curves = dict[tuple[str, str], Curve]


def differences_of(result: Verification, history: Curves | None = None) -> Figure:
    """The figure of its differences, or of others."""
    comparison = result.comparison
    return plots.differences_figure(comparison, history or result.history, result.spec.dtype)


def test_the_first_fault_is_marked_where_it_is() -> None:
    """In its stage's panel alone; where there is no fault nothing is."""
    for stage, mode in (("raw_grads", "gate"), ("params", "free")):
        marked = [
            axes
            for axes in differences_of(spoilt(stage, mode=mode)).axes
            if any(text.get_text().startswith("step 3: weight[") for text in axes.texts)
        ]
        assert marked
        for axes in marked:
            assert any(text.get_text() == f" {stage}" for text in axes.texts)
    words = [text.get_text() for axes in differences_of(results()[0]).axes for text in axes.texts]
    assert not any(word.startswith("step") for word in words)


@pytest.mark.parametrize("kind", ["png", "svg"])
def test_figure_is_saved(kind: str, tmp_path: Path) -> None:
    for name in "ab":
        plots.save(plots.losses_figure(results()[:2]), tmp_path / f"{name}.{kind}")
    first, second = ((tmp_path / f"{name}.{kind}").read_bytes() for name in "ab")
    assert first == second
    assert first[:4] == (b"\x89PNG" if kind == "png" else b"<?xm")
    figure = plots.losses_figure(results()[:1])
    refused(lambda: plots.save(figure, tmp_path / "a.gif"), "'.gif'", ".png or .svg")
    refused(lambda: plots.save(figure, tmp_path / "no" / f"a.{kind}"), "cannot be written")


def test_command_writes_the_page(tmp_path: Path) -> None:
    file = tmp_path / "page.html"
    said = command("verify", "chain_rule", "--dtype", "float64", "--report", file)
    assert "1 verified" in said.printed()
    text = file.read_text(encoding="utf-8")
    assert flaws(text) == []
    assert "chain_rule" in pages.summary_rows(Reader(text).root)[0][0]
    assert [path.name for path in tmp_path.iterdir()] == ["page.html"]


def test_page_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    target = tmp_path / "page.html"
    target.write_text("old")
    check_writable(str(target))
    assert target.read_text() == "old"
    with pytest.raises(UnicodeEncodeError):
        write_text(str(target), "half \ud800")
    assert target.read_text() == "old"
    write_text(str(target), "new")
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("page.html", "new")]


def test_nothing_heavy_is_loaded_before_a_page_is_made() -> None:
    code = (
        "import sys, twinstep.report.page, twinstep.report.plots, twinstep.cli.verify;"
        "print({'torch', 'jax', 'matplotlib', 'jinja2', 'pygments'} & set(sys.modules))"
    )
    assert python("-c", code).well() == "set()\n"


_SAYS_ITS_WIDTH = (
    "<script>parent.postMessage(innerWidth + ' ' + document.documentElement.scrollWidth, '*')"
    "</script></body>"
)
_FRAME = """<body><script>onmessage = e => document.body.setAttribute("data-w", e.data)</script>
<iframe width="{width}" height="800" style="border: 0" src="page.html"></iframe></body>"""


@pytest.mark.parametrize("width", [320, 390, 800])
def test_page_is_no_wider_than_the_screen(width: int, tmp_path: Path) -> None:
    browser = shutil.which("chromium")
    if browser is None:
        pytest.skip("there is no chromium to lay the page out")
    text = page([results()[0], spoilt(), diverged()])
    (tmp_path / "page.html").write_text(text.replace("</body>", _SAYS_ITS_WIDTH))
    frame = tmp_path / "frame.html"
    frame.write_text(_FRAME.format(width=width))
    flags = "--headless --no-sandbox --disable-gpu --hide-scrollbars --virtual-time-budget=5000"
    try:
        done = ran(browser, *flags.split(), "--dump-dom", frame.as_uri(), timeout=60)
    except TimeoutExpired:
        pytest.skip("chromium does not start here")
    said = re.search(r'data-w="(\d+) (\d+)"', done.out)
    if said is None:
        pytest.skip("chromium does not lay the page out here")
    assert said.groups() == (str(width), str(width))
