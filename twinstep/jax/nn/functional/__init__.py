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
from twinstep.jax.nn.functional.distance import cosine_similarity, pairwise_distance, pdist
from twinstep.jax.nn.functional.embedding import embedding, embedding_bag, one_hot
from twinstep.jax.nn.functional.linear import bilinear, linear
from twinstep.jax.nn.functional.losses_classes import cross_entropy, linear_cross_entropy, nll_loss
from twinstep.jax.nn.functional.losses_ctc import ctc_loss
from twinstep.jax.nn.functional.losses_labels import (
    multi_margin_loss,
    multilabel_margin_loss,
    multilabel_soft_margin_loss,
)
from twinstep.jax.nn.functional.losses_likelihood import (
    binary_cross_entropy,
    binary_cross_entropy_with_logits,
    gaussian_nll_loss,
    kl_div,
    poisson_nll_loss,
)
from twinstep.jax.nn.functional.losses_margin import (
    cosine_embedding_loss,
    hinge_embedding_loss,
    margin_ranking_loss,
    soft_margin_loss,
    triplet_margin_loss,
    triplet_margin_with_distance_loss,
)
from twinstep.jax.nn.functional.losses_regression import (
    huber_loss,
    l1_loss,
    mse_loss,
    smooth_l1_loss,
)
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
    "binary_cross_entropy",
    "binary_cross_entropy_with_logits",
    "celu",
    "cosine_embedding_loss",
    "cosine_similarity",
    "cross_entropy",
    "ctc_loss",
    "elu",
    "embedding",
    "embedding_bag",
    "gaussian_nll_loss",
    "gelu",
    "glu",
    "group_norm",
    "hardshrink",
    "hardsigmoid",
    "hardswish",
    "hardtanh",
    "hinge_embedding_loss",
    "huber_loss",
    "instance_norm",
    "kl_div",
    "l1_loss",
    "layer_norm",
    "leaky_relu",
    "linear",
    "linear_cross_entropy",
    "local_response_norm",
    "log_softmax",
    "logsigmoid",
    "margin_ranking_loss",
    "mish",
    "mse_loss",
    "multi_head_attention_forward",
    "multi_margin_loss",
    "multilabel_margin_loss",
    "multilabel_soft_margin_loss",
    "nll_loss",
    "normalize",
    "one_hot",
    "pairwise_distance",
    "pdist",
    "poisson_nll_loss",
    "prelu",
    "relu",
    "relu6",
    "rms_norm",
    "scaled_dot_product_attention",
    "selu",
    "sigmoid",
    "silu",
    "smooth_l1_loss",
    "soft_margin_loss",
    "softmax",
    "softmin",
    "softplus",
    "softshrink",
    "softsign",
    "tanh",
    "tanhshrink",
    "threshold",
    "triplet_margin_loss",
    "triplet_margin_with_distance_loss",
]
