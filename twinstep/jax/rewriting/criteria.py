"""PyTorch's losses of what a program gives: which of them the recorded loss is."""

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from twinstep.jax.rewriting.program import Program
from twinstep.jax.rewriting.sites import Change, lines

_LOGITS = 6
"""How many of the last arrays of that shape are tried."""
_CLASSES = 12
"""How many labels are tried as the one that is ignored."""


def other_criteria(
    program: Program,
    dependent: Sequence[bool],
    of_batch: Sequence[bool],
    values: Sequence[Any],
    loss: float,
) -> Iterator[Change]:
    """A loss of torch.nn.functional in place of the program's own.

    dependent, of_batch: of each value, whether parameters or a batch have a part in it
    values: of the first step; loss: PyTorch's of it
    """
    result = program.result
    assert isinstance(result, int)
    own = range(len(values))
    targets = [place for place in own if of_batch[place] and not dependent[place]]
    seen: dict[Any, list[int]] = {}
    for place in targets:
        seen.setdefault((values[place].shape, values[place].dtype), []).append(place)
    for outputs in _outputs(program, dependent, values):
        made = values[outputs]
        for (shape, dtype), places in seen.items():
            for target in _different(places, values):
                integers = jnp.issubdtype(dtype, jnp.integer)
                if integers and shape == made.shape[:-1] and shape:
                    found = _of_classes(made, values[target], loss)
                elif not integers and shape == made.shape:
                    found = _of_numbers()
                else:
                    continue
                where = lines(program, [program.made_by[outputs]])
                for says, criterion in found:

                    def computed(read: Any, a: Any = (criterion, outputs, target)) -> Sequence[Any]:
                        given = a[0](read(a[1]), read(a[2]))
                        return [given.astype(program.shapes[result].dtype)]

                    edit = {program.made_by[result]: computed}
                    yield Change(f"{says} of what is given at {where}", edit)


def _outputs(program: Program, dependent: Sequence[bool], values: Sequence[Any]) -> list[int]:
    """Arrays of numbers that the loss may be of, the last ones first."""
    found: list[int] = []
    for place in range(len(values))[::-1]:
        operation = program.operations[program.made_by[place]]
        if not dependent[place] or operation.name not in (
            "add",
            "dot_general",
            "reshape",
            "transpose",
        ):
            continue
        if values[place].ndim >= 2 and jnp.issubdtype(values[place].dtype, jnp.floating):
            found.append(place)
    return found[:_LOGITS]


def _different(places: Sequence[int], values: Sequence[Any]) -> list[int]:
    """One of those that hold the same."""
    found: list[int] = []
    for place in places:
        if not any(bool((values[place] == values[other]).all()) for other in found):
            found.append(place)
    return found


Criterion = Callable[[jax.Array, jax.Array], jax.Array]


def _of_classes(
    logits: jax.Array, labels: jax.Array, loss: float
) -> Iterator[tuple[str, Criterion]]:
    """cross_entropy by its options; labels below 0 are ignored in any case, as its -100 is."""
    present = sorted({int(label) for label in labels.ravel() if 0 <= label < logits.shape[-1]})
    for ignored in (None, *present[:_CLASSES]):
        said = "" if ignored is None else f"ignore_index={ignored}"
        for reduction in ("mean", "sum", "mean of each sample's mean", "mean of each sample's sum"):
            options = [said] if said else []
            options += [] if reduction == "mean" else [reduction]
            plain = functools.partial(_cross_entropy, ignored=ignored, reduction=reduction)
            yield f"cross_entropy({', '.join(options)})", plain
            none, all_of_it = (float(plain(logits, labels, smoothing=of)) for of in (0.0, 1.0))
            smoothing = (loss - none) / (all_of_it - none) if all_of_it != none else 0.0
            if 1e-4 < smoothing < 1:
                short = float(f"{smoothing:.4g}")
                options = [*options, f"label_smoothing={short:g}"]
                smoothed = functools.partial(plain, smoothing=short)
                yield f"cross_entropy({', '.join(options)})", smoothed


def _cross_entropy(
    logits: jax.Array,
    labels: jax.Array,
    *,
    ignored: int | None,
    reduction: str,
    smoothing: float = 0.0,
) -> jax.Array:
    logs = jax.nn.log_softmax(logits)
    counts = labels >= 0 if ignored is None else (labels >= 0) & (labels != ignored)
    of_label = jnp.take_along_axis(logs, jnp.where(counts, labels, 0)[..., None], -1)[..., 0]
    each = jnp.where(counts, -(1 - smoothing) * of_label - smoothing * logs.mean(-1), 0.0)
    if reduction == "mean":
        return each.sum() / counts.sum()
    if reduction == "sum":
        return each.sum()
    of_sample = each.reshape(len(each), -1).sum(-1)
    if reduction == "mean of each sample's sum":
        return of_sample.mean()
    return (of_sample / counts.reshape(len(each), -1).sum(-1)).mean()


def _of_numbers() -> Iterator[tuple[str, Criterion]]:
    """Losses of two arrays of one shape."""

    def square(x: jax.Array, y: jax.Array) -> jax.Array:
        return (x - y) ** 2

    def smooth(x: jax.Array, y: jax.Array) -> jax.Array:
        return jnp.where(abs(x - y) < 1, (x - y) ** 2 / 2, abs(x - y) - 0.5)

    def binary(x: jax.Array, y: jax.Array) -> jax.Array:
        return jnp.maximum(x, 0) - x * y + jnp.log1p(jnp.exp(-abs(x)))

    each = {
        "mse_loss": square,
        "l1_loss": lambda x, y: abs(x - y),
        "smooth_l1_loss": smooth,
        "binary_cross_entropy_with_logits": binary,
    }
    for name, of in each.items():
        yield f"{name}()", functools.partial(_reduced, of, jnp.mean)
        yield f"{name}(reduction='sum')", functools.partial(_reduced, of, jnp.sum)


def _reduced(of: Criterion, reduce: Callable[..., Any], x: jax.Array, y: jax.Array) -> jax.Array:
    made: jax.Array = reduce(of(x, y))
    return made
