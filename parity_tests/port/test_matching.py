"""Which leaf is which: what can be told is told, and nothing that could be several is chosen."""

import dataclasses

import ml_dtypes
import numpy as np
import pytest
from helpers.layouts import LAYOUTS, Arrays, Layout
from helpers.matching import assert_right, assert_told, normal, pair, trace

from twinstep import InputError, match
from twinstep.port import by_gradients

every_layout = pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)


# By values


@every_layout
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_every_layout_by_values(layout: Layout, dtype: str) -> None:
    start = normal(layout, 0, dtype)
    assert_told(match(start, layout.convert(start)), layout)


@every_layout
def test_ports_of_less_precision(layout: Layout) -> None:
    start = normal(layout, 0)
    ours = {n: np.asarray(a, "float32") for n, a in layout.convert(start).items()}
    assert_told(match(start, ours), layout)


WIDE = Layout(
    {"qkv.weight": (96, 32), "out.weight": (32, 32), "conv.weight": (16, 8, 3, 3)},
    lambda t: {
        **{
            x: t["qkv.weight"][32 * i : 32 * i + 32].T.reshape(32, 4, 8)
            for i, x in enumerate("qkv")
        },
        "out": t["out.weight"].T,
        "conv": t["conv.weight"].transpose(2, 3, 1, 0)[::-1, ::-1],
    },
)


def test_a_port_in_bfloat16_where_hardly_a_number_is_unique() -> None:
    start = normal(WIDE, 0, "float32")
    ours = {n: np.asarray(a, ml_dtypes.bfloat16) for n, a in WIDE.convert(start).items()}
    assert len(np.unique(ours["q"])) < ours["q"].size
    assert_told(match(start, ours), WIDE)


def test_a_port_that_keeps_some_leaves_in_float32() -> None:
    start = normal(WIDE, 0, "float32")
    ours = WIDE.convert(start)
    ours["q"] = np.asarray(ours["q"], ml_dtypes.bfloat16)
    assert_told(match(start, ours), WIDE)


def test_uniform_numbers_of_float32_many_of_them_equal() -> None:
    layout = Layout(
        {"w": (300, 200)},
        lambda t: {"top": t["w"][:100].T, "rest": t["w"][100:].reshape(2, 100, 200)},
    )
    start = {
        "w": (np.random.RandomState(0).randint(0, 2**15, (300, 200)) / 2**15).astype("float32")
    }
    assert_told(match(start, layout.convert(start)), layout)


@pytest.mark.parametrize("padding", [0, 3, 6])
def test_embeddings_with_a_padding_row(padding: int) -> None:
    layout = Layout(
        {"wte.weight": (7, 5)},
        lambda t: {"low": t["wte.weight"][:4].T, "high": t["wte.weight"][4:]},
    )
    start = normal(layout, 0)
    start["wte.weight"][padding] = 0
    assert_told(match(start, layout.convert(start)), layout)
    whole = LAYOUTS["tied"]
    assert_told(match(start, whole.convert(start)), whole)


def test_a_leaf_drawn_anew_is_open() -> None:
    layout = LAYOUTS["qkv by blocks"]
    start = normal(layout, 0)
    ours = layout.convert(start)
    for name in ("attn.k.bias", "attn.v.kernel"):
        changed = ours | {name: np.random.RandomState(5).standard_normal(ours[name].shape)}
        found = match(start, changed)
        assert found.open == {name: []}
        assert f"open: {name} is like nothing there" in found.lines()
        assert sum(found.unused.values()) == ours[name].size
        assert_right(found, layout)


def test_a_leaf_with_one_other_entry_is_told_by_most() -> None:
    """A fault in the port's start, which is for the judge to say."""
    layout = LAYOUTS["heads out"]
    start = normal(layout, 0)
    ours = {"a.kernel": layout.convert(start)["a.kernel"].copy()}
    ours["a.kernel"].flat[7] += 1e-9
    found = match(start, ours)
    assert_told(found, layout)
    assert found.by == {"a.kernel": "most values"}
    assert "a.kernel: by most values" in found.lines()
    ours["a.kernel"].flat[:20] += 1  # of 36
    assert match(start, ours).open == {"a.kernel": []}


def test_zeros_in_common_are_not_most_of_the_values() -> None:
    """Two leaves of zeros, but for a few numbers of which none is the other's."""
    start = {"w": np.array([0.0] * 12 + [1.5, 2.5, 3.5, 4.5, 5.5, 6.5])}
    ours = {"w": np.array([0.0] * 12 + [1.25, 2.25, 3.25, 4.25, 5.25, 6.25])}
    assert match(start, ours).open == {"w": []}
    ours["w"][12:17] = start["w"][12:17]
    assert match(start, ours).by == {"w": "most values"}


def test_a_leaf_that_pytorch_has_not() -> None:
    start = {"w": np.arange(6.0).reshape(2, 3)}
    found = match(start, {"kernel": start["w"].T, "extra": np.zeros(3)})
    assert found.open == {"extra": []}
    assert found.mapping.leaves.keys() == {"kernel"}


def test_traces_without_parameters_are_refused() -> None:
    with pytest.raises(InputError, match="PyTorch's trace has no parameters"):
        match({}, {"a": np.ones(2)})
    with pytest.raises(InputError, match="the port's trace has no parameters"):
        match({"a": np.ones(2)}, {})


# By gradients


CRITICS = Layout(
    {f"{q}.{n}": s for q in ("q1", "q2") for n, s in {"weight": (4, 5), "bias": (4,)}.items()},
    lambda t: {
        f"{q}.{own}": t[f"{q}.{n}"].T
        for q in ("q2", "q1")
        for own, n in {"kernel": "weight", "bias": "bias"}.items()
    },
)


def equal_critics() -> Arrays:
    """Both begin with the same."""
    start = normal(CRITICS, 0)
    return start | {name: start[name.replace("q2", "q1")] for name in start}


def test_equal_critics_are_told_by_gradients() -> None:
    theirs, ours = pair(CRITICS, equal_critics(), normal(CRITICS, 1), 1e-7)
    assert_told(match(theirs, ours), CRITICS)


def test_equal_critics_without_gradients_are_open_and_none_is_chosen() -> None:
    start = equal_critics()
    found = match(start, CRITICS.convert(start))
    assert found.mapping.leaves == {}
    assert found.open["q1.kernel"] == [
        "q1.weight with axes (1, 0)",
        "q2.weight with axes (1, 0)",
    ]


def test_equal_critics_with_equal_gradients_are_open() -> None:
    grads = normal(CRITICS, 1)
    grads |= {name: grads[name.replace("q2", "q1")] for name in grads}
    found = match(*pair(CRITICS, equal_critics(), grads, 1e-7))
    assert found.mapping.leaves == {}


@every_layout
def test_leaves_alike_are_told_by_gradients(layout: Layout) -> None:
    if layout.twice or layout.summed:
        pytest.skip("whose gradients are no converter's")
    start = {name: np.zeros(shape) for name, shape in layout.shapes.items()}
    assert_told(match(*pair(layout, start, normal(layout, 1), 1e-8)), layout)


@pytest.mark.parametrize("value", [np.eye(4), np.ones((4, 4)), np.full((4, 4), 0.5) + np.eye(4)])
def test_symmetric_leaves_are_told_by_gradients(value: np.ndarray) -> None:
    layout = LAYOUTS["square"]
    grads = normal(layout, 1)
    assert_told(match(*pair(layout, {"a.weight": value}, grads, 1e-7)), layout)
    same = {"a.weight": grads["a.weight"] + grads["a.weight"].T}
    for theirs, ours in (
        pair(layout, {"a.weight": value}, same),
        pair(layout, {"a.weight": value}, {"a.weight": np.zeros((4, 4))}),
    ):
        found = match(theirs, ours)
        assert found.open.keys() == {"a.kernel"}
        assert not found.mapping.leaves


def test_a_loss_that_is_summed_where_pytorchs_is_a_mean() -> None:
    """All gradients are four times as large; of two scalars too, of which any is any's multiple."""
    layout = Layout(
        {"w": (4, 5), "a": (), "b": (), "c": (2,)},
        lambda t: {"kernel": t["w"].T, "x": t["b"], "y": t["a"], "z": t["c"]},
    )
    start = normal(layout, 0) | {"a": np.zeros(()), "b": np.zeros(()), "c": np.zeros(2)}
    theirs, ours = pair(layout, start, normal(layout, 1), 1e-8)
    larger = {name: 4 * array for name, array in ours.raw_grads.items()}
    ours = dataclasses.replace(ours, raw_grads=larger, grads=dict(larger))
    assert_told(match(theirs, ours), layout)


def test_unrelated_gradients_tell_nothing() -> None:
    for seed in range(20):
        for layout in (LAYOUTS["stacked qkv"], LAYOUTS["scalars in one"], CRITICS):
            start = {name: np.zeros(shape) for name, shape in layout.shapes.items()}
            theirs, _ = pair(layout, start, normal(layout, seed))
            _, ours = pair(layout, start, normal(layout, seed + 1000))
            found = match(theirs, ours)
            assert found.mapping.leaves == {}, found.lines()
            assert found.open.keys() == ours.params.keys()


def test_a_bias_without_gradient_goes_where_its_weight_goes() -> None:
    """The keys' bias moves no softmax: it begins at 0 and its gradient is rounding alone."""
    layout = LAYOUTS["qkv by blocks"]
    start = normal(layout, 0) | {"attn.qkv.bias": np.zeros(18)}
    grads = normal(layout, 1)
    grads["attn.qkv.bias"][6:12] = 0
    theirs, ours = pair(layout, start, grads, 1e-8)
    noise = np.random.RandomState(3).standard_normal((2, 3)) * 1e-17
    ours.raw_grads["attn.k.bias"][0] = noise
    found = match(theirs, ours)
    assert_told(found, layout)
    assert found.by["attn.k.bias"] == "what is left"
    assert "attn.k.bias: by what is left" in found.lines()


def test_two_biases_of_one_layer_without_gradient_are_open() -> None:
    layout = Layout(
        {"l.weight": (4, 5), "l.bias": (4,), "l.gain": (4,)},
        lambda t: {"l.kernel": t["l.weight"].T, "l.bias": t["l.bias"], "l.gain": t["l.gain"]},
    )
    start = normal(layout, 0) | {"l.bias": np.zeros(4), "l.gain": np.zeros(4)}
    grads = normal(layout, 1) | {"l.bias": np.zeros(4), "l.gain": np.zeros(4)}
    found = match(*pair(layout, start, grads))
    assert found.open.keys() == {"l.bias", "l.gain"}


def test_a_bias_drawn_anew_goes_nowhere() -> None:
    """Though the layer leaves one place for it."""
    layout = LAYOUTS["qkv by blocks"]
    theirs, ours = pair(layout, normal(layout, 0), normal(layout, 1))
    ours.params["attn.k.bias"][:] = 0.25
    assert match(theirs, ours).open == {"attn.k.bias": []}


def test_forget_gates_of_one() -> None:
    """Ones and zeros in another order: the same numbers, told by their gradients."""
    layout = LAYOUTS["lstm in keras's order"]
    start = normal(layout, 0)
    for name in ("rnn.bias_ih_l0", "rnn.bias_hh_l0"):
        start[name][:] = np.repeat([0.0, 1.0, 0.0, 0.0], 4)
    assert_told(match(*pair(layout, start, normal(layout, 1), 1e-8)), layout)


def test_one_bias_of_ones_and_zeros_in_another_order() -> None:
    """Its numbers fit as they are, and that is not where its entries come from."""
    layout = Layout({"b": (16,)}, lambda t: {"b": np.roll(t["b"].reshape(4, 4), 1, 0).reshape(-1)})
    start = {"b": np.repeat([1.0, 0.0, 1.0, 0.0], 4)}
    swapped = Layout({"b": (16,)}, lambda t: {"b": t["b"].reshape(4, 4)[[2, 1, 0, 3]].reshape(-1)})
    for one in (layout, swapped):
        assert_told(match(*pair(one, start, normal(one, 1), 1e-8)), one)
    assert match(start, swapped.convert(start)).open == {"b": ["b"]}


def test_another_leaf_of_the_layer_may_be_it_just_as_well() -> None:
    layout = LAYOUTS["qkv by blocks"]
    start = normal(layout, 0) | {"attn.qkv.bias": np.zeros(18)}
    grads = normal(layout, 1) | {"attn.qkv.bias": np.zeros(18)}
    theirs, ours = pair(layout, start, grads)
    assert match(theirs, ours).complete
    extra = trace(
        {n: a[0] for n, a in ours.params.items()} | {"attn.k.extra": np.zeros((2, 3))},
        {n: a[0] for n, a in ours.raw_grads.items()} | {"attn.k.extra": np.zeros((2, 3))},
    )
    found = match(theirs, extra)
    assert found.open.keys() == {"attn.k.bias", "attn.k.extra"}
    assert_right(found, layout)


def test_a_layers_ones_and_zeros_without_gradients_are_told_by_what_they_are() -> None:
    layout = Layout(
        {"l.weight": (4, 5), "l.bias": (4,), "l.gain": (4,)},
        lambda t: {"l.kernel": t["l.weight"].T, "l.bias": t["l.bias"], "l.gain": t["l.gain"]},
    )
    start = normal(layout, 0) | {"l.bias": np.zeros(4), "l.gain": np.ones(4)}
    assert_told(match(start, layout.convert(start)), layout)


def test_the_first_of_equals_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted: a matcher that takes the first candidate; what is above notices."""
    monkeypatch.setattr(by_gradients, "_clear", lambda *_: True)
    with pytest.raises(AssertionError):
        test_equal_critics_with_equal_gradients_are_open()
    with pytest.raises(AssertionError):
        test_symmetric_leaves_are_told_by_gradients(np.eye(4))
