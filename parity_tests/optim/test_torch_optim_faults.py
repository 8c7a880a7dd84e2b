"""What test_torch_optim.py does not let pass: each optimizer as it is easily written wrong.

A fault is a change of the optimizer's own source, which is run anew with it.
"""

import functools
import importlib
import inspect
from collections.abc import Callable
from types import MappingProxyType, ModuleType
from typing import Any

import optax
import pytest
from helpers.optimizer_runs import (
    BAR,
    NAMES,
    PROBES,
    UNROUNDED,
    Options,
    Run,
    default_dtype,
    is_maximized,
    jax_run,
    problem_for,
    torch_run,
    worst,
)

from twinstep.jax.optim._from_torch import TORCH

pytestmark = pytest.mark.quick_to_compile

STEPS = 60


_FIRST = "bias_correction(beta1, step)"
_SECOND = "bias_correction(beta2, step)"
_SECOND_LATE = "bias_correction(beta2, step + 1)"
_ADAM_DENOM = "jnp.sqrt(largest[0] if amsgrad else v) / cast(root, g) + eps"
_NADAM_DENOM = "jnp.sqrt(v / cast(correction, g)) + eps"
_RADAM_RATIO = "cast(root, g) / (jnp.sqrt(v) + eps)"
_COUPLED, _NOT_COUPLED = "if not decoupled_weight_decay:", "if False:"
_REGULARIZED = "l2_regularized(descent(grads, maximize), params, weight_decay)"
_REGULARIZED_FIRST = "descent(l2_regularized(grads, params, weight_decay), maximize)"
_MOVED = "optax.apply_updates(params, updates)"
_UP: Options = {"maximize": True}

# what is wrong: what the source has and what it gets, and options over the probe's
FAULTS: dict[str, dict[str, tuple[Any, ...]]] = {
    "SGD": {
        "first buffer dampened": ("(step == 1, g, cast", "(step == 0, g, cast"),
        "first buffer 0": ("(step == 1, g, cast", "(step == 1, 0 * g, cast"),
        "no dampening": ("(1 - dampening) * g", "g"),
        "weight decay, then maximized": (_REGULARIZED, _REGULARIZED_FIRST, _UP),
        "Nesterov's look-ahead left out": (
            "g + cast(beta, g) * b if nesterov else b",
            "b",
            {"dampening": 0.0, "nesterov": True},
        ),
    },
    "Adam": {
        "eps under the root": (_ADAM_DENOM, "jnp.sqrt(v / cast(root, g) ** 2 + eps)"),
        "eps before the correction": (_ADAM_DENOM, "(jnp.sqrt(v) + eps) / cast(root, g)"),
        "no first correction": (f"rate / {_FIRST}", "rate"),
        "second correction a step late": (_SECOND, _SECOND_LATE),
        "moments swapped": ("for beta in betas)", "for beta in betas[::-1])"),
        "decay left out": (_COUPLED, _NOT_COUPLED),
        "second moment of the mean": ("(1 - b2) * (g * g)", "(1 - b2) * (m * m)"),
        "largest corrected moment": (
            "jnp.maximum(rest[0], v)",
            "jnp.maximum(rest[0], v / cast(root, g) ** 2) * cast(root, g) ** 2",
            {"amsgrad": True},
        ),
    },
    "AdamW": {
        "decay coupled": (", decoupled_weight_decay=True", ""),
        "decay of the corrected rate": ("params, rate, weight", "params, step_size, weight"),
        "decay without the rate": ("params, rate, weight", "params, rate / lr, weight"),
        "decay after the step": (
            "decoupled_weight_decay(updates, params",
            f"decoupled_weight_decay(updates, {_MOVED}",
        ),
    },
    "Adamax": {
        "eps added last": ("jnp.abs(g) + eps)", "jnp.abs(g)) + eps"),
        "no correction": (f" / {_FIRST}", ""),
        "norm not forgotten": ("cast(beta2, g) * u", "u"),
        "weight decay, then maximized": (_REGULARIZED, _REGULARIZED_FIRST, _UP),
    },
    "NAdam": {
        "first moment's factor constant": ("(1.0 - 0.5 * 0.96 **", "(1.0 - 0 * 0.96 **"),
        "next factor of this step": ("mu_of(step), mu_of(step + 1)", "(mu_of(step),) * 2"),
        "product of the next step": ("(1.0 - mu_product)", "(1.0 - mu_product * mu_next)"),
        "powers in place of the product": ("state.mu_product * mu", "mu ** step"),
        "eps before the correction": (_NADAM_DENOM, "(jnp.sqrt(v) + eps) / jnp.sqrt(correction)"),
        "decay left out": (_COUPLED, _NOT_COUPLED),
    },
    "RAdam": {
        "eps after the correction": (_RADAM_RATIO, "1 / (jnp.sqrt(v) / cast(root, g) + eps)"),
        "no rectification": ("* cast(trust, g)", ""),
        "rectified from another step on": ("rho > 5", "rho > 4"),
        "rectified a step early": (
            "= rectification(beta2, step)",
            "= rectification(beta2, step + 1)",
        ),
        "first steps uncorrected": ("adapted, plain)", "adapted, m * cast(rate, g))"),
        "decay coupled": (_COUPLED, "if True:", {"decoupled_weight_decay": True}),
    },
    "Adagrad": {
        "eps under the root": ("jnp.sqrt(s) + eps", "jnp.sqrt(s + eps)"),
        "sum of the steps before": ("g / (jnp.sqrt(s)", "g / (jnp.sqrt(s - g * g)"),
        "rate decays a step early": ("(step - 1).astype", "step.astype"),
        "decay left out": (_REGULARIZED, "descent(grads, maximize)"),
    },
    "Adadelta": {
        "eps beside the root": ("jnp.sqrt(acc + eps)", "(jnp.sqrt(acc) + eps)"),
        "sums, not means": ("(1 - rho) * (g * g)", "g * g"),
        "the step's own delta counts": (
            "rho * acc + (1 - rho) * (delta * delta)",
            "rho * acc + (1 - rho) * (g * g)",
        ),
        "rate within the mean": ("(delta * delta)", "(rate * delta) ** 2", {"lr": 0.5}),
    },
    "RMSprop": {
        "eps under the root": ("else square) + eps", "else square + eps)"),
        "buffer dampened": ("+ g / root]", "+ (1 - cast(beta, g)) * g / root]"),
        "alpha for its complement": (
            "alpha * square + (1 - alpha)",
            "(1 - alpha) * square + alpha",
            {"alpha": 0.9},
        ),
        "not centred": ("square - mean[0] * mean[0] if", "square if", {"centered": True}),
        "mean's factor as momentum's": (
            "lerp(rest[-1], g, 1 - alpha)",
            "lerp(rest[-1], g, 1 - momentum)",
            {"centered": True},
        ),
    },
    "Rprop": {
        "turned entries move": ("jnp.where(turn < 0, jnp.zeros_like(g), g)", "g"),
        "moves by the step before": ("-jnp.sign(g) * size, g", "-jnp.sign(prev) * size, g"),
        "factors swapped": ("shorter, longer = etas", "longer, shorter = etas"),
        "step sizes without bounds": ("*step_sizes)", "0, 1e9)"),
    },
    "ASGD": {
        "eta of this step": (
            "eta, mu = state.eta, state.mu",
            "mu = state.mu; eta = rate_at(lr, 1) / (1 + lambd * lr * (state.step + 1.0)) ** alpha",
        ),
        "decay after the step": (
            "p * cast(1 - lambd * eta, p) - cast(eta, p) * g",
            "(p - cast(eta, p) * g) * cast(1 - lambd * eta, p)",
        ),
        "average a step early": ("t - t0)", "t - t0 + 1)"),
        "average of the parameters before": ("(new - ax)", "(p - ax)"),
    },
    "Adafactor": {
        "eps added": ("jnp.maximum(estimate, eps1 * eps1)", "estimate + eps1 * eps1"),
        "no clipping": ("jnp.maximum(1.0, _rms(change) / d)", "1.0"),
        "means of rows alone": ("row * col / size", "row + 0 * col"),
        "decay of the falling rate": ("1 - lr_now * weight", "1 - rho * weight", {"lr": 0.5}),
        "decay of a step later": ("t**beta2_decay", "(t + 1) ** beta2_decay"),
        "steps of absolute size": ("jnp.maximum(eps[1], _rms(p)) * cast", "cast"),
    },
    "Muon": {
        "Nesterov's of the old buffer": (
            "lerp(g, b, momentum) if nesterov else b",
            "b",
            {"nesterov": True},
        ),
        "momentum undamped": ("lerp(b, g, 1 - momentum)", "momentum * b + g"),
        "decay of the adjusted rate": ("1 - rate * weight_decay", "1 - adjusted * weight_decay"),
        "one iteration less": ("range(steps)", "range(steps - 1)"),
        "columns over rows": ("shape[0] / shape[1])", "shape[1] / shape[0])"),
    },
    "SparseAdam": {
        "all rows move": ("jnp.where(here, new, old)", "new"),
        "moments of all rows decay": ("(new_m, m), (new_v, v)", "(new_m, new_m), (new_v, new_v)"),
        "eps after the correction": ("jnp.sqrt(new_v) + eps", "jnp.sqrt(new_v) + eps * root"),
        "second correction a step late": (_SECOND, _SECOND_LATE),
    },
}


def altered(name: str, old: str, new: str) -> Callable[..., optax.GradientTransformation]:
    """The factory of an optimizer from its module's source with every `old` as `new`."""
    module = importlib.import_module(TORCH[name].__module__)
    source = inspect.getsource(module)
    assert old in source, f"{module.__name__} has no {old!r}"
    copy = ModuleType(module.__name__)
    exec(compile(source.replace(old, new), f"<{name}>", "exec"), vars(copy))
    return getattr(copy, TORCH[name].__name__)


@functools.cache
def theirs(name: str, more: tuple[tuple[str, object], ...]) -> Run:
    return torch_run(name, {**PROBES[name][0], **dict(more)}, steps=STEPS, rounded=False)


def gap(name: str, old: str, new: str, more: Options = MappingProxyType({})) -> float:
    """How far an altered optimizer is from PyTorch's."""
    options = {**PROBES[name][0], **more}
    with default_dtype("float64"):
        wrong = altered(name, old, new)(**options, **UNROUNDED.get(name, {}))
    ours = jax_run(wrong, problem_for(name), maximize=is_maximized(options), steps=STEPS)
    return worst(theirs(name, tuple(more.items())), ours)


# the first fault of each optimizer is seen every time, the others apart
@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        pytest.param(name, wrong, marks=pytest.mark.slow if number else (), id=f"{name}: {wrong}")
        for name, faults in FAULTS.items()
        for number, wrong in enumerate(faults)
    ],
)
def test_fault_is_seen(name: str, wrong: str) -> None:
    # a tenfold margin: another machine's rounding hides none of them
    assert gap(name, *FAULTS[name][wrong]) > 10 * BAR


@pytest.mark.parametrize("name", NAMES)
def test_unaltered_source_passes(name: str) -> None:
    assert gap(name, "", "") <= BAR


def test_every_optimizer_has_faults() -> None:
    assert sorted(FAULTS) == NAMES
    assert min(map(len, FAULTS.values())) >= 3
    assert all(old != new for faults in FAULTS.values() for old, new, *_ in faults.values())
