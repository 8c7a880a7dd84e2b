"""A mapping moves numbers there and back, bit for bit, whatever the layout and whose arrays."""

import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch
from helpers.layouts import LAYOUTS, Arrays, Layout

from twinstep import InputError, Mapping, load_mapping, match
from twinstep.port import pieces
from twinstep.port.pieces import Piece, whole_piece

every_layout = pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)


def drawn(layout: Layout, seed: int = 0, *lead: int) -> Arrays:
    """PyTorch's arrays, of numbers of which no two are the same."""
    draws = np.random.RandomState(seed)
    return {n: draws.standard_normal((*lead, *shape)) for n, shape in layout.shapes.items()}


def mapping_of(layout: Layout) -> Mapping:
    """Found by values."""
    found = match(drawn(layout), layout.convert(drawn(layout)))
    assert found.complete, found.lines()
    return found.mapping


def assert_same(found: Any, expected: Any) -> None:
    """The same names, shapes and bits."""
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        one, other = np.asarray(found[name]), np.asarray(array)
        assert (one.shape, one.dtype) == (other.shape, other.dtype), name
        assert one.tobytes() == other.tobytes(), name


@every_layout
def test_there_and_back(layout: Layout) -> None:
    mapping, other = mapping_of(layout), drawn(layout, 1)
    assert_same(mapping.to_jax(other), layout.convert(other))
    back = mapping.to_torch(layout.convert(other))
    if layout.summed:  # the sum has to be the same, and which has it is free
        assert_same(layout.convert(back), layout.convert(other))
    else:
        assert_same(back, other)


@every_layout
def test_gradients_are_pytorchs(layout: Layout) -> None:
    """By the chain rule: of sum(c * leaf) a leaf's gradient is c; PyTorch's by autograd."""
    mapping = mapping_of(layout)
    theirs = {n: jnp.asarray(a, jnp.float32) for n, a in drawn(layout).items()}
    ours = {n: np.asarray(a, np.float32) for n, a in layout.convert(drawn(layout, 3)).items()}

    def total(named: Any) -> jax.Array:
        leaves = mapping.to_jax(named)
        return sum((jnp.sum(leaves[n] * ours[n]) for n in leaves), jnp.zeros(()))

    assert_same(mapping.to_torch(ours, gradients=True), jax.grad(total)(theirs))


@every_layout
def test_axes_in_front(layout: Layout) -> None:
    mapping, many = mapping_of(layout), drawn(layout, 1, 3, 2)
    moved = mapping.to_jax(many, lead=2)
    for i, j in np.ndindex(3, 2):
        row = {name: array[i, j] for name, array in many.items()}
        assert_same({n: a[i, j] for n, a in moved.items()}, layout.convert(row))
    if not layout.summed:
        assert_same(mapping.to_torch(moved, lead=2), many)


@every_layout
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_jax_arrays_and_what_jit_traces(layout: Layout, dtype: str) -> None:
    mapping = mapping_of(layout)
    named = {name: jnp.asarray(array, dtype) for name, array in drawn(layout, 1).items()}
    for of_jax, of_torch in (
        (mapping.to_jax, mapping.to_torch),
        (jax.jit(mapping.to_jax), jax.jit(mapping.to_torch)),
    ):
        leaves = of_jax(named)
        assert all(isinstance(leaf, jax.Array) for leaf in leaves.values())
        if not layout.summed:
            assert_same(leaves, layout.convert({n: np.asarray(a) for n, a in named.items()}))
            assert_same(of_torch(leaves), named)


@every_layout
def test_pytorchs_tensors(layout: Layout) -> None:
    mapping, other = mapping_of(layout), drawn(layout, 1)
    leaves = mapping.to_jax({name: torch.tensor(array) for name, array in other.items()})
    assert all(isinstance(leaf, torch.Tensor) for leaf in leaves.values())
    assert_same(leaves, layout.convert(other))
    if not layout.summed:
        assert_same(mapping.to_torch(leaves), other)


@every_layout
def test_the_file_keeps_all(layout: Layout, tmp_path: Path) -> None:
    mapping = mapping_of(layout)
    mapping.save(tmp_path / "map.json")
    assert load_mapping(tmp_path / "map.json") == mapping
    text = (tmp_path / "map.json").read_text()
    assert all(text.count(f"\n    {json.dumps(leaf)}: ") == 1 for leaf in mapping.leaves)


def test_what_is_held_twice_and_what_is_summed() -> None:
    assert mapping_of(LAYOUTS["tied"]).twice == {"wte.weight": ["wte.embedding", "head.kernel"]}
    summed = mapping_of(LAYOUTS["lstm in one kernel"]).summed
    assert summed == {"cell.bias": ["rnn.bias_ih_l0", "rnn.bias_hh_l0"]}


def test_signs_of_zero_and_nan_come_through() -> None:
    layout = LAYOUTS["lstm in one kernel"]
    odd = layout.convert(drawn(layout, 1))
    odd["cell.bias"][:4] = np.nan, np.inf, -0.0, 0.0
    back = mapping_of(layout).to_torch(odd)
    assert back["rnn.bias_ih_l0"].tobytes() == odd["cell.bias"].tobytes()
    assert not back["rnn.bias_hh_l0"].any()  # and no NaN


def test_a_tensor_of_which_a_part_is_open_is_not_made() -> None:
    layout = LAYOUTS["qkv by blocks"]
    mapping, leaves = mapping_of(layout), layout.convert(drawn(layout))
    del leaves["attn.k.kernel"]
    assert mapping.to_torch(leaves).keys() == {"attn.qkv.bias"}
    less = Mapping(
        {n: p for n, p in mapping.leaves.items() if n != "attn.k.kernel"},
        mapping.shapes,
        mapping.torch_shapes,
    )
    assert less.unused == {"attn.qkv.weight": 36}
    assert less.to_torch(leaves).keys() == {"attn.qkv.bias"}


def test_a_part_that_is_held_twice_in_other_views_is_added() -> None:
    """A tied embedding whose head is in two leaves: their views are not the embedding's."""
    whole = whole_piece("wte", (4, 6), (4, 6), (0, 1))
    halves = [
        Piece("wte", (4, 2, 3), ((0, 4), (i, i + 1), (0, 3)), (0, 1, 2), ((0, 4), (0, 3)))
        for i in range(2)
    ]
    mapping = Mapping(
        {"wte": (whole,), "left": (halves[0],), "right": (halves[1],)},
        {"wte": (4, 6), "left": (4, 3), "right": (4, 3)},
        {"wte": (4, 6)},
    )
    value = np.random.RandomState(0).standard_normal((4, 6))
    leaves = mapping.to_jax({"wte": value})
    assert_same(mapping.to_torch(leaves), {"wte": value})
    assert_same(mapping.to_torch(leaves, gradients=True), {"wte": 2 * value})


def test_arrays_of_other_shapes_are_refused() -> None:
    mapping = mapping_of(LAYOUTS["transpose"])
    with pytest.raises(InputError, match=r"a.weight has shape \(5, 4\), the mapping has \(4, 5\)"):
        mapping.to_jax({"a.weight": np.zeros((5, 4))})
    with pytest.raises(InputError, match="none of the given names of PyTorch's"):
        mapping.to_jax({"b": np.zeros(2)})
    with pytest.raises(InputError, match="all of none of PyTorch's tensors"):
        mapping.to_torch({"b": np.zeros(2)})


# Planted faults


@pytest.mark.parametrize(
    ("name", "plant", "layout", "test"),
    [
        ("_flipped", lambda piece, seen, lead: seen, "conv transpose", test_there_and_back),
        ("uncut", lambda piece, box, lead: box, "square", test_there_and_back),
        ("cut", lambda piece, array, lead: array.T, "conv2d", test_there_and_back),
    ],
)
def test_a_fault_in_a_piece_is_noticed(
    name: str, plant: Any, layout: str, test: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    mapping = mapping_of(LAYOUTS[layout])
    monkeypatch.setattr(f"{__name__}.mapping_of", lambda _: mapping)
    test(LAYOUTS[layout])
    monkeypatch.setattr(Piece, name, plant)
    with pytest.raises(AssertionError):
        test(LAYOUTS[layout])


def test_a_gradient_that_is_not_added_up_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    put = pieces.put
    monkeypatch.setattr("twinstep.port.mapping.put", lambda *given, add: put(*given, add=False))
    with pytest.raises(AssertionError):
        test_gradients_are_pytorchs(LAYOUTS["tied"])


# Optimizer state


class Fused(torch.nn.Module):
    """A fused projection and a layer."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.out = torch.nn.Linear(6, 9), torch.nn.Linear(3, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = self.qkv(x).chunk(3, -1)
        return self.out(torch.sigmoid(q) * k + v)


def apply(params: Any, x: jax.Array) -> jax.Array:
    """The same with q, k and v apart."""
    q, k, v = (x @ params[name]["kernel"] + params[name]["bias"] for name in "qkv")
    return (jax.nn.sigmoid(q) * k + v) @ params["out"]["kernel"] + params["out"]["bias"]


def nested(leaves: dict[str, Any]) -> Any:
    """By two names."""
    made: dict[str, dict[str, Any]] = {}
    for name, leaf in leaves.items():
        layer, _, kind = name.partition(".")
        made.setdefault(layer, {})[kind] = leaf
    return made


def converted(named: Any) -> dict[str, np.ndarray]:
    """The port's own converter."""
    rows = [slice(3 * i, 3 * i + 3) for i in range(3)]
    made = {f"{x}.kernel": named["qkv.weight"][r].T for x, r in zip("qkv", rows, strict=True)}
    made |= {f"{x}.bias": named["qkv.bias"][r] for x, r in zip("qkv", rows, strict=True)}
    return made | {"out.kernel": named["out.weight"].T, "out.bias": named["out.bias"]}


def test_a_training_goes_on_in_the_other_framework() -> None:
    """Adam's state, from PyTorch to optax and back: all as if it had not moved."""
    torch.manual_seed(0)
    model = Fused().double()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    x, y = torch.randn(8, 6).double(), torch.randn(8, 2).double()

    def train(steps: int) -> None:
        for _ in range(steps):
            optimizer.zero_grad()
            torch.nn.functional.mse_loss(model(x), y).backward()
            optimizer.step()

    def params() -> dict[str, np.ndarray]:
        return {name: p.detach().numpy().copy() for name, p in model.named_parameters()}

    def state() -> dict[str, np.ndarray]:
        names = {id(p): name for name, p in model.named_parameters()}
        return {
            f"{names[id(p)]}.{kind}": value.numpy().copy()
            for p, of_it in optimizer.state.items()
            for kind, value in of_it.items()
        }

    mapping = match(params(), converted(params())).mapping
    train(3)
    with jax.enable_x64(True):
        named = mapping.opt_state_to_jax(state())
        assert named.keys() == {"exp_avg", "exp_avg_sq"}
        tx = optax.adam(0.01)
        ours = nested(mapping.to_jax(params()))
        start: Any = tx.init(ours)
        adam = start[0]._replace(
            count=jnp.asarray(3), mu=nested(named["exp_avg"]), nu=nested(named["exp_avg_sq"])
        )
        opt_state: Any = (adam, *start[1:])

        def loss_fn(params: Any) -> jax.Array:
            return jnp.mean((apply(params, jnp.asarray(x.numpy())) - y.numpy()) ** 2)

        for _ in range(2):
            updates, opt_state = tx.update(jax.grad(loss_fn)(ours), opt_state, ours)
            ours = optax.apply_updates(ours, updates)
        back = mapping.opt_state_to_torch(
            {"exp_avg": opt_state[0].mu, "exp_avg_sq": opt_state[0].nu}
        )
        moved = mapping.to_torch(ours)
    train(2)
    theirs = {key: array for key, array in state().items() if not key.endswith("step")}
    assert back.keys() == theirs.keys()
    for key, array in theirs.items():  # two steps of float64
        np.testing.assert_allclose(back[key], array, rtol=1e-11, atol=1e-16)
    for name, array in params().items():
        np.testing.assert_allclose(moved[name], array, rtol=1e-12)


@every_layout
def test_state_of_any_layout(layout: Layout) -> None:
    """State is a gradient's: of what is added, either's; of what is held twice, one's."""
    mapping = mapping_of(layout)
    ours = layout.convert(drawn(layout, 5))
    if layout.twice:
        ours = mapping.to_jax(drawn(layout, 5))
    back = mapping.opt_state_to_torch({"exp_avg": ours, "exp_avg_sq": ours}, lead=0)
    assert back.keys() == {f"{n}.{k}" for n in layout.shapes for k in ("exp_avg", "exp_avg_sq")}
    assert_same(mapping.opt_state_to_jax(back)["exp_avg_sq"], ours)


def test_state_of_another_shape_is_refused() -> None:
    mapping = mapping_of(LAYOUTS["transpose"])
    with pytest.raises(InputError, match=r"a.weight has shape \(4,\), the mapping has \(4, 5\)"):
        mapping.opt_state_to_jax({"a.weight.row_var": np.zeros(4)})
    with pytest.raises(InputError, match="none of the given optimizer state's names"):
        mapping.opt_state_to_jax({"b.exp_avg": np.zeros(4), "a.weight.step": np.array(1.0)})
