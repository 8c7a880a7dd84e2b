"""Why a port shows another loss than PyTorch, though its gradients are the same."""

from collections.abc import Callable, Iterator, Mapping

import numpy as np

from twinstep.judge import tolerance
from twinstep.port.causes.gradient_causes import FirstStep
from twinstep.port.mapping import Piece
from twinstep.port.sides import Side
from twinstep.port.updates import Cause
from twinstep.trace.ledger import Trace

Order = tuple[tuple[int, ...], tuple[int, ...]]
"""Of a leaf's axes, and which of them are flipped."""

_CLEARLY = 16.0  # times what is allowed
_STEPS = 8  # of a free run: later ones have grown apart


def causes_of_loss(step: FirstStep, torch: Trace, jax: Trace) -> list[Cause]:
    """What makes the port's losses of PyTorch's, held against those of the next steps too.

    Args:
        step: Both sides' first, with the same gradients.
        torch, jax: All steps.

    Returns:
        The causes; none where a single step is all there is.
    """
    count = min(len(torch), len(jax), _STEPS)
    every = [trace.steps_of("loss", "loss") for trace in (torch, jax)]
    if count < 2 or any(len(s) < count for s in every) or step.off:
        return []
    a, b = (
        torch.losses[:count].astype(float),
        jax.losses[:count].astype(float),
    )
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        return []
    allowed = tolerance.plain_bound(np.maximum(abs(a), abs(b)), 1.0 + np.arange(count), step.kind)
    if abs(a - b)[0] <= _CLEARLY * allowed[0]:
        return []
    return [*_Losses(step, torch, a, b, allowed).causes()]


class _Losses:
    """Losses (T,) of both, and how far rounding may take them apart."""

    def __init__(
        self, step: FirstStep, trace: Trace, a: np.ndarray, b: np.ndarray, allowed: np.ndarray
    ) -> None:
        self.step, self.trace, self.a, self.b, self.allowed = step, trace, a, b, allowed

    def ratio(self, expected: np.ndarray) -> float:
        """How far the port's are from these, in what is allowed."""
        return float(np.max(np.abs(self.b - expected)[: len(expected)] / self.allowed))

    def causes(self) -> Iterator[Cause]:
        yield from self._scaled()
        yield from self._with_more()
        yield from self._late()
        yield from self._of_a_pass()

    def _scaled(self) -> Iterator[Cause]:
        factor = float(self.b[0] / self.a[0]) if self.a[0] else 0.0
        ratio = self.ratio(factor * self.a)
        if ratio <= 1:
            known = self.step.factor(factor).says
            of = f", which is {known}" if known else ""
            says = f"the loss shown is PyTorch's times {factor:.7g}{of}; the gradients are the same"
            yield Cause("loss scaled", says, {"factor": factor}, ratio)

    def _with_more(self) -> Iterator[Cause]:
        """A number more, or a penalty that is shown and not differentiated."""
        more = float(self.b[0] - self.a[0])
        ratio = self.ratio(self.a + more)
        if ratio <= 1:
            says = f"the loss shown is PyTorch's plus {more:.7g}; the gradients are the same"
            yield Cause("loss shifted", says, {"added": more}, ratio)
        known: list[np.ndarray] = []
        for which, chosen in self._penalized():
            squares = self._squares(chosen)
            if not squares.any() or any(np.array_equal(squares, one) for one in known):
                continue
            known.append(squares)
            value = more / float(squares[0])
            ratio = self.ratio(self.a + value * squares)
            if ratio <= 1:
                says = (
                    f"the loss shown has {value:.7g} / 2 times the squares of {which} in it, the "
                    "gradients have it not"
                )
                yield Cause("penalty in the loss shown", says, {"weight_decay": value}, ratio)

    def _penalized(self) -> Iterator[tuple[str, Callable[[str], bool]]]:
        trace = self.trace
        yield "all parameters", lambda name: True
        yield "all weights of two axes or more", lambda name: trace.params[name].ndim > 2
        yield "all but biases", lambda name: not name.endswith("bias")

    def _squares(self, chosen: Callable[[str], bool]) -> np.ndarray:
        """(T,) half the squares of PyTorch's parameters, as each step found them."""
        found = np.zeros(len(self.a))
        for name, array in self.trace.params.items():
            if chosen(name) and len(array) > len(found):
                rows = array[: len(found)].astype(float).reshape(len(found), -1)
                found += (rows**2).sum(1) / 2
        return found

    def _late(self) -> Iterator[Cause]:
        """The loss after the update, not before it."""
        if len(self.a) < 3 or np.ptp(self.a) <= _CLEARLY * self.allowed.max():
            return
        ratio = float(np.max(np.abs(self.b[:-1] - self.a[1:]) / self.allowed[1:]))
        if ratio <= 1:
            says = "the loss shown is that of PyTorch's next step"
            yield Cause("loss of another step", says, {"steps": 1.0}, ratio)

    def _of_a_pass(self) -> Iterator[Cause]:
        """The loss of one micro-batch alone, as it was or as it is backpropagated."""
        trace = self.trace
        micro = trace.micro_losses.get("loss")
        if micro is None or micro.ndim != 1:
            return
        rows = trace.steps_of("micro_losses", "loss")
        parts = [micro[rows == trace.start + t].astype(float) for t in range(len(self.a))]
        count = len(parts[0])
        if count < 2 or any(len(part) != count for part in parts):
            return
        for which, place in (("last", -1), ("first", 0)):
            alone = np.array([part[place] for part in parts])
            for times in {1.0, float(count), 1.0 / count}:
                ratio = self.ratio(alone * times)
                if ratio <= 1:
                    says = f"the loss shown is that of the {which} of {count} micro-batches alone"
                    yield Cause("loss of a micro-batch", says, {"factor": times}, ratio)


def odd_layouts(jax: Side) -> list[Cause]:
    """Leaves whose axes the mapping has otherwise than those of their like: candidates alone.

    A mapping that was found by the values of a wrong start has what is wrong in it.

    Args:
        jax: The port's side.

    Returns:
        A candidate for each leaf that would have the same shape either way.
    """
    if jax.mapping is None:
        return []
    groups: dict[tuple[str, int], dict[str, Piece]] = {}
    for name, pieces in jax.mapping.leaves.items():
        shape = jax.mapping.shapes[name]
        if len(pieces) == 1 and len(shape) > 1 and name in jax.trace.params:
            key = name.rpartition(".")[2], len(shape)
            groups.setdefault(key, {})[name] = pieces[0]
    found = []
    for (last, _), group in groups.items():
        orders = {name: (p.axes, p.flip) for name, p in group.items() if len(p.view) == len(p.at)}
        usual = _usual(orders, group)
        if usual is None:
            continue
        for name, order in orders.items():
            view = group[name].view
            turned = tuple(view[axis] for axis in usual[0])
            if order != usual and turned == jax.mapping.shapes[name]:
                lies = "as PyTorch has it" if order[0] == tuple(sorted(order[0])) else _said(order)
                others = "transposed" if usual[0] == (1, 0) and not usual[1] else _said(usual)
                says = f"perhaps: {name} lies {lies}, the other leaves called {last} are {others}"
                found.append(Cause("candidate: layout", says, {}, 0.0))
    return found


def _usual(orders: Mapping[str, Order], pieces: Mapping[str, Piece]) -> Order | None:
    """The one order of those whose shape tells it; else that of more than half."""
    told = {order for n, order in orders.items() if len({*pieces[n].view}) == len(pieces[n].view)}
    if len(told) == 1:
        return told.pop()
    every = [*orders.values()]
    usual = max(orders.values(), key=every.count, default=None)
    return usual if usual is not None and 2 * every.count(usual) > len(every) else None


def _said(order: Order) -> str:
    axes, flip = order
    return f"with axes {axes}" + (f", flipped along {flip}" if flip else "")
