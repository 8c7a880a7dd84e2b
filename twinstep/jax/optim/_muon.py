"""torch.optim.Muon."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from twinstep.errors import InputError
from twinstep.jax.optim.base import (
    Scheduled,
    at_least_0,
    cast,
    check_arguments,
    lerp,
    number,
    over_leaves,
    rate_at,
    require_params,
    zeros_like,
)

_BFLOAT16 = (8, 7)  # bits of exponent and mantissa
_RULES = (None, "original", "match_rms_adamw", "spectral_unclamped")


class MuonState(NamedTuple):
    """count: () int32, updates made; momentum_buffer: like params."""

    count: Any
    momentum_buffer: Any


def muon(
    lr: Scheduled = 1e-3,
    weight_decay: float = 0.1,
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
        weight_decay: The parameters first shrink by lr weight_decay of themselves; 0 or more.
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
        for path, p in jax.tree_util.tree_leaves_with_path(params):
            if p.ndim != 2:
                name = jax.tree_util.keystr(path)
                raise InputError(f"muon: parameter {name} has shape {p.shape}, expected a matrix")
        return MuonState(jnp.zeros((), jnp.int32), zeros_like(params))

    def update(
        grads: optax.Updates, state: MuonState, params: optax.Params | None = None
    ) -> tuple[optax.Updates, MuonState]:
        step = state.count + 1
        rate = rate_at(lr, step)

        def rule(g: jax.Array, p: jax.Array, b: jax.Array) -> tuple[jax.Array, ...]:
            b = lerp(b, g, 1 - momentum)
            change = lerp(g, b, momentum) if nesterov else b
            change = orthogonal(change, ns_coefficients, ns_steps, eps, round_to_bfloat16)
            adjusted = cast(rate * _adjustment(adjust_lr_fn, p.shape), p)
            return (p * cast(1 - rate * weight_decay, p) - adjusted * change) - p, b

        updates, buffer = over_leaves(rule, grads, require_params(params), state.momentum_buffer)
        return updates, MuonState(step, buffer)

    return optax.GradientTransformation(init, update)


def orthogonal(
    matrix: jax.Array,
    coefficients: tuple[float, float, float],
    steps: int,
    eps: float,
    round_to_bfloat16: bool,
) -> jax.Array:
    """A matrix of the same singular vectors whose singular values are near 1, (R, C)."""
    a, b, c = coefficients

    def rounded(x: jax.Array) -> jax.Array:
        return jax.lax.reduce_precision(x, *_BFLOAT16) if round_to_bfloat16 else x

    x = rounded(matrix.T if matrix.shape[0] > matrix.shape[1] else matrix)
    if round_to_bfloat16:
        x = x.astype(jnp.float32)  # what PyTorch's bfloat16 products are summed in
    x = rounded(x / jnp.maximum(rounded(jnp.sqrt(jnp.sum(x * x))), eps))
    for _ in range(steps):
        gram = rounded(x @ x.T)
        poly = rounded(b * gram + c * (gram @ gram))
        x = rounded(a * x + poly @ x)
    x = x.T if matrix.shape[0] > matrix.shape[1] else x
    return x.astype(matrix.dtype)


def _adjustment(rule: str | None, shape: tuple[int, ...]) -> float:
    """What the learning rate is multiplied by for a matrix of this shape."""
    if rule == "match_rms_adamw":
        return 0.2 * math.sqrt(max(shape))
    if rule == "spectral_unclamped":
        return math.sqrt(shape[0] / shape[1])
    return math.sqrt(max(1, shape[0] / shape[1]))
