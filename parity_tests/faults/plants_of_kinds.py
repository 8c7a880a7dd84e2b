"""How a kind of fault is planted in any example: in the words of PyTorch, and in JAX's.

What is low precision is float32 in float64 and bfloat16 in float32, or as few bits as are said.
A plant in JAX has its size from a dial.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

import twinstep.jax.driver
import twinstep.torch.driver
from faults.dials import either
from faults.models_torch import gru
from faults.pairs import Plant
from faults.plants_anywhere import Size, built, compiled, loss, replaced, started
from faults.plants_jax import in_jax_step, jax_grads, jax_loss_by, jax_update, jax_update_by
from faults.plants_torch import (
    backpropagated,
    forward,
    in_torch_step,
    inputs_by,
    state_by,
    torch_data,
    update_by,
)
from twinstep import Spec
from twinstep.jax.nn import linear, rnn_base
from twinstep.jax.nn.recurrence import Carry, Cell, recurrence, steps


def rounded(array: Any, bits: int | None = None) -> Any:
    """To so many bits of mantissa, of either framework.

    In PyTorch the gradient passes as it is (Source: Veltkamp, Dekker), in JAX it is rounded alike.
    """
    single = "32" in str(array.dtype)
    bits = (7 if single else 23) if bits is None else bits
    if not isinstance(array, torch.Tensor):
        return jax.lax.reduce_precision(jnp.asarray(array), 8 if single else 11, bits)
    more = (2.0 ** ((24 if single else 53) - bits - 1) + 1) * array.detach()
    return array + ((more - (more - array.detach())) - array.detach())


def few_bits(array: Any) -> Any:
    """To the bits of float8 in float32, of float32 in float64: the mean of 100 does not hide it."""
    return rounded(array, 3 if "32" in str(array.dtype) else 23)


class Sides(NamedTuple):
    """How a kind is planted: in PyTorch by its size, in JAX with the size from a dial."""

    torch: Callable[[float], Plant] | None
    jax: Plant | None


# --- on both sides: `wrong` is told the size last


def everywhere(plant: Plant) -> Sides:
    """One plant for both, whatever its size."""
    return Sides(lambda size: plant, plant)


def losses(wrong: Callable[[Any, Any], Any]) -> Sides:
    """Another loss: wrong(the right one, size)."""

    def in_jax(right: Callable[..., Any], size: Any, *given: Any) -> Any:
        value = right(*given)
        return either(size, wrong(value, size), value)

    return Sides(lambda size: loss(lambda value: wrong(value, size)), jax_loss_by(in_jax))


def gradients(wrong: Callable[[Any, Any], Any]) -> Sides:
    """Other gradients of what the optimizer is given, leaf by leaf: wrong(gradient, size)."""
    return Sides(
        lambda size: backpropagated(lambda grad: wrong(grad, size)),
        jax_grads(lambda grads, size: jax.tree.map(lambda grad: wrong(grad, size), grads)),
    )


def updates(wrong: Callable[[Any, Any, Any], Any]) -> Sides:
    """Other updates, leaf by leaf: wrong(update, parameter before, size)."""

    def in_jax(honest: Any, size: Any, grads: Any, state: Any, params: Any) -> Any:
        right, after = honest(grads, state, params)
        other = jax.tree.map(lambda update, p: wrong(update, p, size), right, params)
        return either(size, other, right), after

    def in_torch(size: float) -> Plant:
        return in_torch_step(
            update=update_by(lambda name, p, old: p.copy_(old + wrong(p - old, old, size)))
        )

    return Sides(in_torch, jax_update_by(in_jax))


def opt_state(name: str, change: Callable[[Any], Any]) -> Sides:
    """Another entry of the optimizer's state after each update."""

    def in_jax(honest: Any, grads: Any, state: Any, params: Any) -> Any:
        updates, after = honest(grads, state, params)
        return updates, jax.tree_util.tree_map_with_path(
            lambda path, leaf: change(leaf) if f".{name}" in map(str, path) else leaf, after
        )

    return Sides(lambda size: in_torch_step(end=state_by(name, change)), jax_update(in_jax))


def evaluation(wrong: Callable[..., Any]) -> Sides:
    """Another test's results: wrong(outputs, predictions, figure, size)."""

    def other(size: Size, right: Callable[..., Any]) -> Callable[..., Any]:
        def evaluate(*given: Any) -> Any:
            honest, amount = right(*given), size()
            return either(amount, wrong(*honest, amount), honest)

        return evaluate

    def plant(size: Size) -> Plant:
        return replaced("evaluate", functools.partial(other, size))

    return Sides(lambda size: plant(lambda: size), compiled(plant))


def inputs(change: Callable[[Any], Any]) -> Sides:
    """Other inputs than the batch's."""

    def in_jax(size: Size, patch: pytest.MonkeyPatch, example: Any) -> None:
        def other(x: jax.Array) -> jax.Array:
            return either(size(), change(x), x)

        def wrong(make: Any, optimizer: Any) -> Any:
            right = make(optimizer)
            return lambda state, batch: right(state, (other(batch[0]), batch[1]))

        if hasattr(example, "to_tensor"):
            to_tensor = example.to_tensor
            patch.setattr(example, "to_tensor", lambda images: other(to_tensor(images)))
        else:
            in_jax_step(wrong)(patch, example)

    return Sides(
        lambda size: inputs_by(change), compiled(lambda size: functools.partial(in_jax, size))
    )


def last_layer(in_torch: Callable[[Any, Any], Any], in_jax: Callable[..., Any]) -> Sides:
    """Another product in the last layer: in_torch(x, layer), in_jax(lhs, rhs, the right one)."""

    def change(model: Any, *_: Any) -> None:
        last = [layer for layer in model.modules() if isinstance(layer, nn.Linear)][-1]
        vars(last)["forward"] = lambda x: in_torch(x, last)

    def wrong(size: Size, right: Callable[..., Any]) -> Callable[..., Any]:
        def dot_general(lhs: jax.Array, rhs: jax.Array, *rest: Any, **options: Any) -> jax.Array:
            def product(lhs: jax.Array, rhs: jax.Array) -> jax.Array:
                return right(lhs, rhs, *rest, **options)

            own = product(lhs, rhs)
            if rhs.shape[1] not in (1, 10):  # outputs and classes, of which layers within have more
                return own
            return either(size(), in_jax(lhs, rhs, product), own)

        return dot_general

    return Sides(
        lambda size: built(change),
        compiled(lambda size: replaced("dot_general", functools.partial(wrong, size), home=linear)),
    )


def operands(change: Callable[[Any], Any]) -> Sides:
    """Other operands of the last layer."""
    return last_layer(
        lambda x, layer: functional.linear(change(x), change(layer.weight), layer.bias),
        lambda lhs, rhs, product: product(change(lhs), change(rhs)),
    )


def rounded_states(bits: int | None) -> Plant:
    """The states that a recurrent layer of PyTorch's hands on are rounded."""

    def rnn(model: Any, x: torch.Tensor) -> torch.Tensor:
        w_ih, w_hh, b_ih, b_hh = model.rnn.parameters()
        h = torch.zeros(len(x), w_hh.shape[1])
        for x_t in x.unbind(1):
            moved = functional.linear(x_t, w_ih, b_ih) + functional.linear(h, w_hh, b_hh)
            h = rounded(torch.tanh(moved), bits)
        return model.fc(h)

    by_gru = gru(hands_on=lambda h: rounded(h, bits))
    return forward(lambda model, x: (rnn if hasattr(model, "rnn") else by_gru)(model, x))


def states(bits: int | None) -> Sides:
    """The states that a recurrent layer hands on are rounded."""

    def wrong(size: Size, right: Callable[..., Any]) -> Callable[..., Any]:
        # with another cell the gradient is JAX's own, of the rounded states
        run = (lambda *given: steps(*given)[:2]) if right is recurrence else right

        def rounded_recurrence(cell: Cell, reverse: bool, lengths: Any, *given: Any) -> Any:
            amount = size()

            def rounding(x: jax.Array, z: jax.Array, carry: Carry) -> Any:
                (h,), kept = cell.forward(x, z, carry)
                return (either(amount, rounded(h, bits), h),), kept

            return run(cell._replace(forward=rounding), reverse, lengths, *given)

        return rounded_recurrence

    return Sides(
        lambda size: rounded_states(bits),
        compiled(
            lambda size: replaced("recurrence", functools.partial(wrong, size), home=rnn_base)
        ),
    )


def samples(name: str, change: Callable[[np.ndarray], np.ndarray]) -> Sides:
    """Other samples."""

    def in_jax(right: Callable[..., Any]) -> Callable[..., Any]:
        def to_device(spec: Spec) -> Any:
            data = right(spec)
            return data | {name: jnp.asarray(change(np.array(data[name])))}

        return to_device

    def in_torch(rows: torch.Tensor) -> torch.Tensor:
        return torch.from_numpy(change(rows.numpy()))

    return Sides(
        lambda size: torch_data(**{name: in_torch}),
        started(replaced("to_device", in_jax, home=twinstep.jax.driver)),
    )


def low_array(array: np.ndarray) -> np.ndarray:
    """To float16 and back, or to float32."""
    return array.astype("float16" if array.dtype == np.float32 else "float32").astype(array.dtype)


# --- on one side


def leaky(slope: float) -> Plant:
    def change(model: Any, *_: Any) -> None:
        for name, layer in model.named_children():
            if isinstance(layer, nn.ReLU):
                setattr(model, name, nn.LeakyReLU(slope))

    return built(change)


def in_float32(plant: Plant) -> Plant:
    """A fault of PyTorch's, or of what either side starts from, that float64 does not have."""

    def planted(patch: pytest.MonkeyPatch, example: Any) -> None:
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
            if isinstance(wrong, property) and wrong is not honest:
                patch.setattr(home, name, property(functools.partial(_one_of, wrong, honest)))
            elif wrong is not honest:
                patch.setattr(home, name, functools.partial(_called, wrong, honest))

    vars(planted).update(vars(plant))
    return planted


def _one_of(wrong: Any, honest: Any, driver: Any) -> Any:
    """A property of a driver: the wrong one in float32."""
    return (wrong if driver.spec.dtype == "float32" else honest).__get__(driver, type(driver))


def _called(wrong: Any, honest: Any, *given: Any) -> Any:
    """What the wrong one gives in float32, or the honest one."""
    return (wrong if _dtype(given) == "float32" else honest)(*given)


def _dtype(given: tuple[Any, ...]) -> str:
    """That of a spec, of arrays by name, or PyTorch's own."""
    if isinstance(given[0], Spec):
        return given[0].dtype
    if len(given) == 2 and isinstance(given[1], Mapping):
        return str(next(iter(given[1].values())).dtype)
    return str(torch.get_default_dtype()).split(".")[1]
