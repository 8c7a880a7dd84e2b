"""torch.optim.Muon, which iterates in bfloat16, with a keyword to leave that out."""

from typing import Any
from unittest.mock import patch

import torch


class Muon(torch.optim.Muon):
    """PyTorch's own; round_to_bfloat16=False: iterates in the parameters' dtype.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.optim.Muon.html
    """

    def __init__(self, params: Any, *, round_to_bfloat16: bool = True, **options: Any) -> None:
        super().__init__(params, **options)
        self._cast = torch.Tensor.bfloat16 if round_to_bfloat16 else torch.Tensor.clone

    def step(self, closure: Any = None) -> Any:
        """One update. PyTorch's code as it is, but for what its one cast to bfloat16 does."""
        # a clone, as the cast is one: the iteration writes to it
        with patch.object(torch.Tensor, "bfloat16", self._cast):
            return super().step(closure)
