"""What a test makes of the last parameters: outputs, the classes they name, figures.

An evaluation is {"outputs": (N, classes), "predictions": (N,)} of N samples; and, where they were
measured, "rounding_noise" and "rounding_scale", (): how far rounding carries outputs over the run,
and how far an eps of what they are made of moves them at once.
"""

from collections.abc import Mapping

import numpy as np

NAMES = ("outputs", "predictions")
MEASURED = ("rounding_noise", "rounding_scale")

Evaluation = Mapping[str, np.ndarray]


def validation_error(evaluation: Evaluation, dtype: str) -> str | None:
    """What keeps arrays from being an evaluation, in a few words; None: nothing does."""
    if not evaluation:
        return None
    if missing := [name for name in NAMES if name not in evaluation]:
        return f"{missing[0]} is missing"
    if unknown := [name for name in evaluation if name not in NAMES + MEASURED]:
        return f"{unknown[0]} is none of its names"
    outputs, predictions = (evaluation[name] for name in NAMES)
    if outputs.ndim != 2 or outputs.dtype != dtype:
        return f"outputs is {outputs.dtype} of shape {outputs.shape}, expected {dtype}, a row each"
    if predictions.shape != outputs.shape[:1] or not np.issubdtype(predictions.dtype, np.integer):
        found = f"{predictions.dtype} of shape {predictions.shape}"
        return f"predictions is {found}, expected a whole number for each of {len(outputs)}"
    if not np.all((predictions >= 0) & (predictions < outputs.shape[1])):
        return f"predictions names none of the {outputs.shape[1]} classes"
    for name in MEASURED:
        if name in evaluation and evaluation[name].shape != ():
            return f"{name} has shape {evaluation[name].shape}, expected a number"
    return None


def same_bits(one: Evaluation, other: Evaluation) -> bool:
    """Whether no bit differs of what was tested."""
    return all(np.array_equal(one[name].view("u1"), other[name].view("u1")) for name in NAMES)
