"""Which one difference of a port's program gives PyTorch's loss and gradients.

The program is what `loss_fn` does, operation by operation. A number, a function, a mask, an axis or
the loss in it is replaced, and the first losses are computed from it; whether what fits is right,
the gradients decide.
"""

import functools
import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from twinstep.jax.rewriting import (
    attention,
    criteria,
    functions,
    norms,
    numbers,
    pooling,
    positions,
    terms,
)
from twinstep.jax.rewriting.program import Edit, Operation, Program, Read, Replacement, flattened
from twinstep.jax.rewriting.sites import Change, changes
from twinstep.jax.trees import Tree
from twinstep.judge import tolerance
from twinstep.trace import dtypes

SECONDS = 120.0
"""After which no more is tried."""
_PAIRED = 16
"""So many changes of an eps are tried with each other change."""
LossFn = Callable[[Tree, Any], Any]


@dataclass(frozen=True)
class Example:
    """A step: parameters and batch as loss_fn takes them, and PyTorch's loss of them."""

    params: Tree
    batch: Any
    loss: float


@dataclass(frozen=True)
class Difference:
    """says: what is replaced, in words; loss_fn: with it"""

    says: str
    loss_fn: LossFn


def differences(
    loss_fn: LossFn,
    examples: Sequence[Example],
    accepts: Callable[[LossFn], bool],
    *,
    seconds: float = SECONDS,
) -> list[Difference]:
    """Tries one difference at a time.

    Args:
        loss_fn: Of parameters and a batch, the loss, (); one that `jax.jit` takes.
        examples: Steps; those of other shapes than the first's do not count.
        accepts: Of a loss_fn that gives the losses of all examples, whether its gradients are
            PyTorch's too.
        seconds: After which no more is tried.

    Returns:
        Those that fit, at most a few; none where no single one does.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax.rewriting.search import Example, differences
        >>> x, w = jnp.array([0.3, -2.0]), {"w": jnp.array([0.5, 1.0])}
        >>> def loss(params, x):
        ...     return jnp.sum(jnp.tanh(params["w"] * x))
        >>> right = float(jnp.sum(jnp.maximum(w["w"] * x, 0)))
        >>> found = differences(loss, [Example(w, x, right)], lambda loss_fn: True)
        >>> found[0].says.partition(" in place")[0]
        'ReLU'
    """
    search = _Search(loss_fn, examples, time.monotonic() + seconds)
    if not search.fits({}):
        tried: tuple[Iterator[Iterator[Change]], ...] = (
            search.replaced(),
            search.inserted(),
            search.computed(),
            search.combined(),
        )
    elif not accepts(loss_fn):
        tried = (search.unseen(),)
    else:
        return []
    for kinds in tried:
        found: list[Difference] = []
        for kind in kinds:
            changed = (Difference(one.says, search.with_edit(one.edit)) for one in kind)
            found += itertools.islice((one for one in changed if accepts(one.loss_fn)), 1)
        if found:
            return found
    return []


def _as_it_is(operation: Operation, read: Read) -> Sequence[Any]:
    return [read(atom) for atom in operation.takes]


class _Search:
    def __init__(self, loss_fn: LossFn, examples: Sequence[Example], until: float) -> None:
        first = examples[0]
        self.program: Program = flattened(loss_fn, first.params, first.batch)
        self.until = until
        inputs = [self._leaves(one.params, one.batch) for one in examples]
        forms = [[(leaf.shape, leaf.dtype) for leaf in leaves] for leaves in inputs]
        alike = [n for n, form in enumerate(forms) if form == forms[0]]
        self.examples = [examples[n] for n in alike]
        self.inputs = [inputs[n] for n in alike]
        self.before = [self.program.values(inputs) for inputs in self.inputs]
        params = len(jax.tree.leaves(first.params))
        every = range(self.program.inputs)
        self.batch = every[params:]
        self.of_params = self.program.depending(every[:params])
        self.of_batch = self.program.depending(self.batch)
        either = zip(self.of_params, self.of_batch, strict=True)
        self.of_any = [one or other for one, other in either]
        kinds = [dtypes.name(leaf.dtype) for leaf in self.inputs[0]]
        known = [kind for kind in kinds if tolerance.eps(kind)]
        self.kind = max(known, key=tolerance.eps, default="float32")

    @staticmethod
    def _leaves(params: Tree, batch: Any) -> list[Any]:
        return [jnp.asarray(leaf) for leaf in jax.tree.leaves((params, batch))]

    def with_edit(self, edit: Edit) -> LossFn:
        """The program as a function again."""
        return lambda params, batch: self.program.edited(self._leaves(params, batch), edit)

    def fits(self, edit: Edit) -> bool:
        """Whether all losses are PyTorch's then."""
        for example, inputs, before in zip(self.examples, self.inputs, self.before, strict=True):
            try:
                loss = float(self.program.edited(inputs, edit, before))
            except (TypeError, ValueError):  # of shapes that what comes after does not take
                return False
            if not abs(loss - example.loss) <= self.allowed(example):
                return False
        return True

    def allowed(self, example: Example) -> float:
        """What rounding may do to a loss of that size, summed up in another order."""
        size = np.array([abs(example.loss)])
        return float(tolerance.plain_bound(size, np.ones(1), self.kind)[0])

    def replaced(self) -> Iterator[Iterator[Change]]:
        """Of what stands in the program, something else."""
        program, of_params = self.program, self.of_params
        yield self._solved(self._standing())
        for kind in self._functional():
            yield self._fitting(kind)
        yield self._fitting(norms.other_norms(program, of_params))
        yield self._fitting(pooling.other_pools(program, of_params))
        yield self._fitting(positions.other_paddings(program, of_params))
        yield self._fitting(positions.other_integers(program, of_params))
        yield self._fitting(positions.reversed_inputs(program, self.batch))
        yield self._fitting(terms.fewer_terms(program, of_params))

    def unseen(self) -> Iterator[Iterator[Change]]:
        """Of what no loss sees: gradients where none flow, and eps."""
        stopped: dict[int, Replacement] = {
            number: functools.partial(_as_it_is, operation)
            for number, operation in enumerate(self.program.operations)
            if operation.name == "stop_gradient"
        }
        yield self._fitting(changes(self.program, stopped, "no stop_gradient"))
        yield self._fitting(numbers.other_eps(self.program, self._standing()))

    def inserted(self) -> Iterator[Iterator[Change]]:
        """A factor, or a term, that does not stand in the program."""
        yield self._solved(numbers.factors(self.program, self.of_params))
        more = terms.more_terms(self.program, self.of_params)
        yield self._fitting(itertools.islice(more, terms.MOST))

    def computed(self) -> Iterator[Iterator[Change]]:
        """Another loss of what the network gives."""
        yield self._fitting(self._criteria())

    def _criteria(self) -> Iterator[Change]:
        loss, values = self.examples[0].loss, self.before[0]
        return criteria.other_criteria(self.program, self.of_params, self.of_batch, values, loss)

    def combined(self) -> Iterator[Iterator[Change]]:
        """Two at once: an eps, which Flax has otherwise by default, and something else."""
        yield self._fitting(self._pairs())

    def _pairs(self) -> Iterator[Change]:
        eps = numbers.other_eps(self.program, self._standing())
        small = list(itertools.islice(eps, _PAIRED))
        for kind in (*self._functional(), self._criteria()):
            for one, other in itertools.product(kind, small):
                if not one.edit.keys() & other.edit.keys():
                    yield Change(f"{one.says}, and {other.says},", {**one.edit, **other.edit})

    def _functional(self) -> Iterator[Iterator[Change]]:
        yield functions.other_functions(self.program, self.of_params)
        yield attention.other_masks(self.program, self.of_params)
        yield attention.other_axes(self.program)

    def _fitting(self, changes: Iterator[Change]) -> Iterator[Change]:
        for change in changes:
            if self.over():
                return
            if self.fits(change.edit):
                yield change

    def _standing(self) -> list[numbers.Number]:
        return numbers.standing(self.program, self.of_any, self.before[0])

    def _solved(self, of: Sequence[numbers.Number]) -> Iterator[Change]:
        runs = [
            numbers.Run(inputs, example.loss, self.allowed(example))
            for example, inputs in zip(self.examples, self.inputs, strict=True)
        ]
        return numbers.solved(self.program, of, runs, self.over)

    def over(self) -> bool:
        """Whether no more is to be tried."""
        return time.monotonic() >= self.until
