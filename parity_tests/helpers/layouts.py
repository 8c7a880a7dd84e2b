"""The ways in which a port lays out what PyTorch has, each as converters write it by hand."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

Arrays = dict[str, np.ndarray]
HEADS, SIZE, WIDTH, HIDDEN = 2, 3, 6, 4
DIM = HEADS * SIZE


@dataclass(frozen=True)
class Layout:
    """PyTorch's tensors, and what a port makes of them.

    Attributes:
        shapes: {PyTorch's name: its shape}.
        convert: From PyTorch's arrays to the port's.
        twice: Whether the port holds something more than once.
        summed: Whether it adds tensors up.
    """

    shapes: dict[str, tuple[int, ...]]
    convert: Callable[[Arrays], Arrays]
    twice: bool = False
    summed: bool = False


def one(shape: tuple[int, ...], convert: Callable[[np.ndarray], np.ndarray]) -> Layout:
    """Of one tensor."""
    return Layout({"a.weight": shape}, lambda t: {"a.kernel": convert(t["a.weight"])})


def order(*axes: int) -> Layout:
    """A tensor in another order of axes."""
    return one(tuple(3 + axis for axis in range(len(axes))), lambda w: w.transpose(axes))


def gates(array: np.ndarray, count: int) -> list[np.ndarray]:
    """Of fused gates each."""
    return np.split(array, count)


def recurrent(count: int, bias: bool = True) -> dict[str, tuple[int, ...]]:
    """What PyTorch has of a recurrent layer."""
    rows = count * HIDDEN
    shapes: dict[str, tuple[int, ...]] = {
        "rnn.weight_ih_l0": (rows, WIDTH),
        "rnn.weight_hh_l0": (rows, HIDDEN),
    }
    return {**shapes, "rnn.bias_ih_l0": (rows,), "rnn.bias_hh_l0": (rows,)} if bias else shapes


def split_gates(count: int) -> Callable[[Arrays], Arrays]:
    """A leaf a gate."""

    def convert(t: Arrays) -> Arrays:
        return {
            f"cell.{gate}.{name}": part.T
            for name, array in t.items()
            for gate, part in zip("abcd", gates(array, count), strict=False)
        }

    return convert


def ordered_gates(names: str) -> Callable[[Arrays], Arrays]:
    """Fused in another order than PyTorch's; "ifgo" of an LSTM, "rzn" of a GRU are in its order."""
    of_torch = "ifgo" if len(names) == 4 else "rzn"

    def convert(t: Arrays) -> Arrays:
        def moved(array: np.ndarray) -> np.ndarray:
            parts = gates(array, len(names))
            return np.concatenate([parts[of_torch.index(gate)] for gate in names]).T

        return {f"cell.{name}": moved(array) for name, array in t.items()}

    return convert


def one_kernel(t: Arrays) -> Arrays:
    """Inputs and hidden state in one product, its two biases added."""
    kernel = np.concatenate([t["rnn.weight_ih_l0"], t["rnn.weight_hh_l0"]], axis=1).T
    return {"cell.kernel": kernel, "cell.bias": t["rnn.bias_ih_l0"] + t["rnn.bias_hh_l0"]}


def flax_gru(t: Arrays) -> Arrays:
    """Only the biases of two of three gates are added."""
    b_ih, b_hh = (gates(t[f"rnn.bias_{side}_l0"], 3) for side in ("ih", "hh"))
    made = split_gates(3)({n: a for n, a in t.items() if "weight" in n})
    made |= {"cell.r": b_ih[0] + b_hh[0], "cell.z": b_ih[1] + b_hh[1]}
    return made | {"cell.in": b_ih[2], "cell.hn": b_hh[2]}


QKV: dict[str, tuple[int, ...]] = {"attn.qkv.weight": (3 * DIM, WIDTH), "attn.qkv.bias": (3 * DIM,)}
APART: dict[str, tuple[int, ...]] = {
    f"attn.{x}.{name}": shape
    for x in "qkv"
    for name, shape in {"weight": (DIM, WIDTH), "bias": (DIM,)}.items()
}


def dense_general(weights: list[np.ndarray], biases: list[np.ndarray]) -> Arrays:
    """q, k and v as flax has them: (in, heads, size) and (heads, size)."""
    made: Arrays = {}
    for x, weight, bias in zip("qkv", weights, biases, strict=True):
        made[f"attn.{x}.kernel"] = weight.T.reshape(WIDTH, HEADS, SIZE)
        made[f"attn.{x}.bias"] = bias.reshape(HEADS, SIZE)
    return made


def by_blocks(t: Arrays) -> Arrays:
    """Fused as q, k, v one after the other, to be taken apart."""
    return dense_general(*(np.split(t[f"attn.qkv.{name}"], 3) for name in ("weight", "bias")))


def by_heads(t: Arrays) -> Arrays:
    """Fused head by head, each with its q, k and v."""
    weight = t["attn.qkv.weight"].reshape(HEADS, 3, SIZE, WIDTH)
    bias = t["attn.qkv.bias"].reshape(HEADS, 3, SIZE)
    return dense_general(
        [weight[:, i].reshape(DIM, WIDTH) for i in range(3)],
        [bias[:, i].reshape(DIM) for i in range(3)],
    )


def fused(t: Arrays) -> Arrays:
    """The other way: three of PyTorch's in one of the port's."""
    return {
        "attn.qkv.kernel": np.concatenate([t[f"attn.{x}.weight"] for x in "qkv"]).T,
        "attn.qkv.bias": np.concatenate([t[f"attn.{x}.bias"] for x in "qkv"]),
    }


def stacked(t: Arrays) -> Arrays:
    """The same with an axis of their own."""
    kernels = [t[f"attn.{x}.weight"].T.reshape(WIDTH, HEADS, SIZE) for x in "qkv"]
    biases = [t[f"attn.{x}.bias"].reshape(HEADS, SIZE) for x in "qkv"]
    return {"attn.qkv.kernel": np.stack(kernels, 1), "attn.qkv.bias": np.stack(biases)}


def interleaved(t: Arrays) -> Arrays:
    """The same head by head."""
    kernels = [t[f"attn.{x}.weight"].T.reshape(WIDTH, HEADS, SIZE) for x in "qkv"]
    return {
        "attn.qkv.kernel": np.stack(kernels, 2).reshape(WIDTH, -1),
        "attn.qkv.bias": np.stack([t[f"attn.{x}.bias"] for x in "qkv"], -1),
    }


def scanned(t: Arrays) -> Arrays:
    """Layers of one shape along an axis in front, as `scan` takes them."""
    return {
        "layers.kernel": np.stack([t[f"{i}.weight"].T for i in range(3)]),
        "layers.bias": np.stack([t[f"{i}.bias"] for i in range(3)]),
    }


LAYERS: dict[str, tuple[int, ...]] = {
    f"{i}.{name}": shape
    for i in range(3)
    for name, shape in {"weight": (4, 5), "bias": (4,)}.items()
}

LAYOUTS = {
    "as it is": one((3, 4), lambda w: w),
    "reshape": one((4, 6), lambda w: w.reshape(2, 2, 3, 2)),
    "transpose": one((4, 5), lambda w: w.T),
    "square": one((4, 4), lambda w: w.T),
    "scalar": one((), lambda w: w),
    "one entry": one((1,), lambda w: w.reshape(())),
    "no entries": one((0, 3), lambda w: w.T),
    "conv1d": order(2, 1, 0),
    "conv2d": order(2, 3, 1, 0),
    "conv3d": order(2, 3, 4, 1, 0),
    "five axes": order(3, 0, 4, 2, 1),
    "conv of one channel": one((5, 1, 3, 3), lambda w: w.transpose(2, 3, 1, 0)),
    "depthwise": one((4, 1, 3, 3), lambda w: w[:, 0].transpose(1, 2, 0)),
    "conv transpose": one((3, 4, 2, 5), lambda w: w.transpose(2, 3, 1, 0)[::-1, ::-1]),
    "conv transpose 1d": one((3, 4, 3), lambda w: w.transpose(2, 0, 1)[::-1]),
    "conv 1x1 as linear": one((5, 3, 1, 1), lambda w: w[:, :, 0, 0].T),
    "channels last": one(
        (5, 3 * 2 * 4), lambda w: w.reshape(5, 3, 2, 4).transpose(2, 3, 1, 0).reshape(-1, 5)
    ),
    "channels first": one(
        (5, 2 * 4 * 3), lambda w: w.reshape(5, 2, 4, 3).transpose(3, 1, 2, 0).reshape(-1, 5)
    ),
    "heads out": one((DIM, WIDTH), lambda w: w.T.reshape(WIDTH, HEADS, SIZE)),
    "heads in": one((WIDTH, DIM), lambda w: w.T.reshape(HEADS, SIZE, WIDTH)),
    "heads first": one((DIM, WIDTH), lambda w: w.reshape(HEADS, SIZE, WIDTH).transpose(0, 2, 1)),
    "rotary": one((8, 5), lambda w: w.reshape(4, 2, 5).transpose(1, 0, 2).reshape(8, 5)),
    "scalars in one": Layout(
        {"a.one": (), "b.one": (), "c.one": (1,)},
        lambda t: {"scales": np.array([t["b.one"], t["c.one"][0], t["a.one"]])},
    ),
    "in two": Layout(
        {"a.weight": (4, 5)}, lambda t: {"a.top": t["a.weight"][:1], "a.rest": t["a.weight"][1:]}
    ),
    "qkv by blocks": Layout(QKV, by_blocks),
    "qkv by heads": Layout(QKV, by_heads),
    "fused qkv": Layout(APART, fused),
    "stacked qkv": Layout(APART, stacked),
    "interleaved qkv": Layout(APART, interleaved),
    "scanned layers": Layout(LAYERS, scanned),
    "lstm by gate": Layout(recurrent(4), split_gates(4)),
    "lstm in keras's order": Layout(recurrent(4), ordered_gates("ifog")),
    "lstm in haiku's order": Layout(recurrent(4), ordered_gates("igfo")),
    "gru by gate": Layout(recurrent(3), split_gates(3)),
    "gru in keras's order": Layout(recurrent(3), ordered_gates("zrn")),
    "lstm in one kernel": Layout(recurrent(4), one_kernel, summed=True),
    "gru in one kernel": Layout(recurrent(3), one_kernel, summed=True),
    "flax's gru": Layout(recurrent(3), flax_gru, summed=True),
    "tied": Layout(
        {"wte.weight": (7, 5)},
        lambda t: {"wte.embedding": t["wte.weight"], "head.kernel": t["wte.weight"].T},
        twice=True,
    ),
}
