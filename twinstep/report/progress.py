"""What is going on while many specs are verified: a line for each that is finished, at once, and on
a terminal below them one for each that is being verified. All on stderr: stdout is the result's.
"""

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from twinstep.problems.base import Spec
from twinstep.report.verdicts import verdict_of
from twinstep.runs.pool import Finished, Lost, Progress

Event = Progress | Finished
Listener = Callable[[Event], None]

_SIDES = ("torch", "jax", "gate")
_DOES = {
    "start": "loads the frameworks",
    "torch": "torch trains",
    "jax": "jax trains",
    "gate": "the gate",
    "claims": "what the document claims",
}
_SOON = 3.0  # seconds before which nothing is said of the time left


@contextlib.contextmanager
def progress(specs: Sequence[Spec], *, show: bool) -> Iterator[Listener]:
    """Gives what is to hear how it goes; says it where `show` asks for it."""
    if not show:
        yield lambda event: None
        return
    board, console = ProgressBoard(specs), Console(stderr=True)
    live: contextlib.AbstractContextManager[object] = contextlib.nullcontext()
    if console.is_terminal and not console.is_dumb_terminal:
        live = Live(
            get_renderable=board.draw,
            console=console,
            refresh_per_second=4,
            transient=True,
            redirect_stdout=False,
        )

    def hear(event: Event) -> None:
        line = board.hear(event)
        if line is not None:
            console.print(line, soft_wrap=True, highlight=False)

    with live:
        yield hear


class ProgressBoard:
    """What each spec is at, from what is heard of it."""

    def __init__(self, specs: Sequence[Spec], clock: Callable[[], float] = time.monotonic) -> None:
        self.specs = specs
        self.finished = 0
        self._clock = clock
        self._began = clock()
        self._at: dict[int, Progress] = {}
        self._done: dict[int, dict[str, float]] = {}

    def hear(self, event: Event) -> Text | None:
        """Takes an event; the line to be said of it, if any."""
        if isinstance(event, Progress):
            self._at[event.index] = event
            if event.side in _SIDES:
                done = self._done.setdefault(event.index, {})
                done[event.side] = event.step / max(1, event.steps)
            return None
        self._at.pop(event.index, None)
        self._done.pop(event.index, None)
        self.finished += 1
        result = event.result
        verdict, style = verdict_of(result)
        line = Text(f"{self.finished}/{len(self.specs)} {_name(result.spec)}: ")
        line.append(verdict, style)
        return line.append(
            f", {result.why}" if isinstance(result, Lost) else f" ({result.seconds:.1f} s)"
        )

    def draw(self) -> Group:
        """The lines of what is being verified, and of all of it; none is ever folded."""
        # a copy: another thread draws
        lines = [
            f"  {_name(self.specs[i])}: {_doing(at)}" for i, at in sorted({**self._at}.items())
        ]
        lines.append(f"{self.finished} of {len(self.specs)} verified{self._left()}")
        return Group(*[Text(line, no_wrap=True, overflow="ellipsis") for line in lines])

    def _left(self) -> str:
        """How long it takes yet, as if all specs took as long, and each of their sides."""
        under_way = sum(sum(done.values()) / len(_SIDES) for done in [*self._done.values()])
        share = (self.finished + under_way) / max(1, len(self.specs))
        took = self._clock() - self._began
        if not 0 < share < 1 or took < _SOON:
            return ""
        return f", about {_minutes(took * (1 - share) / share)} left"


def _name(spec: Spec) -> str:
    return f"{spec.name} {spec.dtype}"


def _doing(at: Progress) -> str:
    step = f", step {at.step} of {at.steps}" if at.side in _SIDES else ""
    return f"{_DOES.get(at.side, at.side)}{step}"


def _minutes(seconds: float) -> str:
    whole = max(1, round(seconds))
    hours, minutes = divmod(whole // 60, 60)
    return f"{hours}:{minutes:02}:{whole % 60:02}" if hours else f"{minutes}:{whole % 60:02}"
