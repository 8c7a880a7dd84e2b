"""The HTML page: complete in itself, true to the results, readable by everyone.

Pages are built from small verifications and from results that were spoilt by hand; what is read
back off them is held against the results themselves.
"""

import dataclasses
import re
import shlex
from typing import Any

import pytest
from helpers import pages
from helpers.pages import HOSTILE, Reader, changed, flaws, honest, made_spec, read, results, spoilt

from twinstep.cli.parsing import leading_words
from twinstep.cli.verify import _specs_to_verify
from twinstep.device_config import DeviceConfig
from twinstep.judge.findings import Verdict
from twinstep.problems import EXAMPLES
from twinstep.report import plots
from twinstep.report.highlight import twin_rows
from twinstep.report.page import command_of, page
from twinstep.report.parts import share
from twinstep.report.show import source
from twinstep.runs.pool import Lost

pytestmark = pytest.mark.quick_to_compile


def test_page_is_whole() -> None:
    assert flaws(honest()) == []
    assert flaws(page([])) == []


def test_a_result_that_there_is_not_is_said_first() -> None:
    lost = Lost(made_spec("zero_grad"), "its process ended with exit code 3")
    for others in ((), results()):
        text = page([*others, lost])
        assert flaws(text) == []
        lead = text[text.index('<p class="lead">') :].partition("</p>")[0]
        assert f"<strong>{lost}.</strong>" in lead
        assert "All" not in lead


@pytest.mark.parametrize(
    ("pattern", "replacement", "says"),
    [
        ('id="reading"', 'id="summary"', "id summary is there 2 times"),
        ('id="summary"', 'id="sumary"', "#summary is nowhere"),
        ("</article>", "", "closes"),
        ("</b>", "</i>", "</i> closes <b>"),
        ("<footer>", '<footer><a href="https://example.org">x</a>', "leads out"),
        ("<footer>", "<footer><script>1</script>", "<script> loads something"),
        ("<footer>", '<footer onclick="1">', "onclick runs something"),
        ("<style>", "<style>@import 'x';", "@import"),
        ("<style>", "<style>p{background:url(x.png)}", "leads out"),
        (' tabindex="0"', "", "cannot be reached"),
        ("<h2(.*?)</h2>", r"<h4\1</h4>", "h4 follows h1"),
        (' lang="en"', "", "no language"),
        ('aria-labelledby="', 'aria-labelledby="not-', "is nowhere"),
        ("linear_regression", HOSTILE, ""),  # what is not escaped
    ],
)
def test_flaw_is_noticed(pattern: str, replacement: str, says: str) -> None:
    found = flaws(re.sub(pattern, replacement, honest(), count=1))
    assert any(says in flaw for flaw in found), found


def test_same_results_give_the_same_bytes() -> None:
    plots.losses_figure(results()[:1])  # what was drawn before leaves no trace
    assert page(results()) == honest()


def test_summary_says_what_was_found() -> None:
    heads, expected = ("loss", "raw_grads", "opt_state", "params", "evaluation"), []
    for k in (0, 2, 1, 3):
        result, comparison = results()[k], results()[k].comparison
        gate = comparison.worst["gate"]
        sign = {Verdict.EQUAL: "=", Verdict.ROUNDING: "≈"}[comparison.verdict]
        expected.append(
            ([result.spec.name] if k < 2 else [])
            + [result.spec.dtype, f"{sign} {comparison.verdict}", str(comparison.steps)]
            + [share(gate[s].ratio) if s in gate else "–" for s in heads]
            + [share(comparison.smallest_allowance("free")), f"{result.seconds:.1f}"]
        )
    root = Reader(honest()).root
    assert pages.summary_rows(root) == expected
    assert not root.all("section", id="failing")
    assert "All 4 results are the same." in root.all("p", class_="lead")[0].words


def test_both_sources_are_there_whole() -> None:
    root = Reader(honest()).root
    sections = root.all("section", class_="example")
    for section, name in zip(sections, ("linear_regression", "chain_rule"), strict=True):
        for side, framework in (("left", "torch"), ("right", "jax")):
            text = source(EXAMPLES[name], framework)
            assert "".join(f"{cell.text}\n" for cell in section.all("td", class_=side)) == text
        numbers = [e.attributes["data-n"] for e in section.all("td", class_="lineno")[::2]]
        lines = source(EXAMPLES[name], "torch").count("\n")
        assert [n for n in numbers if n] == [str(n + 1) for n in range(lines)]


def test_highlighting_keeps_every_line(name: str) -> None:
    kind = EXAMPLES[name]
    torch, jax = source(kind, "torch"), source(kind, "jax")
    rows = twin_rows(torch, jax)
    for text, lines in ((torch, [r.left for r in rows]), (jax, [r.right for r in rows])):
        shown = [Reader(line).root.text for line in lines if line is not None]
        assert shown == text.splitlines()
    assert all((a.left == a.right) for a in rows if a.same)


@pytest.mark.parametrize("stage", ["loss", "raw_grads", "grads", "opt_state", "params"])
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
    tags = [getattr(child, "tag", "div") for child in section.children]
    assert next(tag for tag in tags if tag != "div") == "p"
    link = alarms[0].all("a")[0].attributes["href"]
    assert link == "#" + str(section.all("article")[0].attributes["id"])
    assert "1 of 4 results is not the same" in root.all("p", class_="lead")[0].words


@pytest.mark.parametrize(
    ("entry", "says"),
    [
        ((), ("in the free run", "~ drift")),
        (("params", "weight", 0), ("step 0, params", "before the first update")),
    ],
)
def test_what_is_off_in_the_free_run_is_said(entry: Any, says: tuple[str, ...]) -> None:
    root = read(spoilt(*entry, mode="free"))
    words = root.all("section", id="failing")[0].words
    assert [text for text in says if text not in words] == []


def test_reason_stands_where_there_is_no_entry() -> None:
    reason = "different structure: grads lack <weight>"
    broken: Any = {"verdict": Verdict.MISMATCH, "first": None, "worst": {}, "steps": 0}
    root = read(changed({**broken, "reason": reason}, history={}))
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
            index = str(list(finding.index)) if finding.index else ""
            row = [said, stage, finding.leaf + index, str(finding.step)]
            numbers = (finding.reference, finding.candidate, share(finding.ratio))
            expected += [] if stage == "batch" else [(row, *numbers)]
    assert [(row[:4], float(row[4]), float(row[5]), row[8]) for row in shown] == expected


def test_claims_stand_beside_what_was_measured() -> None:
    section = Reader(honest()).root.all("section", class_="example")[0]
    (table,) = section.all("table", class_="claims")
    words = table.words
    for result in (results()[0], results()[2]):
        for claim in result.claims:
            assert claim.says in words
            holds = "✓ yes" if claim.holds else "✗ no"
            assert f"{result.spec.dtype}{claim.measured}{holds}" in words


def test_hostile_text_stays_text() -> None:
    plain = results()[0]
    first = dataclasses.replace(plain.comparison.worst["gate"]["raw_grads"], leaf=HOSTILE)
    found = {"first": first, "worst": {"gate": {"raw_grads": first}}, "reason": HOSTILE}
    claim = plain.claims[0]._replace(says=HOSTILE, measured=HOSTILE)
    run = dataclasses.replace(plain.runs["jax"], device=HOSTILE, versions={HOSTILE: HOSTILE})
    root = read(
        changed(
            {"verdict": Verdict.MISMATCH, **found},
            spec=made_spec("mnist_rnn", data="mnist", data_dir=HOSTILE, dtype="float64"),
            claims=[claim],
            runs={"torch": run, "jax": run},
        )
    )
    assert root.words.count(HOSTILE) >= 5
    assert "'" + HOSTILE + "'" in root.words  # quoted for the shell


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("linear_regression", {}),
        ("linear_regression", {"seed": 7, "learning_rate": 0.02}),
        ("linear_regression_adam", {"seed": 7, "learning_rate": 0.02, "betas": (0.5, 0.25)}),
        ("linear_regression_l1", {"epochs": 3, "steps": 2}),
        ("without_zero_grad", {"epochs": 7}),
        ("chain_rule", {"x": -0.5, "w2": 1e30}),
        ("sgd_linear_model", {"seed": 2**63}),
        ("mnist_rnn", {"data": "mnist", "data_dir": "my digits; rm 'x'", "batch_size": 7}),
        ("mnist_rnn", {"data": "mnist", "data_dir": "-rf", "log_every": 3}),
        ("mnist_rnn", {"learning_rate": 1e-30}),
    ],
)
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_command_repeats_the_result(name: str, dtype: str, settings: dict[str, Any]) -> None:
    spec = made_spec(name, dtype=dtype, **settings)
    precision: Any = "highest" if dtype == "float64" else "default"
    device_config = DeviceConfig(devices=2, precision=precision)
    words = shlex.split(command_of(spec, device_config))
    assert words[:2] == ["twinstep", "verify"]
    options, specs = _specs_to_verify(*leading_words(words[2:]))
    assert (specs, options.device_config) == ([spec], device_config)
    assert command_of(made_spec("zero_grad", dtype=dtype)) == (
        f"twinstep verify zero_grad --dtype {dtype} --seed 0"
    )


def test_page_shows_the_commands() -> None:
    shown = [e.words for e in Reader(honest()).root.all("pre")]
    assert shown == [command_of(results()[k].spec) for k in (0, 2, 1, 3)]
    assert "--learning-rate 0.02" in shown[0]
