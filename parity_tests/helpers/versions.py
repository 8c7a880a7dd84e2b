"""The versions that pyproject.toml's ranges admit: the lowest, and what is verified on any.

    python parity_tests/helpers/versions.py lowest     of each package, as pip's constraints
    python parity_tests/helpers/versions.py verify     every example, and a row of each optimizer

`make test-lowest` and `make test-newest` run both, each in an environment of its own.
"""

import platform
import re
import sys
import tempfile
import tomllib
from importlib.metadata import version
from itertools import chain
from pathlib import Path

PROJECT = Path(__file__).parents[2] / "pyproject.toml"
EXTRAS = ("torch", "jax", "report")


def lowest() -> list[str]:
    """The lowest version that each range names, "name==version". ValueError for one without."""
    project = tomllib.loads(PROJECT.read_text())["project"]
    extras = (project["optional-dependencies"][extra] for extra in EXTRAS)
    found = []
    for requirement in chain(project["dependencies"], *extras):
        match = re.fullmatch(r"([\w-]+)>=([\d.]+)", requirement)
        if match is None:
            raise ValueError(f"{requirement!r} in {PROJECT.name}, expected name>=version")
        found.append(f"{match[1]}=={match[2]}")
    return found


def verify() -> int:
    """The worst exit code of `twinstep verify` and of the row of each optimizer that shows most."""
    from twinstep.cli import main
    from twinstep.problems import SETS

    names = ("numpy", "torch", "jax", "jaxlib", "flax", "optax", "scikit-learn", "matplotlib")
    print("Python", platform.python_version(), *(f"{name} {version(name)}" for name in names))
    rows = {spec.optimizer: spec for spec in SETS["optimizers"]()}  # type: ignore[attr-defined]  # of optimizers alone
    with tempfile.TemporaryDirectory() as folder:  # the page needs packages of its own
        code = main(["verify", "--report", f"{folder}/page.html"])
    for spec in rows.values():
        code = max(code, main(["verify", "optimizers", "--row", spec.name]))
    return code


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["lowest"]:
            print(*lowest(), sep="\n")
        case ["verify"]:
            sys.exit(verify())
        case _:
            sys.exit(__doc__)
