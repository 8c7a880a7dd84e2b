"""Many faults in one compiled program, which asks as it runs how large each of them is.

To compile a program takes a thousand times as long as to run it for a few steps.
"""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


class Dial:
    """The size of one fault, from which on it is there; 0: it is not.

    only: the one dtype that has the fault; the programs of the other one don't know of it
    """

    def __init__(self, only: str | None = None) -> None:
        self.size = 0.0
        self.only = only

    def __call__(self) -> Any:
        dtype = jnp.result_type(float)
        if self.only not in (None, dtype.name):
            return 0.0
        # float32 at all times: the thread that asks knows of no float64
        shape = jax.ShapeDtypeStruct((), jnp.float32)
        return jax.pure_callback(lambda: np.float32(self.size), shape).astype(dtype)

    @contextlib.contextmanager
    def at(self, size: float) -> Iterator[None]:
        """In the meantime the fault is so large."""
        self.size = size
        yield
        self.size = 0.0


def _always() -> float:
    return 1.0


_dial: list[Callable[[], Any]] = [_always]


@contextlib.contextmanager
def dialled(dial: Dial) -> Iterator[None]:
    """What is planted meanwhile has its size from a dial."""
    _dial.append(dial)
    yield
    _dial.pop()


def current() -> Callable[[], Any]:
    """For a plant, when it is planted: what will give the fault's size, ()."""
    return _dial[-1]


def either(size: Any, wrong: Any, right: Any) -> Any:
    """Where the size is 0 the right tree, elsewhere the wrong one."""
    if isinstance(size, float):
        return wrong if size else right
    return jax.tree.map(lambda w, r: jnp.where(size != 0, w, r), wrong, right)
