"""Whether a port trains as PyTorch does: from two recordings, and from its own functions."""

from collections.abc import Callable, Collection
from typing import Any

from twinstep.errors import InputError
from twinstep.judge.findings import Comparison
from twinstep.port import forced
from twinstep.port.mapping import Mapping
from twinstep.port.matching import match
from twinstep.port.proof import BOUND, LATER, Proof
from twinstep.port.sides import identity, lined_up
from twinstep.trace.ledger import Trace


def prove(
    torch: Trace,
    jax: Trace,
    *,
    mapping: Mapping | None = None,
    loss_fn: Callable[[Any, Any], Any] | None = None,
    step_fn: Callable[[Any, Any], Any] | None = None,
    params: Any = None,
    state: Any = None,
    batch_of: Callable[[Any], Any] | None = None,
    leaves: Collection[str] = (),
) -> Comparison:
    """Judges a port by what was recorded of it and of the PyTorch program that it is of.

    Args:
        torch: What was recorded of the PyTorch program.
        jax: What was recorded of the port, from the same parameters and batches.
        mapping: Which of PyTorch's entries each leaf of the port is, as `match` finds it; None:
            found by the values.
        loss_fn: The port's `loss_fn(params, batch) -> loss`, (): then loss and gradients are judged
            at every step, made from PyTorch's recorded parameters, and where the first are not
            PyTorch's, what of it would have to be otherwise is searched for.
        step_fn: The port's `step_fn(state, batch) -> (state, loss)`, as a scan's body: then every
            step is, and the optimizer may be any.
        params: The parameters that loss_fn takes, of any values; None: nested dicts of the leaves'
            names.
        state: The state before the first step that step_fn takes, (params, ...).
        batch_of: Makes of a batch that PyTorch recorded, {name: array}, the one that these take;
            None: it is as the port recorded it.
        leaves: Patterns of PyTorch's names, as "blocks.0.*", of those that are judged; none: all.

    Returns:
        The verdict; the first step, stage and leaf that is off, by PyTorch's name.

    Raises:
        InputError: For recordings that cannot be compared: without raw gradients, of other batches,
            of another number of updates, dtype or precision; a mapping that does not fit; and a
            function that raises, or gives what it should not.

    Example:
        >>> import twinstep
        >>> spec = twinstep.examples()["zero_grad"](dtype="float64")
        >>> sides = [twinstep.run(spec, framework=name) for name in ("torch", "jax")]
        >>> print(twinstep.prove(*sides).verdict)
        rounding

    Source: https://docs.pytorch.org/docs/stable/optim.html
    """
    proof = proved(torch, jax, mapping, leaves)
    if loss_fn is not None:
        forced.judge_loss(proof, loss_fn, params, batch_of)
        first = proof.first
        if first is not None and first.step == 1 and first.stage in ("loss", "raw_grads"):
            given = proof, loss_fn, params, batch_of
            proof.said = forced.layouts(*given) or forced.differences(*given)
    if step_fn is not None:
        if state is None:
            raise InputError("step_fn is given, expected the state before the first step with it")
        forced.judge_steps(proof, step_fn, state, batch_of)
        proof.unjudged = {}
    if loss_fn or step_fn:
        proof.notes = [note for note in proof.notes if note != LATER]
    return proof.comparison(forced.BOUND if loss_fn or step_fn else BOUND)


def proved(
    torch: Trace, jax: Trace, mapping: Mapping | None = None, leaves: Collection[str] = ()
) -> Proof:
    """What two recordings prove by themselves."""
    one, other = lined_up(torch, jax, mapping or found_mapping(torch, jax))
    proof = Proof(one, other, leaves)
    proof.from_traces()
    return proof


def found_mapping(torch: Trace, jax: Trace) -> Mapping | None:
    """By the leaves' values. InputError where that leaves something open."""
    if identity(torch, jax):
        return None
    found = match(torch, jax)
    if not found.complete:
        line = next(line for line in found.lines() if line.startswith("open"))
        raise InputError(
            f"{line.removeprefix('open: ')}: which leaf is which is not certain; see twinstep "
            "match, and give its map"
        )
    return found.mapping
