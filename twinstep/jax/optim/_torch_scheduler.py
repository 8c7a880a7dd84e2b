"""Schedules from PyTorch's scheduler objects: by their class, and the attributes it keeps.

PyTorch is not imported: an object is asked for its class' name and module.
"""

import math
from collections.abc import Callable
from typing import Any

from twinstep.errors import InputError
from twinstep.jax.optim import lr_scheduler as schedules
from twinstep.jax.optim.lr_scheduler import Schedule

_HOME = "torch.optim.lr_scheduler"

_SETTINGS: dict[str, tuple[Callable[..., Schedule], tuple[str, ...]]] = {
    "ConstantLR": (schedules.constant_lr, ("factor", "total_iters")),
    "CosineAnnealingLR": (schedules.cosine_annealing_lr, ("T_max", "eta_min")),
    "CosineAnnealingWarmRestarts": (
        schedules.cosine_annealing_warm_restarts,
        ("T_0", "T_mult", "eta_min"),
    ),
    "ExponentialLR": (schedules.exponential_lr, ("gamma",)),
    "LinearLR": (schedules.linear_lr, ("start_factor", "end_factor", "total_iters")),
    "PolynomialLR": (schedules.polynomial_lr, ("total_iters", "power")),
    "StepLR": (schedules.step_lr, ("step_size", "gamma")),
}
"""{PyTorch's class: (the same here, the arguments that it keeps under their names)}"""


def schedule_of(scheduler: Any, number: int) -> Schedule:
    """The schedule of parameter group `number` of the optimizer that a scheduler moves.

    Raises InputError for a scheduler that is not one of torch.optim.lr_scheduler's own, or whose
    rates are no function of the count.
    """
    kind = type(scheduler)
    name, module = kind.__name__, kind.__module__
    make = _MAKERS.get(name)
    if module != _HOME or (make is None and name not in _SETTINGS):
        raise InputError(
            f"from_torch: scheduler is a {module}.{name}, expected one of {_HOME}'s own, whose "
            "rates the count of steps alone decides"
        )
    if make is not None:
        return make(scheduler, number)
    make, settings = _SETTINGS[name]
    return make(_base(scheduler, number), **{key: getattr(scheduler, key) for key in settings})


def optimizer_of(scheduler: Any) -> Any:
    """The optimizer that a scheduler moves; None where it is no scheduler."""
    parts = getattr(scheduler, "_schedulers", None)
    return optimizer_of(parts[0]) if parts else getattr(scheduler, "optimizer", None)


def _base(scheduler: Any, number: int) -> float:
    return float(scheduler.base_lrs[number])


def _lambda_lr(scheduler: Any, number: int) -> Schedule:
    return schedules.lambda_lr(_base(scheduler, number), scheduler.lr_lambdas[number])


def _multiplicative_lr(scheduler: Any, number: int) -> Schedule:
    return schedules.multiplicative_lr(_base(scheduler, number), scheduler.lr_lambdas[number])


def _multi_step_lr(scheduler: Any, number: int) -> Schedule:
    milestones = sorted(scheduler.milestones.elements())  # a Counter
    return schedules.multi_step_lr(_base(scheduler, number), milestones, scheduler.gamma)


def _cyclic_lr(scheduler: Any, number: int) -> Schedule:
    total, ratio = scheduler.total_size, scheduler.step_ratio
    up = _argument(total * ratio, 1, lambda up: up / total == ratio)
    settings: dict[str, Any] = {"mode": scheduler.mode, "gamma": scheduler.gamma}
    if scheduler._scale_fn_custom is not None:
        settings = {"scale_fn": scheduler._scale_fn_custom, "scale_mode": scheduler.scale_mode}
    if scheduler.cycle_momentum:
        settings["base_momentum"] = scheduler.base_momentums[number]
        settings["max_momentum"] = scheduler.max_momentums[number]
    return schedules.cyclic_lr(
        float(scheduler.optimizer.param_groups[number]["initial_lr"]),
        _base(scheduler, number),
        float(scheduler.max_lrs[number]),
        up,
        total - up,
        cycle_momentum=scheduler.cycle_momentum,
        **settings,
    )


def _one_cycle_lr(scheduler: Any, number: int) -> Schedule:
    """Its arguments are found again from what it has made of them, in the group and in phases."""
    group, phases = scheduler.optimizer.param_groups[number], scheduler._schedule_phases
    first, top, last = (float(group[key]) for key in ("initial_lr", "max_lr", "min_lr"))
    total, end = scheduler.total_steps, phases[0]["end_step"]
    settings: dict[str, Any] = {}
    if scheduler.cycle_momentum:
        settings = {key: float(group[key]) for key in ("base_momentum", "max_momentum")}
    return schedules.one_cycle_lr(
        first,
        top,
        total_steps=total,
        pct_start=_argument(end + 1, total, lambda pct: float(pct * total) - 1 == end),
        anneal_strategy=scheduler._anneal_func_type,
        cycle_momentum=scheduler.cycle_momentum,
        div_factor=_argument(top, first, lambda factor: top / factor == first),
        final_div_factor=_argument(first, last, lambda factor: first / factor == last),
        three_phase=len(phases) == 3,
        **settings,
    )


def _argument(above: float, below: float, right: Callable[[float], bool]) -> float:
    """The number that gave what is kept: a quotient, to a rounding; 1 of two zeros."""
    quotient = above / below if below else 1.0
    near = [round(quotient, 10), quotient, *(math.nextafter(quotient, to) for to in (0, math.inf))]
    return next((number for number in near if number and right(number)), quotient)


def _sequential_lr(scheduler: Any, number: int) -> Schedule:
    parts = [schedule_of(part, number) for part in scheduler._schedulers]
    return schedules.sequential_lr(parts, scheduler._milestones)


def _chained_scheduler(scheduler: Any, number: int) -> Schedule:
    return schedules.chained_scheduler([schedule_of(p, number) for p in scheduler._schedulers])


_MAKERS: dict[str, Callable[[Any, int], Schedule]] = {
    "ChainedScheduler": _chained_scheduler,
    "CyclicLR": _cyclic_lr,
    "LambdaLR": _lambda_lr,
    "MultiStepLR": _multi_step_lr,
    "MultiplicativeLR": _multiplicative_lr,
    "OneCycleLR": _one_cycle_lr,
    "SequentialLR": _sequential_lr,
}
"""{PyTorch's class: what makes the same of one of its objects}"""
