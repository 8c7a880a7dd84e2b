"""Every function of the kit against torch.nn.functional's of its name: values, gradients, refusals.

The tables are in helpers/functional_*.py. The first case of a function is run in float64, compiled
too; all of them, in float32 as well, by `make test-slow`.
"""

import importlib
import pkgutil
from typing import Any

import helpers
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from helpers.kit_parity import Case, Port, differences, mapped

from twinstep import InputError
from twinstep.jax.nn import functional as kit

pytestmark = pytest.mark.quick_to_compile

F = torch.nn.functional
TABLES = [
    importlib.import_module(f"helpers.{found.name}")
    for found in pkgutil.iter_modules(helpers.__path__)
    if found.name.startswith("functional_")
]


def table(what: str) -> dict[str, Any]:
    """{function: what one of the tables has for it}"""
    return {name: rows for module in TABLES for name, rows in getattr(module, what, {}).items()}


CASES: dict[str, list[Case]] = table("CASES")
ERRORS: dict[str, list[Case]] = table("ERRORS")
PORTS: dict[str, Port] = table("PORTS")
RANDOM: dict[str, list[Case]] = table("RANDOM")
"""Cases of what draws: test_functional_random.py."""


def every(rows: dict[str, list[Case]], first: int = 0) -> list[Any]:
    """(function, number of its case) of all cases from one on."""
    return [
        pytest.param(name, i, id=f"{name}-{i}")
        for name, cases in rows.items()
        for i in range(first, len(cases))
    ]


def off(
    name: str, i: int, dtype: str = "float64", ours: Any = None, jit: bool | None = None
) -> list[str]:
    return differences(ours or getattr(kit, name), getattr(F, name), CASES[name][i], dtype, jit)


def test_every_function_has_cases() -> None:
    public = {name for name in kit.__all__ if callable(getattr(kit, name))}
    assert public == CASES.keys() | RANDOM.keys()
    assert public == PORTS.keys()


@pytest.mark.parametrize("name", CASES)
def test_a_function_is_pytorchs(name: str) -> None:
    assert off(name, 0, jit=True) == []


@pytest.mark.slow
@pytest.mark.parametrize(("name", "i"), every(CASES, 1))
def test_a_function_is_pytorchs_in_all_its_cases(name: str, i: int) -> None:
    assert off(name, i) == []


@pytest.mark.slow
@pytest.mark.parametrize(("name", "i"), every(CASES))
def test_a_function_is_pytorchs_in_float32(name: str, i: int) -> None:
    assert off(name, i, "float32", jit=False) == []


@pytest.mark.parametrize(("name", "i"), every(ERRORS))
def test_what_pytorch_refuses_is_refused(name: str, i: int) -> None:
    """Eagerly: where a value decides, a compiled function gives NaN."""
    case = ERRORS[name][i]

    def as_tensors(args: Any) -> Any:
        return mapped(args, lambda _, v: torch.tensor(v) if isinstance(v, np.ndarray) else v)

    with pytest.raises((RuntimeError, ValueError, IndexError, TypeError, AssertionError)):
        getattr(F, name)(*as_tensors(list(case.args)), **as_tensors(dict(case.kwargs)))
    with jax.enable_x64(True):
        args, kwargs = mapped(
            [list(case.args), dict(case.kwargs)],
            lambda _, v: jnp.asarray(v) if isinstance(v, np.ndarray) else v,
        )
        with pytest.raises(InputError) as caught:
            getattr(kit, name)(*args, **kwargs)
    line = str(caught.value)
    assert "\n" not in line
    assert name in line


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name, port in PORTS.items() if port.call])
def test_the_pure_call_equals_it(name: str) -> None:
    """In the function's first case, as the porting tables say."""
    assert off(name, 0, ours=PORTS[name].call, jit=False) == []


@pytest.mark.parametrize(
    "name",  # of each table some; the rest by make test-slow
    [
        pytest.param(name, marks=[pytest.mark.slow] if i % 3 else [])
        for i, name in enumerate(name for name, port in PORTS.items() if port.naive_call)
    ],
)
def test_a_naive_port_is_rejected(name: str) -> None:
    """By one of the function's cases at least."""
    ours = PORTS[name].naive_call
    assert any(off(name, i, ours=ours, jit=False) for i in range(len(CASES[name])))
