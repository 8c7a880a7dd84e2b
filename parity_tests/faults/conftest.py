"""The side that is as it is, and the one with faults, each compiled once for a file's tests."""

import pytest

from faults.pairs import FaultyJax, Honest, HonestJax


@pytest.fixture(scope="module")
def honest_jax() -> Honest:
    """The JAX side as it is, shared by all faults on the other side."""
    return HonestJax()


@pytest.fixture(scope="module")
def faulty_jax() -> FaultyJax:
    """The JAX side with its faults, each with a dial."""
    return FaultyJax()
