"""`twinstep golden`: a PyTorch training made small, to test a port against wherever it is built."""

from dataclasses import dataclass

from twinstep import files
from twinstep.cli.parsing import leading_words, parse
from twinstep.errors import InputError
from twinstep.port.golden import golden_of, save_golden
from twinstep.port.mapping import load_mapping
from twinstep.trace.lazy import lazy_trace
from twinstep.trace.storage import open_trace
from twinstep.trace.writing import check_new_folder


@dataclass(frozen=True)
class GoldenOptions:
    """Makes of PyTorch's trace a small folder that a port's own tests are held against.

    It is to be committed: the start, the batches, the losses, and a few numbers of each leaf at
    each step. The pytest fixture `prove_port` reads it, where there is no PyTorch.
    """

    out: str = "golden"
    """The folder, a new one."""
    steps: int | None = None
    """How many of the first steps (default: all)."""
    map: str | None = None
    """Keep this map with it, as `twinstep match` writes it: which leaf of the port is which."""


def command(arguments: list[str]) -> int:
    """Runs `twinstep golden`."""
    folders, flags = leading_words(arguments)
    if len(folders) != 1 and not {"-h", "--help"} & set(flags):
        raise InputError(f"golden takes PyTorch's trace, {len(folders)} given")
    options = parse(GoldenOptions, flags, "twinstep golden TRACE")
    files.checked_path("out", options.out)
    check_new_folder(options.out)
    mapping = None if options.map is None else load_mapping(options.map)
    stored = open_trace(folders[0])
    if not stored.complete and options.steps is None:
        raise InputError(
            f"trace {folders[0]} is of a run that ended early, after {stored.steps} steps: say "
            "with --steps how many are meant"
        )
    golden = golden_of(lazy_trace(folders[0]), options.steps, mapping)
    size = save_golden(golden, options.out)
    print(
        f"{options.out}: {len(golden)} steps, {len(golden.params)} parameters, "
        f"{len(golden.buffers)} buffers, {size / 1000:.0f} kB"
    )
    return 0
