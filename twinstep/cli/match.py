"""`twinstep match`: which of PyTorch's entries each leaf of a port is."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from twinstep import files
from twinstep.cli.parsing import leading_words, parse
from twinstep.errors import InputError
from twinstep.port.matching import match
from twinstep.report import check_outputs, write_json
from twinstep.trace.ledger import Trace
from twinstep.trace.storage import load_trace
from twinstep.weights import safetensors_file


@dataclass(frozen=True)
class MatchOptions:
    """Finds which of PyTorch's entries each leaf of a port is, by the values of two traces.

    Or of two .safetensors files: the weights that `twinstep probe` wrote, and what the port's own
    converter makes of them.
    """

    out: str | None = None
    """Write the map to this file, JSON to be read, reviewed and kept."""
    json: str | None = None
    """Write what was found, and what is open, as JSON to this file (-: to stdout)."""


def command(arguments: list[str]) -> int:
    """Runs `twinstep match`; 1 where something is open."""
    given, flags = leading_words(arguments)
    if len(given) != 2 and not {"-h", "--help"} & set(flags):
        raise InputError(f"match takes PyTorch's trace and the port's, {len(given)} given")
    options = parse(MatchOptions, flags, "twinstep match TRACE_A TRACE_B")
    check_outputs({"out": options.out, "json": options.json}, inputs=given)
    found = match(*map(_read, given))
    if options.json is not None:
        write_json(
            options.json,
            {
                "complete": found.complete,
                "by": dict(found.by),
                "open": dict(found.open),
                "unused": dict(found.unused),
                "twice": found.mapping.twice,
                "summed": found.mapping.summed,
            },
        )
    if options.json != "-":
        print("\n".join(found.lines()))
    if options.out is not None:
        found.mapping.save(options.out)
    return 0 if found.complete else 1


def _read(name: str) -> Trace | Mapping[str, np.ndarray]:
    """A trace, or a file of weights."""
    path = files.checked_path("trace", name)
    return safetensors_file.read(path) if path.suffix == ".safetensors" else load_trace(path)
