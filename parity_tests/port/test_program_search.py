"""What of a program would have to be otherwise is found, by its loss and confirmed by gradients."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax, nn

from twinstep.jax.rewriting.program import flattened
from twinstep.jax.rewriting.search import Difference, Example, differences

pytestmark = [pytest.mark.quick_to_compile, pytest.mark.usefixtures("x64")]

Loss = Callable[[Any, Any], jax.Array]
RTOL = 1e-11
"""Of gradients: 1e5 eps, where any other function, number or axis is off by 1e-6 and more."""


def drawn(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.RandomState(seed).standard_normal(shape)


PARAMS = {"w": drawn(3, 5, seed=1), "q": drawn(3, 4, seed=2), "k": drawn(3, 4, seed=3)}
KERNEL = {"kernel": drawn(3, 3, 1, 2, seed=4)}
BATCHES = [
    {"x": drawn(4, 6, 3, seed=5 + i), "y": np.random.RandomState(i).randint(0, 5, (4, 6))}
    for i in range(2)
]
IMAGES = [{"x": drawn(2, 8, 8, 1, seed=8 + i)} for i in range(2)]


def found(
    wrong: Loss, right: Loss, params: Any = PARAMS, batches: Any = BATCHES
) -> list[Difference]:
    """The differences of a program and another one."""
    examples = [Example(params, batch, float(right(params, batch))) for batch in batches]
    want = jax.grad(right)(params, batches[0])

    def accepts(loss_fn: Loss) -> bool:
        pairs = zip(
            jax.tree.leaves(jax.jit(jax.grad(loss_fn))(params, batches[0])),
            jax.tree.leaves(want),
            strict=True,
        )
        return all(np.allclose(a, b, rtol=RTOL, atol=RTOL * abs(b).max()) for a, b in pairs)

    return differences(wrong, examples, accepts)


def applied(function: Callable[[jax.Array], jax.Array]) -> Loss:
    return lambda p, b: jnp.mean(function(b["x"] @ p["w"]) ** 2)


def attended(attention: Callable[[jax.Array], jax.Array]) -> Loss:
    """attention: of scores, (N, L, L)"""

    def loss(p: Any, b: Any) -> jax.Array:
        scores = (b["x"] @ p["q"]) @ (b["x"] @ p["k"]).swapaxes(1, 2)
        return jnp.mean((attention(scores) @ b["x"] @ p["w"]) ** 2)

    return loss


def masked(scores: jax.Array, diagonal: int = 0, hidden: float = -np.inf) -> jax.Array:
    seen = np.tril(np.ones(scores.shape[-2:], bool), diagonal)
    return nn.softmax(jnp.where(seen, scores / 2, hidden))


def normed(axes: Any, eps: float = 1e-5, ddof: int = 0, less: bool = True) -> Loss:
    def norm(x: jax.Array) -> jax.Array:
        apart = x - x.mean(axes, keepdims=True) if less else x
        variance = (apart**2).sum(axes, keepdims=True) / (x[0, 0].size - ddof if ddof else 1)
        variance = variance if ddof else (apart**2).mean(axes, keepdims=True)
        return apart / jnp.sqrt(variance + eps)

    return lambda p, b: jnp.mean(jnp.tanh(norm(b["x"] @ p["w"])) ** 3)


def normed_and(function: Callable[[jax.Array], jax.Array], eps: float) -> Loss:
    def loss(p: Any, b: Any) -> jax.Array:
        x = b["x"] @ p["w"]
        x = (x - x.mean(-1, keepdims=True)) / jnp.sqrt(x.var(-1, keepdims=True) + eps)
        return jnp.mean(function(x @ p["w"].T) ** 2)

    return loss


def pooled(pool: Callable[[jax.Array], jax.Array]) -> Loss:
    return lambda p, b: jnp.mean((pool(jnp.tanh(b["x"] @ p["w"]))) ** 2)


def looped(gate: Callable[[jax.Array], jax.Array]) -> Loss:
    """A cell over time, in a scan."""

    def loss(p: Any, b: Any) -> jax.Array:
        def step(h: jax.Array, x: jax.Array) -> tuple[jax.Array, jax.Array]:
            z = gate(x @ p["w"])
            h = (1 - z) * jnp.tanh(x @ p["w"] + h) + z * h
            return h, h

        start = jnp.zeros((4, 5))
        last, _ = lax.scan(step, start, b["x"].swapaxes(0, 1))
        return jnp.mean(last**2)

    return loss


def residual(times: float) -> Loss:
    def loss(p: Any, b: Any) -> jax.Array:
        x = b["x"] @ p["q"]
        x = x + 1.0
        for _ in range(2):
            y = jnp.tanh(x) @ p["k"].T
            y = y @ p["q"]
            x = x + y if times else y
        return jnp.mean(x**2)

    return loss


def gated(*gates: Callable[[jax.Array], jax.Array]) -> Loss:
    """Two gates of one line, in each turn of a loop."""

    def loss(p: Any, b: Any) -> jax.Array:
        h = jnp.zeros((4, 4))
        for t in range(2):
            names = zip(gates, ("q", "k"), strict=True)
            r, z = (gate(b["x"][:, t] @ p[name] + h) for gate, name in names)
            h = z * jnp.tanh(r) + (1 - z) * h
        return jnp.mean(h**2)

    return loss


def convolved(padding: Any, pool: Any = (lax.max, -np.inf, 1.0)) -> Loss:
    def loss(p: Any, b: Any) -> jax.Array:
        dims = ("NHWC", "HWIO", "NHWC")
        y = lax.conv_general_dilated(b["x"], p["kernel"], (2, 2), padding, dimension_numbers=dims)
        of, start, size = pool
        y = lax.reduce_window(y, start, of, (1, 2, 2, 1), (1, 2, 2, 1), "VALID") / size
        return jnp.mean(y**2)

    return loss


def classified(criterion: Callable[[jax.Array, jax.Array], jax.Array]) -> Loss:
    """criterion: of log-probabilities of the labels and their mean over classes, and labels"""

    def loss(p: Any, b: Any) -> jax.Array:
        logs = nn.log_softmax(b["x"] @ p["w"])
        of_label = jnp.take_along_axis(logs, b["y"][..., None], -1)[..., 0]
        return criterion(jnp.stack([-of_label, -logs.mean(-1)]), b["y"])

    return loss


def smoothed(by: float) -> Loss:
    return classified(lambda logs, _: ((1 - by) * logs[0] + by * logs[1]).mean())


def ignoring(label: int) -> Loss:
    return classified(lambda logs, y: (logs[0] * (y != label)).sum() / (y != label).sum())


def exact(x: jax.Array) -> jax.Array:
    return nn.gelu(x, approximate=False)


def dropping(x: jax.Array) -> jax.Array:
    return exact(x) * jax.random.bernoulli(jax.random.key(0), 0.9, x.shape) / 0.9


def by_last(x: jax.Array) -> jax.Array:
    return x[:, -1]


SUMMED = (lax.add, 0.0, 4.0)
FAULTS: dict[str, tuple[Loss, Loss, str]] = {
    "tanh GELU": (applied(nn.gelu), applied(exact), "GELU in place of"),
    "silu": (applied(nn.silu), applied(nn.relu), "ReLU in place of"),
    "dropout": (applied(dropping), applied(exact), "GELU in place of"),
    "slope": (
        applied(lambda x: nn.leaky_relu(x, 0.2)),
        applied(nn.leaky_relu),
        "0.01 in place of 0.2",
    ),
    "factor": (
        lambda p, b: jnp.mean(jnp.tanh(b["x"] @ p["w"]) ** 2),
        lambda p, b: jnp.mean(jnp.tanh(b["x"] @ p["w"] / 8**0.5) ** 2),
        "dot_general gives",
    ),
    "no mask": (attended(lambda s: nn.softmax(s / 2)), attended(masked), "a causal mask before"),
    "mask by one": (attended(lambda s: masked(s, 1)), attended(masked), "a causal mask in place"),
    "mask weak": (attended(lambda s: masked(s, 0, -3.0)), attended(masked), "-inf"),
    "mask inverted": (
        lambda p, b: jnp.mean(jnp.where(b["y"] > 2, b["x"] @ p["w"][:, 0], 0.0) ** 2),
        lambda p, b: jnp.mean(jnp.where(b["y"] > 2, 0.0, b["x"] @ p["w"][:, 0]) ** 2),
        "the mask inverted",
    ),
    "mask added": (
        attended(lambda s: nn.softmax(s / 2 + np.tril(np.ones((6, 6))))),
        attended(masked),
        "0 and -inf, causal, in place of what is added",
    ),
    "softmax over queries": (
        attended(lambda s: nn.softmax(s, -2)),
        attended(nn.softmax),
        "softmax over axis -1",
    ),
    "eps": (normed(-1, 1e-3), normed(-1), "1e-05 in place of 0.001"),
    "unbiased": (normed(-1, ddof=1), normed(-1), "5 in place of 4"),
    "GELU and eps": (
        normed_and(nn.gelu, 1e-6),
        normed_and(exact, 1e-5),
        ", and 1e-05 in place of 1e-06",
    ),
    "no mean": (normed(-1, less=False), normed(-1), "a layer norm in place of"),
    "over the batch": (normed(-1), normed((0, 1)), "a batch norm of the last axis in place of"),
    "first": (pooled(lambda x: x[:, 0]), pooled(by_last), "the last in place of"),
    "mean": (pooled(lambda x: x.mean(1)), pooled(lambda x: x.max(1)), "the largest in place of"),
    "reversed": (
        lambda p, b: pooled(by_last)(p, {"x": b["x"][:, ::-1]}),
        pooled(by_last),
        "in place of",
    ),
    "gate turned": (
        looped(nn.sigmoid),
        looped(lambda x: nn.sigmoid(-x)),
        "1 - sigmoid in place of",
    ),
    "one gate of a line": (
        gated(nn.sigmoid, nn.sigmoid),
        gated(nn.sigmoid, lambda x: nn.sigmoid(-x)),
        "1 - sigmoid in place of",
    ),
    "positions": (
        lambda p, b: jnp.sum(p["w"][(jnp.arange(2) + 1)] * b["x"][0, :2, :1]) ** 2,
        lambda p, b: jnp.sum(p["w"][jnp.arange(2)] * b["x"][0, :2, :1]) ** 2,
        "0 in place of the whole number",
    ),
    "no residual": (residual(0.0), residual(1.0), "what is made at"),
    "a residual": (residual(1.0), residual(0.0), "nothing in place of the"),
    "smoothing": (smoothed(0.0), smoothed(0.1), "cross_entropy(label_smoothing=0.1)"),
    "ignored": (ignoring(1), ignoring(2), "cross_entropy(ignore_index=2)"),
    "sum over time": (
        classified(lambda logs, _: logs[0].mean()),
        classified(lambda logs, _: logs[0].sum(1).mean()),
        "in place of",
    ),
    "stopped": (
        lambda p, b: jnp.mean((b["x"] @ lax.stop_gradient(p["q"]) * (b["x"] @ p["k"])) ** 2),
        lambda p, b: jnp.mean((b["x"] @ p["q"] * (b["x"] @ p["k"])) ** 2),
        "no stop_gradient",
    ),
}
OF_IMAGES: dict[str, tuple[Loss, Loss, str]] = {
    "SAME": (convolved("SAME"), convolved([(1, 1)] * 2), "a padding of (1, 1)"),
    "average pool": (convolved("VALID", SUMMED), convolved("VALID"), "the largest of each window"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_difference_is_found(fault: str) -> None:
    wrong, right, said = FAULTS[fault]
    assert any(said in one.says for one in found(wrong, right)), found(wrong, right)


@pytest.mark.parametrize("fault", OF_IMAGES)
def test_a_difference_of_images_is_found(fault: str) -> None:
    wrong, right, said = OF_IMAGES[fault]
    made = found(wrong, right, KERNEL, IMAGES)
    assert any(said in one.says for one in made), made


def test_where_it_is_is_said() -> None:
    (first, *_) = found(applied(nn.silu), applied(nn.relu))
    line = applied.__code__.co_firstlineno + 1
    assert first.says.endswith(f"at test_program_search.py:{line}")


def test_what_is_changed_is_a_program_again() -> None:
    right = applied(nn.relu)
    (first, *_) = found(applied(nn.silu), right)
    for batch in BATCHES:
        assert np.isclose(first.loss_fn(PARAMS, batch), right(PARAMS, batch), rtol=1e-15)


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        pytest.param(applied(exact), applied(exact), id="nothing"),
        pytest.param(
            applied(lambda x: jnp.sin(3 * x)), applied(lambda x: nn.silu(x) + 0.1), id="unknown"
        ),
        pytest.param(
            attended(lambda s: nn.softmax(s)), attended(lambda s: masked(s * 0.3)), id="two"
        ),
    ],
)
def test_nothing_is_guessed(wrong: Loss, right: Loss) -> None:
    assert found(wrong, right) == []


def test_a_loss_alone_is_no_proof() -> None:
    """Some number is right for any loss: the gradients decide."""
    examples = [Example(PARAMS, BATCHES[0], float(applied(nn.relu)(PARAMS, BATCHES[0])))]
    wrong = applied(lambda x: nn.leaky_relu(x, 0.2))
    assert differences(wrong, examples, lambda loss_fn: True)
    assert differences(wrong, examples, lambda loss_fn: False) == []


def test_time_is_bounded() -> None:
    examples = [Example(PARAMS, BATCHES[0], 1.0)]
    assert differences(applied(nn.silu), examples, lambda loss_fn: True, seconds=0.0) == []


def test_a_program_is_the_same_flat() -> None:
    """With what jit, scan, cond, while and custom derivatives hold."""

    def loss(p: Any, b: Any) -> jax.Array:
        y = looped(nn.sigmoid)(p, b) + jnp.logaddexp(p["w"], 1.0).sum()
        y = lax.cond(y > 0, jnp.sin, jnp.cos, y) + jax.jit(lambda x: nn.relu6(x).sum())(p["w"])
        _, tail = lax.scan(lambda c, x: (c + x, c * x), 0.0, p["w"][0], reverse=True)
        y += lax.while_loop(lambda n: n < 3, lambda n: n + 1, 0) * tail[1]
        return y + jax.checkpoint(jnp.tanh)(y)

    program = flattened(loss, PARAMS, BATCHES[0])
    inputs = [jnp.asarray(leaf) for leaf in jax.tree.leaves((PARAMS, BATCHES[0]))]
    assert np.isclose(program.edited(inputs, {}), loss(PARAMS, BATCHES[0]), rtol=1e-15)


def test_only_what_depends_on_a_change_is_made_again() -> None:
    program = flattened(applied(jnp.tanh), PARAMS, BATCHES[0])
    inputs = [jnp.asarray(leaf) for leaf in jax.tree.leaves((PARAMS, BATCHES[0]))]
    before = program.values(inputs)
    (number,) = (i for i, of in enumerate(program.operations) if of.name == "tanh")
    given, made = program.operations[number].takes[0], list[str]()

    def linear(read: Any) -> Any:
        made.append("here")
        return [read(given)]

    whole, part = (program.edited(inputs, {number: linear}, base) for base in (None, before))
    assert np.isclose(whole, part, rtol=1e-15)
    assert made == ["here", "here"]
    assert not np.isclose(whole, applied(jnp.tanh)(PARAMS, BATCHES[0]))
