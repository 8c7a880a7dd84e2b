"""A user's own step or loss, made again from recorded parameters; and how far rounding moves it.

Each step starts from the other side's recorded parameters, so that it is judged alone. The
optimizer's state is what the step itself has made of these so far. Reruns from parameters that are
off by up to an eps say what rounding does.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from twinstep.errors import InputError
from twinstep.jax.trees import Tree, by_name
from twinstep.judge import tolerance
from twinstep.judge.tolerance import PERTURBED_RERUNS
from twinstep.trace import dtypes

Named = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Step:
    """What one step made, and how far the reruns were off.

    loss: (); found: {leaf: array}, gradients of a loss, or the parameters after a step
    noise: {"loss": (), leaf: ()}, the largest distance of a rerun
    """

    loss: np.ndarray
    found: dict[str, np.ndarray]
    noise: dict[str, float]


def in_dtype(dtype: str) -> AbstractContextManager[Any]:
    """JAX's x64 as a run in that dtype has it."""
    of_jax: AbstractContextManager[Any] = jax.enable_x64(dtype == "float64")
    return of_jax


def losses_and_gradients(
    loss_fn: Callable[[Tree, Any], Any],
    like: Tree,
    params: Iterator[Named],
    batches: Sequence[Any],
    dtype: str,
) -> Iterator[Step]:
    """What `loss_fn(params, batch)` makes of recorded parameters, step by step.

    Args:
        loss_fn: Gives the loss, ().
        like: A tree of parameters as it takes them; None: nested dicts of the leaves' names.
        params: {leaf: array} before each step.
        batches: What each step was made on.
        dtype: Of the run, which says whether JAX's x64 is on.

    Yields:
        A `Step` of gradients for each.

    Raises:
        InputError: Where it raises, or what it gives is no loss.

    Example:
        >>> import numpy as np
        >>> from twinstep.jax.forcing import losses_and_gradients
        >>> params, batch = {"w": np.array([1.0, 2.0])}, {"x": np.array([3.0, 0.5])}
        >>> square = lambda params, batch: (params["w"] * batch["x"]).sum() ** 2
        >>> steps = losses_and_gradients(square, params, iter([params]), [batch], "float64")
        >>> step = next(steps)
        >>> step.loss, step.found["w"]
        (array(16.), array([24.,  4.]))

    Source: https://docs.jax.dev/en/latest/_autosummary/jax.value_and_grad.html
    """
    with jax.enable_x64(dtype == "float64"):
        run = jax.jit(jax.value_and_grad(lambda tree, batch: _scalar(loss_fn(tree, batch))))
        for number, (named, batch) in enumerate(zip(params, batches, strict=True)):
            tree = tree_of(like, named)
            batch = jax.tree.map(jnp.asarray, batch)
            with told("loss_fn", number):
                loss, grads = run(tree, batch)
                others = [run(off, batch) for off in _perturbed(tree, number)]
            found = _arrays(grads)
            yield Step(np.asarray(loss), found, _noise(loss, found, others))


def forced_steps(
    step_fn: Callable[[Any, Any], Any],
    state: Any,
    params: Iterator[Named],
    batches: Sequence[Any],
    dtype: str,
    *,
    forced: bool = True,
) -> Iterator[Step]:
    """What `step_fn(state, batch) -> (state, loss)` makes of recorded parameters, step by step.

    Args:
        step_fn: A step, as a scan's body; its state is (params, ...).
        state: The state before the first step, as it takes it.
        params: {leaf: array} before each step; without `forced`, of the first alone.
        batches: What each step was made on.
        dtype: Of the run, which says whether JAX's x64 is on.
        forced: Whether each step starts from the recorded parameters; else from its own.

    Yields:
        A `Step` of parameters for each.

    Raises:
        InputError: Where it raises, or gives a state of another form or no loss.

    Example:
        >>> import numpy as np
        >>> from twinstep.jax.forcing import forced_steps
        >>> step = lambda state, batch: (({"w": state[0]["w"] - batch},), state[0]["w"].sum())
        >>> params = {"w": np.array([1.0, 2.0])}
        >>> made = next(forced_steps(step, (params,), iter([params]), [np.array(0.5)], "float64"))
        >>> made.loss, made.found["w"]
        (array(3.), array([0.5, 1.5]))

    Source: https://docs.jax.dev/en/latest/_autosummary/jax.lax.scan.html
    """
    if not isinstance(state, tuple) or not state:
        raise InputError(f"state is a {type(state).__name__}, expected a tuple (params, ...)")
    with jax.enable_x64(dtype == "float64"):
        run = jax.jit(lambda state, batch: checked(step_fn(state, batch), state))
        states = [jax.tree.map(jnp.asarray, state)] * (1 + PERTURBED_RERUNS)
        for number, batch in enumerate(batches):
            if forced or not number:
                tree = tree_of(state[0], next(params))
                states = [(tree, *one[1:]) for one in states]
            trees = [states[0][0], *_perturbed_each([one[0] for one in states[1:]], number)]
            batch = jax.tree.map(jnp.asarray, batch)
            with told("step_fn", number):
                made = [
                    run((tree, *one[1:]), batch) for tree, one in zip(trees, states, strict=True)
                ]
            states = [one for one, _ in made]
            found = _arrays(states[0][0])
            others = [(loss, one[0]) for one, loss in made[1:]]
            yield Step(np.asarray(made[0][1]), found, _noise(made[0][1], found, others))


def tree_of(like: Tree, named: Named) -> Tree:
    """Arrays by name in the form of a tree; None: nested dicts. InputError for other names."""
    if like is None:
        tree: dict[str, Any] = {}
        for name, array in named.items():
            *above, last = name.split(".")
            node = tree
            for key in above:
                node = node.setdefault(key, {})
            node[last] = jnp.asarray(array)
        return tree
    wanted = by_name(like)
    if odd := sorted(wanted.keys() ^ named.keys()):
        side = "the trace has no" if odd[0] in wanted else "params has no"
        raise InputError(
            f"{side} leaf {odd[0]!r}, expected the recorded names: {min(named)!r}, ..."
        )
    for name, leaf in wanted.items():
        if jnp.shape(leaf) != named[name].shape:
            raise InputError(
                f"params, {name!r} has shape {jnp.shape(leaf)}, recorded {named[name].shape}"
            )
    leaves = [jnp.asarray(named[name]) for name in wanted]
    return jax.tree.unflatten(jax.tree.structure(like), leaves)


def _arrays(tree: Tree) -> dict[str, np.ndarray]:
    return {name: np.asarray(leaf) for name, leaf in by_name(tree).items()}


def _scalar(loss: Any) -> jax.Array:
    loss = jnp.asarray(loss)
    assert isinstance(loss, jax.Array)
    if loss.shape != ():
        raise InputError(f"loss_fn gives a loss of shape {loss.shape}, expected ()")
    return loss


def checked(made: Any, state: Any) -> Any:
    """What a step gave, if it is (a state like the one that it was given, a loss)."""
    if not isinstance(made, tuple) or len(made) != 2:
        raise InputError(f"step_fn gives a {type(made).__name__}, expected (state, loss)")
    forms = [
        {name: (jnp.shape(x), jnp.result_type(x)) for name, x in by_name(one).items()}
        for one in (state, made[0])
    ]
    for name in dict.fromkeys([*forms[0], *forms[1]]):
        before, after = (form.get(name) for form in forms)
        if before is None or after is None:
            side = "gives no" if after is None else "gives a new"
            raise InputError(f"step_fn {side} leaf {name!r} of its state")
        if before != after:
            raise InputError(
                f"step_fn makes state, {name!r} {after[1]} of shape {after[0]}, it was "
                f"{before[1]} of {before[0]}"
            )
    if jnp.shape(made[1]) != ():
        raise InputError(f"step_fn gives a loss of shape {jnp.shape(made[1])}, expected ()")
    return made


@contextlib.contextmanager
def told(what: str, number: int) -> Iterator[None]:
    """Says of what is raised in a user's function where it was."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        first = (str(error).strip().splitlines() or [""])[0]
        raise InputError(
            f"step {number + 1}: {what} raised {type(error).__name__}: {first}"
        ) from error


def _perturbed(tree: Tree, number: int) -> list[Tree]:
    return _perturbed_each([tree] * PERTURBED_RERUNS, number)


def _perturbed_each(trees: Sequence[Tree], number: int) -> list[Tree]:
    """Each with every parameter off by up to an eps of itself, drawn anew for each of them."""
    return [off(tree, np.random.RandomState([number, rerun])) for rerun, tree in enumerate(trees)]


@np.errstate(invalid="ignore", over="ignore")  # of a run that has diverged
def off(tree: Tree, draws: np.random.RandomState) -> Tree:
    """A tree with every number off by up to an eps of itself."""

    def moved(leaf: Any) -> Any:
        if not jnp.issubdtype(leaf.dtype, jnp.inexact):
            return leaf
        eps = tolerance.eps(dtypes.name(leaf.dtype))
        factor = 1 + eps * draws.uniform(-1, 1, leaf.shape)
        return (np.asarray(leaf) * factor).astype(leaf.dtype)  # NumPy's: nothing is compiled for it

    return jax.tree.map(moved, tree)


def _noise(loss: Any, found: Named, others: Sequence[tuple[Any, Tree]]) -> dict[str, float]:
    noise = {"loss": max(abs(float(other) - float(loss)) for other, _ in others)}
    for _, tree in others:
        for name, array in _arrays(tree).items():
            gap = np.abs(array.astype(float) - found[name].astype(float))
            noise[name] = max(noise.get(name, 0.0), float(gap.max(initial=0)))
    return noise
