"""What the tests of other people's ports share."""

import pytest
import torch


@pytest.fixture
def torch_float64() -> None:
    """NAdam keeps the product of its decays in the default dtype; it is set back after a test."""
    torch.set_default_dtype(torch.float64)
