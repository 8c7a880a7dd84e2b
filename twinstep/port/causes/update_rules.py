"""What optimizers make of a gradient, right and wrong alike: one function a family, in float64.

Each takes its state, the gradient (B, N), the numbers of this update and the forms of its rule, and
gives the step, which is to be subtracted. B: candidates that differ in a number and are tried
together; N: entries of all leaves. Numbers bear PyTorch's names and broadcast to (B, N).
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from twinstep.port.causes.rounded import kept

State = dict[str, Any]
Numbers = Mapping[str, np.ndarray]
Forms = Mapping[str, Any]
Core = Callable[[State, np.ndarray, Numbers, Forms], np.ndarray]


def _count(state: State, forms: Forms) -> Any:
    """The update's number in bias corrections, 1 the first."""
    state["count"] = state.get("count", 0) + 1
    return state["count"] + forms.get("ahead", 0)


def _averaged(state: State, name: str, decay: Any, value: Any, start: Any = 0.0) -> Any:
    state[name] = decay * state.get(name, start) + (1 - decay) * value
    return state[name]


def _shrunk(decay: Any, moment: Any, forms: Forms) -> Any:
    """A moment's part of the next one; a product of its dtype, if it is kept in another."""
    kind = forms["moment_dtype"]
    if not kind:
        return decay * moment
    return kept(kept(np.asarray(decay), kind) * moment, kind)


def _remembered(moment: Any, forms: Forms) -> Any:
    """What is kept of a moment until the next update: this one has it whole."""
    return kept(moment, forms["moment_dtype"]) if forms["moment_dtype"] else moment


def sgd(state: State, grad: np.ndarray, n: Numbers, forms: Forms) -> np.ndarray:
    """torch.optim.SGD; forms: nesterov, first, lr_inside, debiased, moment_dtype."""
    momentum, dampening, lr = n["momentum"], n["dampening"], n["lr"]
    inner = lr if forms["lr_inside"] else 1.0
    scaled = inner * grad
    if forms["first"] == "averaged":
        dampening = momentum
    if "buffer" in state:
        buffer = _shrunk(momentum, state["buffer"], forms) + (1 - dampening) * scaled
    else:  # PyTorch's first buffer is the gradient, undamped
        buffer = scaled if forms["first"] == "gradient" else (1 - dampening) * scaled
    state["buffer"] = _remembered(buffer, forms)
    if forms["debiased"]:
        buffer = buffer / (1 - momentum ** _count(state, forms))
    step = scaled + momentum * buffer if forms["nesterov"] else buffer
    step = np.where(momentum == 0, scaled, step)  # PyTorch keeps no buffer then
    return step if forms["lr_inside"] else lr * step


def _adam_root(variance: Any, correction: Any, eps: Any, form: str) -> Any:
    """What Adam divides by, by where eps is."""
    if form == "inside the root":
        return np.sqrt(variance / correction + eps)
    if form == "before the correction":
        return (np.sqrt(variance) + eps) / np.sqrt(correction)
    if form == "inside the root, before the correction":
        return np.sqrt(variance + eps) / np.sqrt(correction)
    if form == "maximum":
        return np.maximum(np.sqrt(variance / correction), eps)
    return np.sqrt(variance / correction) + eps


def _corrections(count: Any, n: Numbers, forms: Forms) -> tuple[Any, Any]:
    corrected = forms["corrected"]
    first = 1 - n["betas.0"] ** count if corrected in ("both", "first") else 1.0
    second = 1 - n["betas.1"] ** count if corrected in ("both", "second") else 1.0
    return first, second


def adam(state: State, grad: np.ndarray, n: Numbers, forms: Forms) -> np.ndarray:
    """torch.optim.Adam, AdamW.

    Forms: eps_form, corrected, amsgrad, nesterov, ahead, variance, sums, moment_dtype.
    """
    count = _count(state, forms)
    first, second = _corrections(count, n, forms)
    mean = _shrunk(n["betas.0"], state.get("mean", 0.0), forms) + (1 - n["betas.0"]) * grad
    state["mean"] = _remembered(mean, forms)
    if forms["variance"] == "belief":
        variance = _averaged(state, "variance", n["betas.1"], (grad - mean) ** 2) + n["eps_root"]
        state["variance"] = variance
    elif forms["variance"] == "yogi":
        old = state.get("variance", n["initial"])
        variance = old - (1 - n["betas.1"]) * np.sign(old - grad**2) * grad**2
        state["variance"] = variance
    else:
        variance = _averaged(state, "variance", n["betas.1"], grad**2) + n["eps_root"] * second
    if forms["sums"] in ("both", "first"):
        mean = mean / (1 - n["betas.0"])
    if forms["sums"] in ("both", "second"):
        variance = variance / (1 - n["betas.1"])
    if forms["amsgrad"] == "torch":
        variance = state["maximum"] = np.maximum(state.get("maximum", 0.0), variance)
    elif forms["amsgrad"] == "corrected":
        state["maximum"] = np.maximum(state.get("maximum", 0.0), variance / second)
        variance, second = state["maximum"], 1.0
    if forms["nesterov"]:  # as optax has it
        ahead = 1 - n["betas.0"] ** (count + 1) if forms["corrected"] in ("both", "first") else 1.0
        mean = n["betas.0"] * mean / ahead + (1 - n["betas.0"]) * grad / first
    else:
        mean = mean / first
    return n["lr"] * mean / _adam_root(variance, second, n["eps"], forms["eps_form"])


def yogi(state: State, grad: np.ndarray, n: Numbers, forms: Forms) -> np.ndarray:
    """optax.yogi: both of Adam's moments start at a small value."""
    state.setdefault("mean", n["initial"])
    return adam(state, grad, n, {**forms, "variance": "yogi"})


def nadam(state: State, grad: np.ndarray, n: Numbers, forms: Forms) -> np.ndarray:
    """torch.optim.NAdam, whose beta1 warms up."""
    count = _count(state, forms)
    decay = n["momentum_decay"]
    now = n["betas.0"] * (1 - 0.5 * 0.96 ** (count * decay))
    following = n["betas.0"] * (1 - 0.5 * 0.96 ** ((count + 1) * decay))
    state["product"] = state.get("product", 1.0) * now
    mean = _averaged(state, "mean", n["betas.0"], grad)
    variance = _averaged(state, "variance", n["betas.1"], grad**2)
    root = _adam_root(variance, 1 - n["betas.1"] ** count, n["eps"], forms["eps_form"])
    ahead = state["product"] * following
    look = (1 - now) / (1 - state["product"]) * grad + following / (1 - ahead) * mean
    return n["lr"] * look / root


def radam(state: State, grad: np.ndarray, n: Numbers, forms: Forms) -> np.ndarray:
    """torch.optim.RAdam; forms: eps_form, threshold."""
    count = _count(state, forms)
    decay = n["betas.1"]
    mean = _averaged(state, "mean", n["betas.0"], grad) / (1 - n["betas.0"] ** count)
    variance = _averaged(state, "variance", decay, grad**2)
    correction = 1 - decay**count
    limit = 2 / (1 - decay) - 1
    length = limit - 2 * count * decay**count / correction
    ratio = (length - 4) * (length - 2) * limit / ((limit - 4) * (limit - 2) * length)
    root = _adam_root(variance, correction, n["eps"], forms["eps_form"])
    rectified = np.sqrt(np.maximum(ratio, 0.0)) * mean / root
    return n["lr"] * np.where(length > forms["threshold"], rectified, mean)


def adamax(state: State, grad: np.ndarray, n: Numbers, forms: Forms) -> np.ndarray:
    """torch.optim.Adamax; forms: corrected."""
    count = _count(state, forms)
    mean = _averaged(state, "mean", n["betas.0"], grad)
    if forms["eps_form"] == "outside the maximum":
        state["largest"] = np.maximum(n["betas.1"] * state.get("largest", 0.0), np.abs(grad))
        largest = state["largest"] + n["eps"]
    else:
        largest = np.maximum(n["betas.1"] * state.get("largest", 0.0), np.abs(grad) + n["eps"])
        state["largest"] = largest
    return n["lr"] * mean / largest / _corrections(count, n, forms)[0]


def adadelta(state: State, grad: np.ndarray, n: Numbers, forms: Forms) -> np.ndarray:
    """torch.optim.Adadelta."""
    squares = _averaged(state, "squares", n["rho"], grad**2)
    steps = state.get("steps", 0.0)
    delta = np.sqrt(steps + n["eps"]) / np.sqrt(squares + n["eps"]) * grad
    _averaged(state, "steps", n["rho"], delta**2)
    return n["lr"] * delta


def adagrad(state: State, grad: np.ndarray, n: Numbers, forms: Forms) -> np.ndarray:
    """torch.optim.Adagrad; forms: eps_form."""
    lr = n["lr"] / (1 + (_count(state, forms) - 1) * n["lr_decay"])
    squares = state["squares"] = state.get("squares", n["initial"]) + grad**2
    return lr * grad / _adam_root(squares, 1.0, n["eps"], forms["eps_form"])


def rmsprop(state: State, grad: np.ndarray, n: Numbers, forms: Forms) -> np.ndarray:
    """torch.optim.RMSprop; forms: centered, eps_form, lr_inside, nesterov, debiased."""
    squares = _averaged(state, "squares", n["alpha"], grad**2, n["initial"])
    if forms["debiased"]:
        squares = squares / (1 - n["alpha"] ** _count(state, forms))
    if forms["centered"]:
        squares = squares - _averaged(state, "mean", n["alpha"], grad) ** 2
    root = _adam_root(np.maximum(squares, 0.0), 1.0, n["eps"], forms["eps_form"])
    inner = n["lr"] if forms["lr_inside"] else 1.0
    scaled = inner * grad / root
    buffer = state["buffer"] = n["momentum"] * state.get("buffer", 0.0) + scaled
    step = scaled + n["momentum"] * buffer if forms["nesterov"] else buffer
    return step if forms["lr_inside"] else n["lr"] * step


def factored(state: State, grad: np.ndarray, n: Numbers, forms: Forms) -> np.ndarray:
    """optax.scale_by_factored_rms, of leaves too small to be factored.

    Its decay rises, and is computed in float32 in any run.
    """
    count = np.float32(_count(state, forms))
    decay = float(np.float32(1) - count ** np.float32(-0.8))
    return n["lr"] * grad / np.sqrt(_averaged(state, "squares", decay, grad**2 + 1e-30))


def lion(state: State, grad: np.ndarray, n: Numbers, forms: Forms) -> np.ndarray:
    """optax.lion."""
    mixed = n["betas.0"] * state.get("mean", 0.0) + (1 - n["betas.0"]) * grad
    _averaged(state, "mean", n["betas.1"], grad)
    return n["lr"] * np.sign(mixed)


def signed(state: State, grad: np.ndarray, n: Numbers, forms: Forms) -> np.ndarray:
    """The signs of SGD's steps."""
    return n["lr"] * np.sign(sgd(state, grad, n, forms))


def adan(state: State, grad: np.ndarray, n: Numbers, forms: Forms) -> np.ndarray:
    """optax.adan."""
    count = _count(state, forms)
    b1, b2, b3 = 0.98, 0.92, 0.99
    change = grad - state.get("grad", grad)
    state["grad"] = grad
    mean = _averaged(state, "mean", b1, grad) / (1 - b1**count)
    drift = _averaged(state, "drift", b2, change) / (1 - b2**count)
    squares = (grad + (1 - b2) * change) ** 2
    squares = _averaged(state, "squares", b3, squares) / (1 - b3**count)
    root = np.sqrt(squares + n["eps_root"]) + n["eps"]
    return n["lr"] * (mean + (1 - b2) * drift) / root


def novograd(state: State, grad: np.ndarray, n: Numbers, forms: Forms) -> np.ndarray:
    """optax.novograd: one second moment a leaf."""
    square = n["leaf_square"]
    old = state.get("square", square)
    state["square"] = n["betas.1"] * old + (1 - n["betas.1"]) * square
    scaled = grad / (np.sqrt(state["square"]) + n["eps"])
    if forms["decay"] == "inside":
        scaled = scaled + n["weight_decay"] * n["params"]
    state["mean"] = n["betas.0"] * state.get("mean", 0.0) + scaled
    return n["lr"] * state["mean"]


CORES: Mapping[str, Core] = {
    core.__name__: core
    for core in (
        sgd,
        adam,
        yogi,
        nadam,
        radam,
        adamax,
        adadelta,
        adagrad,
        rmsprop,
        factored,
        lion,
        signed,
        adan,
        novograd,
    )
}
