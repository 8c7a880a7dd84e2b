"""A port is called the same where it is, and a fault is found at its step, stage and leaf."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import optax
import pytest

import twinstep
from port.honest import HonestPair, honest
from port.ports import PORTS, jax_trace, torch_trace
from port.programs import gru_dicts
from twinstep.port.mapping import Mapping, Piece, whole
from twinstep.trace.ledger import Trace


@functools.cache
def pair(example: str = "parameter_groups", dtype: Any = "float64") -> tuple[Trace, Trace]:
    """A document's example, and its JAX twin as a port with names and layouts of its own."""
    spec = twinstep.examples()[example](dtype=dtype)
    theirs, ours = (twinstep.run(spec, framework=side) for side in ("torch", "jax"))
    return theirs, as_port(ours)


def layout(trace: Trace) -> Mapping:
    """Flax's: matrices the other way round, under other names."""
    shapes = {name: array.shape[1:] for name, array in trace.params.items()}
    pieces = {}
    for name, shape in shapes.items():
        axes = tuple(reversed(range(len(shape))))
        pieces[f"port.{name}"] = (Piece(name, shape, whole(shape), axes, whole(shape[::-1])),)
    own = {name: piece[0].at for name, piece in pieces.items()}
    return Mapping(pieces, {n: tuple(b for _, b in at) for n, at in own.items()}, shapes)


def as_port(trace: Trace) -> Trace:
    """A trace in that layout."""
    mapping = layout(trace)
    raw = mapping.to_jax(trace.raw_grads, lead=1)
    once = all(map(trace.held_once, trace.grads))
    given = raw if once else mapping.to_jax(trace.grads, lead=1)
    params = mapping.to_jax(trace.params, lead=1)
    return dataclasses.replace(trace, params=params, raw_grads=raw, grads=given, opt_state={})


def planted(trace: Trace, stage: str, leaf: str, row: int, change: float = 1e-6) -> Trace:
    """A trace with one entry of one row off by a part of the leaf's largest."""
    if stage == "loss":
        losses = trace.losses.copy()
        losses[row] *= 1 + change
        return dataclasses.replace(trace, losses=losses)
    held = dict(getattr(trace, stage))
    array = held[leaf].copy()
    array[row].flat[0] += change * np.abs(array).max()
    changed: Any = {stage: held | {leaf: array}}
    return dataclasses.replace(trace, **changed)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize(
    "example", ["linear_regression", "parameter_groups", "selective_update", "adam_update"]
)
def test_a_twin_is_a_port_that_is_the_same(example: str, dtype: str) -> None:
    found = twinstep.prove(*pair(example, dtype))
    assert found.verdict.same
    assert found.smallest_allowance("gate") < 0.5


def test_leaves_are_chosen_by_pattern() -> None:
    theirs, ours = pair()
    mapping = twinstep.match(theirs, ours).mapping
    of_start, of_update = (planted(ours, "params", "port.model.weight", row) for row in (0, 3))
    assert not twinstep.prove(theirs, of_start, mapping=mapping, leaves=["*.weight"]).verdict.same
    for off in (of_start, of_update):
        found = twinstep.prove(theirs, off, mapping=mapping, leaves=["gru.*"])
        assert found.verdict.same
        assert "of 6 leaves 4 are judged, by gru.*" in found.notes
    with pytest.raises(twinstep.InputError, match=r"leaves head.\*: none of the 6 that PyTorch's"):
        twinstep.prove(theirs, ours, leaves=["head.*"])


@pytest.mark.parametrize(
    "leaf",
    [pytest.param("port.model.weight", marks=pytest.mark.slow), "port.gru.weight_hh_l0"],
)
@pytest.mark.parametrize(
    ("stage", "row", "at"),
    [
        ("params", 0, ("params", 0)),
        ("raw_grads", 0, ("raw_grads", 1)),
        pytest.param("params", 3, ("params", 3), marks=pytest.mark.slow),
        ("params", -1, ("params", 5)),
    ],
)
def test_one_wrong_entry_is_found(stage: str, row: int, at: tuple[str, int], leaf: str) -> None:
    theirs, ours = (trace.slice(0, 5) for trace in pair())
    found = twinstep.prove(theirs, planted(ours, stage, leaf, row))
    assert found.first is not None
    assert (found.first.stage, found.first.step) == at
    assert f"port.{found.first.leaf}" == leaf


def test_a_wrong_loss_is_found_in_the_first_step_and_later() -> None:
    theirs, ours = (trace.slice(0, 5) for trace in pair())
    for row, change in ((0, 1e-10), (3, 1e-3)):
        found = twinstep.prove(theirs, planted(ours, "loss", "loss", row, change))
        assert found.first is not None
        assert (found.first.stage, found.first.step) == ("loss", row + 1)


def test_gradients_that_part_at_once_later_are_found() -> None:
    theirs, ours = (trace.slice(0, 5) for trace in pair())
    leaf = "port.model.weight"
    raw = {n: a.copy() for n, a in ours.raw_grads.items()}
    raw[leaf][3] *= 1.01
    changed = dataclasses.replace(ours, raw_grads=raw, grads=raw)
    found = twinstep.prove(theirs, changed)
    assert found.first is not None  # the update is not that of such a gradient either
    assert (found.first.stage, found.first.step) == ("raw_grads", 4)


def test_a_loss_that_is_shown_as_a_sum_is_said_and_no_fault() -> None:
    theirs, ours = pair()
    found = twinstep.prove(theirs, dataclasses.replace(ours, losses=ours.losses * 4))
    assert found.verdict.same
    assert "the port's loss is 4 of PyTorch's, its gradients are the same" in found.notes
    one_more = dataclasses.replace(ours, losses=ours.losses * 4.001)
    assert twinstep.prove(theirs, one_more).first is not None


def test_nan_on_both_sides_proves_nothing() -> None:
    theirs, ours = (trace.slice(0, 3) for trace in pair())
    both = [
        dataclasses.replace(trace, losses=np.full_like(trace.losses, np.nan))
        for trace in (theirs, ours)
    ]
    assert twinstep.prove(*both).verdict == "invalid"
    assert twinstep.prove(theirs, both[1]).verdict == "mismatch"


def held_twice(theirs: Trace, ours: Trace, apart: float) -> tuple[Trace, Mapping]:
    """A port that holds a matrix twice, each with half of its gradient; apart: how far one goes."""
    mapping, leaf = layout(theirs), "port.model.weight"
    copy = ours.params[leaf].copy()
    copy[2:] += apart
    half = ours.raw_grads[leaf] / 2
    raw = {**ours.raw_grads, leaf: half, "copy": half}
    ported = dataclasses.replace(
        ours, params={**ours.params, "copy": copy}, raw_grads=raw, grads=raw
    )
    leaves = {**mapping.leaves, "copy": mapping.leaves[leaf]}
    shapes = {**mapping.shapes, "copy": mapping.shapes[leaf]}
    return ported, Mapping(leaves, shapes, mapping.torch_shapes)


def test_what_is_held_twice_is_the_same_at_every_step() -> None:
    theirs, ours = (trace.slice(0, 4) for trace in pair())
    for apart, same in ((0.0, True), (1e-9, False)):
        ported, mapping = held_twice(theirs, ours, apart)
        found = twinstep.prove(theirs, ported, mapping=mapping)
        assert found.verdict.same == same
    assert found.first is not None
    assert (found.first.stage, found.first.step) == ("params", 2)
    assert "held twice by the port" in found.causes[0]


def test_an_unknown_optimizer_is_never_called_the_same() -> None:
    theirs, ours = pair()
    optimizers = {n: {**one, "class": "Lion"} for n, one in theirs.program["optimizers"].items()}
    lion = dataclasses.replace(theirs, program={**theirs.program, "optimizers": optimizers})
    found = twinstep.prove(lion, ours)
    assert not found.verdict.same
    assert "are not judged: Lion is none of the rules that are known" in found.reason


def without(trace: Trace, stage: str) -> Trace:
    nothing: Any = {stage: {}}
    return dataclasses.replace(trace, **nothing)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda t, j: (t, without(j, "raw_grads")), "the port's trace has no raw gradients"),
        (lambda t, j: (without(t, "raw_grads"), j), "PyTorch's trace has no raw gradients"),
        (lambda t, j: (t, j.slice(0, 3)), "updates in PyTorch's trace, 3 of port.model.weight"),
        (lambda t, j: (t, pair(dtype="float32")[1]), "float64, the port's in float32"),
        (
            lambda t, j: (t, dataclasses.replace(j, metadata=_precise(j, "tf32"))),
            "the port's of tf32: record both in one",
        ),
        (
            lambda t, j: (on_batches(t, 0), on_batches(j, 1)),
            "step 1: batch, x: the port trained on other batches than PyTorch",
        ),
    ],
)
def test_what_cannot_be_compared_is_said(
    change: Callable[[Trace, Trace], tuple[Trace, Trace]], says: str
) -> None:
    theirs, ours = pair()
    with pytest.raises(twinstep.InputError) as refused:
        twinstep.prove(*change(theirs, ours), mapping=layout(theirs))
    assert says in str(refused.value)
    assert "\n" not in str(refused.value)


def _precise(trace: Trace, precision: str) -> Any:
    return dataclasses.replace(trace.metadata, precision=precision)


def on_batches(trace: Trace, first: int, axes: tuple[int, ...] = (0, 1)) -> Trace:
    """A trace that says that it was made on certain batches, numbered from `first`."""
    numbers = first + np.arange(len(trace))
    batches = {int(n): np.random.RandomState(n).rand(3, 4).transpose(axes) for n in numbers}
    known = {"x": {10 * axes[0] + n: array for n, array in batches.items()}}
    batch = {"x": (10 * axes[0] + numbers).astype(np.uint32)}
    return dataclasses.replace(trace, batch=batch, inputs=known)


def test_batches_in_another_layout_are_the_same_and_one_that_is_not_is_found() -> None:
    theirs, ours = (trace.slice(0, 4) for trace in pair())
    theirs, ours = on_batches(theirs, 0), on_batches(ours, 0, (1, 0))
    assert twinstep.prove(theirs, ours).verdict.same
    numbers = ours.batch["x"].copy()
    numbers[2] = numbers[1]
    found = twinstep.prove(theirs, dataclasses.replace(ours, batch={"x": numbers}))
    assert found.first is not None
    assert (found.first.stage, found.first.step) == ("batch", 3)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda m: {"leaves": _less(m.leaves)}, "the map leaves out 'port.model.weight'"),
        (
            lambda m: {"shapes": {**m.shapes, "port.model.weight": (2, 2)}},
            "the map has 'port.model.weight' of shape (2, 2)",
        ),
        (
            lambda m: {"torch_shapes": {**m.torch_shapes, "model.none": (2,)}},
            "the map names 'model.none', which PyTorch's trace does not have",
        ),
    ],
)
def test_a_map_that_does_not_fit_is_refused(
    change: Callable[[Mapping], dict[str, Any]], says: str
) -> None:
    theirs, ours = pair()
    mapping = layout(theirs)
    with pytest.raises(twinstep.InputError) as refused:
        twinstep.prove(theirs, ours, mapping=dataclasses.replace(mapping, **change(mapping)))
    assert says in str(refused.value)


def _less(leaves: Any) -> dict[str, Any]:
    return {name: pieces for name, pieces in leaves.items() if name != "port.model.weight"}


# The ports, as people write them

theirs_of = functools.cache(torch_trace)


@functools.cache
def mapping_of(port: str) -> Mapping:
    given = theirs_of(port, 1, "float64")
    return twinstep.match(given, jax_trace(port, given)).mapping


def check_honest(setting: HonestPair) -> None:
    """A right port is called the same, and nothing about it is open."""
    if setting.port == "gru_equinox":
        pytest.importorskip("equinox")
    theirs = torch_trace(
        setting.port, setting.seed, setting.dtype, setting.learning_rate, setting.steps
    )
    ours = jax_trace(setting.port, theirs)
    assert twinstep.match(theirs, ours).complete
    found = twinstep.prove(theirs, ours)
    assert found.verdict.same, str(found)


@pytest.mark.parametrize("port", PORTS)
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_a_right_port_is_called_the_same(port: str, dtype: str) -> None:
    check_honest(HonestPair(port, 1, dtype, PORTS[port].learning_rate, 12))


@pytest.mark.parametrize(("decay", "same"), [(0.99, True), (0.99 + 1e-9, False)])
def test_gradients_of_micro_steps_may_cancel(
    decay: float, same: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """RMSprop divides by them; how a sum rounds shows in the entry whose terms cancel, alone."""
    import torch

    def rmsprop(params: Any, lr: float, **_: Any) -> torch.optim.Optimizer:
        return torch.optim.RMSprop(params, lr=lr / 8)

    monkeypatch.setattr(torch.optim, "SGD", rmsprop)
    theirs = torch_trace("gru_dicts", 47, "float64")  # has such an entry
    with jax.enable_x64(True):
        parts = gru_dicts.Parts(
            rule=lambda s: optax.rmsprop(s, decay=decay, eps=1e-8, eps_in_sqrt=False)
        )
        ours = gru_dicts.train(theirs, parts)
    found = twinstep.prove(theirs, ours)
    assert found.verdict.same is same, str(found)


@pytest.mark.slow
@pytest.mark.parametrize("setting", [*honest()], ids=str)
def test_no_right_port_is_called_another(setting: HonestPair) -> None:
    check_honest(setting)
