"""docs/porting/schedules.md: PyTorch's schedulers, their twins, and how near optax comes.

`python -m parity_tests.helpers.porting_schedules` prints the page as measured now; `--write` writes
it.
"""

import functools
import math
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import torch
from torch.optim import lr_scheduler

from twinstep.jax.optim import lr_scheduler as schedules
from twinstep.runs import launch

PAGE = Path(__file__).parents[2] / "docs" / "porting" / "schedules.md"
STEPS = 200
LR = 0.1
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
epoch, give the optimizer `lambda count: schedule(count // updates_per_epoch)`. `cyclic_lr` and
`one_cycle_lr` move the momentum too: `sgd(lr=s, momentum=s.momentum)`, or
`adam(lr=s, betas=(s.momentum, 0.999))`. `reduce_lr_on_plateau` follows a metric: its `init()` and
`update(state, metric)` give a state whose `lr` is the rate.

Written by `python -m parity_tests.helpers.porting_schedules --write`.

| PyTorch | twinstep | optax | gap of optax | gap of twinstep | why |
|---|---|---|---|---|---|
"""


@dataclass(frozen=True)
class Row:
    """One scheduler: what makes it on each side, in the words of the page, and why optax differs.

    optax: "" where it has nothing near
    """

    torch: str
    twin: str
    optax: str
    why: str


ROWS = [
    Row(
        "LambdaLR(opt, lambda t: 1 / (1 + t))",
        "lambda_lr(0.1, lambda t: 1 / (1 + t))",
        "lambda t: 0.1 * (1 / (1 + t))",
        "an int32 count makes float32 quotients, whatever x64 says; the twin's count is wider",
    ),
    Row(
        "MultiplicativeLR(opt, lambda t: 0.99)",
        "multiplicative_lr(0.1, lambda t: 0.99)",
        "exponential_decay(0.1, 1, 0.99)",
        "optax has constant factors only, in float32",
    ),
    Row(
        "StepLR(opt, 30, gamma=0.3)",
        "step_lr(0.1, 30, gamma=0.3)",
        "exponential_decay(0.1, 30, 0.3, staircase=True)",
        "the power is float32",
    ),
    Row(
        "MultiStepLR(opt, [30, 80], gamma=0.3)",
        "multi_step_lr(0.1, [30, 80], gamma=0.3)",
        "piecewise_constant_schedule(0.1, {30: 0.3, 80: 0.3})",
        "the same",
    ),
    Row(
        "ConstantLR(opt, 0.5, 50)",
        "constant_lr(0.1, 0.5, 50)",
        "piecewise_constant_schedule(0.05, {50: 2.0})",
        "the same",
    ),
    Row(
        "LinearLR(opt, 0.1, total_iters=150)",
        "linear_lr(0.1, 0.1, total_iters=150)",
        "linear_schedule(0.01, 0.1, 150)",
        "the fraction is float32",
    ),
    Row(
        "ExponentialLR(opt, 0.99)",
        "exponential_lr(0.1, 0.99)",
        "exponential_decay(0.1, 1, 0.99)",
        "the power is float32",
    ),
    Row(
        "PolynomialLR(opt, 150, power=0.5)",
        "polynomial_lr(0.1, 150, power=0.5)",
        "polynomial_schedule(0.1, 0.0, 0.5, 150)",
        "the fraction is float32 and ends a little past 1, and has no root there",
    ),
    Row(
        "PolynomialLR(opt, 150, power=2.0)",
        "polynomial_lr(0.1, 150, power=2.0)",
        "polynomial_schedule(0.1, 0.0, 2.0, 150)",
        "the fraction is float32",
    ),
    Row(
        "CosineAnnealingLR(opt, 100, eta_min=0.01)",
        "cosine_annealing_lr(0.1, 100, eta_min=0.01)",
        "cosine_decay_schedule(0.1, 100, alpha=0.1)",
        "after T_max PyTorch's rate rises again, optax's stays",
    ),
    Row(
        "CosineAnnealingWarmRestarts(opt, 50)",
        "cosine_annealing_warm_restarts(0.1, 50)",
        "join_schedules([cosine_decay_schedule(0.1, 50)] * 4, [50, 100, 150])",
        "the same, cycle by cycle",
    ),
    Row(
        "CyclicLR(opt, 0.01, 0.1, 20)",
        "cyclic_lr(0.1, 0.01, 0.1, 20)",
        "",
        "optax has no triangle",
    ),
    Row(
        "OneCycleLR(opt, 0.1, 250)",
        "one_cycle_lr(0.1, 0.1, 250)",
        "cosine_onecycle_schedule(250, 0.1)",
        "PyTorch counts total_steps - 1 steps from the first rate to the last, optax one more",
    ),
    Row(
        'OneCycleLR(opt, 0.1, 250, anneal_strategy="linear")',
        'one_cycle_lr(0.1, 0.1, 250, anneal_strategy="linear")',
        "linear_onecycle_schedule(250, 0.1)",
        "optax has a third piece, from pct_final on",
    ),
    Row(
        "ChainedScheduler([ConstantLR(opt, 0.5, 50), CosineAnnealingLR(opt, 250, 0.02)])",
        "chained_scheduler([constant_lr(0.1, 0.5, 50), cosine_annealing_lr(0.1, 250, 0.02)])",
        "lambda t: piecewise_constant_schedule(0.5, {50: 2.0})(t)"
        " * cosine_decay_schedule(0.1, 250, 0.2)(t)",
        "PyTorch's cosine goes on from the other's rate, with eta_min added: no product",
    ),
    Row(
        "SequentialLR(opt, [LinearLR(opt, 0.1, total_iters=20), ExponentialLR(opt, 0.99)], [20])",
        "sequential_lr([linear_lr(0.1, 0.1, total_iters=20), exponential_lr(0.1, 0.99)], [20])",
        "join_schedules([linear_schedule(0.01, 0.1, 20), exponential_decay(0.1, 1, 0.99)], [20])",
        "the same turns, of float32 schedules",
    ),
    Row(
        "ReduceLROnPlateau(opt, factor=0.5, patience=3)",
        "reduce_lr_on_plateau(0.1, factor=0.5, patience=3)",
        "contrib.reduce_on_plateau(factor=0.5, patience=3)",
        "PyTorch waits for one bad metric more than `patience`, and stops at `eps`",
    ),
]


def rates(code: str, library: Any) -> np.ndarray:
    """(STEPS,) the rates of a schedule, in float64. code: what makes it; library: where from."""
    parameter = torch.nn.Parameter(torch.zeros(1, dtype=torch.float64))
    opt = torch.optim.SGD([parameter], lr=LR, momentum=0.9)
    with jax.enable_x64(True):
        made = eval(code, {**vars(library), "opt": opt})
        if library is lr_scheduler:
            return np.array(_torch_rates(made, opt))
        if hasattr(made, "update"):
            return np.array(_plateau_rates(made))
        counts = jnp.arange(STEPS, dtype=jnp.int32)
        return np.asarray(jax.jit(lambda: jax.lax.map(made, counts))(), float)


def _torch_rates(scheduler: Any, opt: torch.optim.Optimizer) -> list[float]:
    with_metric = isinstance(scheduler, lr_scheduler.ReduceLROnPlateau)
    found = []
    for metric in METRICS:
        found.append(float(opt.param_groups[0]["lr"]))
        opt.step()
        scheduler.step(*([metric] if with_metric else []))
    return found


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


def shown(gap: float) -> str:
    """A gap as the page has it: one digit where it is rounding, two where it is a difference."""
    if not math.isfinite(gap):
        return "NaN" if math.isnan(gap) else "no such schedule"
    if gap <= LAST_BITS:
        return "last bits"
    return f"{gap:.2g}" if gap >= 1e-3 else f"{gap:.0e}".replace("e-0", "e-")


def is_as_stated(stated: str, gap: float) -> bool:
    """Whether a gap is what the page says: rounding errors may be another compiler's, thrice so."""
    if not re.fullmatch(r"[0-9].*", stated):
        return stated == shown(gap)
    number = float(stated)
    slack = 1.1 if number >= 1e-3 else 3.0
    return gap > LAST_BITS and number / slack <= gap <= number * slack


def stated(text: str) -> dict[str, tuple[str, str]]:
    """{PyTorch's call: the two gaps} of a page's rows."""
    return {row[0]: (row[2], row[3]) for row in ROW_PATTERN.findall(text)}


def page(measure: Callable[[Row], tuple[float, float]] = gaps) -> str:
    """The page with the gaps that are measured now."""
    lines = []
    for row in ROWS:
        first, second = map(shown, measure(row))
        near = f"`{row.optax}`" if row.optax else "none"
        lines.append(f"| `{row.torch}` | `{row.twin}` | {near} | {first} | {second} | {row.why} |")
    return _HEAD + "\n".join(lines) + "\n"


def faults(text: str, measure: Callable[[Row], tuple[float, float]] = gaps) -> list[str]:
    """What on a page is not so, a sentence each."""
    found, said = [], stated(text)
    for row in ROWS:
        for words, gap in zip(said.get(row.torch, ("?", "?")), measure(row), strict=True):
            if not is_as_stated(words, gap):
                found.append(f"{row.torch}: the page says {words}, measured {shown(gap)}")
    # all but the numbers has to be the same
    words_of = functools.partial(ROW_PATTERN.sub, r"\1 \2 \5")
    if words_of(text) != words_of(page(lambda row: (0.0, 0.0))):
        found.append("the page's words are not those of parity_tests/helpers/porting_schedules.py")
    return found


def main(arguments: list[str]) -> int:
    """Prints the page, or with --write writes it."""
    launch.set_up_xla()
    if "--write" in arguments:
        PAGE.parent.mkdir(parents=True, exist_ok=True)
        PAGE.write_text(page())
    else:
        print(page(), end="")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
