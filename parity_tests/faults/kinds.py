"""Kinds of faults, each planted in every example that can have it, on either side, in either dtype.

Those of float32 are there in float32 alone: the float64 programs of the same run are right.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import torch
from torch.nn import functional

from faults.dials import either
from faults.pairs import Pair, Plant, Side, Spot, pair, spec_of
from faults.plants_anywhere import Named, initial_params, loss, ulp_more
from faults.plants_jax import after_jax_step
from faults.plants_of_kinds import (
    jax_data,
    jax_grads_by,
    jax_inputs,
    jax_last_layer,
    jax_loss,
    jax_opt_state,
    jax_rounded,
    jax_states,
    jax_updates_by,
    leaky,
    low_array,
    no_zero_grad,
    on_evaluation,
    on_last_layer,
    on_opt_state,
    on_params,
    on_update,
    rounded,
    rounded_states,
    torch_inputs,
)
from faults.plants_torch import (
    backpropagated,
    in_torch_step,
    torch_built,
    torch_data,
    update_at,
)
from twinstep import Spec
from twinstep.problems import EXAMPLES

SMALL: dict[str, dict[str, Any]] = {
    "sgd_single_sample": {"steps": 100},
    "mnist_rnn": {"steps": 4, "hidden_size": 64, "batch_size": 28},
}
ONE_STEP = {"gradient_update", "chain_rule", "backpropagation"}
ADAM = {
    "linear_regression_adam",
    "adam_update",
    "parameter_groups",
    "selective_update",
    "mnist_rnn",
}
GRU = {"parameter_groups", "selective_update"}
RELU = {"zero_grad", "without_zero_grad", "backpropagation"}
RECURRENT = GRU | {"mnist_rnn"}
ALL = set(EXAMPLES)
LAYERED = ALL - {"chain_rule"}  # whose numbers are short binary fractions besides: none rounds
MEAN_OF_100 = {"sgd_linear_model"}  # where what samples lose cancels: docs/limits.md
FLOATS = ALL - {"mnist_rnn"}  # whose samples are whole numbers


def cell(example: str, dtype: str) -> Pair:
    """The pair of an example in which its faults are planted."""
    return pair(example, dtype, **SMALL.get(example, {}))


class Kind(NamedTuple):
    """A kind of fault.

    torch: how a fault of a size is planted there; jax: the same, its size from a dial
    place: where it must show, "" being any; sizes: {dtype: how large it is}
    least: how many times the limit it is off at least
    """

    says: str
    examples: set[str]
    torch: Callable[[float], Plant] | None
    jax: Plant | None
    spot: Callable[[Spec], Spot]
    sizes: Mapping[str, float] = {"float64": 1.0, "float32": 1.0}
    least: float = 1.0


def first(stage: str, suffix: str = "", step: int = 1) -> Callable[[Spec], Spot]:
    """The first parameter's leaf in a stage."""
    return lambda spec: Spot(step, stage, _first(spec.initial_params()) + suffix)


def first_bias(stage: str, step: int = 1) -> Callable[[Spec], Spot]:
    """The first bias in a stage."""
    return lambda spec: Spot(step, stage, _first_bias(spec.initial_params()))


def exactly(step: int, stage: str, leaf: str) -> Callable[[Spec], Spot]:
    return lambda spec: Spot(step, stage, leaf)


def _first(params: Named) -> str:
    return next(iter(params))


def _first_bias(params: Named) -> str:
    return next(name for name, array in params.items() if array.ndim == 1)


def bias_only(change: Callable[..., Any]) -> Callable[..., Any]:
    """A change of the biases, which have one axis; other arguments are sizes."""
    return lambda array, *sizes: change(array, *sizes) if array.ndim == 1 else array


def last_entry_ulp_more(array: np.ndarray) -> np.ndarray:
    array.flat[-1] = np.nextafter(array.flat[-1], np.inf)
    return array


def coarse(array: Any) -> int:
    """The bits of float8 in float32, of float32 in float64: what the mean of 100 does not hide."""
    return 3 if "32" in str(array.dtype) else 23


SMALL_PART = {"float64": 1e-10, "float32": 1e-2}
SMALL_MOVE = {"float64": 1e-9, "float32": 1e-2}

KINDS = [
    Kind(
        "loss a part too large in value alone",
        ALL,
        lambda size: in_torch_step(report=lambda k, loss: loss * (1 + size)),
        jax_loss(lambda value, size: value + jax.lax.stop_gradient(size * value)),
        exactly(1, "loss", "loss"),
        SMALL_PART,
    ),
    Kind(
        "loss a part too large",
        ALL,
        lambda size: loss(lambda value: value * (1 + size)),
        jax_loss(lambda value, size: value * (1 + size)),
        exactly(1, "loss", "loss"),
        SMALL_PART,
    ),
    Kind(
        "loss of half precision",
        LAYERED,
        lambda size: loss(lambda value: rounded(value, 10)),
        jax_loss(lambda value, size: either(size, jax_rounded(value, 10), value)),
        exactly(1, "loss", "loss"),
    ),
    Kind(
        "inputs of a few bits",
        LAYERED - MEAN_OF_100,
        lambda size: torch_inputs(lambda x: rounded(x, bits=coarse(x))),
        jax_inputs(lambda x: jax_rounded(x, bits=coarse(x))),
        exactly(1, "loss", "loss"),
    ),
    Kind(
        "operands of the last layer of low precision",
        LAYERED - MEAN_OF_100 - {"sgd_single_sample"},
        lambda size: on_last_layer(
            lambda x, layer: functional.linear(rounded(x), rounded(layer.weight), layer.bias)
        ),
        jax_last_layer(lambda a, b, product: product(jax_rounded(a), jax_rounded(b))),
        exactly(1, "loss", "loss"),
    ),
    Kind(
        "products in the last layer of a few bits",
        LAYERED - MEAN_OF_100,
        lambda size: on_last_layer(
            lambda x, layer: (
                rounded(x[..., None, :] * layer.weight, bits=coarse(x)).sum(-1) + layer.bias
            )
        ),
        jax_last_layer(
            lambda a, b, product: jnp.sum(jax_rounded(a[..., None] * b, bits=coarse(a)), axis=-2)
        ),
        exactly(1, "loss", "loss"),
    ),
    Kind(
        "operands of the last layer of a few bits",
        {"sgd_single_sample"},
        lambda size: on_last_layer(
            lambda x, layer: functional.linear(
                rounded(x, bits=coarse(x)), rounded(layer.weight, bits=coarse(x)), layer.bias
            )
        ),
        jax_last_layer(
            lambda a, b, product: product(
                jax_rounded(a, bits=coarse(a)), jax_rounded(b, bits=coarse(a))
            )
        ),
        exactly(1, "loss", "loss"),
    ),
    Kind(
        "states of low precision",
        RECURRENT,
        lambda size: rounded_states(None),
        jax_states(None),
        exactly(1, "loss", "loss"),
    ),
    Kind(
        "states of 11 bits",
        {"mnist_rnn"},
        lambda size: rounded_states(11),
        jax_states(11),
        exactly(1, "", ""),  # little: which stage has it first is a matter of luck
        least=2.0,
    ),
    Kind(
        "leak in ReLU",
        RELU,
        lambda size: leaky(size),
        None,
        exactly(1, "loss", "loss"),
        {"float64": 1e-6, "float32": 1e-2},
    ),
    Kind(
        "gradients of low precision",
        LAYERED,
        lambda size: backpropagated(rounded),
        jax_grads_by(lambda g, size: either(size, jax_rounded(g), g)),
        first("raw_grads"),
    ),
    Kind(
        "gradients a part too large",
        ALL,
        lambda size: backpropagated(lambda g: g * (1 + size)),
        jax_grads_by(lambda g, size: g * (1 + size)),
        first("raw_grads"),
        SMALL_PART,
    ),
    Kind(
        "gradients of the biases a part too large",
        LAYERED,
        lambda size: backpropagated(bias_only(lambda g: g * (1 + size))),
        jax_grads_by(bias_only(lambda g, size: g * (1 + size))),
        first_bias("raw_grads"),
        SMALL_PART,
    ),
    Kind(
        "gradients that pile up",
        ALL - ONE_STEP - {"without_zero_grad"},
        lambda size: torch_built(no_zero_grad),
        None,
        first("raw_grads", step=2),
    ),
    Kind(
        "first moment of low precision",
        ADAM,
        lambda size: on_opt_state("exp_avg", rounded),
        jax_opt_state("exp_avg", jax_rounded),
        first("opt_state", ".exp_avg"),
    ),
    Kind(
        "second moment of low precision",
        ADAM,
        lambda size: on_opt_state("exp_avg_sq", rounded),
        jax_opt_state("exp_avg_sq", jax_rounded),
        first("opt_state", ".exp_avg_sq"),
    ),
    Kind(
        "one update counted twice",
        ADAM,
        lambda size: on_opt_state("step", lambda step: step + 1),
        jax_opt_state("step", lambda step: step + 1),
        first("opt_state", ".step"),
    ),
    Kind(
        "updates of low precision",
        LAYERED,
        lambda size: on_update(lambda update, p: rounded(update)),
        jax_updates_by(lambda update, p, size: either(size, jax_rounded(update), update)),
        first("params"),
    ),
    Kind(
        "learning rate a part too large",
        ALL,
        lambda size: on_update(lambda update, p: update * (1 + size)),
        jax_updates_by(lambda update, p, size: update * (1 + size)),
        first("params"),
        SMALL_MOVE,
    ),
    Kind(
        "updates made twice",
        ALL,
        lambda size: on_update(lambda update, p: 2 * update),
        jax_updates_by(lambda update, p, size: update * (1 + size)),
        first("params"),
    ),
    Kind(
        "biases never updated",
        LAYERED,
        lambda size: on_update(lambda update, p: 0 * update if p.ndim == 1 else update),
        jax_updates_by(bias_only(lambda update, p, size: update * (1 - size))),
        first_bias("params"),
    ),
    Kind(
        "parameters decay",
        ALL,
        lambda size: on_params(lambda p: p * (1 - size)),
        jax_updates_by(lambda update, p, size: update - size * (p + update)),
        first("params"),
        {"float64": 1e-10, "float32": 1e-4},
    ),
    Kind(
        "parameters of low precision",
        LAYERED,
        lambda size: on_params(rounded),
        after_jax_step(lambda before, state: (jax.tree.map(jax_rounded, state[0]), *state[1:])),
        first("params"),
    ),
    Kind(
        "update left out in step 2",
        ALL - ONE_STEP,
        lambda size: in_torch_step(update=update_at(2, lambda k, run: None)),
        None,
        lambda spec: (
            first("opt_state", ".step", step=2) if spec.name in ADAM else first("params", step=2)
        )(spec),
    ),
    Kind(
        "the test names the least likely digit",
        {"mnist_rnn"},
        lambda size: on_evaluation(
            lambda outputs, named, right: (outputs, outputs.argmin(1), right)
        ),
        on_evaluation(lambda outputs, named, right: (outputs, jnp.argmin(outputs, 1), right)),
        exactly(4, "evaluation", ""),
    ),
    Kind(
        "one digit more is said to be right",
        {"mnist_rnn"},
        lambda size: on_evaluation(lambda outputs, named, right: (outputs, named, right + 1)),
        on_evaluation(lambda outputs, named, right: (outputs, named, right + 1)),
        exactly(4, "evaluation", "correct"),
    ),
    Kind(
        "tested outputs a part too large",
        {"mnist_rnn"},
        lambda size: on_evaluation(
            lambda outputs, named, right: (outputs * (1 + size), named, right)
        ),
        on_evaluation(lambda outputs, named, right: (outputs * 1.01, named, right)),
        exactly(4, "evaluation", "outputs"),
        SMALL_PART,
    ),
    Kind(
        "samples kept in low precision",
        FLOATS - {"chain_rule"},
        lambda size: torch_data(x=rounded),
        jax_data("x", low_array),
        exactly(1, "batch", "x"),
    ),
    Kind(
        "last target an ulp off",
        FLOATS - {"sgd_single_sample"},
        lambda size: torch_data(y=lambda y: torch.nextafter(y, y + 1)),
        jax_data("y", last_entry_ulp_more),
        exactly(1, "batch", "y"),
    ),
    Kind(
        "parameter that starts an ulp off",
        ALL,
        lambda size: initial_params(_first, ulp_more),
        initial_params(_first, ulp_more),
        first("params", step=0),
    ),
    Kind(
        "biases that start in low precision",
        LAYERED,
        lambda size: initial_params(_first_bias, low_array),
        initial_params(_first_bias, low_array),
        first_bias("params", step=0),
    ),
]


class FaultCase(NamedTuple):
    """A fault of the table: a kind, in an example, on a side, in a dtype."""

    kind: Kind
    side: Side
    pair: Pair

    def __str__(self) -> str:
        return f"{self.kind.says} in {self.pair}, {self.side}"

    @property
    def dtype(self) -> str:
        return spec_of(self.pair).dtype

    @property
    def spot(self) -> Spot:
        return self.kind.spot(spec_of(self.pair))

    def found(self, spot: Spot | None) -> bool:
        """Whether a place is the fault's."""
        if spot is None:
            return False
        pairs = zip(spot, self.spot, strict=True)
        return all(said == expected or expected == "" for said, expected in pairs)

    @property
    def size(self) -> float:
        return self.kind.sizes[self.dtype]


def with_fault(example: str, dtype: str, side: Side) -> list[FaultCase]:
    """The faults of one side of an example in one dtype."""
    return [
        FaultCase(kind, side, cell(example, dtype))
        for kind in KINDS
        if example in kind.examples and (kind.torch if side == "torch" else kind.jax)
    ]
