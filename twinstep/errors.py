"""What twinstep says when it is given something that it cannot work with, or cannot go on."""


class InputError(ValueError):
    """Bad input: one line that names the thing, the value and what was expected; exit code 2."""


class LostError(RuntimeError):
    """Processes of our own that died or crashed: a line for each that says how; exit code 70.

    traceback: those of their exceptions, "" where they could not say any more
    """

    def __init__(self, why: str, traceback: str = "") -> None:
        super().__init__(why)
        self.traceback = traceback
