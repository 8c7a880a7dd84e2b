"""Twin files side by side: every line once and level with its mirror; what a terminal shows."""

import io
import re
from itertools import pairwise

import pytest
from helpers.commands import command
from hypothesis import example, given
from hypothesis import strategies as st
from rich.console import Console

from twinstep.problems import EXAMPLES
from twinstep.report import show
from twinstep.report.align import Pair, align, definitions
from twinstep.report.show import Skipped, print_twins, rows, source

LINES = st.lists(
    st.sampled_from(
        [
            "",
            "    ",
            "import torch",
            "import jax",
            "def build(problem):",
            "def train(model: nn.Module):",
            "def train(model: nnx.Module):",
            "    def forward(self, x):",
            "    def __call__(self, x):",
            "    loss.backward()",
            "    optimizer = sgd(lr=0.1)",
            "    optimizer = torch.optim.SGD(params, lr=0.1)",
            "    return loss",
            ")",
            "αβγ = 1",
        ]
    ),
    max_size=12,
)


def faults(left: str, right: str, pairs: list[Pair]) -> list[str]:
    """What is wrong with an alignment, whatever made it."""
    a, b = left.splitlines(), right.splitlines()
    found = []
    for side, lines in (("left", a), ("right", b)):
        if [n for p in pairs if (n := getattr(p, side)) is not None] != list(range(len(lines))):
            found.append(f"{side} lines: not every one once, in order")
    for pair in pairs:
        if pair.left is None and pair.right is None:
            found.append("an empty row")
        both = pair.left is not None and pair.right is not None
        if pair.same != (both and a[pair.left or 0] == b[pair.right or 0]):
            found.append(f"{pair} is the same, or is not")
    for one, other in pairwise(pairs):
        if None in one[:2] and None in other[:2] and (one.left is None) != (other.left is None):
            found.append(f"staggered: {one}, {other}")
    return found


def level(left: str, right: str, pairs: list[Pair]) -> set[str]:
    """The definitions whose headers stand in one row."""
    a, b = headers(left), headers(right)
    return {a[p.left] for p in pairs if p.left in a and a.get(p.left) == b.get(p.right)}


def headers(text: str) -> dict[int | None, str]:
    """{line: the full name of the definition that starts there, `__call__` as `forward`}."""
    lines = text.splitlines()
    return {
        i: re.sub(r"\b__call__\b", "forward", name)
        for i, name in enumerate(definitions(lines))
        if re.match(r"\s*(def|class) ", lines[i])
    }


def longest_common(a: list[str], b: list[str]) -> int:
    """The length of the longest common subsequence of lines that are not blank."""
    a, b = [x for x in a if x.strip()], [x for x in b if x.strip()]
    best = [[0] * (len(b) + 1) for _ in range(len(a) + 1)]
    for i, x in enumerate(a):
        for j, y in enumerate(b):
            best[i + 1][j + 1] = best[i][j] + 1 if x == y else max(best[i][j + 1], best[i + 1][j])
    return best[-1][-1]


@given(LINES, LINES)
@example([], [])
@example([], [""])
@example(["", "x"], ["x", ""])
def test_every_line_stands_once_in_order_and_nothing_is_staggered(
    a: list[str], b: list[str]
) -> None:
    left, right = "\n".join(a), "\n".join(b)
    assert faults(left, right, align(left, right)) == []


@given(LINES)
def test_a_file_beside_itself_is_all_the_same(a: list[str]) -> None:
    text = "\n".join(a)
    assert align(text, text) == [Pair(i, i, True) for i in range(len(text.splitlines()))]


@given(LINES, LINES)
def test_where_no_definition_decides_as_many_lines_match_as_can(a: list[str], b: list[str]) -> None:
    a, b = ([line for line in lines if "def " not in line] for lines in (a, b))
    left, right = "\n".join(a), "\n".join(b)
    pairs = align(left, right)
    matched = sum(p.same and a[p.left or 0].strip() != "" for p in pairs)
    assert matched == longest_common(a, b)


@given(st.permutations(["build", "train", "main"]), LINES, LINES)
def test_definitions_of_the_same_name_are_level(
    names: list[str], body: list[str], other: list[str]
) -> None:
    """Whatever stands between them, as long as both files have them in the same order."""
    inside = [line for line in body if "def " not in line]
    outside = [line for line in other if "def " not in line]
    left = "\n".join(line for n in names for line in [f"def {n}(model: nn.Module):", *inside])
    right = "\n".join(line for n in names for line in [f"def {n}(model: nnx.Module):", *outside])
    assert level(left, right, align(left, right)) == set(names)


def test_the_checks_see_planted_faults() -> None:
    text = "def f():\n    return 1"
    good = align(text, text)
    assert faults(text, text, good) == []
    assert faults(text, text, good[:1])
    assert faults(text, text, good[::-1])
    assert faults(text, text, [*good, Pair(None, None, False)])
    assert faults(text, text, [good[0]._replace(same=False), good[1]])
    assert faults(text, text, [Pair(0, None, False), Pair(None, 0, False), good[1]])
    shifted = [Pair(0, None, False), Pair(1, 0, False), Pair(None, 1, False)]
    assert level(text, text, shifted) == set()


def test_the_twins(name: str) -> None:
    """On the examples' own files: all definitions level, and lines that any reader would level."""
    kind = EXAMPLES[name]
    torch, jax = source(kind, "torch"), source(kind, "jax")
    pairs = align(torch, jax)
    assert faults(torch, jax, pairs) == []
    assert set(headers(torch).values()) <= level(torch, jax, pairs)
    a, b = torch.splitlines(), jax.splitlines()
    beside = {a[p.left]: b[p.right] for p in pairs if p.left is not None and p.right is not None}
    kit = "from twinstep.jax import nn"  # nearer than Flax's, where a twin has it
    assert beside["from torch import nn"] == (kit if kit in b else "from flax import nnx")
    last = "    return model, criterion, optimizer"
    assert beside[last] == last
    for line, other in beside.items():
        if line.startswith("    optimizer = ") or line.startswith("    criterion = "):
            assert other.split(" = ")[0] == line.split(" = ")[0]
        for loop in ("    for epoch", "            log(", "        log("):
            assert other.startswith(loop) == line.startswith(loop)
    alone = [n.partition(".")[0] in ("init_state", "make_train_step") for n in definitions(b)]
    mirrored = [p for p in pairs if p.right is None or not alone[p.right]]
    assert sum(p.same for p in mirrored) >= 0.4 * len(mirrored)


def test_forward_and_call_are_the_same_method() -> None:
    left = "class A:\n    def forward(self, x):\n        return x"
    decoy = "    def forward_all(self, x):\n        return [x]\n"
    right = f"class A:\n{decoy}    def __call__(self, inputs):\n        return inputs"
    assert "A.forward" in level(left, right, align(left, right))


def test_definitions_by_indentation() -> None:
    text = "x = 1\nclass A:\n\n    def f(\n        self,\n    ) -> None:\n        pass\n\ny = 2"
    assert definitions(text.splitlines()) == ["", "A", "A", "A.f", "A.f", "A.f", "A.f", "A.f", ""]


def test_a_diff_shows_all_that_differs_and_says_what_it_leaves_out(name: str) -> None:
    kind = EXAMPLES[name]
    torch, jax = source(kind, "torch"), source(kind, "jax")
    pairs, shown = align(torch, jax), rows(torch, jax, diff=True)
    kept = [row for row in shown if isinstance(row, Pair)]
    skipped = [row for row in shown if isinstance(row, Skipped)]
    assert skipped
    assert all(row.lines > 1 for row in skipped)
    left_out = sum(row.lines for row in skipped)
    assert sum(p.same for p in kept) + left_out == sum(p.same for p in pairs)
    a, b = torch.splitlines(), jax.splitlines()
    for pair in set(pairs) - set(kept):
        assert pair.same or not (pair.left is not None and a[pair.left].strip())
        assert pair.same or not (pair.right is not None and b[pair.right].strip())
    assert {row.where for row in skipped} >= {"", "main"}


def test_a_diff_of_a_file_with_itself_is_one_line() -> None:
    text = "def f():\n    return 1\n"
    assert rows(text, text, diff=True) == [Skipped(2, "")]
    assert rows("", "", diff=True) == []
    nested = "def f():\n    a\n    b\n    c\n    d\n"
    changed = rows(nested, nested.replace("    d", "    e"), diff=True)
    assert changed[0] == Skipped(3, "f")
    assert str(changed[0]) == "... 3 lines the same; in f"
    inner = "def f():\n    a\n    b\n\n    def g():\n        c\n"
    changed = rows(inner, inner.replace("def g()", "def g(x)"), diff=True)
    assert changed[0] == Skipped(4, "f"), "the row below it says itself that it is g"


def test_show_puts_both_files_side_by_side(name: str) -> None:
    printed = command("show", name).well().splitlines()
    assert max(map(len, printed)) <= 210
    (both,) = [line for line in printed if "def main" in line]
    assert both.count("def main():") == 2, "level"
    assert f"jax_impl/{name}.py" in printed[0]
    assert "\x1b" not in "".join(printed), "plain where it is piped"
    width = printed[0].index("jax_impl/")
    for framework, columns in (("torch", slice(0, width - 3)), ("jax", slice(width, None))):
        column = [line[columns].rstrip() for line in printed[1:]]
        lines = source(EXAMPLES[name], framework).splitlines()
        assert [x for x in column if x] == [x for x in lines if x], "each file whole, in order"


def test_show_diff_numbers_its_lines() -> None:
    printed = command("show", "zero_grad", "--diff").well()
    assert re.search(r"^\.\.\. \d lines the same; in main$", printed, re.MULTILINE)
    torch = source(EXAMPLES["zero_grad"], "torch").splitlines()
    number = 1 + torch.index("        loss.backward()")
    assert re.search(rf"^ {number}          loss.backward\(\) .* \|  \d+  ", printed, re.MULTILINE)
    assert "Trains as the document does" not in printed, "the same in both"


def on_a_terminal(width: int, *, diff: bool = False) -> str:
    """What a terminal gets of one example."""
    said = io.StringIO()
    console = Console(file=said, force_terminal=True, width=width, color_system="standard")
    print_twins(EXAMPLES["mnist_rnn"], diff=diff, console=console)
    return said.getvalue()


def plain(text: str) -> list[str]:
    """The lines without their colours."""
    return re.sub(r"\x1b\[[\d;]*m", "", text).splitlines()


@pytest.mark.parametrize("diff", [False, True])
@pytest.mark.parametrize("width", [220, 150, 149, 100, 60])
def test_a_terminal_gets_colours_and_every_word(width: int, diff: bool) -> None:
    text = on_a_terminal(width, diff=diff)
    assert "\x1b[" in text
    assert max(map(len, plain(text))) <= width
    words = "\n".join(plain(text))
    # once on each side, or, where there is but one column, what is the same once
    count = 2 if width >= show.NARROW else 1
    assert words.count("out, _ = self.rnn(x, h0)") == count
    assert words.count("class RNN(nnx.Module)") == words.count("class RNN(nn.Module)") == 1
    assert ("... 5 lines the same; in build" in words) == diff


def test_one_column_says_whose_a_line_is() -> None:
    lines = [line.rstrip() for line in plain(on_a_terminal(120))[2:]]
    for framework, others in (("jax", "t"), ("torch", "j")):
        text = [line[2:] for line in lines if line.split(" ")[0] != others]
        assert text == source(EXAMPLES["mnist_rnn"], framework).splitlines()
