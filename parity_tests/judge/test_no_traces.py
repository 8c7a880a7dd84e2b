"""What is no trace, or holds what is no array that is judged, is named in one line."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
import torch
from helpers.synthetic_traces import Change, leaf_of, made, refused, with_field, with_leaf

from twinstep import compare

NO_ARRAYS: dict[str, tuple[Callable[[np.ndarray], Any], str]] = {
    "a list": (np.ndarray.tolist, "list"),
    "a tensor": (torch.tensor, "torch.Tensor"),
    "a jax array": (jnp.asarray, "ArrayImpl"),
    "nothing": (lambda rows: None, "NoneType"),
}


@pytest.mark.parametrize("stage", ["batch", "loss", "raw_grads", "opt_state", "params", "buffers"])
@pytest.mark.parametrize(("turn", "says"), NO_ARRAYS.values(), ids=NO_ARRAYS.keys())
def test_leaves_that_are_no_arrays_are_named(
    stage: str, turn: Callable[[np.ndarray], Any], says: str, tmp_path: Path
) -> None:
    trace = made(dtype="float32")
    whole = with_leaf(trace, "buffers", "weight", trace.params["weight"])
    leaf = {"batch": "x", "loss": "loss", "opt_state": "weight.exp_avg"}.get(stage, "weight")
    rows = leaf_of(whole, stage, leaf)
    other = with_leaf(whole, stage, leaf, turn(rows.view(np.int32) if stage == "batch" else rows))
    named = (f"{stage}, {leaf} is a ", says, "expected a NumPy array")
    refused(lambda: compare(whole, other), "the second trace is none", *named)
    refused(lambda: compare(other, whole), "the first trace is none", *named)
    refused(lambda: other.save(tmp_path / "trace"), *named)


@pytest.mark.parametrize("what", [[1.0], {"w": np.ones(2)}, jnp.ones(2), torch.ones(2), None, "a"])
def test_what_is_no_trace_is_named(what: Any) -> None:
    says = (f"trace is a {type(what).__name__}", "expected a Trace", "load_trace")
    refused(lambda: compare(what, made()), "the first", *says)
    refused(lambda: compare(made(), what), "the second", *says)


UNKNOWN: dict[str, tuple[Change, str]] = {
    "float8": (
        lambda t: with_leaf(t, "params", "bias", t.params["bias"].astype(jnp.float8_e4m3fn)),
        "params, bias is float8_e4m3fn, expected float64 as the run is, bfloat16, float16",
    ),
    "text": (lambda t: with_leaf(t, "rng", "key", np.full(6, "a")), "rng, key is str"),
    "no mapping": (lambda t: with_field(t, "params", [1]), "params is a list"),
}


@pytest.mark.parametrize(("change", "says"), UNKNOWN.values(), ids=UNKNOWN.keys())
def test_what_is_not_kept_exactly_is_refused(change: Change, says: str, tmp_path: Path) -> None:
    refused(lambda: compare(made(), change(made())), says)
    refused(lambda: change(made()).save(tmp_path / "trace"), says)
