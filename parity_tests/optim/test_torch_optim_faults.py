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
_ADAM_DENOM = "ops.add(ops.div(ops.sqrt(kept[0] if amsgrad else v), root), eps)"
_NADAM_DENOM = "ops.add(ops.sqrt(ops.div(v, correction)), eps)"
_RADAM_RATIO = "ops.mul(ops.rounded(1 / ops.add(ops.sqrt(v), eps)), root)"
_SQUARE = "ops.addcmul(ops.mul(v, beta2), g, g, 1 - beta2)"
_CHOSEN, _COUPLED = "(0.0, decay) if decoupled_weight_decay", "(decay, 0.0) if True"
_LEFT_OUT = ("else (decay, 0.0)", "else (0.0, 0.0)")
_GRADIENT = "g = ops.gradient(g, p, maximize, decay)"
_REGULARIZED_FIRST = "g = ops.gradient(ops.gradient(g, p, False, decay), p, maximize)"
_START = ", start=start)"
_UP: Options = {"maximize": True}

# what is wrong: what the source has and what it gets, and options over the probe's
FAULTS: dict[str, dict[str, tuple[Any, ...]]] = {
    "SGD": {
        "first buffer dampened": ("(step == 1, g, ops", "(step == 0, g, ops"),
        "first buffer 0": ("(step == 1, g, ops", "(step == 1, 0 * g, ops"),
        "no dampening": ("g, 1 - dampening)", "g, 1)"),
        "weight decay, then maximized": (_GRADIENT, _REGULARIZED_FIRST, _UP),
        "Nesterov's look-ahead left out": (
            "ops.add(g, b, beta) if nesterov else b",
            "b",
            {"dampening": 0.0, "nesterov": True},
        ),
    },
    "Adam": {
        "eps under the root": (_ADAM_DENOM, "jnp.sqrt(v / root ** 2 + eps)"),
        "eps before the correction": (_ADAM_DENOM, "(jnp.sqrt(v) + eps) / root"),
        "no first correction": (f"rate / {_FIRST}", "rate"),
        "second correction a step late": (_SECOND, _SECOND_LATE),
        "moments swapped": (
            "for beta in betas)\n        step",
            "for beta in betas[::-1])\n        step",
        ),
        "decay left out": _LEFT_OUT,
        "second moment of the mean": (_SQUARE, _SQUARE.replace("g, g", "m, m")),
        "largest corrected moment": (
            "jnp.maximum(old, v)",
            "jnp.maximum(old, v / root ** 2) * root ** 2",
            {"amsgrad": True},
        ),
    },
    "AdamW": {
        "decay coupled": (", decoupled_weight_decay=True", ""),
        "decay of the corrected rate": ("decayed(p, rate", "decayed(p, step_size"),
        "decay without the rate": ("decayed(p, rate", "decayed(p, rate / lr"),
        "decay after the step": (
            f"ops.update(p, change{_START}",
            "ops.update(p, change, start=ops.decayed(p + change, rate, decoupled) - change)",
        ),
    },
    "Adamax": {
        "eps added last": (
            "ops.mul(u, beta2), ops.add(jnp.abs(g), eps))",
            "ops.mul(u, beta2), jnp.abs(g)) + eps",
        ),
        "no correction": (f" / {_FIRST}", ""),
        "norm not forgotten": ("ops.mul(u, beta2)", "u"),
        "weight decay, then maximized": (_GRADIENT, _REGULARIZED_FIRST, _UP),
    },
    "NAdam": {
        "first moment's factor constant": ("(1.0 - 0.5 * 0.96 **", "(1.0 - 0 * 0.96 **"),
        "next factor of this step": ("mu_of(step), mu_of(step + 1)", "(mu_of(step),) * 2"),
        "product of the next step": ("(1.0 - mu_product)", "(1.0 - mu_product * mu_next)"),
        "powers in place of the product": ("state.mu_product * mu", "mu ** step"),
        "eps before the correction": (_NADAM_DENOM, "(jnp.sqrt(v) + eps) / jnp.sqrt(correction)"),
        "decay left out": _LEFT_OUT,
    },
    "RAdam": {
        "eps after the correction": (_RADAM_RATIO, "1 / (jnp.sqrt(v) / root + eps)"),
        "no rectification": ("ops.mul(ops.mul(plain, ratio), trust)", "ops.mul(plain, ratio)"),
        "rectified from another step on": ("rho > 5", "rho > 4"),
        "rectified a step early": (
            "= rectification(beta2, step)",
            "= rectification(beta2, step + 1)",
        ),
        "first steps uncorrected": ("adapted, plain)", "adapted, ops.mul(m, rate))"),
        "decay coupled": (_CHOSEN, _COUPLED, {"decoupled_weight_decay": True}),
    },
    "Adagrad": {
        "eps under the root": ("ops.add(ops.sqrt(s), eps)", "jnp.sqrt(s + eps)"),
        "sum of the steps before": ("ops.sqrt(s)", "ops.sqrt(s - g * g)"),
        "rate decays a step early": ("(step - 1).astype", "step.astype"),
        "decay left out": ("maximize, decay)", "maximize)"),
    },
    "Adadelta": {
        "eps beside the root": ("ops.sqrt(ops.add(acc, eps))", "(jnp.sqrt(acc) + eps)"),
        "sums, not means": ("g, g, 1 - rho)", "g, g, 1)"),
        "the step's own delta counts": ("delta, delta, 1 - rho)", "g, g, 1 - rho)"),
        "rate within the mean": (
            "delta, delta, 1",
            "rate * delta, rate * delta, 1",
            {"lr": 0.5},
        ),
    },
    "RMSprop": {
        "eps under the root": ("ops.add(ops.sqrt(below), eps)", "jnp.sqrt(below + eps)"),
        "buffer dampened": ("beta), g, root)", "beta), (1 - beta) * g, root)"),
        "alpha for its complement": (
            "ops.mul(square, alpha), g, g, 1 - alpha)",
            "ops.mul(square, 1 - alpha), g, g, alpha)",
            {"alpha": 0.9},
        ),
        "not centred": ("mean[0], -1)", "mean[0], 0)", {"centered": True}),
        "mean's factor as momentum's": (
            "lerp(rest[-1], g, 1 - alpha)",
            "lerp(rest[-1], g, 1 - momentum)",
            {"centered": True},
        ),
    },
    "Rprop": {
        "turned entries move": ("jnp.where(turn < 0, 0.0, g)", "g"),
        "moves by the step before": ("(g > 0, 1.0", "(prev > 0, 1.0"),
        "factors swapped": ("shorter, longer = map", "longer, shorter = map"),
        "step sizes without bounds": ("*map(ops.alpha, step_sizes))", "0, 1e9)"),
    },
    "ASGD": {
        "eta of this step": (
            "eta, mu = state.eta, state.mu",
            "mu = state.mu; eta = rate_at(lr, 1) / (1 + lambd * lr * (state.step + 1.0)) ** alpha",
        ),
        "decay after the step": (
            "start = ops.decayed(p, eta, lambd)",
            "start = ops.decayed(p + ops.scaled(g, -eta), eta, lambd) - ops.scaled(g, -eta)",
        ),
        "average a step early": ("t - t0)", "t - t0 + 1)"),
        "average of the parameters before": ("(new - ax)", "(p - ax)"),
    },
    "Adafactor": {
        "eps added": (
            "jnp.maximum(estimate, ops.alpha(eps1 * eps1))",
            "estimate + eps1 * eps1",
        ),
        "no clipping": ("jnp.maximum(1.0, rms(change) / d)", "1.0"),
        "means of rows alone": (
            "ops.div(ops.mul(row, col), jnp.maximum(size, ops.alpha(eps1)))",
            "row + 0 * col",
        ),
        "decay of the falling rate": ("decayed(p, rate", "decayed(p, rho", {"lr": 0.5}),
        "decay of a step later": ("t**beta2_decay", "(t + 1) ** beta2_decay"),
        "steps of absolute size": ("jnp.maximum(eps[1], rms(p)) * ops", "ops"),
    },
    "Muon": {
        "Nesterov's of the old buffer": (
            "ops.lerp(g, b, momentum) if nesterov else b",
            "b",
            {"nesterov": True},
        ),
        "momentum undamped": ("ops.lerp(b, g, 1 - momentum)", "momentum * b + g"),
        "decay of the adjusted rate": ("decayed(p, rate", "decayed(p, -adjusted"),
        "one iteration less": ("range(steps)", "range(steps - 1)"),
        "columns over rows": ("shape[0] / shape[1])", "shape[1] / shape[0])"),
    },
    "SparseAdam": {
        "all rows move": ("jnp.where(here, ops.update(p, change), 0.0)", "ops.update(p, change)"),
        "moments of all rows decay": ("jnp.where(here, moved, old), moved", "moved, moved"),
        "eps after the correction": ("ops.sqrt(new_v), eps)", "ops.sqrt(new_v), eps * root)"),
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
