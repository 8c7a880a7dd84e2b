"""The norms of a port's own leaves, and of units in them, whichever leaves PyTorch has.

T updates, G groups.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from twinstep.port.groups import numbered
from twinstep.port.updates import Updates
from twinstep.trace.ledger import Leaves


@dataclass(frozen=True)
class Groups:
    """Groups of entries of one optimizer, and what is summed over them once it is asked for.

    ids: {leaf: (...)}, the number of the group that each entry is of
    """

    updates: Updates
    ids: Leaves

    @cached_property
    def _sums(self) -> tuple[np.ndarray, ...]:
        count = 1 + max(int(self.ids[name].max(initial=-1)) for name in self.updates.grads)
        g2, p2, gp = (np.zeros((len(self.updates), count)) for _ in range(3))
        for name, leaf in self.updates.grads.items():
            g, p = flat(leaf), flat(self.updates.params[name])
            of = self.ids[name].reshape(-1)
            for t, (grad, param) in enumerate(zip(g, p, strict=False)):  # params: one more
                g2[t] += np.bincount(of, grad * grad, count)
                p2[t] += np.bincount(of, param * param, count)
                gp[t] += np.bincount(of, grad * param, count)
        return g2, p2, gp

    @property
    def grads(self) -> np.ndarray:
        """(T, G), the sums of g^2."""
        return self._sums[0]

    @property
    def params(self) -> np.ndarray:
        """(T, G), the sums of p^2."""
        return self._sums[1]

    @property
    def products(self) -> np.ndarray:
        """(T, G), the sums of g p."""
        return self._sums[2]

    @cached_property
    def counts(self) -> np.ndarray:
        """(G,), how many entries each has."""
        every = [self.ids[name].reshape(-1) for name in self.updates.grads]
        return np.bincount(np.concatenate(every))

    @cached_property
    def _members(self) -> list[np.ndarray]:
        return [np.unique(self.ids[name]) for name in self.updates.grads]

    @property
    def across(self) -> bool:
        """Whether some group has entries of several of PyTorch's leaves."""
        members = self._members
        return sum(map(len, members)) > len(np.unique(np.concatenate(members)))

    @property
    def are_leaves(self) -> bool:
        """Whether they are PyTorch's leaves."""
        return not self.across and all(len(one) == 1 for one in self._members)


def groups_of(updates: Updates) -> dict[str, Groups]:
    """{"leaf" or "unit": the groups}."""
    shapes = {name: leaf.shape[1:] for name, leaf in updates.grads.items()}
    given: Mapping[str, Leaves] = updates.groups or numbered(shapes)
    return {scope: Groups(updates, ids) for scope, ids in given.items()}


def summed(values: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """(B, N) sums over each entry's group, of values (B, N)."""
    _, place = np.unique(ids, return_inverse=True)
    return np.stack([np.bincount(place, row)[place] for row in values])


def flat(leaf: np.ndarray) -> np.ndarray:
    """A leaf's rows in float64, (T, N)."""
    array = np.asarray(leaf, np.float64)
    return array.reshape(len(array), -1)
