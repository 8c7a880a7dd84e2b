"""Trainers of other packages, recorded from outside and by their callbacks: the same trace.

They run where the extra `integrations` is installed.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.replaying import apart
from torch import nn

from twinstep.torch import record
from twinstep.torch.callbacks import lightning_callback, trainer_callback
from twinstep.trace.ledger import Trace

pytestmark = pytest.mark.filterwarnings("ignore")  # theirs


def by_lightning(folder: Path, callbacks: list[Any]) -> nn.Module:
    """Two batches an update, clipped, by a Trainer."""
    lightning = pytest.importorskip("lightning.pytorch")

    class Module(lightning.LightningModule):  # type: ignore[name-defined]  # may be missing
        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Linear(3, 1)

        def training_step(self, batch: torch.Tensor, index: int) -> torch.Tensor:
            loss: torch.Tensor = self.net(batch).square().mean()
            return loss

        def configure_optimizers(self) -> Any:
            return torch.optim.AdamW(self.parameters(), lr=0.1)

    torch.manual_seed(0)
    module = Module()
    trainer = lightning.Trainer(
        max_epochs=1,
        accelerator="cpu",
        accumulate_grad_batches=2,
        gradient_clip_val=0.1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
        callbacks=callbacks,
    )
    data: Any = torch.randn(16, 3)
    trainer.fit(module, torch.utils.data.DataLoader(data, batch_size=2))
    return module


def by_transformers(folder: Path, callbacks: list[Any]) -> nn.Module:
    """The same by transformers' Trainer."""
    transformers = pytest.importorskip("transformers")

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Linear(3, 1)

        def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
            return {"loss": self.net(x).square().mean()}

    torch.manual_seed(0)
    model = Model()
    arguments = transformers.TrainingArguments(
        output_dir=str(folder / "out"),
        use_cpu=True,
        num_train_epochs=1,
        per_device_train_batch_size=2,
        gradient_accumulation_steps=2,
        max_grad_norm=0.1,
        report_to=[],
        save_strategy="no",
        disable_tqdm=True,
    )
    data = [{"x": x} for x in torch.randn(16, 3)]
    transformers.Trainer(model, arguments, train_dataset=data, callbacks=callbacks).train()
    return model


KINDS = {
    "lightning": (by_lightning, lightning_callback),
    "transformers": (by_transformers, trainer_callback),
}


@pytest.mark.parametrize(("run", "made"), KINDS.values(), ids=KINDS)
def test_a_trainers_run_is_recorded(run: Any, made: Any, tmp_path: Path) -> None:
    plain = {n: p.detach().numpy().copy() for n, p in run(tmp_path, []).named_parameters()}
    with record() as rec:
        run(tmp_path, [])
    callback = made()
    run(tmp_path, [callback])
    traces: list[Trace] = [rec.trace, callback.recorder.trace]
    for trace in traces:
        assert len(trace) == 4
        assert apart(trace) == {}
        assert trace.steps_of("micro_losses", "loss").tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
        assert not any(map(trace.held_once, trace.grads)), "they are clipped"
        assert plain.keys() == trace.params.keys()
        for name, params in plain.items():
            assert np.array_equal(trace.params[name][-1], params), "recording changes no bit"
