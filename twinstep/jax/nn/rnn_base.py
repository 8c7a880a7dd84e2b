"""What torch.nn's recurrent layers have in common: layers of layers, directions, packed sequences.

Letters: N samples, T time steps, S time steps of packed sequences together, I inputs, H hidden
units, P what is handed on of them (H without proj_size), L layers, D directions, G gates times H.
"""

import functools
import warnings
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from twinstep.errors import InputError, check_arguments
from twinstep.jax.nn.computed import read
from twinstep.jax.nn.drawing import drawing
from twinstep.jax.nn.module import Module, Parameter, default_dtype
from twinstep.jax.nn.recurrence import CELLS, Carry, over_samples, recurrence, rows_by
from twinstep.jax.nn.utils.rnn import PackedSequence, grid_of, lengths_of

__all__ = ["MODES", "RNNBase", "check_state"]

MODES = {"tanh": "RNN_TANH", "relu": "RNN_RELU"}
"""{nonlinearity: PyTorch's name of an RNN's mode}"""


class RNNBase(Module):
    """What RNN, LSTM and GRU have in common."""

    weight_ih_l0: Parameter
    weight_hh_l0: Parameter
    bias_ih_l0: Parameter
    bias_hh_l0: Parameter

    def __init__(
        self,
        mode: str,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        proj_size: int = 0,
        device: Any = None,
        dtype: Any = None,
        *,
        generator: Any = None,
        rngs: Any = None,
    ) -> None:
        check_arguments(
            type(self).__name__,
            input_size=_positive(input_size),
            hidden_size=_positive(hidden_size),
            num_layers=_positive(num_layers),
            bias=(bias, "True or False", lambda value: isinstance(value, bool)),
            batch_first=(batch_first, "True or False", lambda value: isinstance(value, bool)),
            dropout=(dropout, "a number from 0 to 1", _is_probability),
            proj_size=(
                proj_size, f"0, or an int below hidden_size, {hidden_size}",
                lambda value: isinstance(value, int) and 0 <= value < hidden_size,
            ),
        )  # fmt: skip
        if dropout > 0 and num_layers == 1:
            warnings.warn(
                f"{type(self).__name__}: dropout is {dropout} and comes after all layers but the "
                "last, expected num_layers above 1",
                stacklevel=3,
            )
        self.mode, self.input_size, self.hidden_size = mode, input_size, hidden_size
        self.num_layers, self.bias, self.batch_first = num_layers, bias, batch_first
        self.dropout, self.bidirectional = float(dropout), bidirectional
        self.proj_size = proj_size
        draws, dtype = drawing(generator, rngs), default_dtype(dtype)
        bound = 1 / hidden_size**0.5
        for layer in range(num_layers):
            for suffix in self._suffixes(layer):
                for name, shape in self._shapes(layer).items():
                    values = draws.uniform(shape, -bound, bound, dtype)
                    setattr(self, name + suffix, Parameter(values))
        self.generator = drawing(generator, rngs, "dropout") if dropout > 0 else None

    def _suffixes(self, layer: int) -> tuple[str, ...]:
        """What stands behind the names of a layer's parameters, for each direction."""
        return (f"_l{layer}", f"_l{layer}_reverse") if self.bidirectional else (f"_l{layer}",)

    def _shapes(self, layer: int) -> dict[str, tuple[int, ...]]:
        """{parameter: shape} of one direction of a layer, in the order they are drawn in."""
        rows, handed_on = CELLS[self.mode].gates * self.hidden_size, self._state_sizes()[0]
        directions = 2 if self.bidirectional else 1
        inputs = directions * handed_on if layer else self.input_size
        shapes: dict[str, tuple[int, ...]] = {
            "weight_ih": (rows, inputs), "weight_hh": (rows, handed_on),
        }  # fmt: skip
        if self.bias:
            shapes |= {"bias_ih": (rows,), "bias_hh": (rows,)}
        if self.proj_size:
            shapes["weight_hr"] = (self.proj_size, self.hidden_size)
        return shapes

    def _state_sizes(self) -> tuple[int, ...]:
        """The sizes of h, and of an LSTM's c."""
        handed_on = self.proj_size or self.hidden_size
        return (handed_on, self.hidden_size)[: CELLS[self.mode].states]

    def flatten_parameters(self) -> None:
        """PyTorch's for CUDA: nothing is to be done here."""

    def forward(self, input: Any, hx: Any = None) -> Any:
        """As said above."""
        if isinstance(input, PackedSequence):
            return self._of_packed(input, hx)
        what, input = type(self).__name__, jnp.asarray(input)
        batched = input.ndim == 3
        axes = "(T, N, {0}), (T, {0})" if not self.batch_first else "(N, T, {0}), (T, {0})"
        if input.ndim not in (2, 3) or input.shape[-1] != self.input_size:
            raise InputError(
                f"{what}: input has shape {input.shape}, expected {axes.format(self.input_size)}"
            )
        x = input if batched else input[:, None]
        turned = batched and self.batch_first
        x = jnp.swapaxes(x, 0, 1) if turned else x
        steps, samples = x.shape[:2]
        if not steps:
            raise InputError(f"{what}: input has shape {input.shape}, expected a time step or more")
        weights = self._weights()
        states = self._states(input, hx, samples, batched, weights["weight_ih_l0"].dtype)
        output, states = self._over_layers(x, _Grid(), states, weights)
        output = jnp.swapaxes(output, 0, 1) if turned else output
        if not batched:
            output, states = output[:, 0], tuple(state[:, 0] for state in states)
        return output, self._handed_on(states)

    def _of_packed(self, packed: PackedSequence, hx: Any) -> Any:
        data, sizes, order, places = packed
        if data.ndim != 2 or data.shape[-1] != self.input_size:
            raise InputError(
                f"{type(self).__name__}: input.data has shape {data.shape}, "
                f"expected (S, {self.input_size})"
            )
        weights = self._weights()
        states = self._states(data, hx, int(sizes[0]), True, weights["weight_ih_l0"].dtype)
        if order is not None:
            states = tuple(state[:, order] for state in states)
        grid = _Grid(tuple(lengths_of(packed).tolist()), grid_of(sizes))
        rows, states = self._over_layers(data, grid, states, weights)
        if places is not None:
            states = tuple(state[:, places] for state in states)
        return PackedSequence(rows, sizes, order, places), self._handed_on(states)

    def _weights(self) -> dict[str, jax.Array]:
        """All that there are, by name.

        PyTorch's layer reads each weight that is computed twice, and the first of them twice more.
        """
        suffixes = [suffix for layer in range(self.num_layers) for suffix in self._suffixes(layer)]
        names = [name + suffix for suffix in suffixes for name in self._shapes(0)]
        computed = [name for name in names if name not in vars(self)]
        return {name: read(self, name, 4 if [name] == computed[:1] else 2)[...] for name in names}

    def _states(self, input: jax.Array, hx: Any, samples: int, batched: bool, dtype: Any) -> Carry:
        """h, and c, before the first step, (L D, N, size) each; None: zeros."""
        what = type(self).__name__
        if input.dtype != dtype:
            raise InputError(f"{what}: input is {input.dtype}, expected {dtype} as the weights are")
        layers = self.num_layers * (2 if self.bidirectional else 1)
        shapes = [(layers, samples, size) for size in self._state_sizes()]
        if hx is None:
            return tuple(jnp.zeros(shape, dtype) for shape in shapes)
        names = ("hx",) if len(shapes) == 1 else ("hx[0]", "hx[1]")
        given = (hx,) if len(shapes) == 1 else hx
        if len(shapes) == 2 and not (isinstance(hx, list | tuple) and len(hx) == 2):
            raise InputError(f"{what}: hx is {type(hx).__name__}, expected (h, c)")
        for name, state, shape in zip(names, given, shapes, strict=True):
            expected = shape if batched else (shape[0], shape[2])
            check_state(what, name, state, expected, dtype)
        return tuple(s if batched else s[:, None] for s in map(jnp.asarray, given))

    def _handed_on(self, states: Carry) -> Any:
        return states if len(states) == 2 else states[0]

    def _over_layers(
        self, rows: jax.Array, grid: "_Grid", states: Carry, weights: dict[str, jax.Array]
    ) -> tuple[jax.Array, Carry]:
        """The outputs, (rows, D P) of what is packed, else (T, N, D P), and the last states."""
        last: list[Carry] = []
        for layer in range(self.num_layers):
            outputs = []
            for suffix in self._suffixes(layer):
                before = tuple(state[len(last)] for state in states)
                output, after = self._over_time(rows, grid, before, suffix, weights)
                outputs.append(output)
                last.append(after)
            rows = outputs[0] if len(outputs) == 1 else jnp.concatenate(outputs, axis=-1)
            if layer < self.num_layers - 1 and self.training and self.dropout:
                rows = self._dropped(rows)
        return rows, tuple(jnp.stack(of_one) for of_one in zip(*last, strict=True))

    def _over_time(
        self, rows: jax.Array, grid: "_Grid", carry: Carry, suffix: str,
        weights: dict[str, jax.Array],
    ) -> tuple[jax.Array, Carry]:  # fmt: skip
        """One direction of a layer. What its inputs add is one product for all steps."""
        names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh", "weight_hr")
        held: Any = (weights.get(name + suffix) for name in names)
        w_ih, w_hh, b_ih, b_hh, w_hr = held
        x = grid.product(rows, w_ih)
        x = x if b_ih is None else x + b_ih
        outputs, last = recurrence(
            CELLS[self.mode], suffix.endswith("_reverse"), grid.lengths, x, carry,
            w_hh, b_hh, w_hr,
        )  # fmt: skip
        return grid.in_rows(outputs), last

    def _dropped(self, rows: jax.Array) -> jax.Array:
        if self.dropout == 1:
            return rows * 0
        draws = drawing() if self.generator is None else self.generator
        kept = draws.bernoulli(rows.shape, 1 - self.dropout, rows.dtype)
        return rows * (kept / (1 - self.dropout))


class _Grid(NamedTuple):
    """How rows lie in time steps by samples, where they are packed; else they do: (T, N, size).

    lengths: of each sample its time steps; places: as `grid_of` has them
    """

    lengths: tuple[int, ...] | None = None
    places: Any = None

    def product(self, rows: jax.Array, weight: jax.Array) -> jax.Array:
        """Rows times a weight of PyTorch's layout, (T, N, O), in one product."""
        if self.places is not None:
            return rows_by(rows, weight)[self.places[0]]
        return over_samples(functools.partial(rows_by, weight=weight), rows)

    def in_rows(self, grid: jax.Array) -> jax.Array:
        """(T, N, size) -> (rows, size)"""
        if self.places is None:
            return grid
        return grid.reshape(-1, grid.shape[-1])[self.places[1]]


def check_state(what: str, name: str, state: Any, shape: tuple[int, ...], dtype: Any) -> None:
    """Raises InputError for a state of another shape, which would broadcast, or another dtype."""
    if jnp.shape(state) != shape:
        raise InputError(f"{what}: {name} has shape {jnp.shape(state)}, expected {shape}")
    if jnp.asarray(state).dtype != dtype:
        raise InputError(f"{what}: {name} is {state.dtype}, expected {dtype} as the weights are")


def _positive(size: Any) -> Any:
    return size, "an int above 0", lambda value: isinstance(value, int) and value > 0


def _is_probability(value: Any) -> bool:
    return not isinstance(value, bool) and 0 <= value <= 1
