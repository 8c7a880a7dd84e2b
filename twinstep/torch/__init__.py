"""The PyTorch side: `record` notes what an ordinary training leaves, from outside.

Nothing here imports JAX.
"""

from twinstep.torch.recorder import Recorder, record

__all__ = ["Recorder", "record"]
