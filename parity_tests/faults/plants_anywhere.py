"""How a fault is planted on either side.

A plant changes what a module of one side holds while a test runs, never a source file:
`plant(patch, example)`, where `example` is that side's module of the example.
"""

import importlib
import inspect
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import twinstep.torch.driver
from faults.pairs import Plant
from twinstep import Spec

Named = Mapping[str, np.ndarray]


def compiled(plant: Plant) -> Plant:
    """Marks a plant in JAX that asks a dial for its fault's size: many go into one program."""
    vars(plant)["how"] = "compiled"
    return plant


def started(plant: Plant) -> Plant:
    """Marks a plant in what a run starts from, which no compiled program knows."""
    vars(plant)["how"] = "started"
    return plant


def together(*plants: Plant) -> Plant:
    """Several plants at once."""

    def plant(patch: pytest.MonkeyPatch, example: Any) -> None:
        for each in plants:
            each(patch, example)

    return plant


def attribute(name: str, value: Any) -> Plant:
    """Another value of an attribute of the example's module."""

    def plant(patch: pytest.MonkeyPatch, example: Any) -> None:
        patch.setattr(example, name, value)

    return plant


def criterion(value: Any) -> Plant:
    """Another loss function."""

    def plant(patch: pytest.MonkeyPatch, example: Any) -> None:
        build = example.build

        def wrong(problem: Spec) -> Any:
            model, _, optimizer = build(problem)
            return model, value, optimizer

        patch.setattr(example, "build", wrong)

    return plant


def loss(wrong: Callable[[Any], Any]) -> Plant:
    """Another loss: wrong(the right one)."""

    def plant(patch: pytest.MonkeyPatch, example: Any) -> None:
        build = example.build

        def other(problem: Spec) -> Any:
            model, right, optimizer = build(problem)
            return model, lambda *given: wrong(right(*given)), optimizer

        patch.setattr(example, "build", other)

    return plant


def twin(name: str, *functions: str) -> Plant:
    """Some functions of another twin, of the same framework, in place of the example's own.

    One that only the example has is taken away.
    """

    def plant(patch: pytest.MonkeyPatch, example: Any) -> None:
        home = importlib.import_module(f"{example.__name__.partition('.')[0]}.{name}")
        for function in functions:
            other = getattr(home, function, None)
            patch.setattr(example, function, other, raising=False)

    return plant


def rewritten(function: str, old: str, new: str) -> Plant:
    """A function of the example with another expression in its text."""

    def plant(patch: pytest.MonkeyPatch, example: Any) -> None:
        text = inspect.getsource(example)
        assert old in inspect.getsource(getattr(example, function))
        copy = ModuleType(example.__name__)
        exec(compile(text.replace(old, new), f"<{example.__name__}>", "exec"), vars(copy))
        patch.setattr(example, function, getattr(copy, function))

    return plant


def initial_params(
    name: str | Callable[[Named], str], change: Callable[[np.ndarray], np.ndarray]
) -> Plant:
    """The side starts one parameter from other values; name: or what chooses it of all."""

    def plant(patch: pytest.MonkeyPatch, example: Any) -> None:
        home = example if hasattr(example, "load_params") else twinstep.torch.driver
        right = home.load_params

        def load_params(model: Any, named: Named) -> None:
            leaf = name(named) if callable(name) else name
            right(model, {**named, leaf: change(np.array(named[leaf]))})

        patch.setattr(home, "load_params", load_params)

    return started(plant)


def ulp_more(array: np.ndarray) -> np.ndarray:
    """The first entry is the next larger number."""
    array = array.copy()
    array.flat[0] = np.nextafter(array.flat[0], np.inf)
    return array
