"""What is known of a program from what its recorder is given: the model's layers, the optimizers.

Nothing is guessed: layers have a class where the model is given and not its parameters alone; of an
optimizer only its state is seen, so a link is called by the type of that: optax's radam keeps
the state of `scale_by_adam`, and a clipping that keeps none is not seen.
"""

import dataclasses
import re
from collections import abc
from typing import Any

import jax
import optax
from flax import nnx

from twinstep.jax import trees, wrappers
from twinstep.jax.names import Names
from twinstep.jax.watching import GivenGradsState, WatchState, watched

Tree = Any
_CALLED = {  # where the state of a link is not called as the link is
    "MultiStepsState": "MultiSteps",
    "InjectHyperparamsState": "inject_hyperparams",
    "InjectStatefulHyperparamsState": "inject_hyperparams",
    "PartitionState": "multi_transform",
    "MultiTransformState": "multi_transform",
    "ReduceLROnPlateauState": "reduce_on_plateau",
    "ScaleByAdaDeltaState": "scale_by_adadelta",
    "ScaleByRStdDevState": "scale_by_stddev",
    "GroupsState": "param_groups",
    "NAdamState": "nadam",
    "RMSpropState": "rmsprop",
    "GivenGradsState": "watch('grads')",
}
_PLAIN = (tuple, list)
_WORD = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")


class Program:
    """What a trace says of the program: its modules and optimizers, each as it was first given."""

    def __init__(self, names: Names) -> None:
        self._names = names
        self._modules: dict[str, str] = {}
        self._optimizers: dict[str, dict[str, Any]] = {}

    @property
    def said(self) -> dict[str, Any]:
        """It as JSON values, by what it is of; without what is not known."""
        said: dict[str, dict[str, Any]] = {
            "modules": dict(self._modules),
            "optimizers": dict(self._optimizers),
        }
        return {key: value for key, value in said.items() if value}

    def model(self, name: str, model: Any, params: Tree) -> None:
        """Takes the classes of an optimizer's model, if it is one, by the names of its layers.

        params: the parameters in it, a tree of arrays
        """
        own = [leaf.names[0] for leaf in self._names.by_path(params)]
        called = [leaf.names[0] for leaf in self._names.of(name, "params", params)]
        pairs = list(zip(own, called, strict=True))
        layers = {_layer(path): _layer(leaf) for path, leaf in pairs}
        # what holds no parameter has its path, behind what names begin with; none under a layout
        plain = all(leaf.endswith(path) for path, leaf in pairs)
        before = {leaf.removesuffix(path) for path, leaf in pairs}
        for path, kind in classes(model).items():
            if path in layers:
                self._modules[layers[path]] = kind
            elif plain and len(before) == 1:
                self._modules[(min(before) + path).removesuffix(".")] = kind

    def optimizer(self, name: str, opt_state: Tree) -> None:
        """Takes what an optimizer's state says, without what nnx puts around arrays."""
        unknown = isinstance(opt_state, WatchState) and opt_state.inner == ()
        if name not in self._optimizers and opt_state is not None and not unknown:
            self._optimizers[name] = {
                "state": links(opt_state),
                "watched": _watched(opt_state),
                "injected": [*wrappers.hyper_parameters(opt_state)],
            }


def classes(model: Any) -> dict[str, str]:
    """{path: class} of the modules that a model of nnx or a tree of dataclasses, as equinox's, is.

    None of what is no module, such as a dict of arrays.
    """
    if isinstance(model, nnx.Module):
        return {
            trees.dotted(tuple(map(str, path))): type(node).__name__
            for path, node in nnx.iter_graph(model)
            if isinstance(node, nnx.Module)
        }
    found = {"": type(model).__name__} if dataclasses.is_dataclass(model) else {}
    below, _ = trees.children(model)
    for key, node in below.items():
        if node is not model:
            for path, kind in classes(node).items():
                found[f"{key}.{path}" if path else key] = kind
    return found


def links(node: Any) -> list[str]:
    """What an optimizer's state is made of, in order, by the types of its parts.

    "scale_by_adam" is optax's ScaleByAdamState; around others stands "MultiSteps(scale_by_adam)".
    """
    if isinstance(node, WatchState):
        return links(node.inner)
    if isinstance(node, abc.Mapping):
        return [f"{key}: {one}" for key, inner in node.items() for one in links(inner)]
    is_state = type(node).__name__.endswith("State") and not isinstance(node, nnx.State)
    if is_state and hasattr(node, "_fields"):
        parts = list(node)
    elif is_state and dataclasses.is_dataclass(node):
        parts = [getattr(node, field.name) for field in dataclasses.fields(node)]
    else:
        return [one for inner in node for one in links(inner)] if type(node) in _PLAIN else []
    if isinstance(node, optax.EmptyState):
        return []
    inside = ", ".join(one for part in parts for one in links(part))
    return [f"{_called(type(node))}({inside})" if inside else _called(type(node))]


def _called(state: type) -> str:
    """What a link is called, by its state's type; that itself, but of optax's and the kit's."""
    if not state.__module__.startswith(("optax.", "twinstep.")):
        return state.__name__
    found = _CALLED.get(state.__name__)
    return found or _WORD.sub("_", state.__name__.removesuffix("State")).lower()


def _watched(opt_state: Tree) -> list[str]:
    """The stages of gradients that a state shows."""
    if watched(opt_state) is None:
        return []
    nodes = jax.tree.leaves(opt_state, is_leaf=lambda node: isinstance(node, GivenGradsState))
    given = any(isinstance(node, GivenGradsState) for node in nodes)
    return ["raw_grads", "grads"] if given else ["raw_grads"]


def module_in(given: Any, learns: Tree) -> Any:
    """The model of nnx in what `record` is given; else what learns, which may be of dataclasses.

    learns: the parameters in it, as they are given
    """
    inside = given if isinstance(given, tuple) else (given, getattr(given, "params", None))
    optimizers = [one for one in inside if isinstance(one, nnx.Optimizer)]
    models = [vars(one).get("model") for one in optimizers]
    found = (one for one in (*inside, *models) if isinstance(one, nnx.Module))
    return next((one for one in found if not isinstance(one, nnx.Optimizer)), learns)


def _layer(name: str) -> str:
    return name.rpartition(".")[0]
