"""Whether the kit's functions and layers give what PyTorch's give: values, gradients, buffers.

An array is right within 1e-13 of PyTorch's largest entry, plus 8 eps of the largest input (of the
largest cotangent for a gradient), plus 8 times what one eps in every input does to PyTorch's own
array: where terms cancel or a tanh saturates PyTorch itself is known no better. In float32 64 eps
of the same scales stand for the first two.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import torch
from numpy.typing import NDArray

Array = NDArray[Any]
Function = Callable[..., Any]
MAIN = {"float64": 1e-13, "float32": 64 * float(np.finfo(np.float32).eps)}
"""{dtype: allowed of an array's largest entry}"""


class Result(NamedTuple):
    """What a call gave: its outputs, and the gradients of its floating inputs by their place."""

    outputs: list[Array]
    grads: dict[str, Array]


class Case(NamedTuple):
    """A call: arguments in NumPy or plain Python, the same for both.

    draws: the outputs are drawn, from a generator that both sides seed
    main: what is allowed of the largest entry in float64, where it is not 1e-13
    fixed: the places of floats that PyTorch refuses to derive by ("1.NAME" of a keyword)
    """

    args: Sequence[Any]
    kwargs: Mapping[str, Any] = {}
    main: float | None = None
    fixed: Sequence[str] = ()


class Port(NamedTuple):
    """A row of the porting tables: what a function or layer is without the kit, and what people
    write.

    pure: the call of JAX, Flax or optax that equals it, as text; None: there is none
    call: that call, with PyTorch's arguments
    naive: what is written in its place and is something else, as text; None: nothing known
    naive_call: that, with PyTorch's arguments; one of the cases has to show it
    why: in a line, what differs
    """

    pure: str | None
    call: Function | None
    naive: str | None = None
    naive_call: Function | None = None
    why: str = ""


def floating(value: Any) -> bool:
    """Whether something is an array of real or complex floats."""
    return isinstance(value, np.ndarray) and value.dtype.kind in "fc"


def leaves(args: Any) -> dict[str, Any]:
    """{place: value} of nested tuples, lists and dicts."""
    if isinstance(args, Mapping):
        items: Any = args.items()
    elif isinstance(args, list | tuple):
        items = enumerate(args)
    else:
        return {"": args}
    return {
        f"{key}.{inner}".rstrip("."): leaf
        for key, value in items
        for inner, leaf in leaves(value).items()
    }


def mapped(args: Any, change: Callable[[str, Any], Any], place: str = "") -> Any:
    """Nested tuples, lists and dicts with each leaf changed, which is given its place."""
    inner = f"{place}." if place else ""
    if isinstance(args, Mapping):
        return {k: mapped(v, change, f"{inner}{k}") for k, v in args.items()}
    if isinstance(args, list | tuple):
        return type(args)(mapped(v, change, f"{inner}{i}") for i, v in enumerate(args))
    return change(place, args)


def cast(args: Any, dtype: str) -> Any:
    """The same arguments with their floats in a dtype."""
    narrow = {"f": np.dtype(dtype), "c": np.result_type(dtype, np.complex64)}
    return mapped(args, lambda _, v: v.astype(narrow[v.dtype.kind]) if floating(v) else v)


def cotangents(outputs: Sequence[Any]) -> list[Array]:
    """What each output's entries are multiplied with before they are summed up to be derived."""
    rng = np.random.default_rng(7)
    return [rng.uniform(0.5, 1.5, o.shape).astype(o.dtype.char.lower()) for o in outputs]


def _outputs(value: Any) -> list[Any]:
    return [leaf for leaf in leaves(value).values() if leaf is not None]


def in_torch(function: Function, args: Any, kwargs: Any, fixed: Sequence[str] = ()) -> Result:
    """What PyTorch's function gives; its integers as wide as JAX's are."""
    inputs: dict[str, torch.Tensor] = {}

    def tensor(place: str, value: Any) -> Any:
        if not isinstance(value, np.ndarray):
            return value
        made = torch.tensor(value)
        if floating(value) and place not in fixed:
            inputs[place] = made.requires_grad_()
        return made

    args, kwargs = mapped([list(args), dict(kwargs)], tensor)
    out = _outputs(function(*args, **kwargs))
    outputs = [o.detach().numpy() if isinstance(o, torch.Tensor) else np.asarray(o) for o in out]
    outputs = [o.astype(jnp.asarray(0).dtype) if o.dtype == np.int64 else o for o in outputs]
    pairs = [(o, c) for o, c in zip(out, cotangents(outputs), strict=True) if _derivable(o)]
    if not pairs or not inputs:
        return Result(outputs, {})
    total = sum((o * torch.tensor(c)).sum() for o, c in pairs)
    total = total.real if total.is_complex() else total
    found = torch.autograd.grad(total, list(inputs.values()), allow_unused=True)
    grads = {
        place: np.zeros_like(inputs[place].detach().numpy()) if g is None else g.detach().numpy()
        for place, g in zip(inputs, found, strict=True)
    }
    return Result(outputs, {p: g.conj() for p, g in grads.items()})


def _derivable(output: Any) -> bool:
    return isinstance(output, torch.Tensor) and output.requires_grad


def in_jax(function: Function, args: Any, kwargs: Any, jit: bool = False) -> Result:
    """What the kit's function gives; jit: compiled, values and gradients in one program."""
    everything = [list(args), dict(kwargs)]
    arrays = {p: jnp.asarray(v) for p, v in leaves(everything).items() if isinstance(v, np.ndarray)}
    inputs = {p: v for p, v in arrays.items() if floating(np.asarray(v))}
    others = {p: v for p, v in arrays.items() if p not in inputs}

    def called(inputs: Mapping[str, Any], others: Mapping[str, Any]) -> list[Any]:
        given = {**inputs, **others}
        args, kwargs = mapped(everything, lambda place, value: given.get(place, value))
        return _outputs(function(*args, **kwargs))

    first = jax.eval_shape(called, inputs, others) if jit else called(inputs, others)
    weights = cotangents(first)

    def total(inputs: Mapping[str, Any], others: Mapping[str, Any]) -> Any:
        outputs = called(inputs, others)
        terms = [
            jnp.sum(o * c)
            for o, c in zip(outputs, weights, strict=True)
            if jnp.issubdtype(o.dtype, jnp.inexact)
        ]
        return (jnp.real(sum(terms)) if terms else jnp.zeros(())), outputs

    derived = jax.value_and_grad(total, has_aux=True)
    if jit:
        (_, outputs), grads = jax.jit(derived)(inputs, others)
    else:  # as called by itself: what is derived may take another way
        outputs, grads = first, (derived(inputs, others)[1] if inputs else {})
    found = [np.asarray(output) for output in outputs]
    return Result(found, {place: np.asarray(g) for place, g in grads.items()})


def largest(arrays: Any) -> float:
    """The largest finite absolute entry of some arrays."""
    flat = [np.abs(a[np.isfinite(a)]) for a in arrays if np.size(a)]
    return max((float(a.max()) for a in flat if a.size), default=0.0)


def nudged(args: Any, seed: int) -> Any:
    """Every floating input moved by one eps of itself, up or down; 1, which may be the highest
    probability, down."""
    rng = np.random.default_rng(seed)

    def moved(_: str, value: Any) -> Any:
        if not floating(value):
            return value
        eps = np.finfo(value.dtype).eps
        way = np.where(np.abs(value) == 1, -1, rng.choice([-1, 1], value.shape))
        return np.asarray(value * (1 + eps * way), value.dtype)  # a product of 0-d arrays is none

    return mapped(args, moved)


def allowed(
    wanted: Array, scale: float, sensitivity: float, dtype: str, main: float | None
) -> float:
    """How far an array may be from PyTorch's."""
    eps = float(np.finfo(dtype).eps)
    share = MAIN[dtype] if main is None or dtype != "float64" else main
    plain = 8 * eps if dtype == "float64" else MAIN[dtype]
    return share * largest([wanted]) + plain * scale + 8 * sensitivity


def apart(found: Any, wanted: Any) -> float:
    """The largest difference; inf where shapes, dtypes, NaNs or infinities are not the same."""
    found, wanted = np.asarray(found), np.asarray(wanted)
    if found.shape != wanted.shape or found.dtype != wanted.dtype:
        return np.inf
    odd = ~np.isfinite(wanted) if wanted.dtype.kind in "fc" else np.zeros(wanted.shape, bool)
    if not np.array_equal(found[odd], wanted[odd], equal_nan=wanted.dtype.kind in "fc"):
        return np.inf
    if wanted.dtype.kind not in "fc":
        return 0.0 if np.array_equal(found, wanted) else np.inf
    difference = np.abs(found[~odd] - wanted[~odd])
    worst = float(difference.max()) if difference.size else 0.0
    return worst if np.isfinite(worst) else np.inf


def compared(
    found: Result, wanted: Result, moved: Sequence[Result], args: Any, dtype: str,
    main: float | None,
) -> list[str]:  # fmt: skip
    """What is not right, a line each."""
    wrong = []
    if len(found.outputs) != len(wanted.outputs):
        return [f"{len(found.outputs)} outputs, expected {len(wanted.outputs)}"]
    scale = largest(v for v in leaves(args).values() if floating(v))
    cotangent = largest(cotangents(wanted.outputs))
    for i, (one, other) in enumerate(zip(found.outputs, wanted.outputs, strict=True)):
        shift = max((apart(m.outputs[i], other) for m in moved), default=0.0)
        bound = allowed(other, scale, _finite(shift), dtype, main)
        if not (off := apart(one, other)) <= bound:
            wrong.append(f"output {i}: off by {off:.3g}, allowed {bound:.3g}; {_kinds(one, other)}")
    for place, other in wanted.grads.items():
        shift = max((apart(m.grads[place], other) for m in moved), default=0.0)
        bound = allowed(other, cotangent, _finite(shift), dtype, main)
        one = found.grads[place]
        if not (off := apart(one, other)) <= bound:
            wrong.append(
                f"gradient of {place}: off by {off:.3g}, allowed {bound:.3g}; {_kinds(one, other)}"
            )
    return wrong


def _finite(value: float) -> float:
    """A kink's other side says nothing of rounding."""
    return value if np.isfinite(value) else 0.0


def _kinds(one: Any, other: Any) -> str:
    one, other = np.asarray(one), np.asarray(other)
    return f"{one.dtype}{one.shape} against {other.dtype}{other.shape}"


def gap(found: Result, wanted: Result) -> float:
    """The largest difference of an output or a gradient as a part of PyTorch's largest entry.

    inf: one is not finite where the other is; -1: an output has another shape
    """
    pairs = [*zip(found.outputs, wanted.outputs, strict=False)]
    pairs += [(found.grads[place], grad) for place, grad in wanted.grads.items()]
    if any(one.shape != other.shape for one, other in pairs):
        return -1.0
    return max((_relative(one, other) for one, other in pairs), default=0.0)


def _relative(one: Array, other: Array) -> float:
    if one.dtype.kind not in "fc":
        return float(not np.array_equal(one, other))
    finite = np.isfinite(one) & np.isfinite(other)
    same = (one == other) | (np.isnan(one) & np.isnan(other))
    if not (finite | same).all():
        return np.inf
    gaps, sizes = np.abs(one - other)[finite], np.abs(other)[finite]
    return float(gaps.max(initial=0) / (sizes.max(initial=0) or 1.0))


def differences(
    ours: Function, theirs: Function, case: Case, dtype: str = "float64", jit: bool | None = None
) -> list[str]:
    """What the kit's function does otherwise than PyTorch's, a line each.

    Both are called with the same arguments; the gradients are of the outputs' weighted sum.
    jit: only compiled, or only eagerly; None: both
    """
    args, kwargs = cast([list(case.args), dict(case.kwargs)], dtype)
    with jax.enable_x64(dtype == "float64"):
        wanted = in_torch(theirs, args, kwargs, case.fixed)
        off = [nudged([args, kwargs], seed) for seed in (1, 2)]
        moved = [in_torch(theirs, given, options, case.fixed) for given, options in off]
        return [
            f"{'jit' if way else 'eager'}, {dtype}: {line}"
            for way in ((False, True) if jit is None else (jit,))
            for line in compared(
                in_jax(ours, args, kwargs, way), wanted, moved, [args, kwargs], dtype, case.main
            )
        ]
