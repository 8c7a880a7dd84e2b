"""Reads what a program's state holds: which parameters and optimizer's state, as NumPy's arrays."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from twinstep.errors import InputError
from twinstep.jax import devices, spread
from twinstep.jax.spread import Place, Places
from twinstep.trace import dtypes
from twinstep.trace.ledger import Metadata

Tree = Any
Named = dict[str, np.ndarray]
STEP = "step"
"""What the axis of time is called, among those that a compiled loop has put in front."""


class Leaf(NamedTuple):
    """An array of a tree: its names, and the axes that take it into PyTorch's layout, if others."""

    names: tuple[str, ...]
    array: Any
    axes: tuple[int, ...] | None = None


def parts(state: Any) -> tuple[Tree, Tree]:
    """The parameters and the optimizer's state that something holds; None where it holds none.

    What holds no optimizer's state is parameters itself, such as an equinox model.
    """
    if isinstance(state, nnx.Optimizer):
        model = vars(state).get("model")
        if model is None:
            raise InputError("an nnx.Optimizer holds no model, expected (model, optimizer)")
        return _of_model(model, state), state.opt_state
    if hasattr(state, "params") and hasattr(state, "opt_state"):
        return state.params, state.opt_state
    if not isinstance(state, tuple) or (hasattr(state, "_fields") and not holds_state(state)):
        return state, None
    if len(state) < 2:
        raise InputError(f"a state is a tuple of {len(state)}, expected (params, opt_state, ...)")
    params, opt_state, *_ = state
    if isinstance(params, nnx.Optimizer):  # either may come first
        params, opt_state = opt_state, params
    if isinstance(opt_state, nnx.Optimizer):
        return _of_model(params, opt_state), opt_state.opt_state
    return params, opt_state


def told(state: Any, params: Tree, opt_state: Tree) -> tuple[Tree, Tree]:
    """The same of what is given by one argument or by several, in whatever combination."""
    if isinstance(state, nnx.Optimizer) and params is not None:
        return parts((params, state))
    if isinstance(opt_state, nnx.Optimizer):
        return parts((state if params is None else params, opt_state))
    if state is None:
        return params, opt_state
    if opt_state is not None and params is None and not holds_state(state):
        return state, opt_state
    held, of_optimizer = parts(state)
    return held if params is None else params, of_optimizer if opt_state is None else opt_state


def holds_state(node: Any) -> bool:
    """Whether something holds an optimizer's state beside its parameters."""
    if isinstance(node, nnx.Optimizer):
        return True
    if hasattr(node, "params") and hasattr(node, "opt_state"):
        return True
    if not isinstance(node, tuple) or len(node) < 2:
        return False
    return any(isinstance(one, nnx.Optimizer) for one in node[:2]) or _is_opt_state(node[1])


def _is_opt_state(tree: Any) -> bool:
    """Whether a tree is of states, as optax makes them, and no parameters."""

    def is_state(node: Any) -> bool:
        module = type(node).__module__
        return hasattr(node, "_fields") and module.startswith(("optax.", "twinstep."))

    return any(map(is_state, jax.tree.leaves(tree, is_leaf=is_state)))


def _of_model(model: Any, optimizer: nnx.Optimizer[Any]) -> Tree:
    """What of a model learns: its parameters, and what else the optimizer updates."""
    return nnx.state(model, nnx.Any(nnx.Param, optimizer.wrt)) if is_module(model) else model


def is_module(node: Any) -> bool:
    """Whether it is a model of nnx, whose parameters are to be taken out."""
    return isinstance(node, nnx.Module) and not isinstance(node, nnx.State)


def plain(tree: Tree, *, numbers: bool = True) -> Tree:
    """A tree without what nnx puts around arrays, and without what is no array.

    numbers: whether Python's are kept; parameters are none, but a model's settings may be
    """
    kept = (jax.Array, np.ndarray, np.generic, *((bool, int, float, complex) if numbers else ()))

    def stripped(node: Any) -> Any:
        if isinstance(node, nnx.Module):
            node = nnx.state(node, nnx.Param)
        if isinstance(node, nnx.State):
            return jax.tree.map(kept_of, nnx.to_pure_dict(node))
        if isinstance(node, nnx.Variable):
            leaves = jax.tree.leaves(node)
            return kept_of(leaves[0]) if len(leaves) == 1 else jax.tree.map(kept_of, node)
        return kept_of(node)

    def kept_of(leaf: Any) -> Any:
        return leaf if isinstance(leaf, kept) else None

    flax = (nnx.Module, nnx.State, nnx.Variable)
    return jax.tree.map(stripped, tree, is_leaf=lambda node: isinstance(node, flax))


class Form:
    """What stands in front of the arrays of a state: replicas, and the axes of compiled loops.

    Arrays come out with the steps in front, if any, the other axes behind them; of those that are
    spread over processes what is here, with its place noted in `places`.
    """

    def __init__(
        self, replicas: int | None, axes: tuple[str, ...] = (), places: Places | None = None
    ) -> None:
        self.replicas, self.axes, self.places = replicas, axes, places or Places()
        self._sizes: tuple[int, ...] | None = None

    @property
    def lead(self) -> int:
        """How many axes stand in front of a leaf's own, as it is given."""
        return len(self.axes) + (self.replicas is not None)

    @property
    def program(self) -> dict[str, Any]:
        """What a trace says of the form of its leaves, as JSON values."""
        said = {"axes": self.others, "shards": self.places.shards()}
        return {key: value for key, value in said.items() if value}

    @property
    def others(self) -> dict[str, int]:
        """{name: size} of the axes that are not of time, once an array was read."""
        sizes = dict(zip(self.axes, self._sizes or (), strict=False))
        return {name: size for name, size in sizes.items() if name != STEP}

    def losses(self, what: str, loss: Any) -> np.ndarray:
        """The losses, a number for each place of the axes, the steps first."""
        found, place = self._array(f"{what}: loss", loss)
        found = dtypes.numbers(found)
        if self.replicas is not None and found.ndim == self.lead:
            self._check_replicas(f"{what}: loss", found.shape)
            found, place = found.astype(np.float64).mean(0), place and place[1:]
        if found.ndim != len(self.axes) or found.dtype.kind not in "fiu" or not found.size:
            of = " and a ".join(self.axes)
            raise InputError(
                f"{what}: loss is {found.dtype} of shape {found.shape}, expected "
                f"{f'a number a {of}' if self.axes else 'one number'}"
            )
        self._sizes = _shape(found, place)
        found, place = self._steps_first(f"{what}: loss", found, place)
        if self.others:
            self._note(what, "micro_losses", self._loss_of_others, found, place)
        return np.array(found)

    def named(self, step: str, stage: str, leaves: list[Leaf], *, mean: bool = False) -> Named:
        """{name: array}; mean: of replicas that differ, it is taken."""
        found: Named = {}
        for leaf in leaves:
            what = f"{step}: {stage}, {leaf.names[0]}"
            array, place = self._own(what, leaf.array, mean)
            if leaf.axes is not None:
                front = array.ndim - len(leaf.axes)
                order = (*range(front), *(axis + front for axis in leaf.axes))
                array, place = array.transpose(order), place and tuple(place[i] for i in order)
            for name in leaf.names:
                self._note(what, stage, name, array, place)
            found |= dict.fromkeys(leaf.names, array)
        return found

    def _note(
        self, what: str, stage: str, leaf: str, array: np.ndarray, place: Place | None
    ) -> None:
        """Where an array that is read stands, of each step."""
        steps = STEP in self.axes
        self.places.note(what, stage, leaf, array.shape[steps:], place and place[steps:])

    def inputs(self, step: str, stage: str, leaves: list[Leaf]) -> Named:
        """The same of what is no state: replicas do not share it."""
        return Form(None, self.axes, self.places)._sized(self._sizes).named(step, stage, leaves)

    def numbers(self, step: str, what: str, leaf: Any) -> np.ndarray | None:
        """What is one for the whole of a state: () or (T,)."""
        if leaf is None:
            return None
        array, _ = self._own(f"{step}: {what}", leaf, False)
        rows = array.reshape(*array.shape[: STEP in self.axes], -1)
        if np.any(rows != rows[..., :1]):
            raise InputError(
                f"{step}: {what} differs along {' and '.join(self.others)}: {np.unique(rows)}, "
                "expected runs that go together"
            )
        return np.array(rows[..., 0])  # kept: its memory may be donated

    def hyper_parameter(self, step: str, name: str, value: Any) -> np.ndarray:
        """A number; without the axes along which it does not differ, the steps apart."""
        what = f"{step}: hyper_parameters, {name}"
        array, place = self._own(what, value, False)
        rows = array.reshape(*array.shape[: STEP in self.axes], -1)
        here = place is None or all(axis.whole for axis in place)
        if here and np.all(rows == rows[..., :1]):
            first: np.ndarray = rows[..., 0]
            return first
        self._note(what, "hyper_parameters", name, array, place)
        return array

    def losses_by_axes(self, losses: np.ndarray) -> Named:
        """The losses of the updates; and those that they are the means of, one an axis."""
        if not self.others:
            return {"loss": losses}
        steps = losses.reshape(*losses.shape[: STEP in self.axes], -1)
        return {"loss": steps.astype(np.float64).mean(-1), self._loss_of_others: losses}

    @property
    def _loss_of_others(self) -> str:
        return f"loss.{'.'.join(self.others)}"

    def _sized(self, sizes: tuple[int, ...] | None) -> "Form":
        self._sizes = sizes
        return self

    def _own(self, what: str, leaf: Any, mean: bool) -> tuple[np.ndarray, Place | None]:
        array, place = self._array(what, leaf)
        if self.replicas is not None:
            self._check_replicas(what, array.shape)
            odd = [i for i, one in enumerate(array) if one.tobytes() != array[0].tobytes()]
            if odd and not mean:
                raise InputError(
                    f"{what} differs on replica {odd[0]} from that on replica 0, expected the same "
                    "bit for bit"
                )
            array, place = device_mean(array) if odd else array[0], place and place[1:]
        shape = _shape(array, place)
        if self._sizes is not None and shape[: len(self.axes)] != self._sizes:
            named = ", ".join(f"{n} {k}" for n, k in zip(self.axes, self._sizes, strict=True))
            raise InputError(f"{what} has shape {shape}, expected {named} in front")
        return self._steps_first(what, array, place)

    def _check_replicas(self, what: str, shape: tuple[int, ...]) -> None:
        if shape[:1] != (self.replicas,):
            raise InputError(
                f"{what} has shape {shape}, expected {self.replicas} replicas in front"
            )

    def _steps_first(
        self, what: str, array: np.ndarray, place: Place | None
    ) -> tuple[np.ndarray, Place | None]:
        if STEP not in self.axes:
            return array, place
        axis = self.axes.index(STEP)
        if place is not None:
            if not place[axis].whole:
                raise InputError(f"{what}: its steps are spread over processes, expected all here")
            place = place[axis], *place[:axis], *place[axis + 1 :]
        return np.moveaxis(array, axis, 0), place

    def _array(self, what: str, leaf: Any) -> tuple[np.ndarray, Place | None]:
        """What is here of an array, and its place where others have parts of it."""
        if isinstance(leaf, jax.core.Tracer):
            raise InputError(
                f"{what} is traced: rec.step stands outside of jit, scan, vmap and grad; what a "
                "scan stacks is given to rec.steps"
            )
        if isinstance(leaf, jax.Array):
            if leaf.is_deleted():
                raise InputError(
                    f"{what} was donated, and is gone: give rec.step what the jitted step returned"
                )
            if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
                leaf = jax.random.key_data(leaf)
        return spread.held(what, leaf) if spread.is_spread(leaf) else (np.asarray(leaf), None)


def _shape(array: np.ndarray, place: Place | None) -> tuple[int, ...]:
    """The whole's."""
    return array.shape if place is None else tuple(axis.length for axis in place)


def device_mean(array: np.ndarray) -> np.ndarray:
    """Over the first axis, in double precision, of the dtype that it had."""
    wide = np.complex128 if array.dtype.kind == "c" else np.float64
    found: np.ndarray = array.astype(wide).mean(0)
    return found.astype(array.dtype)


def unchanged(one: Mapping[str, np.ndarray], other: Mapping[str, np.ndarray | None]) -> bool:
    """Whether each array is the other of its name, bit for bit."""
    return all(
        (last := other.get(name)) is not None and last.tobytes() == array.tobytes()
        for name, array in one.items()
    )


def metadata(params: Tree, named: Mapping[str, np.ndarray]) -> Metadata:
    """What runs, of a loop of one's own. InputError for parameters of a dtype that is not kept."""
    dtype = dtypes.of_run({name: dtypes.name(array.dtype) for name, array in named.items()})
    arrays = [leaf for leaf in jax.tree.leaves(params) if isinstance(leaf, jax.Array)]
    device = next(iter(arrays[0].devices())) if arrays else jax.devices()[0]
    return Metadata(
        example=None,
        spec=None,
        framework="jax",
        dtype=dtype,
        device=device.device_kind,
        precision=devices.in_force(dtype, device),
        versions=devices.versions(),
    )
