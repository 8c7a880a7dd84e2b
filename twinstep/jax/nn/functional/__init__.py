"""torch.nn.functional: PyTorch's names, arguments and axes, its gradients at kinks."""

from twinstep.jax.nn.functional.activation import (
    hardshrink,
    hardsigmoid,
    hardswish,
    hardtanh,
    leaky_relu,
    prelu,
    relu,
    relu6,
    softshrink,
    threshold,
)
from twinstep.jax.nn.functional.attention import (
    multi_head_attention_forward,
    scaled_dot_product_attention,
)
from twinstep.jax.nn.functional.batch_norm import batch_norm, instance_norm
from twinstep.jax.nn.functional.embedding import embedding, embedding_bag, one_hot
from twinstep.jax.nn.functional.linear import bilinear, linear
from twinstep.jax.nn.functional.losses import cross_entropy, huber_loss, l1_loss, mse_loss
from twinstep.jax.nn.functional.normalization import (
    group_norm,
    layer_norm,
    local_response_norm,
    normalize,
    rms_norm,
)
from twinstep.jax.nn.functional.smooth_activation import (
    celu,
    elu,
    gelu,
    glu,
    logsigmoid,
    mish,
    selu,
    sigmoid,
    silu,
    softplus,
    softsign,
    tanh,
    tanhshrink,
)
from twinstep.jax.nn.functional.softmax import log_softmax, softmax, softmin

__all__ = [
    "batch_norm",
    "bilinear",
    "celu",
    "cross_entropy",
    "elu",
    "embedding",
    "embedding_bag",
    "gelu",
    "glu",
    "group_norm",
    "hardshrink",
    "hardsigmoid",
    "hardswish",
    "hardtanh",
    "huber_loss",
    "instance_norm",
    "l1_loss",
    "layer_norm",
    "leaky_relu",
    "linear",
    "local_response_norm",
    "log_softmax",
    "logsigmoid",
    "mish",
    "mse_loss",
    "multi_head_attention_forward",
    "normalize",
    "one_hot",
    "prelu",
    "relu",
    "relu6",
    "rms_norm",
    "scaled_dot_product_attention",
    "selu",
    "sigmoid",
    "silu",
    "softmax",
    "softmin",
    "softplus",
    "softshrink",
    "softsign",
    "tanh",
    "tanhshrink",
    "threshold",
]
