"""What of a state PyTorch keeps too: the optimizers' own, inside of all that wraps them.

Ours have PyTorch's names for fields. Of optax's, those are renamed that hold the same numbers.
"""

from collections import abc, namedtuple
from collections.abc import Callable, Collection
from typing import Any

import jax

from twinstep.errors import InputError
from twinstep.jax.mapping import Mapping, is_slot
from twinstep.jax.trees import children

OfOptimizer = Callable[[Any, Any], Any]
"""(an optimizer's own state, the slots of its parameters) -> the state in its place."""
OfClock = Callable[[Any], Any]
"""A schedule's count, () int32 -> the count in its place."""

_MOMENTS = {"count": "step", "mu": "exp_avg", "nu": "exp_avg_sq"}

OPTAX: dict[str, dict[str, dict[str, str]]] = {
    "TraceState": {"SGD": {"trace": "momentum_buffer"}},
    "ScaleByAdamState": {
        "Adam": _MOMENTS,
        "AdamW": _MOMENTS,
        "RAdam": _MOMENTS,
        "Adamax": _MOMENTS | {"nu": "exp_inf"},
    },
    "ScaleByAdaDeltaState": {"Adadelta": {"e_g": "square_avg", "e_x": "acc_delta"}},
    "ScaleByRmsState": {"RMSprop": {"nu": "square_avg"}},
    "ScaleByRStdDevState": {"RMSprop": {"mu": "grad_avg", "nu": "square_avg"}},
    "ScaleByRssState": {"Adagrad": {"sum_of_squares": "sum"}},
}
"""{optax's state: {class in torch.optim that keeps the same: {optax's field: PyTorch's name}}}"""

_INNER = ("inner", "inner_state", "inner_opt_state")  # fields under which a wrapper has a state
_PASSED_BY = ("GivenGradsState",)  # what the recorder looks at


def mapped(state: Any, part: Any, of_optimizer: OfOptimizer, of_clock: OfClock) -> Any:
    """A state with others in the places of its optimizers' own, and of its schedules' counts.

    part: the slots of the parameters. Raises InputError for a state that is not known.
    """

    def inside(inner: Any, of: Any = part) -> Any:
        return mapped(inner, of, of_optimizer, of_clock)

    name, module = type(state).__name__, type(state).__module__
    fields = getattr(state, "_fields", None)
    if hasattr(state, "parts"):
        return state.rebuilt([inside(one, of) for one, of in state.parts(part)])
    if fields is not None:
        of_optax = module.startswith("optax.")
        inner = next((field for field in _INNER if field in fields), None)
        if not fields or name in _PASSED_BY:
            return state
        if inner is not None:
            return _clocked(state, of_clock)._replace(**{inner: inside(getattr(state, inner))})
        if "inner_states" in fields:
            each = {label: inside(one) for label, one in state.inner_states.items()}
            return state._replace(inner_states=each)
        if of_optax and fields == ("count",):
            return state._replace(count=of_clock(state.count))
        if is_of_optax(state) or module.startswith("twinstep.jax.optim."):
            return of_optimizer(state, part)
    elif state is None:
        return None
    elif isinstance(state, abc.Mapping):
        parts, _ = children(part)
        for key in state:
            if str(key) not in parts:
                raise InputError(f"opt_state has {key!r}, which no parameters are called")
        return {key: inside(one, parts[str(key)]) for key, one in state.items()}
    elif isinstance(state, tuple | list):
        return type(state)(inside(one) for one in state)
    raise InputError(
        f"opt_state has a {module}.{name}, expected states of this package, or of optax's that "
        f"PyTorch keeps as well: {', '.join(OPTAX)}"
    )


def is_of_optax(state: Any) -> bool:
    """Whether a state is one of optax's that PyTorch keeps as well."""
    return type(state).__module__.startswith("optax.") and type(state).__name__ in OPTAX


def renamed(state: Any, kind: str | None) -> Any:
    """One of optax's states under the names that a class of torch.optim has for it.

    kind: that class; None: the first that keeps the same
    """
    kinds = OPTAX[type(state).__name__]
    kind = next(iter(kinds)) if kind is None else kind
    if kind not in kinds:
        raise InputError(
            f"opt_state has optax's {type(state).__name__}, which {kind} does not keep, expected "
            f"{' or '.join(kinds)}"
        )
    names = kinds[kind]
    if names.keys() != set(state._fields):
        raise InputError(f"opt_state has {state._fields} in optax's state, expected {[*names]}")
    fields = [names[field] for field in state._fields]
    return namedtuple(type(state).__name__, fields)(*state)


def kind_of(state: Any, keys: Collection[str]) -> str | None:
    """The class of torch.optim whose names are given, of those that keep one of optax's states."""
    kinds = OPTAX[type(state).__name__].items()
    return next((kind for kind, names in kinds if set(names.values()) <= set(keys)), None)


def refuse_twice(known: Collection[str], more: Collection[str]) -> None:
    """Raises InputError for a parameter of two optimizers in a chain, which PyTorch has not."""
    if twice := sorted(set(known) & set(more)):
        raise InputError(f"opt_state has two states of parameter {twice[0]!r}, expected one")


def layout_of(part: Any) -> Mapping:
    """The layout of some parameters, from their slots."""
    slots = jax.tree.leaves(part, is_leaf=is_slot)
    return Mapping(jax.tree.structure(part, is_leaf=is_slot), tuple(slots))


def _clocked(state: Any, of_clock: OfClock) -> Any:
    """A wrapper whose own schedules have other counts: that of inject_hyperparams."""
    if not getattr(state, "hyperparams_states", None):
        return state
    clocks = {
        key: one._replace(count=of_clock(one.count))
        for key, one in state.hyperparams_states.items()
    }
    return state._replace(count=of_clock(state.count), hyperparams_states=clocks)
