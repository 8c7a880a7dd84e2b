"""`twinstep describe`: what a saved trace holds; of two, what cannot be the same."""

from dataclasses import dataclass

from twinstep.cli.parsing import leading_words, parse
from twinstep.errors import InputError
from twinstep.report import check_outputs, write_json
from twinstep.trace import description
from twinstep.trace.storage import open_trace


@dataclass(frozen=True)
class DescribeOptions:
    """What was recorded: model, optimizers, schedule, clipping, accumulation, batches, sizes."""

    json: str | None = None
    """Write the description as JSON to this file (-: to stdout, and nothing else)."""


def command(arguments: list[str]) -> int:
    """Runs `twinstep describe`; 1 where two traces cannot be of the same training."""
    folders, flags = leading_words(arguments)
    if len(folders) not in (1, 2) and not {"-h", "--help"} & set(flags):
        raise InputError(f"describe takes one or two trace folders, {len(folders)} given")
    options = parse(DescribeOptions, flags, "twinstep describe TRACE [TRACE]")
    check_outputs({"json": options.json}, inputs=folders)
    stored = [open_trace(folder) for folder in folders]
    found = [description.described(one.metadata, one.chunks()) for one in stored]
    differ = description.apart(*found) if folders[1:] else []
    if options.json is not None:
        write_json(options.json, {"traces": [d.to_dict() for d in found], "apart": differ})
    if options.json == "-":
        return 1 if differ else 0
    for folder, one, holds in zip(folders, stored, found, strict=True):
        early = [] if one.complete else [f"the run ended early, after {one.steps} steps"]
        print("\n".join([*([f"{folder}:"] if folders[1:] else []), *holds.lines(), *early]))
    if folders[1:] and (both := description.side_by_side(*found)):
        print("\n  ".join(["the same on both sides, as each says it:", *both]))
    if differ:
        print("\n  ".join(["cannot be the same:", *differ]))
    elif folders[1:]:
        print("nothing says that they cannot be the same")
    return 1 if differ else 0
