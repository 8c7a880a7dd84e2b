"""torch.optim.Muon."""

import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from twinstep.errors import InputError
from twinstep.jax.optim.base import (
    Scheduled,
    at_least_0,
    check_arguments,
    check_real,
    first_count,
    is_known,
    next_count,
    number,
    rate_at,
    value_at,
    zeros_like,
)
from twinstep.jax.optim.ops import Array, Ops, per_parameter
from twinstep.jax.trees import by_path, dotted

_RULES = (None, "original", "match_rms_adamw", "spectral_unclamped")


class MuonState(NamedTuple):
    """momentum_buffer: like params.

    count: () int32, updates made, where a schedule asks for them; else () bool, whether any was
    """

    count: Any
    momentum_buffer: Any


def muon(
    lr: Scheduled = 1e-3,
    weight_decay: Scheduled = 0.1,
    momentum: float = 0.95,
    nesterov: bool = True,
    ns_coefficients: tuple[float, float, float] = (3.4445, -4.7750, 2.0315),
    eps: float = 1e-7,
    ns_steps: int = 5,
    adjust_lr_fn: str | None = None,
    *,
    round_to_bfloat16: bool = True,
) -> optax.GradientTransformation:
    """Momentum, made orthogonal by Newton-Schulz; for matrices, (out, in) as PyTorch has them.

    PyTorch iterates in bfloat16, whatever the parameters are: rounded here after every product,
    where XLA would keep float32 in between. Sums within a product may still round another way, and
    a rounding of 2^-8 parts two runs soon; `round_to_bfloat16=False` leaves it out, which PyTorch
    cannot. optax.contrib.muon iterates in the parameters' dtype. Flax's kernels, (in, out), go
    through `in_torch_layout`.

    Args:
        lr: Learning rate, 0 or more: a float, or a schedule (function of the updates made so far).
        weight_decay: The parameters first shrink by lr weight_decay of themselves; 0 or more, or a
            schedule.
        momentum: Decay of the mean of the gradients, 0 or more.
        nesterov: Whether the mean is taken one step ahead.
        ns_coefficients: a, b, c of x <- a x + (b x x^T + c (x x^T)^2) x.
        eps: The least norm that a matrix is divided by.
        ns_steps: How often that is done, below 100.
        adjust_lr_fn: What lr is multiplied by for a matrix of shape (A, B): sqrt(max(1, A / B)) for
            None and "original", 0.2 sqrt(max(A, B)) for "match_rms_adamw", sqrt(A / B) for
            "spectral_unclamped".
        round_to_bfloat16: Whether to round as PyTorch does, which has no such option.

    Returns:
        An `optax.GradientTransformation`, whose `update` needs the parameters. Its state is
        `MuonState`, whose momentum_buffer is PyTorch's.

    Raises:
        InputError: For a value that PyTorch refuses; in `init`, for a parameter that is no matrix.

    Example:
        Both directions move by about lr, though one has 8 times the gradient.

        >>> import jax.numpy as jnp
        >>> from twinstep.jax.optim import muon
        >>> optimizer, params = muon(lr=0.1), jnp.zeros((2, 2))
        >>> grads = jnp.array([[4.0, 0.0], [0.0, 0.5]])
        >>> updates, state = optimizer.update(grads, optimizer.init(params), params)
        >>> [round(u, 2) for u in jnp.diag(updates).tolist()]
        [-0.07, -0.07]

    Source: https://docs.pytorch.org/docs/stable/generated/torch.optim.Muon.html
    """
    check_arguments(
        "muon",
        lr=at_least_0(lr),
        momentum=at_least_0(momentum),
        weight_decay=at_least_0(weight_decay),
        eps=number(eps),
        ns_steps=(ns_steps, "below 100", lambda v: v < 100),
        ns_coefficients=(ns_coefficients, "three numbers", lambda v: len(v) == 3),
        adjust_lr_fn=(adjust_lr_fn, f"one of {_RULES}", lambda v: v in _RULES),
    )

    def init(params: optax.Params) -> MuonState:
        check_real("muon", params)
        for path, p in by_path(params).items():
            if p.ndim != 2:
                raise InputError(
                    f"muon: parameter {dotted(path)!r} has shape {p.shape}, expected a matrix"
                )
        return MuonState(first_count(callable(lr) or callable(weight_decay)), zeros_like(params))

    def update(
        grads: optax.Updates, state: MuonState, params: optax.Params | None = None
    ) -> tuple[optax.Updates, MuonState]:
        step = state.count + 1
        rate, decay = rate_at(lr, step), value_at(weight_decay, step)

        def rule(ops: Ops, g: Array, p: Array, b: Array) -> Any:
            b = ops.lerp(b, g, 1 - momentum)
            change = ops.lerp(g, b, momentum) if nesterov else b
            change = normalized(change, eps, round_to_bfloat16)
            if not nesterov and ops.dtype == jnp.bfloat16:
                b = change  # PyTorch divides its buffer in place there
            change = orthogonal(change, ns_coefficients, ns_steps, round_to_bfloat16)
            adjusted = -rate * _adjustment(adjust_lr_fn, p.shape)
            start = ops.decayed(p, rate, decay)
            return ops.update(p, ops.scaled(change, adjusted), start=start), b

        updates, buffer = per_parameter(
            rule, grads, params, state.momentum_buffer, needs_params=True
        )
        return updates, MuonState(next_count(state.count), buffer)

    return optax.GradientTransformation(init, update)


def normalized(matrix: jax.Array, eps: float, round_to_bfloat16: bool) -> jax.Array:
    """A matrix whose norm is 1, (R, C), in what its products are summed in."""
    x = _rounded(matrix, round_to_bfloat16)
    norm = _rounded(jnp.sqrt(jnp.sum(x * x)), round_to_bfloat16)
    return _rounded(x / jnp.maximum(norm, eps), round_to_bfloat16)


def orthogonal(
    x: jax.Array,
    coefficients: tuple[float, float, float],
    steps: int | jax.Array,
    round_to_bfloat16: bool,
) -> jax.Array:
    """A matrix of the same singular vectors whose singular values are near 1, (R, C)."""
    a, b, c = coefficients
    tall = x.shape[0] > x.shape[1]

    def iterate(_: Any, x: jax.Array) -> jax.Array:
        gram = _rounded(x @ x.T, round_to_bfloat16)
        poly = _rounded(b * gram + c * (gram @ gram), round_to_bfloat16)
        return _rounded(a * x + poly @ x, round_to_bfloat16)

    x = x.T if tall else x
    if is_known(steps):
        x = functools.reduce(lambda x, i: iterate(i, x), range(steps), x)
    else:
        x = jax.lax.fori_loop(0, steps, iterate, x)
    return x.T if tall else x


def _rounded(x: jax.Array, to_bfloat16: bool) -> jax.Array:
    """In bfloat16's values; PyTorch sums their products in float32."""
    return Ops(jnp.bfloat16).rounded(x.astype(jnp.float32)) if to_bfloat16 else x


def _adjustment(rule: str | None, shape: tuple[int, ...]) -> float:
    """What the learning rate is multiplied by for a matrix of this shape."""
    if rule == "match_rms_adamw":
        return 0.2 * math.sqrt(max(shape))
    if rule == "spectral_unclamped":
        return math.sqrt(shape[0] / shape[1])
    return math.sqrt(max(1, shape[0] / shape[1]))
