"""Pairs of runs, the places where a fault is found, and an honest side that trains only once."""

import contextlib
import functools
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import pytest

import twinstep.jax.driver
import twinstep.jax.replay
from faults.dials import Dial, dialled
from twinstep import Finding, Spec, Verification, verify
from twinstep.device_config import CPU, DeviceConfig
from twinstep.judge.findings import Comparison
from twinstep.problems import PROGRAMS
from twinstep.runs import launch
from twinstep.trace.ledger import Trace

Side = Literal["torch", "jax"]
Plant = Callable[[pytest.MonkeyPatch, Any], None]
Hook = Callable[[int, Any], object]  # (step, PyTorch's model and optimizer)


class Pair(NamedTuple):
    """An example or a model, and how its spec differs from what it is; always the same problem."""

    example: str
    settings: tuple[tuple[str, Any], ...]

    def __str__(self) -> str:
        return " ".join([self.example, *(f"{name}={value}" for name, value in self.settings)])


def pair(example: str, dtype: str = "float64", **settings: Any) -> Pair:
    """A pair by its name and its spec's fields."""
    return Pair(example, tuple({"dtype": dtype, **settings}.items()))


@functools.cache
def spec_of(pair: Pair) -> Spec:
    """Made once: its arrays are read-only, and drawing them takes time."""
    return PROGRAMS[pair.example](**dict(pair.settings))


class Programs:
    """What JAX compiles, once for all runs that differ in their numbers alone.

    States, data and sample numbers are arguments of the compiled loops: another seed, or a fault
    that asks for its size as it runs (`faults.dials`), takes no new program.
    exact: where those in float64 are kept, if elsewhere: they lack what exists in float32 alone
    """

    def __init__(self, exact: "Programs | None" = None) -> None:
        self.exact = exact
        self.numbers = {"seed", "data_seed", "steps", "epochs", "log_every"}
        self._compiled: dict[Any, Any] = {}

    def share(self, patch: pytest.MonkeyPatch) -> None:
        """From now on drivers and replays take their programs from here."""
        for home in (twinstep.jax.driver.Driver, twinstep.jax.replay.Replay):
            for name, made in list(vars(home).items()):
                if isinstance(made, functools.cached_property):
                    patch.setattr(home, name, property(functools.partial(self._get, name, made)))

    def _get(self, name: str, made: "functools.cached_property[Any]", owner: Any) -> Any:
        spec = owner.spec
        kept = self._compiled
        if self.exact is not None and spec.dtype == "float64":
            kept = self.exact._compiled
        fixed = [item for item in spec.hyper_parameters().items() if item[0] not in self.numbers]
        key = (type(owner), name, spec.name, repr(fixed), owner.device_config)
        if key in kept:
            return kept[key]
        value = made.__get__(owner, type(owner))
        if hasattr(value, "lower"):  # a program
            kept[key] = value
        return value


@dataclass
class Honest:
    """One side of every pair as it is, trained once for all tests that plant in the other one."""

    framework: Side
    programs: Programs = field(default_factory=Programs)
    _made: dict[Any, Any] = field(default_factory=dict)

    def verify(
        self, patch: pytest.MonkeyPatch, pair: Pair, programs: Programs | None = None
    ) -> Verification:
        """`twinstep.verify` with this side's part of it taken from what is kept.

        programs: what the JAX side is compiled to; None: as it is
        """
        driver, replay, exact = launch.driver, launch.replay, launch.in_float64

        def once(*key: Any, make: Callable[[], Any]) -> Any:
            if (pair, *key) not in self._made:
                self._made[pair, *key] = make()
            return self._made[pair, *key]

        def kept_driver(
            framework: str, spec: Spec, device_config: DeviceConfig = CPU, **rounding_noise: bool
        ) -> Any:
            def make() -> Any:
                return driver(framework, spec, device_config, **rounding_noise)

            if framework != self.framework:
                return make()
            key = spec.dtype, spec.total_steps, device_config, *rounding_noise.items()
            return once(*key, make=lambda: Kept(make()))

        def kept_exact(spec: Spec, device_config: DeviceConfig = CPU) -> Any:
            return once("exact", make=lambda: Kept(exact(spec, device_config)))

        def kept_replay(spec: Spec, device_config: DeviceConfig = CPU, **which: str) -> Any:
            if which.get("framework", "jax") != "jax":
                return replay(spec, device_config, **which)
            return once(spec.dtype, make=lambda: replay(spec, device_config))

        (programs or self.programs).share(patch)
        patch.setattr(launch, "driver", kept_driver)
        if self.framework == "jax":
            patch.setattr(launch, "in_float64", kept_exact)
            patch.setattr(launch, "replay", kept_replay)
        return verify_only(patch, pair)

    def compared(self, pair: Pair, **plants: Plant) -> Comparison:
        """What the judge says of a pair; plants: {side: what is planted in its module}."""
        return compared(pair, self.verify, **plants)


HonestJax = functools.partial(Honest, "jax")
HonestTorch = functools.partial(Honest, "torch")


class Kept:
    """A driver whose run is made once."""

    def __init__(self, driver: Any) -> None:
        self.driver = driver
        self._chunks = functools.cache(lambda max_steps: list(driver.chunks(max_steps)))

    def __getattr__(self, name: str) -> Any:
        return getattr(self.driver, name)

    def chunks(self, max_steps: int | None = None) -> Iterator[Trace]:
        return iter(self._chunks(max_steps))


def verify_only(patch: pytest.MonkeyPatch, pair: Pair) -> Verification:
    """`twinstep.verify`; what the document claims is left out, as measuring that trains again."""
    spec = spec_of(pair)
    patch.setattr(type(spec), "claims", lambda *_: [])
    return verify(spec)


def compared(
    pair: Pair, verify: Callable[..., Verification] = verify_only, **plants: Plant
) -> Comparison:
    """What the judge says of a pair; plants: {side: what is planted in its module}."""
    with pytest.MonkeyPatch.context() as patch:
        for side, plant in plants.items():
            plant(patch, module(side, pair))
        return verify(patch, pair).comparison


@dataclass
class FaultyJax:
    """JAX programs in which all faults of a pair are planted, each with a dial."""

    torch: Honest = field(default_factory=HonestTorch)
    _programs: dict[Pair, Programs] = field(default_factory=dict)
    _dials: dict[Any, Dial] = field(default_factory=dict)

    def compared(
        self,
        pair: Pair,
        plants: Iterable[Plant],
        plant: Plant | None,
        size: float = 1.0,
        exact: Programs | None = None,
    ) -> Comparison:
        """What the judge says of one of a pair's faults, or of none, without rounding noise.

        plants: those of all faults of this pair; exact: where float64's programs have none of them
        """
        how = None if plant is None else vars(plant).get("how", "alone")
        example, only = module("jax", pair), None if exact is None else "float32"
        programs, at_size = Programs(exact), contextlib.nullcontext()
        with pytest.MonkeyPatch.context() as patch:
            leave_noise_out(patch)
            if how != "alone":
                programs = self._programs.setdefault(pair, programs)
                for other in plants:
                    if vars(other).get("how") == "compiled":
                        with dialled(self._dials.setdefault((pair, other), Dial(only))):
                            other(patch, example)
            if plant is not None and how != "compiled":
                plant(patch, example)
            with self._dials[pair, plant].at(size) if how == "compiled" else at_size:
                return self.torch.verify(patch, pair, programs).comparison


def leave_noise_out(patch: pytest.MonkeyPatch) -> None:
    """From now on free runs are judged by the plain bound.

    The gate, which decides, needs no rounding noise, and measuring it takes most of the time to
    compile.
    """
    driver = launch.driver

    def quiet(framework: str, spec: Spec, device_config: DeviceConfig = CPU, **_: bool) -> Any:
        return driver(framework, spec, device_config)

    patch.setattr(launch, "driver", quiet)


def module(side: str, pair: Pair) -> Any:
    """The module of one side that implements a pair's example."""
    return launch.example(side, spec_of(pair))


class Spot(NamedTuple):
    """Where a fault is found: a step, from 1 (0: before the first), a stage and a leaf.

    step None: in the structure, a name or a dtype that only one side has.
    """

    step: int | None
    stage: str
    leaf: str


def spot_of(comparison: Comparison) -> Spot | None:
    """Where a comparison's first finding is."""
    first: Finding | None = comparison.first
    if first is not None:
        return Spot(first.step, first.stage, first.leaf)
    found = re.match(r"different structure: (\w+), (\S+):", comparison.reason)
    return Spot(None, *found.groups()) if found else None
