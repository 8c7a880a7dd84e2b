"""A port's own loss or step, judged at every step of PyTorch's recording: teacher forcing."""

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from twinstep.errors import InputError
from twinstep.judge import tolerance
from twinstep.port.judging_updates import of_corrections, owner_of
from twinstep.port.mapping import Mapping
from twinstep.port.proof import Proof
from twinstep.runs import launch
from twinstep.trace import dtypes
from twinstep.trace.ledger import Trace
from twinstep.trace.stages import STAGES

BOUND = "each step from PyTorch's recorded parameters: rounding measured by perturbed reruns"
_MUCH = 0.5
"""Rounding that moves a leaf by so much of its own update hides whether that is right."""
_EXAMPLES = 3
"""Steps whose losses a difference has to explain."""

Batches = Callable[[Any], Any] | None
"""Makes of a batch as PyTorch recorded it what the port takes; None: as the port recorded it."""


@dataclass(frozen=True)
class _Held:
    """One array of PyTorch's at one step, and the port's, and how far off that may be."""

    stage: str
    leaf: str
    number: int
    theirs: np.ndarray
    ours: np.ndarray
    allowed: float

    @property
    def fits(self) -> bool:
        """Whether no entry is further off."""
        gap = np.abs(dtypes.numbers(self.theirs) - dtypes.numbers(self.ours))
        return bool((gap <= self.allowed).all())


def judge_loss(
    proof: Proof, loss_fn: Callable[[Any, Any], Any], params: Any, batch_of: Batches = None
) -> None:
    """Holds loss and gradients of every step against PyTorch's."""
    for held in _losses_held(proof, loss_fn, params, _batches(proof, batch_of)):
        _hold(proof, held)


def _losses_held(
    proof: Proof, loss_fn: Callable[[Any, Any], Any], params: Any, batches: list[Any]
) -> Iterator[_Held]:
    """Loss and gradients of the steps that these batches are of, and PyTorch's."""
    torch, mapping = proof.torch.trace, proof.jax.mapping
    starts = itertools.islice(_params(torch, mapping), len(batches))
    made = launch.forcing().losses_and_gradients(
        loss_fn, params, starts, batches, torch.metadata.dtype
    )
    factor = proof.loss_factor
    for number, step in enumerate(made):
        loss = step.loss / factor, step.noise["loss"] / factor
        yield _held(proof, "loss", "loss", number, torch.losses[number], *loss)
        found, noise = _in_torch(step.found, step.noise, mapping, gradients=True)
        for leaf, array in found.items():
            rows = proof.torch.rows("raw_grads", leaf)
            if rows is not None and number in (steps := rows.steps.tolist()):
                theirs = rows.array[steps.index(number)]
                yield _held(proof, "raw_grads", leaf, number, theirs, array, noise[leaf])


def differences(
    proof: Proof, loss_fn: Callable[[Any, Any], Any], params: Any, batch_of: Batches = None
) -> list[str]:
    """What of the port's program would have to be otherwise, in words.

    With it all gradients of the first step, and the losses of some, are PyTorch's.
    """
    search, first = launch.program_search(), _batches(proof, batch_of)[:1]

    def accepts(changed: Callable[[Any, Any], Any]) -> bool:
        return all(held.fits for held in _losses_held(proof, changed, params, first))

    if accepts(loss_fn):
        proof.notes.append(
            "loss_fn itself makes PyTorch's first loss and gradients: the recorded run did more"
        )
        return []
    with launch.forcing().in_dtype(proof.torch.trace.metadata.dtype):
        examples = [search.Example(*one) for one in _examples(proof, params, batch_of)]
        try:
            found = search.differences(loss_fn, examples, accepts)
        except Exception as error:  # the verdict stands without
            said = (str(error).strip().splitlines() or [""])[0]
            proof.notes.append(f"loss_fn was not taken apart: {type(error).__name__}: {said}")
            return []
    if not found:
        proof.notes.append("of what was tried in loss_fn no one difference makes it PyTorch's")
    return [f"with {one.says} loss and gradients are PyTorch's" for one in found]


def _examples(proof: Proof, params: Any, batch_of: Batches) -> Iterator[tuple[Any, Any, float]]:
    """Parameters and batch of the first steps as the port takes them, and PyTorch's losses."""
    starts = _params(proof.torch.trace, proof.jax.mapping)
    losses = proof.torch.trace.losses * proof.loss_factor
    batches = _batches(proof, batch_of)[:_EXAMPLES]
    for batch, named, loss in zip(batches, starts, losses, strict=False):
        yield launch.forcing().tree_of(params, named), batch, float(loss)


def layouts(
    proof: Proof, loss_fn: Callable[[Any, Any], Any], params: Any, batch_of: Batches = None
) -> list[str]:
    """Other layouts of the port's start that make its first losses PyTorch's, in words.

    A layout that is wrong in every layer is odd in none: only the loss tells.
    """
    with launch.forcing().in_dtype(proof.torch.trace.metadata.dtype):
        first, *later = _examples(proof, params, batch_of)
        found = launch.layout_search().repairs(loss_fn, *first, later=later)
    return [
        f"with {' and '.join(repair.leaves)} changed ({repair.says}) the losses are PyTorch's"
        for repair in found
    ]


def judge_steps(
    proof: Proof, step_fn: Callable[[Any, Any], Any], state: Any, batch_of: Batches = None
) -> None:
    """Holds loss and parameters of every step against PyTorch's."""
    torch, mapping = proof.torch.trace, proof.jax.mapping
    made = launch.forcing().forced_steps(
        step_fn, state, _params(torch, mapping), _batches(proof, batch_of), torch.metadata.dtype
    )
    factor, unseen, shares = proof.loss_factor, set(), dict[str, np.ndarray]()
    for number, step in enumerate(made):
        loss = step.loss / factor, step.noise["loss"] / factor
        _hold(proof, _held(proof, "loss", "loss", number, torch.losses[number], *loss))
        found, noise = _in_torch(step.found, step.noise, mapping, gradients=False)
        for leaf, array in found.items():
            before, after = torch.params[leaf][number : number + 2]
            move = float(np.abs(dtypes.numbers(after - before)).max(initial=0))
            if leaf not in shares:
                shares[leaf] = _of_corrections(proof, leaf)
            lost = tolerance.eps(dtypes.name(after.dtype)) * shares[leaf][number] * move
            _hold(proof, _held(proof, "params", leaf, number, after, array, noise[leaf], lost))
            if tolerance.ROUNDING_NOISE_FACTOR * noise[leaf] > _MUCH * move > 0:
                unseen.add(leaf)
    if unseen:
        names = sorted(unseen)
        more = f" and {len(names) - 1} leaves more" if names[1:] else ""
        proof.notes.append(
            f"rounding moves the update of {names[0]}{more} as far as the update itself: whether "
            "step_fn makes it right is not seen"
        )


def _of_corrections(proof: Proof, leaf: str) -> np.ndarray:
    """(T,) by how many eps a bias correction that is made in the run's dtype may be off."""
    steps = np.arange(len(proof.torch.trace))
    owner = owner_of(proof.torch, leaf, steps)
    if isinstance(owner, str):
        return np.zeros(len(steps))
    return of_corrections(owner.settings, steps == 0)


def _held(
    proof: Proof,
    stage: str,
    leaf: str,
    number: int,
    theirs: np.ndarray,
    ours: np.ndarray,
    noise: float,
    lost: float = 0.0,
) -> _Held:
    """lost: what rounding takes beside what the reruns show, for they all round so"""
    one, other = np.asarray(theirs), np.asarray(ours)
    kind = tolerance.precision(proof.torch.trace, stage, one)
    size = max(float(np.abs(dtypes.numbers(array)).max(initial=0)) for array in (one, other))
    allowed = STAGES[stage].one_step * tolerance.eps(kind) * size
    allowed += tolerance.ROUNDING_NOISE_FACTOR * noise + lost + tolerance.floor(kind)
    return _Held(stage, leaf, number, one, other, allowed)


def _hold(proof: Proof, held: _Held) -> None:
    both = held.theirs[None], held.ours[None]
    steps, allowed = np.array([held.number]), np.array([held.allowed])
    proof.hold("gate", held.stage, held.leaf, steps, both, allowed)


def _params(torch: Trace, mapping: Mapping | None) -> Iterator[dict[str, np.ndarray]]:
    """The port's leaves, of PyTorch's parameters before each step."""
    for name in torch.params:
        if (rows := len(torch.steps_of("params", name))) != len(torch):
            raise InputError(
                f"params, {name}: {rows} of {len(torch)} updates are of it, expected all: step_fn "
                "and loss_fn make all of the parameters at once"
            )
    for number in range(len(torch)):
        named = {name: array[number] for name, array in torch.params.items()}
        yield named if mapping is None else _leaves(mapping, named)


def _leaves(mapping: Mapping, named: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name: np.asarray(array) for name, array in mapping.to_jax(named).items()}


def _batches(proof: Proof, batch_of: Batches) -> list[Any]:
    """What each step was made on, as the port takes it."""
    torch, jax = proof.torch.trace, proof.jax.trace
    if batch_of is not None:
        return [batch_of(torch.inputs_of(step)) for step in range(len(torch))]
    if not jax.batch or not all(name in jax.inputs for name in jax.batch):
        raise InputError(
            "the port's trace has no values of its batches, expected them or batch_of, which makes "
            "them of PyTorch's"
        )
    # of an argument `batch` that is {"x": ..., "y": ...} they are called batch.x and batch.y
    above = {name.partition(".")[0] for name in jax.batch if "." in name}
    shared = f"{above.pop()}." if len(above) == 1 else ""
    inside = all(name.startswith(shared) for name in jax.batch)
    return [
        {name.removeprefix(shared) if inside else name: a for name, a in jax.inputs_of(t).items()}
        for t in range(len(jax))
    ]


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
