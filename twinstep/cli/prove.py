"""`twinstep prove`: whether a port trains as the PyTorch program does, and if not, why."""

from dataclasses import dataclass

from twinstep import extras
from twinstep.cli.parsing import leading_words, parse
from twinstep.errors import InputError
from twinstep.port.mapping import load_mapping
from twinstep.port.proving import found_mapping, proved
from twinstep.port.sides import check_fits
from twinstep.report import check_outputs, terminal, write_json
from twinstep.trace import description
from twinstep.trace.lazy import lazy_trace
from twinstep.trace.ledger import Trace
from twinstep.trace.storage import open_trace


@dataclass(frozen=True)
class ProveOptions:
    """Judges a port by what was recorded of PyTorch's program and of it."""

    map: str | None = None
    """Which leaf is which, as `twinstep match` writes it (default: found by the values)."""
    leaves: str | None = None
    """Judge those alone whose PyTorch names are as "blocks.0.*,head.*" (default: all)."""
    plot: str | None = None
    """Draw each stage's difference over the steps beside what is allowed, as .svg or .png."""
    report: str | None = None
    """Write a page of it, HTML that stands by itself."""
    json: str | None = None
    """Write the comparison as JSON to this file (-: to stdout, and nothing else)."""


def command(arguments: list[str]) -> int:
    """Runs `twinstep prove`."""
    folders, flags = leading_words(arguments)
    if len(folders) != 2 and not {"-h", "--help"} & set(flags):
        raise InputError(f"prove takes PyTorch's trace and the port's, {len(folders)} given")
    options = parse(ProveOptions, flags, "twinstep prove TRACE_A TRACE_B")
    outputs = {"report": options.report, "plot": options.plot, "json": options.json}
    check_outputs(outputs, inputs=folders)
    for flag in ("report", "plot"):
        if outputs[flag] is not None:
            extras.check_installed("report", f"--{flag}")
    mapping = None if options.map is None else load_mapping(options.map)
    torch, jax = map(_whole, folders)
    if mapping is not None:
        check_fits(torch, jax, mapping)
    one, other = (description.described(trace.metadata, [trace]) for trace in (torch, jax))
    try:
        mapping = mapping or found_mapping(torch, jax)
    except InputError:
        _say(description.apart(one, other), options.json)
        raise
    if mapping is not None:  # the port's parameters as PyTorch has them
        other.shapes = {name: mapping.torch_shapes[name] for name in torch.params}
    differ = description.apart(one, other)
    _say(differ, options.json)
    leaves = [] if options.leaves is None else options.leaves.split(",")
    proof = proved(torch, jax, mapping, leaves)
    comparison = proof.comparison()
    if options.json != "-":
        terminal.print_comparison(comparison)
    if options.json is not None:
        write_json(options.json, comparison.to_dict() | {"apart": differ})
    if options.plot is not None:
        from twinstep.report.plots import differences_figure, save

        curves = proof.history.curves
        modes = [mode for mode in ("gate", "free") if any(of == mode for of, _ in curves)]
        save(differences_figure(comparison, curves, torch.metadata.dtype, modes), options.plot)
    if options.report is not None:
        from twinstep.report.proof import write_proof

        write_proof(options.report, comparison, proof.history, (torch, jax), differ)
    return 0 if comparison.verdict.same else 1


def _say(differ: list[str], json: str | None) -> None:
    if differ and json != "-":
        print("\n  ".join(["cannot be the same:", *differ]))


def _whole(folder: str) -> Trace:
    """A trace of a run that came to its end."""
    stored = open_trace(folder)
    if not stored.complete:
        raise InputError(f"trace {folder} is of a run that ended early, after {stored.steps} steps")
    return lazy_trace(folder)
