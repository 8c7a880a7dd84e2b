"""Where the pieces of a recording go: into memory, or to disk as they come."""

from concurrent.futures import Future, ThreadPoolExecutor
from os import PathLike

from twinstep.errors import InputError
from twinstep.trace.joining import concatenate
from twinstep.trace.ledger import Trace
from twinstep.trace.storage import load_trace
from twinstep.trace.writing import TraceWriter, check_new_folder

_NOTHING = "nothing was recorded: no step was made"


class Stream:
    """Takes consecutive pieces of a trace. InputError for an `out` that exists.

    A piece is written while the training goes on: `add` comes back when the one before is on disk,
    and raises what kept it from that.
    writes: whether the memory of the piece before is free again when `add` comes back
    """

    def __init__(self, out: str | PathLike[str] | None) -> None:
        if out is not None:
            check_new_folder(out)
        self.writes = out is not None
        self._out = out
        self._steps = 0
        self._writer: TraceWriter | None = None
        self._thread: ThreadPoolExecutor | None = None
        self._writing: Future[None] | None = None
        self._pieces: list[Trace] = []

    def add(self, piece: Trace) -> None:
        """Takes the next steps."""
        if self._out is None:
            self._steps += len(piece)
            self._pieces.append(piece)
            return
        self.wait()
        if self._writer is None or self._thread is None:
            self._writer = TraceWriter(self._out, piece.metadata)
            self._thread = ThreadPoolExecutor(1, "twinstep")
        self._steps += len(piece)
        self._writing = self._thread.submit(self._writer.write, piece)

    def wait(self) -> None:
        """Comes back when all that was taken is on disk. InputError where it cannot be."""
        writing, self._writing = self._writing, None
        if writing is not None:
            writing.result()

    def take(self) -> Trace:
        """The steps since the last call."""
        pieces, self._pieces = self._pieces, []
        return concatenate(pieces)

    def whole(self) -> Trace:
        """All steps. InputError where there are none."""
        self.wait()
        if not self._steps:
            raise InputError(_NOTHING)
        return concatenate(self._pieces) if self._out is None else load_trace(self._out)

    def close(self) -> None:
        """The run came to its end. InputError if it left no step."""
        self.wait()
        if not self._steps:
            raise InputError(_NOTHING)
        if self._writer is not None:
            self._writer.finish({})
