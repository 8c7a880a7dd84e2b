"""A kit's module with the weight norms, spectral norms and orthogonal matrices of PyTorch's."""

from collections.abc import Callable
from typing import Any

from twinstep.errors import InputError
from twinstep.jax.nn.utils import own_norms, parametrizations

__all__ = ["class_before", "computed_names", "register_as"]

_HOME = "torch.nn.utils"
_PARAMETRIZED = f"{_HOME}.parametrize"

PARAMETRIZATIONS: dict[str, Callable[[Any, str, Any], Any]] = {
    "_WeightNorm": lambda made, name, p: parametrizations.weight_norm(made, name, p.dim),
    "_SpectralNorm": lambda made, name, p: parametrizations.spectral_norm(
        made, name, getattr(p, "n_power_iterations", 1), p.eps, p.dim
    ),
    "_Orthogonal": lambda made, name, p: parametrizations.orthogonal(
        made, name, p.orthogonal_map.name, use_trivialization=hasattr(p, "base")
    ),
}
HOOKS: dict[str, Callable[[Any, Any], Any]] = {
    "WeightNorm": lambda made, hook: own_norms.weight_norm(made, hook.name, hook.dim),
    "SpectralNorm": lambda made, hook: own_norms.spectral_norm(
        made, hook.name, hook.n_power_iterations, hook.eps, hook.dim
    ),
}


def class_before(module: Any) -> type:
    """A PyTorch module's class before it was parametrized."""
    kind = type(module)
    return kind.__bases__[0] if kind.__module__ == _PARAMETRIZED else kind


def computed_names(module: Any) -> set[str]:
    """The parameters that a PyTorch module computes."""
    return {*_parametrized(module)} | {hook.name for hook in _hooks(module)}


def register_as(made: Any, module: Any) -> None:
    """Has a kit's module and those within compute their weights as PyTorch's do.

    InputError for parametrizations of one's own.
    """
    for path, theirs in module.named_modules(remove_duplicate=False):
        if not computed_names(theirs):
            continue
        ours = made.get_submodule(path)
        for name, found in _parametrized(theirs).items():
            for one in found:
                kind = type(one)
                if kind.__name__ not in PARAMETRIZATIONS or not kind.__module__.startswith(_HOME):
                    raise InputError(
                        f"from_torch: {path or 'module'}.{name} has the parametrization "
                        f"{kind.__name__}, expected one of torch.nn.utils.parametrizations; "
                        "register its port and use load_state_dict"
                    )
                PARAMETRIZATIONS[kind.__name__](ours, name, one)
        for hook in _hooks(theirs):
            HOOKS[type(hook).__name__](ours, hook)


def _parametrized(module: Any) -> dict[str, Any]:
    if type(module).__module__ != _PARAMETRIZED:
        return {}
    return dict(getattr(module, "parametrizations", {}))


def _hooks(module: Any) -> list[Any]:
    """Those of the norms' old names."""
    hooks = getattr(module, "_forward_pre_hooks", {}).values()
    return [one for one in hooks if type(one).__module__.startswith(_HOME)]
