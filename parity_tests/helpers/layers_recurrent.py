"""Settings and inputs of recurrent layers that PyTorch's own table of modules lacks."""

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
from helpers.layer_parity import Layer

_SAMPLES, _STEPS, _INPUTS, _HIDDEN = 3, 4, 2, 3
_RNG = np.random.default_rng(11)


def _rows(states: int, *choices: dict[str, Any]) -> Iterator[Layer]:
    """A layer with options, given states, batched and not."""
    for options in choices:
        for batched in (True, False):
            first = options.get("batch_first", False)
            shape = (_SAMPLES, _STEPS) if first else (_STEPS, _SAMPLES)
            x = _RNG.normal(size=(*(shape if batched else (_STEPS,)), _INPUTS))
            layers = options.get("num_layers", 1) * (2 if options.get("bidirectional") else 1)
            samples = (_SAMPLES,) if batched else ()
            sizes = (options.get("proj_size", 0) or _HIDDEN, _HIDDEN)[:states]
            hx = tuple(_RNG.normal(size=(layers, *samples, size)) for size in sizes)
            given = hx if states == 2 else hx[0]
            for training in (True, False) if options.get("dropout") else (True,):
                yield Layer((_INPUTS, _HIDDEN), options, (x, given), training=training)


_DEEP: dict[str, Any] = {
    "num_layers": 2,
    "bidirectional": True,
    "batch_first": True,
    "dropout": 0.4,
}
_CHOICES: list[dict[str, Any]] = [
    {"bias": False},
    _DEEP,
    *(
        {"num_layers": layers, "bidirectional": both, "dropout": share, "bias": bias}
        for layers, both, share, bias in itertools.product(
            (2, 3), (False, True), (0.0, 0.3, 1.0), (False, True)
        )
    ),
]


def _cells(states: int, *choices: dict[str, Any]) -> list[Layer]:
    """A cell, batched and not, with states and without."""
    rows = []
    for options, samples in itertools.product(choices, ((_SAMPLES,), ())):
        x = _RNG.normal(size=(*samples, _INPUTS))
        hx = tuple(_RNG.normal(size=(*samples, _HIDDEN)) for _ in range(states))
        rows.append(Layer((_INPUTS, _HIDDEN), options, (x, hx if states == 2 else hx[0])))
        rows.append(Layer((_INPUTS, _HIDDEN), options, (x,)))
    return rows


LAYERS = {
    "RNN": [
        *_rows(1, *_CHOICES),
        *_rows(1, {"nonlinearity": "relu"}, {"nonlinearity": "relu", **_DEEP}),
    ],
    "LSTM": [
        *_rows(2, *_CHOICES),
        *_rows(2, {"proj_size": 2}, {"proj_size": 2, **_DEEP}, {"proj_size": 1, "bias": False}),
    ],
    "GRU": list(_rows(1, *_CHOICES)),
    "RNNCell": _cells(1, {}, {"bias": False}, {"nonlinearity": "relu"}),
    "LSTMCell": _cells(2, {}, {"bias": False}),
    "GRUCell": _cells(1, {}, {"bias": False}),
}
