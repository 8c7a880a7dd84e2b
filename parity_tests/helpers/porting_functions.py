"""The rows of docs/porting/functional.md and losses.md, which stand in functional_*.py."""

import functools
import importlib
import pkgutil
from collections.abc import Callable, Iterator

import helpers
import jax
import torch
from helpers.kit_parity import Case, Port, cast, gap, in_jax, in_torch

CASES_SEEN = 4  # of a function's calls: the first ones show most


def tables() -> Iterator[tuple[str, str, Port, list[Case]]]:
    """(the table's name, function, its row, its calls)"""
    for found in pkgutil.iter_modules(helpers.__path__):
        if found.name.startswith("functional_"):
            module = importlib.import_module(f"helpers.{found.name}")
            for name, port in module.PORTS.items():
                yield found.name, name, port, getattr(module, "CASES", {}).get(name, [])


def is_loss(table: str, name: str) -> bool:
    """Whether a function stands on the page of losses."""
    return "losses" in table and name not in ("cosine_similarity", "pairwise_distance", "pdist")


def rows(losses: bool) -> dict[str, tuple[Port, Callable[[], float]]]:
    """{first cell: (its row, how far its naive port is off)} of a page."""
    return {
        f"`{name}`": (port, functools.partial(off_by, name, port, cases))
        for table, name, port, cases in sorted(tables(), key=lambda found: found[1])
        if is_loss(table, name) is losses
    }


def off_by(name: str, port: Port, cases: list[Case]) -> float:
    """How far a function's naive port is off at most, as `gap` has it; 0 where there is none."""
    worst = 0.0
    ours, theirs = port.naive_call, getattr(torch.nn.functional, name)
    if ours is None:
        return worst
    with jax.enable_x64(True):
        for case in cases[:CASES_SEEN]:
            args, kwargs = cast([list(case.args), dict(case.kwargs)], "float64")
            wanted = in_torch(theirs, args, kwargs, case.fixed)
            try:
                found = in_jax(ours, args, kwargs)
            except (TypeError, ValueError, IndexError):
                continue  # it has no such option
            if (off := gap(found, wanted)) < 0:
                return off
            worst = max(worst, off)
    return worst
