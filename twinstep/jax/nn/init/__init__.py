"""torch.nn.init: what parameters start from, PyTorch's very numbers from its generator.

Each function fills a Param and returns it; of a plain array it returns a new one. It draws from a
`generator` (a TorchGenerator, or a layer's own), from a `key` of JAX's, or from the default
generator, which `manual_seed` seeds.
"""

from twinstep.jax.nn.init.filling import (
    constant_,
    dirac_,
    eye_,
    normal_,
    ones_,
    trunc_normal_,
    uniform_,
    zeros_,
)
from twinstep.jax.nn.init.matrices import orthogonal_, sparse_
from twinstep.jax.nn.init.scaling import (
    calculate_gain,
    kaiming_normal_,
    kaiming_uniform_,
    xavier_normal_,
    xavier_uniform_,
)

__all__ = [
    "calculate_gain",
    "constant_",
    "dirac_",
    "eye_",
    "kaiming_normal_",
    "kaiming_uniform_",
    "normal_",
    "ones_",
    "orthogonal_",
    "sparse_",
    "trunc_normal_",
    "uniform_",
    "xavier_normal_",
    "xavier_uniform_",
    "zeros_",
]
