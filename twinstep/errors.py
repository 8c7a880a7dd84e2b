"""What twinstep says when it is given something that it cannot work with."""


class InputError(ValueError):
    """Bad input: one line that names the thing, the value and what was expected; exit code 2."""
