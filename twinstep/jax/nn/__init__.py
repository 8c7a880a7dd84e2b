"""torch.nn in Flax: PyTorch's names, arguments, axes and arithmetic, first values, masks."""

from twinstep.jax.nn import (
    functional,
    init,
    utils,
)
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
from twinstep.jax.nn.adaptive import (
    AdaptiveLogSoftmaxWithLoss,
)
from twinstep.jax.nn.adaptive_pooling import (
    AdaptiveAvgPool1d,
    AdaptiveAvgPool2d,
    AdaptiveAvgPool3d,
    AdaptiveMaxPool1d,
    AdaptiveMaxPool2d,
    AdaptiveMaxPool3d,
)
from twinstep.jax.nn.attention import (
    MultiheadAttention,
)
from twinstep.jax.nn.batchnorm import (
    BatchNorm1d,
    BatchNorm2d,
    BatchNorm3d,
    SyncBatchNorm,
)
from twinstep.jax.nn.channelshuffle import (
    ChannelShuffle,
)
from twinstep.jax.nn.container import (
    ModuleDict,
    ModuleList,
    ParameterDict,
    ParameterList,
    Sequential,
)
from twinstep.jax.nn.conv import (
    Conv1d,
    Conv2d,
    Conv3d,
)
from twinstep.jax.nn.conv_transpose import (
    ConvTranspose1d,
    ConvTranspose2d,
    ConvTranspose3d,
)
from twinstep.jax.nn.distance import (
    CosineSimilarity,
    PairwiseDistance,
)
from twinstep.jax.nn.drawing import (
    default_generator,
    manual_seed,
)
from twinstep.jax.nn.dropout import (
    AlphaDropout,
    Dropout,
    Dropout1d,
    Dropout2d,
    Dropout3d,
    FeatureAlphaDropout,
)
from twinstep.jax.nn.edge_padding import (
    CircularPad1d,
    CircularPad2d,
    CircularPad3d,
    ReflectionPad1d,
    ReflectionPad2d,
    ReflectionPad3d,
    ReplicationPad1d,
    ReplicationPad2d,
    ReplicationPad3d,
)
from twinstep.jax.nn.flatten import (
    Flatten,
    Unflatten,
)
from twinstep.jax.nn.fold import (
    Fold,
    Unfold,
)
from twinstep.jax.nn.fractional_pooling import (
    FractionalMaxPool2d,
    FractionalMaxPool3d,
)
from twinstep.jax.nn.generator import (
    Generator,
)
from twinstep.jax.nn.images import (
    to_tensor,
)
from twinstep.jax.nn.instancenorm import (
    InstanceNorm1d,
    InstanceNorm2d,
    InstanceNorm3d,
)
from twinstep.jax.nn.linear import (
    Bilinear,
    Identity,
    Linear,
    dot_general,
)
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
from twinstep.jax.nn.module import (
    Buffer,
    Module,
    Parameter,
)
from twinstep.jax.nn.normalization import (
    CrossMapLRN2d,
    GroupNorm,
    LayerNorm,
    LocalResponseNorm,
    RMSNorm,
)
from twinstep.jax.nn.padding import (
    ConstantPad1d,
    ConstantPad2d,
    ConstantPad3d,
    ZeroPad1d,
    ZeroPad2d,
    ZeroPad3d,
)
from twinstep.jax.nn.pixelshuffle import (
    PixelShuffle,
    PixelUnshuffle,
)
from twinstep.jax.nn.pooling import (
    AvgPool1d,
    AvgPool2d,
    AvgPool3d,
    LPPool1d,
    LPPool2d,
    LPPool3d,
    MaxPool1d,
    MaxPool2d,
    MaxPool3d,
)
from twinstep.jax.nn.porting import (
    from_torch,
)
from twinstep.jax.nn.rnn import (
    GRU,
    LSTM,
    RNN,
)
from twinstep.jax.nn.rnn_cells import (
    GRUCell,
    LSTMCell,
    RNNCell,
)
from twinstep.jax.nn.rules import (
    register,
)
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
from twinstep.jax.nn.softmax import (
    LogSoftmax,
    Softmax,
    Softmax2d,
    Softmin,
)
from twinstep.jax.nn.sparse import (
    Embedding,
    EmbeddingBag,
)
from twinstep.jax.nn.transformer import (
    Transformer,
    TransformerDecoder,
    TransformerEncoder,
)
from twinstep.jax.nn.transformer_layers import (
    TransformerDecoderLayer,
    TransformerEncoderLayer,
)
from twinstep.jax.nn.unpooling import (
    MaxUnpool1d,
    MaxUnpool2d,
    MaxUnpool3d,
)
from twinstep.jax.nn.upsampling import (
    Upsample,
    UpsamplingBilinear2d,
    UpsamplingNearest2d,
)
from twinstep.jax.nn.weights import (
    load_state_dict,
    state_dict,
)

__all__ = [
    "CELU", "ELU", "GELU", "GLU", "GRU", "LSTM", "RNN", "SELU", "AdaptiveAvgPool1d",
    "AdaptiveAvgPool2d", "AdaptiveAvgPool3d", "AdaptiveLogSoftmaxWithLoss", "AdaptiveMaxPool1d",
    "AdaptiveMaxPool2d", "AdaptiveMaxPool3d", "AlphaDropout", "AvgPool1d", "AvgPool2d",
    "AvgPool3d", "BCELoss", "BCEWithLogitsLoss", "BatchNorm1d", "BatchNorm2d", "BatchNorm3d",
    "Bilinear", "Buffer", "CTCLoss", "ChannelShuffle", "CircularPad1d", "CircularPad2d",
    "CircularPad3d", "ConstantPad1d", "ConstantPad2d", "ConstantPad3d", "Conv1d", "Conv2d",
    "Conv3d", "ConvTranspose1d", "ConvTranspose2d", "ConvTranspose3d", "CosineEmbeddingLoss",
    "CosineSimilarity", "CrossEntropyLoss", "CrossMapLRN2d", "Dropout", "Dropout1d", "Dropout2d",
    "Dropout3d", "Embedding", "EmbeddingBag", "FeatureAlphaDropout", "Flatten", "Fold",
    "FractionalMaxPool2d", "FractionalMaxPool3d", "GRUCell", "GaussianNLLLoss", "Generator",
    "GroupNorm", "Hardshrink", "Hardsigmoid", "Hardswish", "Hardtanh", "HingeEmbeddingLoss",
    "HuberLoss", "Identity", "InstanceNorm1d", "InstanceNorm2d", "InstanceNorm3d", "KLDivLoss",
    "L1Loss", "LPPool1d", "LPPool2d", "LPPool3d", "LSTMCell", "LayerNorm", "LeakyReLU", "Linear",
    "LinearCrossEntropyLoss", "LocalResponseNorm", "LogSigmoid", "LogSoftmax", "MSELoss",
    "MarginRankingLoss", "MaxPool1d", "MaxPool2d", "MaxPool3d", "MaxUnpool1d", "MaxUnpool2d",
    "MaxUnpool3d", "Mish", "Module", "ModuleDict", "ModuleList", "MultiLabelMarginLoss",
    "MultiLabelSoftMarginLoss", "MultiMarginLoss", "MultiheadAttention", "NLLLoss", "NLLLoss2d",
    "PReLU", "PairwiseDistance", "Parameter", "ParameterDict", "ParameterList", "PixelShuffle",
    "PixelUnshuffle", "PoissonNLLLoss", "RMSNorm", "RNNCell", "RReLU", "ReLU", "ReLU6",
    "ReflectionPad1d", "ReflectionPad2d", "ReflectionPad3d", "ReplicationPad1d",
    "ReplicationPad2d", "ReplicationPad3d", "Sequential", "SiLU", "Sigmoid", "SmoothL1Loss",
    "SoftMarginLoss", "Softmax", "Softmax2d", "Softmin", "Softplus", "Softshrink", "Softsign",
    "SyncBatchNorm", "Tanh", "Tanhshrink", "Threshold", "Transformer", "TransformerDecoder",
    "TransformerDecoderLayer", "TransformerEncoder", "TransformerEncoderLayer",
    "TripletMarginLoss", "TripletMarginWithDistanceLoss", "Unflatten", "Unfold", "Upsample",
    "UpsamplingBilinear2d", "UpsamplingNearest2d", "ZeroPad1d", "ZeroPad2d", "ZeroPad3d",
    "default_generator", "dot_general", "from_torch", "functional", "init", "load_state_dict",
    "manual_seed", "register", "state_dict", "to_tensor", "utils",
]  # fmt: skip
