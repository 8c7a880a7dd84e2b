"""Flags and names: what --help says, and what is offered where a name is not known."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import pytest
from helpers.commands import command, refusal
from helpers.synthetic_traces import refused

import twinstep
from twinstep.cli.parsing import CommonFlags, flags_of, parse, parse_with
from twinstep.device_config import DeviceConfig
from twinstep.errors import unknown
from twinstep.problems import EXAMPLES

HELPED = [
    *["list", "run zero_grad", "verify", "compare", "show zero_grad", "bench"],
    *[f"verify {name}" for name in EXAMPLES],
    "bench mnist_rnn",
]


@pytest.mark.parametrize("line", HELPED)
def test_help_says_what_the_command_does(line: str) -> None:
    usage, _, says, *lines = command(*line.split(), "--help").well().splitlines()
    assert usage.startswith(f"usage: twinstep {line} ")
    assert re.fullmatch(r"[A-Z].*", says)
    assert says != "What every example has."
    text = "\n".join(lines)
    assert "None" not in text
    assert "options options" not in text
    assert "spec options" not in text
    flags = re.findall(r"^  (--[a-z0-9-]+)(.*)", text, re.MULTILINE)
    assert "--json" in dict(flags) or "show" in line
    if "zero_grad" in line:
        assert ("--diff" if "show" in line else "--learning-rate NUMBER    SGD's step size") in text
    for flag, rest in flags:
        assert re.match(r"( (INT|TEXT|(NUMBER ?)+|\{[\w,]+\})|, --no-[a-z0-9-]+)(  |$)", rest), flag
        assert re.search(rf"^  {flag}\b[^\n]*(  \w|\n {{10,}}\w)", text, re.MULTILINE), f"{flag}: ?"


IN_PYTHON: list[tuple[Callable[[], object], str]] = [
    (lambda: twinstep.run(EXAMPLES["zero_grad"](), framework="jaxx"), "did you mean jax?"),
    (lambda: DeviceConfig(device="gpus"), "unknown device 'gpus': did you mean gpu?"),
    (lambda: DeviceConfig(precision="fast"), "expected one of highest, default"),
    (lambda: DeviceConfig(device=3), "unknown device 3: expected one of cpu, gpu, tpu"),  # type: ignore[arg-type]  # what is refused
    (lambda: EXAMPLES["zero_grad"](dtype="flaot64"), "unknown dtype 'flaot64': did you mean flo"),  # type: ignore[arg-type]  # refused
]


@pytest.mark.parametrize(("call", "says"), IN_PYTHON)
def test_names_in_python(call: Callable[[], object], says: str) -> None:
    refused(call, says)


def test_where_nothing_is_near_all_names_are_said() -> None:
    assert unknown("fruit", "xyz", ["apple", "pear"]).endswith("expected one of apple, pear")
    line = refusal("verify", "optimizers", "--row", "Nope")
    assert "unknown row 'Nope': expected one of Adadelta, Adafactor, " in line
    assert len(line) < 300  # the kinds, and not a hundred rows
    for row, near in (("Adm", "Adam"), ("adamw", "AdamW")):
        line = refusal("verify", "optimizers", "--row", row)
        assert re.search(rf"unknown row '{row}': did you mean [^?]*{near}\b", line)


@dataclass(frozen=True)
class Mine:
    """What a command can do."""

    first_name: str | None = None
    """A name."""
    kind: Literal["big", "small"] | None = None
    """A kind, 50 % of which are big (default: any)."""
    size: float = 1.5
    """A size."""
    count: int = 1
    """A count."""
    pair: tuple[float, float] = (0.5, 0.9)
    """Two."""
    wide: bool = True
    """Whether it is wide,
    or not."""


@dataclass(frozen=True)
class More(Mine):
    """It has some of its own."""

    count: int = 2
    """Another count."""


def test_flags_become_fields() -> None:
    assert parse(More, [], "prog") == More()
    flags = "--first_name=x --kind big --size -1e-3 --count -4 --pair 1 2 --no-wide"
    assert parse(More, flags.split(), "prog") == More("x", "big", -1e-3, -4, (1.0, 2.0), False)
    assert parse(Mine, ["--first-name", "-"], "prog").first_name == "-"
    assert parse(Mine, ["--size=1e400"], "prog").size == float("inf")
    both = parse_with(Mine, CommonFlags, ["--seed", "3", "--count", "7"], "prog")
    assert both == (Mine(count=7), CommonFlags(seed=3))


BAD = {
    "--count x": "--count: 'x' is no whole number",
    "--count 1.5": "--count: '1.5' is no whole number",
    "--size big": "--size: 'big' is no number",
    "--size": "--size: expected one argument",
    "--pair 1": "--pair: expected 2 arguments",
    "--cou 1": "unknown flag '--cou': did you mean --count?",  # no short forms: they break one day
    "--wide=3": "--wide/--no-wide: takes no argument '3'",
    "--kind tiny": "expected one of big, small",
    "5": "'5' is not expected",
}


@pytest.mark.parametrize("flags", BAD)
def test_what_does_not_fit_is_one_line(flags: str) -> None:
    line = refused(lambda: parse(Mine, flags.split(), "prog [NAME ...]"), BAD[flags])
    assert line.endswith("(see prog --help)")


def test_help_is_the_docstrings() -> None:
    said = command("--help", call=lambda flags: parse(More, flags, "prog"))
    words = " ".join(said.well().split())
    for says in (
        "usage: prog [flags] It has some of its own. options:",
        "--first-name TEXT A name. --kind",
        "--kind {big,small} A kind, 50 % of which are big (default: any). --size",
        "--size NUMBER A size. (default: 1.5)",
        "--count INT Another count. (default: 2)",
        "--pair NUMBER NUMBER Two. (default: 0.5 0.9)",
        "--wide, --no-wide Whether it is wide, or not. (default: yes)",
    ):
        assert says in words


def test_flags_and_their_values_are_known() -> None:
    free = ("--first-name", "--size", "--count", "--pair")
    wide = {"--wide": None, "--no-wide": None}
    assert flags_of(More) == {**dict.fromkeys(free, ()), "--kind": ("big", "small"), **wide}
