"""How far an eps in the numbers that a step's loss and gradients are made of moves them.

A gradient is a mean over samples that may cancel to nothing: it rounds like its terms, and as far
as forward and backward pass carry rounding on. Both are measured on the step itself, as amounts
and not as sizes: eps times a size is a number where the size itself may overflow.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from twinstep.jax import carried
from twinstep.judge import tolerance
from twinstep.trace.stages import STAGES

RoundingScale = dict[str, jax.Array]

# So many gradient entries, of all samples together, are cheap to measure in every step.
CHEAP = 2**17
_PERTURBATION = 16  # eps: enough not to be rounded away, little enough for a first order
_MIN_SAMPLES = 8  # of a large model, evenly spread


class Evaluated(NamedTuple):
    """What a batch comes to, by PyTorch's names. loss: ()"""

    loss: jax.Array
    grads: RoundingScale
    buffers: RoundingScale


def made(ledger: Mapping[str, Any]) -> Evaluated:
    """What a step has left in the ledger."""
    return Evaluated(ledger["loss"], ledger["raw_grads"], ledger["buffers"])


class Step(Protocol):
    """What is measured: losses and gradients of an example, at parameters and a batch of choice."""

    @property
    def layout(self) -> Any:
        """How parameters go by PyTorch's names."""

    @property
    def separable(self) -> bool:
        """Whether a sample alone is a batch."""

    def loss_and_grads(self, params: Any, batch: Any, rest: Any = None) -> Evaluated:
        """Loss, gradients and buffers."""


class Unit(NamedTuple):
    """What is judged rounds by: numbers, not constants, so that one program serves all dtypes.

    eps: of the dtype that is judged, whatever the one that measures
    max_distance: how far perturbed parameters may be said to move a value, as a part of what it is
        made of
    """

    eps: Any
    max_distance: Any


def unit(judged: str, measures: str) -> Unit:
    """The unit of a run in dtype `judged`, measured by the program in dtype `measures`."""
    return Unit(
        np.asarray(tolerance.eps(judged), measures),
        np.asarray(tolerance.max_perturbation_share(judged, measures), measures),
    )


def measured_if_cheap(
    step: "Step", state: Any, batch: Any, made: Evaluated, unit: Unit
) -> RoundingScale:
    """`measured` where that costs little beside the step, else `apparent`."""
    if _samples(batch) * _entries(state[0]) <= CHEAP:
        return measured(step, state, batch, made, unit)
    return apparent(made, unit)


def apparent(made: Evaluated, unit: Unit) -> RoundingScale:
    """{"loss/loss": (), "raw_grads/name": ()}: the largest entries, below what is `measured`."""
    found = {"loss/loss": jnp.abs(made.loss)}
    found |= {f"raw_grads/{name}": _largest(grad) for name, grad in made.grads.items()}
    found |= {f"buffers/{name}": _largest(buffer) for name, buffer in _rounded(made.buffers)}
    return {name: unit.eps * size for name, size in found.items()}


def measured(step: "Step", state: Any, batch: Any, made: Evaluated, unit: Unit) -> RoundingScale:
    """{"loss/loss": (), "raw_grads/name": ()}: how far an eps of what they are made of moves them.

    state: as the step found it; made: what it made of it
    loss: by itself, by what moving each parameter by its own size would change (to first order),
        and by how far it moves when each parameter moves by one eps
    grads: by the largest entry or mean absolute per-sample term, and how far they move likewise
    buffers: by the largest entry, and how far they move likewise
    """
    params, rest = state[0], carried.rest(state)

    def sample_term(samples: jax.Array) -> RoundingScale:
        part = tuple(a[samples] for a in batch) if step.separable else batch
        return step.loss_and_grads(params, part, rest).grads

    terms = jax.vmap(sample_term)(_terms(step.separable, params, batch))
    sizes = jax.tree.map(lambda t: jnp.mean(unit.eps * jnp.abs(t), axis=0), terms)
    here = step.loss_and_grads(params, batch, rest)
    moves = [
        jax.tree.map(
            lambda a, b: jnp.abs(b - a) / _PERTURBATION, here, step.loss_and_grads(off, batch, rest)
        )
        for off in _perturbed(params, unit)
    ]
    moved = jax.tree.map(jnp.maximum, *moves)
    named = step.layout.to_torch(params)
    made_of = unit.eps * jnp.abs(made.loss) + _norm([sizes[name] * named[name] for name in named])
    rounding_scale = {"loss/loss": made_of + _capped(moved.loss, made_of, "loss", unit)}
    for name in made.grads:
        grad, size, move = (_largest(leaves[name]) for leaves in (made.grads, sizes, moved.grads))
        made_of = jnp.maximum(unit.eps * grad, size)
        rounding_scale[f"raw_grads/{name}"] = made_of + _capped(move, made_of, "raw_grads", unit)
    for name, buffer in _rounded(made.buffers):
        made_of, move = unit.eps * _largest(buffer), _largest(moved.buffers[name])
        rounding_scale[f"buffers/{name}"] = made_of + _capped(move, made_of, "buffers", unit)
    return rounding_scale


def of_outputs(
    evaluate: Callable[[Any], jax.Array], params: Any, outputs: jax.Array, unit: Unit
) -> jax.Array:
    """How far an eps of what they are made of moves outputs, by which samples are named, ().

    evaluate: the outputs at some parameters; outputs: those at `params`
    """
    moves = [
        _largest(evaluate(perturbed) - outputs) / _PERTURBATION
        for perturbed in _perturbed(params, unit)
    ]
    made_of = unit.eps * _largest(outputs)
    moved: jax.Array = made_of + _capped(jnp.maximum(*moves), made_of, "evaluation", unit)
    return moved


def _rounded(buffers: RoundingScale) -> list[tuple[str, jax.Array]]:
    """Those that are computed: not what is counted."""
    return [(n, a) for n, a in buffers.items() if jnp.issubdtype(a.dtype, jnp.inexact)]


def _capped(move: jax.Array, made_of: jax.Array, stage: str, unit: Unit) -> jax.Array:
    """At most so much that the allowance it adds is `unit.most` of what is rounded."""
    max_distance = unit.max_distance / STAGES[stage].one_step
    return jnp.minimum(move, max_distance * (made_of / unit.eps))


def _norm(leaves: list[jax.Array]) -> jax.Array:
    """The root of the sum of squares, where a square may be no number though its root is one."""
    top = jnp.max(jnp.stack([_largest(leaf) for leaf in leaves]))
    top = jnp.where(top > 0, top, 1)
    return top * jnp.sqrt(sum(jnp.sum(jnp.square(leaf / top)) for leaf in leaves))


def _samples(batch: Any) -> int:
    return len(batch[0])


def _entries(params: Any) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(params))


def _terms(separable: bool, params: Any, batch: Any) -> jax.Array:
    """(terms, samples of each): the samples that are looked at one by one, or all at once."""
    samples = _samples(batch)
    if not separable:
        return jnp.arange(samples)[None]
    count = min(samples, max(_MIN_SAMPLES, CHEAP // _entries(params)))
    return jnp.asarray(np.linspace(0, samples - 1, count).astype(int)[:, None])


def _perturbed(params: Any, unit: Unit) -> Iterator[Any]:
    """Twice: every parameter up or down by _PERTURBATION of itself, in eps.

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
                leaf * (1 + unit.eps * jnp.asarray(flip**i * sign * _PERTURBATION, leaf.dtype))
                for i, (leaf, sign) in enumerate(zip(leaves, first, strict=True))
            ],
        )


def _largest(array: jax.Array) -> jax.Array:
    return jnp.max(jnp.abs(array), initial=0)
