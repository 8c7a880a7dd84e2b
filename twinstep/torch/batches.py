"""What an update was made on: what is said, else what the modules were given."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

from twinstep.errors import InputError
from twinstep.torch.reading import concatenated


class Batches:
    """The parts of the next update's batch; several of one name are one after the other."""

    def __init__(self) -> None:
        self._noted: dict[str, list[torch.Tensor]] = {}
        self._said: dict[str, list[torch.Tensor]] = {}
        self.fingerprints: dict[str, int] = {}

    def say(self, values: Mapping[str, Any]) -> None:
        """Takes it from the loop itself. InputError for what is no array of numbers."""
        for name, value in values.items():
            try:
                tensor = torch.as_tensor(value).detach().clone()
            except (TypeError, ValueError, RuntimeError):
                kind = type(value).__name__
                raise InputError(f"batch {name} is a {kind}, expected a tensor") from None
            self._said.setdefault(name, []).append(tensor)

    def note(self, prefix: str) -> Callable[..., None]:
        """The hook of a module that notes what that is given, under a prefix."""

        def hook(module: nn.Module, args: Any, options: Any) -> None:
            if not torch.is_grad_enabled() or self._said:
                return
            forward = inspect.signature(getattr(module, "_orig_mod", module).forward)
            for name, value in forward.bind(*args, **options).arguments.items():
                if isinstance(value, torch.Tensor):  # copied: it may be filled anew afterwards
                    self._noted.setdefault(prefix + name, []).append(value.detach().clone())

        return hook

    def made_on(self) -> Mapping[str, np.ndarray] | Mapping[str, int]:
        """{name: (N, ...)} of the update, or fingerprints where they are known."""
        said = self._said or self._noted
        arrays = {name: concatenated(parts) for name, parts in said.items()}
        return self.fingerprints or arrays

    def forget(self) -> None:
        """Lets the parts go: the next update has its own."""
        self._said, self._noted = {}, {}
