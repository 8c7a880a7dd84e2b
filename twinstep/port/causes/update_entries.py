"""The entries of parameters that a rule is tried on: of all leaves a few, or of some leaves all.

T updates, N entries one after another, L leaves.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from twinstep.port.causes.update_groups import Groups, flat, groups_of
from twinstep.port.judging_updates import SUMMED_EPS
from twinstep.port.updates import Updates


@dataclass(frozen=True)
class Sizes:
    """What a rule may ask about whole tensors, whichever of their entries it is tried on.

    largest, absolute: (T, L), of the gradients' absolute values the maximum and the sum
    grads, params, products: (T, L), the sums of g^2, p^2 and g p
    together: (T,), the norm of what is clipped together, where it is more than these leaves
    groups: {"leaf" or "unit": the same of the port's own leaves, or of units in them}
    unsure: by how much of a leaf's largest entry a gradient may be off, that sums several passes:
        their terms may cancel, and the recorder may have rounded otherwise than the port did
    """

    largest: np.ndarray
    absolute: np.ndarray
    grads: np.ndarray
    params: np.ndarray
    products: np.ndarray
    together: np.ndarray | None
    groups: Mapping[str, Groups]
    unsure: float


@dataclass(frozen=True)
class Entries:
    """Some entries of some leaves.

    grads, updates, allowed: (T, N)
    params: (T + 1, N)
    leaf: (N,), which each is of, ascending
    whole: whether a leaf that has an entry here has all
    groups: {"leaf" or "unit": (N,)}, the number of the port's group that each is of
    """

    grads: np.ndarray
    params: np.ndarray
    updates: np.ndarray
    allowed: np.ndarray
    leaf: np.ndarray
    whole: bool
    sizes: Sizes
    groups: Mapping[str, np.ndarray]

    def until(self, count: int) -> "Entries":
        """The first updates only."""
        arrays = (self.grads, self.updates, self.allowed)
        grads, updates, allowed = (array[:count] for array in arrays)
        params = self.params[: count + 1]
        tables: dict[str, Any] = {
            name: table[:count]
            for name, table in vars(self.sizes).items()
            if isinstance(table, np.ndarray)
        }
        sizes = dataclasses.replace(self.sizes, **tables)
        return dataclasses.replace(
            self, grads=grads, params=params, updates=updates, allowed=allowed, sizes=sizes
        )

    @property
    def starts(self) -> np.ndarray:
        """Where each leaf that is here begins."""
        return np.flatnonzero(np.diff(self.leaf, prepend=-1))

    def of(self, leaves: Sequence[int]) -> "Entries":
        """The entries of some leaves."""
        here = np.isin(self.leaf, leaves)
        arrays = (self.grads, self.params, self.updates, self.allowed)
        grads, params, updates, allowed = (array[:, here] for array in arrays)
        leaf, groups = self.leaf[here], {scope: ids[here] for scope, ids in self.groups.items()}
        return Entries(grads, params, updates, allowed, leaf, self.whole, self.sizes, groups)


def sizes_of(updates: Updates) -> Sizes:
    """The norms of all leaves, taken whole."""
    columns: list[list[np.ndarray]] = []
    for name, leaf in updates.grads.items():  # one by one: in float64 all are twice what they were
        g, p = flat(leaf), flat(updates.params[name])[:-1]
        absolute = np.abs(g)
        sums = [(g * g).sum(1), (p * p).sum(1), (g * p).sum(1)]
        columns.append([absolute.max(1, initial=0.0), absolute.sum(1), *sums])
    largest, absolute, g2, p2, gp = (np.stack(rows, 1) for rows in zip(*columns, strict=True))
    eps = max(float(np.finfo(leaf.dtype).eps) for leaf in updates.grads.values())
    unsure = SUMMED_EPS * eps if updates.unsure else 0.0
    together = None if updates.norms is None else np.asarray(updates.norms, np.float64)
    return Sizes(largest, absolute, g2, p2, gp, together, groups_of(updates), unsure)


def entries_of(
    updates: Updates,
    allowed: Mapping[str, np.ndarray],
    sizes: Sizes,
    names: Sequence[str],
    most: int | None = None,
) -> Entries:
    """Entries of the leaves that are named, at most `most` of each, those that move most first.

    Args:
        updates: The updates.
        allowed: {leaf: (T,)}.
        sizes: Of all leaves.
        names: Of the leaves to take.
        most: How many of each; None: all.
    """
    order = {name: index for index, name in enumerate(updates.grads)}
    parts: list[tuple[np.ndarray, ...]] = []
    leaf: list[np.ndarray] = []
    ids: dict[str, list[np.ndarray]] = {scope: [] for scope in sizes.groups}
    whole = True
    for name in names:
        grads, params = flat(updates.grads[name]), flat(updates.params[name])
        chosen: slice | np.ndarray = slice(None)
        if most is not None and grads.shape[1] > most:
            chosen = _chosen(grads, params, most)
            grads, params, whole = grads[:, chosen], params[:, chosen], False
        may = np.broadcast_to(np.asarray(allowed[name], np.float64)[:, None], grads.shape)
        parts.append((grads, params, np.diff(params, axis=0), may))
        leaf.append(np.full(grads.shape[1], order[name]))
        for scope, groups in sizes.groups.items():
            ids[scope].append(groups.ids[name].reshape(-1)[chosen])
    g, p, u, may = (np.concatenate(column, 1) for column in zip(*parts, strict=True))
    joined = {scope: np.concatenate(column) for scope, column in ids.items()}
    return Entries(g, p, u, may, np.concatenate(leaf), whole, sizes, joined)


def _chosen(grads: np.ndarray, params: np.ndarray, most: int) -> np.ndarray:
    """Half those that move most over all updates, a quarter with the largest gradients, and others.

    The others always the same ones: a search that is run again must find the same.
    """
    moved = np.abs(params[-1] - params[0])
    largest = np.abs(grads).max(0)
    movers = np.argpartition(moved, -(most // 2))[-(most // 2) :] if most > 1 else [0]
    steep = np.argpartition(largest, -max(most // 4, 1))[-max(most // 4, 1) :]
    spread = np.random.default_rng(0).permutation(grads.shape[1])[:most]
    return np.sort(list(dict.fromkeys([*movers, *steep, *spread]))[:most])
