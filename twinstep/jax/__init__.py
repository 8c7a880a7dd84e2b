"""The JAX side: `record` notes what a training leaves; `watch` has its optimizer carry gradients.

Beside it the kit, under torch's own paths: `optim`, `optim.lr_scheduler`, `nn`, `nn.functional`.
Nothing here imports PyTorch.
"""

from twinstep.jax.recorder import Recorder, record
from twinstep.jax.watching import watch

__all__ = ["Recorder", "record", "watch"]
