"""`twinstep verify`: trains in both frameworks and judges every step."""

import dataclasses
import os
from dataclasses import dataclass
from typing import Any

from twinstep.cli.parsing import CommonFlags, PlaceOptions, example, leading_words, parse_with
from twinstep.errors import InputError
from twinstep.report import terminal, write_json
from twinstep.specs import EXAMPLES
from twinstep.verify import verify_all


@dataclass(frozen=True)
class VerifyOptions(PlaceOptions):
    """Trains in both frameworks and judges every step."""

    jobs: int | None = None
    """Examples verified at a time (default: one a core for several examples, else 1)."""
    out: str | None = None
    """A new folder for all traces: EXAMPLE/DTYPE/FRAMEWORK."""
    json: str | None = None
    """Write all results as JSON to this file (-: to stdout, and nothing else)."""


def command(arguments: list[str]) -> int:
    """Runs `twinstep verify`."""
    names, flags = leading_words(arguments)
    options, specs = _specs_to_verify(names, flags)
    jobs = options.jobs
    if jobs is None:
        jobs = 1 if len(names) == 1 else min(len(specs), os.cpu_count() or 1)
    if jobs < 1:
        raise InputError(f"jobs is {jobs}, expected at least 1")
    quiet = options.json == "-"
    with terminal.progress(specs, show=not quiet) as done:
        results = verify_all(
            specs,
            options.place,
            jobs=jobs,
            threads=options.threads,
            keep_compiled=options.compilation_cache,
            out=options.out,
            done=done,
        )
    same = all(result.comparison.verdict.same for result in results)
    if options.json:
        write_json(
            options.json, {"same": same, "results": [result.to_dict() for result in results]}
        )
    if not quiet:
        terminal.print_verifications(results)
    return 0 if same else 1


def _specs_to_verify(names: list[str], arguments: list[str]) -> tuple[VerifyOptions, list[Any]]:
    """The specs of the named examples, or of all; float64 and float32 unless a dtype is named."""
    both = ("float64", "float32")
    if len(names) == 1:
        kind, _ = example("verify", names)
        options, spec = parse_with(VerifyOptions, kind, arguments, f"twinstep verify {kind.name}")
        named = any(argument.split("=")[0] == "--dtype" for argument in arguments)
        dtypes = (spec.dtype,) if named else both
        return options, [dataclasses.replace(spec, dtype=dtype) for dtype in dtypes]
    kinds = [example("verify", [name])[0] for name in names] or list(EXAMPLES.values())
    options, flags = parse_with(VerifyOptions, CommonFlags, arguments, "twinstep verify")
    return options, [
        kind(seed=flags.seed, dtype=dtype, steps=flags.steps)
        for dtype in ((flags.dtype,) if flags.dtype else both)
        for kind in kinds
    ]
