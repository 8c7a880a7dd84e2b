"""Callbacks that record a trainer's run, for those who look for them.

Nothing needs them: `record` around `trainer.fit()`, and `python -m twinstep.torch train.py`, record
a trainer's run as they do any program's. A trainer's package is imported when its callback is made.
"""

from os import PathLike
from typing import Any

from twinstep.torch.recorder import Recorder, record


def lightning_callback(out: str | PathLike[str] | None = None, **options: Any) -> Any:
    """A Lightning callback that records `trainer.fit`; its `recorder` holds what `record` gives.

    Args:
        out: A new folder for the trace; None: it stays in memory.
        options: Others of `record`.

    Returns:
        A `lightning.pytorch.Callback`.

    Raises:
        ImportError: Where neither `lightning` nor `pytorch_lightning` is installed.

    Example:
        >>> from twinstep.torch.callbacks import lightning_callback
        >>> callback = lightning_callback()  # doctest: +SKIP
        >>> lightning.Trainer(callbacks=[callback]).fit(model, loader)  # doctest: +SKIP
        >>> callback.recorder.trace.losses  # doctest: +SKIP

    Source: https://lightning.ai/docs/pytorch/stable/extensions/callbacks.html
    """
    try:
        from lightning.pytorch import Callback
    except ImportError:
        from pytorch_lightning import Callback

    class Recording(Callback):  # type: ignore[misc]  # Any to mypy
        """Records from the first batch to the end of the training, or what ends it."""

        recorder: Recorder | None = None

        def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
            self.recorder = record(pl_module, out=out, **options).__enter__()

        def on_fit_end(self, trainer: Any, pl_module: Any) -> None:
            assert self.recorder is not None
            self.recorder.__exit__(None, None, None)

        def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
            if self.recorder is not None:
                self.recorder.__exit__(type(exception), exception, exception.__traceback__)

    return Recording()


def trainer_callback(out: str | PathLike[str] | None = None, **options: Any) -> Any:
    """A callback for transformers' Trainer; its `recorder` holds what `record` gives.

    Args:
        out: A new folder for the trace; None: it stays in memory.
        options: Others of `record`.

    Returns:
        A `transformers.TrainerCallback`.

    Raises:
        ImportError: Where `transformers` is not installed.

    Example:
        >>> from twinstep.torch.callbacks import trainer_callback
        >>> callback = trainer_callback()  # doctest: +SKIP
        >>> Trainer(model, args, train_dataset=data, callbacks=[callback])  # doctest: +SKIP

    Source: https://huggingface.co/docs/transformers/main_classes/callback
    """
    from transformers import TrainerCallback

    class Recording(TrainerCallback):  # type: ignore[misc]  # Any to mypy
        """Records from the first batch to the end of the training."""

        recorder: Recorder | None = None

        def on_train_begin(self, args: Any, state: Any, control: Any, **given: Any) -> None:
            self.recorder = record(given["model"], out=out, **options).__enter__()

        def on_train_end(self, args: Any, state: Any, control: Any, **given: Any) -> None:
            assert self.recorder is not None
            self.recorder.__exit__(None, None, None)

    return Recording()
