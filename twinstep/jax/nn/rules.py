"""Where PyTorch's parameters lie in Flax's own layers, whose kernels have other axes: one table."""

from collections import abc
from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

from flax import nnx

from twinstep.errors import InputError
from twinstep.jax.trees import dotted

__all__ = ["RULES", "Rule", "Rules", "register", "rules_of"]


class Rule(NamedTuple):
    """Where a PyTorch parameter lies in a Flax layer, and the axes that take it there.

    Args:
        path: Its keys in the layer.
        axes: PyTorch's axes by Flax's, as `jnp.transpose` of Flax's array takes them; None: it is
            the same in both; a function of the number of axes gives them.

    Example:
        >>> from flax import nnx
        >>> from twinstep.jax.layout import Rule, module_layout
        >>> conv = {  # (H, W, in, out) to (out, in, H, W)
        ...     "weight": Rule(("kernel",), (3, 2, 0, 1)),
        ...     "bias": Rule(("bias",), None),
        ... }
        >>> model = nnx.Conv(3, 8, (5, 5), rngs=nnx.Rngs(0))
        >>> layout = module_layout(model, rules={nnx.Conv: conv})
        >>> layout.to_torch(nnx.state(model, nnx.Param))["weight"].shape
        (8, 3, 5, 5)

    Source: https://docs.pytorch.org/docs/stable/nn.html
    """

    path: tuple[str, ...]
    axes: tuple[int, ...] | Callable[[int], tuple[int, ...]] | None

    def axes_of(self, ndim: int) -> tuple[int, ...] | None:
        """PyTorch's axes of an array of Flax's that has so many.

        Args:
            ndim: How many.

        Returns:
            They, or None where they are the same.

        Raises:
            InputError: Where they are not so many.
        """
        axes = self.axes(ndim) if callable(self.axes) else self.axes
        if axes is not None and sorted(axes) != list(range(ndim)):
            raise InputError(f"{dotted(self.path)!r} has {ndim} axes, its rule {axes}")
        return axes


Rules: TypeAlias = abc.Mapping[Any, abc.Mapping[str, Rule]]
"""{kind of layer: {PyTorch's name: where Flax keeps it}}"""

SWAP = (1, 0)  # (out, in) <-> (in, out)


def _conv(ndim: int) -> tuple[int, ...]:
    """(k..., in, out) -> (out, in, k...)"""
    return (ndim - 1, ndim - 2, *range(ndim - 2))


_BIAS = Rule(("bias",), None)
_SCALED = {"weight": Rule(("scale",), None), "bias": _BIAS}

RULES: dict[Any, abc.Mapping[str, Rule]] = {
    nnx.Linear: {"weight": Rule(("kernel",), SWAP), "bias": _BIAS},
    nnx.Conv: {"weight": Rule(("kernel",), _conv), "bias": _BIAS},
    nnx.Embed: {"weight": Rule(("embedding",), None)},
    nnx.LayerNorm: _SCALED,
    nnx.RMSNorm: {"weight": Rule(("scale",), None)},
    nnx.GroupNorm: _SCALED,
    nnx.InstanceNorm: _SCALED,
    nnx.BatchNorm: _SCALED
    | {"running_mean": Rule(("mean",), None), "running_var": Rule(("var",), None)},
}


def rules_of(module: nnx.Module, table: Rules) -> abc.Mapping[str, Rule]:
    """The rules for a layer of a kind in the table, or of one made from such; else none."""
    return next((table[kind] for kind in type(module).__mro__ if kind in table), {})


def register(kind: type[nnx.Module], rules: abc.Mapping[str, Rule]) -> None:
    """Makes the rules of a kind of layer known to all that names or lays out parameters.

    `nn.state_dict`, `nn.load_state_dict`, `module_layout` and `load_params` follow them from then
    on, for the layers made from it too; `rules=` of a single call comes before them.

    Args:
        kind: A class of Flax's layers, or of one's own.
        rules: {PyTorch's name: where Flax keeps it}.

    Raises:
        InputError: For what is no class of layers, no rules, or a class that has other rules.

    Example:
        >>> from flax import nnx
        >>> from twinstep.jax import nn
        >>> from twinstep.jax.layout import Rule
        >>> class Upsampling(nnx.ConvTranspose):  # as PyTorch has it, with transpose_kernel=True
        ...     pass
        >>> weight = Rule(("kernel",), (3, 2, 0, 1))  # (H, W, out, in) to (in, out, H, W)
        >>> nn.register(Upsampling, {"weight": weight, "bias": Rule(("bias",), None)})
        >>> layer = Upsampling(3, 8, (5, 5), transpose_kernel=True, rngs=nnx.Rngs(0))
        >>> {name: array.shape for name, array in nn.state_dict(layer).items()}
        {'weight': (3, 8, 5, 5), 'bias': (8,)}

    Source: https://docs.pytorch.org/docs/stable/nn.html
    """
    if not isinstance(kind, type) or not issubclass(kind, nnx.Module):
        raise InputError(f"register: kind is {kind!r}, expected a class of nnx.Module")
    if not isinstance(rules, abc.Mapping) or not rules:
        raise InputError(f"register: rules is {rules!r}, expected {{PyTorch's name: Rule}}")
    for name, rule in rules.items():
        if not isinstance(name, str) or not isinstance(rule, Rule):
            raise InputError(f"register: rules has {name!r}: {rule!r}, expected a name and a Rule")
    if RULES.get(kind, rules) != rules:
        raise InputError(
            f"register: {kind.__name__} has rules already, {', '.join(RULES[kind])}; expected "
            "those, or rules= of a single call"
        )
    RULES[kind] = dict(rules)
