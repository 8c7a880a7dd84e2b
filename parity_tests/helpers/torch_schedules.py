"""PyTorch's schedulers as plain lists of rates, and their twins by the same words.

A `Case` names a scheduler and its arguments once; `torch_side` and `twin` build the two sides.
"""

import contextlib
import inspect
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
from torch.optim import lr_scheduler

from twinstep.jax.optim import lr_scheduler as schedules

LR = 0.1
RELATIVE = 1e-14
"""What a rate may be off, of itself."""
OF_PEAK = 1e-16
"""And of the largest rate, where it comes near 0 and PyTorch's own rounding is of that size."""

_BY_WORDS = {kind.lower(): getattr(lr_scheduler, kind) for kind in lr_scheduler.__all__}
CLASSES = {
    name: _BY_WORDS[name.replace("_", "")]
    for name in schedules.__all__
    if name.replace("_", "") in _BY_WORDS
}
"""{name here: PyTorch's class}"""


@dataclass(frozen=True)
class Case:
    """A scheduler: its name here, PyTorch's arguments, the cases it combines, the rate."""

    name: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    parts: Sequence["Case"] = ()
    lr: float = LR

    def torch_side(self, optimizer: torch.optim.Optimizer) -> Any:
        """The scheduler on an optimizer; its parts are built in order."""
        parts = [part.torch_side(optimizer) for part in self.parts]
        if self.name == "chained_scheduler":
            return lr_scheduler.ChainedScheduler(parts, optimizer)
        if self.name == "sequential_lr":
            return lr_scheduler.SequentialLR(optimizer, parts, **self.settings)
        make: Callable[..., Any] = CLASSES[self.name]
        return make(optimizer, **self.settings)

    def twin(self) -> Any:
        """The schedule, or the plateau."""
        make = getattr(schedules, self.name)
        if self.parts:
            return make([part.twin() for part in self.parts], **self.settings)
        return make(self.lr, **self.settings)

    def theirs(self) -> str:
        """PyTorch's call in words, on `optimizer`."""
        parts = [f"[{', '.join(part.theirs() for part in self.parts)}]"] if self.parts else []
        first = parts if self.name == "chained_scheduler" else ["optimizer", *parts]
        kind = CLASSES[self.name].__name__
        return f"torch.optim.lr_scheduler.{kind}({', '.join([*first, *keywords(self.settings)])})"

    def ours(self, lr: float) -> str:
        """The twin's."""
        parts = f"[{', '.join(part.ours(lr) for part in self.parts)}]" if self.parts else repr(lr)
        return f"lr_scheduler.{self.name}({', '.join([parts, *keywords(self.settings)])})"


def keywords(options: Mapping[str, Any]) -> list[str]:
    """As they are written in a call."""
    return [f"{name}={value!r}" for name, value in options.items()]


def by_name(one: Case) -> str:
    """What a test of it is called."""
    return one.name


def case(name: str, *parts: Case, lr: float = LR, **settings: Any) -> Case:
    """A Case by its words."""
    return Case(name, settings, parts, lr)


@contextlib.contextmanager
def steps_without_updates() -> Iterator[None]:
    """PyTorch warns of steps before the optimizer's, which nested schedulers make by themselves."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Detected call of `lr_scheduler.step")
        yield


def optimizer_for(lr: float) -> Any:
    """An optimizer of one parameter."""
    return torch.optim.SGD([torch.nn.Parameter(torch.zeros(1, dtype=torch.float64))], lr=lr)


def torch_rates(
    build: Callable[[Any], Any] | list[Callable[[Any], Any]],
    steps: int = 1000,
    lr: float = LR,
    read: Callable[[dict[str, Any]], float] = lambda group: group["lr"],
    metrics: Sequence[float] | np.ndarray = (),
) -> np.ndarray:
    """(steps,) the rate of each of PyTorch's updates.

    build: makes a scheduler of the optimizer, or several that share it
    read: what else to read off the optimizer; metrics: what a plateau is given
    """
    with steps_without_updates():
        optimizer = optimizer_for(lr)
        made = [make(optimizer) for make in (build if isinstance(build, list) else [build])]
        optimizer._opt_called = True
        rates = []
        for step in range(steps):
            rates.append(float(read(optimizer.param_groups[0])))
            for scheduler in made:
                plateau = isinstance(scheduler, lr_scheduler.ReduceLROnPlateau)
                scheduler.step(*([metrics[step]] if plateau else []))
    return np.array(rates)


def scanned(schedule: Callable[[Any], Any], steps: int = 1000) -> np.ndarray:
    """(steps,) the rates as a compiled training loop asks for them, one count after the other."""
    _, rates = jax.jit(
        lambda: jax.lax.scan(
            lambda count, _: (count + 1, schedule(count)), jnp.int32(0), length=steps
        )
    )()
    return np.asarray(rates)


def at_once(schedule: Callable[[Any], Any], steps: int = 1000) -> np.ndarray:
    """(steps,) the rates operation by operation, without a compilation a case."""
    return np.asarray(jax.vmap(schedule)(jnp.arange(steps, dtype=jnp.int32)))


def stepped(schedule: Any, steps: int = 1000) -> np.ndarray:
    """(steps,) the rates by the recursion."""
    table = jax.jit(lambda: jax.vmap(schedule.tabulate(steps))(jnp.arange(steps)))
    return np.asarray(table())


def moved(optimizer: Any, steps: int) -> np.ndarray:
    """(steps,) by how much a compiled loop moves a parameter whose gradient is 1: SGD's rates."""
    params = jnp.zeros(())

    def body(state: Any, _: None) -> tuple[Any, Any]:
        updates, state = optimizer.update(jnp.ones(()), state, params)
        return state, -updates

    return np.asarray(jax.lax.scan(body, optimizer.init(params), length=steps)[1])


def worst(ours: np.ndarray, theirs: np.ndarray) -> float:
    """The largest gap in units of what is allowed; 1 or less is right, NaN never is."""
    if ours.shape != theirs.shape:
        return float("inf")
    allowed = RELATIVE * np.abs(theirs) + OF_PEAK * np.max(np.abs(theirs), initial=0.0)
    off = np.abs(ours - theirs)
    ratio = np.divide(off, allowed, out=np.where(off > 0, np.inf, 0.0), where=allowed > 0)
    return float(np.max(ratio, initial=0.0)) if np.all(np.isfinite(ours)) else float("inf")


def twin_of(scheduler: Any, lr: float = LR) -> Any:
    """The twin of one of PyTorch's schedulers, by the attributes that keep its arguments."""
    name = next(name for name, kind in CLASSES.items() if type(scheduler) is kind)
    make = getattr(schedules, name)
    names = set(inspect.signature(make).parameters) - {"lr", "last_epoch", "min_lr"}
    return make(lr, **{argument: getattr(scheduler, argument) for argument in names})


# one of each kind, and more where a kind has several forms
E9, LINE = case("exponential_lr", gamma=0.9), case("linear_lr", total_iters=30)
WAVES: dict[str, Any] = {"base_lr": LR, "max_lr": 0.3, "step_size_up": 3}
CYCLE = case("cyclic_lr", **WAVES, step_size_down=4, mode="exp_range", gamma=0.98)
ONE = case("one_cycle_lr", max_lr=0.3, total_steps=60, pct_start=0.25)
BY_EPOCH = [  # PyTorch's step(epoch) gives a rate that hangs on the epoch alone
    case("lambda_lr", lr_lambda=lambda count: 1 / (1 + count)),
    case("step_lr", step_size=4, gamma=0.7),
    case("multi_step_lr", milestones=[3, 3, 9], gamma=0.8),
    case("constant_lr", total_iters=7),
    LINE,
    E9,
    case("polynomial_lr", total_iters=29, power=1.5),
    case("cosine_annealing_lr", T_max=9, eta_min=0.01),
    case("cosine_annealing_warm_restarts", T_0=5, eta_min=0.01),
    case("cosine_annealing_warm_restarts", T_0=3, T_mult=2),
    CYCLE,
    case("cyclic_lr", base_lr=LR, max_lr=0.3, step_size_up=2.5, mode="triangular2"),
    case("cyclic_lr", **WAVES, scale_fn=lambda x: 1 / (1 + x)),
    ONE,
    case("one_cycle_lr", max_lr=0.3, total_steps=60, three_phase=True, anneal_strategy="linear"),
]
BY_STEP = [  # and here it hangs on the steps before, or is an error
    case("multiplicative_lr", lr_lambda=lambda count: 0.9 + count % 3 / 50),
    case("chained_scheduler", E9, LINE),
    case("chained_scheduler", E9, case("cosine_annealing_lr", T_max=9, eta_min=0.01)),
    case("sequential_lr", LINE, E9, milestones=[5]),
]
KINDS = [*BY_EPOCH, *BY_STEP]
