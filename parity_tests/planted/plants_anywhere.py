"""How a fault is planted on either side.

A plant changes what a module of one side holds while a test runs, never a source file:
`plant(patch, example)`, where `example` is that side's module of the example.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from planted.pairs import Plant
from twinstep import Spec


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


def criterion(name: str, value: Any) -> Plant:
    """Another loss function under its name in the linear regression's table."""

    def plant(patch: pytest.MonkeyPatch, example: Any) -> None:
        patch.setitem(example.CRITERIA, name, value)

    return plant


def loss(wrong: Callable[[Callable[..., Any], Any, Any, Any], Any]) -> Plant:
    """Another loss: wrong(the example's loss_fn, model, criterion, batch)."""

    def plant(patch: pytest.MonkeyPatch, example: Any) -> None:
        patch.setattr(example, "loss_fn", functools.partial(wrong, example.loss_fn))

    return plant


def spec_fields(**changes: Any) -> Plant:
    """The side reads other hyper-parameters than the spec's."""

    def plant(patch: pytest.MonkeyPatch, example: Any) -> None:
        init = example.init
        patch.setattr(example, "init", lambda spec: init(dataclasses.replace(spec, **changes)))

    return plant


def initial_params(
    name: str | Callable[[Spec], str], change: Callable[[np.ndarray], np.ndarray]
) -> Plant:
    """The side starts one parameter from other values; name: or what gives it."""

    def plant(patch: pytest.MonkeyPatch, example: Any) -> None:
        init = example.init

        def wrong(spec: Spec) -> Any:
            params = dict(spec.initial_params())
            leaf = name(spec) if callable(name) else name
            params[leaf] = change(params[leaf])
            copy = dataclasses.replace(spec)
            copy.__dict__["_problem"] = spec._problem._replace(params=params)
            return init(copy)

        patch.setattr(example, "init", wrong)

    return started(plant)


def ulp_more(array: np.ndarray) -> np.ndarray:
    """The first entry is the next larger number."""
    array = array.copy()
    array.flat[0] = np.nextafter(array.flat[0], np.inf)
    return array
