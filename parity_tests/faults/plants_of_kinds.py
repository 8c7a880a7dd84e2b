"""How a kind of fault is planted in any example: in the words of PyTorch, and in JAX's.

What is low precision is float32 in float64 and bfloat16 in float32, or as few bits as are said.
A plant in JAX has its size from a dial.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch
from torch import nn
from torch.nn import functional

import twinstep.jax.driver
import twinstep.torch.driver
from faults import dials
from faults.dials import either
from faults.models_torch import gru
from faults.pairs import Plant
from faults.plants_anywhere import compiled, started
from faults.plants_jax import in_jax_step, jax_grads, jax_loss_by, jax_update
from faults.plants_torch import (
    forward,
    in_torch_step,
    torch_built,
)
from twinstep import Spec
from twinstep.jax.nn import layers


def low(dtype: str) -> int:
    """The mantissa's bits in the precision below."""
    return 7 if dtype == "float32" else 23


def rounded(tensor: torch.Tensor, bits: int | None = None) -> torch.Tensor:
    """To so many bits of mantissa, the gradient passing as it is. Source: Veltkamp, Dekker"""
    digits = 24 if tensor.dtype == torch.float32 else 53
    bits = low("float32" if digits == 24 else "float64") if bits is None else bits
    more = (2.0 ** (digits - bits - 1) + 1) * tensor.detach()
    return tensor + ((more - (more - tensor.detach())) - tensor.detach())


def jax_rounded(array: jax.Array, bits: int | None = None) -> jax.Array:
    """To so many bits of mantissa, forward and backward pass alike."""
    bits = low(array.dtype.name) if bits is None else bits
    return jax.lax.reduce_precision(array, 8 if array.dtype == jnp.float32 else 11, bits)


# --- on the PyTorch side


def on_update(change: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> Plant:
    """The update as a change of parameters: change(update, parameter before)."""

    def update(k: int, run: Any) -> None:
        before = [parameter.detach().clone() for parameter in run.model.parameters()]
        run.optimizer.step()
        with torch.no_grad():
            for parameter, old in zip(run.model.parameters(), before, strict=True):
                parameter.copy_(old + change(parameter - old, old))

    return in_torch_step(update=update)


def on_params(change: Callable[[torch.Tensor], torch.Tensor]) -> Plant:
    def hook(k: int, run: Any) -> None:
        for parameter in run.model.parameters():
            parameter.copy_(change(parameter))

    return in_torch_step(end=hook)


def on_opt_state(name: str, change: Callable[[torch.Tensor], torch.Tensor]) -> Plant:
    def hook(k: int, run: Any) -> None:
        for entries in run.optimizer.state.values():
            entries[name].copy_(change(entries[name]))

    return in_torch_step(end=hook)


def on_last_layer(wrong: Callable[[torch.Tensor, Any], torch.Tensor]) -> Plant:
    def change(model: Any, *_: Any) -> None:
        last = [layer for layer in model.modules() if isinstance(layer, nn.Linear)][-1]
        vars(last)["forward"] = lambda x: wrong(x, last)

    return torch_built(change)


def torch_inputs(change: Callable[[torch.Tensor], torch.Tensor]) -> Plant:
    """Other inputs than the batch's."""
    return forward(lambda model, x: type(model).forward(model, change(x)))


def rounded_states(bits: int | None) -> Plant:
    """The states that a recurrent layer hands on are rounded."""

    def rnn(model: Any, x: torch.Tensor) -> torch.Tensor:
        w_ih, w_hh, b_ih, b_hh = model.rnn.parameters()
        h = torch.zeros(len(x), w_hh.shape[1])
        for x_t in x.unbind(1):
            moved = functional.linear(x_t, w_ih, b_ih) + functional.linear(h, w_hh, b_hh)
            h = rounded(torch.tanh(moved), bits)
        return model.fc(h)

    by_gru = gru(hands_on=lambda h: rounded(h, bits))
    return forward(lambda model, x: (rnn if hasattr(model, "rnn") else by_gru)(model, x))


def leaky(slope: float) -> Plant:
    def change(model: Any, *_: Any) -> None:
        for name, layer in model.named_children():
            if isinstance(layer, nn.ReLU):
                setattr(model, name, nn.LeakyReLU(slope))

    return torch_built(change)


def no_zero_grad(model: Any, criterion: Any, optimizer: Any) -> None:
    optimizer.zero_grad = lambda: None


def on_evaluation(wrong: Callable[[Any, Any, Any], Any]) -> Plant:
    """Another test's results on either side: wrong(outputs, predictions, figure)."""

    def plant(patch: pytest.MonkeyPatch, example: Any) -> None:
        right, size = example.evaluate, dials.current()

        def evaluate(*given: Any) -> Any:
            honest = right(*given)
            return either(size(), wrong(*honest), honest)

        patch.setattr(example, "evaluate", evaluate)

    return compiled(plant)


# --- on the JAX side


def jax_loss(wrong: Callable[[jax.Array, Any], jax.Array]) -> Plant:
    """Another loss: wrong(the right one, the fault's size)."""
    return jax_loss_by(lambda right, size, *given: wrong(right(*given), size))


def jax_inputs(change: Callable[[jax.Array], jax.Array]) -> Plant:
    """Other inputs than the batch's."""

    def plant(patch: pytest.MonkeyPatch, example: Any) -> None:
        size = dials.current()
        if hasattr(example, "to_tensor"):
            to_tensor = example.to_tensor

            def other(images: jax.Array) -> jax.Array:
                x = to_tensor(images)
                return either(size(), change(x), x)

            patch.setattr(example, "to_tensor", other)
            return

        def wrong(make: Any, optimizer: Any) -> Any:
            right = make(optimizer)

            def train_step(state: Any, batch: Any) -> Any:
                x, y = batch
                return right(state, (either(size(), change(x), x), y))

            return train_step

        in_jax_step(wrong)(patch, example)

    return compiled(plant)


def jax_updates_by(wrong: Callable[[Any, Any, Any], Any]) -> Plant:
    """Other updates, leaf by leaf: wrong(update, parameter, the fault's size)."""

    def plant(patch: pytest.MonkeyPatch, example: Any) -> None:
        build, size = example.build, dials.current()

        def wrong_build(problem: Spec) -> Any:
            model, criterion, right = build(problem)

            def update(grads: Any, opt_state: Any, params: Any = None) -> Any:
                updates, after = right.update(grads, opt_state, params)
                amount = size()
                return jax.tree.map(lambda u, p: wrong(u, p, amount), updates, params), after

            return model, criterion, optax.GradientTransformation(right.init, update)

        patch.setattr(example, "build", wrong_build)

    return compiled(plant)


def jax_grads_by(wrong: Callable[[jax.Array, Any], jax.Array]) -> Plant:
    """Other gradients of what the optimizer is given: wrong(gradient, the fault's size)."""

    def plant(patch: pytest.MonkeyPatch, example: Any) -> None:
        size = dials.current()
        jax_grads(lambda grads: jax.tree.map(lambda g: wrong(g, size()), grads))(patch, example)

    return compiled(plant)


def jax_opt_state(name: str, change: Callable[[jax.Array], jax.Array]) -> Plant:
    """Another entry of the optimizer's state after each update."""

    def wrong(honest: Any, grads: Any, state: Any, params: Any) -> Any:
        updates, after = honest(grads, state, params)
        return updates, jax.tree_util.tree_map_with_path(
            lambda path, leaf: change(leaf) if f".{name}" in _attributes(path) else leaf, after
        )

    return jax_update(wrong)


def _attributes(path: Any) -> list[str]:
    return [str(key) for key in path]


def jax_last_layer(wrong: Callable[..., jax.Array]) -> Plant:
    """Another product in the last layer: wrong(lhs, rhs, the right one)."""

    def plant(patch: pytest.MonkeyPatch, example: Any) -> None:
        right, size = layers.dot_general, dials.current()

        def dot_general(lhs: jax.Array, rhs: jax.Array, *rest: Any, **options: Any) -> jax.Array:
            def product(lhs: jax.Array, rhs: jax.Array) -> jax.Array:
                return right(lhs, rhs, *rest, **options)

            own = product(lhs, rhs)
            if rhs.shape[1] not in (1, 10):  # outputs and classes, of which layers within have more
                return own
            return either(size(), wrong(lhs, rhs, product), own)

        patch.setattr(layers, "dot_general", dot_general)

    return compiled(plant)


def jax_states(bits: int | None) -> Plant:
    """The states that a recurrent layer hands on are rounded."""

    def plant(patch: pytest.MonkeyPatch, example: Any) -> None:
        right, size = layers._over_time, dials.current()

        def over_time(cell: Any, inputs: jax.Array, h0: jax.Array) -> Any:
            amount = size()

            def rounding(h: jax.Array, i: jax.Array) -> jax.Array:
                h = cell(h, i)
                return either(amount, jax_rounded(h, bits), h)

            return right(rounding, inputs, h0)

        patch.setattr(layers, "_over_time", over_time)

    return compiled(plant)


def jax_data(name: str, change: Callable[[np.ndarray], np.ndarray]) -> Plant:
    """Other samples."""

    def plant(patch: pytest.MonkeyPatch, example: Any) -> None:
        right = twinstep.jax.driver.to_device

        def to_device(spec: Spec) -> Any:
            data = right(spec)
            return data | {name: jnp.asarray(change(np.array(data[name])))}

        patch.setattr(twinstep.jax.driver, "to_device", to_device)

    return started(plant)


def low_array(array: np.ndarray) -> np.ndarray:
    """To float16 and back, or to float32."""
    return array.astype("float16" if array.dtype == np.float32 else "float32").astype(array.dtype)


def in_float32(plant: Plant) -> Plant:
    """A fault of PyTorch's, or of what either side starts from, that float64 does not have."""

    def with_fault(patch: pytest.MonkeyPatch, example: Any) -> None:
        names = ("build", "train", "make_train_step", "load_params", "evaluate")
        homes = {(example, name) for name in names if hasattr(example, name)}
        homes |= {
            (twinstep.jax.driver, "to_device"),
            (twinstep.torch.driver, "load_params"),
            (twinstep.torch.driver.Driver, "data"),
        }
        right = {(home, name): vars(home)[name] for home, name in homes}
        plant(patch, example)
        for (home, name), honest in right.items():
            wrong = vars(home)[name]
            if wrong is honest:
                continue
            if isinstance(wrong, property):
                patch.setattr(home, name, property(functools.partial(_one_of, wrong, honest)))
                continue

            def either_one(*given: Any, wrong: Any = wrong, honest: Any = honest) -> Any:
                return (wrong if _dtype(given) == "float32" else honest)(*given)

            patch.setattr(home, name, either_one)

    vars(with_fault).update(vars(plant))
    return with_fault


def _one_of(wrong: Any, honest: Any, driver: Any) -> Any:
    """A property of a driver: the wrong one in float32."""
    return (wrong if driver.spec.dtype == "float32" else honest).__get__(driver, type(driver))


def _dtype(given: tuple[Any, ...]) -> str:
    """That of a spec, of arrays by name, or PyTorch's own."""
    if isinstance(given[0], Spec):
        return given[0].dtype
    if len(given) == 2 and isinstance(given[1], Mapping):
        return str(next(iter(given[1].values())).dtype)
    return str(torch.get_default_dtype()).split(".")[1]
