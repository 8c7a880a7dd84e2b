"""Parameters in whatever people hold them: updates have the form of the gradients, the numbers of
a plain dict, and leaves belong together by their keys, never by their places.
"""

import re
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import flax
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from flax.training.train_state import TrainState
from helpers.training import settings

from twinstep.errors import InputError
from twinstep.jax import optim
from twinstep.jax.layout import Mapping, module_layout, opt_state_layout, tree_layout
from twinstep.jax.optim import adam, frozen, in_torch_layout, param_groups, sgd
from twinstep.jax.trees import by_name

pytestmark = pytest.mark.quick_to_compile

_numbers = np.random.RandomState(0)
SHAPES = ((3,), (2, 3), (2,))


class Named(NamedTuple):
    """Fields in another order than that of their names."""

    weight: Any
    scale: Any
    bias: Any


@flax.struct.dataclass
class Struct:
    """Of Flax's."""

    weight: Any
    scale: Any
    bias: Any


@jax.tree_util.register_dataclass
@dataclass
class Partitioned:
    """As equinox leaves a module whose parameters were taken out: None for all the rest."""

    weight: Any
    scale: Any
    bias: Any
    act: Any = None
    inner: Any = None


class Model(nnx.Module):
    """Of nnx."""

    def __init__(self, *arrays: Any) -> None:
        weight, scale, bias = arrays or [jnp.ones(shape) for shape in SHAPES]
        self.weight, self.scale, self.bias = map(nnx.Param, (weight, scale, bias))


CONTAINERS: dict[str, Callable[..., Any]] = {
    "nnx.State": lambda *a: nnx.state(Model(*a), nnx.Param),
    "nnx's pure dict": lambda *a: nnx.to_pure_dict(nnx.state(Model(*a), nnx.Param)),
    "nnx.Module": Model,
    "linen": lambda w, s, b: {"params": {"fc": {"weight": w, "bias": b}, "scale": s}},
    "FrozenDict": lambda w, s, b: flax.core.freeze({"params": {"fc": {"w": w, "b": b}, "s": s}}),
    "flax.struct": Struct,
    "with None": Partitioned,
    "list": lambda *a: list(a),
    "many": lambda w, s, b: [*[jnp.full(3, i + 1.0) for i in range(10)], w, s, b],
    "tuple": lambda w, s, b: (w, (s, {"b": b})),
    "NamedTuple": Named,
    "OrderedDict": lambda w, s, b: OrderedDict(weight=w, scale=s, bias=b),
    "numbers": lambda w, s, b: {10: w, 2: s, 1: b},
    "text": lambda w, s, b: {"10": w, "2": s, "1": b},
}
WRAPPERS: dict[str, Callable[[list[str], Mapping], Any]] = {
    "plain": lambda names, layout: adam(lr=0.1, weight_decay=0.1),
    "groups": lambda names, layout: param_groups(
        [{"params": names[0], "lr": 0.1}, {"params": names[1:]}], adam, layout=layout
    ),
    "frozen": lambda names, layout: frozen(adam(lr=0.1), names[1], layout=layout),
    "layout": lambda names, layout: in_torch_layout(optim.adafactor(lr=0.1), layout),
    "frozen in a layout": lambda names, layout: frozen(
        in_torch_layout(optim.adafactor(lr=0.1), layout), names[1]
    ),
    "clipped": lambda names, layout: optax.chain(optim.clip_grad_norm(0.1), sgd(lr=0.1)),
    "MultiSteps": lambda names, layout: optax.MultiSteps(
        param_groups([{"params": names[0]}], sgd, lr=0.1, momentum=0.5), 2
    ).gradient_transformation(),
}


def arrays(seed: int) -> list[Any]:
    numbers = np.random.RandomState(seed)
    return [jnp.asarray(numbers.randn(*shape)) for shape in SHAPES]


def same_form(one: Any, other: Any) -> bool:
    """Whether two trees have the same containers and keys."""
    structures: list[Any] = [jax.tree.structure(one), jax.tree.structure(other)]
    return bool(structures[0] == structures[1])


def trained(make: Callable[..., Any], wrapper: str, names: list[str] | None = None) -> Any:
    """The updates of three steps, of parameters and gradients in a container."""
    params, seen = make(*arrays(0)), []
    names = list(by_name(params)) if names is None else names
    optimizer = WRAPPERS[wrapper](names, tree_layout(params))
    state = optimizer.init(params)
    for step in range(3):
        grads = make(*arrays(step + 1))
        updates, state = jax.jit(optimizer.update)(grads, state, params)
        assert same_form(updates, grads)
        seen.append(updates)
    return seen


@pytest.mark.parametrize("wrapper", WRAPPERS)
@pytest.mark.parametrize("container", CONTAINERS)
def test_any_container_trains_as_a_dict(container: str, wrapper: str) -> None:
    make = CONTAINERS[container]
    with settings():
        ours = trained(make, wrapper)
        names = list(by_name(make(*arrays(0))))
        plain = trained(lambda *a: by_name(make(*a)), wrapper, names)
    for one, other in zip(ours, plain, strict=True):
        found = by_name(one)
        assert found.keys() == other.keys()
        for name, update in other.items():
            np.testing.assert_allclose(found[name], update, rtol=1e-14)  # sums in another order


@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_holders_of_both_train_as_a_dict(wrapper: str) -> None:
    """Flax's two that keep parameters and state."""
    with settings():
        model, (w, s, b) = Model(*arrays(0)), arrays(0)
        params = {"weight": w, "scale": s, "bias": b}
        optimizer = WRAPPERS[wrapper](list(params), tree_layout(params))
        held = nnx.Optimizer(model, optimizer, wrt=nnx.Param)
        train = TrainState.create(apply_fn=None, params=params, tx=optimizer)
        state = optimizer.init(params)
        for step in range(1, 4):
            w, s, b = arrays(step)
            grads = {"weight": w, "scale": s, "bias": b}
            updates, state = optimizer.update(grads, state, params)
            params = optax.apply_updates(params, updates)
            held.update(model, nnx.state(Model(w, s, b), nnx.Param))
            train = train.apply_gradients(grads=grads)
        for name, parameter in params.items():
            np.testing.assert_array_equal(getattr(model, name)[...], parameter)
            np.testing.assert_array_equal(train.params[name], parameter)


# By keys, not by places


MANY = 12


def many(text: bool, first: float = 1.0) -> Any:
    """Numbers for keys, or the text that a checkpoint has for them: "10" comes before "2"."""
    return {str(i) if text else i: jnp.full(2, first + i) for i in range(MANY)}


BY_KEYS: dict[str, Callable[[], Any]] = {
    "groups": lambda: param_groups([{"params": ["2", "10"], "lr": 0.5}], sgd, lr=0.1, momentum=0.9),
    "frozen": lambda: frozen(sgd(lr=0.1, momentum=0.9), "3"),
    "layout": lambda: in_torch_layout(sgd(lr=0.1, momentum=0.9), tree_layout(many(False))),
    "by key": lambda: param_groups(dict[Any, Any]({2: sgd(lr=0.5), 10: sgd(lr=0.1)})),
    "by text": lambda: param_groups({"2": sgd(lr=0.5), "10": sgd(lr=0.1)}),
}


@pytest.mark.parametrize("kind", BY_KEYS)
@pytest.mark.parametrize("text", ["params", "grads", "both"])
def test_numbers_and_their_text_are_one(kind: str, text: str) -> None:
    with settings():
        optimizer = BY_KEYS[kind]()
        params, grads = many(False), many(False, 0.5)
        state = optimizer.init(params)
        _, state = optimizer.update(grads, state, params)
        right, _ = optimizer.update(grads, state, params)
        updates, _ = optimizer.update(many(text != "params", 0.5), state, many(text != "grads"))
        for i in range(MANY):
            of = i if text == "params" else str(i)
            np.testing.assert_array_equal(updates[of], right[i])


class Deep(nnx.Module):
    """As many layers as put text and numbers in two orders."""

    def __init__(self) -> None:
        self.h = nnx.List([nnx.Linear(2, 2, rngs=nnx.Rngs(i)) for i in range(MANY)])


def as_text(tree: Any) -> Any:
    """A checkpoint restored without a template."""
    if isinstance(tree, dict):
        return {str(key): as_text(value) for key, value in tree.items()}
    return tree


def test_layouts_go_by_keys() -> None:
    model = Deep()
    layout = module_layout(model)
    raw = as_text(nnx.to_pure_dict(nnx.state(model, nnx.Param)))
    named = layout.to_torch(raw)
    for i in range(MANY):
        np.testing.assert_array_equal(named[f"h.{i}.weight"].T, model.h[i].kernel[...])
    back = layout.part(raw).to_jax(named)
    assert same_form(back, raw)
    # and so does the state
    state = adam().init(raw)
    states = opt_state_layout(state, layout)
    text = {"step": state.step, "exp_avg": raw, "exp_avg_sq": raw}
    moments = states.to_torch(text)
    np.testing.assert_array_equal(moments["h.2.weight.exp_avg"].T, model.h[2].kernel[...])


def changed(**changes: Any) -> Any:
    """The parameters of a layer, some of them others, or not there where None stands."""
    tree = {"fc": {"kernel": jnp.ones((3, 2)), "bias": jnp.zeros(2)} | changes}
    return {"fc": {key: value for key, value in tree["fc"].items() if value is not None}}


class Whole(nnx.Module):
    """A layer under a name."""

    def __init__(self) -> None:
        self.fc = nnx.Linear(3, 2, rngs=nnx.Rngs(0))


def with_groups(make: Callable[[], Any], tree: Any) -> Any:
    """An update by gradients that are not those of the parameters."""
    optimizer, params = make(), changed()
    return optimizer.update(tree, optimizer.init(params), params)


GROUPS = [{"params": "fc.kernel"}, {"params": "fc.bias"}]
MISSING, UNKNOWN = changed(bias=None), changed(extra=jnp.ones(1))
LAYOUT = module_layout(Whole())
ODD: dict[str, tuple[Callable[[], Any], str]] = {
    "to_torch, missing": (lambda: LAYOUT.to_torch(MISSING), "parameter 'fc.bias' is missing"),
    "to_torch, unknown": (lambda: LAYOUT.to_torch(UNKNOWN), "parameter 'fc.extra' is unknown"),
    "to_torch, shape": (
        lambda: LAYOUT.to_torch(changed(kernel=jnp.ones((2, 3)))),
        "parameter 'fc.kernel' has shape (2, 3), expected (3, 2)",
    ),
    "part": (lambda: LAYOUT.part(UNKNOWN), "the layout has no leaf 'fc.extra'"),
    "a state": (
        lambda: opt_state_layout(adam().init(UNKNOWN), LAYOUT),
        "opt_state has 'extra', which no parameters are called",
    ),
    "a state by key": (
        lambda: opt_state_layout({"head": adam().init({})}, LAYOUT),
        "opt_state has 'head', which no parameters are called",
    ),
    "an array": (lambda: opt_state_layout(jnp.ones(2), LAYOUT), "opt_state has a "),
    "a state of another form": (
        lambda: opt_state_layout(sgd(momentum=0.9).init({"fc": jnp.ones(3)}), LAYOUT),
        "opt_state has ",
    ),
    "a grouped state": (
        lambda: opt_state_layout(param_groups(GROUPS, adam).init(changed()), tree_layout({})),
        "parameter 'fc.kernel' is missing",
    ),
    "groups": (
        lambda: with_groups(lambda: param_groups(GROUPS, adam), MISSING),
        "parameter 'fc.bias' is missing",
    ),
    "frozen": (
        lambda: with_groups(lambda: frozen(adam(), "fc.kernel"), MISSING),
        "parameter 'fc.bias' is missing",
    ),
    "in_torch_layout": (
        lambda: with_groups(lambda: in_torch_layout(adam(), LAYOUT), UNKNOWN),
        "the layout has no leaf 'fc.extra'",
    ),
    "a layout of others": (
        lambda: param_groups(GROUPS, adam, layout=tree_layout({"a": 1.0})).init(changed()),
        "the layout has no leaf 'fc.bias'",
    ),
    "an order of others": (
        lambda: in_torch_layout(adam(), LAYOUT, names=["fc.weight"]).init(changed()),
        "parameter 'fc.bias' is on one side only",
    ),
    "one name twice": (
        lambda: tree_layout({"a.b": jnp.ones(1), "a": {"b": jnp.ones(1)}}),
        "parameter 'a.b' is there twice",
    ),
    "one name twice, in groups": (
        lambda: frozen(adam(), []).init({"a.b": jnp.ones(1), "a": {"b": jnp.ones(1)}}),
        "parameter 'a.b' is there twice",
    ),
    "a raw state of groups": (
        lambda: param_groups(GROUPS, adam).update(changed(), {"states": []}, changed()),
        "state is a dict, expected the GroupsState",
    ),
    "a raw state of a layout": (
        lambda: in_torch_layout(adam(), LAYOUT).update(changed(), {"inner": []}, changed()),
        "state is a dict, expected the TorchLayoutState",
    ),
}


@pytest.mark.parametrize("kind", ODD)
def test_what_does_not_belong_together_is_refused_by_name(kind: str) -> None:
    act, says = ODD[kind]
    with pytest.raises(InputError, match=re.escape(says)):
        act()
