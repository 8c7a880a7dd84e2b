"""A user's own step, let run by itself from given parameters and buffers, and rerun perturbed.

Nothing is forced: after the first step each starts from what the one before has left. So a fault
of the optimizer's state is seen too, and rounding grows as it does in any training.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from types import FunctionType, MethodType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from twinstep.errors import InputError
from twinstep.jax.forcing import Named, checked, off, told, tree_of
from twinstep.jax.trees import Tree, by_name
from twinstep.judge.tolerance import PERTURBED_RERUNS


@dataclass(frozen=True)
class FreeStep:
    """What a step has left.

    loss: (); found: {leaf: array}, parameters and those buffers that the state holds
    reruns: the same of each perturbed rerun
    """

    loss: float
    found: dict[str, np.ndarray]
    reruns: "tuple[FreeStep, ...]" = ()


def shapes_of(tree: Tree) -> dict[str, tuple[int, ...]]:
    """{the leaf's path, dotted: its shape}."""
    return {name: jnp.shape(leaf) for name, leaf in by_name(tree).items()}


def free_steps(
    step_fn: Callable[[Any, Any], Any],
    state: Any,
    named: Named,
    batches: Sequence[Any],
    dtype: str,
    update_share: float = 0.0,
) -> Iterator[FreeStep]:
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
        update_share: By how much of itself rounding may have each update longer or shorter; the
            reruns' are. Their parameters and buffers are off by up to an eps before each step.

    Yields:
        A `FreeStep` for each.

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
        begun, held = _begun(state, named)
        run = jax.jit(lambda state, batch: checked(step_fn(state, batch), state))
        states = [begun] * (1 + PERTURBED_RERUNS)
        for number, batch in enumerate(batches):
            batch = jax.tree.map(jnp.asarray, batch)
            for rerun in range(1, len(states)):
                states[rerun] = _off(states[rerun], held, np.random.RandomState([number, rerun]))
            with told("step_fn", number):
                made = [run(one, batch) for one in states]
            before, states = states, [one for one, _ in made]
            for rerun in range(1, len(states)):
                # of one sign all along, as the rounding of a constant is
                share = update_share * (-1) ** rerun
                states[rerun] = _longer(before[rerun], states[rerun], share)
            left = [
                FreeStep(float(loss), _found(one, held))
                for one, (_, loss) in zip(states, made, strict=True)
            ]
            yield FreeStep(left[0].loss, left[0].found, tuple(left[1:]))


def _begun(state: tuple[Any, ...], named: Named) -> tuple[tuple[Any, ...], tuple[int, ...]]:
    """(the state with the given start, the places in it of parameters and buffers)."""
    own = named.keys() if state[0] is None else by_name(state[0]).keys()
    params = tree_of(state[0], {name: named[name] for name in named if name in own})
    parts = [params]
    for part in state[1:]:
        parts.append(part(params) if isinstance(part, FunctionType | MethodType) else part)
    buffers = {name: array for name, array in named.items() if name not in own}
    held = [0]
    for place, part in enumerate(parts):
        if place and buffers and by_name(part).keys() == buffers.keys():
            parts[place] = tree_of(part, buffers)
            held.append(place)
            break
    return tuple(jax.tree.map(jnp.asarray, part) for part in parts), tuple(held)


def _found(state: tuple[Any, ...], held: Sequence[int]) -> dict[str, np.ndarray]:
    return {
        name: np.asarray(leaf) for place in held for name, leaf in by_name(state[place]).items()
    }


def _off(
    state: tuple[Any, ...], held: Sequence[int], draws: np.random.RandomState
) -> tuple[Any, ...]:
    """The same with parameters and buffers off by up to an eps of themselves."""
    return tuple(off(part, draws) if place in held else part for place, part in enumerate(state))


@np.errstate(invalid="ignore", over="ignore")
def _longer(before: tuple[Any, ...], after: tuple[Any, ...], share: float) -> tuple[Any, ...]:
    """The state after a step whose update is longer by a share of itself."""

    def longer(old: Any, new: Any) -> Any:
        old, new = np.asarray(old), np.asarray(new)
        if not jnp.issubdtype(new.dtype, jnp.inexact):
            return new
        wide = np.result_type(new.dtype, np.float64)
        return (new + share * (new.astype(wide) - old.astype(wide))).astype(new.dtype)

    return (jax.tree.map(longer, before[0], after[0]), *after[1:])
