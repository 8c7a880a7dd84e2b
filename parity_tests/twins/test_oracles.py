"""Neither framework is asked what is right: the formulas are written out in NumPy.

Two implementations that agree may share a fault. Gradients in closed form, SGD and Adam by their
update rules, the RNN and the GRU by their equations are held against the traces of both frameworks,
in float64. Each check gives one number, the worst distance in units of what rounding explains, and
beside each stands a fault that takes this number above 1.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest

import twinstep
from twinstep.judge import tolerance
from twinstep.runs import launch
from twinstep.trace.ledger import Leaves, Trace

EPS = tolerance.eps("float64")
MSE, L1, ADAM = "linear_regression", "linear_regression_l1", "linear_regression_adam"


@functools.cache
def trace_of(example: str, framework: str, **fields: Any) -> tuple[Any, Trace]:
    """A spec in float64 and its trace; trained once for all tests."""
    spec = twinstep.examples()[example](dtype="float64", **fields)
    return spec, twinstep.run(spec, framework, rounding_noise=False)


def ratio(a: Any, b: Any, limit: Any) -> float:
    """The largest distance in units of what is allowed; inf for a NaN."""
    a, b = np.asarray(a), np.asarray(b)
    assert a.shape == b.shape
    gap = np.abs(a - b)
    units = np.where(gap == 0, 0.0, gap / np.maximum(limit, np.finfo(float).tiny))
    return float(np.max(np.where(np.isnan(units), np.inf, units), initial=0))


def linear_gradients(data: Leaves, params: Leaves, sign: bool) -> tuple[Leaves, Leaves]:
    """Of the mean of e^2 or |e| with e = x w^T + b - y; and the sizes that they round by.

    A gradient is the mean of d x with d = 2 e or sign(e), and of d itself for the bias. Its terms
    round by the sizes that make up e: |x| |w|, |b| and |y|, of which e may be what cancels last.
    """
    x, y = data["x"], data["y"]  # (N, I), (N, 1)
    e = x @ params["weight"].T + params["bias"] - y
    size = np.abs(x) @ np.abs(params["weight"].T) + np.abs(params["bias"]) + np.abs(y)
    d, size = (np.sign(e), np.ones_like(e)) if sign else (2 * e, 2 * size)
    return (
        {"weight": (d * x).mean(axis=0)[None], "bias": d.mean(axis=0)},
        {"weight": (size * np.abs(x)).mean(axis=0)[None], "bias": size.mean(axis=0)},
    )


def gradients_off(spec: Any, trace: Trace) -> float:
    """How far the recorded gradients are from the closed form at the recorded parameters.

    8 eps of the terms: a product, two sums, a difference and a factor each, and the mean, whose
    sum of up to 100 terms both frameworks and NumPy make in parts. Below 4 in all runs measured.
    """
    data = spec.batches().data
    worst = 0.0
    for step in range(len(trace)):
        params = {name.removeprefix("linear."): a[step] for name, a in trace.params.items()}
        grads, sizes = linear_gradients(data, params, sign=spec.name == L1)
        for name, recorded in trace.raw_grads.items():
            short = name.removeprefix("linear.")
            worst = max(worst, ratio(recorded[step], grads[short], 8 * EPS * sizes[short]))
    return worst


@pytest.mark.parametrize("framework", launch.FRAMEWORKS)
@pytest.mark.parametrize("example", [MSE, L1, ADAM, "gradient_update", "sgd_linear_model"])
def test_linear_gradients_are_the_closed_form(example: str, framework: str) -> None:
    assert gradients_off(*trace_of(example, framework)) <= 1


@pytest.mark.parametrize("example", [MSE, L1])
def test_wrong_linear_gradient_is_noticed(example: str) -> None:
    spec, trace = trace_of(example, "torch")
    halved = {name: array * 0.5 for name, array in trace.raw_grads.items()}
    assert gradients_off(spec, dataclasses.replace(trace, raw_grads=halved)) > 1
    slightly = dict(trace.raw_grads) | {"bias": trace.raw_grads["bias"].copy()}
    slightly["bias"][37] += 1e-13
    assert gradients_off(spec, dataclasses.replace(trace, raw_grads=slightly)) > 1


def chain_off(spec: Any, trace: Trace) -> float:
    """How far losses and gradients of the 1-1-1 network are from document 004's chain rule."""
    w1, w2 = trace.params["w1"][:-1], trace.params["w2"][:-1]  # (T,)
    z1 = w1 * spec.x
    error = spec.y - w2 * z1
    size = np.abs(spec.y) + np.abs(w2 * z1)  # what the error rounds by
    return max(
        ratio(trace.losses, error**2 / 2, 4 * EPS * size**2),
        ratio(trace.raw_grads["w2"], -error * z1, 4 * EPS * size * np.abs(z1)),
        ratio(trace.raw_grads["w1"], -error * w2 * spec.x, 4 * EPS * size * np.abs(w2 * spec.x)),
    )


@pytest.mark.parametrize("framework", launch.FRAMEWORKS)
def test_chain_rule_is_document_004s(framework: str) -> None:
    for fields in ({}, {"steps": 20, "x": 1.3, "y": -0.7, "w1": 0.1, "w2": 1.9}):
        spec, trace = trace_of("chain_rule", framework, **fields)
        assert chain_off(spec, trace) <= 1
        assert np.all(trace.losses > 0)
    swapped = {"w1": trace.raw_grads["w2"], "w2": trace.raw_grads["w1"]}
    assert chain_off(spec, dataclasses.replace(trace, raw_grads=swapped)) > 1


def numpy_sgd(lr: float) -> Callable[..., np.ndarray]:
    """p - lr g."""
    return lambda name, p, g: p - lr * g


class NumpyAdam:
    """p - lr m_hat / (sqrt(v_hat) + eps), Kingma and Ba's algorithm 1."""

    def __init__(self, lr: float, betas: tuple[float, float], eps: float) -> None:
        self.lr, self.betas, self.eps = lr, betas, eps
        self.moments: dict[str, tuple[int, Any, Any]] = {}

    def __call__(self, name: str, p: np.ndarray, g: np.ndarray) -> np.ndarray:
        beta1, beta2 = self.betas
        t, m, v = self.moments.get(name, (0, 0.0, 0.0))
        t, m, v = t + 1, beta1 * m + (1 - beta1) * g, beta2 * v + (1 - beta2) * g**2
        self.moments[name] = t, m, v
        return p - self.lr * (m / (1 - beta1**t)) / (np.sqrt(v / (1 - beta2**t)) + self.eps)


def adam_of(spec: Any, **wrong: Any) -> NumpyAdam:
    """The NumPy optimizer of a spec of Adam's, with what is to be wrong with it."""
    return NumpyAdam(**{"lr": spec.learning_rate, "betas": spec.betas, "eps": spec.eps, **wrong})


ADAM_FIELDS = {"eps": 1e-2, "betas": (0.8, 0.9), "steps": 40}
"""eps = 1e-8 and beta2 = 0.999 hide what is done with them; these do not."""


def training_off(spec: Any, trace: Trace, optimizer: Any) -> float:
    """How far a run is from a training of the linear model in NumPy alone.

    64 + 4 a step eps of the largest entry so far, the bound that `compare` uses where it knows no
    rounding_noise: each step rounds by a few eps, and neither rule makes more of what was there
    before (below its largest stable step SGD contracts, and Adam's steps shrink as it arrives).
    """
    data, params = spec.batches().data, dict(spec.initial_params())
    worst, largest = 0.0, {name: np.abs(array).max() for name, array in params.items()}
    for step in range(len(trace)):
        grads, _ = linear_gradients(data, params, sign=spec.name == L1)
        amount = (tolerance.PLAIN_EPS + tolerance.PLAIN_EPS_A_STEP * (step + 1)) * EPS
        for name in params:
            params[name] = optimizer(name, params[name], grads[name])
            largest[name] = max(largest[name], np.abs(params[name]).max())
            after = trace.params[name][step + 1]
            worst = max(worst, ratio(after, params[name], amount * largest[name]))
    return worst


@pytest.mark.parametrize("framework", launch.FRAMEWORKS)
@pytest.mark.parametrize(
    ("example", "fields"),
    [(MSE, {}), (ADAM, {}), ("adam_update", {"steps": 30}), (ADAM, ADAM_FIELDS)],
)
def test_linear_training_is_numpys(example: str, fields: Any, framework: str) -> None:
    spec, trace = trace_of(example, framework, **fields)
    assert len(trace) >= 20
    rule = numpy_sgd(spec.learning_rate) if example == MSE else adam_of(spec)
    assert training_off(spec, trace, rule) <= 1


def test_wrong_update_rule_is_noticed() -> None:
    spec, trace = trace_of(MSE, "jax")
    assert training_off(spec, trace, numpy_sgd(spec.learning_rate * (1 + 1e-11))) > 1
    spec, trace = trace_of(ADAM, "jax", **ADAM_FIELDS)
    for wrong in ({"eps": 1e-2 + 1e-11}, {"betas": (0.8, 0.9 + 1e-11)}, {"lr": 0.01 + 1e-12}):
        assert training_off(spec, trace, adam_of(spec, **wrong)) > 1


def adam_off(spec: Any, trace: Trace) -> float:
    """How far each single update is from Adam's rule, from the recorded state and gradient.

    8 eps of the largest entry of the state, 4 of the parameters: a few operations each.
    """
    worst = 0.0
    for name in {leaf.rpartition(".")[0] for leaf in trace.opt_state}:
        g, p = trace.grads[name], trace.params[name]
        recorded = {key: trace.opt_state[f"{name}.{key}"] for key in ("exp_avg", "exp_avg_sq")}
        assert np.array_equal(trace.opt_state[f"{name}.step"], np.arange(1.0, len(trace) + 1))
        for t in range(len(trace)):
            rule = adam_of(spec)
            if t:
                before = (array[t - 1] for array in recorded.values())
                rule.moments[name] = (t, *before)
            after = rule(name, p[t], g[t])
            for array, new in zip(recorded.values(), rule.moments[name][1:], strict=True):
                size = max(np.abs(array[t]).max(), np.abs(array[max(t - 1, 0)]).max())
                worst = max(worst, ratio(array[t], new, 8 * EPS * size))
            worst = max(worst, ratio(p[t + 1], after, 4 * EPS * np.abs(p[t : t + 2]).max()))
    return worst


@pytest.mark.parametrize("framework", launch.FRAMEWORKS)
@pytest.mark.parametrize("example", [ADAM, "adam_update", "parameter_groups", "selective_update"])
def test_every_adam_update_is_the_rules(example: str, framework: str) -> None:
    spec, trace = trace_of(example, framework)
    owners = {leaf.rpartition(".")[0] for leaf in trace.opt_state}
    moved = {name for name in trace.params if not name.startswith("gru.")}
    assert owners == (moved if example == "selective_update" else set(trace.params))
    assert adam_off(spec, trace) <= 1


def test_wrong_adam_update_is_noticed() -> None:
    spec, trace = trace_of("parameter_groups", "jax")
    assert adam_off(dataclasses.replace(spec, learning_rate=0.01 * (1 + 1e-11)), trace) > 1
    later = np.roll(trace.grads["gru.bias_hh_l0"], 1, axis=0)
    grads = dict(trace.grads) | {"gru.bias_hh_l0": later}
    assert adam_off(spec, dataclasses.replace(trace, grads=grads)) > 1


def numpy_rnn(params: Mapping[str, Any], x: np.ndarray) -> np.ndarray:
    """(N, T, I) -> the last output (N, H) of h' = tanh(W_ih x + b_ih + W_hh h + b_hh)."""
    w_ih, w_hh, b_ih, b_hh = (params[name] for name in _RECURRENT)
    h = np.zeros((len(x), len(w_hh)))
    for t in range(x.shape[1]):
        h = np.tanh(x[:, t] @ w_ih.T + b_ih + h @ w_hh.T + b_hh)
    return h


def numpy_gru(params: Mapping[str, Any], x: np.ndarray, order: str = "rzn") -> np.ndarray:
    """(N, T, I) -> the last output (N, H).

    r = s(W_ir x + b_ir + W_hr h + b_hr), z alike, n = tanh(W_in x + b_in + r (W_hn h + b_hn)),
    h' = (1 - z) n + z h. Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.GRU.html
    """
    w_ih, w_hh, b_ih, b_hh = (
        dict(zip(order, np.split(params[name], 3), strict=True)) for name in _RECURRENT
    )
    h = np.zeros((len(x), w_hh["r"].shape[1]))
    for t in range(x.shape[1]):
        i = {gate: x[:, t] @ w_ih[gate].T + b_ih[gate] for gate in "rzn"}
        k = {gate: h @ w_hh[gate].T + b_hh[gate] for gate in "rzn"}
        r, z = (1 / (1 + np.exp(-i[gate] - k[gate])) for gate in "rz")
        n = np.tanh(i["n"] + r * k["n"])
        h = (1 - z) * n + z * h
    return h


SMALL_RNN = {"hidden_size": 12, "batch_size": 75, "epochs": 2}
_RECURRENT = ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0")


def losses_off(spec: Any, trace: Trace, network: Callable[[Any, np.ndarray], np.ndarray]) -> float:
    """How far the recorded losses are from the equations at the recorded parameters.

    A loss of squared errors of numbers of size 1, or a cross entropy of logits of size 10, made by
    7 or 28 steps of a contracting recurrence: each adds an eps or two of its output. 64 eps; the
    largest measured was below 12.
    """
    worst = 0.0
    for step, batch in enumerate(spec.batches()):
        named = {name: array[step] for name, array in trace.params.items()}
        within = {k.partition(".")[2]: v for k, v in named.items() if k.startswith(("gru", "rnn"))}
        if "x" in batch:
            output = network(within, batch["x"]) @ named["model.weight"].T + named["model.bias"]
            loss = np.mean((output - batch["y"]) ** 2)
            size = np.mean((np.abs(output) + np.abs(batch["y"])) ** 2)
        else:
            h = network(within, batch["images"] / 255)
            logits = h @ named["fc.weight"].T + named["fc.bias"]
            chosen = logits[np.arange(len(logits)), batch["labels"]]
            loss = np.mean(np.log(np.sum(np.exp(logits), axis=1)) - chosen)
            size = np.abs(logits).max()
        worst = max(worst, ratio(trace.losses[step], loss, 64 * EPS * size))
    return worst


@pytest.mark.parametrize("framework", launch.FRAMEWORKS)
@pytest.mark.parametrize(
    ("example", "fields", "network"),
    [
        ("parameter_groups", {}, numpy_gru),
        ("selective_update", {}, numpy_gru),
        ("mnist_rnn", SMALL_RNN, numpy_rnn),
    ],
)
def test_losses_are_the_equations(example: str, fields: Any, network: Any, framework: str) -> None:
    spec, trace = trace_of(example, framework, **fields)
    assert len(trace) >= 20
    assert losses_off(spec, trace, network) <= 1


def test_wrong_equations_are_noticed() -> None:
    spec, trace = trace_of("parameter_groups", "torch")
    for order in ("zrn", "rnz", "nzr"):
        assert losses_off(spec, trace, functools.partial(numpy_gru, order=order)) > 1
    spec, trace = trace_of("mnist_rnn", "torch", **SMALL_RNN)
    assert losses_off(spec, trace, lambda params, x: numpy_rnn({**params, "bias_hh_l0": 0}, x)) > 1
    assert losses_off(dataclasses.replace(spec, seed=1), trace, numpy_rnn) > 1  # another order
