"""`twinstep convert`: a file of weights as the other side of a mapping has them."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from twinstep import files
from twinstep.cli.parsing import leading_words, parse
from twinstep.errors import InputError
from twinstep.port.converting import Side, converted, nan, side_wanted, without
from twinstep.port.mapping import Mapping, load_mapping
from twinstep.report import check_writable, write_bytes
from twinstep.runs import launch
from twinstep.trace.writing import check_new_folder
from twinstep.weights import checkpoints, pickled, safetensors_file, tensors
from twinstep.weights.reading import SAFETENSORS, files_of, read_weights, unwrapped

_SAYS = {"torch": {"format": "pt"}, "jax": None, None: None}
"""What a .safetensors file says of itself, which transformers asks of PyTorch's."""


@dataclass(frozen=True)
class ConvertOptions:
    """Turns a state_dict's file into the tree of the mapping's other side, and back.

    IN is .safetensors, the .index.json of several, PyTorch's .pt, .pth or .bin, or a folder that
    orbax wrote. OUT is .safetensors, one of PyTorch's, or a new folder for orbax, without a suffix.
    Without --mapping names and layouts stay. All bits are kept.
    """

    mapping: str | None = None
    """Which leaf is which, as `twinstep match` writes it."""
    to: Literal["torch", "jax"] | None = None
    """The side that OUT is of (default: the one that IN's names are not of)."""
    dtype: Literal["float64", "float32", "float16", "bfloat16"] | None = None
    """Cast floats to it; else each stays what it is."""
    skip: str | None = None
    """Leave out those whose names are as "head.*,*.num_batches_tracked", on either side."""
    allow_nan: bool = False
    """Take arrays with NaN; else they are refused."""


def command(arguments: list[str]) -> int:
    """Runs `twinstep convert`."""
    given, flags = leading_words(arguments)
    if len(given) != 2 and not {"-h", "--help"} & set(flags):
        raise InputError(f"convert takes the file IN and OUT, {len(given)} given")
    options = parse(ConvertOptions, flags, "twinstep convert IN OUT")
    if options.to is not None and options.mapping is None:
        raise InputError(f"to is {options.to!r}, expected --mapping with it")
    write = _writer(given[1])
    mapping = None if options.mapping is None else load_mapping(options.mapping)
    launch.set_up_xla()  # orbax loads JAX, which else takes a GPU's memory for itself
    read = read_weights(given[0])
    _check_apart(*given)
    try:
        made, side = _made(read, mapping, options)
    except InputError as error:
        raise InputError(f"{given[0]}: {error}") from None
    write(made, side)
    entries = sum(array.size for array in made.values())
    print(f"{given[1]}: {len(made)} arrays of {entries} numbers")
    for leaf, names in ({} if mapping is None else mapping.summed).items():
        if leaf in made:
            print(f"{leaf}: the sum of {' and '.join(names)}; on the way back the first has it")
    return 0


def _made(
    read: dict[str, np.ndarray], mapping: Mapping | None, options: ConvertOptions
) -> tuple[dict[str, np.ndarray], Side | None]:
    """The arrays that were asked for, and whose they are. InputError for what does not fit."""
    skip = options.skip.split(",") if options.skip is not None else []
    if mapping is None:
        side, made = None, without(unwrapped(read), skip)
        if not options.allow_nan and (wrong := nan(made)):
            raise InputError(wrong[0])
    else:
        if not any(name in mapping.leaves for name in read):
            read = unwrapped(read, mapping.torch_shapes)
        side = options.to or side_wanted(read, mapping)
        made = converted(read, mapping, side, skip, allow_nan=options.allow_nan)
    if options.dtype is not None:
        made = {name: tensors.cast(name, array, options.dtype) for name, array in made.items()}
    return made, side


def _writer(out: str) -> Callable[[dict[str, np.ndarray], Side | None], None]:
    """What writes OUT. InputError for what could not be written in the end."""
    path = files.checked_path("OUT", out)
    if not path.suffix:
        checkpoints.check_installed(path)
        check_new_folder(out)
        return lambda named, side: checkpoints.write(path, named)
    if path.suffix not in (SAFETENSORS, *pickled.SUFFIXES):
        kinds = ", ".join((SAFETENSORS, *pickled.SUFFIXES))
        raise InputError(f"OUT is {out!r}, expected a name that ends in {kinds}, or in none")
    check_writable(out)
    if path.suffix == SAFETENSORS:
        return lambda named, side: write_bytes(out, safetensors_file.encoded(named, _SAYS[side]))
    pickled.check_installed(path)
    return lambda named, side: write_bytes(out, pickled.encoded(named))


def _check_apart(name: str, out: str) -> None:
    """InputError where OUT is a file that IN is read from, or in its folder."""
    for path in files_of(name):
        if Path(os.path.realpath(out)).is_relative_to(os.path.realpath(path)):
            raise InputError(f"OUT is {out}, which IN is read from, expected another")
