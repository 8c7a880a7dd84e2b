"""torch.nn in Flax: PyTorch's names, arguments, axes and arithmetic, first values, masks."""

from twinstep.jax.nn import functional, init, utils
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
from twinstep.jax.nn.module import Buffer, Module, Parameter
from twinstep.jax.nn.porting import from_torch
from twinstep.jax.nn.rnn import GRU, LSTM, RNN
from twinstep.jax.nn.rnn_cells import GRUCell, LSTMCell, RNNCell
from twinstep.jax.nn.sparse import Embedding
from twinstep.jax.nn.weights import load_state_dict, state_dict

__all__ = [
    "GRU", "LSTM", "RNN", "Buffer", "Embedding", "GRUCell", "Generator", "Identity", "LSTMCell",
    "Linear", "Module", "ModuleDict", "ModuleList", "Parameter", "ParameterDict", "ParameterList",
    "RNNCell", "Sequential", "default_generator", "dot_general", "from_torch", "functional", "init",
    "load_state_dict", "manual_seed", "state_dict", "to_tensor", "utils",
]  # fmt: skip
