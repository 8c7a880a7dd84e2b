"""`twinstep probe`: weights that tell all that a converter does."""

from dataclasses import dataclass

from twinstep.cli.parsing import leading_words, parse
from twinstep.errors import InputError
from twinstep.port.probing import probe
from twinstep.report import check_outputs, write_bytes
from twinstep.trace import dtypes
from twinstep.trace.storage import open_steps


@dataclass(frozen=True)
class ProbeOptions:
    """Writes a state_dict of unique numbers, of a trace's names and shapes.

    Put through a port's own converter, `twinstep match` reads the whole map off it.
    """

    out: str = "probe.safetensors"
    """The file."""


def command(arguments: list[str]) -> int:
    """Runs `twinstep probe`."""
    folders, flags = leading_words(arguments)
    if len(folders) != 1 and not {"-h", "--help"} & set(flags):
        raise InputError(f"probe takes PyTorch's trace, {len(folders)} given")
    options = parse(ProbeOptions, flags, "twinstep probe TRACE")
    check_outputs({"out": options.out}, inputs=folders)
    chunk = next(open_steps(folders[0]).chunks())
    leaves = {**chunk.params, **chunk.buffers}
    made = probe({n: (a.shape[1:], dtypes.name(a.dtype)) for n, a in leaves.items()})
    from safetensors.numpy import save

    write_bytes(options.out, save(made))
    entries = sum(array.size for array in made.values())
    print(f"{options.out}: {len(made)} tensors of {entries} numbers, no two the same")
    return 0
