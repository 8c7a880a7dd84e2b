"""`twinstep verify`: trains in both frameworks and judges every step."""

import contextlib
import dataclasses
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from twinstep import extras, memory
from twinstep.cli.parsing import CommonFlags, DeviceOptions, example, leading_words, parse_with
from twinstep.device_config import check_in_range
from twinstep.errors import InputError, LostError, unknown
from twinstep.problems import EXAMPLES, SETS, Spec
from twinstep.report import check_outputs, write_json
from twinstep.report.progress import progress
from twinstep.report.verdicts import print_verifications
from twinstep.runs import launch
from twinstep.runs.pool import Lost, verify_all
from twinstep.runs.verification import COPIES

MAX_JOBS = 1024
JOB = 2**30  # bytes that a job takes about


@dataclass(frozen=True)
class VerifyOptions(DeviceOptions):
    """Trains in both frameworks and judges every step."""

    jobs: int | None = None
    """Examples verified at a time (default: one a core for several examples, else 1)."""
    out: str | None = None
    """A new folder for all traces: EXAMPLE/DTYPE/FRAMEWORK."""
    json: str | None = None
    """Write all results as JSON to this file (-: to stdout, and nothing else)."""
    report: str | None = None
    """Write a self-contained HTML page to this file."""
    row: str | None = None
    """Of a set, only the rows whose name begins so."""


def command(arguments: list[str]) -> int:
    """Runs `twinstep verify`."""
    names, flags = leading_words(arguments)
    options, specs = _specs_to_verify(names, flags)
    jobs = _jobs(options.jobs, len(specs))
    _refuse(options, specs)
    launch.check_installed(*launch.FRAMEWORKS)
    if options.report is not None:
        extras.check_installed("report", "--report")
    quiet = options.json == "-"
    with progress(specs, show=not quiet) as hear:
        results = verify_all(
            specs,
            options.device_config,
            jobs=jobs,
            threads=options.threads,
            enable_cache=options.compilation_cache,
            out=options.out,
            hear=hear,
        )
    judged = [result for result in results if not isinstance(result, Lost)]
    same = all(result.comparison.verdict.same for result in judged)
    lost = [result for result in results if isinstance(result, Lost)]
    if not quiet:
        print_verifications(results)
    with contextlib.ExitStack() as outputs:  # each is tried, where another can't be written too
        if options.report is not None:
            from twinstep.report.page import write_page

            outputs.callback(write_page, options.report, results, options.device_config)
        if options.json is not None:
            whole = {"same": same and not lost, "results": [result.to_dict() for result in results]}
            outputs.callback(write_json, options.json, whole)
    if lost:
        raise LostError(
            "\n".join(map(str, lost)), "\n".join(filter(None, (one.traceback for one in lost)))
        )
    return 0 if same else 1


def _jobs(asked: int | None, count: int) -> int:
    """How many of so many examples are verified at a time. InputError for too many."""
    fit = max(1, memory.available() // JOB)
    if asked is None:
        return 1 if count <= 2 else min(count, os.cpu_count() or 1, fit)
    check_in_range("jobs", asked, 1, MAX_JOBS)
    if min(asked, count) > fit:
        needed, available = map(memory.gib, (min(asked, count) * JOB, memory.available()))
        raise InputError(f"jobs is {asked}: they need about {needed}, {available} are to be had")
    return asked


def _refuse(options: VerifyOptions, specs: Sequence[Spec]) -> None:
    """InputError for what could not be done in the end: before minutes of training, not after."""
    folders = []
    if options.out is not None:
        folders = [
            f"{options.out}/{spec.name}/{spec.dtype}/{framework}"
            for spec in specs
            for framework in launch.FRAMEWORKS
        ]
    outputs = {"json": options.json, "report": options.report}
    check_outputs(outputs, out=options.out, folders=folders)
    for spec in specs:
        spec.check_fits_memory("verifying", COPIES)
    launch.check(
        specs,
        options.device_config,
        threads=options.threads,
        enable_cache=options.compilation_cache,
    )


def _specs_to_verify(names: list[str], arguments: list[str]) -> tuple[VerifyOptions, list[Any]]:
    """The specs of the named examples, or of all; float64 and float32 unless a dtype is named.

    A set has many rows, and is judged in float64 unless a dtype is named.
    """
    if len(names) == 1 and names[0] not in SETS:
        kind, _ = example("verify", names, [*SETS])
        options, spec = parse_with(VerifyOptions, kind, arguments, f"twinstep verify {kind.name}")
        if options.row is not None:
            raise InputError(f"row is {options.row!r}, but {kind.name} is no set of rows")
        named = any(argument.split("=")[0] == "--dtype" for argument in arguments)
        dtypes = _dtypes(options, spec.dtype if named else None)
        dtypes = ("float64",) if kind.float64_alone and not named else dtypes
        return options, [dataclasses.replace(spec, dtype=dtype) for dtype in dtypes]
    singles = [name for name in names if name not in SETS]
    kinds: list[Any] = [example("verify", [name], [*SETS])[0] for name in singles]
    kinds = kinds if names else list(EXAMPLES.values())
    options, flags = parse_with(
        VerifyOptions, CommonFlags, arguments, "twinstep verify [EXAMPLE ...]"
    )
    if options.row is not None and not options.row.strip():
        raise InputError(f"row is {options.row!r}, expected the beginning of a row's name")
    if options.row is not None and not set(names) & set(SETS):
        raise InputError(f"row is {options.row!r}, but no set of rows is named: {', '.join(SETS)}")
    dtypes = _dtypes(options, flags.dtype)
    specs = [
        kind(seed=flags.seed, dtype=dtype, steps=flags.steps)
        for dtype in dtypes
        for kind in kinds
        if flags.dtype or dtype == "float64" or not kind.float64_alone
    ]
    for name in names:
        if name in SETS:
            rows = SETS[name](seed=flags.seed, dtype=dtypes[0], steps=flags.steps)
            specs += _begin_with(options.row, rows)
    return options, specs


def _begin_with(start: str | None, rows: Sequence[Spec]) -> list[Spec]:
    """The rows that are asked for."""
    found = [spec for spec in rows if start is None or spec.name.startswith(start)]
    if not found:
        names = [spec.name for spec in rows]
        kinds = dict.fromkeys(re.split(r"\W", name)[0] for name in names)
        raise InputError(unknown("row", start, [*kinds, *names], every=kinds))
    return found


def _dtypes(options: VerifyOptions, named: str | None) -> tuple[str, ...]:
    """The named one, or float64, the gate, and float32: a TPU and the fast modes have only that."""
    if options.precision != "highest":
        if named == "float64":
            raise InputError(f"precision is {options.precision!r}, but float64 has no fast mode")
        return ("float32",)
    if named:
        return (named,)
    return ("float32",) if options.device == "tpu" else ("float64", "float32")
