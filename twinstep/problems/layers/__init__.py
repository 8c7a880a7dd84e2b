"""torch.nn row by row: the sets `layers` and `losses`."""

from typing import Any

from twinstep.device_config import Dtype
from twinstep.problems.layers.training import STEPS, LayerTraining, LossTraining

__all__ = ["layer_rows", "loss_rows"]


def layer_rows(**flags: Any) -> list[LayerTraining]:
    """The rows of layers.

    Args:
        flags: Seed, dtype and steps of all.

    Returns:
        A spec a row.
    """
    return _specs(LayerTraining, **flags)


def loss_rows(**flags: Any) -> list[LayerTraining]:
    """The rows of losses.

    Args:
        flags: Seed, dtype and steps of all.

    Returns:
        A spec a row.
    """
    return _specs(LossTraining, **flags)


def _specs(
    kind: type[LayerTraining], seed: int = 0, dtype: Dtype = "float64", steps: int | None = None
) -> list[LayerTraining]:
    names = kind.rows()
    return [kind(layer=name, seed=seed, dtype=dtype, steps=steps or STEPS) for name in names]
