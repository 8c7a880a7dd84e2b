"""A user's own step, let run by itself from given parameters and buffers, and rerun perturbed.

Nothing is forced: after the first step each starts from what the one before has left. So a fault
of the optimizer's state is seen too, and rounding grows as it does in any training.
"""

from collections.abc import Callable, Iterator, Sequence
from types import FunctionType, MethodType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from twinstep.errors import InputError
from twinstep.jax.forcing import Named, Step, checked, forced_steps, tree_of
from twinstep.jax.trees import Tree, by_name

_HELD = ("params.", "buffers.")


def shapes_of(tree: Tree) -> dict[str, tuple[int, ...]]:
    """{the leaf's path, dotted: its shape}."""
    return {name: jnp.shape(leaf) for name, leaf in by_name(tree).items()}


def free_steps(
    step_fn: Callable[[Any, Any], Any],
    state: Any,
    named: Named,
    batches: Sequence[Any],
    dtype: str,
) -> Iterator[Step]:
    """What `step_fn(state, batch) -> (state, loss)` makes of a start, left to itself.

    Args:
        step_fn: A step, as a scan's body; its state is (params, ...).
        state: The state before the first step, as it takes it; params may be of any values, or
            None, for nested dicts of the leaves' names. A function in it, such as `tx.init`, stands
            for what it makes of the parameters.
        named: {leaf: array} of the parameters; and of buffers, which are put where the state holds
            leaves of just these names.
        batches: What each step is made on.
        dtype: Of the run, which says whether JAX's x64 is on.

    Yields:
        A `Step` of parameters for each, and of buffers that were found in the state.

    Raises:
        InputError: Where it raises, or gives a state of another form or no loss; and where the
            state's parameters have other names or shapes.

    Example:
        >>> import numpy as np
        >>> from twinstep.jax.free_run import free_steps
        >>> def step(state, batch):
        ...     params, momentum = state
        ...     momentum = 0.5 * momentum + batch
        ...     return ({"w": params["w"] - momentum}, momentum), params["w"].sum()
        >>> state = ({"w": np.zeros(2)}, lambda params: params["w"] * 0)
        >>> start = {"w": np.array([1.0, 2.0])}
        >>> for made in free_steps(step, state, start, [np.ones(2)] * 2, "float64"):
        ...     print(made.loss, made.found["w"])
        3.0 [0. 1.]
        1.0 [-1.5 -0.5]

    Source: https://docs.jax.dev/en/latest/_autosummary/jax.lax.scan.html
    """
    if not isinstance(state, tuple) or not state:
        raise InputError(f"state is a {type(state).__name__}, expected a tuple (params, ...)")
    with jax.enable_x64(dtype == "float64"):
        own = named.keys() if state[0] is None else by_name(state[0]).keys()
        params = tree_of(state[0], {name: named[name] for name in named if name in own})
        rest = [_made(part, params) for part in state[1:]]
        others = {name: array for name, array in named.items() if name not in own}
        place = _place(rest, others)
        buffers = {} if place is None else tree_of(rest.pop(place), others)

        def step(held: Any, batch: Any) -> Any:
            whole = _whole(held, place)
            made, loss = checked(step_fn(whole, batch), whole)
            return _parts(made, place), loss

        start = {"params": params, "buffers": buffers}
        first = {name: np.asarray(leaf) for name, leaf in by_name(start).items()}
        whole = (start, tuple(rest))
        for one in forced_steps(step, whole, iter([first]), batches, dtype, forced=False):
            reruns = tuple(map(_bare, one.reruns))
            yield Step(one.loss, _bare(one.found), _bare(one.noise), reruns)


def _made(part: Any, params: Tree) -> Any:
    return part(params) if isinstance(part, FunctionType | MethodType) else part


def _place(rest: Sequence[Any], buffers: Named) -> int | None:
    """Which part of the state has just the buffers' names; None: none has."""
    places = (i for i, part in enumerate(rest) if buffers and by_name(part).keys() == {*buffers})
    return next(places, None)


def _whole(held: Any, place: int | None) -> tuple[Any, ...]:
    """The state as the user's step takes it."""
    start, rest = held
    rest = [*rest]
    if place is not None:
        rest.insert(place, start["buffers"])
    return (start["params"], *rest)


def _parts(state: tuple[Any, ...], place: int | None) -> Any:
    params, *rest = state
    buffers = {} if place is None else rest.pop(place)
    return {"params": params, "buffers": buffers}, tuple(rest)


def _bare(named: dict[str, Any]) -> dict[str, Any]:
    """Without what says whether it is a parameter or a buffer; the loss has nothing of it."""
    return {
        name.removeprefix(next((p for p in _HELD if name.startswith(p)), "")): value
        for name, value in named.items()
    }
