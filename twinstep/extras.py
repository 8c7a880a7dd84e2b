"""The distribution's extras: what each brings, and what is said where it is missing."""

import importlib.util

from twinstep.errors import InputError

MODULES = {
    "torch": ("torch",),
    "jax": ("jax", "flax", "optax"),
    "report": ("matplotlib", "jinja2", "pygments"),
}
"""{extra: what it brings that is imported}"""


def check_installed(extra: str, what: str) -> None:
    """Raises InputError where `what` needs an extra that is not installed; imports nothing."""
    for module in MODULES[extra]:
        if not installed(module):
            command = f'pip install "twinstep[{extra}]"'
            raise InputError(f"{what} needs {module}, not installed: {command}")


def installed(module: str) -> bool:
    """Whether a package can be imported."""
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False
