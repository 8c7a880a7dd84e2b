"""The forward passes of PyTorch's recurrent models, written out, with what may be wrong in them."""

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch.nn import functional


def gru(
    *,
    outside: bool = False,
    order: str = "rzn",
    keeps: Literal["h", "n"] = "h",
    merged: bool = False,
    hands_on: Callable[[torch.Tensor], torch.Tensor] = lambda h: h,
) -> Callable[[Any, torch.Tensor], torch.Tensor]:
    """`parameter_groups`'s forward pass, its GRU written out; without arguments, as it is.

    outside: b_hn stands outside the reset gate's product; order: of the gates in the weights
    keeps: what the update gate keeps, the old state or the new; merged: one of two biases trains
    hands_on: what becomes of a state before the next time step
    """

    def forward(model: Any, x: torch.Tensor) -> torch.Tensor:
        w_ih, w_hh, b_ih, b_hh = model.gru.parameters()
        size = w_hh.shape[1]
        h = torch.zeros(len(x), size)
        for x_t in x.unbind(1):
            i = functional.linear(x_t, w_ih, b_ih).split(size, 1)
            bias = b_hh.detach() + 0 * b_hh if merged else b_hh
            hidden = functional.linear(h, w_hh, bias).split(size, 1)
            b_h = bias.split(size)
            gates = {gate: (i[k], hidden[k], b_h[k]) for k, gate in enumerate(order)}
            r, z = (torch.sigmoid(gates[gate][0] + gates[gate][1]) for gate in "rz")
            i_n, h_n, b_hn = gates["n"]
            n = torch.tanh(i_n + r * (h_n - b_hn) + b_hn if outside else i_n + r * h_n)
            h = hands_on((1 - z) * n + z * h if keeps == "h" else (1 - z) * h + z * n)
        return model.model(h)

    return forward


def cut_in_time(model: Any, x: torch.Tensor) -> torch.Tensor:
    """`mnist_rnn`'s forward pass, its backward pass cut after the first half of the rows."""
    half = x.shape[1] // 2
    _, h = model.rnn(x[:, :half])
    out, _ = model.rnn(x[:, half:], h.detach())
    return model.fc(out[:, -1])


def time_first(model: Any, x: torch.Tensor) -> torch.Tensor:
    """`mnist_rnn`'s forward pass without batch_first: the images are taken for time steps."""
    out, _ = model.rnn(x.transpose(0, 1))
    return model.fc(out.transpose(0, 1)[:, -1])


def transposed_hidden(model: Any, x: torch.Tensor) -> torch.Tensor:
    """`mnist_rnn`'s forward pass with weight_hh_l0 transposed."""
    named = dict(model.rnn.named_parameters())
    named["weight_hh_l0"] = named["weight_hh_l0"].T.contiguous()
    out, _ = torch.func.functional_call(model.rnn, named, (x,))
    return model.fc(out[:, -1])
