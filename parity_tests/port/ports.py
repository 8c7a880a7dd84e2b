"""The ports: each a PyTorch program and a JAX one, trained by itself and recorded.

Nothing here loads a framework before one of its programs is trained.
"""

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from twinstep.trace.ledger import Trace

if TYPE_CHECKING:
    from port.planting import Plant

STEPS = 12


@dataclass(frozen=True)
class Port:
    """A pair of programs.

    Attributes:
        name: The JAX program's module under programs/.
        torch: The PyTorch program's.
        learning_rate: What it is trained with unless another is asked for.
    """

    name: str
    torch: str
    learning_rate: float


PORTS = {
    port.name: port
    for port in (
        Port("conv_nnx", "conv_torch", 2.0**-7),
        Port("transformer_linen", "transformer_torch", 2.0**-7),
        Port("gru_dicts", "gru_torch", 2.0**-4),
        Port("gru_equinox", "gru_torch", 2.0**-4),
    )
}


def torch_trace(
    port: str, seed: int, dtype: str, lr: float | None = None, steps: int = STEPS
) -> Trace:
    """What a port's PyTorch program leaves.

    Args:
        port: A name of PORTS.
        seed: Of the start and of the batches.
        dtype: "float32" or "float64".
        lr: Its learning rate; None: the port's own.
        steps: How many updates it makes.

    Returns:
        The trace.
    """
    import torch

    program = importlib.import_module(f"port.programs.{PORTS[port].torch}")
    before = torch.get_default_dtype()
    torch.set_default_dtype(getattr(torch, dtype))
    try:
        trace: Trace = program.train(seed, lr or PORTS[port].learning_rate, steps)
    finally:
        torch.set_default_dtype(before)
    return trace


def jax_trace(port: str, theirs: Trace, plant: "Plant | None" = None) -> Trace:
    """What a port's JAX program leaves, in names and layouts of its own.

    Args:
        port: A name of PORTS.
        theirs: What its PyTorch program left: start, batches, dtype and learning rate.
        plant: The fault to plant; None: the right port.

    Returns:
        The trace.
    """
    import jax

    with jax.enable_x64(theirs.metadata.dtype == "float64"):
        program = importlib.import_module(f"port.programs.{port}")
        train: Callable[..., Trace] = program.train
        return train(theirs, plant and plant.planted(program.Parts()))
