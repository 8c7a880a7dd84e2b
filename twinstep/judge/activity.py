"""Whether anything happened in a run: a comparison of nothing proves nothing."""

from dataclasses import dataclass

import numpy as np

from twinstep.trace import dtypes
from twinstep.trace.ledger import Trace


@dataclass
class ActivityCheck:
    """What has been seen of a run so far."""

    loss_moved: bool = False
    params_moved: bool = False
    gradient_seen: bool = False
    looked_at: str | None = None
    _last_loss: float | None = None

    def see(self, trace: Trace) -> None:
        """Takes the next steps, or the same ones again."""
        self.looked_at = self.looked_at or trace.program.get("looked_at")
        before = [] if self._last_loss is None else [self._last_loss]
        losses = np.concatenate([before, trace.losses])
        self.loss_moved = self.loss_moved or bool(np.any(losses[1:] != losses[:-1]))
        self._last_loss = float(losses[-1])
        if not self.gradient_seen:
            grads = map(dtypes.numbers, trace.raw_grads.values())
            self.gradient_seen = any(np.any(array != 0) for array in grads)
        if not self.params_moved:
            params = map(dtypes.numbers, trace.params.values())
            self.params_moved = any(np.any(array[1:] != array[:-1]) for array in params)

    def unproved(self, steps: int) -> str | None:
        """Why so many steps prove nothing, whatever they are like; None: they may."""
        if not self.gradient_seen:
            return "all gradients are zero"
        if not self.params_moved:
            return "no parameter ever moved"
        if not self.loss_moved and steps > 1:
            return "the loss never moved"
        return f"looked at by {self.looked_at}" if self.looked_at else None
