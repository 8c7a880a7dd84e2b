"""A training drawn at random, as the script that shows it: what is run is what would be printed.

Each entry of a tensor has a curvature, 0 in a third of them, and a target a step: the gradient is
the curvature times what is left to the target.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from helpers import torch_schedules
from helpers.optim_database import NEWEST
from helpers.torch_schedules import case, keywords
from hypothesis import strategies as st

from twinstep.jax.optim import torch_options
from twinstep.jax.optim._from_torch import TORCH

Options = Mapping[str, Any]
Rates = torch_schedules.Case

SCRIPT = """\
import jax, numpy as np, optax, torch, twinstep.torch.muon
from twinstep.jax import optim
from twinstep.jax.optim import lr_scheduler
jax.config.update("jax_enable_x64", True)
torch.set_default_dtype(torch.float64)
numbers, shapes = np.random.RandomState({seed}), {shapes}
curves, start, *targets = [[np.array(numbers.randn(*s)) for s in shapes] for _ in range({draws})]
curves = [np.abs(c.round()) for c in curves]
theirs, ours = [torch.tensor(a, requires_grad=True) for a in start], [*map(jax.numpy.array, start)]
optimizer = {theirs}(theirs{options}){scheduler}
twin = {twin}
state = twin.init(ours)
for target in targets:
    for p, c, t in zip(theirs, curves, target):
        p.grad = (torch.tensor(c) * (p.detach() - torch.tensor(t))){sparse}
    grads = [c * (p - t) for p, c, t in zip(ours, curves, target)]{clip}
    optimizer.step(){step}
    updates, state = twin.update(grads, state, ours{touched})
    ours = optax.apply_updates(ours, updates)
print(*(np.abs(p.detach().numpy() - q).max(initial=0.0) for p, q in zip(theirs, ours)))
"""


@dataclass(frozen=True)
class Case:
    """What is trained, how, for how many steps. clip: (name without PyTorch's _, its arguments)."""

    optimizer: str
    options: Options
    shapes: Sequence[tuple[int, ...]]
    steps: int
    seed: int
    rates: Rates | None = None
    clip: tuple[str, Sequence[Any]] | None = None

    @property
    def script(self) -> str:
        """A program that trains in both, and prints how far each parameter is apart at the end."""
        is_muon, is_sparse = self.optimizer == "Muon", self.optimizer == "SparseAdam"
        exact = ["round_to_bfloat16=False"] if is_muon else []
        name, arguments = self.clip or ("", ())
        clip = ", ".join(map(repr, arguments))
        clipped = f"optax.chain(optim.{name}({clip}), {self._twin()})"
        rows = "[(g != 0).any(axis=tuple(range(1, g.ndim))) for g in grads]"
        return SCRIPT.format(
            # its rounding to bfloat16 parts any two runs
            theirs="twinstep.torch.muon.Muon" if is_muon else f"torch.optim.{self.optimizer}",
            options="".join(f", {word}" for word in [*keywords(self.options), *exact]),
            shapes=list(self.shapes),
            draws=self.steps + 2,
            seed=self.seed,
            scheduler=f"\nscheduler = {self.rates.theirs()}" if self.rates else "",
            step="\n    scheduler.step()" if self.rates else "",
            twin=clipped if self.clip else self._twin(),
            clip=f"\n    torch.nn.utils.{name}_(theirs, {clip})" if self.clip else "",
            sparse=".to_sparse(1)" if is_sparse else "",
            touched=f", touched={rows}" if is_sparse else "",
        )

    def perturbed(self, seed: int) -> str:
        """The script with our gradients and parameters off by up to one eps a step."""
        perturbation = "(1 + 2**-52 * perturbations.uniform(-1, 1, p.shape))"
        script = self.script.replace(
            "for p, c, t in zip(ours", f"* {perturbation} for p, c, t in zip(ours"
        )
        head, loop, tail = script.partition("for target in targets:\n")
        moved = f"    ours = [p * {perturbation} for p in ours]\n"
        return f"{head}perturbations = np.random.RandomState({seed})\n{loop}{moved}{tail}"

    def _twin(self) -> str:
        words = {name: repr(value) for name, value in self.options.items()}
        defaults = torch_options(self.optimizer)
        if self.rates:
            words["lr"] = self.rates.ours(self.options.get("lr", defaults["lr"]))
            if moves_momentum(self.rates) and "betas" in defaults:
                beta2 = self.options.get("betas", defaults["betas"])[1]
                words["betas"] = f"({words['lr']}.momentum, {beta2!r})"
            elif moves_momentum(self.rates):
                words["momentum"] = f"{words['lr']}.momentum"
        if self.optimizer == "Muon":
            words["round_to_bfloat16"] = "False"
        called = ", ".join(f"{name}={word}" for name, word in words.items())
        return f"optim.{TORCH[self.optimizer].__name__}({called})"


def moves_momentum(rates: Rates) -> bool:
    """Whether it moves more than the learning rate."""
    return bool(rates.settings.get("cycle_momentum"))


# -------------------------------------------------------------------------------------- strategies

_BOOL = st.booleans()
_SWITCHES = ("amsgrad", "maximize", "decoupled_weight_decay", "nesterov", "centered")
_NEWEST_RULE = ["spectral_unclamped"] if NEWEST else []
_VALUES: dict[str, list[Any]] = {
    "lr": [1e-3, 0.02, 0.3],
    "betas": [(a, b) for a in (0.0, 0.5, 0.9) for b in (0.0, 0.9, 0.999)],
    "eps": [1e-8, 1e-2, 1.0],
    "weight_decay": [0.1, 1.0],
    "momentum_decay": [0.0, 4e-3, 0.5],
    "rho": [0.0, 0.5, 0.95, 1.0],
    "lr_decay": [0.1, 1.0],
    "initial_accumulator_value": [0.1, 2.0],
    "alpha": [0.5, 0.99],  # 0 and centered: the root of a 0 that is all rounding
    "momentum": [0.0, 0.1, 0.9],
    "dampening": [0.0, 0.5, 1.0],
    "etas": [(0.5, 1.2), (0.1, 3.0)],
    "step_sizes": [(1e-6, 50), (1e-2, 0.05)],
    "lambd": [1e-4, 0.5],
    "t0": [0.0, 3.0, 1e6],
    "beta2_decay": [-0.8, -0.1, 0.0],
    "d": [1.0, 3.0],
    "ns_steps": [1, 5],
    "adjust_lr_fn": [None, "original", "match_rms_adamw", *_NEWEST_RULE],
    "foreach": [None, False, True],
    **{switch: [False, True] for switch in _SWITCHES},
}
KEYWORDS = {keyword: st.sampled_from(values) for keyword, values in _VALUES.items()}
"""What PyTorch's keywords are drawn from."""

OF_ITS_OWN: dict[tuple[str, str], st.SearchStrategy[Any]] = {
    ("Adafactor", "eps"): st.tuples(st.sampled_from([None, 1e-2]), st.sampled_from([1e-3, 0.1])),
    ("ASGD", "alpha"): st.sampled_from([0.5, 0.75, 1.0]),
    ("Muon", "momentum"): st.sampled_from([0.0, 0.5, 0.95]),
    ("Muon", "eps"): st.sampled_from([1e-7, 0.5]),
}
"""The same where an optimizer's keyword is another thing."""

UNDRAWN = {"capturable", "differentiable", "fused", "ns_coefficients"}
"""Keywords that change nothing or need a GPU; Muon's coefficients, which converge as they are."""

SHAPES = [(), (1,), (3,), (2, 3), (4, 1), (0,), (0, 2), (2, 2, 3), (1, 1, 1, 1)]

OPTIMIZERS = sorted(TORCH.keys() - {"LBFGS"})
"""All but LBFGS, which takes a closure: test_lbfgs.py."""

MOMENTUM = ("SGD", "RMSprop", "Adam", "AdamW")
"""Whose momentum or beta1 a schedule may move."""


def _of(name: str, **settings: Any) -> st.SearchStrategy[Rates]:
    """A scheduler with settings as they are or are drawn; None leaves one to its default."""
    drawn = {k: v if isinstance(v, st.SearchStrategy) else st.just(v) for k, v in settings.items()}
    return st.fixed_dictionaries(drawn).map(
        lambda words: case(name, **{k: v for k, v in words.items() if v is not None})
    )


_GAMMA = st.sampled_from([0.1, 0.9, 1.1])
_COUNT = st.integers(1, 6)
_ITERATIONS = st.none() | _COUNT

_SINGLE = st.one_of(
    _of("step_lr", step_size=_COUNT, gamma=_GAMMA),
    _of("multi_step_lr", milestones=st.lists(st.integers(0, 8), max_size=3), gamma=0.5),
    _of("exponential_lr", gamma=_GAMMA),
    _of("cosine_annealing_lr", T_max=_COUNT, eta_min=1e-3),
    _of("constant_lr", factor=st.sampled_from([None, 0.25, 1.0]), total_iters=_ITERATIONS),
    _of("linear_lr", end_factor=st.sampled_from([None, 0.25, 1.0]), total_iters=_ITERATIONS),
    _of("polynomial_lr", power=st.sampled_from([None, 0.5, 2.0]), total_iters=_ITERATIONS),
)


def _cycles(moves: bool) -> st.SearchStrategy[Rates]:
    modes = st.sampled_from(["triangular", "triangular2"])
    ends = {"base_lr": 0.01, "max_lr": 0.2}
    return st.one_of(
        _of("cyclic_lr", **ends, step_size_up=_COUNT, mode=modes, cycle_momentum=moves),
        _of("one_cycle_lr", max_lr=0.2, total_steps=13, three_phase=_BOOL, cycle_momentum=moves),
    )


_PAIRS = st.tuples(_SINGLE, _SINGLE)
_COMBINED = st.one_of(
    st.builds(lambda pair, at: case("sequential_lr", *pair, milestones=[at]), _PAIRS, _COUNT),
    _PAIRS.map(lambda pair: case("chained_scheduler", *pair)),
)
_RESTARTS = _of("cosine_annealing_warm_restarts", T_0=_COUNT, T_mult=2)
RATES = st.one_of(_SINGLE, _cycles(False), _RESTARTS, _COMBINED)
MOVING = _cycles(True)

CLIPS = st.one_of(
    st.tuples(
        st.just("clip_grad_norm"),
        st.tuples(st.sampled_from([0.1, 1.0, 1e3]), st.sampled_from([2.0, 1.0, 3.0, "inf"])),
    ),
    st.tuples(st.just("clip_grad_value"), st.tuples(st.sampled_from([0.05, 0.5]))),
)


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """Any case that PyTorch does not refuse: no empty tensor for Adafactor, say."""
    name = draw(st.sampled_from(OPTIMIZERS))
    keywords = torch_options(name).keys() - UNDRAWN
    options = draw(
        st.fixed_dictionaries(
            {},
            optional={key: OF_ITS_OWN.get((name, key), KEYWORDS[key]) for key in sorted(keywords)},
        )
    )
    if name == "SGD" and options.get("nesterov"):
        options |= {"momentum": options.get("momentum") or 0.9, "dampening": 0.0}
    fitting = [
        shape
        for shape in SHAPES
        if (name != "Muon" or len(shape) == 2)
        and (name != "SparseAdam" or shape)
        and (name != "Adafactor" or 0 not in shape)
    ]
    shapes = draw(st.lists(st.sampled_from(fitting), min_size=1, max_size=3))
    rates = draw(st.none() | RATES | (MOVING if name in MOMENTUM else RATES))
    clip = None if name == "SparseAdam" else draw(st.none() | CLIPS)
    if clip and clip[1][-1] == "inf" and any(0 in shape for shape in shapes):
        clip = (clip[0], (clip[1][0], 2.0))  # an empty tensor has no largest entry: refused
    return Case(
        name, options, shapes, draw(st.integers(1, 12)), draw(st.integers(0, 9)), rates, clip
    )
