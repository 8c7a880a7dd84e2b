"""Records a JAX training from outside: a line in the loop says what a step has left.

The gradients come in the optimizer's state, from `watch`; nothing else in a step is changed.
Mirror: twinstep/torch/recorder.py
"""

from os import PathLike
from types import TracebackType
from typing import Any, Self

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from twinstep.errors import InputError
from twinstep.jax import devices
from twinstep.jax.layout import Mapping, opt_state_layout
from twinstep.jax.watching import WatchState, gradients, unwatched
from twinstep.trace import dtypes
from twinstep.trace.fingerprint import fingerprint
from twinstep.trace.ledger import Metadata, Trace
from twinstep.trace.rows import Rows, rows_at_once
from twinstep.trace.streaming import Stream

Tree = Any
Named = dict[str, np.ndarray]


def record(
    params: Tree = None,
    *,
    out: str | PathLike[str] | None = None,
    layout: Mapping | None = None,
    buffers: Tree = None,
) -> "Recorder":
    """What records, in a `with` block, the updates that it is told of.

    Args:
        params: The parameters before the first update, a tree of arrays or an nnx module.
        out: A new folder for the trace, written as it comes; None: it stays in memory.
        layout: Puts leaves under PyTorch's names and layouts, such as `module_layout(model)`. With
            None a leaf's name is its path in the tree, with dots.
        buffers: What layers keep beside parameters (BatchNorm's means), before the first update.

    Returns:
        A context manager; its `trace` is what was recorded.

    Raises:
        InputError: For parameters that are none, or of float32 beside float64, an `out` that
            exists, and in the block for what cannot be recorded.

    Example:
        >>> import jax, jax.numpy as jnp, optax
        >>> from twinstep.jax import record, watch
        >>> tx = watch(optax.sgd(0.1))
        >>> params = {"w": jnp.ones(2)}
        >>> opt_state = tx.init(params)
        >>> with record(params) as rec:
        ...     for _ in range(3):
        ...         loss, grads = jax.value_and_grad(lambda p: jnp.sum(p["w"] ** 2))(params)
        ...         updates, opt_state = tx.update(grads, opt_state, params)
        ...         params = optax.apply_updates(params, updates)
        ...         rec.step(loss=loss, params=params, opt_state=opt_state)
        >>> rec.trace.raw_grads["w"].shape
        (3, 2)

    Source: https://optax.readthedocs.io/en/latest/getting_started.html
    """
    return Recorder(params, out=out, layout=layout, buffers=buffers)


class Recorder:
    """What `record` makes: told of each update, it keeps what that has left.

    Args:
        params, out, layout, buffers: As of `record`.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax import record
        >>> with record({"w": jnp.ones(2)}) as rec:
        ...     rec.step(loss=0.5, params={"w": jnp.zeros(2)})
        >>> rec.trace.losses.tolist(), rec.trace.params["w"].tolist()
        ([0.5], [[1.0, 1.0], [0.0, 0.0]])

    Source: https://optax.readthedocs.io/en/latest/getting_started.html
    """

    def __init__(
        self,
        params: Tree = None,
        *,
        out: str | PathLike[str] | None = None,
        layout: Mapping | None = None,
        buffers: Tree = None,
    ) -> None:
        self._layout = layout
        before = {"params": self._named(params), "buffers": self._named(buffers)}
        if not before["params"]:
            raise InputError("record was given no parameters that learn: record(params, ...)")
        self._metadata = _metadata(params, before["params"])
        self._stream = Stream(out)
        entries = sum(4 * array.size for array in before["params"].values())
        max_rows = rows_at_once(entries * np.dtype(self._metadata.dtype).itemsize)
        self._rows = Rows(max_rows, self._metadata.dtype)
        for stage, leaves in before.items():
            for leaf, array in leaves.items():
                self._rows.initial(stage, leaf, array)
        self._last: list[Any] = []
        self._form: dict[str, set[str]] = {}
        self._optimizer: str | None = None

    @property
    def trace(self) -> Trace:
        """All that was recorded.

        Raises:
            InputError: Where nothing was.
        """
        self._flush()
        return self._stream.whole()

    def step(
        self,
        state: Any = None,
        *,
        loss: Any,
        params: Tree = None,
        opt_state: Tree = None,
        buffers: Tree = None,
        batch: Tree = None,
        rng: Tree = None,
        name: str = "optimizer",
    ) -> None:
        """Says what an update has left.

        Args:
            state: What holds `params` and `opt_state`: a train state, or a tuple that begins so.
            loss: As the update found it, (); of accumulated gradients, the sum.
            params, opt_state, buffers: After the update. Gradients are read from an optimizer's
                state that is watched.
            batch: What the update trained on, a tree of arrays, (N, ...) each.
            rng: Keys that the step used.
            name: Which optimizer made it; a trace is of one.

        Raises:
            InputError: For a loss that is no number, a leaf whose shape changed or that is missing,
                a step that was recorded already, another optimizer than before.
        """
        value = dtypes.numbers(np.asarray(loss))
        if value.shape != () or value.dtype.kind not in "fiu":
            raise InputError(
                f"step {self._rows.step}: loss is {value.dtype} of shape {value.shape}, expected "
                "one number"
            )
        found = self._found(state, params, opt_state, buffers, rng, name, lead=0)
        for stage, leaves in found.items():
            for leaf, array in leaves.items():
                if stage == "grads":
                    self._rows.given(leaf, array)
                else:
                    self._rows.put(stage, leaf, array)
        self._rows.batch(_by_path(batch), values=True)
        self._rows.finish(value.item())
        if self._rows.full:
            self._flush()

    def steps(
        self,
        state: Any = None,
        *,
        loss: Any,
        params: Tree = None,
        opt_state: Tree = None,
        buffers: Tree = None,
        batch: Tree = None,
        rng: Tree = None,
        name: str = "optimizer",
    ) -> None:
        """Says what T updates have left that a compiled scan has stacked.

        Args:
            state, loss, params, opt_state, buffers, batch, rng, name: As of `step`, with an axis
                of the steps in front of each array, (T,) of the loss, (T, ...) of params.

        Raises:
            InputError: As `step` does; and for stacks of different lengths.

        Example:
            >>> import jax.numpy as jnp
            >>> from twinstep.jax import record
            >>> with record({"w": jnp.ones(2)}) as rec:
            ...     rec.steps(loss=jnp.array([0.5, 0.25]), params={"w": jnp.zeros((2, 2))})
            >>> rec.trace.losses.tolist()
            [0.5, 0.25]
        """
        losses = dtypes.numbers(np.asarray(loss))
        if losses.ndim != 1 or losses.dtype.kind not in "fiu" or not len(losses):
            raise InputError(
                f"step {self._rows.step}: loss is {losses.dtype} of shape {losses.shape}, expected "
                "a number a step"
            )
        found = self._found(state, params, opt_state, buffers, rng, name, lead=1)
        found["batch"] = {}
        inputs: dict[str, dict[int, np.ndarray]] = {}
        for leaf, array in _by_path(batch).items():
            numbers = [fingerprint(one) for one in array]
            found["batch"][leaf] = np.array(numbers, np.uint32)
            inputs[leaf] = dict(zip(numbers, array, strict=True))
        self._flush()
        self._stream.add(self._rows.stacked(self._metadata, losses, found, inputs))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._flush()
        if kind is None:
            self._stream.close()

    def _found(
        self,
        state: Any,
        params: Tree,
        opt_state: Tree,
        buffers: Tree,
        rng: Tree,
        name: str,
        lead: int,
    ) -> dict[str, Named]:
        """{stage: {leaf: array}} of what an update has left; lead: axes that stand in front"""
        if self._optimizer not in (None, name):
            raise InputError(
                f"step {self._rows.step} is of optimizer {name!r}, those before of "
                f"{self._optimizer!r}: a trace is of one"
            )
        self._optimizer = name
        if state is not None:
            params, opt_state = _parts(state)
        if params is None:
            raise InputError(f"step {self._rows.step}: params is missing")
        leaves = jax.tree.leaves(_plain(params))
        if self._last and all(a is b for a, b in zip(leaves, self._last, strict=False)):
            raise InputError(
                f"step {self._rows.step - 1} was recorded already: params are the very same arrays"
            )
        self._last = leaves
        found: dict[str, Named] = {}
        if _watched(opt_state):
            raw, given = gradients(opt_state)
            found["raw_grads"] = self._named(raw, lead)
            found["grads"] = found["raw_grads"] if given is raw else self._named(given, lead)
        found["opt_state"] = self._of_optimizer(opt_state, lead)
        found["params"] = self._named(params, lead)
        found["buffers"] = self._named(buffers, lead)
        found["rng"] = _by_path(jax.tree.map(_key_data, rng))
        for stage, named in found.items():
            if missing := self._form.get(stage, set()) - named.keys():
                raise InputError(
                    f"step {self._rows.step}: {stage}, {min(missing)} is missing, the steps before "
                    "had it"
                )
        self._form = {stage: set(named) for stage, named in found.items()}
        return found

    def _named(self, tree: Tree, lead: int = 0) -> Named:
        """Parameters, or what has their form, by name."""
        plain = _plain(tree)
        if self._layout is None or not jax.tree.leaves(plain):
            return _by_path(plain)
        return _by_slots(self._layout.part(plain), plain, lead)

    def _of_optimizer(self, opt_state: Tree, lead: int) -> Named:
        """The optimizer's state by name, without the gradients that it carries."""
        plain = _plain(unwatched(opt_state))
        if self._layout is not None:
            one = jax.eval_shape(lambda s: jax.tree.map(lambda a: a[(0,) * lead], s), plain)
            try:
                layout = opt_state_layout(one, self._layout)
            except (TypeError, ValueError, LookupError):  # no state that it knows
                return _by_path(plain)
            names = [name for slot in layout.slots for name in slot.names]
            if len(set(names)) == len(names):
                return _by_slots(layout, plain, lead)
        return _by_path(plain)

    def _flush(self) -> None:
        """Gives the finished rows away."""
        self._rows.flush(self._metadata, self._stream)


def _parts(state: Any) -> tuple[Tree, Tree]:
    """The parameters and the optimizer's state that something holds."""
    if isinstance(state, tuple) and not hasattr(state, "params"):
        params, opt_state, *_ = state
        return params, opt_state
    return state.params, state.opt_state


def _plain(tree: Tree) -> Tree:
    """A tree without what nnx puts around arrays."""

    def plain(node: Any) -> Any:
        if isinstance(node, nnx.Module):
            node = nnx.state(node, nnx.Param)
        return nnx.to_pure_dict(node) if isinstance(node, nnx.State) else node

    return jax.tree.map(plain, tree, is_leaf=lambda node: isinstance(node, nnx.Module | nnx.State))


def _by_path(tree: Tree) -> Named:
    """{the leaf's path, with dots: array}"""
    named = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(_plain(tree)):
        name = jax.tree_util.keystr(path, simple=True, separator=".").removesuffix(".value")
        named[name] = np.asarray(leaf)
    return named


def _by_slots(layout: Mapping, tree: Tree, lead: int) -> Named:
    """{PyTorch's name: array in its layout}; lead: axes that stand in front"""
    named: Named = {}
    front = tuple(range(lead))
    for slot, leaf in zip(layout.slots, jax.tree.leaves(tree), strict=True):
        array = np.asarray(leaf)
        if slot.axes is not None:
            array = array.transpose(*front, *(axis + lead for axis in slot.axes))
        named |= dict.fromkeys(slot.names, array)
    return named


def _watched(opt_state: Tree) -> bool:
    nodes = jax.tree.leaves(opt_state, is_leaf=lambda node: isinstance(node, WatchState))
    return any(isinstance(node, WatchState) for node in nodes)


def _key_data(leaf: Any) -> Any:
    """A key of JAX's own type as numbers."""
    typed = hasattr(leaf, "dtype") and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
    return jax.random.key_data(leaf) if typed else leaf


def _metadata(params: Tree, named: Named) -> Metadata:
    """What runs, of a loop of one's own. InputError for parameters of a dtype that is not kept."""
    dtype = dtypes.of_run({name: dtypes.name(array.dtype) for name, array in named.items()})
    arrays = [leaf for leaf in jax.tree.leaves(_plain(params)) if isinstance(leaf, jax.Array)]
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
