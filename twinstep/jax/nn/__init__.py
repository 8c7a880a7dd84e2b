"""torch.nn in Flax: PyTorch's names, arguments, axes and arithmetic, first values, masks."""

from twinstep.jax.nn import functional, init, utils
from twinstep.jax.nn.activation import (
    Hardshrink,
    Hardsigmoid,
    Hardswish,
    Hardtanh,
    LeakyReLU,
    PReLU,
    ReLU,
    ReLU6,
    RReLU,
    Softshrink,
    Threshold,
)
from twinstep.jax.nn.batchnorm import BatchNorm1d, BatchNorm2d, BatchNorm3d, SyncBatchNorm
from twinstep.jax.nn.container import (
    ModuleDict,
    ModuleList,
    ParameterDict,
    ParameterList,
    Sequential,
)
from twinstep.jax.nn.distance import CosineSimilarity, PairwiseDistance
from twinstep.jax.nn.drawing import default_generator, manual_seed
from twinstep.jax.nn.dropout import (
    AlphaDropout,
    Dropout,
    Dropout1d,
    Dropout2d,
    Dropout3d,
    FeatureAlphaDropout,
)
from twinstep.jax.nn.generator import Generator
from twinstep.jax.nn.images import to_tensor
from twinstep.jax.nn.instancenorm import InstanceNorm1d, InstanceNorm2d, InstanceNorm3d
from twinstep.jax.nn.linear import Bilinear, Identity, Linear, dot_general
from twinstep.jax.nn.module import Buffer, Module, Parameter
from twinstep.jax.nn.normalization import (
    CrossMapLRN2d,
    GroupNorm,
    LayerNorm,
    LocalResponseNorm,
    RMSNorm,
)
from twinstep.jax.nn.porting import from_torch
from twinstep.jax.nn.rnn import GRU, LSTM, RNN
from twinstep.jax.nn.rnn_cells import GRUCell, LSTMCell, RNNCell
from twinstep.jax.nn.smooth_activation import (
    CELU,
    ELU,
    GELU,
    GLU,
    SELU,
    LogSigmoid,
    Mish,
    Sigmoid,
    SiLU,
    Softplus,
    Softsign,
    Tanh,
    Tanhshrink,
)
from twinstep.jax.nn.softmax import LogSoftmax, Softmax, Softmax2d, Softmin
from twinstep.jax.nn.sparse import Embedding, EmbeddingBag
from twinstep.jax.nn.weights import load_state_dict, state_dict

__all__ = [
    "CELU", "ELU", "GELU", "GLU", "GRU", "LSTM", "RNN", "SELU", "AlphaDropout", "BatchNorm1d",
    "BatchNorm2d", "BatchNorm3d", "Bilinear", "Buffer", "CosineSimilarity", "CrossMapLRN2d",
    "Dropout", "Dropout1d", "Dropout2d", "Dropout3d", "Embedding", "EmbeddingBag",
    "FeatureAlphaDropout", "GRUCell", "Generator", "GroupNorm", "Hardshrink", "Hardsigmoid",
    "Hardswish", "Hardtanh", "Identity", "InstanceNorm1d", "InstanceNorm2d", "InstanceNorm3d",
    "LSTMCell", "LayerNorm", "LeakyReLU", "Linear", "LocalResponseNorm", "LogSigmoid",
    "LogSoftmax", "Mish", "Module", "ModuleDict", "ModuleList", "PReLU", "PairwiseDistance",
    "Parameter", "ParameterDict", "ParameterList", "RMSNorm", "RNNCell", "RReLU", "ReLU",
    "ReLU6", "Sequential", "SiLU", "Sigmoid", "Softmax", "Softmax2d", "Softmin", "Softplus",
    "Softshrink", "Softsign", "SyncBatchNorm", "Tanh", "Tanhshrink", "Threshold",
    "default_generator", "dot_general", "from_torch", "functional", "init", "load_state_dict",
    "manual_seed", "state_dict", "to_tensor", "utils",
]  # fmt: skip
