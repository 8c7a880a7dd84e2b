"""One framework's training: the document's log lines as they come, a trace if one is wanted."""

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twinstep.problems.base import Spec
from twinstep.runs.verification import OutcomeBuilder
from twinstep.trace.ledger import Outcome
from twinstep.trace.writing import TraceWriter

Say = Callable[[str], None]


def train(driver: Any, spec: Spec, folder: str | Path | None, say: Say) -> Outcome:
    """Trains and says, piece by piece, what the document prints; how it ended.

    driver: from `launch.driver`; folder: a new one for the trace, which is kept nowhere else.
    Raises InputError for a folder that cannot be written.
    """
    metadata = driver.metadata
    fast = "" if metadata.precision == "highest" else f", products in {metadata.precision}"
    say(f"== {metadata.framework}: {spec.name}, {spec.dtype}, seed {spec.seed}{fast}")
    builder = OutcomeBuilder()
    with contextlib.ExitStack() as stack:
        writer = None
        if folder is not None:
            writer = stack.enter_context(TraceWriter(folder, driver.metadata))
        for chunk in driver.chunks():
            builder.add(chunk)
            if writer:
                writer.write(chunk)
            for i, loss in enumerate(chunk.losses):
                if line := spec.log_line(chunk.start + i, loss.item()):
                    say(line)
        outcome = builder.outcome()
        if writer:
            writer.finish(outcome.metrics)
    for line in spec.final_lines(outcome):
        say(line)
    return outcome
