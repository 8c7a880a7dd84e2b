"""What the optimizers' tests share."""

import pytest
import torch


@pytest.fixture(autouse=True)
def _in_float64(_leave_torch_as_it_was: None) -> None:
    """Numbers that PyTorch's optimizers keep beside a parameter are of its default dtype."""
    torch.set_default_dtype(torch.float64)
