"""One small training by any of torch.optim and by any optax transformation, every step kept.

A run is {name: (STEPS, ...) array}: parameters by PyTorch's names, and each parameter's state by
PyTorch's names for it, "0.weight.exp_avg".
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import torch
from helpers.optim_database import optim_db
from helpers.training import (
    PARAMS,
    WEIGHTS,
    TorchNetwork,
    arrays,
    jax_step,
    named_loss,
    off,
    settings,
    torch_loss,
    torch_steps,
)
from torch.optim.lr_scheduler import LambdaLR

from twinstep.jax.optim import from_torch, muon
from twinstep.problems.optimizers import CONFIGURATIONS, STEPS, in_installed_torch
from twinstep.torch.muon import Muon

Options = Mapping[str, Any]
Run = dict[str, np.ndarray]

BAR = 1e-12
_numbers = np.random.RandomState(1)


@dataclass(frozen=True)
class Problem:
    """What is trained. batches: (STEPS, ...), what a loss takes beside the parameters, by step.

    trained: the parameters that the optimizer is given; touched: None, or the rows of each that a
    batch is about
    """

    model: Callable[[], torch.nn.Module]
    batches: np.ndarray
    torch_loss: Callable[[Any, np.ndarray], torch.Tensor]
    jax_loss: Callable[[Any, jax.Array], jax.Array]
    trained: tuple[str, ...]
    touched: Callable[[jax.Array], dict[str, jax.Array]] | None = None


_ROWS, _WIDTH = 24, 5
_TARGETS = _numbers.randn(_ROWS, _WIDTH)


def _torch_table(params: Mapping[str, torch.Tensor], batch: np.ndarray) -> torch.Tensor:
    h = torch.nn.functional.embedding(torch.tensor(batch), params["table"], sparse=True)
    return ((torch.tanh(h) - torch.tensor(_TARGETS[batch])) ** 2).mean()


def _jax_table(params: Mapping[str, jax.Array], batch: jax.Array) -> jax.Array:
    return jnp.mean((jnp.tanh(params["table"][batch]) - jnp.asarray(_TARGETS)[batch]) ** 2)


def _touched(batch: jax.Array) -> dict[str, jax.Array]:
    return {"table": jnp.zeros(_ROWS, bool).at[batch].set(True)}


NETWORK = Problem(
    TorchNetwork, _numbers.randint(0, 512, (STEPS, 32)), torch_loss, named_loss, tuple(PARAMS)
)
"""8-16-16-3 with tanh, mean squared error, random minibatches of 32."""

MATRICES = replace(NETWORK, trained=tuple(WEIGHTS))
"""The same with its biases left where they are."""

_TABLE = _numbers.randn(_ROWS, _WIDTH)
# the last rows in the second half alone, so that their first update is a late one
TABLE = Problem(
    lambda: torch.nn.ParameterDict({"table": torch.tensor(_TABLE)}),
    np.where(
        np.arange(STEPS)[:, None] < STEPS // 2,
        _numbers.randint(0, _ROWS - 8, (STEPS, 6)),
        _numbers.randint(0, _ROWS, (STEPS, 6)),
    ),
    _torch_table,
    _jax_table,
    ("table",),
    _touched,
)
"""An embedding with sparse gradients, six of its rows a step, some of them twice."""


def problem_for(name: str) -> Problem:
    """What an optimizer of torch.optim is tried on."""
    return {"Muon": MATRICES, "SparseAdam": TABLE}.get(name, NETWORK)


@contextlib.contextmanager
def default_dtype(dtype: str) -> Iterator[None]:
    """PyTorch's and JAX's, until the end of the block."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(getattr(torch, dtype))
    try:
        with settings(dtype):
            yield
    finally:
        torch.set_default_dtype(before)


with default_dtype("float64"):  # of the tensors among the options
    OPTIM_DB: dict[str, list[Options]] = {
        info.optim_cls.__name__: [c.kwargs for c in info.optim_inputs_func(device="cpu")]
        for info in list[Any](optim_db)
    }
"""{class of torch.optim: the options that PyTorch's own tests run it with}"""

PROBES: dict[str, list[Options]] = {
    name: [
        options
        for options in rows
        if options not in OPTIM_DB[name] and in_installed_torch(name, options)
    ]
    for name, rows in CONFIGURATIONS.items()
}
"""The same at values that show each option."""

NAMES = sorted(PROBES)
"""Every optimizer but LBFGS, which takes a closure."""


UNROUNDED: dict[str, Options] = {"Muon": {"round_to_bfloat16": False}}
"""Leaves out Muon's rounding, which parts any two runs; PyTorch's own has no such keyword."""


def sharpest(name: str) -> Options:
    """The options of an optimizer that show most of it."""
    return PROBES[name][-1]


def is_maximized(options: Options) -> bool:
    """Whether the loss is taken with its sign turned, so that what is made large is bounded."""
    return bool(options.get("maximize"))


def torch_run(
    name: str,
    options: Options,
    *,
    dtype: str = "float64",
    factor: Callable[[Any], Any] | None = None,
    steps: int = STEPS,
    rounded: bool = True,
) -> Run:
    """By torch.optim. factor: LambdaLR's; rounded: as Muon rounds to bfloat16"""
    problem = problem_for(name)
    with default_dtype(dtype):
        model = problem.model().to(getattr(torch, dtype))
        trained = {key: p for key, p in model.named_parameters() if key in problem.trained}
        exact = {} if rounded else UNROUNDED.get(name, {})
        kind = Muon if exact else getattr(torch.optim, name)
        optimizer = kind(list(trained.values()), **options, **exact)
        how: Any = {"sign": -1 if is_maximized(options) else 1, "loss": problem.torch_loss}
        schedule = factor and LambdaLR(optimizer, factor)
        seen = []
        for batch in problem.batches[:steps, None]:
            torch_steps(model, optimizer, batch, scheduler=schedule, **how)
            seen.append(torch_named(trained, optimizer))
        return stacked(seen)


def stacked(seen: Sequence[Mapping[str, Any]]) -> Run:
    return {what: np.stack([np.asarray(one[what]) for one in seen]) for what in seen[0]}


def torch_named(params: Mapping[Any, torch.Tensor], optimizer: Any) -> Run:
    """Parameters and state as they are now."""
    found: dict[str, Any] = {}
    for key, p in params.items():
        found |= {key: p} | {f"{key}.{what}": value for what, value in optimizer.state[p].items()}
    return {
        what: value.detach().numpy().copy() if isinstance(value, torch.Tensor) else np.array(value)
        for what, value in found.items()
        if value is not None
    }


def jax_run(
    optimizer: optax.GradientTransformation,
    problem: Problem,
    *,
    maximize: bool = False,
    dtype: str = "float64",
    steps: int = STEPS,
) -> Run:
    """By an optax transformation. maximize: minus the loss"""
    # made under the same settings by whoever calls: its constants may be arrays
    with default_dtype(dtype):
        sign = -1.0 if maximize else 1.0
        everything = {k: jnp.asarray(a, dtype) for k, a in arrays(problem.model()).items()}
        params = {key: everything[key] for key in problem.trained}

        def loss(params: Any, batch: jax.Array) -> jax.Array:
            return sign * problem.jax_loss(everything | params, batch)

        step, state, seen = jax_step(optimizer, loss, problem.touched), optimizer.init(params), []
        for batch in problem.batches[:steps]:
            params, state = step(params, state, batch)
            seen.append(named(params, state))
        return stacked(seen)


def named(params: Mapping[Any, jax.Array], state: Any) -> dict[Any, jax.Array]:
    """Parameters and state by PyTorch's names; optax's own states have others, and are left out."""
    found = dict(params)
    if type(state).__module__.startswith("twinstep.jax."):
        for what, value in state._asdict().items():
            for key in () if what == "count" or value is None else params:
                leaf = value[key] if isinstance(value, dict | list) else value
                if leaf is not None:
                    found[f"{key}.{what}"] = leaf
    return found


def twin_run(name: str, options: Options, *, rounded: bool = True, **how: Any) -> Run:
    """By the twin of one of torch.optim, whose options may be schedules."""
    with default_dtype(how.get("dtype", "float64")):
        exact = {} if rounded else UNROUNDED.get(name, {})
        twin = muon(**plain(options), **exact) if exact else from_torch(name, **options)
    return jax_run(twin, problem_for(name), maximize=is_maximized(options), **how)


def plain(options: Options) -> dict[str, Any]:
    """Options with tensors as the numbers in them."""
    return {k: v.item() if isinstance(v, torch.Tensor) else v for k, v in options.items()}


def worst(theirs: Run, ours: Run) -> float:
    """The largest distance of a tensor after any step, as a share of its largest entry so far.

    theirs, ours: of the same names; infinite where there is an entry that PyTorch has as 0
    """
    assert theirs.keys() == ours.keys()
    return max(off(theirs[name], ours[name], name) for name in theirs)
