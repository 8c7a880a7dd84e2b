"""The plot of an example: its losses; or, where one update is all there is, that update."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from twinstep import InputError, Verification
from twinstep.report.axis import COLORS
from twinstep.report.plots import STYLE, losses_figure
from twinstep.trace.ledger import Outcome

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_FEW = 4  # parameters that can be told apart by name


def draw(result: Verification) -> "Figure":
    """The losses of both frameworks over the steps; of a single update, the update."""
    steps, chaotic_from = result.comparison.steps, result.comparison.chaotic_from
    figure = losses_figure([result]) if steps > 1 else update_figure(result)
    (axes,) = figure.axes
    style = {"fontsize": axes.title.get_fontsize(), "fontweight": "bold", "color": COLORS["ink"]}
    figure.suptitle(result.spec.name, x=axes.get_position().x0, y=0.97, ha="left", **style)
    if steps > 1 and chaotic_from and chaotic_from <= steps:
        axes.set_xlabel("step; where it is grey, rounding alone parts two runs")
    return figure


def update_figure(result: Verification) -> "Figure":
    """What one update did: how far each number of each parameter moved, by its gradient."""
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(STYLE):  # type: ignore[arg-type]  # keys are any text
        figure = Figure((4.8, 2.82))
        axes = figure.add_axes((0.17, 0.15, 0.81, 0.67))
        # the one broad and pale, the other small and dark upon it: both show where they are equal
        for framework, size, alpha in (("torch", 7.0, 0.35), ("jax", 2.5, 1.0)):
            grads, moves = _update(result.outcomes[framework])
            label = {"torch": "PyTorch", "jax": "JAX"}[framework]
            style = {"markersize": size, "alpha": alpha, "mew": 0, "color": COLORS[framework]}
            axes.plot(grads, moves, "o", label=label, **style)  # type: ignore[arg-type]  # of mixed values
        if result.spec.update == "SGD":
            rate = result.spec.hyper_parameters()["learning_rate"]
            ends = np.array([grads.min(), grads.max()])
            axes.plot(
                ends, -rate * ends, color=COLORS["allowed"], label=f"-{rate:g} × gradient", zorder=1
            )
        if len(grads) <= _FEW:
            for name, grad, move in zip(result.outcomes["jax"].grads, grads, moves, strict=True):
                axes.annotate(name, (grad, move), (7, 3), textcoords="offset points")
        axes.grid(color=COLORS["grid"], linewidth=0.6)
        axes.set_axisbelow(True)
        axes.tick_params(length=2.5)
        axes.margins(0.1)
        axes.set_xlabel("gradient", labelpad=1)
        axes.set_ylabel("change of the parameter", labelpad=3)
        axes.set_title(f"one update, {result.spec.dtype}")
        axes.legend()
    return figure


@contextlib.contextmanager
def room_for(path: str | Path) -> Iterator[Path]:
    """A file beside `path` to draw into, which takes its place when all went well.

    Raises InputError at once where `path` can't be written, so that no training is in vain.
    """
    path = Path(path)
    if path.suffix.lower() not in (".svg", ".png"):
        raise InputError(f"{path} ends in {path.suffix!r}, expected .svg or .png")
    part = path.with_name(f".{path.stem}.{os.getpid()}.part{path.suffix}")
    try:
        if path.is_dir():
            raise IsADirectoryError(0, "it is a folder")
        path.parent.mkdir(parents=True, exist_ok=True)
        part.touch()
    except (FileExistsError, NotADirectoryError):
        raise InputError(f"{path} cannot be written: {path.parent} is no folder") from None
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror}") from None
    try:
        yield part
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _update(outcome: Outcome) -> tuple[np.ndarray, np.ndarray]:
    """The last gradients, and how far the parameters came, (numbers of all parameters,) each."""
    moves = [outcome.params[name] - outcome.initial_params[name] for name in outcome.grads]
    grads = list(outcome.grads.values())
    return np.concatenate([*map(np.ravel, grads)]), np.concatenate([*map(np.ravel, moves)])
