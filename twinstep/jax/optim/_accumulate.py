"""Gradient accumulation: one update from the gradients of several micro-batches."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from twinstep.errors import InputError, check_arguments
from twinstep.jax.optim.base import zeros_like
from twinstep.jax.optim.lr_scheduler.base import whole
from twinstep.jax.optim.narrow import divided, rounded
from twinstep.jax.trees import leaves_like


class AccumulateState(NamedTuple):
    """micro_step: () int32, micro-batches since the last update; grad: like params, their sum.

    inner: the optimizer's own state
    weights: () float, what the sum is divided by, for mean="own"; else None
    """

    micro_step: jax.Array
    grad: Any
    inner: Any
    weights: Any = None


def accumulate(
    optimizer: optax.GradientTransformation, micro_batches: int, *, mean: bool | str = False
) -> optax.GradientTransformationExtraArgs:
    """An optimizer that moves every micro_batches-th time, by the sum of the gradients since.

    As PyTorch's `.grad` piles up where `zero_grad` and `step` are called once for several
    `backward`; in between, updates are 0. A gradient becomes of its parameter's dtype, and so is
    each sum rounded.
    optax.MultiSteps takes the mean, and sums in float32, whatever the gradients are, unless it is
    told otherwise.

    Two words for its `update`:

    - `move`, () bool, says when to move in the place of the count, as PyTorch's
      `if (i + 1) % n == 0 or i + 1 == len(loader):` does for what an epoch leaves over. To throw
      that away is `zero_grad`.
    - `weight`, (), for mean="own" alone: how many losses this gradient is of the sum of, such as
      its tokens.

    Args:
        optimizer: Any of optax's or of this package's.
        micro_batches: How many gradients make one update, a whole number, 1 or more.
        mean: False: their sum. True: each gradient is first divided by micro_batches, as
            `(loss / n).backward()` does in PyTorch, however many there are as it moves. "own": the
            sum is divided by how many there are, or by the sum of their weights.

    Returns:
        An `optax.GradientTransformationExtraArgs`; its state is `AccumulateState`, with the sum of
        the gradients (like the parameters) beside the optimizer's own state. What `update` is given
        besides goes on to the optimizer.

    Raises:
        InputError: For micro_batches that are no whole number above 0, another `mean`, gradients
            that are not like the parameters, a `weight` for another mean than "own".

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax.optim import accumulate, sgd
        >>> optimizer, params = accumulate(sgd(lr=0.5), 2), jnp.array(1.0)
        >>> state = optimizer.init(params)
        >>> for grad in (1.0, 3.0):
        ...     updates, state = optimizer.update(jnp.array(grad), state, params)
        ...     print(updates)
        0.0
        -2.0
        >>> updates, state = optimizer.update(jnp.array(5.0), state, params, move=True)
        >>> print(updates)  # one is left at the end of the epoch
        -2.5

    Source: https://docs.pytorch.org/docs/stable/notes/amp_examples.html#gradient-accumulation
    """
    value, _, right = whole(micro_batches, 1)
    check_arguments(
        "accumulate",
        micro_batches=(value, "1 or more, a whole number", right),
        mean=(mean, "False, True or 'own'", lambda m: m in (False, True, "own")),
    )
    share = int(micro_batches) if mean is True else 1
    optimizer = optax.with_extra_args_support(optimizer)

    def init(params: optax.Params) -> AccumulateState:
        return _empty(zeros_like(params), optimizer.init(params), mean == "own")

    def update(
        grads: optax.Updates,
        state: AccumulateState,
        params: optax.Params | None = None,
        *,
        move: Any = None,
        weight: Any = None,
        **extra: Any,
    ) -> tuple[optax.Updates, AccumulateState]:
        if weight is not None and state.weights is None:
            raise InputError(
                f"accumulate: weight is given and mean is {mean!r}, expected mean='own' with it"
            )
        sums, treedef = jax.tree.flatten(state.grad)
        given = leaves_like(state.grad, grads, "grads")
        added = [_added(s, g, share) for s, g in zip(sums, given, strict=True)]
        total = jax.tree.unflatten(treedef, added)
        weights = state.weights
        if weights is not None:
            weights = weights + jnp.asarray(1 if weight is None else weight, weights.dtype)

        def step() -> tuple[optax.Updates, AccumulateState]:
            grad = total if weights is None else jax.tree.map(lambda g: divided(g, weights), total)
            updates, inner = optimizer.update(grad, state.inner, params, **extra)
            return updates, _empty(zeros_like(total), inner, weights is not None)

        def wait() -> tuple[optax.Updates, AccumulateState]:
            form = jax.eval_shape(step)[0]
            still = jax.tree.map(lambda u: jnp.zeros(u.shape, u.dtype), form)
            return still, AccumulateState(state.micro_step + 1, total, state.inner, weights)

        counted = state.micro_step + 1 == int(micro_batches)
        now = counted if move is None else jnp.asarray(move, bool)
        result: tuple[optax.Updates, AccumulateState] = jax.lax.cond(now, step, wait)
        return result

    return optax.GradientTransformationExtraArgs(init, update)


def zero_grad(opt_state: Any) -> Any:
    """The state without the gradients that `accumulate` has summed up: `optimizer.zero_grad()`.

    For PyTorch loops that call it as an epoch begins, and so throw away what the one before left.

    Args:
        opt_state: The state of an optimizer that `accumulate` made, alone or within others.

    Returns:
        A state like it, whose next update is of the gradients to come alone.

    Raises:
        InputError: Where no part of it is `accumulate`'s.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax.optim import accumulate, sgd, zero_grad
        >>> optimizer, params = accumulate(sgd(lr=0.5), 2), jnp.array(1.0)
        >>> _, state = optimizer.update(jnp.array(9.0), optimizer.init(params), params)
        >>> state = zero_grad(state)
        >>> for grad in (1.0, 3.0):
        ...     updates, state = optimizer.update(jnp.array(grad), state, params)
        >>> print(updates)
        -2.0

    Source: https://docs.pytorch.org/docs/stable/generated/torch.optim.Optimizer.zero_grad.html
    """
    nodes, treedef = jax.tree.flatten(opt_state, is_leaf=lambda n: isinstance(n, AccumulateState))
    if not any(isinstance(node, AccumulateState) for node in nodes):
        raise InputError("zero_grad: opt_state has no gradients, expected a state of accumulate's")
    emptied = [
        _empty(zeros_like(node.grad), node.inner, node.weights is not None)
        if isinstance(node, AccumulateState)
        else node
        for node in nodes
    ]
    return jax.tree.unflatten(treedef, emptied)


def _empty(grad: Any, inner: Any, weighted: bool) -> AccumulateState:
    weights = jnp.zeros((), float) if weighted else None
    return AccumulateState(jnp.zeros((), jnp.int32), grad, inner, weights)


def _added(sum_: jax.Array, grad: jax.Array, share: int) -> jax.Array:
    """A sum with one gradient more, which is first made of its parameter's dtype, as autograd does.

    Each sum is rounded: `.grad` is of that dtype too.
    """
    if jnp.iscomplexobj(grad) and not jnp.iscomplexobj(sum_):
        raise InputError(
            f"accumulate: a gradient is {grad.dtype} and its parameter {sum_.dtype}, expected a "
            "real gradient: PyTorch refuses it"
        )
    own = rounded(grad, sum_.dtype)
    return rounded(sum_ + (own if share == 1 else divided(own, share)), sum_.dtype)
