"""What PyTorch's optimizer objects say of themselves, without PyTorch being imported."""

import inspect
from collections.abc import Collection, Sequence
from typing import Any

from twinstep.errors import InputError
from twinstep.jax.optim._torch_scheduler import optimizer_of

_HOME = "torch.optim."


def torch_name(optimizer: Any, known: Collection[str]) -> str:
    """The name in torch.optim of an optimizer that is of its own class, or of one like it.

    Raises InputError for another library's, and for a subclass that steps in a way of its own.
    """
    if isinstance(optimizer, type) or not hasattr(optimizer, "param_groups"):
        raise InputError(f"from_torch: optimizer is {optimizer!r}, expected a name or an optimizer")
    kinds: tuple[Any, ...] = type(optimizer).__mro__
    called = f"{kinds[0].__module__}.{kinds[0].__qualname__}"
    for kind in kinds:
        if f"{kind.__module__}.".startswith(_HOME) and kind.__name__ in known:
            break
    else:
        raise InputError(
            f"from_torch: optimizer is a {called}, expected one of torch.optim's own: only its "
            "arithmetic is known"
        )
    for key in dir(kind):
        own = key == "step" or (key.startswith("_") and not key.startswith("__"))
        if own and _root(getattr(kinds[0], key)) is not _root(getattr(kind, key)):
            raise InputError(
                f"from_torch: optimizer is a {called}, whose {key} is not {kind.__name__}'s, "
                "expected one of torch.optim's own"
            )
    patched = vars(optimizer).get("step")
    if patched is not None and _root(patched) is not _root(kind.step):
        raise InputError("from_torch: optimizer has a step of its own, expected torch.optim's")
    name: str = kind.__name__
    return name


def check_scheduler(optimizer: Any, scheduler: Any) -> None:
    """Raises InputError for a scheduler of another optimizer, or one that was not given."""
    if scheduler is None:
        wrapped = hasattr(optimizer.step, "_wrapped_by_lr_sched")
        if wrapped or any("initial_lr" in group for group in optimizer.param_groups):
            raise InputError(
                "from_torch: optimizer has a learning rate scheduler, expected it as scheduler"
            )
    elif optimizer_of(scheduler) is not optimizer:
        raise InputError(
            f"from_torch: scheduler is a {type(scheduler).__name__}, expected one of the optimizer"
        )


def by_steps(
    optimizer: Any, parameters: Sequence[tuple[str | int, Any]]
) -> list[list[tuple[str | int, Any]]]:
    """(name, parameter) in parts that have made the same number of steps; as it is where none has.

    Each has a count of its own in PyTorch, a group one here.
    """
    parts: dict[Any, list[tuple[str | int, Any]]] = {}
    for called, parameter in parameters:
        state = optimizer.state.get(parameter, {})
        step = state.get("step", any(value is not None for value in state.values()))
        parts.setdefault(float(step), []).append((called, parameter))
    return list(parts.values()) or [[]]


def _root(function: Any) -> Any:
    """A function without what PyTorch wraps around it."""
    inner = inspect.unwrap(function) if callable(function) else function
    return getattr(inner, "__func__", inner)
