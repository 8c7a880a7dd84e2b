"""What every test shares: one thread for PyTorch, which two would race for on a small machine."""

import pytest
import torch

from twinstep.specs import EXAMPLES

torch.set_num_threads(1)


@pytest.fixture(params=sorted(EXAMPLES))
def name(request: pytest.FixtureRequest) -> str:
    """Each of the documents' examples; a new one joins every test by being listed."""
    return request.param
