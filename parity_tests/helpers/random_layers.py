"""Layers with settings and shapes drawn at random: PyTorch's and ours agree, or both refuse."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from helpers.layer_parity import Layer, differences_of_layer
from hypothesis import strategies as st

from twinstep.errors import InputError
from twinstep.jax import nn

Drawn = tuple[str, Layer]
Draw = Callable[..., Any]


def numbers(draw: Draw, *shape: int) -> np.ndarray:
    """Standard normal ones."""
    return np.random.RandomState(draw(st.integers(0, 2**16))).standard_normal(shape)


def sizes(n: int, low: int, high: int) -> st.SearchStrategy[Any]:
    """One for all axes, or one an axis."""
    one = st.integers(low, high)
    return one if n == 1 else one | st.tuples(*[one] * n)


@st.composite
def convolutions(draw: Draw) -> Drawn:
    n, groups = draw(st.integers(1, 3)), draw(st.integers(1, 2))
    transposed = draw(st.booleans())
    inputs, outputs = (groups * draw(st.integers(1, 3)) for _ in range(2))
    options: dict[str, Any] = {
        "stride": draw(sizes(n, 1, 3)),
        "dilation": draw(sizes(n, 1, 2)),
        "groups": groups,
        "bias": draw(st.booleans()),
    }
    if transposed:
        options |= {"padding": draw(sizes(n, 0, 2)), "output_padding": draw(sizes(n, 0, 1))}
    else:
        modes = ("zeros", "zeros", "reflect", "replicate", "circular")
        options["padding_mode"] = draw(st.sampled_from(modes))
        options["padding"] = draw(sizes(n, 0, 2) | st.sampled_from(("valid", "same")))
    shape = [draw(st.integers(3, 6)) for _ in range(n)]
    batch = draw(st.sampled_from(((), (2,))))
    kind = f"Conv{'Transpose' * transposed}{n}d"
    args = inputs, outputs, draw(sizes(n, 1, 3))
    return kind, Layer(args, options, [numbers(draw, *batch, inputs, *shape)])


@st.composite
def pools(draw: Draw) -> Drawn:
    n = draw(st.integers(1, 3))
    kind = draw(st.sampled_from(("MaxPool", "AvgPool", "LPPool", "AdaptiveAvgPool")))
    shape = [draw(st.integers(2, 7)) for _ in range(n)]
    x = numbers(draw, 2, 3, *shape)
    if kind == "AdaptiveAvgPool":
        return f"{kind}{n}d", Layer((draw(sizes(n, 1, 4)),), {}, [x])
    options: dict[str, Any] = {
        "stride": draw(st.none() | sizes(n, 1, 3)),
        "ceil_mode": draw(st.booleans()),
    }
    args: tuple[Any, ...] = (draw(sizes(n, 1, 3)),)
    if kind == "LPPool":
        args = draw(st.integers(1, 3)), *args
        x = np.abs(x)
    else:
        options["padding"] = draw(sizes(n, 0, 1))
    if kind == "MaxPool":
        options["dilation"] = draw(sizes(n, 1, 2))
    if kind == "AvgPool":
        options["count_include_pad"] = draw(st.booleans())
    return f"{kind}{n}d", Layer(args, options, [x])


@st.composite
def norms(draw: Draw) -> Drawn:
    eps, training = draw(st.sampled_from((1e-5, 1e-2))), draw(st.booleans())
    kind = draw(st.sampled_from(("BatchNorm", "InstanceNorm", "GroupNorm", "LayerNorm", "RMSNorm")))
    n = draw(st.integers(1, 3))
    shape = [draw(st.integers(2, 4)) for _ in range(n)]
    channels = 2 * draw(st.integers(1, 2))
    x = numbers(draw, 3, channels, *shape)
    if kind in ("BatchNorm", "InstanceNorm"):
        options = {
            "eps": eps,
            "momentum": draw(st.sampled_from((0.1, 0.7))),
            "affine": draw(st.booleans()),
            "track_running_stats": draw(st.booleans()),
        }
        return f"{kind}{n}d", Layer((channels,), options, [x], training=training)
    affine = {"eps": eps, "affine" if kind == "GroupNorm" else "elementwise_affine": True}
    args = (2, channels) if kind == "GroupNorm" else (tuple(shape),)
    return kind, Layer(args, affine, [x])


@st.composite
def recurrent(draw: Draw) -> Drawn:
    kind = draw(st.sampled_from(("RNN", "GRU", "LSTM")))
    inputs, hidden = draw(st.integers(1, 4)), draw(st.integers(2, 4))
    options: dict[str, Any] = {
        "num_layers": draw(st.integers(1, 2)),
        "bias": draw(st.booleans()),
        "batch_first": draw(st.booleans()),
        "bidirectional": draw(st.booleans()),
    }
    if kind == "RNN":
        options["nonlinearity"] = draw(st.sampled_from(("tanh", "relu")))
    if kind == "LSTM":
        options["proj_size"] = draw(st.integers(0, hidden - 1))
    shape = draw(st.integers(1, 4)), draw(st.integers(1, 3))
    return kind, Layer((inputs, hidden), options, [numbers(draw, *shape, inputs)])


@st.composite
def images(draw: Draw) -> Drawn:
    kind = draw(st.sampled_from(("PixelShuffle", "PixelUnshuffle", "Upsample", "Unfold")))
    height, width = draw(st.integers(1, 6)), draw(st.integers(1, 6))
    x = numbers(draw, 2, 4, height, width)
    if kind != "Upsample":
        options = {"stride": draw(sizes(2, 1, 2))} if kind == "Unfold" else {}
        return kind, Layer((draw(st.integers(1, 2)),), options, [x])
    mode = draw(st.sampled_from(("nearest", "bilinear", "bicubic")))
    options = {"size": draw(st.tuples(st.integers(1, 9), st.integers(1, 9))), "mode": mode}
    if mode != "nearest":
        options["align_corners"] = draw(st.booleans())
    return kind, Layer((), options, [x])


@st.composite
def losses(draw: Draw) -> Drawn:
    kind = draw(
        st.sampled_from(("CrossEntropyLoss", "NLLLoss", "SmoothL1Loss", "HuberLoss", "KLDivLoss"))
    )
    options: dict[str, Any] = {"reduction": draw(st.sampled_from(("mean", "sum", "none")))}
    shape = draw(st.integers(1, 4)), draw(st.integers(2, 5)), *draw(st.sampled_from(((), (3,))))
    x = numbers(draw, *shape)
    if kind in ("CrossEntropyLoss", "NLLLoss"):
        classes = np.random.RandomState(0).randint(0, shape[1], (shape[0], *shape[2:]))
        options["ignore_index"] = draw(st.integers(-1, shape[1] - 1))
        options["weight"] = draw(st.none() | st.just(np.linspace(0.5, 2, shape[1])))
        if kind == "CrossEntropyLoss":
            options["label_smoothing"] = draw(st.sampled_from((0.0, 0.3)))
        return kind, Layer((), options, [x, classes])
    if kind == "KLDivLoss":
        return kind, Layer((), options, [x, np.abs(numbers(draw, *shape)) + 0.1])
    options["delta" if kind == "HuberLoss" else "beta"] = draw(st.sampled_from((0.3, 1.0)))
    return kind, Layer((), options, [x, numbers(draw, *shape)])


FAMILIES = {
    "convolutions": convolutions,
    "pools": pools,
    "norms": norms,
    "recurrent": recurrent,
    "images": images,
    "losses": losses,
}


def refused(module: Any, tensor: Callable[[np.ndarray], Any], row: Layer) -> bool:
    """Whether a side refuses a layer, when it is made or when it is called."""
    options = {k: tensor(v) if isinstance(v, np.ndarray) else v for k, v in row.kwargs.items()}
    try:
        layer = module(*row.args, **options).train(row.training)
        layer(*map(tensor, row.inputs))
    except (InputError, RuntimeError, ValueError, TypeError, IndexError):
        return True
    return False


def differences(drawn: Drawn) -> list[str]:
    """In what both sides differ; a layer that PyTorch refuses is to be refused."""
    name, row = drawn
    torch.set_default_dtype(torch.float64)
    try:
        if refused(getattr(torch.nn, name), torch.tensor, row):
            import jax
            import jax.numpy as jnp

            with jax.enable_x64(True):
                ours = refused(getattr(nn, name), jnp.asarray, row)
            return [] if ours else ["PyTorch refuses it"]
    finally:
        torch.set_default_dtype(torch.float32)
    return differences_of_layer(name, row, jit=False)
