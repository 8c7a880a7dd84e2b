"""A pair small enough to be trained in no time: two layers, one of them square, and Adam.

The JAX step has PyTorch's names and shapes, or those of a usual JAX program.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from twinstep.port.mapping import Mapping, Piece
from twinstep.trace.ledger import Trace

FEATURES, HIDDEN, BATCH, RATE = 6, 32, 8, 2.0**-6
Step = Callable[[Any, Any], Any]


def torch_side(steps: int = 8, dtype: str = "float64", keep_inputs: bool = True) -> Trace:
    """What PyTorch's program leaves."""
    import torch
    from torch import nn

    from twinstep.torch import record

    torch.manual_seed(0)
    kind = getattr(torch, dtype)
    model = nn.Sequential(nn.Linear(FEATURES, HIDDEN), nn.Tanh(), nn.Linear(HIDDEN, HIDDEN))
    model.to(kind)
    optimizer = torch.optim.Adam(model.parameters(), lr=RATE)
    with record(model) as rec:
        for _ in range(steps):
            x = torch.randn(BATCH, FEATURES, dtype=kind)
            if keep_inputs:
                rec.batch(x=x)
            optimizer.zero_grad()
            model(x).square().mean().backward()
            optimizer.step()
    return rec.trace


def one_entry(step: int, by: Any) -> Callable[[Any, jax.Array], Any]:
    """What has one entry of the square weight off after one of the updates."""

    def spoil(params: Any, count: jax.Array) -> Any:
        weight = params["2"]["weight"]
        weight = jnp.where(count == step, weight.at[3, 7].add(by), weight)
        return params | {"2": params["2"] | {"weight": weight}}

    return spoil


def adam(learning_rate: Any = RATE, eps: float = 1e-8) -> optax.GradientTransformation:
    """The right rule, unless told otherwise."""
    return optax.adam(learning_rate, eps=eps)


def forward(params: Any, x: jax.Array) -> jax.Array:
    """With PyTorch's names."""
    hidden = jnp.tanh(x @ params["0"]["weight"].T + params["0"]["bias"])
    return hidden @ params["2"]["weight"].T + params["2"]["bias"]


def transposed(params: Any, x: jax.Array) -> jax.Array:
    """The square weight is taken for its transpose."""
    return forward(params | {"2": params["2"] | {"weight": params["2"]["weight"].T}}, x)


def renamed(params: Any, x: jax.Array) -> jax.Array:
    """With names and layouts of its own, those of `to_renamed`."""
    hidden = jnp.tanh(x @ params["inner"]["kernel"] + params["inner"]["bias"])
    return hidden @ params["outer"]["kernel"] + params["outer"]["bias"]


def to_renamed() -> Mapping:
    """Which of PyTorch's entries the leaves of `renamed` are."""
    leaves: dict[str, tuple[Piece, ...]] = {}
    shapes: dict[str, tuple[int, ...]] = {}
    theirs: dict[str, tuple[int, ...]] = {}
    for own, of, size in (("inner", "0", FEATURES), ("outer", "2", HIDDEN)):
        box = (0, HIDDEN), (0, size)
        piece = Piece(f"{of}.weight", (HIDDEN, size), box, (1, 0), box[::-1])
        leaves[f"{own}.kernel"] = (piece,)
        leaves[f"{own}.bias"] = (Piece(f"{of}.bias", (HIDDEN,), box[:1], (0,), box[:1]),)
        shapes |= {f"{own}.kernel": (size, HIDDEN), f"{own}.bias": (HIDDEN,)}
        theirs |= {f"{of}.weight": (HIDDEN, size), f"{of}.bias": (HIDDEN,)}
    return Mapping(leaves, shapes, theirs)


def step_of(
    tx: optax.GradientTransformation,
    forward: Callable[[Any, jax.Array], jax.Array] = forward,
    spoil: Callable[[Any, jax.Array], Any] = lambda params, count: params,
) -> Step:
    """The port's `step_fn`; spoil: what else becomes of the parameters after so many updates."""

    def step(state: Any, batch: Any) -> Any:
        params, (opt_state, count) = state

        def loss_fn(params: Any) -> jax.Array:
            return jnp.mean(forward(params, batch["x"]) ** 2)

        loss, grads = jax.value_and_grad(loss_fn)(params)
        updates, opt_state = tx.update(grads, opt_state, params)
        params = spoil(optax.apply_updates(params, updates), count + 1)
        return (params, (opt_state, count + 1)), loss

    return step


def state_of(tx: optax.GradientTransformation) -> Any:
    """Its state before the first step, whose parameters are the golden's."""
    return None, lambda params: (tx.init(params), jnp.zeros((), int))
