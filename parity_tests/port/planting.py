"""A planted fault: which parts of a port are replaced, and where it has to be seen first."""

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import optax

from twinstep.trace.ledger import Trace

Change = Callable[[Any], Any]
"""Of an array, another one."""


@dataclass(frozen=True)
class Plant:
    """A fault of one port.

    What the converter gets wrong ("layout:", "start:") is off at the start. Who takes a leaf in any
    arrangement for the same start sees a "layout:" first in the loss of step 1.

    Attributes:
        port: A name of `ports.PORTS`.
        name: What was done wrong; unique for a port.
        kind: Its family and what of it, as "clip: missing".
        stage: What is off first, held against PyTorch's names and layouts: "batch", "params" (of
            step 0: the start; else the update), "buffers", "loss" or "raw_grads".
        at: The step, from 1; 0 is the start. Of a float64 run of seed 1.
        parts: {field of the program's Parts: what stands there instead}.
        single: Whether a run in float32 shows it beside its rounding.
    """

    port: str
    name: str
    kind: str
    stage: str
    at: int
    parts: Mapping[str, Any]
    single: bool = True

    def planted(self, parts: Any) -> Any:
        """The parts of a right program with the fault among them."""
        return dataclasses.replace(parts, **self.parts)

    def __str__(self) -> str:
        return f"{self.port}-{self.name}"


def where(name: str, change: Change, tree: Any) -> Any:
    """A tree, its leaves with `name` in their path changed."""

    def leaf(path: Any, array: Any) -> Any:
        return change(array) if name in jax.tree_util.keystr(path) else array

    return jax.tree_util.tree_map_with_path(leaf, tree)


def another(array: Any, seed: int = 0) -> Any:
    """An array of the same shape, drawn anew."""
    return 0.2 * jax.random.normal(jax.random.key(seed), array.shape, array.dtype)


def start(from_torch: Callable[..., Any], name: str, change: Change) -> Mapping[str, Any]:
    """The converter, what it makes of some parameters changed."""

    def converted(*given: Any) -> Any:
        as_jax = jax.tree.map(
            lambda leaf: jnp.asarray(leaf) if hasattr(leaf, "shape") else leaf, from_torch(*given)
        )
        return where(name, change, as_jax)

    return {"from_torch": converted}


def named(
    from_torch: Callable[..., Any], change: Callable[[dict[str, Any]], None]
) -> Mapping[str, Any]:
    """The converter, given PyTorch's arrays changed in place of a copied dict."""

    def converted(arrays: Any, *more: Any) -> Any:
        arrays = dict(arrays)
        change(arrays)
        return from_torch(arrays, *more)

    return {"from_torch": converted}


def gradients(
    change: Change, value_and_grad: Callable[..., Any] = jax.value_and_grad
) -> Mapping[str, Any]:
    """What is backpropagated, changed."""
    return differentiated(lambda value, grads: (value, change(grads)), value_and_grad)


def differentiated(
    change: Callable[[Any, Any], Any], value_and_grad: Callable[..., Any] = jax.value_and_grad
) -> Mapping[str, Any]:
    """Value and gradients, changed."""

    def changed(loss_fn: Callable[..., Any], **flags: Any) -> Callable[..., Any]:
        right = value_and_grad(loss_fn, **flags)
        return lambda *given: change(*right(*given))

    return {"value_and_grad": changed}


def batches(change: Callable[[Trace, int], dict[str, Any]], step: int | None) -> Mapping[str, Any]:
    """Another batch than the recorded one: at one step, from 1, or at each."""

    def batch_of(theirs: Trace, row: int) -> dict[str, Any]:
        return change(theirs, row) if step in (None, row + 1) else theirs.inputs_of(row)

    return {"batch_of": batch_of}


def clocked(
    schedule: Callable[[float, int], optax.Schedule], clock: Callable[[Any], Any]
) -> Mapping[str, Any]:
    """A schedule that is asked at another count."""
    return {"schedule": lambda rate, steps: lambda count: schedule(rate, steps)(clock(count))}
