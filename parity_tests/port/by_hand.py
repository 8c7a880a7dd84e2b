"""What a port left, put back under PyTorch's names by hand, and where it first parts: no search.

Two float64 runs of one training part by rounding alone, far less than the smallest fault.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from twinstep.trace.ledger import Trace

Leaves = Mapping[str, np.ndarray]

# of a leaf's norm. In float64 honest pairs are within 2e-13, and the smallest fault leaves 3.6e-12;
# in float32 they are within 2e-5, but for entries whose gradient is as small as Adam's eps.
WITHIN = {"float64": 1e-12, "float32": 1e-3}

# Adam makes of a null gradient's rounding a step as long as any: such entries, and the means that
# move with them, are held until the first update has moved them.
_KEYS = np.s_[:, 16:32]
_NULL: dict[str, Any] = {"conv1.bias": np.s_[:], "conv2.bias": np.s_[:], "qkv.bias": _KEYS}


class Spot(NamedTuple):
    """A stage, and the step from 1; 0 is the start."""

    stage: str
    at: int


def _conv_nnx(leaves: Leaves) -> dict[str, np.ndarray]:
    back: dict[str, np.ndarray] = {}
    for layer in ("conv1", "conv2"):
        back[f"{layer}.weight"] = leaves[f"{layer}.kernel"].transpose(0, 4, 3, 1, 2)
        back[f"{layer}.bias"] = leaves[f"{layer}.bias"]
    for layer in ("bn1", "bn2"):
        back[f"{layer}.weight"] = leaves[f"{layer}.scale"]
        back[f"{layer}.bias"] = leaves[f"{layer}.bias"]
    for layer in ("fc1", "fc2"):
        back[f"{layer}.weight"] = leaves[f"{layer}.kernel"].transpose(0, 2, 1)
        back[f"{layer}.bias"] = leaves[f"{layer}.bias"]
    return back


def _transformer_linen(leaves: Leaves) -> dict[str, np.ndarray]:
    steps = len(leaves["wte.embedding"])
    back = {f"{table}.weight": leaves[f"{table}.embedding"] for table in ("wte", "wpe")}
    for i, block in enumerate(("block_0", "block_1")):
        kernels = [leaves[f"{block}.{q}.kernel"].reshape(steps, 16, 16) for q in "qkv"]
        biases = [leaves[f"{block}.{q}.bias"].reshape(steps, 16) for q in "qkv"]
        back[f"blocks.{i}.qkv.weight"] = np.concatenate(kernels, -1).transpose(0, 2, 1)
        back[f"blocks.{i}.qkv.bias"] = np.concatenate(biases, -1)
        proj = leaves[f"{block}.proj.kernel"].reshape(steps, 16, 16)
        back[f"blocks.{i}.proj.weight"] = proj.transpose(0, 2, 1)
        back[f"blocks.{i}.proj.bias"] = leaves[f"{block}.proj.bias"]
        for layer in ("fc", "out"):
            kernel = leaves[f"{block}.{layer}.kernel"]
            back[f"blocks.{i}.{layer}.weight"] = kernel.transpose(0, 2, 1)
            back[f"blocks.{i}.{layer}.bias"] = leaves[f"{block}.{layer}.bias"]
        for layer in ("ln1", "ln2"):
            back[f"blocks.{i}.{layer}.weight"] = leaves[f"{block}.{layer}.scale"]
            back[f"blocks.{i}.{layer}.bias"] = leaves[f"{block}.{layer}.bias"]
    back["ln_f.weight"], back["ln_f.bias"] = leaves["ln_f.scale"], leaves["ln_f.bias"]
    return back


def _gru_dicts(leaves: Leaves) -> dict[str, np.ndarray]:
    def rows(name: str) -> np.ndarray:
        gates = [leaves[f"gru.{gate}.{name}"] for gate in ("reset", "update", "new")]
        return np.concatenate(gates, -1)

    return {
        "gru.weight_ih_l0": rows("w_x").transpose(0, 2, 1),
        "gru.weight_hh_l0": rows("w_h").transpose(0, 2, 1),
        "gru.bias_ih_l0": rows("b_x"),
        "gru.bias_hh_l0": rows("b_h"),
        "head.weight": leaves["head.w"].transpose(0, 2, 1),
        "head.bias": leaves["head.b"],
    }


def _gru_equinox(leaves: Leaves) -> dict[str, np.ndarray]:
    return {
        "gru.weight_ih_l0": leaves["cell.inputs.weight"],
        "gru.weight_hh_l0": leaves["cell.hidden.weight"],
        "gru.bias_ih_l0": leaves["cell.inputs.bias"],
        "gru.bias_hh_l0": leaves["cell.hidden.bias"],
        "head.weight": leaves["head.weight"],
        "head.bias": leaves["head.bias"],
    }


_BACK = {
    "conv_nnx": _conv_nnx,
    "transformer_linen": _transformer_linen,
    "gru_dicts": _gru_dicts,
    "gru_equinox": _gru_equinox,
}


def in_torch_names(port: str, leaves: Leaves) -> dict[str, np.ndarray]:
    """A port's parameters or gradients, (T, ...) each, under PyTorch's names and in its layouts."""
    return _BACK[port](leaves)


def stages(port: str, trace: Trace) -> dict[str, dict[str, np.ndarray]]:
    """{stage: {PyTorch's name: (T, ...), or (T + 1, ...) of what has a start}}."""
    params: Leaves = trace.params
    raw_grads: Leaves = trace.raw_grads
    buffers = {name: array for name, array in trace.buffers.items() if "num_batches" not in name}
    if trace.metadata.framework == "jax":
        params, raw_grads = (in_torch_names(port, leaves) for leaves in (params, raw_grads))
        kept = {"mean": "running_mean", "var": "running_var"}
        parted = {name: name.partition(".") for name in buffers}
        buffers = {f"{parted[n][0]}.{kept[parted[n][2]]}": buffers[n] for n in buffers}
    batch = [trace.inputs_of(step) for step in range(len(trace))]
    return {
        "batch": {name: np.stack([each[name] for each in batch]) for name in batch[0]},
        "loss": {"loss": trace.losses},
        "raw_grads": dict(raw_grads),
        "params": dict(params),
        "buffers": buffers,
    }


def _norms(rows: np.ndarray) -> np.ndarray:
    """The norm (T,) of each row of (T, ...)."""
    return np.linalg.norm(rows.reshape(len(rows), -1).astype(float), axis=1)


def _held(stage: str, name: str, gaps: np.ndarray) -> np.ndarray:
    """The gaps (T + 1, ...) of a leaf, but 0 where no rounding explains or forbids any."""
    held = gaps.copy()
    if stage == "buffers" and name.endswith("running_mean"):
        held[2:] = 0
    for leaf, entries in _NULL.items():
        if stage == "params" and name.endswith(leaf):
            held[1:][entries] = 0
    return held


def apart(port: str, theirs: Trace, ours: Trace) -> dict[str, np.ndarray]:
    """{stage: (T + 1,)}: how far each step's worst leaf is off, of the largest norm it ever has.

    By norms: an entry whose gradient is no larger than Adam's eps moves by its rounding. A leaf
    whose true gradient is 0 is held against the largest gradient of all.
    """
    steps = min(len(theirs), len(ours))
    left, right = (stages(port, trace.slice(0, steps)) for trace in (theirs, ours))
    found: dict[str, np.ndarray] = {}
    for stage, leaves in left.items():
        assert leaves.keys() == right[stage].keys()
        worst = np.zeros(steps + 1)
        largest = max((_norms(array).max() for array in leaves.values()), default=1.0)
        for name, array in leaves.items():
            other = right[stage][name]
            if array.shape != other.shape:
                worst[-len(array) :] = np.inf
                continue
            gap = _norms(_held(stage, name, array - other))
            scale = largest if stage == "raw_grads" else max(_norms(array).max(), 1e-3)
            off = np.where(np.isnan(gap), np.inf, gap / scale)
            worst[-len(off) :] = np.maximum(worst[-len(off) :], off)
        found[stage] = worst
    return found


def first_off(port: str, theirs: Trace, ours: Trace) -> Spot | None:
    """Where a port first parts from its program; None: nowhere."""
    gaps = apart(port, theirs, ours)
    for step in range(len(gaps["loss"])):
        for stage, worst in gaps.items():
            if not worst[step] <= WITHIN[theirs.metadata.dtype]:
                return Spot(stage, step)
    return None if len(theirs) == len(ours) else Spot("update", 0)
