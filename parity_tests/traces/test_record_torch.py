"""A PyTorch loop of one's own, recorded from outside: what is in the trace, and what is refused."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.recording import Unrecorded, check_alone, step
from torch import nn

import twinstep
from twinstep.torch import record
from twinstep.trace.ledger import Trace


class Recurrent(nn.Module):
    """A GRU whose last output is read."""

    def __init__(self) -> None:
        super().__init__()
        self.gru = nn.GRU(3, 5, batch_first=True)
        self.fc = nn.Linear(5, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.gru(x)[0][:, -1])


def convolutions(recording: Any) -> nn.Module:
    """A conv net with BatchNorm; AdamW, a cosine schedule, clipping."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 10)
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 10)
    with recording(model):
        for _ in range(6):
            x, y = torch.randn(8, 1, 8, 8), torch.randint(0, 10, (8,))
            loss = nn.functional.cross_entropy(model(x), y)
            step(optimizer, loss, lambda: nn.utils.clip_grad_norm_(model.parameters(), 0.5))
            schedule.step()
    return model


def transformer(recording: Any) -> nn.Module:
    """A small causal transformer, weight decay for matrices alone."""
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)
    model = nn.ModuleDict(
        {
            "embedding": nn.Embedding(11, 8),
            "layers": nn.TransformerEncoder(layer, 2, enable_nested_tensor=False),
            "head": nn.Linear(8, 11),
        }
    )
    matrices = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim < 2]
    groups: list[dict[str, Any]] = [{"params": matrices}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups)
    mask = nn.Transformer.generate_square_subsequent_mask(6)
    with recording(model):
        for _ in range(5):
            words = torch.randint(0, 11, (4, 7))
            hidden = model["layers"](model["embedding"](words[:, :-1]), mask, is_causal=True)
            step(optimizer, nn.functional.cross_entropy(model["head"](hidden).mT, words[:, 1:]))
    return model


def recurrent(recording: Any) -> nn.Module:
    """A GRU by SGD with momentum, two micro-batches a step."""
    torch.manual_seed(0)
    model = Recurrent()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    with recording(model):
        for _ in range(4):
            optimizer.zero_grad()
            for _ in range(2):
                x, y = torch.randn(4, 7, 3), torch.randn(4, 1)
                loss = nn.functional.mse_loss(model(x), y) / 2
                loss.backward()
            optimizer.step()
    return model


LOOPS = {"convolutions": convolutions, "transformer": transformer, "recurrent": recurrent}


def recorded(loop: Callable[[Any], nn.Module], **options: Any) -> tuple[Trace, nn.Module]:
    """What a loop leaves, and the model that it trained."""
    kept = []

    def recording(model: nn.Module) -> Any:
        kept.append(record(model, **options))
        return kept[0]

    model = loop(recording)
    return kept[0].trace, model


@pytest.mark.parametrize("loop", LOOPS.values(), ids=LOOPS)
def test_own_loop_is_recorded_saved_and_loaded(loop: Any, tmp_path: Path) -> None:
    trace, model = recorded(loop, out=tmp_path / "trace")
    plain = loop(Unrecorded)
    for (name, ours), theirs in zip(model.named_parameters(), plain.parameters(), strict=True):
        assert torch.equal(ours, theirs), "recording changes no bit"
        assert np.array_equal(trace.params[name][-1], ours.detach().numpy())
    assert trace.validation_error() is None
    assert trace.metadata.example is None
    assert trace.metadata.spec is None
    in_memory, _ = recorded(loop)
    for one in (trace, twinstep.load_trace(tmp_path / "trace")):
        assert twinstep.compare(in_memory, one).verdict == "equal"
        assert one.summary() == in_memory.summary()
    assert f"{len(trace)} steps" in trace.summary()


def test_conv_nets_ledger() -> None:
    trace, _ = recorded(convolutions, activations=["1"])
    assert not any(map(trace.held_once, trace.grads)), "clipped gradients are others"
    norms = np.sqrt(sum((g.reshape(6, -1) ** 2).sum(1) for g in trace.grads.values()))
    assert np.allclose(norms, 0.5, rtol=1e-5)
    assert trace.buffers["1.running_mean"].shape == (7, 4)
    assert trace.buffers["1.num_batches_tracked"].tolist() == list(range(7))
    rates = trace.hyper_parameters["0.lr"]
    assert rates[0] == 0.01
    assert np.all(np.diff(rates) < 0)
    assert trace.hyper_parameters["0.betas.1"].tolist() == [0.999] * 6
    assert trace.activations["1"].shape == (6, 8, 4, 6, 6)
    assert len(trace.inputs["input"]) == 6, "what the model was given, noted by itself"


def test_groups_and_state_by_name() -> None:
    trace, _ = recorded(transformer)
    decay = [trace.hyper_parameters[f"{group}.weight_decay"][0] for group in (0, 1)]
    assert decay == [0.01, 0.0]
    assert {name.rpartition(".")[2] for name in trace.opt_state} == {
        "step",
        "exp_avg",
        "exp_avg_sq",
    }
    assert all(map(trace.held_once, trace.grads)), "what is not clipped is held once"


def test_micro_batches_make_one_step() -> None:
    trace, _ = recorded(recurrent)
    torch.manual_seed(0)
    model = Recurrent()
    losses = []
    for _ in range(2):
        x, y = torch.randn(4, 7, 3), torch.randn(4, 1)
        losses.append(nn.functional.mse_loss(model(x), y) / 2)
        losses[-1].backward()
    assert trace.losses[0] == np.float32(sum(loss.item() for loss in losses))
    for name, parameter in model.named_parameters():
        grad: Any = parameter.grad
        assert np.array_equal(trace.raw_grads[name][0], grad.numpy())
    (number,) = trace.batch["x"][:1]
    assert trace.inputs["x"][int(number)].shape == (8, 7, 3)


def test_batch_by_fingerprint_keeps_no_values() -> None:
    values, _ = recorded(recurrent)
    trace, _ = recorded(recurrent, batch="fingerprint")
    assert trace.inputs == {}
    assert np.array_equal(trace.batch["x"], values.batch["x"])


def test_jax_is_not_needed() -> None:
    loop = """
import torch
from twinstep.torch import record
model = torch.nn.Linear(2, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
with record(model, out=folder) as rec:
    for _ in range(3):
        optimizer.zero_grad()
        model(torch.ones(3, 2)).square().sum().backward()
        optimizer.step()
"""
    check_alone("torch", loop, without=("jax", "jaxlib", "flax", "optax"))
