"""A PyTorch optimizer and its twin, step by step over the same parameters, in any dtype."""

from collections.abc import Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import torch
from helpers.optimizer_runs import OPTIM_DB, PROBES, Options, plain

from twinstep.jax.optim import from_torch
from twinstep.jax.optim._from_torch import FLAGS, TORCH

Arrays = Mapping[str, jax.Array]
Special = Mapping[str, Mapping[int, float]]
Entry = tuple[str, jax.Array, jax.Array]
"""(name, theirs, ours) of a parameter, or of a state that is like it."""

SHAPES = {"a": (7, 5), "b": (33,), "c": (1,), "d": (2, 3, 4)}
NAMES = sorted(TORCH.keys() - {"LBFGS"})
"""Every optimizer but LBFGS, which takes a closure."""
REAL = ("Adafactor", "Muon", "SparseAdam")
"""What PyTorch refuses complex parameters in."""


def rows(names: Iterable[str] = NAMES) -> list[tuple[str, Options]]:
    """(optimizer, options) of PyTorch's table and of the probes, without how PyTorch computes."""
    found: list[tuple[str, Options]] = []
    for name in names:
        for options in [*OPTIM_DB[name], *PROBES.get(name, [])]:
            row = name, {k: v for k, v in options.items() if k not in FLAGS}
            if str(row) not in map(str, found):
                found.append(row)
    return found


class Pair:
    """Both, over parameters that are drawn at random."""

    def __init__(self, name: str, options: Options, dtype: str) -> None:
        self.dtype, self.numbers = dtype, np.random.RandomState(0)
        self.is_sparse = name == "SparseAdam"
        shapes = {k: s for k, s in SHAPES.items() if name != "Muon" or len(s) == 2}
        self.theirs = {key: torch.nn.Parameter(self.draw(shape)) for key, shape in shapes.items()}
        single = {} if name in ("Muon", "SparseAdam", "LBFGS") else {"foreach": False}
        kind = getattr(torch.optim, name)
        self.optimizer = kind(list(self.theirs.values()), **options, **single)
        self.twin = optax.with_extra_args_support(from_torch(name, **plain(options)))
        self.params = {key: to_jax(p) for key, p in self.theirs.items()}
        self.state = self.twin.init(self.params)
        self.grads: Arrays = {}
        self.more: dict[str, Any] = {}
        """The last step's gradients, and what `update` takes besides."""

        @jax.jit
        def step(params: Arrays, state: Any, grads: Arrays, more: Any) -> tuple[Any, Any]:
            updates, state = self.twin.update(grads, state, params, **more)
            return optax.apply_updates(params, updates), state

        self.compiled = step

    def draw(self, shape: tuple[int, ...]) -> torch.Tensor:
        """Normal numbers; half the rows of a sparse gradient are 0."""
        values = self.numbers.randn(*shape)
        if self.dtype.startswith("complex"):
            values = values + 1j * self.numbers.randn(*shape)
        return torch.tensor(values).to(getattr(torch, self.dtype))

    def step(self, special: Special | None = None) -> None:
        """One step of both on the same gradients. special: {parameter: {flat index: its entry}}."""
        self.step_theirs(special)
        self.params, self.state = self.compiled(self.params, self.state, self.grads, self.more)

    def step_theirs(self, special: Special | None = None) -> None:
        """PyTorch's step alone."""
        grads: dict[str, jax.Array] = {}
        for key, p in self.theirs.items():
            grad = self.draw(tuple(p.shape))
            if self.is_sparse:
                grad[self.numbers.rand(len(grad)) < 0.5] = 0
            for index, value in (special or {}).get(key, {}).items():
                grad.view(-1)[index] = value
            p.grad = grad.to_sparse(1) if self.is_sparse else grad
            grads[key] = to_jax(grad)
        self.grads = grads
        rows = {k: (g != 0).reshape(len(g), -1).any(1) for k, g in grads.items()}
        self.more = {"touched": rows} if self.is_sparse else {}
        self.optimizer.step()

    def take_theirs(self) -> None:
        """Goes on from PyTorch's parameters and state."""
        self.params = {key: to_jax(p) for key, p in self.theirs.items()}
        fields = self.state._asdict().items()
        self.state = type(self.state)(*(self._field(name, ours) for name, ours in fields))

    def _field(self, name: str, ours: Any) -> Any:
        states = {key: self.optimizer.state[p] for key, p in self.theirs.items()}
        if ours is None or name == "count":
            return ours
        if not isinstance(ours, dict):
            return jnp.asarray(float(states["a"][name]), ours.dtype)
        kept = ((key, None if leaf is None else states[key][name]) for key, leaf in ours.items())
        return {key: None if tensor is None else to_jax(tensor) for key, tensor in kept}

    def entries(self) -> list[Entry]:
        """Of all parameters and states, as they are now."""
        found = [(key, to_jax(p), self.params[key]) for key, p in self.theirs.items()]
        for name, tree in self.state._asdict().items():
            for key, leaf in tree.items() if isinstance(tree, dict) else ():
                if leaf is not None:
                    theirs = to_jax(self.optimizer.state[self.theirs[key]][name])
                    found.append((f"{key}.{name}", theirs, leaf))
        return found


def to_jax(tensor: torch.Tensor) -> jax.Array:
    """The same values; by way of float32, as NumPy has no bfloat16."""
    narrow = tensor.dtype in (torch.bfloat16, torch.float16)
    array = jnp.asarray((tensor.float() if narrow else tensor).detach().numpy().copy())
    return array.astype(str(tensor.dtype).removeprefix("torch."))
