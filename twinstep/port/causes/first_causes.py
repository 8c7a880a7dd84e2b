"""Why a port is off before its optimizer does anything: in its start, first loss or gradients.

From two recordings alone: what cannot be told from them is not guessed.
"""

from twinstep.judge.findings import Finding
from twinstep.port.causes.batch_causes import causes_of_batch
from twinstep.port.causes.buffer_causes import causes_of_buffers, evaluating
from twinstep.port.causes.gradient_causes import FirstStep, causes_of_gradients
from twinstep.port.causes.loss_causes import causes_of_loss, odd_layouts
from twinstep.port.causes.pass_causes import causes_of_passes
from twinstep.port.causes.start_causes import causes_of_start
from twinstep.port.sides import Side
from twinstep.port.updates import Cause


def causes_of(torch: Side, jax: Side, finding: Finding) -> list[Cause]:
    """The known differences that make a port's first finding, each held against all entries.

    Args:
        torch, jax: Two recordings, lined up.
        finding: The first one of `prove`: of step 0, of the first loss, gradients or buffers, or of
            a batch.

    Returns:
        Causes whose ratio is at most 1; several, if several fit alike; none where no known one
        does, and for a finding of an update. One whose kind begins with "candidate" is not proved.

    Example:
        >>> import dataclasses
        >>> import twinstep
        >>> from twinstep.port.sides import Side
        >>> torch = twinstep.run(twinstep.examples()["zero_grad"](steps=2), framework="torch")
        >>> double = {name: 2 * grad for name, grad in torch.raw_grads.items()}
        >>> jax = dataclasses.replace(torch, raw_grads=double)
        >>> finding = twinstep.prove(torch, jax).first
        >>> [cause.kind for cause in causes_of(Side(torch), Side(jax), finding)]
        ['gradients scaled']
    """
    if finding.stage == "batch":
        return causes_of_batch(torch, jax, finding.step - 1, finding.leaf)
    if finding.step > 1:
        return summed_biases(jax) if finding.stage in ("loss", "raw_grads") else []
    # of all steps' rows only the first ones are laid out as PyTorch's
    one, other = (Side(side.trace.slice(0, 1), side.mapping) for side in (torch, jax))
    if finding.step == 0:
        return causes_of_start(one, other, finding.stage, finding.leaf)
    if finding.stage == "buffers":
        return causes_of_buffers(one, other)
    if finding.stage not in ("loss", "raw_grads"):
        return []
    step = FirstStep(one, other)
    found = causes_of_gradients(step) or causes_of_loss(step, torch.trace, jax.trace)
    if found or finding.stage != "loss":
        return found
    if found := causes_of_passes(step, torch.trace):
        return found
    return [*odd_layouts(jax), *evaluating(one, other)]


def summed_biases(jax: Side) -> list[Cause]:
    """What the port adds up to one leaf: it then moves at half the speed of both together.

    Args:
        jax: The port's side.

    Returns:
        A cause for each such leaf, of whatever update is off because of it.
    """
    sums = jax.mapping.summed if jax.mapping is not None else {}
    return [
        Cause(
            "summed in one leaf",
            f"{own} stands for {' and '.join(names)}, which each move by the gradient that it "
            f"moves by once: it has 1/{len(names)} of their speed",
            {"speed": 1 / len(names)},
            0.0,
        )
        for own, names in sums.items()
    ]
