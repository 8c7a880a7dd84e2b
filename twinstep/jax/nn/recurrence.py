"""The recurrence of torch.nn's RNN, LSTM and GRU, and its gradient.

What the inputs add is known for all time steps before the first one. A step is one product with
W_hh, and a cell, which has no product. Backwards a step is one product too: the weights' gradients
are of all steps at once, not added up step by step.

Letters: T time steps, N samples, H hidden units, P what is handed on of them (H without
projection), G gates times H.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

__all__ = ["CELLS", "Carry", "Cell", "over_samples", "recurrence", "rows_by", "steps"]

Carry: TypeAlias = tuple[jax.Array, ...]
"""What a step hands on: (h,), or (h, c) of an LSTM."""


class Cell(NamedTuple):
    """What a step does but for its products.

    forward: (x, z, carry) -> (carry, kept), with x of the inputs and z of the states before, (N, G)
    backward: (kept, h before, h after, gradient of the carry after) ->
        (gradient of z, that of x where it is another one or else None, that of the carry before
        but for what z hands back)
    """

    gates: int
    states: int
    forward: Callable[..., Any]
    backward: Callable[..., Any]


def _plain(activation: Callable[[jax.Array], jax.Array], slope: Callable[..., Any]) -> Cell:
    """h' = activation(x + z), whose derivative is a function of h'."""

    def forward(x: jax.Array, z: jax.Array, carry: Carry) -> Any:
        return (activation(x + z),), ()

    def backward(kept: Any, before: jax.Array, after: jax.Array, grads: Carry) -> Any:
        return slope(grads[0], after), None, (jnp.zeros_like(before),)

    return Cell(1, 1, forward, backward)


def _by_tanh(grad: jax.Array, value: jax.Array) -> jax.Array:
    return grad * (1 - value * value)


def _by_sigmoid(grad: jax.Array, value: jax.Array) -> jax.Array:
    return grad * (1 - value) * value


def _by_relu(grad: jax.Array, value: jax.Array) -> jax.Array:
    return jnp.where(value > 0, grad, 0)


def _lstm_forward(x: jax.Array, z: jax.Array, carry: Carry) -> Any:
    i, f, g, o = jnp.split(x + z, 4, axis=-1)
    i, f, g, o = jax.nn.sigmoid(i), jax.nn.sigmoid(f), jnp.tanh(g), jax.nn.sigmoid(o)
    c = f * carry[1] + i * g
    t = jnp.tanh(c)
    return (o * t, c), (i, f, g, o, t, carry[1])


def _lstm_backward(kept: Any, before: jax.Array, after: jax.Array, grads: Carry) -> Any:
    i, f, g, o, t, c = kept
    grad_c = grads[1] + _by_tanh(grads[0] * o, t)
    of_gates = (
        _by_sigmoid(grad_c * g, i),
        _by_sigmoid(grad_c * c, f),
        _by_tanh(grad_c * i, g),
        _by_sigmoid(grads[0] * t, o),
    )
    return jnp.concatenate(of_gates, axis=-1), None, (jnp.zeros_like(before), grad_c * f)


def _gru_forward(x: jax.Array, z: jax.Array, carry: Carry) -> Any:
    (x_r, x_u, x_n), (z_r, z_u, z_n) = jnp.split(x, 3, axis=-1), jnp.split(z, 3, axis=-1)
    r, u = jax.nn.sigmoid(x_r + z_r), jax.nn.sigmoid(x_u + z_u)
    n = jnp.tanh(x_n + r * z_n)  # the bias b_hn, which is in z_n, is gated too
    return ((carry[0] - n) * u + n,), (r, u, n, z_n)


def _gru_backward(kept: Any, before: jax.Array, after: jax.Array, grads: Carry) -> Any:
    r, u, n, z_n = kept
    (grad,) = grads
    of_n = _by_tanh(grad * (1 - u), n)
    both = _by_sigmoid(of_n * z_n, r), _by_sigmoid(grad * (before - n), u)
    of_z = jnp.concatenate((*both, of_n * r), axis=-1)
    return of_z, jnp.concatenate((*both, of_n), axis=-1), (grad * u,)


CELLS = {
    "RNN_TANH": _plain(jnp.tanh, _by_tanh),
    "RNN_RELU": _plain(jax.nn.relu, _by_relu),
    "LSTM": Cell(4, 2, _lstm_forward, _lstm_backward),
    "GRU": Cell(3, 1, _gru_forward, _gru_backward),
}
"""{PyTorch's name of the mode: its cell}"""


def rows_by(rows: jax.Array, weight: jax.Array) -> jax.Array:
    """Rows times a weight of PyTorch's layout: (R, I), (O, I) -> (R, O)."""
    return jax.lax.dot_general(rows, weight, (((1,), (1,)), ((), ())))


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1, 2))
def recurrence(
    cell: Cell,
    reverse: bool,
    lengths: tuple[int, ...] | None,
    x: jax.Array,
    carry: Carry,
    weight_hh: jax.Array,
    bias_hh: jax.Array | None,
    weight_hr: jax.Array | None,
) -> tuple[jax.Array, Carry]:
    """All time steps.

    cell: one of CELLS; reverse: whether the last step comes first
    lengths: of each sample, its time steps, beyond which its carry stays; None: all have all
    x: W_ih x + b_ih, (T, N, G); carry: before the first step, (N, P) and (N, H)
    weight_hh: (G, P); bias_hh: (G,); weight_hr: the projection, (P, H); None: there is none

    Gives h after each step, (T, N, P), and the carry after the last one.
    """
    outputs, last, _ = steps(cell, reverse, lengths, x, carry, weight_hh, bias_hh, weight_hr)
    return outputs, last


def _within(lengths: tuple[int, ...] | None, steps: int) -> Any:
    """(T, N, 1): whether a sample still has that step; None: all have all."""
    if lengths is None:
        return None
    return np.arange(steps)[:, None, None] < np.array(lengths)[:, None]


def steps(
    cell: Cell, reverse: bool, lengths: Any, x: jax.Array, carry: Carry, weight_hh: jax.Array,
    bias_hh: jax.Array | None, weight_hr: jax.Array | None,
) -> Any:  # fmt: skip
    """The outputs, the carry after the last step, and what the way back needs of each step."""

    def step(carry: Carry, given: Any) -> Any:
        x, within = given
        z = rows_by(carry[0], weight_hh)
        z = z if bias_hh is None else z + bias_hh
        after, kept = cell.forward(x, z, carry)
        whole = None
        if weight_hr is not None:
            whole = after[0]
            after = (rows_by(whole, weight_hr), *after[1:])
        if within is not None:
            after = tuple(jnp.where(within, a, b) for a, b in zip(after, carry, strict=True))
        return after, (after[0], kept, whole)

    given = x, _within(lengths, len(x))
    last, (outputs, *of_steps) = jax.lax.scan(step, carry, given, reverse=reverse)
    return outputs, last, of_steps


def _forward(
    cell: Cell, reverse: bool, lengths: Any, x: jax.Array, carry: Carry, weight_hh: jax.Array,
    bias_hh: jax.Array | None, weight_hr: jax.Array | None,
) -> Any:  # fmt: skip
    outputs, last, of_steps = steps(cell, reverse, lengths, x, carry, weight_hh, bias_hh, weight_hr)
    return (outputs, last), (outputs, carry[0], of_steps, weight_hh, bias_hh, weight_hr)


def _backward(cell: Cell, reverse: bool, lengths: Any, saved: Any, grads: Any) -> Any:
    outputs, first, (kept, whole), weight_hh, bias_hh, weight_hr = saved
    of_outputs, of_last = grads
    order = (outputs[1:], first[None]) if reverse else (first[None], outputs[:-1])
    before = jnp.concatenate(order)  # h before each step

    def step(grads: Carry, given: Any) -> Any:
        of_output, kept, before, after, within = given
        moved = arrived = (grads[0] + of_output, *grads[1:])
        if within is not None:
            moved = tuple(jnp.where(within, g, 0) for g in arrived)
        of_h = moved[0]
        if weight_hr is not None:
            moved = (of_h @ weight_hr, *moved[1:])
        of_z, of_x, handed_on = cell.backward(kept, before, after, moved)
        handed_on = (handed_on[0] + of_z @ weight_hh, *handed_on[1:])
        if within is not None:
            handed_on = tuple(map(functools.partial(jnp.where, within), handed_on, arrived))
        return handed_on, (of_z, of_x, None if weight_hr is None else of_h)

    given = of_outputs, kept, before, outputs, _within(lengths, len(outputs))
    of_carry, (of_z, of_x, of_h) = jax.lax.scan(step, of_last, given, reverse=not reverse)
    of_weight, of_bias = _over_rows(of_z, before), None
    if bias_hh is not None:
        of_bias = jnp.sum(_rows(of_z), axis=0)
    of_projection = None if weight_hr is None else _over_rows(of_h, whole)
    return of_z if of_x is None else of_x, of_carry, of_weight, of_bias, of_projection


def _rows(values: jax.Array) -> jax.Array:
    """(T, N, size) -> (N T, size): samples first, which may be shared out among devices."""
    return jnp.swapaxes(values, 0, 1).reshape(-1, values.shape[-1])


def over_samples(change: Callable[[jax.Array], jax.Array], values: jax.Array) -> jax.Array:
    """What a change of rows, (R, I) -> (R, O), makes of (T, N, I)."""
    steps, samples, _ = values.shape
    changed = change(_rows(values))
    return jnp.swapaxes(changed.reshape(samples, steps, changed.shape[-1]), 0, 1)


def _over_rows(grads: jax.Array, inputs: jax.Array) -> jax.Array:
    """A weight's gradient, one product over all steps and samples: (T, N, O), (T, N, I)."""
    return jax.lax.dot_general(_rows(grads), _rows(inputs), (((0,), (0,)), ((), ())))


recurrence.defvjp(_forward, _backward)
