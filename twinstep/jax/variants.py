"""Variants of one training, for measuring what each costs: step by step, or one compiled loop.

Mirror: twinstep/torch/variants.py

No example is changed: its step is compiled alone, in a scan, and in the scan that records it.
"""

from abc import abstractmethod
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import cached_property, partial
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from twinstep.device_config import CPU, DeviceConfig
from twinstep.jax.assembling import assemble, last_row
from twinstep.jax.driver import Driver
from twinstep.problems.base import Spec
from twinstep.problems.batches import IndexChunk
from twinstep.trace.ledger import Trace
from twinstep.trace.variants import TrainingResult, Variant


def variants(
    example: ModuleType, spec: Spec, device_config: DeviceConfig = CPU, *, compiled: bool = False
) -> dict[str, Variant | str]:
    """Each way by name, or why there is none. compiled: no matter here, where all of them are."""
    driver = Driver(example, spec, device_config)
    return {"step": Steps(driver), "scan": Scan(driver), "trace": TraceScan(driver)}


@dataclass
class Compiled:
    """What the variants share. All take and give flat leaves, which JAX hands over faster than
    trees.

    A run changes nothing that it starts from, so there is nothing to go back to.
    """

    driver: Driver
    _leaves: list[jax.Array] = field(default_factory=list)
    _losses: list[jax.Array] = field(default_factory=list)

    def settings(self) -> AbstractContextManager[None]:
        return self.driver.settings()

    def reset(self) -> None:
        """Makes what a run starts from, once."""
        self.start  # noqa: B018 - made by asking for it

    @abstractmethod
    def run(self) -> None:
        """Trains."""

    def result(self) -> TrainingResult:
        driver = self.driver
        with driver.settings():
            treedef = jax.tree.structure(self.state)
            params = jax.tree.unflatten(treedef, self._leaves)[0]
            named = driver.layout.to_torch(params)
        losses = [np.atleast_1d(np.asarray(loss)) for loss in self._losses]
        return TrainingResult(
            np.concatenate(losses), {name: np.asarray(a) for name, a in named.items()}
        )

    def recorded(self) -> Iterator[Trace]:
        return self.driver.chunks()

    @cached_property
    def start(self) -> tuple[list[jax.Array], Any, list[Any]]:
        """The state's leaves, the samples, and each chunk's sample numbers, on the device."""
        driver = self.driver
        with driver.settings():
            indices = [
                None if chunk.indices is None else jnp.asarray(chunk.indices)
                for chunk in self.chunks
            ]
            return jax.tree.leaves(self.state), driver.data, indices

    @cached_property
    def state(self) -> Any:
        """What a run starts from."""
        with self.driver.settings():
            return self.driver.state(self.driver.optimizer)

    @cached_property
    def chunks(self) -> list[IndexChunk]:
        """The run in pieces of bounded memory."""
        return list(self.driver.spec.chunks())


class Steps(Compiled):
    """One jitted step a Python call, as a loop over `train_step` is written first."""

    def run(self) -> None:
        leaves, data, _ = self.start
        losses = []
        step = self._step
        for index in self._index:
            leaves, loss = step(leaves, data, index)
            losses.append(loss)
        self._leaves, self._losses = jax.block_until_ready((leaves, losses))

    @cached_property
    def _index(self) -> list[Any]:
        """The sample numbers of each step; cut up before the loop, not one by one within it."""
        pieces: list[Any] = []
        with self.driver.settings():
            for chunk in self.chunks:
                rows = [None] * chunk.steps if chunk.indices is None else chunk.indices
                pieces += [None if row is None else jnp.asarray(row) for row in rows]
        return pieces

    def reset(self) -> None:
        super().reset()
        self._index  # noqa: B018 - made by asking for it

    @cached_property
    def _step(self) -> Any:
        driver = self.driver
        treedef = jax.tree.structure(self.state)

        @jax.jit
        def step(leaves: list[jax.Array], data: Any, index: Any) -> Any:
            batch = tuple(driver.batch_of(data, index).values())
            train_step = driver.train_step(driver.optimizer)
            state, loss = train_step(jax.tree.unflatten(treedef, leaves), batch)
            return jax.tree.leaves(state), loss

        return step


class Scan(Compiled):
    """The whole run as one compiled loop, which gives the losses and how it ended."""

    def run(self) -> None:
        leaves, data, indices = self.start
        losses = []
        for chunk, index in zip(self.chunks, indices, strict=True):
            leaves, loss = self._scan(leaves, data, index, steps=chunk.steps)
            losses.append(loss)
        self._leaves, self._losses = jax.block_until_ready((leaves, losses))

    @cached_property
    def _scan(self) -> Any:
        driver = self.driver
        treedef = jax.tree.structure(self.state)

        @partial(jax.jit, static_argnames="steps")
        def scan(leaves: list[jax.Array], data: Any, indices: Any, *, steps: int) -> Any:
            train_step = driver.train_step(driver.optimizer)

            def body(state: Any, index: Any) -> Any:
                loss: jax.Array
                batch = tuple(driver.batch_of(data, index).values())
                state, loss = train_step(state, batch)
                return state, loss

            state = jax.tree.unflatten(treedef, leaves)
            state, losses = jax.lax.scan(body, state, indices, length=steps)
            return jax.tree.leaves(state), losses

        return scan


class TraceScan(Compiled):
    """The same with loss, gradients, optimizer state and parameters of every step stacked."""

    _ledgers: tuple[Any, ...] = ()

    @cached_property
    def state(self) -> Any:
        return self.driver.start

    def run(self) -> None:
        leaves, data, indices = self.start
        ledgers = []
        for chunk, index in zip(self.chunks, indices, strict=True):
            leaves, _, ledger = self.driver.scan(leaves, None, data, index, None, steps=chunk.steps)
            ledgers.append(ledger)
        self._leaves, ledgers = jax.block_until_ready((leaves, ledgers))
        self._ledgers = tuple(ledgers)
        self._losses = [ledger["loss"] for ledger in ledgers]

    def recorded(self) -> Iterator[Trace]:
        """The last run itself: it has recorded what it did. Another one where there is none."""
        if not self._ledgers:
            yield from super().recorded()
            return
        driver = self.driver
        with driver.settings():
            before = driver.ledger(self.state)
            state = jax.tree.unflatten(jax.tree.structure(self.state), self._leaves)
            tested = driver.evaluated(state)
        for chunk, ledger in zip(self.chunks, self._ledgers, strict=True):
            last = chunk is self.chunks[-1]
            trace = assemble(driver, chunk, before, ledger, *(tested if last else ({}, {})))
            before = last_row(ledger)
            yield trace
