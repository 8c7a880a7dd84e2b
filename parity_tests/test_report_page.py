"""The HTML page: complete in itself, true to the results, readable by everyone.

Pages are built from small verifications and from results that were spoilt by hand; what is read
back off them is held against the results themselves.
"""

import dataclasses
import itertools
import math
import re
import shlex
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from handmade import made, planted, refused

from twinstep.cli import main
from twinstep.cli.parsing import leading_words
from twinstep.cli.verify import _specs_to_verify
from twinstep.findings import Verdict
from twinstep.history import MOST_POINTS, Curve
from twinstep.judge import Judge
from twinstep.place import Place
from twinstep.report import plots, refuse_unwritable, write_text
from twinstep.report.highlight import twin_rows
from twinstep.report.page import command_of, page, share
from twinstep.report.palette import PALETTE
from twinstep.report.show import source
from twinstep.specs import EXAMPLES
from twinstep.trace import STAGES
from twinstep.verify import Verification, verify

_VOID = {"meta", "br", "wbr", "hr", "img", "link", "input", "area", "base", "col", "source"}
_LOADS = {"script", "link", "img", "iframe", "object", "embed", "video", "audio", "source", "base"}


@dataclass
class Element:
    """A tag with what is in it."""

    tag: str
    attributes: dict[str, str | None]
    children: list["Element | str"] = field(default_factory=list)

    @property
    def text(self) -> str:
        """All text within, as a browser would copy it."""
        return "".join(c if isinstance(c, str) else c.text for c in self.children)

    @property
    def words(self) -> str:
        """The text with spaces as they are shown."""
        return " ".join(self.text.split())

    def all(self, tag: str = "", **attributes: str) -> list["Element"]:
        """Every element within, in order; a class has to be among the classes."""
        found = []
        for child in self.children:
            if isinstance(child, Element):
                if tag in ("", child.tag) and child.has(attributes):
                    found.append(child)
                found += child.all(tag, **attributes)
        return found

    def has(self, attributes: dict[str, str]) -> bool:
        """Whether its attributes hold all of these."""
        return all(
            value in (self.attributes.get(name.rstrip("_")) or "").split()
            for name, value in attributes.items()
        )


class Reader(HTMLParser):
    """Reads a page into elements; what is not well-formed is an AssertionError."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.root = Element("", {})
        self._open = [self.root]
        self.feed(text)
        self.close()
        assert self._open == [self.root], f"<{self._open[-1].tag}> is never closed"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        doubled = [name for name, count in Counter(name for name, _ in attrs).items() if count > 1]
        assert not doubled, f"<{tag}> has {doubled} twice"
        element = Element(tag, dict(attrs))
        self._open[-1].children.append(element)
        if tag not in _VOID:
            self._open.append(element)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._open[-1].children.append(Element(tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open[-1].tag == tag, f"</{tag}> closes <{self._open[-1].tag}>"
        self._open.pop()

    def handle_data(self, data: str) -> None:
        self._open[-1].children.append(data)


def flaws(text: str) -> list[str]:
    """What keeps a page from being well-formed, complete in itself and usable by keyboard."""
    try:
        root = Reader(text).root
    except AssertionError as error:
        return [str(error)]
    everything = root.all()
    found = []
    ids = Counter(str(e.attributes["id"]) for e in everything if "id" in e.attributes)
    found += [f"id {name} is there {count} times" for name, count in ids.items() if count > 1]
    targets = re.findall(r'(?:href="|url\()(?!#)[^")]*', text)
    found += [f"leads out of the page: {target}" for target in targets]
    for name in re.findall(r'(?:href="|url\()#([^")]*)', text):
        found += [] if name in ids else [f"#{name} is nowhere"]
    for element in everything:
        for name in ("aria-labelledby", "aria-describedby"):
            for label in (element.attributes.get(name) or "").split():
                found += [] if label in ids else [f"{name} {label} is nowhere"]
        if element.tag in _LOADS or "src" in element.attributes:
            found.append(f"<{element.tag}> loads something")
        found += [f"{name} runs something" for name in element.attributes if name[:2] == "on"]
        classes = (element.attributes.get("class") or "").split()
        if "scroll" in classes:
            named = {"aria-label", "aria-labelledby"} & set(element.attributes)
            if element.attributes.get("tabindex") != "0" or not named:
                found.append("what scrolls cannot be reached, or has no name")
    found += re.findall(r"@import|@font-face|expression\(", text)
    levels = [int(e.tag[1]) for e in everything if re.fullmatch("h[1-6]", e.tag)]
    if levels[:1] != [1] or levels.count(1) != 1:
        found.append("the page has no one main heading that comes first")
    for before, after in itertools.pairwise(levels):
        found += [f"h{after} follows h{before}"] if after > before + 1 else []
    if not root.all("html", lang="en"):
        found.append("no language is said")
    return found


def made_spec(name: str, **settings: Any) -> Any:
    """An example's spec."""
    kind: Any = EXAMPLES[name]
    return kind(**settings)


@cache
def results() -> tuple[Verification, ...]:
    """Small honest runs: one step and many, equal and rounding, both dtypes, with chaos in none."""
    wanted: list[tuple[str, dict[str, Any]]] = [
        ("linear_regression", {"steps": 20, "learning_rate": 0.02}),
        ("chain_rule", {}),
    ]
    return tuple(
        verify(made_spec(name, dtype=dtype, **settings))
        for dtype in ("float64", "float32")
        for name, settings in wanted
    )


@cache
def honest() -> str:
    """The page of `results`."""
    return page(results())


@cache
def diverged() -> Verification:
    """A run that soon is NaN on both sides."""
    with np.errstate(all="ignore"):
        return verify(made_spec("linear_regression", dtype="float64", learning_rate=1e80, steps=9))


def spoilt(
    stage: str = "grads", leaf: str = "weight", step: int = 3, *, mode: str = "gate"
) -> Verification:
    """An honest result whose traces were judged anew, with one entry of them off."""
    judge = Judge("float64")
    honest = made(noise=1e-15)
    faulty = planted(honest, stage, leaf, step, 1.25)
    scales = honest.scales
    assert scales is not None
    judge.gate(honest, faulty if mode == "gate" else honest, scales)
    judge.free(honest, faulty)
    return dataclasses.replace(
        results()[0], comparison=judge.comparison(), history=judge.history.curves
    )


def read(*of: Verification) -> Element:
    """The page of some results, read back."""
    text = page(of)
    assert flaws(text) == []
    return Reader(text).root


def test_page_is_whole() -> None:
    assert flaws(honest()) == []
    assert flaws(page([])) == []


def _first(pattern: str, replacement: str) -> Callable[[str], str]:
    def change(text: str) -> str:
        changed = re.sub(pattern, replacement, text, count=1)
        assert changed != text
        return changed

    return change


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (_first('id="reading"', 'id="summary"'), "id summary is there 2 times"),
        (_first('id="summary"', 'id="sumary"'), "#summary is nowhere"),
        (_first("</article>", ""), "closes"),
        (_first("</b>", "</i>"), "</i> closes <b>"),
        (_first("<footer>", '<footer><a href="https://example.org">x</a>'), "leads out"),
        (_first("<footer>", "<footer><script>1</script>"), "<script> loads something"),
        (_first("<footer>", '<footer onclick="1">'), "onclick runs something"),
        (_first("<style>", "<style>@import 'x';"), "@import"),
        (_first("<style>", "<style>p{background:url(x.png)}"), "leads out"),
        (_first(' tabindex="0"', ""), "cannot be reached"),
        (_first("<h2(.*?)</h2>", r"<h4\1</h4>"), "h4 follows h1"),
        (_first(' lang="en"', ""), "no language"),
        (_first('aria-labelledby="', 'aria-labelledby="not-'), "is nowhere"),
    ],
)
def test_flaw_is_noticed(change: Callable[[str], str], says: str) -> None:
    assert any(says in flaw for flaw in flaws(change(honest()))), flaws(change(honest()))


def test_same_results_give_the_same_bytes() -> None:
    plots.losses_figure(results()[:1])  # what was drawn before leaves no trace
    assert page(results()) == honest()


def summary_rows(root: Element) -> list[list[str]]:
    """The summary's cells; the example's name is in the first row of each."""
    (table,) = root.all("table", class_="summary")
    return [[c.words for c in row.all() if c.tag in ("td", "th")] for row in table.all("tr")[1:]]


def test_summary_says_what_was_found() -> None:
    groups = [[results()[0], results()[2]], [results()[1], results()[3]]]
    expected = []
    for group in groups:
        for k, result in enumerate(group):
            comparison = result.comparison
            gate = comparison.worst["gate"]
            sign = {Verdict.EQUAL: "=", Verdict.ROUNDING: "≈"}[comparison.verdict]
            expected.append(
                ([result.spec.name] if k == 0 else [])
                + [result.spec.dtype, f"{sign} {comparison.verdict}", str(comparison.steps)]
                + [share(gate[s].ratio) if s in gate else "–" for s in STAGES[1:]]
                + [share(comparison.smallest_allowance("free")), f"{result.seconds:.1f}"]
            )
    root = Reader(honest()).root
    assert summary_rows(root) == expected
    assert not root.all("section", id="failing")
    assert "All 4 results are the same." in root.all("p", class_="lead")[0].words


def test_summary_notices_another_result() -> None:
    other = dataclasses.replace(
        results()[0], comparison=dataclasses.replace(results()[0].comparison, steps=99)
    )
    assert summary_rows(read(other)) != summary_rows(read(results()[0]))


def test_both_sources_are_there_whole() -> None:
    root = Reader(honest()).root
    for section, name in zip(
        root.all("section", class_="example"), ("linear_regression", "chain_rule"), strict=True
    ):
        for side, framework in (("left", "torch"), ("right", "jax")):
            cells = section.all("td", class_=side)
            text = source(EXAMPLES[name], framework)
            assert "".join(cell.text + "\n" for cell in cells) == text
        numbers = [e.attributes["data-n"] for e in section.all("td", class_="lineno")[::2]]
        assert [n for n in numbers if n] == [
            str(n) for n in range(1, source(EXAMPLES[name], "torch").count("\n") + 1)
        ]


@pytest.mark.parametrize("name", sorted({s.implementation: s.name for s in EXAMPLES.values()}))
def test_highlighting_keeps_every_line(name: str) -> None:
    kind = next(kind for kind in EXAMPLES.values() if kind.implementation == name)
    torch, jax = source(kind, "torch"), source(kind, "jax")
    rows = twin_rows(torch, jax)
    for text, lines in ((torch, [r.left for r in rows]), (jax, [r.right for r in rows])):
        shown = [Reader(line).root.text for line in lines if line is not None]
        assert shown == text.splitlines()
    assert all((a.left == a.right) for a in rows if a.same)


@pytest.mark.parametrize("stage", ["loss", "grads", "opt_state", "params"])
def test_first_entry_that_is_off_stands_at_the_top(stage: str) -> None:
    leaf = {"loss": "loss", "opt_state": "weight.exp_avg"}.get(stage, "weight")
    result = spoilt(stage, leaf)
    first = result.comparison.first
    assert first is not None
    assert (first.step, first.stage, first.leaf) == (3, stage, leaf)
    index = "" if stage == "loss" else "[2, 1]"
    root = read(result, *results()[1:])
    alarms = [root.all("section", id="failing")[0]]
    section = root.all("section", class_="example")[0]
    alarms += section.all("div", class_="alarm")
    assert len(alarms) == 2
    for alarm in alarms:
        assert f"step 3, {'stage ' * (alarm.tag == 'div')}{stage}" in alarm.words
        assert f"{leaf}{index}" in alarm.words
        assert "≠ mismatch" in alarm.words
    assert f"{first.reference:.17g}" in alarms[1].words
    assert f"{first.candidate:.17g}" in alarms[1].words
    # before the code and the plots, and linked from the top
    assert next(e for e in section.children if isinstance(e, Element) and e.tag != "div").tag == "p"
    link = alarms[0].all("a")[0].attributes["href"]
    assert link == "#" + str(section.all("article")[0].attributes["id"])
    assert "1 of 4 results is not the same" in root.all("p", class_="lead")[0].words


def test_free_run_that_drifts_is_said_to_drift() -> None:
    result = spoilt(mode="free")
    assert result.comparison.verdict is Verdict.DRIFT
    root = read(result)
    assert "in the free run" in root.all("section", id="failing")[0].words
    assert "~ drift" in root.all("section", id="failing")[0].words


def test_other_initial_parameters_are_said() -> None:
    words = read(spoilt("params", "weight", 0, mode="free")).all("section", id="failing")[0].words
    assert "step 0, params" in words
    assert "before the first update" in words


def test_reason_stands_where_there_is_no_entry() -> None:
    reason = "different structure: grads lack <weight>"
    broken = dataclasses.replace(
        results()[0].comparison,
        verdict=Verdict.MISMATCH,
        reason=reason,
        first=None,
        worst={},
        steps=0,
    )
    result = dataclasses.replace(results()[0], comparison=broken, history={})
    root = read(result)
    assert reason in root.all("section", id="failing")[0].words
    assert reason in root.all("section", class_="example")[0].all("div", class_="alarm")[0].words
    assert "not compared" in root.all("article")[0].words


def test_worst_entries_are_those_of_the_result() -> None:
    article = Reader(honest()).root.all("article")[0]
    (table,) = article.all("table", class_="worst")
    shown = [[cell.words for cell in row.all("td")] for row in table.all("tr")[1:]]
    expected = []
    for mode, said in (("gate", "gate"), ("free", "free run")):
        for stage, finding in results()[0].comparison.worst[mode].items():
            if stage == "batch":
                continue
            index = str(list(finding.index)) if finding.index else ""
            expected.append([said, stage, finding.leaf + index, str(finding.step)])
            assert [float(x) for x in shown[len(expected) - 1][4:6]] == [
                finding.reference,
                finding.candidate,
            ]
            assert shown[len(expected) - 1][8] == share(finding.ratio)
    assert [row[:4] for row in shown] == expected


def test_claims_stand_beside_what_was_measured() -> None:
    section = Reader(honest()).root.all("section", class_="example")[0]
    (table,) = section.all("table", class_="claims")
    words = table.words
    for result in (results()[0], results()[2]):
        for claim in result.claims:
            assert claim.says in words
            holds = "✓ yes" if claim.holds else "✗ no"
            assert f"{result.spec.dtype}{claim.measured}{holds}" in words


HOSTILE = '</style><script>alert("&")</script>'


def test_hostile_text_stays_text() -> None:
    plain = results()[0]
    first = dataclasses.replace(plain.comparison.worst["gate"]["grads"], leaf=HOSTILE)
    worst = {"gate": {"grads": first}}
    claim = plain.claims[0]._replace(says=HOSTILE, measured=HOSTILE)
    run = dataclasses.replace(plain.runs["jax"], device=HOSTILE, versions={HOSTILE: HOSTILE})
    spec = made_spec("mnist_rnn", data_dir=HOSTILE, dtype="float64")
    result = dataclasses.replace(
        plain,
        spec=spec,
        comparison=dataclasses.replace(
            plain.comparison, verdict=Verdict.MISMATCH, reason=HOSTILE, first=first, worst=worst
        ),
        claims=[claim],
        runs={"torch": run, "jax": run},
    )
    root = read(result)
    assert root.words.count(HOSTILE) >= 5
    assert "'" + HOSTILE + "'" in root.words  # quoted for the shell


def test_escaping_can_fail() -> None:
    text = honest().replace("linear_regression", HOSTILE, 1)
    assert flaws(text) != []


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("linear_regression", {}),
        ("linear_regression", {"seed": 7, "learning_rate": 0.02, "betas": (0.5, 0.25)}),
        ("linear_regression_adam", {"optimizer": "sgd", "epochs": 3, "steps": 2}),
        ("without_zero_grad", {"zero_grad": True}),
        ("zero_grad", {"zero_grad": False}),
        ("sgd_linear_model", {"seed": 2**63}),
        ("mnist_rnn", {"data_dir": "my digits; rm 'x'", "log_every": 3, "batch_size": 7}),
        ("mnist_rnn", {"data_dir": "-rf"}),
        ("mnist_rnn", {"learning_rate": 1e-30}),
    ],
)
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_command_repeats_the_result(name: str, dtype: str, settings: dict[str, Any]) -> None:
    spec = made_spec(name, dtype=dtype, **settings)
    place = Place(devices=2, precision="highest" if dtype == "float64" else "default")
    twinstep_word, verify_word, *rest = shlex.split(command_of(spec, place))
    assert (twinstep_word, verify_word) == ("twinstep", "verify")
    options, specs = _specs_to_verify(*leading_words(rest))
    assert specs == [spec]
    assert options.place == place
    assert command_of(made_spec("zero_grad", dtype=dtype)) == (
        f"twinstep verify zero_grad --dtype {dtype} --seed 0"
    )


def test_page_shows_the_commands() -> None:
    root = Reader(honest()).root
    shown = [e.words for e in root.all("pre")]
    ordered = [results()[k] for k in (0, 2, 1, 3)]
    assert shown == [command_of(result.spec) for result in ordered]
    assert "--learning-rate 0.02" in shown[0]


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
    chaotic = dataclasses.replace(results()[0].comparison, horizon=8)
    result = dataclasses.replace(results()[0], comparison=chaotic)
    root = read(result)
    assert "not judged: chaos" in root.words
    assert "to step 7" in root.all("table", class_="summary")[0].words
    assert "chaos" not in read(results()[0]).all("article")[0].words


def _long(steps: int) -> Verification:
    """A result as of a long run: as many points as a history keeps, and every loss."""
    points = np.linspace(1, steps, MOST_POINTS).astype(int)
    noise = np.random.default_rng(0).uniform(0, 1e-16, MOST_POINTS)
    curve = Curve(points, noise, np.full(MOST_POINTS, 1e-15), np.full(MOST_POINTS, "weight"))
    history = dict.fromkeys(results()[0].history, curve)
    losses = np.random.default_rng(1).uniform(1, 2, steps)
    outcomes = {
        name: outcome._replace(losses=losses) for name, outcome in results()[0].outcomes.items()
    }
    comparison = dataclasses.replace(results()[0].comparison, steps=steps)
    return dataclasses.replace(
        results()[0], history=history, outcomes=outcomes, comparison=comparison
    )


def test_long_run_stays_small() -> None:
    text = page([_long(20_000)])
    assert flaws(text) == []
    assert len(text) < 500_000


@pytest.mark.parametrize("value", [0.0, 5e-324, 1e-308, 1e308, math.inf, math.nan, -0.0])
def test_any_number_can_be_drawn(value: float) -> None:
    three = np.array([1, 2, 3])
    numbers = np.array([value, 0.0, value])
    for difference, allowed in ((numbers, np.ones(3)), (numbers, numbers), (np.ones(3), numbers)):
        curve = Curve(three, difference, allowed, np.full(3, "weight"))
        outcomes = {
            name: outcome._replace(losses=numbers)
            for name, outcome in results()[0].outcomes.items()
        }
        result = dataclasses.replace(
            results()[0], history={("gate", "loss"): curve}, outcomes=outcomes
        )
        for figure in (plots.differences_figure(result), plots.losses_figure([result] * 2)):
            text = plots.svg(figure, "a-", HOSTILE)
            assert Reader(text).root.all("svg")[0].attributes["aria-label"] == HOSTILE
            assert "nan" not in re.sub(r">[^<]*<", "><", text)


def test_figures_of_a_page_share_no_id() -> None:
    figure = plots.differences_figure(results()[0])
    text = plots.svg(figure, "a-") + plots.svg(figure, "b-")
    ids = re.findall(r' id="([^"]*)"', text)
    assert ids
    assert len(ids) == len(set(ids))
    assert len(set(re.findall(r' id="([^"]*)"', plots.svg(figure) * 2))) < len(ids)


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


def test_command_writes_the_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "page.html"
    assert main(["verify", "chain_rule", "--dtype", "float64", "--report", str(file)]) == 0
    text = file.read_text(encoding="utf-8")
    assert flaws(text) == []
    assert "chain_rule" in summary_rows(Reader(text).root)[0][0]
    assert [path.name for path in tmp_path.iterdir()] == ["page.html"]
    assert "1 verified" in capsys.readouterr().out


@pytest.mark.parametrize("target", ["no/such/page.html", "", ".", "file/page.html"])
@pytest.mark.parametrize("flag", ["--report", "--json"])
def test_target_is_refused_before_anything_is_trained(
    flag: str,
    target: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("mine")
    monkeypatch.setattr("twinstep.cli.verify.verify_all", lambda *_, **__: pytest.fail("trained"))
    assert main(["verify", "chain_rule", flag, target]) == 2
    error = capsys.readouterr().err
    assert "cannot be written" in error
    assert error.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert (tmp_path / "file").read_text() == "mine"


def test_page_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    target = tmp_path / "page.html"
    target.write_text("old")
    refuse_unwritable(str(target))
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
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


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
        done = subprocess.run(
            [browser, *flags.split(), "--dump-dom", frame.as_uri()],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
    except subprocess.TimeoutExpired:
        pytest.skip("chromium does not start here")
    said = re.search(r'data-w="(\d+) (\d+)"', done.stdout)
    if said is None:
        pytest.skip("chromium does not lay the page out here")
    assert said.groups() == (str(width), str(width))
