"""How far a float32 run is from a float64 run of the same problem, and what a fast mode costs."""

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from twinstep.device_config import DeviceConfig
from twinstep.judge.findings import json_number
from twinstep.problems.base import Spec
from twinstep.runs import launch
from twinstep.trace.ledger import Trace


@dataclass
class Distance:
    """How far a run came from the float64 one, as far as there were numbers.

    first_loss: of the first step's loss, relative: both made of the same numbers, before rounding
        has piled up
    loss: the largest of any step's
    params: the largest of any parameter, in units of its tensor's largest
    """

    first_loss: float = 0.0
    loss: float = 0.0
    params: float = 0.0

    def add(self, chunk: Trace, exact: Trace) -> None:
        """Takes the next steps of both runs."""
        with np.errstate(all="ignore"):
            size = np.abs(exact.losses)
            losses = np.abs(chunk.losses - exact.losses) / np.where(size, size, 1)
            if chunk.start == 0:
                self.first_loss = float(losses[0])
            self.loss = float(np.fmax(self.loss, np.fmax.reduce(losses)))
            for leaf, array in chunk.params.items():
                true = exact.params[leaf]
                gap = float(np.max(np.abs(array - true), initial=0))
                largest = float(np.max(np.abs(true), initial=0))
                self.params = float(np.fmax(self.params, gap / largest if largest else gap))

    def to_dict(self) -> dict[str, float | str]:
        """Plain JSON values; nan and inf as strings."""
        return {name: json_number(value) for name, value in dataclasses.asdict(self).items()}


@dataclass
class Cost:
    """What a framework's fast mode costs: its run beside its own run at full precision.

    fast, full: how far each is from the float64 run
    same_bits: whether losses and parameters are the same, bit for bit: then no fast mode is there
    """

    fast: Distance
    full: Distance
    same_bits: bool = True

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        pair = {"default": self.fast.to_dict(), "highest": self.full.to_dict()}
        return {**pair, "same_bits": self.same_bits}


class Float64Reference:
    """A float64 run of the same problem: which side does rounding carry less far from it?

    Where the device config allows fast modes, both sides are also trained at full precision.
    distances: {framework: how far its run came}
    costs: {framework: what its fast mode costs}; None where the place allows none
    """

    def __init__(self, spec: Spec, device_config: DeviceConfig) -> None:
        self._spec, self._device_config = spec, device_config
        self._runs: dict[str, Iterator[Trace]] | None = None
        self.distances = {"torch": Distance(), "jax": Distance()}
        self.costs: dict[str, Cost] | None = None
        if device_config.precision != "highest":
            self.costs = {name: Cost(fast, Distance()) for name, fast in self.distances.items()}

    @property
    def params(self) -> dict[str, float]:
        """{framework: how far its parameters came}"""
        return {name: distance.params for name, distance in self.distances.items()}

    def add(self, sides: Mapping[str, Trace]) -> Trace:
        """Takes the next steps of both sides, by framework; JAX's, with its rounding noise."""
        if self._runs is None:
            self._runs = self._start()
        pieces = {name: next(chunks) for name, chunks in self._runs.items()}
        exact = pieces.pop(_EXACT)
        for name, chunk in sides.items():
            self.distances[name].add(chunk, exact)
        for name, cost in (self.costs or {}).items():
            cost.full.add(pieces[name], exact)
            cost.same_bits = cost.same_bits and _same_bits(sides[name], pieces[name])
        return sides["jax"].with_rounding_noise_of(exact)

    def _start(self) -> dict[str, Iterator[Trace]]:
        """The runs that both sides are held against."""
        # in pieces of the sides' lengths, which a run in float64 would not choose
        max_steps = self._spec.steps_at_once
        runs = {_EXACT: launch.in_float64(self._spec, self._device_config).chunks(max_steps)}
        if self.costs:
            full = dataclasses.replace(self._device_config, precision="highest")
            for name, device_config in (("torch", full.for_torch()), ("jax", full)):
                runs[name] = launch.driver(name, self._spec, device_config).chunks(max_steps)
        return runs


_EXACT = "float64"


def _same_bits(a: Trace, b: Trace) -> bool:
    pairs = [(a.losses, b.losses), *((array, b.params[name]) for name, array in a.params.items())]
    return all(x.tobytes() == y.tobytes() for x, y in pairs)
