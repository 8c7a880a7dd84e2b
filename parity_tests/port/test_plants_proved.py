"""`prove` finds each planted fault at its stage and step, and names what it knows of it."""

import functools
import importlib
from collections.abc import Iterator

import jax
import pytest

import twinstep
from port.planting import Plant
from port.plants import PLANTS
from port.ports import jax_trace, torch_trace
from twinstep.judge.findings import Comparison
from twinstep.port.mapping import Mapping
from twinstep.trace.ledger import Trace

SEED = 1
NAMED = {
    "conv_nnx-eps in the root": "eps is inside the root",
    "conv_nnx-L2": "the decay is part of the gradient",
    "conv_nnx-b1": "betas.0 is 0.85, not 0.9",
    "conv_nnx-skipped": "learning rate: that of update 4 is 0, and its state moves on",
    "conv_nnx-moments reset": "the moments are zeros again at update 6, and their count goes on",
    "conv_nnx-rebuilt": "is new at update 7; learning rate: its schedule starts again at update 7",
    "conv_nnx-rolled back": "back to those before update 7, the state moves on",
    "conv_nnx-stale": "update 5 is of the gradients before",
    "conv_nnx-adaptive": "as optax.adaptive_grad_clip does: 0.01",
    "conv_nnx-norm keeps biased": "bn1.running_var",
    "transformer_linen-no decay": "nothing decays",
    "transformer_linen-wpe drawn": "wpe.weight is unlike PyTorch's, and distributed otherwise",
    "transformer_linen-lion": "the optimizer is Lion",
    # by the port's own leaves: queries, keys and values are one of PyTorch's
    "transformer_linen-lamb": "the optimizer is LAMB",
    "transformer_linen-adaptive": "as optax.adaptive_grad_clip does: 0.01",
    "transformer_linen-clipped each": "by its own norm, of the port's own leaves",
    "transformer_linen-adafactor": "the optimizer is Adafactor",
    "transformer_linen-sums": "of the moments both are sums, not averages",
    "transformer_linen-moments in bfloat16": "the first moment is kept in bfloat16 (mu_dtype)",
    "transformer_linen-q and k": "in the order k, q, v, for q, k, v",
    "gru_dicts-plain momentum": "Nesterov",
    "gru_dicts-rmsprop": "the optimizer is optax's rmsprop (alpha 0.9)",
    "gru_dicts-clipped": "gradients are clipped, as optax does, to norm 0.25",
    "gru_dicts-weights clipped": "parameters are clipped to 0.3 after each update",
    "gru_dicts-rolled back": "back to those before update 6, the state moves on",
    "gru_dicts-constant": "learning rate: it stays at the first",
}
"""{a fault: what is said of it}: a few of each family, quick."""
ELSEWHERE = {
    # losses that differ by a whole factor beside equal gradients are said, and no fault
    "conv_nnx-loss shown as a sum": None,
    # gradients of a tensor held twice are added up, and PyTorch has the sum: the updates are off
    "transformer_linen-head untied": ("params", 1),
    # what cannot be compared at all is refused in a line
    "transformer_linen-batches from the second batch": "other batches",
    "gru_dicts-three micro-batches": "12 updates in PyTorch's trace, 16",
}
"""{a fault: where `prove` has it, if not where by_hand has it}"""

UNNAMED = (
    "gru_dicts-reset early",
    "gru_dicts-bias outside",
    "gru_dicts-one bias",
    "gru_dicts-gradients noisy",
    "gru_dicts-unweighted",
    "gru_dicts-mean by number",
    "gru_dicts-weights turned",
    "gru_dicts-weight's size",
    "transformer_linen-normalized after",
    "transformer_linen-no final norm",
)
"""Faults of a program that no one difference that is tried makes right."""

theirs_of = functools.cache(torch_trace)


@functools.cache
def right(port: str, dtype: str) -> tuple[Trace, Mapping]:
    """A right port, and which leaf is which in it."""
    ours = jax_trace(port, theirs_of(port, SEED, dtype))
    return ours, twinstep.match(theirs_of(port, SEED, dtype), ours).mapping


@pytest.fixture
def quickly_compiled() -> Iterator[None]:
    """A fault is one whatever LLVM makes of the program."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)
    jax.clear_caches()


def proved(plant: Plant, dtype: str, by_loss: bool = False) -> Comparison:
    """What is found of a fault, the map being that of the right port where it fits.

    by_loss: whether with the port's own loss too
    """
    ours, mapping = right(plant.port, dtype)
    left = jax_trace(plant.port, theirs_of(plant.port, SEED, dtype), plant)
    alike = left.params.keys() == ours.params.keys()
    theirs, loss_fn = theirs_of(plant.port, SEED, dtype), None
    if by_loss:
        program = importlib.import_module(f"port.programs.{plant.port}")
        loss_fn = program.loss_of(theirs, plant.planted(program.Parts()))
    return twinstep.prove(theirs, left, mapping=mapping if alike else None, loss_fn=loss_fn)


@pytest.mark.parametrize(
    "name",  # of each port every other one: the rest, and all kinds, by make test-slow
    [pytest.param(n, marks=[pytest.mark.slow] if i % 2 else []) for i, n in enumerate(NAMED)],
)
def test_a_fault_is_found_and_named(name: str, quickly_compiled: None) -> None:
    plant = next(plant for plant in PLANTS if str(plant) == name)
    found = proved(plant, "float64")
    assert found.first is not None
    assert (found.first.stage, found.first.step) == (plant.stage, plant.at)
    assert any(NAMED[name] in cause for cause in found.causes), found.causes


def of_program() -> list[Plant]:
    """Faults of the first loss or gradients, of ports whose loss is a function of its own."""
    known = [p for p in PLANTS if p.port != "gru_equinox" and str(p) not in (*ELSEWHERE, *UNNAMED)]
    return [plant for plant in known if plant.stage in ("loss", "raw_grads")]


def test_what_of_a_program_is_wrong_is_named(quickly_compiled: None) -> None:
    plant = next(plant for plant in PLANTS if str(plant) == "conv_nnx-relu")
    found = proved(plant, "float64", by_loss=True)
    assert any("GELU in place of what is at conv_nnx.py" in cause for cause in found.causes)


@pytest.mark.slow
@pytest.mark.parametrize("plant", of_program(), ids=str)
def test_every_difference_of_a_program_is_named(plant: Plant, quickly_compiled: None) -> None:
    assert proved(plant, "float64", by_loss=True).causes


@pytest.mark.slow
@pytest.mark.parametrize("plant", PLANTS, ids=str)
def test_every_fault_is_found_where_it_is(plant: Plant, quickly_compiled: None) -> None:
    where = ELSEWHERE.get(str(plant), (plant.stage, plant.at))
    if isinstance(where, str):
        with pytest.raises(twinstep.InputError, match=where):
            proved(plant, "float64")
        return
    found = proved(plant, "float64")
    first = None if found.first is None else (found.first.stage, found.first.step)
    assert first == where
