"""PyTorch's own table of optimizers and their options, from its tests.

Loading it makes PyTorch refuse any change of a precision from then on, which is a matter of its own
tests: that is taken back.
"""

import inspect

import torch

_FLAGS = torch.backends.flags_frozen.__globals__
_allowed = _FLAGS["__allow_nonbracketed_mutation_flag"]

from torch.testing._internal.common_optimizers import OptimizerErrorEnum, optim_db  # noqa: E402 - after the flag

_FLAGS["__allow_nonbracketed_mutation_flag"] = _allowed

__all__ = ["NEWEST", "OptimizerErrorEnum", "optim_db"]

NEWEST = "maximize" in inspect.signature(torch.optim.LBFGS).parameters
"""Whether this PyTorch has all that the newest has; the twins have it whatever is installed."""
