"""The HTML page read back, what is wrong with one, and small results to make pages of."""

import dataclasses
import itertools
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from html.parser import HTMLParser
from typing import Any

import numpy as np
from helpers.synthetic_traces import entry, made, with_fault

from twinstep.judge.judge import Judge
from twinstep.problems import EXAMPLES
from twinstep.report.page import page
from twinstep.runs.claims import with_claims
from twinstep.runs.verification import Verification, verify

_VOID = {"meta", "br", "wbr", "hr", "img", "link", "input", "area", "base", "col", "source"}
_LOADS = {"script", "link", "img", "iframe", "object", "embed", "video", "audio", "source", "base"}
HOSTILE = '</style><script>alert("&")</script>'
"""A text that is to stay text."""


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
        for child in (child for child in self.children if isinstance(child, Element)):
            wanted = (value in child.of(name.rstrip("_")) for name, value in attributes.items())
            found += [child] if tag in ("", child.tag) and all(wanted) else []
            found += child.all(tag, **attributes)
        return found

    def of(self, attribute: str) -> list[str]:
        """The words of an attribute."""
        return (self.attributes.get(attribute) or "").split()


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
            for label in element.of(name):
                found += [] if label in ids else [f"{name} {label} is nowhere"]
        if element.tag in _LOADS or "src" in element.attributes:
            found.append(f"<{element.tag}> loads something")
        found += [f"{name} runs something" for name in element.attributes if name[:2] == "on"]
        if "scroll" in element.of("class"):
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
    return EXAMPLES[name](**settings)


@cache
def results() -> tuple[Verification, ...]:
    """Small honest runs: one step and many, equal and rounding, both dtypes, with chaos in none."""
    return tuple(
        with_claims(verify(made_spec(name, dtype=dtype, **settings)))
        for dtype in ("float64", "float32")
        for name, settings in (
            ("linear_regression", {"steps": 20, "learning_rate": 0.02}),
            ("chain_rule", {}),
        )
    )


def changed(
    judged: Mapping[str, Any] | None = None, losses: np.ndarray | None = None, **changes: Any
) -> Verification:
    """The first of `results` with changes to its comparison, to both losses, and to itself."""
    first = results()[0]
    if judged is not None:
        changes["comparison"] = dataclasses.replace(first.comparison, **judged)
    if losses is not None:
        outcomes = first.outcomes.items()
        changes["outcomes"] = {name: one._replace(losses=losses) for name, one in outcomes}
    return dataclasses.replace(first, **changes)


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
    stage: str = "raw_grads", leaf: str = "weight", step: int = 3, *, mode: str = "gate"
) -> Verification:
    """An honest result whose traces were judged anew, with one entry of them off."""
    judge = Judge("float64")
    honest = made(rounding_noise=1e-15)
    value = 1.25 if mode == "gate" else entry(honest, stage, leaf, step) + 1e-12
    faulty = with_fault(honest, stage, leaf, step, value)
    rounding_scale = honest.rounding_scale
    assert rounding_scale is not None
    judge.gate(honest, faulty if mode == "gate" else honest, rounding_scale)
    judge.free(honest, faulty)
    return changed(comparison=judge.comparison(), history=judge.history.curves)


def read(*of: Verification) -> Element:
    """The page of some results, read back."""
    text = page(of)
    assert flaws(text) == []
    return Reader(text).root


def summary_rows(root: Element) -> list[list[str]]:
    """The summary's cells; the example's name is in the first row of each."""
    (table,) = root.all("table", class_="summary")
    return [[c.words for c in row.all() if c.tag in ("td", "th")] for row in table.all("tr")[1:]]
