"""Parametrizations of one's own, set, removed, handed on; copies, caches, what is refused.

Those that PyTorch has are in test_parametrizations.
"""

import copy
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx
from helpers.computed_weights import (
    F64,
    Made,
    differences,
    in_kit,
    in_pytorch,
    numbers,
)

from twinstep import InputError
from twinstep.jax import nn

pytestmark = [pytest.mark.quick_to_compile, pytest.mark.usefixtures("x64")]

P, TP = nn.utils.parametrize, torch.nn.utils.parametrize
LINEAR = "Linear", (3, 5), (2, 3)
WIDE = "Linear", (5, 3), (2, 5)
SQUARE = "Linear", (4, 4), (2, 4)
CONV = "Conv2d", (4, 6, 2), (1, 4, 3, 3)
TURNED = "ConvTranspose1d", (4, 6, 3), (1, 4, 3)
LSTM = "LSTM", (3, 4), (3, 2, 3)
ATTENTION = "MultiheadAttention", (4, 2), (3, 2, 4)
MADE = {
    "weight": Made(*LINEAR, "parametrizations.weight_norm"),
    "spectral": Made(*LINEAR, "parametrizations.spectral_norm"),
    "spectral-lstm": Made(*LSTM, "parametrizations.spectral_norm", "weight_hh_l0"),
    "square": Made(*SQUARE, "parametrizations.orthogonal"),
}


# ------------------------------------------------------------------------------- one's own


class Symmetric(nn.Module):
    """The upper triangle on both sides."""

    def forward(self, x: Any) -> Any:
        return jnp.triu(x) + jnp.triu(x, 1).T

    def right_inverse(self, x: Any) -> Any:
        return jnp.triu(x)


class Doubled(nn.Module):
    """Times a number of its own."""

    def __init__(self) -> None:
        self.factor = nn.Parameter(jnp.array(2.0))

    def forward(self, x: Any) -> Any:
        return x * self.factor[...]

    def right_inverse(self, x: Any) -> Any:
        return x / self.factor[...]


class Product(nn.Module):
    """Of a column and a row."""

    def forward(self, x: Any, y: Any) -> Any:
        return x[:, None] * y

    def right_inverse(self, z: Any) -> Any:
        return z[:, 0], z[0] / z[0, 0]


class TorchSymmetric(torch.nn.Module):
    def forward(self, x: Any) -> Any:
        return x.triu() + x.triu(1).T

    def right_inverse(self, x: Any) -> Any:
        return x.triu()


class TorchDoubled(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.factor = torch.nn.Parameter(torch.tensor(2.0, **F64))

    def forward(self, x: Any) -> Any:
        return x * self.factor

    def right_inverse(self, x: Any) -> Any:
        return x / self.factor


class TorchProduct(torch.nn.Module):
    def forward(self, x: Any, y: Any) -> Any:
        return x[:, None] * y

    def right_inverse(self, z: Any) -> Any:
        return z[:, 0], z[0] / z[0, 0]


PAIRS: dict[str, tuple[list[Any], list[Any]]] = {
    "one": ([Symmetric], [TorchSymmetric]),
    "two": ([Symmetric, Doubled], [TorchSymmetric, TorchDoubled]),
    "several originals": ([Product], [TorchProduct]),
    "several, then one": ([Product, Doubled], [TorchProduct, TorchDoubled]),
}


def pair(name: str) -> tuple[Any, Any]:
    """PyTorch's layer and the kit's, with the same parametrizations."""
    torch.manual_seed(0)
    nn.manual_seed(0)
    theirs, ours = torch.nn.Linear(4, 4, **F64), nn.Linear(4, 4)
    for kind, other in zip(*PAIRS[name], strict=True):
        P.register_parametrization(ours, "weight", kind())
        TP.register_parametrization(theirs, "weight", other())
    return theirs, ours


@pytest.mark.parametrize("jit", [False, True])
@pytest.mark.parametrize("name", PAIRS)
def test_parametrizations_of_ones_own(name: str, jit: bool) -> None:
    theirs, ours = pair(name)
    assert differences(MADE["square"], jit=jit, theirs=theirs, ours=ours) == []


@pytest.mark.parametrize("name", PAIRS)
def test_a_value_goes_through_right_inverse(name: str) -> None:
    theirs, ours = pair(name)
    value = numbers(4, 4)
    theirs.weight = torch.tensor(value)
    ours.weight = jnp.asarray(value)
    assert differences(MADE["square"], theirs=theirs, ours=ours) == []


@pytest.mark.parametrize("made", ["spectral", "weight"])
@pytest.mark.parametrize("leave", [True, False])
def test_they_are_removed_as_in_pytorch(made: str, leave: bool) -> None:
    theirs, ours = in_pytorch(MADE[made]), in_kit(MADE[made])
    kept = ours.parametrizations.weight.originals()[0]
    if made == "weight" and not leave:
        with pytest.raises(ValueError, match="leave_parametrized"):
            TP.remove_parametrizations(theirs, "weight", leave)
        with pytest.raises(InputError, match="computed of 2 arrays"):
            P.remove_parametrizations(ours, "weight", leave)
        return
    TP.remove_parametrizations(theirs, "weight", leave)
    P.remove_parametrizations(ours, "weight", leave)
    assert not P.is_parametrized(ours)
    assert (ours.weight is kept) == (made == "spectral"), "an optimizer has it"
    assert [name for name, _ in ours.named_parameters()] == ["bias", "weight"]
    assert differences(MADE[made], theirs=theirs, ours=ours) == []


def test_a_tied_weight_stays_tied() -> None:
    one: Any = nn.Linear(3, 3)
    two = nn.Linear(3, 3)
    two.weight = one.weight
    P.register_parametrization(one, "weight", Symmetric())
    assert one.parametrizations.weight.original is two.weight
    np.testing.assert_array_equal(two.weight[...], jnp.triu(two.weight[...]))


def test_those_of_a_module_are_given_to_another() -> None:
    found = {}
    for home, made in ((nn, in_kit), (torch.nn, in_pytorch)):
        layer = made(MADE["spectral"])
        other = home.Linear(3, 5) if home is nn else home.Linear(3, 5, **F64)
        home.utils.parametrize.transfer_parametrizations_and_params(layer, other)
        found[home.__name__] = other
        given = layer.parametrizations["weight"].original
        assert other.parametrizations["weight"].original is given
    ours, theirs = found["twinstep.jax.nn"], found["torch.nn"]
    nn.load_state_dict(ours, {n: a.detach().numpy() for n, a in theirs.state_dict().items()})
    assert differences(MADE["spectral"], theirs=theirs, ours=ours) == []


# ------------------------------------------------------------------------------- copies, caches


def test_a_copy_is_its_own() -> None:
    ours = in_kit(MADE["spectral"])
    copied = copy.deepcopy(ours)
    before = nn.state_dict(ours)
    copied.weight = jnp.ones((5, 3))
    copied(jnp.ones((2, 3)))
    for name, array in nn.state_dict(ours).items():
        np.testing.assert_array_equal(array, before[name])
    assert not np.array_equal(copied.parametrizations.weight.original[...], before["bias"])


def test_split_and_merge_keep_it() -> None:
    ours = in_kit(MADE["spectral"])
    graph, state = nnx.split(ours)

    @jax.jit
    def called(state: Any, x: Any) -> Any:
        layer = nnx.merge(graph, state)
        return layer(x), nnx.state(layer)

    output, state = called(state, jnp.ones((2, 3)))
    wanted = ours(jnp.ones((2, 3)))
    np.testing.assert_allclose(output, wanted, rtol=1e-13)
    assert list(nn.state_dict(nnx.merge(graph, state))) == list(nn.state_dict(ours))


def test_cached_computes_once() -> None:
    """And the vectors of a spectral norm take one step, as PyTorch's do."""
    theirs, ours = in_pytorch(MADE["spectral-lstm"]), in_kit(MADE["spectral-lstm"])
    x = numbers(3, 2, 3)
    with TP.cached(), P.cached():
        first = ours.weight_hh_l0
        theirs(torch.tensor(x))
        ours(jnp.asarray(x))
        assert ours.weight_hh_l0 is first
    assert differences(MADE["spectral-lstm"], theirs=theirs, ours=ours) == []


def test_what_is_cached_in_a_trace_stays_there() -> None:
    ours = in_kit(MADE["weight"])
    x = jnp.ones((2, 3))
    with P.cached():
        compiled = jax.jit(lambda x: ours(x) + ours(x))(x)
        np.testing.assert_allclose(compiled, 2 * ours(x), rtol=1e-13)


# ------------------------------------------------------------------------------- what is refused


class Grown(nn.Module):
    def forward(self, x: Any) -> Any:
        return jnp.concatenate([x, x])


class TorchGrown(torch.nn.Module):
    def forward(self, x: Any) -> Any:
        return torch.cat([x, x])


class Narrow(nn.Module):
    def forward(self, x: Any) -> Any:
        return x.astype(jnp.float32)

    def right_inverse(self, x: Any) -> Any:
        return x.astype(jnp.float32)


class TorchNarrow(torch.nn.Module):
    def forward(self, x: Any) -> Any:
        return x.float()

    def right_inverse(self, x: Any) -> Any:
        return x.float()


class NoArray(nn.Module):
    def forward(self, x: Any) -> Any:
        return "x"


class TorchNoArray(torch.nn.Module):
    def forward(self, x: Any) -> Any:
        return "x"


OWN = [(Grown, TorchGrown), (Narrow, TorchNarrow), (NoArray, TorchNoArray)]
REFUSED: dict[str, tuple[str, Callable[[Any, Any], object]]] = {
    "no such parameter": ("no", lambda utils, m: utils.parametrizations.weight_norm(m, "no")),
    "no such matrix": ("no", lambda utils, m: utils.parametrizations.orthogonal(m, "no")),
    "not parametrized": (
        "not param", lambda utils, m: utils.parametrize.remove_parametrizations(m, "weight"),
    ),
    "an axis": ("dim is 2", lambda utils, m: utils.parametrizations.weight_norm(m, dim=2)),
    "an axis of spectral norm": (
        "dim is -3", lambda utils, m: utils.parametrizations.spectral_norm(m, dim=-3),
    ),
    "no steps": (
        "n_power_iterations is 0",
        lambda utils, m: utils.parametrizations.spectral_norm(m, "weight", 0),
    ),
    "a vector": ("two axes", lambda utils, m: utils.parametrizations.orthogonal(m, "bias")),
    "a map": (
        "orthogonal_map is 'qr'",
        lambda utils, m: utils.parametrizations.orthogonal(m, "weight", "qr"),
    ),
    "a parameter": (
        "not a parameter",
        lambda utils, m: setattr(
            utils.parametrizations.weight_norm(m), "weight", (nn.Parameter if utils is nn.utils else
            torch.nn.Parameter)(m.weight),
        ),
    ),
    "a value where there is no way back": (
        "use_trivialization",
        lambda utils, m: setattr(
            utils.parametrizations.orthogonal(m, "weight", "cayley", use_trivialization=False),
            "weight", m.weight,
        ),
    ),
    "another shape": (
        "has shape",
        lambda utils, m: setattr(utils.parametrizations.orthogonal(m), "weight", m.weight[:2]),
    ),
}  # fmt: skip


def refused(says: str, ours: Callable[[], object], theirs: Callable[[], object]) -> None:
    """Both refuse it; the kit in one line that says what."""
    kinds = (ValueError, IndexError, KeyError, NotImplementedError, RuntimeError, AttributeError)
    with pytest.raises(kinds):
        theirs()
    with pytest.raises(InputError, match=says) as caught:
        ours()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("what", REFUSED)
def test_what_pytorch_refuses_is_refused(what: str) -> None:
    says, call = REFUSED[what]
    theirs, ours = torch.nn.Linear(3, 4, **F64), nn.Linear(3, 4)
    refused(says, lambda: call(nn.utils, ours), lambda: call(torch.nn.utils, theirs))


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("kind", OWN, ids=[kind.__name__ for kind, _ in OWN])
def test_what_changes_shape_or_dtype_is_refused(kind: Any, first: bool) -> None:
    """As the first one and as the next."""
    theirs, ours = torch.nn.Linear(3, 4, **F64), nn.Linear(3, 4)
    if not first:
        TP.register_parametrization(theirs, "weight", TorchDoubled())
        P.register_parametrization(ours, "weight", Doubled())
    refused(
        "expected",
        lambda: P.register_parametrization(ours, "weight", kind[0]()),
        lambda: TP.register_parametrization(theirs, "weight", kind[1]()),
    )
    assert P.is_parametrized(ours) != first


def test_unsafe_may_change_the_shape() -> None:
    ours: Any = P.register_parametrization(nn.Linear(3, 4), "weight", Grown(), unsafe=True)
    assert ours.weight.shape == (8, 3)
    with pytest.raises(InputError, match="Grown has no right_inverse"):
        ours.weight = jnp.ones((8, 3))


# ------------------------------------------------------------------------------- states, trainings


def test_older_names_are_loaded() -> None:
    """Those of nn.utils.weight_norm, wherever the layer is."""
    old = torch.nn.Sequential(in_pytorch(Made(*LINEAR, "weight_norm")))
    ours = nn.Sequential(in_kit(MADE["weight"]))
    given = {n: a.detach().numpy() + 1 for n, a in old.state_dict().items()}
    nn.load_state_dict(ours, given)
    np.testing.assert_array_equal(
        ours[0].parametrizations.weight.original1[...], given["0.weight_v"]
    )


def test_a_parametrization_of_ones_own_is_not_taken_over() -> None:
    theirs, _ = pair("one")
    with pytest.raises(InputError, match=r"0\.weight has the parametrization TorchSymmetric"):
        nn.from_torch(torch.nn.Sequential(theirs))
