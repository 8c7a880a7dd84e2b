"""An optimizer as people use it, drawn at random: the dtype, what holds the parameters, what is
around the optimizer, special values, and a state that goes elsewhere and comes back.

A narrow step starts from PyTorch's parameters and state: free running, one rounding that goes the
other way grows to anything.
"""

import math
import pickle
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx, serialization
from helpers.optimizer_pairs import NAMES, REAL, Pair, to_jax
from helpers.optimizer_runs import BAR, Options, default_dtype
from helpers.random_cases import KEYWORDS, OF_ITS_OWN, UNDRAWN
from hypothesis import strategies as st

from twinstep.jax.layout import tree_layout
from twinstep.jax.optim import opt_state_from_torch, opt_state_to_torch, param_groups, torch_options
from twinstep.jax.optim._from_torch import TORCH
from twinstep.jax.trees import by_path, dotted

Arrays = Mapping[str, jax.Array]
Factory = Callable[..., optax.GradientTransformation]

STEPS = 4
NARROW = ("bfloat16", "float16")
BARS = {
    "float64": BAR,
    "complex128": BAR,
    "float32": 1e-4,  # eps 1e-8 under a root that is as small
    "bfloat16": 2.0**-7,  # one ulp of the largest entry
    "float16": 2.0**-10,
}


def all_true(tree: Any) -> Any:
    """A mask, or a label, for every parameter."""
    return jax.tree.map(lambda _: True, tree)


def as_state(arrays: Arrays) -> nnx.State:
    """As nnx.state has the parameters of a model."""
    model = nnx.Module()
    for name, array in arrays.items():
        setattr(model, name, nnx.Param(array))
    return nnx.state(model, nnx.Param)


CONTAINERS: dict[str, Callable[[Arrays], Any]] = {
    "dict": dict,
    "list": lambda arrays: list(arrays.values()),
    "nested": lambda arrays: {name: ({"w": array}, None) for name, array in arrays.items()},
    "reversed": lambda arrays: OrderedDict(reversed([*arrays.items()])),
    "nnx": as_state,
}
"""What holds the parameters; the same for gradients."""


def _multi_steps(optimizer: optax.GradientTransformation) -> optax.GradientTransformation:
    """With what `update` takes besides, which its own gradient_transformation leaves out."""
    steps = optax.MultiSteps(optimizer, 1)
    return optax.GradientTransformationExtraArgs(steps.init, steps.update)


WRAPPERS: dict[str, Callable[[Factory, Options], optax.GradientTransformation]] = {
    "none": lambda make, options: make(**options),
    "chains": lambda make, options: optax.chain(
        optax.identity(), optax.chain(optax.chain(make(**options)), optax.identity())
    ),
    "inject_hyperparams": lambda make, options: optax.inject_hyperparams(
        make, hyperparam_dtype=jnp.result_type(float)
    )(**options),
    "masked": lambda make, options: optax.masked(make(**options), all_true),
    "MultiSteps": lambda make, options: _multi_steps(make(**options)),
    "param_groups": lambda make, options: param_groups(
        [{"params": lambda name: True}], optimizer=make, **options
    ),
    "partition": lambda make, options: optax.partition(
        {True: make(**options), False: optax.set_to_zero()}, all_true
    ),
}
"""What is around the optimizer."""

HANDED: dict[str, Callable[[Any], Any]] = {
    "kept": lambda state: state,
    "pickle": lambda state: pickle.loads(pickle.dumps(state)),
    "msgpack": lambda state: serialization.from_bytes(state, serialization.to_bytes(state)),
}
"""Where the state goes between two steps; "torch": to PyTorch and back."""


@dataclass(frozen=True)
class Use:
    """One of them; special: flat indices of a gradient in the second step, and their values."""

    optimizer: str
    options: Options
    dtype: str
    container: str = "dict"
    wrapper: str = "none"
    handed: str = "kept"
    special: tuple[tuple[int, float], ...] = ()


def apart(use: Use) -> float:
    """The largest gap to PyTorch, in units of what is allowed in the dtype."""
    narrow = use.dtype in NARROW
    with default_dtype(
        "float32" if narrow else {"complex128": "float64"}.get(use.dtype, use.dtype)
    ):
        pair, hold = Pair(use.optimizer, use.options, use.dtype), CONTAINERS[use.container]
        twin = optax.with_extra_args_support(
            WRAPPERS[use.wrapper](TORCH[use.optimizer], use.options)
        )
        params = hold(pair.params)
        layout, state = tree_layout(params), twin.init(params)
        names = sorted(map(dotted, by_path(params)))

        def from_torch(state_dict: Any, count: int) -> Any:
            return opt_state_from_torch(
                state_dict, twin.init(params), layout, names=names, count=count
            )

        update, found = jax.jit(twin.update), 0.0
        for step in range(STEPS):
            if narrow and step:
                params, state = hold(theirs(pair)), from_torch(pair.optimizer.state_dict(), step)
            pair.step_theirs({"a": dict(use.special)} if step == 1 and use.special else None)
            more = {key: hold(tree) for key, tree in pair.more.items()}
            updates, state = update(hold(pair.grads), state, params, **more)
            params = optax.apply_updates(params, updates)
            found = max(found, gap(theirs(pair), by_path(params)) / BARS[use.dtype])
            if use.handed == "torch":
                groups = [{**pair.optimizer.state_dict()["param_groups"][0]}]
                state = from_torch(opt_state_to_torch(state, groups, layout, names=names), step + 1)
            else:
                state = HANDED[use.handed](state)
        return found


def theirs(pair: Pair) -> dict[str, jax.Array]:
    """PyTorch's parameters."""
    return {key: to_jax(p) for key, p in pair.theirs.items()}


def gap(right: Arrays, ours: Mapping[Any, jax.Array]) -> float:
    """As a share of the largest finite entry; infinite where one is finite and the other not."""
    largest = 0.0
    for wanted, (_, given) in zip(right.values(), sorted(ours.items()), strict=True):
        assert wanted.dtype == given.dtype
        a, b = (np.asarray(x).astype("complex128") for x in (wanted, given))
        finite = np.isfinite(a)
        if not np.array_equal(a[~finite], b[~finite], equal_nan=True):
            return math.inf
        size = np.abs(a[finite]).max(initial=0.0)
        off = np.abs(a[finite] - b[finite]).max(initial=0.0)
        largest = max(largest, float(off / size) if off else 0.0)
    return largest


def options_of(name: str) -> st.SearchStrategy[Options]:
    """Options that PyTorch takes."""
    keys = sorted(torch_options(name).keys() - UNDRAWN - {"foreach"})
    drawn = {key: OF_ITS_OWN.get((name, key), KEYWORDS[key]) for key in keys}

    def right(options: Options) -> Options:
        if name == "SGD" and options.get("nesterov"):
            return {**options, "momentum": options.get("momentum") or 0.9, "dampening": 0.0}
        return options

    return st.fixed_dictionaries({}, optional=drawn).map(right)


@st.composite
def uses(draw: st.DrawFn, dtype: str) -> Use:
    """Any use in a dtype."""
    name = draw(st.sampled_from([n for n in NAMES if dtype != "complex128" or n not in REAL]))
    special: Any = ()
    if dtype == "float64":
        values = st.sampled_from([math.nan, math.inf, -math.inf, -0.0])
        special = draw(st.lists(st.tuples(st.integers(0, 34), values), max_size=3))
    container = draw(st.sampled_from(sorted(CONTAINERS)))
    handed = draw(st.sampled_from([*HANDED, "torch"]))
    if handed == "msgpack" and container in ("nnx", "reversed"):
        handed = "kept"  # flax.serialization knows neither nnx.State nor OrderedDict
    wrappers = sorted(WRAPPERS)
    if dtype == "complex128":
        wrappers.remove("MultiSteps")  # whose sums are real
    wrapper = draw(st.sampled_from(wrappers))
    if wrapper == "MultiSteps":
        special = ()  # a NaN stays in its sum for good: it is multiplied by 0
    return Use(name, draw(options_of(name)), dtype, container, wrapper, handed, tuple(special))
