"""PyTorch's operations on one parameter, as its single-tensor CPU path does and rounds them.

float32 and float64 are XLA's own. bfloat16 and float16 are computed in float32 and rounded once an
operation; a scalar stays wide, but for one that `add` multiplies by or adds, which is rounded
first. XLA would leave such roundings out between two operations, so each is written down. Where a
kernel's last entries round another way than the others, they are those of PyTorch on an x86
processor with AVX2. A complex parameter is two real ones.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from twinstep.errors import InputError
from twinstep.jax.optim.base import is_known, is_zero, lerp, require_params
from twinstep.jax.optim.narrow import is_narrow, nearest
from twinstep.jax.trees import by_path, dotted, in_structure_of, leaves_like, paired

Tree = Any
Array = Any
"""Of a parameter's entries. JAX's, or None: a parameter that `update` was not given."""
Scalar = Any
"""A Python number, or an array, (), of any float."""

_VECTORS = 32  # entries that a kernel takes at once with AVX2; 64 with AVX-512


class Ops:
    """The operations in one dtype. Arrays are in `computed`, each a value of that dtype."""

    def __init__(self, dtype: Any) -> None:
        self.dtype = jnp.dtype(dtype)
        self.narrow = is_narrow(self.dtype)
        self.computed = (
            jnp.dtype(jnp.float32) if self.narrow else jnp.real(jnp.zeros(0, dtype)).dtype
        )

    def rounded(self, x: jax.Array) -> jax.Array:
        """The nearest values of the dtype."""
        return nearest(x, self.dtype) if self.narrow else x

    def number(self, value: Scalar) -> Any:
        """A scalar as wide as the arithmetic; a Python number as it is, which widens nothing."""
        return jnp.asarray(value, self.computed) if hasattr(value, "dtype") else value

    def alpha(self, value: Scalar) -> Any:
        """A scalar as `add` takes it: in the dtype itself."""
        if not self.narrow:
            return self.number(value)
        return self.rounded(jnp.asarray(value, self.computed))

    def add(self, x: jax.Array, y: Any, alpha: Scalar = None) -> jax.Array:
        """x + alpha y; y: an array or a scalar."""
        if not (isinstance(y, jax.Array) and y.ndim):
            y = self.alpha(y)
        return self.rounded(x + (y if alpha is None else self.scaled(y, alpha)))

    def scaled(self, y: jax.Array, alpha: Scalar) -> jax.Array:
        """alpha y as `add` takes it: rounded in the last entries alone."""
        product: jax.Array = self.alpha(alpha) * y
        return self._last(self.rounded(product), product)

    def mul(self, x: jax.Array, y: Any) -> jax.Array:
        """x y; y: an array or a scalar."""
        return self.rounded(x * self.number(y))

    def div(self, x: jax.Array, y: Any) -> jax.Array:
        """x / y; y: an array or a scalar."""
        return self.rounded(x / self.number(y))

    def sqrt(self, x: jax.Array) -> jax.Array:
        """The square root."""
        return self.rounded(jnp.sqrt(x))

    def rsqrt(self, x: jax.Array) -> jax.Array:
        """1 / the square root; in the last entries of that rounded."""
        return self._last(self.rounded(1 / self.sqrt(x)), self.rounded(jax.lax.rsqrt(x)))

    def addcmul(self, x: jax.Array, a: jax.Array, b: jax.Array, value: Scalar) -> jax.Array:
        """x + value a b."""
        return self.rounded(x + self.number(value) * (a * b))

    def addcdiv(self, x: jax.Array, a: jax.Array, b: jax.Array) -> jax.Array:
        """x + a / b."""
        return self.rounded(x + a / b)

    def lerp(self, start: jax.Array, end: jax.Array, weight: Scalar) -> jax.Array:
        """From start towards end, by the weight."""
        return self.rounded(lerp(start, end, self.number(weight)))

    def gradient(
        self, g: jax.Array, p: jax.Array | None, maximize: bool, weight_decay: Scalar = 0
    ) -> jax.Array:
        """The gradient of what is made small, with weight_decay / 2 |p|^2 added to it."""
        g = -g if maximize else g
        if is_zero(weight_decay):
            return g
        decayed = self.add(g, p, weight_decay)
        return decayed if is_known(weight_decay) else jnp.where(weight_decay == 0, g, decayed)

    def decayed(self, p: Any, rate: Scalar, weight_decay: Scalar) -> Any:
        """A parameter that shrinks by rate * weight_decay of itself; rounded: that has a bias."""
        return p if is_zero(weight_decay) else self.mul(p, 1 - rate * weight_decay)

    def update(self, p: Any, *changes: jax.Array, start: Any = None) -> jax.Array:
        """What brings a parameter from p to start + changes. start: p, unless it was changed.

        Of p itself it is the changes, which are not rounded to p's size and back.
        """
        start = p if start is None else start
        change = sum(changes[1:], changes[0])
        if start is p and not self.narrow:
            return change
        new = functools.reduce(self.moved, changes, start) if self.narrow else start + change
        return jnp.where(new == p, -0.0, new - p)  # of an infinity, and of -0, too

    def moved(self, start: jax.Array, change: jax.Array) -> jax.Array:
        """start + change; a change is not rounded before."""
        return self.rounded(start + change)

    def _last(self, these: jax.Array, others: jax.Array) -> jax.Array:
        """These in a narrow dtype's last entries, which fill no vector; elsewhere the others."""
        size = others.size
        whole = size - size % _VECTORS if self.narrow else size
        if whole == size:
            return others
        return jnp.where((jnp.arange(size) >= whole).reshape(others.shape), these, others)


def per_parameter(
    rule: Callable[..., tuple[Any, ...]],
    grads: Tree,
    params: Tree | None,
    *state: Tree,
    beside: Sequence[Tree] = (),
    needs_params: bool = False,
    factored: bool = False,
) -> tuple[Tree, ...]:
    """(updates, a new state ...): a rule for one parameter over all, paired by their paths.

    rule: (its ops, gradient, parameter, what is beside, state ...) -> (update, state ...); params
    may be None unless needs_params, or a parameter is narrow: its update depends on it.
    state: trees like the parameters; factored: of other shapes, and a parameter need not be in each
    beside: trees with something for each parameter that goes in as it is
    """
    named = by_path(grads)
    if not named:
        raise InputError("params has no leaves, expected at least one parameter")
    if needs_params:
        require_params(params)
    columns = [[None] * len(named) if params is None else leaves_like(grads, params, "params")]
    for tree in state:
        columns.append(
            paired(grads, tree, "the state", optional=True)
            if factored
            else leaves_like(grads, tree, "the state")
        )
    extra = [paired(grads, tree, "what is beside the gradients") for tree in beside]
    results = []
    for index, (path, g) in enumerate(named.items()):
        p, *moments = (column[index] for column in columns)
        like = next((leaf for leaf in (p, *moments) if leaf is not None), g)
        results.append(
            _on_one(rule, path, like.dtype, g, p, [column[index] for column in extra], moments)
        )
    updates, *new = zip(*results, strict=True)
    treedef = jax.tree.structure(grads)
    return (
        jax.tree.unflatten(treedef, updates),
        *(in_structure_of(tree, grads, leaves) for tree, leaves in zip(state, new, strict=True)),
    )


def _on_one(
    rule: Any, path: Any, dtype: Any, g: jax.Array, p: Any, beside: list[Any], state: list[Any]
) -> list[Any]:
    """A rule's results for one parameter, in the dtypes of what they take the place of.

    An update is as wide as its gradient and its parameter, but float32 at least: in bfloat16 none
    takes a parameter from 1 to 0.001. `optax.apply_updates` gives the parameter's dtype.
    """
    if not jnp.issubdtype(dtype, jnp.inexact):
        raise InputError(f"parameter {dotted(path)!r} has dtype {dtype}, expected a float")
    ops = Ops(dtype)
    if ops.narrow and p is None:
        raise InputError(
            f"params is None, expected the parameters: {dotted(path)!r} has dtype {dtype}, in "
            "which an update depends on the parameter"
        )

    def seen(array: Any) -> Any:
        if array is None:
            return None
        # the gradient is rounded to the parameter's dtype, as PyTorch's autograd does
        return as_real(array.astype(dtype)).astype(ops.computed)

    update, *new = rule(ops, seen(g), seen(p), *beside, *map(seen, state))
    wider = jnp.promote_types(jnp.promote_types(g.dtype, dtype), jnp.float32)
    return [in_dtype(update, wider)] + [
        in_dtype(array, dtype if old is None else old.dtype)
        for array, old in zip(new, state, strict=True)
    ]


def as_real(array: jax.Array) -> jax.Array:
    """A complex array with its parts on a last axis, as torch.view_as_real; a real one as it is."""
    if not jnp.iscomplexobj(array):
        return array
    return jnp.stack([array.real, array.imag], axis=-1)


def in_dtype(array: Any, dtype: Any) -> Any:
    """Back from `as_real`, and from what is computed, to a dtype; None as it is."""
    if array is None:
        return None
    if jnp.issubdtype(dtype, jnp.complexfloating):
        array = jax.lax.complex(array[..., 0], array[..., 1])
    return array.astype(dtype)
