"""torch.nn in Flax: PyTorch's names, arguments, axes and arithmetic, first values, masks."""

from twinstep.jax.nn import functional, init
from twinstep.jax.nn.container import (
    ModuleDict,
    ModuleList,
    ParameterDict,
    ParameterList,
    Sequential,
)
from twinstep.jax.nn.drawing import default_generator, manual_seed
from twinstep.jax.nn.generator import Generator
from twinstep.jax.nn.images import to_tensor
from twinstep.jax.nn.linear import Identity, Linear, dot_general
from twinstep.jax.nn.loss import (
    HuberLoss,
    L1Loss,
    MSELoss,
    SmoothL1Loss,
)
from twinstep.jax.nn.loss_classes import (
    CrossEntropyLoss,
    CTCLoss,
    LinearCrossEntropyLoss,
    NLLLoss,
    NLLLoss2d,
)
from twinstep.jax.nn.loss_labels import (
    MultiLabelMarginLoss,
    MultiLabelSoftMarginLoss,
    MultiMarginLoss,
)
from twinstep.jax.nn.loss_likelihood import (
    BCELoss,
    BCEWithLogitsLoss,
    GaussianNLLLoss,
    KLDivLoss,
    PoissonNLLLoss,
)
from twinstep.jax.nn.loss_margin import (
    CosineEmbeddingLoss,
    HingeEmbeddingLoss,
    MarginRankingLoss,
    SoftMarginLoss,
    TripletMarginLoss,
    TripletMarginWithDistanceLoss,
)
from twinstep.jax.nn.module import Buffer, Module, Parameter
from twinstep.jax.nn.porting import from_torch
from twinstep.jax.nn.rnn import GRU, RNN
from twinstep.jax.nn.sparse import Embedding
from twinstep.jax.nn.weights import load_state_dict, state_dict

__all__ = [
    "GRU",
    "RNN",
    "BCELoss",
    "BCEWithLogitsLoss",
    "Buffer",
    "CTCLoss",
    "CosineEmbeddingLoss",
    "CrossEntropyLoss",
    "Embedding",
    "GaussianNLLLoss",
    "Generator",
    "HingeEmbeddingLoss",
    "HuberLoss",
    "Identity",
    "KLDivLoss",
    "L1Loss",
    "Linear",
    "LinearCrossEntropyLoss",
    "MSELoss",
    "MarginRankingLoss",
    "Module",
    "ModuleDict",
    "ModuleList",
    "MultiLabelMarginLoss",
    "MultiLabelSoftMarginLoss",
    "MultiMarginLoss",
    "NLLLoss",
    "NLLLoss2d",
    "Parameter",
    "ParameterDict",
    "ParameterList",
    "PoissonNLLLoss",
    "Sequential",
    "SmoothL1Loss",
    "SoftMarginLoss",
    "TripletMarginLoss",
    "TripletMarginWithDistanceLoss",
    "default_generator",
    "dot_general",
    "from_torch",
    "functional",
    "init",
    "load_state_dict",
    "manual_seed",
    "state_dict",
    "to_tensor",
]
