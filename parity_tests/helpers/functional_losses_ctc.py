"""torch.nn.functional.ctc_loss: calls, what is refused, what optax has for it.

The gradient sums up paths whose probabilities differ by many orders: 1e-12 of its largest entry.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from helpers.kit_parity import Case, Port

RNG = np.random.default_rng(14)
REDUCTIONS = ("mean", "sum", "none")


def log_probs(*shape: int) -> Any:
    """Log-probabilities over the last axis."""
    x = RNG.normal(size=shape)
    return x - np.log(np.sum(np.exp(x), -1, keepdims=True))


def case(*args: Any, **kwargs: Any) -> Case:
    return Case(args, kwargs, main=1e-12)


LOGS = log_probs(8, 3, 5)
TARGETS = np.array([[1, 1, 2, 4], [3, 2, 1, 0], [4, 0, 0, 0]])
JOINED = np.array([1, 1, 2, 4, 3, 2, 4])
STEPS, COUNT = (8, 7, 5), (4, 2, 1)
STEPS_ARRAY, COUNT_ARRAY = np.array(STEPS), np.array(COUNT)
SHORT = (4, 7, 5)
"""Too few steps for 1 1 2 4, which needs a blank between its first two."""
IMPOSSIBLE = LOGS.copy()
IMPOSSIBLE[2, 1, 0], IMPOSSIBLE[3, 0, 1] = -np.inf, -np.inf

CASES: dict[str, list[Case]] = {
    "ctc_loss": [
        case(LOGS, TARGETS, STEPS_ARRAY, COUNT_ARRAY),
        *(case(LOGS, TARGETS, STEPS, COUNT, reduction=r) for r in REDUCTIONS),
        *(case(LOGS, JOINED, STEPS, COUNT, reduction=r) for r in REDUCTIONS),
        case(LOGS, JOINED, STEPS_ARRAY, COUNT_ARRAY),
        case(LOGS, TARGETS, STEPS_ARRAY.astype(np.int32), COUNT_ARRAY.astype(np.int32)),
        case(LOGS, np.array([[0, 1, 2], [3, 2, 1], [2, 0, 0]]), STEPS, (3, 2, 1), blank=4),
        *(case(LOGS, TARGETS, SHORT, COUNT, reduction=r) for r in REDUCTIONS),
        *(case(LOGS, TARGETS, SHORT, COUNT, reduction=r, zero_infinity=True) for r in REDUCTIONS),
        case(LOGS, TARGETS, STEPS, (0, 2, 1)),
        case(LOGS, TARGETS, STEPS, (0, 0, 0), reduction="none"),
        case(LOGS, TARGETS, (8, 0, 5), (4, 0, 1), reduction="none"),
        case(LOGS, TARGETS, (8, 0, 5), COUNT, zero_infinity=True),
        case(LOGS, TARGETS, (1, 1, 1), (1, 1, 0)),
        case(LOGS[:, 0], TARGETS[0], (8,), (4,)),
        case(LOGS[:, 0], TARGETS[0], np.array([8]), np.array([4]), reduction="none"),
        case(LOGS[:, 0], TARGETS[0, :3], np.array([8]), np.array([3]), reduction="sum"),
        case(IMPOSSIBLE, TARGETS, STEPS, COUNT, reduction="none"),
        case(log_probs(50, 3, 15), RNG.integers(1, 15, (3, 20)), (50, 50, 50), (20, 15, 10)),
        case(2 * RNG.normal(size=(8, 3, 5)), TARGETS, STEPS, COUNT),
    ],
}

ERRORS: dict[str, list[Case]] = {
    "ctc_loss": [
        case(LOGS, TARGETS, (8, 7), COUNT),
        case(LOGS, TARGETS, STEPS, (4, 2)),
        case(LOGS, TARGETS, (9, 7, 5), COUNT),
        case(LOGS, TARGETS, (-1, 7, 5), COUNT),
        case(LOGS, TARGETS, STEPS, (5, 2, 1)),
        case(LOGS, TARGETS, STEPS, (-1, 2, 1)),
        case(LOGS, JOINED, STEPS, (4, 2, 2)),
        case(LOGS, TARGETS[:2], STEPS, COUNT),
        case(LOGS, TARGETS, STEPS_ARRAY.astype(float), COUNT_ARRAY),
        case(LOGS, TARGETS, STEPS, COUNT, blank=5),
        case(LOGS, TARGETS, STEPS, COUNT, blank=-1),
        case(LOGS, TARGETS, STEPS, COUNT, reduction="avg"),
    ],
}


def paddings(lengths: jax.Array, longest: int) -> jax.Array:
    """1 where a sequence has ended."""
    return (jnp.arange(longest) >= lengths[:, None]).astype(float)


def by_optax(logs: Any, targets: Any, steps: Any, count: Any) -> jax.Array:
    """The mean, as PyTorch's."""
    ends, lasts = paddings(steps, len(logs)), paddings(count, targets.shape[1])
    each = optax.ctc_loss(jnp.swapaxes(logs, 0, 1), ends, targets, lasts)
    return jnp.mean(each / count)


def plainly(
    logs: Any, targets: Any, steps: Sequence[int], count: Sequence[int], *_: Any, **__: Any
) -> jax.Array:
    """The mean of the losses, which are not divided by their lengths."""
    ends = paddings(jnp.asarray(steps), len(logs))
    lasts = paddings(jnp.asarray(count), targets.shape[1])
    return jnp.mean(optax.ctc_loss(jnp.swapaxes(logs, 0, 1), ends, targets, lasts))


PORTS: dict[str, Port] = {
    "ctc_loss": Port(
        "jnp.mean(optax.ctc_loss(jnp.swapaxes(log_probs, 0, 1), ends, targets, lasts) / lengths)",
        by_optax,
        "jnp.mean(optax.ctc_loss(jnp.swapaxes(log_probs, 0, 1), ends, targets, lasts))",
        plainly,
        "the mean divides by the targets' lengths; a target that is too long is infinite, 1e5 in "
        "optax; the paddings are 1 after the end",
    ),
}
