"""How parametrized arrays are computed and set: what `parametrize` registers."""

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.extend
import jax.numpy as jnp
import numpy as np
from flax import nnx

from twinstep.errors import InputError
from twinstep.jax.nn.computed import Computed
from twinstep.jax.nn.container import ModuleList
from twinstep.jax.nn.module import Buffer, Parameter

__all__ = ["CACHE", "ParametrizationList", "Parametrized", "check_kept", "is_trained", "like"]


class Cache:
    """What was computed since `cached` was entered; kept are the module and the trace, since
    another one may later have the same id."""

    def __init__(self) -> None:
        self.entered = 0
        self.found: dict[tuple[int, str], tuple[Any, Any, jax.Array]] = {}

    def value(self, module: Any, name: str) -> jax.Array:
        """A parametrized array of a module's, the same one as long as the cache is entered."""
        computed = module.parametrizations[name]
        if not self.entered:
            return _array(computed())
        trace = jax.extend.core.get_opaque_trace_state(convention="nnx")
        kept = self.found.get((id(module), name))
        if kept is None or kept[1] != trace:
            kept = module, trace, computed()
            self.found[id(module), name] = kept
        return kept[2]


CACHE = Cache()


@dataclass(frozen=True)
class Parametrized(Computed):
    """An attribute that the parametrizations under its name give.

    Args:
        name: The attribute.
        old: Names that a state_dict may have instead, with the places of what they hold.
    """

    old: tuple[tuple[str, str], ...] = ()

    def value(self, module: Any) -> jax.Array:
        """As Computed's."""
        return CACHE.value(module, self.name)

    def assign(self, module: Any, value: Any) -> None:
        """As Computed's: by way of the parametrizations' right_inverse."""
        if isinstance(value, nnx.Param):
            self.refuse(module, "parametrized, expected an array to set it to, not a parameter")
        module.parametrizations[self.name].right_inverse(value)

    def loaded(self) -> dict[str, str]:
        """As Computed's."""
        return dict(self.old)


class ParametrizationList(ModuleList):
    """The parametrizations of an array and what it is computed of: `original`, or several.

    `register_parametrization` makes it.

    Args:
        modules: The parametrizations, the first one first.
        original: The parameter or buffer that was there.
        unsafe: Whether they may change the shape and the dtype.

    Shape:
        Takes nothing and gives the array. original, or where the first one's right_inverse gives
        several, original0, original1, ...

    Raises:
        InputError: For what PyTorch refuses.

    Example:
        >>> from twinstep.jax import nn
        >>> layer = nn.utils.parametrizations.weight_norm(nn.Linear(3, 2))
        >>> found = layer.parametrizations.weight
        >>> type(found).__name__, found.original0.shape, found.original1.shape
        ('ParametrizationList', (2, 1), (2, 3))

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.utils.parametrize.ParametrizationList.html
    """

    def __init__(
        self, modules: Sequence[nnx.Module], original: nnx.Variable[Any], unsafe: bool = False
    ) -> None:
        if not modules:
            raise InputError("ParametrizationList: modules are none, expected one or more")
        super().__init__(modules)
        self.unsafe = unsafe
        before = original[...]
        new: Any = before
        for module in reversed(list(self)):
            with contextlib.suppress(NotImplementedError):
                new = module.right_inverse(new) if hasattr(module, "right_inverse") else new
        self.is_tensor = _is_array(new)
        self.ntensors = 1
        if self.is_tensor:
            if new.dtype != before.dtype:
                raise InputError(f"right_inverse: dtype is {new.dtype}, expected {before.dtype}")
            original.set_value(jnp.asarray(new))
            self.original = original
        else:
            new = _arrays(new)
            self.ntensors = len(new)
            for i, array in enumerate(new):
                setattr(self, f"original{i}", like(original, array))
        if not unsafe:
            check_kept("parametrization", self(), before)

    def originals(self) -> list[Any]:
        """What the array is computed of.

        Returns:
            The parameters or buffers.
        """
        if self.is_tensor:
            return [self.original]
        return [getattr(self, f"original{i}") for i in range(self.ntensors)]

    def right_inverse(self, value: Any) -> None:
        """Changes the originals so that the array is a value, as far as right_inverse can.

        Args:
            value: The value.

        Raises:
            InputError: Where a parametrization has no right_inverse, or it gives what does not fit.
        """
        new: Any = jnp.asarray(value)
        for module in reversed(list(self)):
            if not hasattr(module, "right_inverse"):
                raise InputError(f"{type(module).__name__} has no right_inverse, expected one")
            try:
                new = module.right_inverse(new)
            except NotImplementedError as error:
                raise InputError(f"{type(module).__name__}: {error}") from None
        originals = self.originals()
        if self.is_tensor and not _is_array(new):
            raise InputError(f"right_inverse: {type(new).__name__} is given, expected an array")
        arrays = [new] if self.is_tensor else _arrays(new)
        if len(arrays) != len(originals):
            raise InputError(f"right_inverse: {len(arrays)} arrays, expected {len(originals)}")
        for original, array in zip(originals, arrays, strict=True):
            if array.dtype != original.dtype:
                raise InputError(
                    f"right_inverse: dtype is {array.dtype}, expected {original.dtype}"
                )
        for original, array in zip(originals, arrays, strict=True):
            original.set_value(jnp.asarray(array))

    def forward(self) -> Any:
        """As said above."""
        first, *others = self
        value = first(*(original[...] for original in self.originals()))
        for module in others:
            value = module(value)
        return value


def _is_array(value: Any) -> bool:
    return isinstance(value, jax.Array | np.ndarray)


def _array(value: Any) -> jax.Array:
    if not _is_array(value):
        raise InputError(f"parametrization: {type(value).__name__} is given, expected an array")
    return jnp.asarray(value)


def _arrays(value: Any) -> list[Any]:
    """Several arrays that a right_inverse gave."""
    if not isinstance(value, Sequence) or not all(map(_is_array, value)):
        kinds = type(value).__name__
        raise InputError(f"right_inverse: {kinds} is given, expected an array or several")
    return list(value)


def is_trained(variable: nnx.Variable[Any]) -> bool:
    """Whether it is a parameter, not a buffer."""
    return isinstance(variable, nnx.Param)


def like(original: nnx.Variable[Any], array: jax.Array) -> Parameter | Buffer:
    """A variable of the same kind."""
    if not is_trained(original):
        return Buffer(array)
    return Parameter(array, original.get_metadata().get("requires_grad", True))


def check_kept(what: str, found: Any, before: jax.Array) -> None:
    """Raises InputError for another shape or dtype than before."""
    found = _array(found)
    for kind in ("dtype", "shape"):
        if (now := getattr(found, kind)) != getattr(before, kind):
            raise InputError(
                f"{what}: {kind} is {now}, expected {getattr(before, kind)}, or unsafe=True"
            )
