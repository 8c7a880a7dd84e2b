"""What the tests of this folder share: PyTorch's functions that it warns of are compared too."""

import warnings
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def _let_pytorch_warn() -> Iterator[None]:
    """Of upsample and its like, which are deprecated there; else a warning is an error."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="`nn.functional.upsample")
        yield
