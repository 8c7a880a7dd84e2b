"""Whether a layer whose weight is computed is PyTorch's: its state_dict, outputs, gradients and
buffers over several calls, in training and then not.

Arrays may be 1e-13 of their largest entry apart, or of 1 where that is less: weights and inputs are
near 1, and a sum of such is rounded by some 1e-16 each.
"""

import warnings
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import torch
from flax import nnx
from helpers.kit_parity import apart, largest

from twinstep.jax import nn

ALLOWED = 1e-13
CALLS = 2
F64: dict[str, Any] = {"dtype": torch.float64}


class Made(NamedTuple):
    """A layer with a computed weight.

    layer, args, kwargs: its class by name and what it is made with
    shape: of its input; attention gets it as query, key and value
    norm: the function, as its path in nn.utils
    name: the attribute; options: further arguments of the function
    """

    layer: str
    args: tuple[Any, ...]
    shape: tuple[int, ...]
    norm: str
    name: str = "weight"
    options: Mapping[str, Any] = {}
    kwargs: Mapping[str, Any] = {}


def function(home: Any, path: str) -> Callable[..., Any]:
    """nn.utils' or torch.nn.utils' function of a path."""
    for part in path.split("."):
        home = getattr(home, part)
    return home


def in_pytorch(made: Made) -> Any:
    """PyTorch's layer."""
    torch.manual_seed(0)
    layer = getattr(torch.nn, made.layer)(*made.args, **made.kwargs, **F64)
    with warnings.catch_warnings(action="ignore"):  # of weight_norm's old name
        function(torch.nn.utils, made.norm)(layer, made.name, **made.options)
    return layer


def in_kit(made: Made) -> Any:
    """The kit's."""
    nn.manual_seed(0)
    layer = getattr(nn, made.layer)(*made.args, **made.kwargs)
    function(nn.utils, made.norm)(layer, made.name, **made.options)
    return layer


def numbers(*shape: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).normal(size=shape)


def _output(layer: Any, x: Any) -> Any:
    """The output alone."""
    out = layer(x, x, x) if type(layer).__name__.endswith("MultiheadAttention") else layer(x)
    return out[0] if isinstance(out, tuple) else out


def _far(what: str, found: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    """What is not right, a line each; names and their order first."""
    if list(found) != list(wanted):
        return [f"{what}: {list(found)}, expected {list(wanted)}"]
    wrong = []
    for name, other in wanted.items():
        bound = ALLOWED * max(1.0, largest([other]))
        if not (off := apart(found[name], other)) <= bound:
            wrong.append(f"{what} {name}: off by {off:.3g}, allowed {bound:.3g}")
    return wrong


def _state(layer: Any) -> dict[str, Any]:
    return {name: tensor.detach().numpy().copy() for name, tensor in layer.state_dict().items()}


def differences(
    made: Made, *, jit: bool = False, theirs: Any = None, ours: Any = None
) -> list[str]:
    """What the kit's layer does otherwise than PyTorch's, a line each."""
    theirs = in_pytorch(made) if theirs is None else theirs
    ours = in_kit(made) if ours is None else ours
    x = numbers(*made.shape)
    weights = numbers(*_output(theirs.eval(), torch.tensor(x)).shape, seed=1)
    theirs.train()
    found = _far("at first", nn.state_dict(ours), _state(theirs))

    def loss(layer: Any) -> tuple[Any, Any]:
        output = _output(layer, jnp.asarray(x))
        return jnp.sum(output * weights), output

    def derived(layer: Any) -> Any:
        return nnx.value_and_grad(loss, has_aux=True)(layer)

    derived = nnx.jit(derived) if jit else derived
    for call in range(CALLS):
        theirs.zero_grad()
        output = _output(theirs, torch.tensor(x))
        (output * torch.tensor(weights)).sum().backward()
        (_, other), grads = derived(ours)
        found += _far(f"call {call}", {"output": other}, {"output": output.detach().numpy()})
        wanted = {name: param.grad.numpy() for name, param in theirs.named_parameters()}
        found += _far(f"call {call}, gradient of", nn.state_dict(ours, grads), wanted)
        found += _far(f"call {call}, then", nn.state_dict(ours), _state(theirs))
    wanted = {"output": _output(theirs.eval(), torch.tensor(x)).detach().numpy()}
    given = (nnx.jit(_output) if jit else _output)(ours.eval(), jnp.asarray(x))
    found += _far("in evaluation", {"output": given}, wanted)
    return found + _far("after evaluation", nn.state_dict(ours), _state(theirs))


@nnx.jit
def step(net: Any, x: Any, y: Any) -> Any:
    """A step of SGD on the mean square."""
    value, grads = nnx.value_and_grad(lambda net: jnp.mean(jnp.square(net(x) - y)))(net)
    nnx.update(net, jax.tree.map(lambda p, g: p - 0.1 * g, nnx.state(net, nnx.Param), grads))
    return value


def trained_apart(theirs: Any, x_shape: tuple[int, ...], y_shape: tuple[int, ...]) -> float:
    """How far 20 steps of SGD bring a net of PyTorch's and the kit's apart: losses, arrays."""
    ours = nn.from_torch(theirs)
    optimizer = torch.optim.SGD(theirs.parameters(), 0.1)
    worst, rng = 0.0, np.random.default_rng(1)
    for _ in range(20):
        x, y = rng.normal(size=x_shape), rng.normal(size=y_shape)
        optimizer.zero_grad()
        loss = (theirs(torch.tensor(x)) - torch.tensor(y)).square().mean()
        loss.backward()
        optimizer.step()
        found = step(ours, jnp.asarray(x), jnp.asarray(y))
        worst = max(worst, apart(found, loss.detach().numpy()))
    named = nn.state_dict(ours)
    return max(worst, *(apart(named[name], array) for name, array in _state(theirs).items()))
