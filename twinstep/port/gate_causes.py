"""What the first step that is off says of where the fault is, as far as sketches can tell.

Random sums are linear: an update that is c times another has sums that are c times its own.
"""

from dataclasses import dataclass

import numpy as np

_AS_ONE = 0.02
"""Of how far a factor is from 1, what leaves may disagree by: another rule scatters them by all."""


@dataclass(frozen=True)
class LeafUpdate:
    """A leaf's update of one step, as random sums: (projections,) each.

    theirs: PyTorch's; ours: the port's; allowed: what rounding explains of their difference
    """

    theirs: np.ndarray
    ours: np.ndarray
    allowed: float


def causes(step: int, stage: str, updates: list[LeafUpdate]) -> tuple[str, ...]:
    """Why a step may be the first that is off.

    Args:
        step: Its number, from 1.
        stage: The first stage of it that is.
        updates: Those that are off.

    Returns:
        A sentence, or none where nothing is to be said.
    """
    if stage == "loss":
        if step == 1:
            return ("the forward pass, the mapping or the batch: no update was made yet",)
        return (f"the forward pass or the batch, as step {step} is the first to show it",)
    if stage != "params" or not updates:
        return ()
    factor = _factor(updates)
    if factor is not None:
        return (
            f"each update of step {step} that is off is {_said(factor)} times PyTorch's: the "
            "learning rate, or a mean for a sum",
        )
    return ("the gradient or the optimizer's rule: the loss before is right",)


def _factor(updates: list[LeafUpdate]) -> float | None:
    """What all updates are of PyTorch's; None: they are not one multiple of it."""
    theirs, ours = (
        np.concatenate(x) for x in ([u.theirs for u in updates], [u.ours for u in updates])
    )
    if not (np.isfinite(theirs).all() and np.isfinite(ours).all() and theirs.any()):
        return None
    factor = float(theirs @ ours / (theirs @ theirs))
    for one in updates:
        longer = abs(factor - 1) * np.abs(one.theirs).max()
        apart = np.abs(one.ours - factor * one.theirs).max()
        if longer <= one.allowed or apart > one.allowed + _AS_ONE * longer:
            return None
    return factor


def _said(factor: float) -> str:
    apart = factor - 1
    return (
        f"(1 {'+' if apart > 0 else '-'} {abs(apart):.2g})"
        if abs(apart) < 0.01
        else f"{factor:.4g}"
    )
