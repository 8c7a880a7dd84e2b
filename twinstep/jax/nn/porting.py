"""The kit's counterpart of a PyTorch module that is made of PyTorch's own layers.

It is read by its attributes: PyTorch is not imported. A layer's attributes bear the names of its
constructor's arguments; where they do not, ARGUMENTS says where an argument is found.
"""

import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from twinstep.errors import InputError, unknown
from twinstep.jax.nn import functional
from twinstep.jax.nn.container import (
    ModuleDict,
    ModuleList,
    ParameterDict,
    ParameterList,
    Sequential,
)
from twinstep.jax.nn.module import Module
from twinstep.jax.nn.utils.porting_norms import class_before, computed_names, register_as
from twinstep.jax.nn.weights import entries, held_dtype, load_state_dict

__all__ = ["from_torch"]

_IGNORED = {"device", "dtype", "generator", "rngs", "self", "inplace", "size_average", "reduce"}
Read = Callable[[Any], Any]


def _there(attribute: str) -> Read:
    """Whether a layer has a parameter."""
    return lambda module: getattr(module, attribute, None) is not None


_LAYER: dict[str, Read] = {
    "d_model": lambda m: m.self_attn.embed_dim,
    "nhead": lambda m: m.self_attn.num_heads,
    "dim_feedforward": lambda m: m.linear1.out_features,
    "dropout": lambda m: m.dropout.p,
    "layer_norm_eps": lambda m: m.norm1.eps,
    "batch_first": lambda m: m.self_attn.batch_first,
    "bias": lambda m: m.linear1.bias is not None,
}
ARGUMENTS: dict[str, dict[str, Read]] = {
    "MultiheadAttention": {
        "bias": lambda m: m.in_proj_bias is not None,
        "add_bias_kv": _there("bias_k"),
    },
    "TransformerEncoderLayer": _LAYER,
    "TransformerDecoderLayer": _LAYER,
    "TransformerEncoder": {"encoder_layer": lambda m: m.layers[0]},
    "TransformerDecoder": {"decoder_layer": lambda m: m.layers[0]},
    "Transformer": {
        "num_encoder_layers": lambda m: len(m.encoder.layers),
        "num_decoder_layers": lambda m: len(m.decoder.layers),
        "custom_encoder": lambda m: m.encoder,
        "custom_decoder": lambda m: m.decoder,
    },
    "AdaptiveLogSoftmaxWithLoss": {"cutoffs": lambda m: m.cutoffs[:-1]},
    "LinearCrossEntropyLoss": {
        "in_features": lambda m: m.linear.in_features,
        "bias": lambda m: m.linear.bias is not None,
    },
    "PReLU": {"init": lambda m: 0.25},
    "PairwiseDistance": {"p": lambda m: m.norm},
}


def from_torch(module: Any) -> Any:
    """The kit's counterpart of a module of PyTorch's own layers, with its weights and buffers.

    Args:
        module: One of torch.nn's layers, losses or containers, of such ones all through.

    Returns:
        A module of the kit's; each within is in training or not as there.

    Raises:
        InputError: For a module of one's own: port its class, then use `load_state_dict`.

    Example:
        >>> import torch
        >>> from twinstep.jax import nn
        >>> net = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.Identity())
        >>> nn.from_torch(net)[0].weight.shape
        (2, 3)

    Source: https://docs.pytorch.org/docs/stable/nn.html
    """
    made = _made(module, "")
    register_as(made, module)
    named = {name: _array(tensor) for name, tensor in module.state_dict().items()}
    for name, entry in entries(made).items():
        if name in named and entry.variable.dtype != (kind := held_dtype(named[name].dtype)):
            entry.variable.set_value(entry.variable[...].astype(kind))
    load_state_dict(made, named)
    for theirs, ours in zip(_modules(module), _modules(made), strict=True):
        ours.training = theirs.training
    return made


def _kit(kind: type) -> Iterator[Any]:
    """The kit's classes that are made from one."""
    one: Any
    for one in kind.__subclasses__():
        if one.__module__.startswith("twinstep.jax.nn."):
            yield one
            yield from _kit(one)


def _made(module: Any, path: str) -> Any:
    kind = class_before(module)
    if not kind.__module__.startswith("torch.nn."):
        raise InputError(
            f"from_torch: {path or 'module'} is a {kind.__name__} of {kind.__module__}, expected "
            "one of torch.nn's own; port the class and use load_state_dict"
        )
    layers = {layer.__name__: layer for layer in _kit(Module)}
    ours = layers.get(kind.__name__)
    if ours is None:
        raise InputError(f"from_torch: {unknown('layer', kind.__name__, layers)}")
    if ours in (ParameterList, ParameterDict):
        return ours(
            {k: _array(v) for k, v in module.items()}
            if ours is ParameterDict
            else map(_array, module)
        )
    if ours in (Sequential, ModuleDict):
        return ours({name: _made(m, f"{path}.{name}") for name, m in module._modules.items()})
    if ours is ModuleList:
        return ours([_made(m, f"{path}.{i}") for i, m in enumerate(module)])
    known = ARGUMENTS.get(kind.__name__, {})
    arguments = {
        name: _ported(known[name](module) if name in known else _attribute(module, name), path)
        for name, parameter in inspect.signature(ours.__init__).parameters.items()
        if name not in _IGNORED
        and parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
        and (name in known or hasattr(module, name))
    }
    return ours(**arguments)


def _attribute(module: Any, name: str) -> Any:
    """A setting; of a parameter that a layer may do without, whether it has it."""
    value = getattr(module, name)
    if name in module._parameters or name in computed_names(module):
        return value is not None
    return value


def _ported(value: Any, path: str) -> Any:
    """A setting as the kit takes it."""
    if hasattr(value, "state_dict"):
        return _made(value, path)
    if hasattr(value, "detach"):
        return jnp.asarray(_array(value))
    if isinstance(value, tuple):
        return tuple(value)
    if callable(value) and getattr(value, "__module__", "").startswith("torch"):
        return getattr(functional, value.__name__)
    return value


def _array(tensor: Any) -> Any:
    """A tensor's numbers; bfloat16, which NumPy has not, as JAX has it."""
    tensor = tensor.detach().cpu()
    if str(tensor.dtype) == "torch.bfloat16":
        return np.asarray(jnp.asarray(tensor.float().numpy(), jnp.bfloat16))
    return np.array(tensor.numpy())  # PyTorch writes into its own


def _modules(module: Any) -> Any:
    """All modules within, a shared one each time, in the order of their names."""
    yield module
    children: Mapping[str, Any] = dict(
        module._modules if hasattr(module, "_modules") else module.named_children()
    )
    for name in sorted(name for name, child in children.items() if child is not None):
        yield from _modules(children[name])
