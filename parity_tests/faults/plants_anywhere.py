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
from faults import dials
from faults.pairs import Plant

Named = Mapping[str, np.ndarray]
Size = Callable[[], Any]


def compiled(make: Callable[[Size], Plant]) -> Plant:
    """A plant in JAX that asks a dial for its fault's size: many go into one program.

    make: the plant, given what will say the size
    """

    def plant(patch: pytest.MonkeyPatch, example: Any) -> None:
        make(dials.current())(patch, example)

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


def replaced(name: str, wrong: Callable[[Any], Any], home: Any = None) -> Plant:
    """Something in the place of what a module holds: wrong(what it is); home: None: the example."""

    def plant(patch: pytest.MonkeyPatch, example: Any) -> None:
        where = example if home is None else home
        patch.setattr(where, name, wrong(getattr(where, name)))

    return plant


def attribute(name: str, value: Any) -> Plant:
    """Another value of an attribute of the example's module."""
    return replaced(name, lambda right: value)


def built(change: Callable[[Any, Any, Any], Any]) -> Plant:
    """Other parts than the example builds: change(model, criterion, optimizer).

    It alters them, or gives others.
    """

    def wrong(build: Callable[..., Any]) -> Callable[..., Any]:
        def other(problem: Any) -> Any:
            parts = build(problem)
            return change(*parts) or parts

        return other

    return replaced("build", wrong)


def criterion(value: Any) -> Plant:
    """Another loss function."""
    return built(lambda model, right, optimizer: (model, value, optimizer))


def loss(wrong: Callable[[Any], Any]) -> Plant:
    """Another loss: wrong(the right one)."""
    return built(
        lambda model, right, optimizer: (model, lambda *given: wrong(right(*given)), optimizer)
    )


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
        assert old in inspect.getsource(getattr(example, function))
        patch.setattr(example, function, getattr(altered(example, old, new), function))

    return plant


def altered(module: ModuleType, old: str, new: str) -> ModuleType:
    """A module from its source with every `old` as `new`."""
    source = inspect.getsource(module)
    assert old in source, f"{module.__name__} has no {old!r}"
    copy = ModuleType(module.__name__)
    exec(compile(source.replace(old, new), f"<{module.__name__}>", "exec"), vars(copy))
    return copy


Table = dict[str, dict[str, tuple[str, str]]]
"""{where it must show: {what is wrong: (what the source has, what it gets)}}"""


def each(table: Table) -> pytest.MarkDecorator:
    """A test of each row."""
    params = [
        pytest.param(seen, *texts, id=wrong)
        for seen, rows in table.items()
        for wrong, texts in rows.items()
    ]
    return pytest.mark.parametrize(("seen", "old", "new"), params)


def initial_params(
    name: str | Callable[[Named], str], change: Callable[[np.ndarray], np.ndarray]
) -> Plant:
    """The side starts one parameter from other values; name: or what chooses it of all."""

    def wrong(right: Callable[..., None]) -> Callable[..., None]:
        def load_params(model: Any, named: Named) -> None:
            leaf = name(named) if callable(name) else name
            right(model, {**named, leaf: change(np.array(named[leaf]))})

        return load_params

    def plant(patch: pytest.MonkeyPatch, example: Any) -> None:
        home = example if hasattr(example, "load_params") else twinstep.torch.driver
        replaced("load_params", wrong, home)(patch, example)

    return started(plant)


def ulp_more(array: np.ndarray, entry: int = 0) -> np.ndarray:
    """An entry, the first, is the next larger number."""
    array = array.copy()
    array.flat[entry] = np.nextafter(array.flat[entry], np.inf)
    return array
