"""What was proved of a port, as one HTML page that stands by itself."""

from collections.abc import Mapping, Sequence

from twinstep.judge.findings import Comparison
from twinstep.judge.history import History
from twinstep.report import write_text
from twinstep.report.palette import PALETTE
from twinstep.report.parts import PLOT_WIDTH, badge, line, template
from twinstep.report.plots import differences_figure, svg
from twinstep.trace.ledger import Trace

_MODES: Mapping[str, str] = {
    "gate": "Judged alone: the start, the first step, and every update by PyTorch's rule.",
    "free": "Both trainings by themselves: losses and gradients may not part all at once.",
}


def write_proof(
    path: str,
    comparison: Comparison,
    history: History,
    traces: tuple[Trace, Trace],
    differ: Sequence[str],
) -> None:
    """Writes the page. InputError where it cannot be written.

    differ: what of the two recordings cannot be the same
    """
    dtype = traces[0].metadata.dtype
    plots = []
    for mode, said in _MODES.items():
        if any(of == mode for of, _ in history.curves):
            figure = differences_figure(comparison, history.curves, dtype, [mode], width=PLOT_WIDTH)
            plots.append((said, svg(figure, f"{mode}-", said)))
    names = ("PyTorch", "the port")
    text = template("proof.html").render(
        palette=PALETTE,
        comparison=comparison,
        same=comparison.verdict.same,
        badge=badge(comparison.verdict),
        differ=differ,
        sides=[(n, trace.summary()) for n, trace in zip(names, traces, strict=True)],
        plots=plots,
        lines=[
            line(mode, finding, dtype)
            for mode, worst in comparison.worst.items()
            for finding in worst.values()
        ],
    )
    write_text(path, str(text))
