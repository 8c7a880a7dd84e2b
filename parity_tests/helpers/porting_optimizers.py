"""docs/porting/optimizers.md: PyTorch's optimizers, their twins, and how near optax comes.

`python -m parity_tests.helpers.porting_optimizers` prints the page as measured now; `--write`
writes it.
"""

import math
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from twinstep.jax import optim
from twinstep.jax.optim import lr_scheduler
from twinstep.jax.optim._from_torch import TORCH

# where pytest finds these, and `python -m` does not
sys.path.insert(0, str(Path(__file__).parents[1]))

from helpers.optimizer_runs import BAR, default_dtype, jax_run, problem_for, torch_run
from helpers.porting_schedules import Page
from helpers.training import (
    FULL,
    jax_params,
    jax_steps,
    named_loss,
    off,
    torch_setup,
    torch_steps,
)

PAGE = Path(__file__).parents[2] / "docs" / "porting" / "optimizers.md"
_UPDATES = FULL[:2]
_ITERATIONS = 20  # of LBFGS, an update
_LR = 0.01
_FACTOR = "lambda t: 1 / (1 + 0.05 * t)"

_HEAD = f"""# Porting optimizers

What to write for each of `torch.optim`: the twin in `twinstep.jax.optim`, which has PyTorch's
names, defaults and arithmetic, and the nearest that optax has. A gap is the largest difference of
any parameter tensor after any of 200 updates, in float64, relative to its largest entry so far:
8-16-16-3 with tanh, mean squared error, random minibatches of 32; Muon trains its matrices alone,
SparseAdam an embedding with sparse gradients, LBFGS on all samples, 2 updates of {_ITERATIONS}
iterations each. "rounding" is up to {BAR:g}; "about" is said of what grows so fast that its order
of magnitude is all that repeats.

`sparse_adam` and `lbfgs` need more than gradients: `update(..., touched=...)` and
`update(..., value_and_grad_fn=...)`. `muon` and `adafactor` look at axes: over Flax's layouts they
go through `in_torch_layout`. `from_torch("Adam", lr=0.01)` makes the twin by PyTorch's name, or of
one of its optimizers.

Written by `python -m parity_tests.helpers.porting_optimizers --write`.

| PyTorch | twinstep | optax | gap of optax | gap of twinstep | why |
|---|---|---|---|---|---|
"""


@dataclass(frozen=True)
class Row:
    """One optimizer's call, the nearest of optax's, and why that differs.

    optax: "" where it has nothing near; scheduled: its learning rate falls from _LR on
    about: of which gaps, optax's and the twin's, the order of magnitude is all that repeats
    """

    call: str
    optax: str
    why: str
    about: tuple[bool, bool] = (False, False)
    scheduled: bool = False

    @property
    def name(self) -> str:
        return self.call.partition("(")[0]

    @property
    def options(self) -> dict[str, Any]:
        return eval(self._with("dict"))

    @property
    def torch(self) -> str:
        """PyTorch's call in words."""
        made = self._with(self.name, "params")
        return f"LambdaLR({made}, {_FACTOR})" if self.scheduled else made

    @property
    def twin(self) -> str:
        """The twin's call."""
        rate = [f"lr=lambda_lr({_LR}, {_FACTOR})"] if self.scheduled else []
        return self._with(TORCH[self.name].__name__, *rate)

    def _with(self, name: str, *first: str) -> str:
        """The call of another name, with more arguments before the keywords."""
        keywords = self.call.removeprefix(self.name)[1:-1]
        return f"{name}({', '.join([*first, *filter(None, [keywords])])})"


_SAME = "the same"
_BEFORE_MOMENTUM = "optax multiplies by the learning rate before the momentum, PyTorch after it"
_RAW = "PyTorch keeps the largest second moment and corrects it, optax the largest corrected one"
_ROOT = "optax divides by sqrt(sum + eps), PyTorch by sqrt(sum) + eps"
_RADAM = "PyTorch adds eps to the root before its correction, optax after it"
_NADAM = "PyTorch's first beta grows with the steps (momentum_decay), optax's is constant"

# what is called, the nearest of optax, and why that differs
_ROWS: dict[str, tuple[Any, ...]] = {
    "SGD(lr=0.01)": ("sgd(0.01)", _SAME),
    "SGD(lr=0.01, weight_decay=0.1, momentum=0.9, nesterov=True)": (
        "chain(add_decayed_weights(0.1), sgd(0.01, momentum=0.9, nesterov=True))",
        _SAME,
    ),
    "SGD(lr=0.01, momentum=0.9, dampening=0.5)": (
        "sgd(0.01, momentum=0.9)",
        "optax has no dampening; PyTorch's leaves out the first gradient",
    ),
    "Adam(lr=0.01, weight_decay=0.1)": (
        "chain(add_decayed_weights(0.1), adam(0.01))",
        "the same in float64; in float32 optax's 1 - beta2^t is up to 2e-5 off",
    ),
    "Adam(lr=0.01, amsgrad=True)": ("amsgrad(0.01)", _RAW),
    "AdamW(lr=0.01, weight_decay=0.1)": ("adamw(0.01, weight_decay=0.1)", "as Adam"),
    "AdamW(lr=0.01, weight_decay=0.1, amsgrad=True)": (
        "chain(scale_by_amsgrad(), add_decayed_weights(0.1), scale_by_learning_rate(0.01))",
        _RAW,
    ),
    "Adadelta(weight_decay=0.1)": ("adadelta(1.0, weight_decay=0.1)", _SAME),
    "Adagrad()": ("adagrad(0.01, initial_accumulator_value=0.0, eps=1e-10)", _ROOT),
    "Adagrad(eps=0.001)": ("adagrad(0.01, initial_accumulator_value=0.0, eps=1e-3)", _ROOT),
    "Adagrad(lr_decay=0.1, initial_accumulator_value=0.1)": (
        "adagrad(lambda t: 0.01 / (1 + 0.1 * t.astype(float)), 0.1, eps=1e-10)",
        _ROOT,
    ),
    "Adamax(lr=0.01, weight_decay=0.1)": ("chain(add_decayed_weights(0.1), adamax(0.01))", _SAME),
    "RMSprop()": ("rmsprop(0.01, decay=0.99)", "optax adds eps under the root"),
    "RMSprop(centered=True, momentum=0.5)": (
        "rmsprop(0.01, decay=0.99, eps_in_sqrt=False, centered=True, momentum=0.5)",
        "the same with eps_in_sqrt=False",
    ),
    "RMSprop(momentum=0.5)": (
        f"rmsprop(lambda t: {_LR} / (1 + 0.05 * t.astype(float)), decay=0.99, eps_in_sqrt=False,"
        " momentum=0.5)",
        _BEFORE_MOMENTUM,
        (False, False),
        True,
    ),
    "Rprop()": (
        "rprop(0.01)",
        "optax gives out the update of the step before, the first time 0",
        (True, False),
    ),
    "NAdam()": ("nadam(0.002)", _NADAM),
    "NAdam(weight_decay=0.1, decoupled_weight_decay=True)": (
        "nadamw(0.002, weight_decay=0.1)",
        _NADAM,
    ),
    "RAdam()": ("radam(0.001)", _RADAM),
    "RAdam(eps=0.001)": ("radam(0.001, eps=1e-3)", _RADAM),
    "RAdam(weight_decay=0.1, decoupled_weight_decay=True)": (
        "chain(scale_by_radam(), add_decayed_weights(0.1), scale_by_learning_rate(0.001))",
        _RADAM,
    ),
    "ASGD()": ("", "optax has no averaged SGD, nor its falling rate"),
    "Adafactor()": (
        "adafactor(lambda t: jnp.minimum(0.01, (t + 1.0) ** -0.5), min_dim_size_to_factor=1,"
        " eps=2.0**-104)",
        "optax computes 1 - t^-0.8 in float32 and adds eps; its relative step, its eps and what is"
        " factored are converted here",
    ),
    "Muon()": (
        "contrib.muon(0.001, eps=1e-7, weight_decay=0.1,"
        " muon_weight_dimension_numbers=lambda params: jax.tree.map("
        "lambda p: contrib.MuonDimensionNumbers(1, 0), params))",
        "PyTorch iterates in bfloat16, whose rounding parts the twin from it too; optax iterates in"
        " the parameters' dtype, and corrects its momentum's bias",
        (True, True),
    ),
    "SparseAdam(lr=0.01)": (
        "adam(0.01)",
        "optax moves every row, and forgets in those that no gradient touches",
    ),
    "LBFGS(line_search_fn='strong_wolfe')": (
        "lbfgs(memory_size=100)",
        "optax's first step, line search and what it remembers differ; its update is one iteration",
        (True, False),
    ),
}
ROWS = [Row(call, *words) for call, words in _ROWS.items()]


def gaps(row: Row) -> tuple[float, float]:
    """Of optax's optimizer, infinite where it has none, and of the twin."""
    if row.name == "LBFGS":
        return _lbfgs_gaps(row)
    factor = eval(_FACTOR) if row.scheduled else None
    theirs = torch_run(row.name, row.options, factor=factor)
    problem = problem_for(row.name)

    def gap(made: optax.GradientTransformation) -> float:
        ours = jax_run(made, problem)
        return max(off(theirs[key], ours[key], key) for key in problem.trained)

    twin, theirs_nearest = _made(row)
    return math.inf if theirs_nearest is None else gap(theirs_nearest), gap(twin)


def _made(row: Row) -> tuple[Any, Any]:
    """(the twin, optax's or None)"""
    with default_dtype("float64"):
        twin = eval(row.twin, {**vars(lr_scheduler), **vars(optim)})
        words = {**vars(optax), "jax": jax, "jnp": jnp}
        return twin, eval(row.optax, words) if row.optax else None


def _lbfgs_gaps(row: Row) -> tuple[float, float]:
    """The same on all samples; an update of optax's is an iteration of PyTorch's."""
    with default_dtype("float64"):
        theirs = torch_steps(*torch_setup("LBFGS", **row.options), _UPDATES)
        twin, nearest = _made(row)
        _, _, ours = jax_steps(twin, _UPDATES)

        def loss(params: Any) -> jax.Array:
            return named_loss(params, _UPDATES[0])

        def iteration(carry: Any, _: Any) -> tuple[Any, Any]:
            params, state = carry
            value, grads = optax.value_and_grad_from_state(loss)(params, state=state)
            updates, state = nearest.update(
                grads, state, params, value=value, grad=grads, value_fn=loss
            )
            params = optax.apply_updates(params, updates)
            return (params, state), params

        def run(carry: Any) -> Any:
            return jax.lax.scan(iteration, carry, None, _ITERATIONS * len(_UPDATES))[1]

        every = jax.jit(run)((jax_params(), nearest.init(jax_params())))

    def gap(found: Callable[[str], np.ndarray]) -> float:
        return max(off(np.stack([p[k] for p in theirs]), found(k), k) for k in theirs[0])

    return (
        gap(lambda key: np.asarray(every[key])[_ITERATIONS - 1 :: _ITERATIONS]),
        gap(lambda key: np.stack([p[key] for p in ours])),
    )


_PAGE = Page(PAGE, _HEAD, ROWS, gaps, BAR, "rounding", "no such optimizer")
shown, is_as_stated, faults = _PAGE.shown, _PAGE.is_as_stated, _PAGE.faults

if __name__ == "__main__":
    sys.exit(_PAGE.main(sys.argv[1:]))
