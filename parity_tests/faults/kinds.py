"""Kinds of faults, each planted in every example that can have it, on either side, in either dtype.

Those of float32 are there in float32 alone: the float64 programs of the same run are right.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from faults.pairs import Pair, Side, Spot, pair, spec_of
from faults.plants_anywhere import Named, built, initial_params, ulp_more
from faults.plants_jax import after_jax_step, jax_loss_by
from faults.plants_of_kinds import (
    Sides,
    evaluation,
    everywhere,
    few_bits,
    gradients,
    inputs,
    last_layer,
    leaky,
    losses,
    low_array,
    operands,
    opt_state,
    rounded,
    samples,
    states,
    updates,
)
from faults.plants_torch import in_torch_step, params_by, update_at
from twinstep import Spec
from twinstep.problems import EXAMPLES

SMALL: dict[str, dict[str, Any]] = {
    "sgd_single_sample": {"steps": 100},
    "mnist_rnn": {"steps": 4, "hidden_size": 64, "batch_size": 28},
}
SINGLE = {"sgd_single_sample"}
ONE_STEP = {"gradient_update", "chain_rule", "backpropagation"}
DIGITS = {"mnist_rnn"}
RECURRENT = {"parameter_groups", "selective_update"} | DIGITS
ADAM = {"linear_regression_adam", "adam_update"} | RECURRENT
RELU = {"zero_grad", "without_zero_grad", "backpropagation"}
ALL = set(EXAMPLES)
LAYERED = ALL - {"chain_rule"}  # whose numbers are short binary fractions besides: none rounds
MEAN_OF_100 = {"sgd_linear_model"}  # where what samples lose cancels: docs/limits.md
FLOATS = ALL - DIGITS  # whose samples are whole numbers


def cell(example: str, dtype: str) -> Pair:
    """The pair of an example in which its faults are planted."""
    return pair(example, dtype, **SMALL.get(example, {}))


SpotOf = Callable[[Spec], Spot]
Choice = Callable[[Named], str]


def _first(params: Named) -> str:
    return next(iter(params))


def _first_bias(params: Named) -> str:
    return next(name for name, array in params.items() if array.ndim == 1)


def first(stage: str, suffix: str = "", step: int = 1, of: Choice = _first) -> SpotOf:
    """The first parameter's leaf in a stage, or another one's."""
    return lambda spec: Spot(step, stage, of(spec.initial_params()) + suffix)


def exactly(step: int, stage: str, leaf: str) -> SpotOf:
    return lambda spec: Spot(step, stage, leaf)


class Kind(NamedTuple):
    """A kind of fault.

    spot: where it must show, "" being any; sizes: {dtype: how large it is}
    least: how many times the limit it is off at least
    """

    says: str
    examples: set[str]
    plants: Sides
    spot: SpotOf = exactly(1, "loss", "loss")
    sizes: Mapping[str, float] = {"float64": 1.0, "float32": 1.0}
    least: float = 1.0


def bias_only(change: Callable[..., Any]) -> Callable[..., Any]:
    """A change of the biases, which have one axis; other arguments are sizes."""
    return lambda array, *sizes: change(array, *sizes) if array.ndim == 1 else array


def larger(value: Any, *others: Any) -> Any:
    """A part too large; the size comes last."""
    return value * (1 + others[-1])


def lower(value: Any, *others: Any) -> Any:
    """Of low precision."""
    return rounded(value)


SMALL_PART = {"float64": 1e-10, "float32": 1e-2}
SMALL_MOVE = {"float64": 1e-9, "float32": 1e-2}

KINDS = [
    Kind(
        "loss a part too large in value alone",
        ALL,
        Sides(
            lambda size: in_torch_step(report=lambda k, loss: larger(loss, size)),
            jax_loss_by(
                lambda right, size, *given: (
                    right(*given) + jax.lax.stop_gradient(size * right(*given))
                )
            ),
        ),
        sizes=SMALL_PART,
    ),
    Kind("loss a part too large", ALL, losses(larger), sizes=SMALL_PART),
    Kind("loss of half precision", LAYERED, losses(lambda value, size: rounded(value, 10))),
    Kind("inputs of a few bits", LAYERED - MEAN_OF_100, inputs(few_bits)),
    Kind(
        "operands of the last layer of low precision",
        LAYERED - MEAN_OF_100 - SINGLE,
        operands(rounded),
    ),
    Kind(
        "products in the last layer of a few bits",
        LAYERED - MEAN_OF_100,
        last_layer(
            lambda x, layer: few_bits(x[..., None, :] * layer.weight).sum(-1) + layer.bias,
            lambda lhs, rhs, product: jnp.sum(few_bits(lhs[..., None] * rhs), axis=-2),
        ),
    ),
    Kind("operands of the last layer of a few bits", SINGLE, operands(few_bits)),
    Kind("states of low precision", RECURRENT, states(None)),
    # little: which stage has it first is a matter of luck
    Kind("states of 11 bits", DIGITS, states(11), exactly(1, "", ""), least=2.0),
    Kind("leak in ReLU", RELU, Sides(leaky, None), sizes={"float64": 1e-6, "float32": 1e-2}),
    Kind("gradients of low precision", LAYERED, gradients(lower), first("raw_grads")),
    Kind("gradients a part too large", ALL, gradients(larger), first("raw_grads"), SMALL_PART),
    Kind(
        "gradients of the biases a part too large",
        LAYERED,
        gradients(bias_only(larger)),
        first("raw_grads", of=_first_bias),
        SMALL_PART,
    ),
    Kind(
        "gradients that pile up",
        ALL - ONE_STEP - {"without_zero_grad"},
        Sides(
            lambda size: built(lambda *parts: setattr(parts[2], "zero_grad", lambda: None)), None
        ),
        first("raw_grads", step=2),
    ),
    *(
        Kind(says, ADAM, opt_state(name, change), first("opt_state", f".{name}"))
        for says, name, change in (
            ("first moment of low precision", "exp_avg", rounded),
            ("second moment of low precision", "exp_avg_sq", rounded),
            ("one update counted twice", "step", lambda step: step + 1),
        )
    ),
    Kind("updates of low precision", LAYERED, updates(lower), first("params")),
    Kind("learning rate a part too large", ALL, updates(larger), first("params"), SMALL_MOVE),
    Kind("updates made twice", ALL, updates(larger), first("params")),
    Kind(
        "biases never updated",
        LAYERED,
        updates(bias_only(lambda update, p, size: 0 * update)),
        first("params", of=_first_bias),
    ),
    Kind(
        "parameters decay",
        ALL,
        updates(lambda update, p, size: update - size * (p + update)),
        first("params"),
        {"float64": 1e-10, "float32": 1e-4},
    ),
    Kind(
        "parameters of low precision",
        LAYERED,
        Sides(
            lambda size: in_torch_step(end=params_by(rounded)),
            after_jax_step(lambda before, state: (jax.tree.map(rounded, state[0]), *state[1:])),
        ),
        first("params"),
    ),
    Kind(
        "update left out in step 2",
        ALL - ONE_STEP,
        Sides(lambda size: in_torch_step(update=update_at(2, lambda k, run: None)), None),
        lambda spec: (
            first("opt_state", ".step", step=2) if spec.name in ADAM else first("params", step=2)
        )(spec),
    ),
    Kind(
        "the test names the least likely digit",
        DIGITS,
        evaluation(lambda outputs, named, right, size: (outputs, outputs.argmin(1), right)),
        exactly(4, "evaluation", ""),
    ),
    Kind(
        "one digit more is said to be right",
        DIGITS,
        evaluation(lambda outputs, named, right, size: (outputs, named, right + 1)),
        exactly(4, "evaluation", "correct"),
    ),
    Kind(
        "tested outputs a part too large",
        DIGITS,
        evaluation(lambda outputs, named, right, size: (larger(outputs, size), named, right)),
        exactly(4, "evaluation", "outputs"),
        SMALL_PART,
    ),
    Kind(
        "samples kept in low precision",
        FLOATS - {"chain_rule"},
        samples("x", low_array),
        exactly(1, "batch", "x"),
    ),
    Kind(
        "last target an ulp off",
        FLOATS - SINGLE,
        samples("y", functools.partial(ulp_more, entry=-1)),
        exactly(1, "batch", "y"),
    ),
    Kind(
        "parameter that starts an ulp off",
        ALL,
        everywhere(initial_params(_first, ulp_more)),
        first("params", step=0),
    ),
    Kind(
        "biases that start in low precision",
        LAYERED,
        everywhere(initial_params(_first_bias, low_array)),
        first("params", step=0, of=_first_bias),
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


def fault_cases(example: str, dtype: str, side: Side) -> list[FaultCase]:
    """The faults of one side of an example in one dtype."""
    return [
        FaultCase(kind, side, cell(example, dtype))
        for kind in KINDS
        if example in kind.examples and getattr(kind.plants, side)
    ]
