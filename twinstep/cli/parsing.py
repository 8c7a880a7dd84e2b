"""What every command takes: where it trains, and an example with its hyper-parameters."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from twinstep.device_config import Device, DeviceConfig, Precision
from twinstep.errors import InputError, unknown
from twinstep.problems import EXAMPLES, PROGRAMS, SETS, flags
from twinstep.problems.flags import flags_of


@dataclass(frozen=True)
class DeviceOptions:
    """Where and how precisely a command trains."""

    device: Device = "cpu"
    """Where it trains; beside a TPU, PyTorch stays on the CPU."""
    devices: int = 1
    """How many devices share each batch (JAX devices; PyTorch processes)."""
    precision: Precision = "highest"
    """Of float32 matrix products: highest, or what a framework does for speed (TF32, bfloat16)."""
    threads: int = 1
    """PyTorch's threads; small models run steadier on one."""
    compilation_cache: bool = True
    """Keep JAX's compiled programs in the user's cache folder (or TWINSTEP_CACHE)."""

    @property
    def device_config(self) -> DeviceConfig:
        """Where it trains."""
        return DeviceConfig(self.device, self.devices, self.precision)


@dataclass(frozen=True)
class CommonFlags:
    """Flags of every example; behind one EXAMPLE, --help shows its own too."""

    seed: int = 0
    """What torch.manual_seed gets before the document's first draw."""
    dtype: Literal["float32", "float64"] | None = None
    """The type of every parameter (default: float64, the gate, then float32)."""
    steps: int | None = None
    """Updates to make (default: the document's number)."""


def leading_words(arguments: list[str]) -> tuple[list[str], list[str]]:
    """What stands before the first flag, and the rest."""
    count = next((i for i, a in enumerate(arguments) if a.startswith("-")), len(arguments))
    return arguments[:count], arguments[count:]


def example(
    command: str, arguments: list[str], others: Sequence[str] = ()
) -> tuple[Any, list[str]]:
    """The spec's class that the first argument names, and the other arguments.

    others: what else the command takes, to be offered where the name is close to one of them
    """
    if not arguments or arguments[0].startswith("-"):
        if {"-h", "--help"} & set(arguments):
            print(f"usage: twinstep {command} EXAMPLE [--help | flags]\n")
            print("EXAMPLE is one of: " + ", ".join(PROGRAMS))
            raise SystemExit(0)
        raise InputError(f"{command} takes an example first: one of {', '.join(EXAMPLES)}")
    name, *rest = arguments
    if name in SETS:
        raise InputError(f"{name} is a set of many trainings: twinstep verify {name}")
    if name not in PROGRAMS:
        raise InputError(unknown("example", name, [*PROGRAMS, *others]))
    return PROGRAMS[name], rest


def parse(kind: Any, arguments: list[str], prog: str) -> Any:
    """A dataclass from flags. Raises InputError for flags that are not its own or do not fit."""
    return flags.parse(kind, arguments, prog, _of_examples)


def parse_with(options: Any, other: Any, arguments: list[str], prog: str) -> tuple[Any, Any]:
    """A command's own options and another dataclass's fields, as flags of one command line."""
    return flags.parse_with(options, other, arguments, prog, _of_examples)


def _of_examples(flag: str) -> str | None:
    """What to say of a flag that single examples take."""
    having = [name for name, spec in PROGRAMS.items() if flag in flags_of(spec)]
    if not having:
        return None
    return f"{flag} is a flag of single examples: name one, such as {having[0]}, and no other"
