"""Each fault of a first loss or gradient is named, and nothing else is: of drawn traces."""

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest

from port.drawn_traces import (
    SAMPLES,
    drawn,
    first,
    found,
    kinds,
    roughly,
    with_grads,
    with_losses,
)
from twinstep.port.causes.first_causes import causes_of, summed_biases
from twinstep.port.mapping import Mapping, Piece, whole
from twinstep.port.sides import Side
from twinstep.trace.ledger import Trace

Change = Callable[[np.ndarray], np.ndarray]

_rng = np.random.default_rng(7)


def scaled(factor: float) -> Callable[[str, np.ndarray], np.ndarray]:
    return lambda name, grad: factor * grad


@pytest.mark.parametrize(
    ("factor", "kind", "says"),
    [
        (SAMPLES, "sum for mean", "the number of samples"),
        (1 / SAMPLES, "mean for sum", "1 / the number of samples"),
        (5, "sum for mean", "the number of outputs of a sample"),
        (6 / 5, "loss scaled", "samples / outputs of a sample"),
        (2, "loss scaled", "a 1/2"),
        (0.37, "loss scaled", "none of the batch's sizes"),
    ],
)
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_loss_and_gradients_by_one_factor(factor: float, kind: str, says: str, dtype: str) -> None:
    torch = drawn(dtype)
    jax = with_losses(with_grads(torch, scaled(factor)), lambda loss: factor * loss)
    causes = found(torch, jax, "loss", 1, "loss")
    assert kinds(causes) == [kind]
    assert says in causes[0].says
    assert causes[0].values["factor"] == pytest.approx(factor, rel=1e-6)


def test_gradients_by_a_factor_beside_a_right_loss() -> None:
    torch = drawn()
    (cause,) = found(torch, with_grads(torch, scaled(1024)), "raw_grads", 1, "square.weight")
    assert (cause.kind, "the loss is the same" in cause.says) == ("gradients scaled", True)
    (cause,) = found(torch, with_grads(torch, scaled(-1)), "raw_grads", 1, "square.weight")
    assert cause.kind == "negative"


def test_micro_batches_are_known() -> None:
    torch = drawn()
    micro = dataclasses.replace(
        torch,
        micro_losses={"loss": np.repeat(torch.losses, 3)},
        rows={"micro_losses/loss": np.repeat(np.arange(len(torch)), 3)},
    )
    jax = with_losses(with_grads(micro, scaled(3)), lambda loss: 3 * loss)
    (cause,) = found(micro, jax, "loss", 1, "loss")
    assert "the number of micro-batches" in cause.says


@pytest.mark.parametrize(("of", "kind"), [(np.asarray, "L2"), (np.sign, "L1")])
@pytest.mark.parametrize("in_loss", [True, False])
def test_decay_in_the_gradient(of: Change, kind: str, in_loss: bool) -> None:
    torch = drawn()
    jax = with_grads(torch, lambda name, grad: grad + 0.05 * of(torch.params[name][:-1]))
    if in_loss:
        norm = np.abs if kind == "L1" else (lambda p: p * p / 2)
        more = 0.05 * sum(norm(array[0]).sum() for array in torch.params.values())
        jax = with_losses(jax, lambda loss: loss + more)
    (cause,) = found(torch, jax, "loss" if in_loss else "raw_grads", 1, "loss")
    assert cause.kind == "decay in the gradient"
    assert cause.values["weight_decay"] == pytest.approx(0.05)
    assert (kind in cause.says, "not in the loss" in cause.says) == (True, not in_loss)


def test_decay_of_some_leaves_and_of_the_optimizer_again() -> None:
    torch = drawn()
    torch = dataclasses.replace(
        torch, hyper_parameters={"0.weight_decay": np.full(len(torch), 0.1)}
    )
    jax = with_grads(
        torch, lambda n, g: g + 0.1 * torch.params[n][:-1] if n == "square.weight" else g
    )
    (cause,) = found(torch, jax, "raw_grads", 1, "square.weight")
    assert "those of square.weight alone" in cause.says
    assert "PyTorch's optimizer decays by 0.1 itself" in cause.says


def test_gradients_clipped_before_they_are_recorded() -> None:
    torch = drawn()
    norm = np.sqrt(sum((grads[0] ** 2).sum() for grads in torch.raw_grads.values()))
    (cause,) = found(
        torch, with_grads(torch, scaled(1.5 / (norm + 1e-6))), "raw_grads", 1, "square.weight"
    )
    assert (cause.kind, cause.values) == ("clipped before recording", {"max_norm": 1.5})
    jax = with_grads(torch, lambda name, grad: grad.clip(-0.4, 0.4))
    (cause,) = found(torch, jax, "raw_grads", 1, "square.weight")
    assert (cause.kind, cause.values["clip_value"]) == ("clipped before recording", 0.4)
    jax = with_grads(torch, lambda _, g: g * min(1, 2 / np.linalg.norm(g[0])))
    (cause,) = found(torch, jax, "raw_grads", 1, "square.weight")
    assert cause.kind == "clipped before recording"
    assert cause.says.startswith("each leaf's")


SOME: list[tuple[str, Change, str]] = [
    ("no gradient", np.zeros_like, "square.weight and twin.weight have no gradient"),
    ("gradients of some leaves scaled", lambda g: 0.5 * g, "times 0.5"),
    ("negative", np.negative, "other sign"),
    ("transposed", lambda g: g.swapaxes(1, 2), "PyTorch's transposed, though"),
    ("rounded", lambda g: g.astype(np.float16).astype(float), "float16"),
]


@pytest.mark.parametrize(("kind", "change", "says"), SOME)
def test_gradients_of_some_leaves(kind: str, change: Change, says: str) -> None:
    torch = drawn()
    some = ("square.weight", "twin.weight")
    jax = with_grads(torch, lambda name, grad: change(grad) if name in some else grad)
    (cause,) = found(torch, jax, "raw_grads", 1, some[0])
    assert cause.kind == kind
    assert says in cause.says


LOSSES: list[tuple[str, Callable[[Trace], Change]]] = [
    ("loss scaled", lambda torch: lambda loss: 1.3 * loss),
    ("loss shifted", lambda torch: lambda loss: loss + 0.25),
    ("loss of another step", lambda torch: lambda loss: np.roll(loss, -1)),
    (
        "penalty in the loss shown",
        lambda torch: (
            lambda loss: (
                loss
                + 0.01
                * sum((a[:-1].reshape(len(loss), -1) ** 2).sum(1) for a in torch.params.values())
            )
        ),
    ),
]


@pytest.mark.parametrize(("kind", "change"), LOSSES)
def test_a_loss_that_is_shown_otherwise(kind: str, change: Callable[[Trace], Change]) -> None:
    torch = drawn()
    causes = found(torch, with_losses(roughly(torch), change(torch)), "loss", 1, "loss")
    assert kinds(causes) == [kind]


def test_the_loss_of_one_micro_batch() -> None:
    torch = drawn()
    parts = torch.losses[:, None] + [[-0.5, 0.2, 0.3]] * np.linspace(1, 2, len(torch))[:, None]
    rows = {"micro_losses/loss": np.repeat(np.arange(len(torch)), 3)}
    torch = dataclasses.replace(torch, micro_losses={"loss": parts.ravel()}, rows=rows)
    jax = dataclasses.replace(torch, losses=parts[:, -1])
    assert kinds(found(torch, jax, "loss", 1, "loss")) == ["loss of a micro-batch"]


UNKNOWN: list[Callable[[Trace], Trace]] = [
    roughly,
    lambda torch: with_grads(torch, lambda _, g: g + 1e-3 * _rng.normal(size=g.shape)),
    lambda torch: with_grads(torch, lambda name, g: g * (1 + 1e-3 * _rng.normal())),
    lambda torch: with_grads(torch, lambda name, g: g + 1e-3 * g**2),
    lambda torch: with_losses(torch, lambda loss: loss + _rng.normal(size=loss.shape)),
    lambda torch: with_grads(torch, lambda _, g: np.full_like(g, np.nan)),
]


@pytest.mark.parametrize("change", UNKNOWN)
@pytest.mark.parametrize("stage", ["loss", "raw_grads"])
def test_honest_and_unknown_gradients_have_no_cause(
    change: Callable[[Trace], Trace], stage: str
) -> None:
    torch = drawn()
    assert not found(torch, change(torch), stage, 1, "loss")


def mapped(torch: Trace, axes: dict[str, tuple[int, ...]]) -> Mapping:
    shapes = {name: array.shape[1:] for name, array in torch.params.items()}
    leaves, own = {}, {}
    for name, shape in shapes.items():
        order = axes.get(name, tuple(range(len(shape)))[::-1])
        own[name] = tuple(shape[axis] for axis in order)
        leaves[name] = (Piece(name, shape, whole(shape), order, whole(own[name])),)
    return Mapping(leaves, own, shapes)


def test_a_leaf_that_lies_otherwise_than_its_like_is_a_candidate() -> None:
    torch = drawn()
    mapping = mapped(torch, {"square.weight": (0, 1)})
    start = mapping.to_jax(torch.params, lead=1)
    grads = mapping.to_jax(torch.raw_grads, lead=1)
    jax = dataclasses.replace(torch, params=start, raw_grads=grads, grads=grads)
    jax = with_grads(jax, lambda _, g: g + 1e-3 * _rng.normal(size=g.shape))
    causes = causes_of(Side(torch), Side(jax, mapping), first("loss", 1, "loss"))
    assert kinds(causes) == ["candidate: layout"]
    assert causes[0].says == (
        "perhaps: square.weight lies as PyTorch has it, "
        "the other leaves called weight are transposed"
    )
    right = Side(jax, mapped(torch, {}))
    assert not causes_of(Side(torch), right, first("loss", 1, "loss"))


def test_what_is_summed_is_said_of_later_steps() -> None:
    torch = drawn()
    of = ("gru.bias_ih_l0", "gru.bias_hh_l0")
    pieces = tuple(Piece(name, (12,), ((0, 12),), (0,), ((0, 12),)) for name in of)
    mapping = Mapping({"bias": pieces}, {"bias": (12,)}, dict.fromkeys(of, (12,)))
    (cause,) = summed_biases(Side(torch, mapping))
    assert cause.values == {"speed": 0.5}
    assert causes_of(Side(torch), Side(torch, mapping), first("loss", 4, "loss")) == [cause]
    assert not summed_biases(Side(torch))


def test_float32_in_a_float64_run_is_a_candidate() -> None:
    torch = drawn()
    jax = with_grads(torch, lambda _, g: g * (1 + 1e-7 * _rng.uniform(-1, 1, g.shape)))
    (cause,) = found(torch, jax, "raw_grads", 1, "square.weight")
    assert cause.kind == "candidate: single precision"
    jax = with_grads(torch, lambda _, g: g * (1 + 1e-5 * _rng.uniform(-1, 1, g.shape)))
    assert not found(torch, jax, "raw_grads", 1, "square.weight")
    assert not found(torch, with_losses(jax, lambda loss: 1.1 * loss), "loss", 1, "loss")
