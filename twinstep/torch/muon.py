"""torch.optim.Muon, which iterates in bfloat16, with a keyword to leave that out."""

from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from twinstep.errors import InputError


class Muon(torch.optim.Muon):
    """PyTorch's own; round_to_bfloat16=False: iterates in the parameters' dtype.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.optim.Muon.html
    """

    def __init__(self, params: Any, *, round_to_bfloat16: bool = True, **options: Any) -> None:
        super().__init__(params, **options)
        self._rounds = round_to_bfloat16

    def step(self, closure: Any = None) -> Any:
        """One update. PyTorch's code as it is, but for what its cast to bfloat16 does.

        Raises InputError where PyTorch's update casts in a way that can't be left out.
        """
        if self._rounds:
            return super().step(closure)  # type: ignore[no-untyped-call]  # torch says no types
        loss = None
        if closure is not None:  # outside: what the loss casts is its own
            with torch.enable_grad():
                loss = closure()
        moves = any(p.grad is not None for group in self.param_groups for p in group["params"])
        with _Unrounded() as unrounded:
            super().step()  # type: ignore[no-untyped-call]  # torch says no types
        if moves and not unrounded.casts:
            raise InputError(_OTHERWISE.format("no cast to bfloat16"))
        return loss


class _Unrounded(TorchDispatchMode):
    """In a block of its own a cast to bfloat16 gives a copy; however it is written, it comes here.

    casts: how many there were
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch says no types
        self.casts = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is torch.ops.aten._to_copy.default and kwargs.get("dtype") is torch.bfloat16:
            self.casts += 1
            return args[0].clone()  # no view: the iteration writes to what it casts
        result = func(*args, **kwargs)
        if isinstance(result, torch.Tensor) and result.dtype is torch.bfloat16:
            raise InputError(_OTHERWISE.format(f"bfloat16 from {func}"))
        return result


_OTHERWISE = (
    f"Muon of torch {torch.__version__} iterates with {{}}, expected one cast a matrix: "
    "its rounding can't be left out"
)
