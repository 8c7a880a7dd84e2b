"""How a kind of fault is planted in any example: in the words of PyTorch, and in JAX's.

What is low precision is float32 in float64 and bfloat16 in float32, or as few bits as are said.
A plant in JAX has its size from a dial.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch
import twinstep.jax.recording
import twinstep.torch.recording
from torch import nn
from torch.nn import functional

from planted import dials
from planted.dials import either
from planted.pairs import Plant
from planted.plants_anywhere import compiled, loss, started
from planted.plants_jax import jax_grads, jax_update
from planted.plants_torch import forward, gru, in_torch_step, torch_state
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


def on_grads(change: Callable[[torch.Tensor], torch.Tensor]) -> Plant:
    def hook(k: int, state: Any) -> None:
        for parameter in state.model.parameters():
            parameter.grad.copy_(change(parameter.grad))

    return in_torch_step(graded=hook)


def on_update(change: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> Plant:
    """The update as a change of parameters: change(update, parameter before)."""

    def update(k: int, state: Any) -> None:
        before = [parameter.detach().clone() for parameter in state.model.parameters()]
        state.optimizer.step()
        with torch.no_grad():
            for parameter, old in zip(state.model.parameters(), before, strict=True):
                parameter.copy_(old + change(parameter - old, old))

    return in_torch_step(update=update)


def on_params(change: Callable[[torch.Tensor], torch.Tensor]) -> Plant:
    def hook(k: int, state: Any) -> None:
        for parameter in state.model.parameters():
            parameter.copy_(change(parameter))

    return in_torch_step(end=hook)


def on_opt_state(name: str, change: Callable[[torch.Tensor], torch.Tensor]) -> Plant:
    def hook(k: int, state: Any) -> None:
        for entries in state.optimizer.state.values():
            entries[name].copy_(change(entries[name]))

    return in_torch_step(end=hook)


def on_last_layer(wrong: Callable[[torch.Tensor, Any], torch.Tensor]) -> Plant:
    def change(state: Any) -> None:
        last = [layer for layer in state.model.modules() if isinstance(layer, nn.Linear)][-1]
        vars(last)["forward"] = lambda x: wrong(x, last)

    return torch_state(change)


def torch_inputs(change: Callable[[torch.Tensor], torch.Tensor]) -> Plant:
    """Other inputs than the batch's."""

    def plant(patch: pytest.MonkeyPatch, example: Any) -> None:
        if hasattr(example, "to_tensor"):
            right = example.to_tensor
            patch.setattr(example, "to_tensor", lambda images: change(right(images)))
            return
        loss(
            lambda loss_fn, model, criterion, batch: loss_fn(
                model, criterion, {**batch, "x": change(batch["x"])}
            )
        )(patch, example)

    return plant


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
    def change(state: Any) -> None:
        for name, layer in state.model.named_children():
            if isinstance(layer, nn.ReLU):
                setattr(state.model, name, nn.LeakyReLU(slope))

    return torch_state(change)


def no_zero_grad(state: Any) -> None:
    state.optimizer.zero_grad = lambda: None


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

    def plant(patch: pytest.MonkeyPatch, example: Any) -> None:
        right, size = example.loss_fn, dials.current()

        def loss_fn(model: Any, criterion: Any, batch: Any) -> jax.Array:
            return wrong(right(model, criterion, batch), size())

        patch.setattr(example, "loss_fn", loss_fn)

    return compiled(plant)


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
        right = example.loss_fn

        def loss_fn(model: Any, criterion: Any, batch: Any) -> jax.Array:
            x = either(size(), change(batch["x"]), batch["x"])
            return right(model, criterion, {**batch, "x": x})

        patch.setattr(example, "loss_fn", loss_fn)

    return compiled(plant)


def jax_updates_by(wrong: Callable[[Any, Any, Any], Any]) -> Plant:
    """Other updates, leaf by leaf: wrong(update, parameter, the fault's size)."""

    def plant(patch: pytest.MonkeyPatch, example: Any) -> None:
        init, size = example.init, dials.current()

        def wrong_init(spec: Spec) -> Any:
            state = init(spec)
            right = state.optimizer

            def update(grads: Any, opt_state: Any, params: Any = None) -> Any:
                updates, after = right.update(grads, opt_state, params)
                amount = size()
                return jax.tree.map(lambda u, p: wrong(u, p, amount), updates, params), after

            return state.replace(optimizer=optax.GradientTransformation(right.init, update))

        patch.setattr(example, "init", wrong_init)

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
        right = twinstep.jax.recording.to_device

        def to_device(spec: Spec) -> Any:
            data = right(spec)
            return data | {name: jnp.asarray(change(np.array(data[name])))}

        patch.setattr(twinstep.jax.recording, "to_device", to_device)

    return started(plant)


def low_array(array: np.ndarray) -> np.ndarray:
    """To float16 and back, or to float32."""
    return array.astype("float16" if array.dtype == np.float32 else "float32").astype(array.dtype)


def in_float32(plant: Plant) -> Plant:
    """A fault of PyTorch's, or of what either side starts from, that float64 does not have."""

    def planted(patch: pytest.MonkeyPatch, example: Any) -> None:
        names = ("init", "loss_fn", "train_step", "to_tensor", "evaluate")
        homes = {(example, name) for name in names if hasattr(example, name)}
        homes |= {
            (home, "to_device") for home in (twinstep.torch.recording, twinstep.jax.recording)
        }
        right = {(home, name): getattr(home, name) for home, name in homes}
        plant(patch, example)
        for (home, name), honest in right.items():
            wrong = getattr(home, name)

            def either_one(*given: Any, wrong: Any = wrong, honest: Any = honest) -> Any:
                spec = given[0] if isinstance(given[0], Spec) else None
                dtype = spec.dtype if spec else str(torch.get_default_dtype()).split(".")[1]
                return (wrong if dtype == "float32" else honest)(*given)

            if wrong is not honest:
                patch.setattr(home, name, either_one)

    vars(planted).update(vars(plant))
    return planted
