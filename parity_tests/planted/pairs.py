"""Pairs of runs, the places where a fault is found, and an honest side that trains only once."""

import functools
import importlib
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import pytest

from twinstep import Finding, Spec, Verification, launch, verify
from twinstep.findings import Comparison
from twinstep.place import Place
from twinstep.specs import EXAMPLES
from twinstep.trace import Trace

Side = Literal["torch", "jax"]
Plant = Callable[[pytest.MonkeyPatch, Any], None]
Hook = Callable[[int, Any], None]  # (step, PyTorch's TrainState)


class Pair(NamedTuple):
    """An example, and how its spec differs from the document's; always the same problem."""

    example: str
    settings: tuple[tuple[str, Any], ...]

    def __str__(self) -> str:
        return " ".join([self.example, *(f"{name}={value}" for name, value in self.settings)])


def pair(example: str, dtype: str = "float64", **settings: Any) -> Pair:
    """A pair by its example's name and its spec's fields."""
    return Pair(example, tuple({"dtype": dtype, **settings}.items()))


@functools.cache
def spec_of(pair: Pair) -> Spec:
    """Made once: its arrays are read-only, and drawing them takes time."""
    return EXAMPLES[pair.example](**dict(pair.settings))


@dataclass
class HonestJax:
    """The JAX side of every pair as it is, trained and compiled once for all tests that share it.

    Only for tests that leave the JAX side alone.
    """

    _runs: dict[tuple[Pair, bool | str], "Kept"] = field(default_factory=dict)
    _replays: dict[tuple[Pair, str], Any] = field(default_factory=dict)

    def verify(self, patch: pytest.MonkeyPatch, pair: Pair) -> Verification:
        """`twinstep.verify` with this side's part of it taken from what is kept."""
        recorder, replay, exact = launch.recorder, launch.replay, launch.exact

        def kept_recorder(framework: str, spec: Spec, place: Place, *, noise: bool = False) -> Any:
            if framework == "torch" or spec is not spec_of(pair):
                return recorder(framework, spec, place, noise=noise)
            if (pair, noise) not in self._runs:
                self._runs[pair, noise] = Kept(recorder(framework, spec, place, noise=noise))
            return self._runs[pair, noise]

        def kept_exact(spec: Spec, place: Place) -> Any:
            if (pair, "exact") not in self._runs:
                self._runs[pair, "exact"] = Kept(exact(spec, place))
            return self._runs[pair, "exact"]

        def kept_replay(spec: Spec, place: Place, *, framework: str = "jax") -> Any:
            if framework == "torch":
                return replay(spec, place, framework=framework)
            if (pair, spec.dtype) not in self._replays:
                self._replays[pair, spec.dtype] = replay(spec, place)
            return self._replays[pair, spec.dtype]

        patch.setattr(launch, "exact", kept_exact)
        patch.setattr(launch, "recorder", kept_recorder)
        patch.setattr(launch, "replay", kept_replay)
        return verify_only(patch, pair)


@dataclass
class Kept:
    """A recorder whose run is made once."""

    recorder: Any
    _chunks: list[Trace] = field(default_factory=list)

    @property
    def metadata(self) -> Any:
        return self.recorder.metadata

    def chunks(self, most: int | None = None) -> Iterator[Trace]:
        if not self._chunks:
            self._chunks = list(self.recorder.chunks(most))
        return iter(self._chunks)


def verify_only(patch: pytest.MonkeyPatch, pair: Pair) -> Verification:
    """`twinstep.verify`; what the document claims is left out, as measuring that trains again."""
    spec = spec_of(pair)
    patch.setattr(type(spec), "claims", lambda *_: [])
    return verify(spec)


def verify_without_noise(patch: pytest.MonkeyPatch, pair: Pair) -> Verification:
    """The same for a fault on the JAX side, without noise."""
    leave_noise_out(patch)
    return verify_only(patch, pair)


def leave_noise_out(patch: pytest.MonkeyPatch) -> None:
    """From now on free runs are judged by the plain bound.

    The gate, which decides, needs no noise, and measuring it takes most of the time to compile.
    """
    recorder = launch.recorder

    def quiet(framework: str, spec: Spec, place: Place, *, noise: bool = False) -> Any:
        return recorder(framework, spec, place, noise=False)

    patch.setattr(launch, "recorder", quiet)


def module(side: Side, pair: Pair) -> Any:
    """The module of one side that implements a pair's example."""
    return importlib.import_module(f"{side}_impl.{spec_of(pair).implementation}")


class Spot(NamedTuple):
    """Where a fault is found: a step, from 1 (0: before the first), a stage and a leaf.

    step None: in the structure, a name or a dtype that only one side has.
    """

    step: int | None
    stage: str
    leaf: str


def place_of(comparison: Comparison) -> Spot | None:
    """Where a comparison's first finding is."""
    first: Finding | None = comparison.first
    if first is not None:
        return Spot(first.step, first.stage, first.leaf)
    found = re.match(r"different structure: (\w+), (\S+):", comparison.reason)
    return Spot(None, *found.groups()) if found else None
