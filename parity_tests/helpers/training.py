"""A small network and its data for both frameworks, and a step of any optimizer on either side.

Letters: N samples, three layers 8-16-16-3 with tanh.
"""

import copy
import functools
from collections import abc
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import torch
from flax import nnx

from twinstep.jax import devices
from twinstep.jax.layout import Mapping, module_layout, tree_layout
from twinstep.jax.optim import opt_state_from_torch

Named = abc.Mapping[Any, Any]

_numbers = np.random.RandomState(0)
SIZES = ((8, 16), (16, 16), (16, 3))
NAMES = [f"{i}.{kind}" for i in range(3) for kind in ("weight", "bias")]
"""The parameters in PyTorch's order."""
WEIGHTS = NAMES[::2]
PARAMS = {
    name: _numbers.randn(*shape) / np.sqrt(shape[-1])
    for i, (inputs, outputs) in enumerate(SIZES)
    for name, shape in ((f"{i}.weight", (outputs, inputs)), (f"{i}.bias", (outputs,)))
}
X, Y = _numbers.randn(512, 8), _numbers.randn(512, 3)
BATCHES = _numbers.randint(0, 512, (40, 32))
FULL = np.tile(np.arange(512), (5, 1))
"""All samples, five times: what LBFGS is given."""


def settings(dtype: str = "float64") -> Any:
    """What a run on the CPU computes under."""
    return devices.settings(dtype, devices.find("cpu"))


class TorchNetwork(torch.nn.Module):
    """Layers under the numbers that are their names."""

    def __init__(self) -> None:
        super().__init__()
        for i, size in enumerate(SIZES):
            self.add_module(str(i), torch.nn.Linear(*size, dtype=torch.float64))
        self.load_state_dict({name: torch.tensor(array) for name, array in PARAMS.items()})

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        first, second, third = self.children()
        return third(torch.tanh(second(torch.tanh(first(x)))))


class FlaxNetwork(nnx.Sequential):
    """The same in Flax, (in, out) kernels and all; its layers' numbers are their names."""

    def __init__(self) -> None:
        layers = [nnx.Linear(*s, param_dtype=float, rngs=nnx.Rngs(0)) for s in SIZES]
        super().__init__(*layers)

    def __call__(self, x: jax.Array) -> jax.Array:  # type: ignore[override]  # of one array
        first, second, third = self.layers
        return third(jnp.tanh(second(jnp.tanh(first(x)))))


def torch_setup(
    kind: str, names: Sequence[str] = NAMES, /, **options: Any
) -> tuple[TorchNetwork, Any]:
    """(the network, one of torch.optim for those of its parameters)."""
    model = TorchNetwork()
    given = [p for name, p in model.named_parameters() if name in names]
    return model, getattr(torch.optim, kind)(given, **options)


def arrays(model: torch.nn.Module) -> dict[str, np.ndarray]:
    """The parameters as they are now."""
    return {name: p.detach().numpy().copy() for name, p in model.named_parameters()}


def torch_loss(model: torch.nn.Module, batch: np.ndarray) -> torch.Tensor:
    """The mean squared error of a batch, ()."""
    dtype = next(model.parameters()).dtype
    x, y = (torch.tensor(array[batch], dtype=dtype) for array in (X, Y))
    return ((model(x) - y) ** 2).mean()


def torch_steps(
    model: torch.nn.Module,
    optimizer: Any,
    batches: np.ndarray,
    change: Callable[[Any], Any] = lambda model: None,
    *,
    sign: int = 1,
    loss: Callable[[Any, np.ndarray], torch.Tensor] = torch_loss,
    scheduler: Any = None,
) -> list[dict[str, np.ndarray]]:
    """Trains; the parameters after each step. change: what is done to the gradients before it;
    sign: of the loss
    """
    seen = []
    for batch in batches:

        def closure(batch: np.ndarray = batch) -> torch.Tensor:
            optimizer.zero_grad()
            value = sign * loss(model, batch)
            value.backward()
            for parameter in model.parameters():
                grad = parameter.grad
                if isinstance(optimizer, torch.optim.SparseAdam) and grad is not None:
                    parameter.grad = grad if grad.is_sparse else grad.to_sparse(1)
            change(model)
            return value

        value = optimizer.step(closure)
        if scheduler is not None:
            is_plateau = isinstance(scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau)
            scheduler.step(*([value.item()] if is_plateau else []))
        seen.append(arrays(model))
    return seen


def named_loss(params: Named, batch: jax.Array) -> jax.Array:
    """The same error of parameters by PyTorch's names, in its layout, ()."""
    h = jnp.asarray(X)[batch]
    for i in range(3):
        h = h @ params[f"{i}.weight"].T + params[f"{i}.bias"]
        h = jnp.tanh(h) if i < 2 else h
    return jnp.mean((h - jnp.asarray(Y)[batch]) ** 2)


Parts = tuple[Mapping, Any, Callable[..., jax.Array]]


def plain_parts() -> Parts:
    """(PyTorch's layout, the initial parameters in it, their error as a function of them)."""
    return tree_layout(jax_params()), jax_params(), named_loss


def flax_parts() -> Parts:
    """The same of the Flax network."""
    model = FlaxNetwork()
    layout = module_layout(model)
    graph = nnx.graphdef(model)
    params = layout.to_jax(jax_params())

    def loss(params: Any, batch: jax.Array) -> jax.Array:
        outputs = nnx.merge(graph, params)(jnp.asarray(X)[batch])
        return jnp.mean((outputs - jnp.asarray(Y)[batch]) ** 2)

    return layout, params, loss


def jax_steps(
    optimizer: optax.GradientTransformation,
    batches: np.ndarray,
    params: Any = None,
    opt_state: Any = None,
    loss: Callable[..., jax.Array] = named_loss,
) -> tuple[Any, Any, list[Any]]:
    """(parameters, state, parameters after each step) of a training, one compiled step.

    params, opt_state: where it goes on from; where they are None it begins.
    """
    step, seen = _kept_step(optimizer, loss), []
    params = jax_params() if params is None else params
    opt_state = optimizer.init(params) if opt_state is None else opt_state
    for batch in batches:
        params, opt_state = step(params, opt_state, batch)
        seen.append(params)
    return params, opt_state, seen


class Cut(NamedTuple):
    """A training by PyTorch in the middle: its state and parameters, and how they go on."""

    state_dict: Any
    params: dict[str, np.ndarray]
    rest: np.ndarray
    theirs: list[dict[str, np.ndarray]]


def cut(model: TorchNetwork, optimizer: Any, batches: np.ndarray, first: int | None = None) -> Cut:
    """Trains by the first batches, half of them where nothing is said, and then by the rest."""
    before, rest = np.split(batches, [first or len(batches) // 2])
    torch_steps(model, optimizer, before)
    state_dict, params = copy.deepcopy(optimizer.state_dict()), arrays(model)
    return Cut(state_dict, params, rest, torch_steps(model, optimizer, rest))


def goes_on(
    half: Cut,
    make: Any,
    parts: Callable[[], Parts] = plain_parts,
    names: Sequence[str] | None = NAMES,
) -> tuple[float, Any]:
    """(how far the second half is from PyTorch's when JAX makes it, the state that it began with).

    make: the optimizer, or what makes it of the layout; names: in the order of PyTorch's state
    """
    with settings():
        layout, _, loss = parts()
        start = layout.to_jax({name: jnp.asarray(array) for name, array in half.params.items()})
        ours = make(layout) if callable(make) else make
        state = ours.init(start)
        if half.state_dict is not None:
            state = opt_state_from_torch(half.state_dict, state, layout, names=names)
        _, _, seen = jax_steps(ours, half.rest, start, state, loss)
        return worst(half.theirs, [layout.to_torch(params) for params in seen]), state


def gap(
    theirs: list[Any],
    make: Any,
    batches: np.ndarray,
    parts: Callable[[], Parts] = flax_parts,
) -> float:
    """How far a training is from PyTorch's, as `worst` has it."""
    return goes_on(Cut(None, PARAMS, batches, theirs), make, parts)[0]


def jax_step(
    optimizer: optax.GradientTransformation,
    loss: Callable[..., jax.Array],
    touched: Callable[[jax.Array], Any] | None = None,
) -> Any:
    """(parameters, state) after a compiled step, given those before and a batch.

    touched: the rows that a batch is about; all of them where it is None
    """
    update = optax.with_extra_args_support(optimizer).update

    @jax.jit
    def step(params: Any, opt_state: Any, batch: jax.Array) -> tuple[Any, Any]:
        closure = jax.value_and_grad(lambda params: loss(params, batch))
        value, grads = closure(params)
        every = jax.tree.map(lambda p: jnp.ones(p.shape[0], bool), params)
        rows = every if touched is None else touched(batch)
        updates, opt_state = update(
            grads, opt_state, params, value=value, value_and_grad_fn=closure, touched=rows
        )
        return optax.apply_updates(params, updates), opt_state

    return step


_kept_step = functools.cache(jax_step)


def network(params: Named) -> TorchNetwork:
    """PyTorch's with other parameters."""
    model = TorchNetwork()
    model.load_state_dict({name: torch.tensor(np.array(a)) for name, a in params.items()})
    return model


def tensors(state_dict: Any) -> Any:
    """Arrays as tensors, as `opt_state_to_torch` says to do it."""
    return jax.tree.map(lambda a: torch.tensor(a) if isinstance(a, np.ndarray) else a, state_dict)


def jax_params() -> dict[str, jax.Array]:
    """The initial parameters by PyTorch's names, in its layout."""
    return {name: jnp.asarray(array) for name, array in PARAMS.items()}


def worst(theirs: Sequence[Named], ours: Sequence[Named]) -> float:
    """The largest distance of a tensor after any step, as a share of its largest entry."""
    assert [a.keys() for a in theirs] == [b.keys() for b in ours]
    return max(
        off(np.asarray(a[name])[None], np.asarray(b[name])[None], name)
        for a, b in zip(theirs, ours, strict=True)
        for name in a
    )


def off(theirs: np.ndarray, ours: np.ndarray, name: str) -> float:
    """The same of one tensor, (steps, ...), as a share of its largest entry so far."""
    assert theirs.shape == ours.shape, name
    assert theirs.dtype == ours.dtype or theirs.ndim == 1, name
    flat = tuple(range(1, theirs.ndim))
    size = np.maximum.accumulate(np.max(np.abs(theirs), axis=flat))
    with np.errstate(over="ignore", invalid="ignore"):
        gap = np.max(np.abs(ours - theirs), axis=flat)
        shares = np.divide(gap, size, out=np.where(gap == 0, 0.0, np.inf), where=size > 0)
    return float(np.max(np.where(np.isnan(shares), np.inf, shares)))
