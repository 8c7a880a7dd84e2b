"""What is asked of each whole model: where it starts, and how far its twins come apart."""

import numpy as np
import torch

import twinstep
from twinstep import Spec, Trace
from twinstep.runs import launch

APART = 1e-11
"""Of the largest entry, in float64, after 50 steps: several hundred times what was measured."""


def starts_where_pytorch_does(spec: Spec) -> bool:
    """Whether first values are PyTorch's to the bit, and its generator stands where the spec's."""
    torch.set_default_dtype(getattr(torch, spec.dtype))
    torch.manual_seed(spec.seed)
    model = launch.example("torch", spec).build(spec)[0]
    stands = torch.get_rng_state().numpy()
    theirs = {name: param.detach().numpy() for name, param in model.named_parameters()}
    ours = spec.initial_params()
    return (
        list(ours) == list(theirs)
        and all(ours[name].tobytes() == theirs[name].tobytes() for name in ours)
        and np.array_equal(stands, spec.generator().get_state())
    )


def furthest(spec: Spec) -> float:
    """How far the twins come apart, as a part of the largest entry of what does."""
    ours, theirs = (
        _values(twinstep.run(spec, framework, rounding_noise=False))
        for framework in ("jax", "torch")
    )
    assert ours.keys() == theirs.keys()
    assert len(ours["losses"]) == spec.total_steps
    return max(
        float(np.max(np.abs(ours[name] - theirs[name])) / np.max(np.abs(theirs[name])))
        for name in ours
    )


def _values(trace: Trace) -> dict[str, np.ndarray]:
    """Losses, parameters after each step and, of what is tested, the outputs."""
    return {"losses": trace.losses, **trace.params, **trace.evaluation}
