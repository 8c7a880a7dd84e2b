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
    _last_loss: float | None = None

    def see(self, trace: Trace) -> None:
        """Takes the next steps, or the same ones again."""
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
