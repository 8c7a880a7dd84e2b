"""Whether a port's optimizer does what PyTorch's would have done with the port's own gradients.

PyTorch's rule (the kit's), with the hyper-parameters that its groups had at each update and the
clipping that was seen, is made again from the port's recorded parameters and gradients. Rounding is
measured: the rule is run again with every hyper-parameter off by an eps of the port's dtype, and in
that dtype.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np

from twinstep.judge import measure
from twinstep.judge.tolerance import ROUNDING_NOISE_FACTOR, WELL_EXPLAINED
from twinstep.port import clipping
from twinstep.port.groups import groups_of
from twinstep.port.sides import Side
from twinstep.port.updates import Clipping, Updates
from twinstep.trace import dtypes
from twinstep.trace.leaves import ReadLeaves
from twinstep.trace.ledger import Trace
from twinstep.trace.stages import STAGES

CLIPPING_EPS = 8.0
"""By how much a norm of many entries may be off, in eps: so are the gradients that it scales."""
SUMMED_EPS = 2.0
"""By how much an entry of a sum of several gradients may be off, in eps of the leaf's largest:
their terms may cancel, and XLA may add them up otherwise than the recorder."""
NOBODY = "no optimizer of it is known"
"""Why a leaf's updates may be known all the same: where PyTorch has none of it, it stays."""


@dataclass(frozen=True)
class Judged:
    """A leaf's updates: what the rule makes, what the port made, how far apart they may be.

    steps: (T,) the port's steps, from 0; rule, port: (T, ...); allowed: (T,)
    """

    steps: np.ndarray
    rule: np.ndarray
    port: np.ndarray
    allowed: np.ndarray


@dataclass(frozen=True)
class Owner:
    """The optimizer that updates a leaf, as PyTorch's recording has it."""

    name: str
    rule: str
    settings: Mapping[str, np.ndarray]


def owner_of(side: Side, leaf: str, steps: np.ndarray) -> Owner | str:
    """A leaf's optimizer and its hyper-parameters at these steps; or why it is not known."""
    trace = side.trace
    optimizers = trace.program.get("optimizers", {})
    owners = [
        (name, number)
        for name, one in optimizers.items()
        for number, group in enumerate(one.get("groups", ()))
        if leaf in group
    ]
    if len(owners) != 1:
        return NOBODY if not owners else "it has several optimizers"
    name, number = owners[0]
    prefix = f"{number}." if f"{number}.lr" in trace.hyper_parameters else f"{name}.{number}."
    found = {}
    for key, values in trace.hyper_parameters.items():
        if key.startswith(prefix):
            at = trace.steps_of("hyper_parameters", key)
            place = np.searchsorted(at, steps)
            if (place >= len(at)).any() or not np.array_equal(at[place], steps):
                return "its hyper-parameters are not known at every update"
            found[key.removeprefix(prefix)] = values[place]
    return Owner(name, optimizers[name]["class"], found)


def updates_of(torch: Side, jax: Side, leaves: list[str]) -> tuple[list[Updates], dict[str, str]]:
    """(each optimizer's `Updates`, {leaf: why its updates cannot be judged}).

    Arrays are read when they are asked for: a model may be larger than the memory.
    """
    groups: dict[str, dict[str, Owner]] = {}
    skipped: dict[str, str] = {}
    for leaf in leaves:
        mine = torch.steps("params", leaf)
        if mine is None or not len(mine):
            continue
        owner = owner_of(torch, leaf, mine)
        if isinstance(owner, str):
            skipped[leaf] = owner
        elif why := _without_gradients(torch, jax, leaf, len(mine)):
            skipped[leaf] = why
        else:
            groups.setdefault(owner.name, {})[leaf] = owner
    made = []
    for owners in groups.values():
        clipped = clipping.seen(torch.trace, owners)
        counts = {len(next(iter(owner.settings.values()), ())) for owner in owners.values()}
        if isinstance(clipped, str):
            skipped |= dict.fromkeys(owners, "PyTorch changes its gradients in an unknown way")
        elif len(counts) > 1:
            why = "the leaves of its optimizer have not as many updates each"
            skipped |= dict.fromkeys(owners, why)
        else:
            made.append(_updates(torch, jax, owners, clipped))
    return made, skipped


def _without_gradients(torch: Side, jax: Side, leaf: str, updates: int) -> str | None:
    """Which side has not a raw gradient of a leaf at every update; None: both have."""
    for which, side in (("the port", jax), ("PyTorch", torch)):
        steps = side.steps("raw_grads", leaf)
        if steps is None or len(steps) != updates:
            return f"{which} has no raw gradient of it at every update"
    return None


def _updates(
    torch: Side, jax: Side, owners: Mapping[str, Owner], clipped: Clipping | None
) -> Updates:
    def read(stage: str, leaf: str) -> np.ndarray:
        rows = jax.rows(stage, leaf)
        assert rows is not None
        return dtypes.numbers(rows.array)

    grads = ReadLeaves({leaf: partial(read, "raw_grads", leaf) for leaf in owners})
    norm = None
    if clipped is not None and clipped.kind == "norm":
        steps = len(next(iter(grads.values())))
        every = dict.fromkeys(owners, np.arange(steps))
        norm = clipping.norms(grads, every, steps, clipped.norm_type)
    return Updates(
        rule=next(iter(owners.values())).rule,
        settings={leaf: owner.settings for leaf, owner in owners.items()},
        grads=grads,
        params=ReadLeaves({leaf: partial(read, "params", leaf) for leaf in owners}),
        clipping=clipped,
        norms=norm,
        passes=_passes(torch.trace),
        unsure=_passes(jax.trace) > 1,
        groups=groups_of(jax, [*owners]),
    )


def _passes(trace: Trace) -> int:
    """How many backward passes each update sums; 1 where that is not the same at each."""
    if "loss" not in trace.micro_losses:
        return 1
    counts = np.bincount(trace.steps_of("micro_losses", "loss") - trace.start, minlength=len(trace))
    return int(counts[0]) if counts[0] and (counts == counts[0]).all() else 1


def given(updates: Updates, leaf: str) -> np.ndarray:
    """(T, ...), the gradients as PyTorch's optimizer would be given them, in float64."""
    grads: np.ndarray = updates.grads[leaf].astype(float)
    clipped = updates.clipping
    if clipped is None:
        return grads
    if clipped.kind == "value":
        return grads.clip(-clipped.limit, clipped.limit)
    assert updates.norms is not None
    factors = clipping.coefficients(clipped, updates.norms)
    grads = grads * factors.reshape(-1, *(1,) * (grads.ndim - 1))
    return grads


def judged(
    updates: Updates,
    leaf: str,
    kind: str,
    before: np.ndarray,
    renewed: np.ndarray,
    steps: np.ndarray,
    updated: Callable[..., np.ndarray],
    careful: bool = False,
) -> Judged:
    """One leaf's updates against the rule's.

    kind: the leaf's dtype; before: (T, ...) its values before each update; renewed: (T,)
    updated: `twinstep.jax.rules.updated`; careful: whether rounding is measured in any case, and
    not only where a plain amount of it does not well explain what is apart
    """
    eps = dtypes.precision(kind).eps
    settings, grads = updates.settings[leaf], given(updates, leaf)
    port = updates.params[leaf][1:].astype(float)
    before = before.astype(float)
    rule = updated(updates.rule, settings, grads, before, renewed)
    moved = measure.differences(rule, before)
    sizes = np.maximum(measure.largest(before), measure.largest(rule))
    allowed = STAGES["params"].one_step * eps * np.maximum(sizes, np.maximum.accumulate(moved))
    allowed = allowed + eps * of_corrections(settings, renewed) * moved
    if not careful and (measure.differences(port, rule) <= WELL_EXPLAINED * allowed).all():
        return Judged(steps, rule, port, allowed)
    if updates.unsure:
        rule = _toward(
            port,
            rule,
            grads,
            eps,
            lambda given: updated(updates.rule, settings, given, before, renewed),
        )
    noise = np.zeros(len(rule))
    runs = [
        updated(updates.rule, off, grads * scale, before, renewed)
        for off, scale in _perturbed(settings, eps, updates.clipping is not None)
    ]
    if kind != "float64":
        runs.append(updated(updates.rule, settings, grads, before, renewed, kind))
    for run in runs:
        noise = np.maximum(noise, measure.differences(run.astype(float), rule))
    allowed = allowed + ROUNDING_NOISE_FACTOR * np.maximum.accumulate(noise)
    return Judged(steps, rule, port, allowed)


def _toward(
    port: np.ndarray,
    rule: np.ndarray,
    grads: np.ndarray,
    eps: float,
    updated: Callable[[np.ndarray], np.ndarray],
) -> np.ndarray:
    """A rule's updates, as near to the port's as the rounding of sums of gradients lets them be.

    Entry by entry: what divides by a gradient's size makes much of one whose terms cancel, and of
    no other. One that is 0 is a sum of zeros.
    """
    off = SUMMED_EPS * eps * np.abs(grads).max(axis=tuple(range(1, grads.ndim)), keepdims=True)
    off = np.where(grads == 0, 0.0, off)
    apart = np.zeros(grads.shape)
    for signs in (np.ones(len(grads)), (-1.0) ** np.arange(len(grads))):
        other = updated(grads + signs.reshape(-1, *(1,) * (grads.ndim - 1)) * off)
        apart = np.maximum(apart, np.abs(other.astype(float) - rule))
    apart = ROUNDING_NOISE_FACTOR * np.maximum.accumulate(apart)
    nearer: np.ndarray = rule + np.clip(np.nan_to_num(port - rule), -apart, apart)
    return nearer


def of_corrections(settings: Mapping[str, np.ndarray], renewed: np.ndarray) -> np.ndarray:
    """(T,) by how many eps corrections of a bias may be off that are made in the run's dtype.

    1 - beta**t is off by t beta**t + 1 eps of one, as optax has it: in float32 that is up to 1e-4
    of the first updates. PyTorch makes it in float64.
    """
    rows = np.arange(len(renewed))
    count = rows - np.maximum.accumulate(np.where(renewed, rows, 0)) + 1
    total = np.zeros(len(renewed))
    for name, beta in settings.items():
        if name.startswith("betas."):
            power = beta**count
            total += (count * power + 1) / np.maximum(1 - power, 1e-300)
    return total


def _perturbed(
    settings: Mapping[str, np.ndarray], eps: float, clipped: bool
) -> list[tuple[dict[str, np.ndarray], float]]:
    """Every hyper-parameter off by an eps, twice: all up, and every other one down."""
    found = []
    scale = CLIPPING_EPS * eps if clipped else 0.0
    for sign in (1, -1):
        off = {}
        for number, (name, values) in enumerate(sorted(settings.items())):
            whole = np.all(values == np.round(values))
            way = 1 if sign > 0 else (-1) ** number
            off[name] = values if whole else values * (1 + way * eps)
        found.append((off, 1 + sign * scale))
    return found
