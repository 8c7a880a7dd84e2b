"""How large the numbers are that a step's loss and gradients are made of, and so how they round.

A gradient is a mean over samples that may cancel to nothing: it rounds like its terms, and as far
as forward and backward pass carry rounding on. Both are measured on the step itself.
"""

from collections.abc import Iterator
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from jax_impl.state import Batch, TrainState

Scales = dict[str, jax.Array]

# So many gradient entries, of all samples together, are cheap to measure in every step.
CHEAP = 2**17
_NUDGE = 16  # eps: enough not to be rounded away, little enough for a first order
_FEWEST_SAMPLES = 8  # of a large model, evenly spread


def affordable(
    example: ModuleType, state: TrainState, batch: Batch, loss: jax.Array, grads: Any
) -> Scales:
    """`measured` where that costs little beside the step, else `apparent`."""
    if _samples(batch) * _entries(state) <= CHEAP:
        return measured(example, state, batch, loss, grads)
    return apparent(state, loss, grads)


def apparent(state: TrainState, loss: jax.Array, grads: Any) -> Scales:
    """{"loss/loss": (), "grads/name": ()}: the largest entries, below what `measured` finds."""
    named = state.layout.to_torch(grads).items()
    return {"loss/loss": jnp.abs(loss)} | {f"grads/{n}": _largest(grad) for n, grad in named}


def measured(
    example: ModuleType, state: TrainState, batch: Batch, loss: jax.Array, grads: Any
) -> Scales:
    """{"loss/loss": (), "grads/name": ()}: sizes whose eps the entries round by.

    state: as the step found it; loss and grads: what it made of it
    loss: itself, what moving each parameter by its own size would change (to first order), and
        how far it moves, in eps, when each parameter moves by one eps
    grads: the largest entry or mean absolute per-sample term, and how far they move likewise
    """
    unit = jnp.finfo(jnp.result_type(loss)).eps

    def loss_and_grad(params: Any, batch: Batch) -> Any:
        def loss_of(params: Any) -> jax.Array:
            return example.loss_fn(nnx.merge(state.graph, params), state.criterion, batch)

        return jax.value_and_grad(loss_of)(params)

    def sample_term(index: jax.Array) -> Any:
        return loss_and_grad(state.params, {name: a[index][None] for name, a in batch.items()})[1]

    terms = jax.vmap(sample_term)(_chosen(state, batch))
    sizes = jax.tree.map(lambda t: jnp.mean(jnp.abs(t), axis=0), terms)
    here = loss_and_grad(state.params, batch)
    moves = [
        jax.tree.map(
            lambda a, b: jnp.abs(b - a) / (_NUDGE * unit), here, loss_and_grad(nudged, batch)
        )
        for nudged in _nudged(state.params)
    ]
    loss_move, grad_move = jax.tree.map(jnp.maximum, *moves)
    pairs = zip(jax.tree.leaves(sizes), jax.tree.leaves(state.params), strict=True)
    first_order = jnp.sqrt(sum(jnp.sum(jnp.square(size * param)) for size, param in pairs))
    scales = {"loss/loss": jnp.abs(loss) + first_order + loss_move}
    named = [state.layout.to_torch(tree) for tree in (grads, sizes, grad_move)]
    for name in named[0]:
        grad, size, move = (_largest(leaves[name]) for leaves in named)
        scales[f"grads/{name}"] = jnp.maximum(grad, size) + move
    return scales


def _samples(batch: Batch) -> int:
    return len(next(iter(batch.values())))


def _entries(state: TrainState) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(state.params))


def _chosen(state: TrainState, batch: Batch) -> jax.Array:
    """The numbers of the samples whose terms are looked at one by one."""
    samples = _samples(batch)
    count = min(samples, max(_FEWEST_SAMPLES, CHEAP // _entries(state)))
    return jnp.asarray(np.linspace(0, samples - 1, count).astype(int))


def _nudged(params: Any) -> Iterator[Any]:
    """Twice: every parameter up or down by _NUDGE of itself, in eps.

    The second time every other tensor the other way, so that what cancels in the one (w x against
    b) adds up in the other.
    """
    leaves, treedef = jax.tree.flatten(params)
    signs = np.random.RandomState(0)
    first = [signs.choice([-1, 1], leaf.shape) for leaf in leaves]
    for flip in (1, -1):
        yield jax.tree.unflatten(
            treedef,
            [
                leaf
                * jnp.asarray(1 + flip**i * sign * _NUDGE * jnp.finfo(leaf.dtype).eps, leaf.dtype)
                for i, (leaf, sign) in enumerate(zip(leaves, first, strict=True))
            ],
        )


def _largest(array: jax.Array) -> jax.Array:
    return jnp.max(jnp.abs(array), initial=0)
