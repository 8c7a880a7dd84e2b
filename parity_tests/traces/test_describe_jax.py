"""What a JAX recording says of its program, and what it says beside a PyTorch recording."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
import pytest
import torch
from flax import nnx
from flax.training.train_state import TrainState
from helpers.commands import command
from helpers.recording_jax import START, recorded
from helpers.recording_jax import states as states_of

import twinstep
from twinstep.jax import optim, record, states, watch
from twinstep.jax.layout import module_layout
from twinstep.jax.program import classes, links
from twinstep.torch import record as record_torch
from twinstep.trace.description import (
    MAX_LAYERS,
    Description,
    apart,
    described,
    side_by_side,
)
from twinstep.trace.ledger import Trace


class Model(nnx.Module):
    """Layers in a list, one that has no parameter, and a parameter of its own."""

    def __init__(self) -> None:
        rngs = nnx.Rngs(0)
        self.layers = nnx.List([nnx.Linear(3, 4, rngs=rngs), nnx.Linear(4, 1, rngs=rngs)])
        self.drop = nnx.Dropout(0.5)
        self.scale = nnx.Param(jnp.ones(()))


@jax.tree_util.register_dataclass
@dataclasses.dataclass
class Dense:
    """As equinox has its modules: a tree, of arrays and of what is none."""

    weight: Any
    activation: Any = jnp.tanh


@jax.tree_util.register_dataclass
@dataclasses.dataclass
class Net:
    layers: tuple[Dense, ...]
    last: dict[str, Dense]


def dense(seed: float) -> Dense:
    return Dense(jnp.full((2, 2), seed))


def program_of(given: Any, **options: Any) -> dict[str, Any]:
    """What is said of a program whose recorder is given this before the first update."""
    with record(given, **options) as rec:
        several = isinstance(given, dict) and all(isinstance(one, tuple) for one in given.values())
        for name, one in given.items() if several else [("optimizer", given)]:
            rec.step(params=states.parts(one)[0], loss=1.0, name=name)
    return dict(rec.trace.program)


def test_a_models_layers_have_their_classes() -> None:
    model = Model()
    optimizer = nnx.Optimizer(model, watch(optax.adam(0.1)), wrt=nnx.Param)
    layers = {"layers.0": "Linear", "layers.1": "Linear"}
    expected = {"": "Model", "layers": "List", "drop": "Dropout", **layers}
    state = optimizer.opt_state
    joined = nnx.ModelAndOptimizer(model, optax.adam(0.1), wrt=nnx.Param)
    for given in (model, (model, optimizer), (optimizer, model), (model, state), joined):
        assert program_of(given)["modules"] == expected
    for alone in (nnx.state(model, nnx.Param), {"layers.0": {"kernel": jnp.ones(2)}}):
        assert "modules" not in program_of(alone), "parameters alone have no class"
    one = Dense(jnp.ones(2), None)
    both = program_of({"gen": (model, state), "disc": (one, optax.adam(0.1).init(one))})
    assert both["modules"] == {
        **{f"gen.{path}" if path else "gen": kind for path, kind in expected.items()},
        "disc": "Dense",
    }


def test_under_a_layout_layers_bear_its_names() -> None:
    model = nnx.Sequential(nnx.Linear(3, 4, rngs=nnx.Rngs(0)), jnp.tanh)
    said = program_of(model, layout=module_layout(model))
    assert said["modules"] == {"0": "Linear"}, "PyTorch's name; a container has none there"


def test_a_tree_of_dataclasses_has_their_classes() -> None:
    net = Net((dense(0.0), dense(1.0)), {"head": dense(2.0)})
    assert program_of(net)["modules"] == {
        "": "Net",
        "layers.0": "Dense",
        "layers.1": "Dense",
        "last.head": "Dense",
    }
    state = TrainState.create(apply_fn=None, params={"a": {"kernel": jnp.ones(2)}}, tx=optax.sgd(1))
    assert "modules" not in program_of(state), "a train state is no model"
    assert classes({"a": [jnp.ones(2), None, 3, "word"]}) == {}


class SlowState(NamedTuple):
    """Of somebody's own."""

    count: Any


SLOW = optax.GradientTransformation(
    lambda params: SlowState(jnp.zeros(())), lambda grads, state, params=None: (grads, state)
)
ADAM = "scale_by_adam"
RULES: dict[str, tuple[Callable[[], Any], list[str]]] = {
    "adam": (lambda: optax.adam(0.1), [ADAM]),
    "schedule": (
        lambda: optax.adam(optax.linear_schedule(0.1, 0.0, 9)),
        [ADAM, "scale_by_schedule"],
    ),
    "plain sgd": (lambda: optax.sgd(0.1), []),
    "momentum": (lambda: optax.sgd(0.1, momentum=0.9), ["trace"]),
    "order": (lambda: optax.chain(optax.trace(0.9), optax.scale_by_adam()), ["trace", ADAM]),
    "micro-steps": (lambda: optax.MultiSteps(optax.adam(0.1), 2), [f"MultiSteps({ADAM})"]),
    "finite": (
        lambda: optax.apply_if_finite(optax.MultiSteps(optax.adam(0.1), 2), 3),
        [f"apply_if_finite(MultiSteps({ADAM}))"],
    ),
    "injected": (
        lambda: optax.inject_hyperparams(optax.adam)(0.1),
        [f"inject_hyperparams({ADAM})"],
    ),
    "groups": (
        lambda: optax.multi_transform(
            {"a": optax.adam(0.1), "z": optax.sgd(0.1)}, {"w": "a", "b": "z"}
        ),
        [f"multi_transform(a: masked({ADAM}), z: masked)"],
    ),
    "given": (
        lambda: optax.chain(optax.clip(1.0), watch("grads"), optax.lion(0.1)),
        ["watch('grads')", "scale_by_lion"],
    ),
    "own": (lambda: optax.chain(SLOW, optax.adam(0.1)), ["SlowState", ADAM]),
    "kit": (
        lambda: optax.chain(optim.clip_grad_norm(1.0), optim.nadam(lr=0.1)),
        ["clip_grad_norm", "nadam"],
    ),
    "kit's groups": (
        lambda: optim.param_groups([{"params": "w"}, {"params": "b"}], optim.rmsprop, lr=0.1),
        ["param_groups(rmsprop, rmsprop)"],
    ),
    "kit's accumulation": (lambda: optim.accumulate(optim.adam(lr=0.1), 2), ["accumulate(adam)"]),
}


@pytest.mark.parametrize(("rule", "expected"), RULES.values(), ids=RULES)
def test_the_links_of_an_optimizers_state_in_their_order(
    rule: Callable[[], Any], expected: list[str]
) -> None:
    assert links(watch(rule()).init(START)) == links(rule().init(START)) == expected


def test_what_an_optimizers_state_shows_is_said(tmp_path: Path) -> None:
    injected = optax.inject_hyperparams(optax.adam)(0.1, b1=0.8)
    said = program_of((START, watch(injected).init(START)))["optimizers"]["optimizer"]
    assert said["watched"] == ["raw_grads"]
    assert {"0.lr", "0.betas.0"} <= {*said["injected"]}
    bare = program_of((START, optax.adam(0.1).init(START)))["optimizers"]["optimizer"]
    assert bare == {"state": [ADAM], "watched": [], "injected": []}
    both = watch(optax.chain(watch("grads"), optax.adam(0.1)))
    assert recorded(both).program["optimizers"]["optimizer"]["watched"] == ["raw_grads", "grads"]
    assert program_of(START) == {}
    plain = program_of(TrainState.create(apply_fn=None, params=START, tx=optax.sgd(0.1)))
    assert plain["optimizers"]["optimizer"]["state"] == [], "it keeps none"
    (state, loss, _), *_ = states_of(both, 1)
    with record(START, out=tmp_path / "trace") as rec:
        rec.step(state, loss=loss)
    assert twinstep.open_trace(tmp_path / "trace").program == rec.trace.program != {}


# Beside PyTorch's


def torch_run(clip: float | None = None, passes: int = 1, lr: float = 0.1) -> Trace:
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Tanh(), torch.nn.Linear(4, 1))
    optimizer = torch.optim.Adam(model.parameters(), lr=lr)
    with record_torch(model) as rec:
        for _ in range(4):
            optimizer.zero_grad()
            for _ in range(passes):
                (model(torch.ones(8 // passes, 3)).square().mean() / passes).backward()
            if clip is not None:
                torch.nn.utils.clip_grad_norm_(model.parameters(), clip)
            optimizer.step()
    return rec.trace


def jax_run(theirs: Trace, tx: Any) -> Trace:
    """The same training, by PyTorch's names."""
    model = nnx.Sequential(
        nnx.Linear(3, 4, rngs=nnx.Rngs(0)), jnp.tanh, nnx.Linear(4, 1, rngs=nnx.Rngs(0))
    )
    layout = module_layout(model)
    nnx.update(model, layout.to_jax({n: jnp.asarray(a[0]) for n, a in theirs.params.items()}))
    optimizer = nnx.Optimizer(model, tx, wrt=nnx.Param)
    with record((model, optimizer), layout=layout) as rec:
        for _ in range(4):
            x = jnp.ones((8, 3))
            loss, grads = nnx.value_and_grad(lambda m, x=x: jnp.mean(m(x) ** 2))(model)
            optimizer.update(model, grads)
            rec.step((model, optimizer), loss=loss, batch={"x": x})
    return rec.trace


def clipped(*links: Any) -> Any:
    return watch(optax.chain(optim.clip_grad_norm(1e-3), *links, optax.adam(0.1)))


def found(one: Trace, other: Trace) -> tuple[list[str], list[str]]:
    sides = [described(trace.metadata, [trace]) for trace in (one, other)]
    return apart(sides[0], sides[1]), side_by_side(sides[0], sides[1])


def test_a_jax_trace_is_described() -> None:
    said = described((trace := jax_run(torch_run(), clipped())).metadata, [trace]).lines()
    assert said[1:5] == [
        "model: 4 parameters, 21 numbers",
        "  0: Linear: bias (4,), weight (4, 3)",
        "  2: Linear: bias (1,), weight (1, 4)",
        "optimizer: state clip_grad_norm, scale_by_adam, 4 updates",
    ]
    assert said[5].startswith("gradients: not watched as given; norm ")
    trace = jax_run(torch_run(), clipped(watch("grads")))
    said = described(trace.metadata, [trace]).lines()
    assert any(line.startswith("gradients: changed before 4 updates; norm ") for line in said)
    trace = jax_run(torch_run(), optax.adam(0.1))
    assert (
        f"optimizer: state {ADAM}, not watched, 4 updates"
        in described(trace.metadata, [trace]).lines()
    )


def test_what_both_have_is_laid_side_by_side(tmp_path: Path) -> None:
    theirs = torch_run()
    ours = jax_run(theirs, watch(optax.adam(0.1)))
    differ, both = found(theirs, ours)
    assert differ == [], "a class that is called otherwise is no difference"
    assert both == [
        "0: Linear(in_features=3, out_features=4, bias=True) and Linear",
        "2: Linear(in_features=4, out_features=1, bias=True) and Linear",
        f"optimizer: Adam and state {ADAM}",
    ]
    theirs.save(tmp_path / "a")
    ours.save(tmp_path / "b")
    printed = command("describe", tmp_path / "a", tmp_path / "b").printed()
    assert f"as each says it:\n  {both[0]}\n  {both[1]}\n  {both[2]}\nnothing says" in printed


def test_optimizers_of_one_name_or_the_only_ones_are_a_pair() -> None:
    def side(framework: str, known: dict[str, Any], layers: int = 0) -> Description:
        metadata = dataclasses.replace(trace.metadata, framework=framework)
        names = [f"{i}.weight" for i in range(layers)]
        return Description(
            metadata,
            {"optimizers": known, "modules": dict.fromkeys(map(str, range(layers)), "Linear")},
            shapes=dict.fromkeys(names, (2, 2)),
            optimizers=dict.fromkeys(known, 3),
        )

    trace, watched = torch_run(), ["raw_grads", "grads"]
    theirs = {"class": "Adam", "settings": {}, "groups": []}
    mine = {"state": ["adam"], "watched": watched, "injected": []}
    torch_side = side("torch", {"of_model": theirs})
    both = side_by_side(torch_side, side("jax", {"optimizer": mine}))
    assert both == ["of_model: Adam and state adam"]
    torch_side = side("torch", {"gen": theirs, "disc": theirs})
    both = side_by_side(torch_side, side("jax", {"critic": mine, "gen": mine}))
    assert both == ["gen: Adam and state adam"]
    both = side_by_side(side("torch", {}, 60), side("jax", {}, 60))
    assert len(both) == MAX_LAYERS + 1
    assert both[-1] == f"and {60 - MAX_LAYERS} more layers"


def test_what_one_side_cannot_know_is_no_difference() -> None:
    theirs = torch_run(clip=1e-3)
    for tx in (clipped(), optax.adam(0.1)):
        assert found(theirs, jax_run(theirs, tx))[0] == [], "what the rule was given is not seen"
    seen = jax_run(theirs, watch(optax.chain(watch("grads"), optax.adam(0.1))))
    says = ["gradients: only the first changes them before its updates"]
    assert found(theirs, seen)[0] == says
    twice = torch_run(passes=2)
    assert found(twice, jax_run(twice, watch(optax.adam(0.1))))[0] == [], "summed inside of a jit"


def test_what_both_sides_know_is_a_difference() -> None:
    theirs = torch_run(lr=0.2)
    injected = watch(optax.inject_hyperparams(optax.adam)(0.1, b1=0.9, b2=0.999, eps=1e-8))
    assert found(theirs, jax_run(theirs, injected))[0] == ["0.lr: 0.2 against 0.1"]
    two = watch(optax.MultiSteps(optax.adam(0.1), 2))
    says = "backward passes an update: 1 against 2"
    assert says in found(torch_run(), jax_run(torch_run(), two))[0]
