"""How a fault is planted on one side of a pair, and how the honest other side is trained only once.

A plant changes what a module of one side holds while a test runs, never a source file:
`plant(patch, example)`, where `example` is that side's module of the example. Hooks get the number
of the step, from 1. Every plant that takes a hook wraps the example's own code and changes nothing
but what the hook changes.
"""

import contextlib
import dataclasses
import functools
import importlib
import itertools
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch
from torch import nn
from torch.nn import functional

import jax_impl.devices
import torch_impl.recording
from jax_impl import layers
from jax_impl.optimizers.adam import AdamState
from twinstep import Finding, Spec, Verification, launch, verify
from twinstep.findings import Comparison
from twinstep.place import Place
from twinstep.specs import EXAMPLES
from twinstep.specs.batches import IndexChunk
from twinstep.trace import Trace

Side = Literal["torch", "jax"]
Plant = Callable[[pytest.MonkeyPatch, Any], None]
Hook = Callable[[int, Any], None]  # (step, PyTorch's TrainState)

# ------------------------------------------------------------------------------------------- pairs


class Pair(NamedTuple):
    """An example, and how its spec differs from the document's; always the same problem."""

    example: str
    settings: tuple[tuple[str, Any], ...]

    def __str__(self) -> str:
        return " ".join([self.example, *(f"{name}={value}" for name, value in self.settings)])


def pair(example: str, dtype: str = "float64", **settings: Any) -> Pair:
    """A pair by its example's name and its spec's fields."""
    return Pair(example, tuple({"dtype": dtype, **settings}.items()))


@functools.cache
def spec_of(pair: Pair) -> Spec:
    """Made once: its arrays are read-only, and drawing them takes time."""
    return EXAMPLES[pair.example](**dict(pair.settings))


@dataclass
class HonestJax:
    """The JAX side of every pair as it is, trained and compiled once for all tests that share it.

    Only for tests that leave the JAX side alone.
    """

    _runs: dict[tuple[Pair, bool], "Kept"] = field(default_factory=dict)
    _replays: dict[Pair, Any] = field(default_factory=dict)

    def verify(self, patch: pytest.MonkeyPatch, pair: Pair) -> Verification:
        """`twinstep.verify` with this side's part of it taken from what is kept."""
        recorder, replay = launch.recorder, launch.replay

        def kept_recorder(framework: str, spec: Spec, place: Place, *, noise: bool = False) -> Any:
            if framework == "torch" or spec is not spec_of(pair):
                return recorder(framework, spec, place, noise=noise)
            if (pair, noise) not in self._runs:
                self._runs[pair, noise] = Kept(recorder(framework, spec, place, noise=noise))
            return self._runs[pair, noise]

        def kept_replay(spec: Spec, place: Place) -> Any:
            if pair not in self._replays:
                self._replays[pair] = replay(spec, place)
            return self._replays[pair]

        patch.setattr(launch, "recorder", kept_recorder)
        patch.setattr(launch, "replay", kept_replay)
        return verify_only(patch, pair)


@dataclass
class Kept:
    """A recorder whose run is made once."""

    recorder: Any
    _chunks: list[Trace] = field(default_factory=list)

    @property
    def metadata(self) -> Any:
        return self.recorder.metadata

    def chunks(self, most: int | None = None) -> Iterator[Trace]:
        if not self._chunks:
            self._chunks = list(self.recorder.chunks(most))
        return iter(self._chunks)


def verify_only(patch: pytest.MonkeyPatch, pair: Pair) -> Verification:
    """`twinstep.verify`; what the document claims is left out, as measuring that trains again."""
    spec = spec_of(pair)
    patch.setattr(type(spec), "claims", lambda *_: [])
    return verify(spec)


def verify_without_noise(patch: pytest.MonkeyPatch, pair: Pair) -> Verification:
    """The same for a fault on the JAX side; its free run is judged by the plain bound.

    The gate, which decides, needs no noise, and measuring it takes most of the time to compile.
    """
    recorder = launch.recorder

    def quiet(framework: str, spec: Spec, place: Place, *, noise: bool = False) -> Any:
        return recorder(framework, spec, place, noise=False)

    patch.setattr(launch, "recorder", quiet)
    return verify_only(patch, pair)


def module(side: Side, pair: Pair) -> Any:
    """The module of one side that implements a pair's example."""
    return importlib.import_module(f"{side}_impl.{spec_of(pair).implementation}")


# ------------------------------------------------------------------------------------------ places


class Spot(NamedTuple):
    """Where a fault is found: a step, from 1 (0: before the first), a stage and a leaf.

    step None: in the structure, a name or a dtype that only one side has.
    """

    step: int | None
    stage: str
    leaf: str


def place_of(comparison: Comparison) -> Spot | None:
    """Where a comparison's first finding is."""
    first: Finding | None = comparison.first
    if first is not None:
        return Spot(first.step, first.stage, first.leaf)
    found = re.match(r"different structure: (\w+), (\S+):", comparison.reason)
    return Spot(None, *found.groups()) if found else None


# ------------------------------------------------------------------------------------- both sides


def together(*plants: Plant) -> Plant:
    """Several plants at once."""

    def plant(patch: pytest.MonkeyPatch, example: Any) -> None:
        for each in plants:
            each(patch, example)

    return plant


def attribute(name: str, value: Any) -> Plant:
    """Another value of an attribute of the example's module."""

    def plant(patch: pytest.MonkeyPatch, example: Any) -> None:
        patch.setattr(example, name, value)

    return plant


def criterion(name: str, value: Any) -> Plant:
    """Another loss function under its name in the linear regression's table."""

    def plant(patch: pytest.MonkeyPatch, example: Any) -> None:
        patch.setitem(example.CRITERIA, name, value)

    return plant


def loss(wrong: Callable[[Callable[..., Any], Any, Any, Any], Any]) -> Plant:
    """Another loss: wrong(the example's loss_fn, model, criterion, batch)."""

    def plant(patch: pytest.MonkeyPatch, example: Any) -> None:
        patch.setattr(example, "loss_fn", functools.partial(wrong, example.loss_fn))

    return plant


def spec_fields(**changes: Any) -> Plant:
    """The side reads other hyper-parameters than the spec's."""

    def plant(patch: pytest.MonkeyPatch, example: Any) -> None:
        init = example.init
        patch.setattr(example, "init", lambda spec: init(dataclasses.replace(spec, **changes)))

    return plant


def initial_params(name: str, change: Callable[[np.ndarray], np.ndarray]) -> Plant:
    """The side starts one parameter from other values."""

    def plant(patch: pytest.MonkeyPatch, example: Any) -> None:
        init = example.init

        def wrong(spec: Spec) -> Any:
            params = dict(spec.initial_params())
            params[name] = change(params[name])
            copy = dataclasses.replace(spec)
            copy.__dict__["_problem"] = spec._problem._replace(params=params)
            return init(copy)

        patch.setattr(example, "init", wrong)

    return plant


def ulp_more(array: np.ndarray) -> np.ndarray:
    """The first entry is the next larger number."""
    array = array.copy()
    array.flat[0] = np.nextafter(array.flat[0], np.inf)
    return array


# -------------------------------------------------------------------------------- the torch side


def torch_optimizer(kind: str, become: str | None = None, **changes: Any) -> Plant:
    """torch.optim's `kind` gets other arguments, or becomes another one.

    changes: {argument: value, or what makes it from the value it has}
    """

    def plant(patch: pytest.MonkeyPatch, example: Any) -> None:
        original = getattr(torch.optim, become or kind)

        def make(params: Any, **options: Any) -> Any:
            for name, change in changes.items():
                options[name] = change(options[name]) if callable(change) else change
            return original(params, **options)

        patch.setattr(torch.optim, kind, make)

    return plant


class Meddler:
    """An optimizer of which another one's hooks take part."""

    def __init__(self, k: int, state: Any, graded: Hook, update: Hook) -> None:
        self._arguments, self._graded, self._update = (k, state), graded, update
        self.zero_grad = state.optimizer.zero_grad

    def step(self) -> None:
        with torch.no_grad():
            self._graded(*self._arguments)
        self._update(*self._arguments)


def _nothing(k: int, state: Any) -> None:
    """The hook that does nothing."""


def _update(k: int, state: Any) -> None:
    """The update as it is."""
    state.optimizer.step()


def in_torch_step(
    *,
    start: Hook = _nothing,
    graded: Hook = _nothing,
    update: Hook = _update,
    end: Hook = _nothing,
    report: Callable[[int, torch.Tensor], torch.Tensor] = lambda k, loss: loss,
) -> Plant:
    """Something more in the training step.

    start: before the forward pass; graded: between backward pass and update; update: in its place;
    end: after it; report: what is recorded as the loss
    """

    def plant(patch: pytest.MonkeyPatch, example: Any) -> None:
        original, numbers = example.train_step, itertools.count(1)

        def train_step(state: Any, batch: Any) -> Any:
            k = next(numbers)
            with torch.no_grad():
                start(k, state)
            optimizer: Any = Meddler(k, state, graded, update)
            _, step = original(dataclasses.replace(state, optimizer=optimizer), batch)
            with torch.no_grad():
                end(k, state)
                return state, step._replace(loss=report(k, step.loss))

        patch.setattr(example, "train_step", train_step)

    return plant


def at(step: int, hook: Hook) -> Hook:
    """A hook in one step only."""
    return lambda k, state: hook(k, state) if k == step else None


def update_at(step: int, hook: Hook) -> Hook:
    """Another update in one step only."""
    return lambda k, state: hook(k, state) if k == step else _update(k, state)


def scale_grads(factor: float, *only: str) -> Hook:
    """Multiplies the gradients of all parameters, or of some."""

    def hook(k: int, state: Any) -> None:
        for name, parameter in state.model.named_parameters():
            if not only or name in only:
                parameter.grad *= factor

    return hook


def scale_params(factor: float) -> Hook:
    """Multiplies the parameters."""

    def hook(k: int, state: Any) -> None:
        for parameter in state.model.parameters():
            parameter *= factor

    return hook


def round_params(k: int, state: Any) -> None:
    """Rounds the parameters to float32, in which they don't stay."""
    for parameter in state.model.parameters():
        parameter.copy_(parameter.float())


def clip(most: float) -> Hook:
    """Clips the gradients by their norm."""

    def hook(k: int, state: Any) -> None:
        nn.utils.clip_grad_norm_(state.model.parameters(), most)

    return hook


def clear_all(k: int, state: Any) -> None:
    """Clears every gradient, also those that the optimizer was not given."""
    state.model.zero_grad()


def forget_state(k: int, state: Any) -> None:
    """The optimizer starts anew."""
    state.optimizer.state.clear()


def forget_first_moment(k: int, state: Any) -> None:
    """Adam forgets its first moment, and nothing else."""
    for parameter in state.model.parameters():
        state.optimizer.state[parameter]["exp_avg"].zero_()


def update_twice(k: int, state: Any) -> None:
    """The update is made twice."""
    state.optimizer.step()
    state.optimizer.step()


def decaying_rate(factor: float) -> Hook:
    """A learning rate that falls after each update."""

    def update(k: int, state: Any) -> None:
        state.optimizer.step()
        for group in state.optimizer.param_groups:
            group["lr"] *= factor

    return update


def keep(name: str, index: Any = ...) -> Hook:
    """The update leaves a parameter, or an entry of it, where it was."""

    def update(k: int, state: Any) -> None:
        parameter = dict(state.model.named_parameters())[name]
        before = parameter.detach().clone()
        state.optimizer.step()
        with torch.no_grad():
            parameter[index] = before[index]

    return update


def delayed() -> Hook:
    """Each update is by the gradients of the step before; the first by none."""
    before: list[torch.Tensor] = []

    def update(k: int, state: Any) -> None:
        parameters = list(state.model.parameters())
        grads = [parameter.grad.clone() for parameter in parameters]
        for i, parameter in enumerate(parameters):
            parameter.grad.copy_(before[i]) if before else parameter.grad.zero_()
        state.optimizer.step()
        for parameter, grad in zip(parameters, grads, strict=True):
            parameter.grad.copy_(grad)
        before[:] = grads

    return update


def hidden_momentum(factor: float) -> Hook:
    """Each update goes on by a part of the one before, which no state of the optimizer shows."""
    moves: dict[str, torch.Tensor] = {}

    def update(k: int, state: Any) -> None:
        before = {n: p.detach().clone() for n, p in state.model.named_parameters()}
        state.optimizer.step()
        with torch.no_grad():
            for name, parameter in state.model.named_parameters():
                parameter += factor * moves.get(name, torch.zeros(()))
                moves[name] = parameter - before[name]

    return update


def move_gru(k: int, state: Any) -> None:
    """The GRU, which no optimizer was given, follows its gradients."""
    for parameter in state.model.gru.parameters():
        parameter -= 1e-3 * parameter.grad


def torch_state(change: Callable[[Any], Any]) -> Plant:
    """Another state before the first step: change(TrainState) alters it or gives a new one."""

    def plant(patch: pytest.MonkeyPatch, example: Any) -> None:
        init = example.init

        def wrong(spec: Spec) -> Any:
            state = init(spec)
            return change(state) or state

        patch.setattr(example, "init", wrong)

    return plant


def forward(wrong: Callable[[Any, torch.Tensor], torch.Tensor]) -> Plant:
    """Another forward pass of the same model: wrong(model, x)."""

    def change(state: Any) -> None:
        state.model.forward = functools.partial(wrong, state.model)

    return torch_state(change)


def torch_data(**changes: Callable[[torch.Tensor], torch.Tensor]) -> Plant:
    """Other samples: {name: what makes them from those there are}."""

    def plant(patch: pytest.MonkeyPatch, example: Any) -> None:
        original = torch_impl.recording.to_device

        def to_device(spec: Spec) -> dict[str, torch.Tensor]:
            data = original(spec)
            return data | {name: change(data[name]) for name, change in changes.items()}

        patch.setattr(torch_impl.recording, "to_device", to_device)

    return plant


def torch_indices(change: Callable[[int, np.ndarray], np.ndarray]) -> Plant:
    """Other samples in the batches: change(steps before, sample numbers (steps, batch size))."""

    def plant(patch: pytest.MonkeyPatch, example: Any) -> None:
        original = torch_impl.recording.take

        def take(data: Any, chunk: IndexChunk) -> Any:
            assert chunk.indices is not None
            return original(data, chunk._replace(indices=change(chunk.start, chunk.indices)))

        patch.setattr(torch_impl.recording, "take", take)

    return plant


def torch_batch(step: int, change: Callable[[Any], Any]) -> Plant:
    """Another batch in one step."""

    def plant(patch: pytest.MonkeyPatch, example: Any) -> None:
        original = torch_impl.recording.take

        def take(data: Any, chunk: IndexChunk) -> Any:
            for k, batch in enumerate(original(data, chunk), chunk.start + 1):
                yield change(batch) if k == step else batch

        patch.setattr(torch_impl.recording, "take", take)

    return plant


def swapped(i: int, j: int) -> Callable[[torch.Tensor], torch.Tensor]:
    """Two samples in each other's place."""

    def change(tensor: torch.Tensor) -> torch.Tensor:
        tensor = tensor.clone()
        tensor[[i, j]] = tensor[[j, i]]
        return tensor

    return change


def entry(change: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[torch.Tensor], torch.Tensor]:
    """Another value of the eighth sample."""

    def changed(tensor: torch.Tensor) -> torch.Tensor:
        tensor = tensor.clone()
        tensor[7] = change(tensor[7])
        return tensor

    return changed


def gru(
    *,
    outside: bool = False,
    order: str = "rzn",
    keeps: Literal["h", "n"] = "h",
    merged: bool = False,
) -> Callable[[Any, torch.Tensor], torch.Tensor]:
    """`parameter_groups`'s forward pass, its GRU written out; without arguments, as it is.

    outside: b_hn stands outside the reset gate's product; order: of the gates in the weights
    keeps: what the update gate keeps, the old state or the new; merged: one of two biases trains
    """

    def forward(model: Any, x: torch.Tensor) -> torch.Tensor:
        w_ih, w_hh, b_ih, b_hh = model.gru.parameters()
        size = w_hh.shape[1]
        h = torch.zeros(len(x), size)
        for x_t in x.unbind(1):
            i = functional.linear(x_t, w_ih, b_ih).split(size, 1)
            bias = b_hh.detach() + 0 * b_hh if merged else b_hh
            hidden = functional.linear(h, w_hh, bias).split(size, 1)
            b_h = bias.split(size)
            gates = {gate: (i[k], hidden[k], b_h[k]) for k, gate in enumerate(order)}
            r, z = (torch.sigmoid(gates[gate][0] + gates[gate][1]) for gate in "rz")
            i_n, h_n, b_hn = gates["n"]
            n = torch.tanh(i_n + r * (h_n - b_hn) + b_hn if outside else i_n + r * h_n)
            h = (1 - z) * n + z * h if keeps == "h" else (1 - z) * h + z * n
        return model.model(h)

    return forward


def cut_in_time(model: Any, x: torch.Tensor) -> torch.Tensor:
    """`mnist_rnn`'s forward pass, its backward pass cut after the first half of the rows."""
    half = x.shape[1] // 2
    _, h = model.rnn(x[:, :half])
    out, _ = model.rnn(x[:, half:], h.detach())
    return model.fc(out[:, -1])


def time_first(model: Any, x: torch.Tensor) -> torch.Tensor:
    """`mnist_rnn`'s forward pass without batch_first: the images are taken for time steps."""
    out, _ = model.rnn(x.transpose(0, 1))
    return model.fc(out.transpose(0, 1)[:, -1])


def transposed_hidden(model: Any, x: torch.Tensor) -> torch.Tensor:
    """`mnist_rnn`'s forward pass with weight_hh_l0 transposed."""
    w_ih, w_hh, b_ih, b_hh = model.rnn.parameters()
    return model.fc(
        torch.func.functional_call(
            model.rnn,
            {
                "weight_ih_l0": w_ih,
                "weight_hh_l0": w_hh.T.contiguous(),
                "bias_ih_l0": b_ih,
                "bias_hh_l0": b_hh,
            },
            (x,),
        )[0][:, -1]
    )


# ---------------------------------------------------------------------------------- the jax side

Update = Callable[[Any, Any, Any, Any], Any]  # (the honest update, grads, state, params)


def jax_update(wrong: Update) -> Plant:
    """Another update: wrong(the optimizer's own, grads, state, params) -> (updates, state)."""

    def plant(patch: pytest.MonkeyPatch, example: Any) -> None:
        init = example.init

        def wrong_init(spec: Spec) -> Any:
            state = init(spec)
            optimizer = state.optimizer
            update = functools.partial(wrong, optimizer.update)
            return state.replace(optimizer=optax.GradientTransformation(optimizer.init, update))

        patch.setattr(example, "init", wrong_init)

    return plant


def updates_times(factor: Callable[[Any], Any]) -> Update:
    """Updates times a factor that depends on the optimizer's state before."""

    def update(honest: Any, grads: Any, state: Any, params: Any) -> Any:
        updates, after = honest(grads, state, params)
        return jax.tree.map(lambda u: u * factor(state), updates), after

    return update


def no_bias_update(honest: Any, grads: Any, state: Any, params: Any) -> Any:
    """The bias stays where it is."""
    updates, after = honest(grads, state, params)
    return updates | {"bias": jnp.zeros_like(updates["bias"])}, after


def clipped_update(honest: Any, grads: Any, state: Any, params: Any) -> Any:
    """The optimizer clips what it is given: the gradients are right, the update is not."""
    norm = jnp.sqrt(sum(jnp.sum(jnp.square(g)) for g in jax.tree.leaves(grads)))
    return honest(jax.tree.map(lambda g: g / jnp.maximum(norm, 1), grads), state, params)


def decayed_update(honest: Any, grads: Any, state: Any, params: Any) -> Any:
    """Weight decay that nobody asked for."""
    return honest(jax.tree.map(lambda g, p: g + 1e-6 * p, grads, params), state, params)


def restarted_update(honest: Any, grads: Any, state: AdamState, params: Any) -> Any:
    """Adam's state is lost before the fifth update."""
    lost = jax.tree.map(lambda leaf: jnp.where(state.step == 4, 0, leaf), state)
    return honest(grads, lost, params)


def after_jax_step(wrong: Callable[[Any, Any, Any], Any]) -> Plant:
    """Something more after the training step: wrong(state before, state, step) -> (state, step)."""

    def plant(patch: pytest.MonkeyPatch, example: Any) -> None:
        original = example.train_step

        def train_step(state: Any, batch: Any) -> Any:
            return wrong(state, *original(state, batch))

        patch.setattr(example, "train_step", train_step)

    return plant


def jax_grads(wrong: Callable[[Any], Any]) -> Plant:
    """Other gradients, between the backward pass and the optimizer."""

    def plant(patch: pytest.MonkeyPatch, example: Any) -> None:
        original = example.train_step

        def train_step(state: Any, batch: Any) -> Any:
            honest = state.optimizer

            def update(grads: Any, opt_state: Any, params: Any = None) -> Any:
                return honest.update(wrong(grads), opt_state, params)

            meddled = optax.GradientTransformation(honest.init, update)
            after, step = original(state.replace(optimizer=meddled), batch)
            return after.replace(optimizer=honest), step._replace(grads=wrong(step.grads))

        patch.setattr(example, "train_step", train_step)

    return plant


def jax_adam(
    *,
    inside: bool = False,
    corrected: Callable[[float, jax.Array], Any] = lambda beta, step: 1 - beta**step,
    first_step: int = 0,
    first_square: float = 0.0,
) -> Plant:
    """The example's Adam, written out; without arguments it is right, but for rounding.

    inside: eps stands in the root; corrected: what the moments are divided by, after `step` updates
    first_step, first_square: the state before the first update
    """

    def adam(lr: float, betas: tuple[float, float], eps: float) -> optax.GradientTransformation:
        def init(params: Any) -> AdamState:
            squares = jax.tree.map(lambda p: jnp.full_like(p, first_square), params)
            zeros = jax.tree.map(jnp.zeros_like, params)
            return AdamState(jnp.asarray(first_step, jnp.int32), zeros, squares)

        def update(grads: Any, state: AdamState, params: Any = None) -> Any:
            step = state.step + 1
            m = jax.tree.map(lambda m, g: betas[0] * m + (1 - betas[0]) * g, state.exp_avg, grads)
            v = jax.tree.map(
                lambda v, g: betas[1] * v + (1 - betas[1]) * g * g, state.exp_avg_sq, grads
            )

            def move(m: jax.Array, v: jax.Array) -> jax.Array:
                v = v / corrected(betas[1], step)
                root = jnp.sqrt(v + eps) if inside else jnp.sqrt(v) + eps
                return -lr * m / corrected(betas[0], step) / root

            return jax.tree.map(move, m, v), AdamState(step, m, v)

        return optax.GradientTransformation(init, update)

    return attribute("adam", adam)


class GRUWithoutHiddenBias(layers.GRU):
    """As flax.nnx.GRUCell has it: b_hn stands beside the reset gate's product, not in it."""

    def __call__(self, x: jax.Array, h0: jax.Array) -> tuple[jax.Array, jax.Array]:
        assert self.hidden.bias is not None
        b_hn = jnp.split(self.hidden.bias[...], 3)[2]

        def cell(h: jax.Array, x_t: jax.Array) -> jax.Array:
            i_r, i_z, i_n = jnp.split(self.input(x_t), 3, axis=-1)
            h_r, h_z, h_n = jnp.split(self.hidden(h), 3, axis=-1)
            r, z = jax.nn.sigmoid(i_r + h_r), jax.nn.sigmoid(i_z + h_z)
            n = jnp.tanh(i_n + r * (h_n - b_hn) + b_hn)
            return (1 - z) * n + z * h

        return layers._over_time(cell, x, h0)


def jax_float32(patch: pytest.MonkeyPatch, example: Any) -> None:
    """JAX as it is when nobody asks for float64."""

    @contextlib.contextmanager
    def settings(dtype: str, device: jax.Device, precision: str) -> Iterator[None]:
        with jax.enable_x64(False), jax.default_device(device):
            yield

    patch.setattr(jax_impl.devices, "settings", settings)
