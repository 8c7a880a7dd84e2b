"""What the tests of recording share."""

import gc
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from twinstep.torch import naming


@pytest.fixture(autouse=True, scope="module")
def _others_are_in_no_use() -> Iterator[None]:
    """Optimizers that tests of other modules keep, in a cache say, are no rivals here."""
    alive, others = naming.alive, [o for o in gc.get_objects() if _is_optimizer(o)]

    def alive_here(kind: type) -> list[Any]:
        return [one for one in alive(kind) if not any(one is other for other in others)]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(naming, "alive", alive_here)
        yield


def _is_optimizer(value: Any) -> bool:
    return issubclass(type(value), torch.optim.Optimizer)
