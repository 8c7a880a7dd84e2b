"""The JAX side: `record` notes what a training leaves; `watch` has its optimizer carry gradients.

Beside it the kit, under torch's own paths: `optim`, `optim.lr_scheduler`, `nn`, `nn.functional`; it
loads no recorder. Nothing here imports PyTorch.
"""

from typing import TYPE_CHECKING, Any

__all__ = ["Recorder", "record", "watch"]

if TYPE_CHECKING:
    from twinstep.jax.recorder import Recorder, record
    from twinstep.jax.watching import watch
else:

    def __getattr__(name: str) -> Any:
        if name == "watch":
            from twinstep.jax import watching as home
        elif name in __all__:
            from twinstep.jax import recorder as home
        else:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(home, name)
