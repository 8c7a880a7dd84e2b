"""torch.optim.LBFGS: a whole step of it, inner iterations and all, as one compiled loop.

Letters: n entries of all parameters together, M = history_size.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.flatten_util import ravel_pytree

from twinstep.errors import InputError
from twinstep.jax.optim.base import (
    Scheduled,
    at_least_0,
    check_arguments,
    number,
    require_params,
    value_at,
)
from twinstep.jax.optim.ops import Ops, as_real, in_dtype
from twinstep.jax.optim.strong_wolfe import strong_wolfe
from twinstep.jax.trees import by_path, dotted, paired

ValueAndGrad = Callable[[Any], tuple[jax.Array, Any]]
"""What PyTorch calls the closure: parameters -> (loss, gradients like them)."""

_CURVED = 1e-10  # what y.s must exceed for the pair to be kept, as in PyTorch


class LBFGSState(NamedTuple):
    """Under PyTorch's names, but for the first two.

    count: () int32, steps made, where the learning rate is a schedule; else None
    stored: () int32, pairs that are kept, oldest first; within a step, all that were kept until
        now: the newest is in row (stored - 1) % M
    func_evals, n_iter: () int32, evaluations and inner iterations of all steps
    d: (n,), the last direction; t: (), how far along it; H_diag: (), the first guess' scale
    old_dirs, old_stps: (M, n), changes of the gradient and of the parameters; ro: (M,), 1 / y.s
    prev_flat_grad: (n,), prev_loss: (), at the start of the last iteration
    """

    count: Any
    stored: jax.Array
    func_evals: jax.Array
    n_iter: jax.Array
    d: jax.Array
    t: jax.Array
    old_dirs: jax.Array
    old_stps: jax.Array
    ro: jax.Array
    H_diag: jax.Array
    prev_flat_grad: jax.Array
    prev_loss: jax.Array


class _Loop(NamedTuple):
    """What goes from one inner iteration to the next; iterations and evals are of this step."""

    x: jax.Array
    loss: jax.Array
    grad: jax.Array
    state: LBFGSState
    iterations: jax.Array
    evals: jax.Array
    done: jax.Array


def lbfgs(
    lr: Scheduled = 1.0,
    max_iter: int = 20,
    max_eval: int | None = None,
    tolerance_grad: float = 1e-7,
    tolerance_change: float = 1e-9,
    history_size: int = 100,
    line_search_fn: str | None = None,
    *,
    maximize: bool = False,
) -> optax.GradientTransformationExtraArgs:
    """Up to max_iter quasi-Newton iterations a step, by PyTorch's rules for starting and stopping.

    `update(grads, state, params, value=loss, value_and_grad_fn=closure)`: loss and grads are the
    closure's at params, which PyTorch's step calls first; it is called again within the step.
    All parameters are one vector, in the order of the tree's leaves, a complex entry as two real
    ones; PyTorch's has the order they were given in. That changes how sums round, nothing else.
    bfloat16 and float16 are refused: PyTorch's rounding within a step is not this one's.
    optax.lbfgs has another first step, and makes one iteration an update.

    Args:
        lr: How far to go along each direction, 0 or more, along the very first at most lr / sum
            |g|; with a line search, its first guess. A float, or a schedule (function of the steps
            made so far).
        max_iter: The most iterations of a step.
        max_eval: The most evaluations of a step; None is 5 / 4 of max_iter, rounded down. 1 or more
            for a line search.
        tolerance_grad: A step ends where no entry of the gradient is larger.
        tolerance_change: A step ends where no entry moves by more, or the loss changes by less.
        history_size: How many pairs of changes tell of the curvature, 1 or more.
        line_search_fn: None, or "strong_wolfe".
        maximize: Whether to climb; only the newest PyTorch can.

    Returns:
        An `optax.GradientTransformationExtraArgs`, whose `update` needs the parameters. Its state
        is `LBFGSState`; with n entries in all parameters, its direction d is (n,), its pairs are
        (history_size, n).

    Raises:
        InputError: For a value that PyTorch refuses, here or in its first step.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> from twinstep.jax.optim import lbfgs
        >>> closure = jax.value_and_grad(lambda p: jnp.sum((p - 3.0) ** 2))
        >>> optimizer, params = lbfgs(line_search_fn="strong_wolfe"), jnp.zeros(2)
        >>> (loss, grads), state = closure(params), optimizer.init(params)
        >>> updates, state = optimizer.update(
        ...     grads, state, params, value=loss, value_and_grad_fn=closure
        ... )
        >>> [round(p, 3) for p in (params + updates).tolist()]  # after one step
        [3.0, 3.0]

    Source: https://docs.pytorch.org/docs/stable/generated/torch.optim.LBFGS.html
    """
    check_arguments(
        "lbfgs",
        lr=at_least_0(lr),
        max_iter=number(max_iter),
        tolerance_grad=number(tolerance_grad),
        tolerance_change=number(tolerance_change),
        history_size=(history_size, "1 or more", lambda v: v >= 1),
    )
    if line_search_fn not in (None, "strong_wolfe"):
        raise InputError(
            f"lbfgs: line_search_fn is {line_search_fn!r}, expected None or 'strong_wolfe'"
        )
    most_evals = max_iter * 5 // 4 if max_eval is None else max_eval
    if line_search_fn is not None and max_iter > 0:
        check_arguments("lbfgs", max_eval=(most_evals, "1 or more for a search", lambda v: v >= 1))

    def init(params: optax.Params) -> LBFGSState:
        flat, _ = raveled(params)
        zero = jnp.zeros((), flat.dtype)
        return LBFGSState(
            count=jnp.zeros((), jnp.int32) if callable(lr) else None,
            stored=jnp.zeros((), jnp.int32),
            func_evals=jnp.zeros((), jnp.int32),
            n_iter=jnp.zeros((), jnp.int32),
            d=jnp.zeros_like(flat),
            t=zero,
            old_dirs=jnp.zeros((history_size, flat.size), flat.dtype),
            old_stps=jnp.zeros((history_size, flat.size), flat.dtype),
            ro=jnp.zeros(history_size, flat.dtype),
            H_diag=jnp.ones((), flat.dtype),
            prev_flat_grad=jnp.zeros_like(flat),
            prev_loss=jnp.zeros((), flat.dtype),
        )

    def update(
        grads: optax.Updates,
        state: LBFGSState,
        params: optax.Params | None = None,
        *,
        value: jax.Array,
        value_and_grad_fn: ValueAndGrad,
        **_: Any,
    ) -> tuple[optax.Updates, LBFGSState]:
        start, unravel = raveled(require_params(params))
        sign = -1 if maximize else 1  # of the loss and its gradient, in the state too
        rate = lr
        if state.count is not None:
            state = state._replace(count=state.count + 1)
            rate = value_at(lr, state.count)

        def flat_like(grads: optax.Updates) -> jax.Array:
            leaves = paired(params, grads, "the gradients")
            return raveled(leaves)[0].astype(start.dtype)

        def evaluate(x: jax.Array) -> tuple[jax.Array, jax.Array]:
            loss, grad = value_and_grad_fn(unravel(x))
            return sign * loss.astype(x.dtype), sign * flat_like(grad)

        def level(grad: jax.Array) -> jax.Array:
            return jnp.max(jnp.abs(grad)) <= tolerance_grad

        def iterate(now: _Loop) -> _Loop:
            state = _remembered(now.state, now.grad)
            d = _direction(state, now.grad)
            first = jnp.minimum(1, 1 / jnp.sum(jnp.abs(now.grad)))
            t = jnp.where(state.n_iter == 1, first, 1) * jnp.asarray(rate, d.dtype)
            slope = jnp.dot(now.grad, d)
            state = state._replace(d=d, t=t, prev_flat_grad=now.grad, prev_loss=now.loss)
            now = now._replace(state=state, iterations=now.iterations + 1)
            no_descent = slope > -tolerance_change
            after: _Loop = jax.lax.cond(
                no_descent, lambda now, _: now._replace(done=no_descent), move, now, slope
            )
            return after

        def move(now: _Loop, slope: jax.Array) -> _Loop:
            x, state, last = now.x, now.state, now.iterations == max_iter
            if line_search_fn is None:
                t = state.t
                # not in the last iteration: the next step evaluates there, on its own batch
                loss, grad = jax.lax.cond(
                    last, lambda x: (now.loss, now.grad), evaluate, x + t * state.d
                )
                used = jnp.where(last, 0, 1).astype(jnp.int32)
            else:
                loss, grad, t, used = strong_wolfe(
                    evaluate,
                    x,
                    state.t,
                    state.d,
                    now.loss,
                    now.grad,
                    slope,
                    tolerance_change=tolerance_change,
                    max_ls=most_evals - now.evals,
                )
            evals = now.evals + used
            done = last | (evals >= most_evals) | level(grad)
            done |= jnp.max(jnp.abs(state.d * t)) <= tolerance_change
            done |= jnp.abs(loss - state.prev_loss) < tolerance_change
            state = state._replace(t=t, func_evals=state.func_evals + used)
            return _Loop(x + t * state.d, loss, grad, state, now.iterations, evals, done)

        grad = sign * flat_like(grads)
        one, zero = jnp.ones((), jnp.int32), jnp.zeros((), jnp.int32)
        state = state._replace(func_evals=state.func_evals + 1)
        first = _Loop(start, sign * value.astype(start.dtype), grad, state, zero, one, level(grad))
        end = jax.lax.while_loop(
            lambda now: ~now.done & (now.iterations < max_iter), iterate, first
        )
        return unravel(end.x - start), _oldest_first(end.state)

    return optax.GradientTransformationExtraArgs(init, update)


def raveled(tree: Any) -> tuple[jax.Array, Callable[[jax.Array], Any]]:
    """All entries as one vector, (n,), a complex one as two; and the way back.

    Raises InputError for bfloat16 and float16: within a step one rounding leads elsewhere.
    """
    for path, leaf in by_path(tree).items():
        if Ops(leaf.dtype).narrow:
            raise InputError(
                f"lbfgs: parameter {dotted(path)!r} has dtype {leaf.dtype}, expected one of 32 "
                "bits or more"
            )
    flat, unravel = ravel_pytree(jax.tree.map(as_real, tree))
    return flat, lambda flat: jax.tree.map(
        lambda part, leaf: in_dtype(part, leaf.dtype), unravel(flat), tree
    )


def _remembered(state: LBFGSState, grad: jax.Array) -> LBFGSState:
    """The state of a new iteration: the last one's pair is kept where it curves upward.

    In the very first there is none: d is 0 then, so that nothing is kept and H_diag stays 1.
    """
    y, s = grad - state.prev_flat_grad, state.d * state.t
    ys = jnp.dot(y, s)
    keep = ys > _CURVED
    row = state.stored % len(state.ro)

    def kept(buffer: jax.Array, new: jax.Array) -> jax.Array:
        return buffer.at[row].set(jnp.where(keep, new, buffer[row]))

    return state._replace(
        stored=state.stored + keep,
        n_iter=state.n_iter + 1,
        old_dirs=kept(state.old_dirs, y),
        old_stps=kept(state.old_stps, s),
        ro=kept(state.ro, 1 / ys),
        H_diag=jnp.where(keep, ys / jnp.dot(y, y), state.H_diag),
    )


def _oldest_first(state: LBFGSState) -> LBFGSState:
    """The same pairs with the oldest in row 0, where PyTorch's lists have it.

    Once a step: PyTorch moves them all for every new pair.
    """
    held = jnp.minimum(state.stored, len(state.ro))
    over = state.stored - held  # so many rows were written over

    def in_order(buffer: jax.Array) -> jax.Array:
        return jnp.roll(buffer, -over, axis=0)

    return state._replace(
        stored=held,
        old_dirs=in_order(state.old_dirs),
        old_stps=in_order(state.old_stps),
        ro=in_order(state.ro),
    )


def _direction(state: LBFGSState, grad: jax.Array) -> jax.Array:
    """The inverse Hessian that the pairs tell of, times -grad, (n,)."""
    size = len(state.ro)
    held = jnp.minimum(state.stored, size)

    def newest_first(i: jax.Array, carry: tuple[jax.Array, jax.Array]) -> Any:
        q, al = carry
        row = (state.stored - 1 - i) % size
        a = jnp.dot(state.old_stps[row], q) * state.ro[row]
        return q - a * state.old_dirs[row], al.at[row].set(a)

    def oldest_first(i: jax.Array, r: jax.Array) -> jax.Array:
        row = (state.stored - held + i) % size
        b = jnp.dot(state.old_dirs[row], r) * state.ro[row]
        return r + (al[row] - b) * state.old_stps[row]

    q: jax.Array
    al: jax.Array
    q, al = jax.lax.fori_loop(0, held, newest_first, (-grad, jnp.zeros_like(state.ro)))
    direction: jax.Array = jax.lax.fori_loop(0, held, oldest_first, q * state.H_diag)
    return direction
