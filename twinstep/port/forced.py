"""A port's own loss or step, judged at every step of PyTorch's recording: teacher forcing."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from twinstep.errors import InputError
from twinstep.judge import tolerance
from twinstep.port.mapping import Mapping
from twinstep.port.proof import Proof
from twinstep.runs import launch
from twinstep.trace import dtypes
from twinstep.trace.ledger import Trace
from twinstep.trace.stages import STAGES

BOUND = "each step from PyTorch's recorded parameters: rounding measured by perturbed reruns"
_MUCH = 0.5
"""Rounding that moves a leaf by so much of its own update hides whether that is right."""


def judge_loss(proof: Proof, loss_fn: Callable[[Any, Any], Any], params: Any) -> None:
    """Holds loss and gradients of every step against PyTorch's."""
    torch, mapping = proof.torch.trace, proof.jax.mapping
    made = launch.forcing().losses_and_gradients(
        loss_fn, params, _params(torch, mapping), _batches(proof), torch.metadata.dtype
    )
    factor = proof.loss_factor
    for number, step in enumerate(made):
        loss = step.loss / factor, step.noise["loss"] / factor
        _hold(proof, "loss", "loss", number, torch.losses[number], *loss)
        found, noise = _in_torch(step.found, step.noise, mapping, gradients=True)
        for leaf, array in found.items():
            rows = proof.torch.rows("raw_grads", leaf)
            if rows is not None and number in (steps := rows.steps.tolist()):
                theirs = rows.array[steps.index(number)]
                _hold(proof, "raw_grads", leaf, number, theirs, array, noise[leaf])


def judge_steps(proof: Proof, step_fn: Callable[[Any, Any], Any], state: Any) -> None:
    """Holds loss and parameters of every step against PyTorch's."""
    torch, mapping = proof.torch.trace, proof.jax.mapping
    made = launch.forcing().forced_steps(
        step_fn, state, _params(torch, mapping), _batches(proof), torch.metadata.dtype
    )
    factor, unseen = proof.loss_factor, set()
    for number, step in enumerate(made):
        loss = step.loss / factor, step.noise["loss"] / factor
        _hold(proof, "loss", "loss", number, torch.losses[number], *loss)
        found, noise = _in_torch(step.found, step.noise, mapping, gradients=False)
        for leaf, array in found.items():
            before, after = torch.params[leaf][number : number + 2]
            _hold(proof, "params", leaf, number, after, array, noise[leaf])
            move = float(np.abs(dtypes.numbers(after - before)).max(initial=0))
            if tolerance.ROUNDING_NOISE_FACTOR * noise[leaf] > _MUCH * move > 0:
                unseen.add(leaf)
    if unseen:
        names = sorted(unseen)
        more = f" and {len(names) - 1} leaves more" if names[1:] else ""
        proof.notes.append(
            f"rounding moves the update of {names[0]}{more} as far as the update itself: whether "
            "step_fn makes it right is not seen"
        )


def _hold(
    proof: Proof,
    stage: str,
    leaf: str,
    number: int,
    theirs: np.ndarray,
    ours: np.ndarray,
    noise: float,
) -> None:
    one, other = np.asarray(theirs)[None], np.asarray(ours)[None]
    kind = tolerance.precision(proof.torch.trace, stage, one)
    size = max(float(np.abs(dtypes.numbers(array)).max(initial=0)) for array in (one, other))
    allowed = STAGES[stage].one_step * tolerance.eps(kind) * size
    allowed += tolerance.ROUNDING_NOISE_FACTOR * noise + tolerance.floor(kind)
    proof.hold("gate", stage, leaf, np.array([number]), (one, other), np.array([allowed]))


def _params(torch: Trace, mapping: Mapping | None) -> Iterator[dict[str, np.ndarray]]:
    """The port's leaves, of PyTorch's parameters before each step."""
    for number in range(len(torch)):
        named = {name: array[number] for name, array in torch.params.items()}
        yield named if mapping is None else _leaves(mapping, named)


def _leaves(mapping: Mapping, named: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name: np.asarray(array) for name, array in mapping.to_jax(named).items()}


def _batches(proof: Proof) -> list[Any]:
    """What each step was made on, as the port lays it out if its recording has it."""
    for trace in (proof.jax.trace, proof.torch.trace):
        if trace.batch and all(name in trace.inputs for name in trace.batch):
            return [trace.inputs_of(step) for step in range(len(trace))]
    raise InputError("neither trace has the values of the batches, expected them for step_fn")


def _in_torch(
    found: dict[str, np.ndarray], noise: dict[str, float], mapping: Mapping | None, gradients: bool
) -> tuple[dict[str, np.ndarray], dict[str, float]]:
    """Arrays by PyTorch's names, and the noise of what each is made of."""
    if mapping is None:
        return found, noise
    named = mapping.to_torch(found, gradients=gradients)
    of_leaf: dict[str, float] = {}
    for own, pieces in mapping.leaves.items():
        for piece in pieces:
            of_leaf[piece.of] = max(of_leaf.get(piece.of, 0.0), noise.get(own, 0.0))
    return named, of_leaf
