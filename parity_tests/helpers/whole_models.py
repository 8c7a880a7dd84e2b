"""What is asked of each whole model: where it starts, and how far its twins come apart."""

import numpy as np
import torch

import twinstep
from twinstep import Spec, Trace
from twinstep.runs import launch

APART = 1e-11
"""Of the largest entry, in float64, after 50 steps: hundreds of times what was measured."""


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
    """How far the twins come apart, as a part of the largest entry of what does.

    Parameters whose gradient would be 0 without rounding, as the biases of attention's keys, are
    left to the judge: Adam makes steps of what is rounded.
    """
    ours, theirs = (
        twinstep.run(spec, framework, rounding_noise=False) for framework in ("jax", "torch")
    )
    assert len(ours) == len(theirs) == spec.total_steps
    a, b = _values(ours, theirs), _values(theirs, theirs)
    assert a.keys() == b.keys()
    return max(float(np.max(np.abs(a[name] - b[name])) / np.max(np.abs(b[name]))) for name in b)


def _values(trace: Trace, reference: Trace) -> dict[str, np.ndarray]:
    """Losses, parameters after each step and, of what is tested, the outputs."""
    params = {
        name: trace.params[name] * _moved(reference.raw_grads[name]) for name in reference.params
    }
    return {"losses": trace.losses, **params, **trace.evaluation}


def _moved(grads: np.ndarray) -> np.ndarray:
    """Which entries have a gradient that is more than rounding. grads: (T, ...)"""
    largest = np.abs(grads).max(axis=0)
    return largest > 1e-13 * np.max(largest)
