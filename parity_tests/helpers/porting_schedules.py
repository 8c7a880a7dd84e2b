"""docs/porting/schedules.md: PyTorch's schedulers, their twins, and how near optax comes.

`python -m parity_tests.helpers.porting_schedules` prints the page as measured now; `--write` writes
it.
"""

import functools
import math
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import optax
import torch
from torch.optim import lr_scheduler

from twinstep.jax.optim import lr_scheduler as schedules
from twinstep.runs import launch

from .torch_schedules import LR, scanned, torch_rates

PAGE = Path(__file__).parents[2] / "docs" / "porting" / "schedules.md"
STEPS = 200
LAST_BITS = 16 * 2.0**-52
METRICS = [max(1.0, 3 - 0.05 * step) for step in range(STEPS)]

ROW_PATTERN = re.compile(r"^\| `([^`]+)` \|(.*)\| ([^|]+) \| ([^|]+) (\| [^|]* \|)$", re.MULTILINE)
_HEAD = f"""# Porting learning rate schedulers

What to write for each of `torch.optim.lr_scheduler`: the twin in `twinstep.jax.optim.lr_scheduler`,
which gives PyTorch's rates, and the nearest that optax has. `opt` is an optimizer with `lr=0.1`.
A gap is the largest difference over {STEPS} updates, in float64, relative to PyTorch's largest
rate; "last bits" are up to 16 eps. A twin's `lr` is the learning rate that is given to PyTorch's
optimizer.

A schedule is a function of the updates made so far, so where `scheduler.step()` is called once an
epoch, give the optimizer `schedule.every(updates)`, the updates of an epoch; where a second one is
called with each batch, `chained_scheduler([warmup, decay.every(updates)])`. `step(epoch + i / iters)`
is `lambda count: schedule(count / iters)`. A function with an `if` on the count has to be tabulated:
`lambda_lr(0.1, f).tabulate(steps)`. Where updates are skipped and `scheduler.step()` is not, there is
`own_clock`. `cyclic_lr` and `one_cycle_lr` move the momentum too: `sgd(lr=s, momentum=s.momentum)`, or
`adam(lr=s, betas=(s.momentum, 0.999))`. `reduce_lr_on_plateau` follows a metric: its `init()` and
`update(state, metric)` give a state whose `lr` is the rate.

Written by `python -m parity_tests.helpers.porting_schedules --write`.

| PyTorch | twinstep | optax | gap of optax | gap of twinstep | why |
|---|---|---|---|---|---|
"""


Measure = Callable[[Any], tuple[float, float]]


@dataclass(frozen=True)
class Page:
    """A page of rows, each with two gaps: of optax, infinite where it has nothing near, and ours.

    gaps: what measures those of a row; bar: up to which a gap is `same`; no_such: one that has none
    """

    path: Path
    head: str
    rows: Sequence[Any]
    gaps: Measure
    bar: float
    same: str
    no_such: str

    def shown(self, gap: float, about: bool = False) -> str:
        """A gap as the page has it: one digit of what is small, two of what is a difference."""
        if not math.isfinite(gap):
            return "NaN" if math.isnan(gap) else self.no_such
        if gap <= self.bar:
            return self.same
        if about:
            return f"about {10.0 ** round(math.log10(gap)):g}"
        return f"{gap:.2g}" if gap >= 1e-3 else f"{gap:.0e}".replace("e-0", "e-")

    def is_as_stated(self, stated: str, gap: float) -> bool:
        """Whether a gap is what the page says, as near as another machine comes to it."""
        number = re.fullmatch(r"(about )?([0-9].*)", stated)
        if number is None:
            return stated == self.shown(gap)
        value = float(number[2])
        slack = 10.0 if number[1] else 1.1 if value >= 1e-3 else 3.0
        return gap > self.bar and value / slack <= gap <= value * slack

    def text(self, measure: Measure) -> str:
        """The page with the gaps that are measured."""
        lines = []
        for row in self.rows:
            gaps = " | ".join(map(self.shown, measure(row), row.about))
            near = f"`{row.optax}`" if row.optax else "none"
            lines.append(f"| `{row.torch}` | `{row.twin}` | {near} | {gaps} | {row.why} |\n")
        return self.head + "".join(lines)

    def faults(self, text: str, measure: Measure) -> list[str]:
        """What on a page is not so, a sentence each."""
        found, said = [], stated(text)
        for row in self.rows:
            words = said.get(row.torch, ("?", "?"))
            for word, gap, about in zip(words, measure(row), row.about, strict=True):
                if not self.is_as_stated(word, gap):
                    shown = self.shown(gap, about)
                    found.append(f"{row.torch}: the page says {word}, measured {shown}")
        # all but the numbers has to be the same
        words_of = functools.partial(ROW_PATTERN.sub, r"\1 \2 \5")
        if words_of(text) != words_of(self.text(lambda row: (0.0, 0.0))):
            module = f"parity_tests/helpers/porting_{self.path.stem}.py"
            found.append(f"the page's words are not those of {module}")
        return found

    def main(self, arguments: list[str]) -> int:
        """Prints the page as measured now, or with --write writes it."""
        launch.set_up_xla()
        torch.set_num_threads(1)
        text = self.text(self.gaps)
        if "--write" in arguments:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.path.write_text(text)
        else:
            print(text, end="")
        return 0


def stated(text: str) -> dict[str, tuple[str, str]]:
    """{PyTorch's call: the two gaps} of a page's rows."""
    return {row[0]: (row[2], row[3]) for row in ROW_PATTERN.findall(text)}


@dataclass(frozen=True)
class Row:
    """One scheduler: what makes it in PyTorch and in optax, and why that differs."""

    torch: str
    optax: str
    why: str
    about: ClassVar = (False, False)

    @property
    def twin(self) -> str:
        """The twin's call: PyTorch's with its names in lower case, and the rate for `opt`."""

        def name(found: re.Match[str]) -> str:
            words = re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=LR)(?=On)", "_", found[1]).lower()
            rate = "" if words in ("chained_scheduler", "sequential_lr") else f"{LR}, "
            return f"{words}({rate}"

        return re.sub(r"([A-Z]\w+)\((?:opt, )?", name, self.torch)


# what is called, the nearest of optax, and why that differs
_ROWS: dict[str, tuple[Any, ...]] = {
    "LambdaLR(opt, lambda t: 1 / (1 + t))": (
        "lambda t: 0.1 * (1 / (1 + t))",
        "an int32 count makes float32 quotients, whatever x64 says; the twin's count is wider",
    ),
    "MultiplicativeLR(opt, lambda t: 0.99)": (
        "exponential_decay(0.1, 1, 0.99)",
        "optax has constant factors only, in float32",
    ),
    "StepLR(opt, 30, gamma=0.3)": (
        "exponential_decay(0.1, 30, 0.3, staircase=True)",
        "the power is float32",
    ),
    "MultiStepLR(opt, [30, 80], gamma=0.3)": (
        "piecewise_constant_schedule(0.1, {30: 0.3, 80: 0.3})",
        "the same",
    ),
    "ConstantLR(opt, 0.5, 50)": ("piecewise_constant_schedule(0.05, {50: 2.0})", "the same"),
    "LinearLR(opt, 0.1, total_iters=150)": (
        "linear_schedule(0.01, 0.1, 150)",
        "the fraction is float32",
    ),
    "ExponentialLR(opt, 0.99)": ("exponential_decay(0.1, 1, 0.99)", "the power is float32"),
    "PolynomialLR(opt, 150, power=0.5)": (
        "polynomial_schedule(0.1, 0.0, 0.5, 150)",
        "the fraction is float32 and ends a little past 1, and has no root there",
    ),
    "PolynomialLR(opt, 150, power=2.0)": (
        "polynomial_schedule(0.1, 0.0, 2.0, 150)",
        "the fraction is float32",
    ),
    "CosineAnnealingLR(opt, 100, eta_min=0.01)": (
        "cosine_decay_schedule(0.1, 100, alpha=0.1)",
        "after T_max PyTorch's rate rises again, optax's stays",
    ),
    "CosineAnnealingWarmRestarts(opt, 50)": (
        "join_schedules([cosine_decay_schedule(0.1, 50)] * 4, [50, 100, 150])",
        "the same, cycle by cycle",
    ),
    "CyclicLR(opt, 0.01, 0.1, 20)": ("", "optax has no triangle"),
    "OneCycleLR(opt, 0.1, 250)": (
        "cosine_onecycle_schedule(250, 0.1)",
        "PyTorch counts total_steps - 1 steps from the first rate to the last, optax one more",
    ),
    'OneCycleLR(opt, 0.1, 250, anneal_strategy="linear")': (
        "linear_onecycle_schedule(250, 0.1)",
        "optax has a third piece, from pct_final on",
    ),
    "ChainedScheduler([ConstantLR(opt, 0.5, 50), CosineAnnealingLR(opt, 250, 0.02)])": (
        "lambda t: piecewise_constant_schedule(0.5, {50: 2.0})(t)"
        " * cosine_decay_schedule(0.1, 250, 0.2)(t)",
        "PyTorch's cosine goes on from the other's rate, with eta_min added: no product",
    ),
    "SequentialLR(opt, [LinearLR(opt, 0.1, total_iters=20), ExponentialLR(opt, 0.99)], [20])": (
        "join_schedules([linear_schedule(0.01, 0.1, 20), exponential_decay(0.1, 1, 0.99)], [20])",
        "the same turns, of float32 schedules",
    ),
    "ReduceLROnPlateau(opt, factor=0.5, patience=3)": (
        "contrib.reduce_on_plateau(factor=0.5, patience=3)",
        "PyTorch waits for one bad metric more than `patience`, and stops at `eps`",
    ),
}
ROWS = [Row(call, *words) for call, words in _ROWS.items()]


def rates(code: str, library: Any) -> np.ndarray:
    """(STEPS,) the rates of a schedule, in float64. code: what makes it; library: where from."""
    if library is lr_scheduler:

        def build(opt: Any) -> Any:
            return eval(code, {**vars(library), "opt": opt})

        return torch_rates(build, STEPS, LR, metrics=METRICS)
    with jax.enable_x64(True):
        made = eval(code, vars(library) | {})
        if hasattr(made, "update"):
            return np.array(_plateau_rates(made))
        return np.asarray(scanned(made, STEPS), float)


def _plateau_rates(plateau: Any) -> list[float]:
    """Of the twin or of optax's, which scales the updates: here they are of rate LR."""
    found = []
    if isinstance(plateau, schedules.Plateau):
        state = plateau.init()
        for metric in METRICS:
            found.append(float(state.lr))
            state = plateau.update(state, metric)
        return found
    scaled = plateau.init(jnp.zeros(1))
    for metric in METRICS:
        found.append(LR * float(scaled.scale))
        _, scaled = plateau.update(jnp.ones(1), scaled, value=jnp.asarray(metric))
    return found


def gaps(row: Row) -> tuple[float, float]:
    """Of optax's schedule, infinite where it has none, and of the twin."""
    theirs = rates(row.torch, lr_scheduler)

    def gap(code: str, library: Any) -> float:
        off = np.abs(rates(code, library) - theirs)
        return float(np.max(off) / np.max(np.abs(theirs)))

    return gap(row.optax, optax) if row.optax else math.inf, gap(row.twin, schedules)


_PAGE = Page(PAGE, _HEAD, ROWS, gaps, LAST_BITS, "last bits", "no such schedule")
shown, is_as_stated, faults = _PAGE.shown, _PAGE.is_as_stated, _PAGE.faults

if __name__ == "__main__":
    sys.exit(_PAGE.main(sys.argv[1:]))
