"""What counts as a step of a PyTorch loop, and as its loss; and what a recorder refuses."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.recording import step
from helpers.synthetic_traces import refused
from torch import nn
from torch.utils.checkpoint import checkpoint

import twinstep
from twinstep.torch import record
from twinstep.trace.ledger import Trace


def linear(outputs: int = 1, lr: float = 0.1) -> tuple[nn.Linear, torch.optim.SGD, torch.Tensor]:
    """A small model, its optimizer and a batch."""
    model = nn.Linear(2, outputs)
    return model, torch.optim.SGD(model.parameters(), lr=lr), torch.ones(3, 2)


def test_closure_counts_once() -> None:
    torch.manual_seed(0)
    model, x, y = nn.Linear(3, 1), torch.randn(8, 3), torch.randn(8, 1)
    optimizer = torch.optim.LBFGS(model.parameters(), max_iter=5)
    evaluations = []

    def closure() -> Any:
        optimizer.zero_grad()
        loss = nn.functional.mse_loss(model(x), y)
        loss.backward()
        grad: Any = model.weight.grad
        evaluations.append((loss.item(), grad.clone().numpy()))
        return loss

    with record(model) as rec:
        optimizer.step(closure)
    assert len(evaluations) > 2
    assert rec.trace.losses[0] == np.float32(evaluations[0][0])
    assert np.array_equal(rec.trace.raw_grads["weight"][0], evaluations[0][1])
    assert rec.trace.held_once("weight")


def test_clipping_inside_a_closure_is_seen() -> None:
    model, optimizer, x = linear()

    def closure() -> Any:
        optimizer.zero_grad()
        loss = model(9 * x).square().mean()
        loss.backward()
        nn.utils.clip_grad_value_(model.parameters(), 0.01)
        return loss

    with record(model) as rec:
        optimizer.step(closure)
    assert np.abs(rec.trace.grads["weight"]).max() <= np.float32(0.01)
    assert np.abs(rec.trace.raw_grads["weight"]).max() > 0.01


def test_loss_of_others_does_not_count() -> None:
    (model, ours, x), (other, theirs, _) = linear(), linear()
    with record(model) as rec:
        model(x).sum().backward()  # cleared before it is used
        step(theirs, other(x).square().mean() * 1000)
        expected = model(x).square().mean()
        step(ours, expected)
        with torch.no_grad():
            model(x)
    assert rec.trace.losses.tolist() == [expected.item()]


def test_checkpointed_backward_counts_once() -> None:
    model, optimizer, x = linear(outputs=2)
    x.requires_grad_()
    with record(model) as rec:
        loss = checkpoint(lambda x: model(x).square(), x, use_reentrant=True).mean()
        step(optimizer, loss)
    assert rec.trace.losses.tolist() == [loss.item()]


class Decaying(torch.optim.SGD):
    """An optimizer made from another, whose step it calls."""

    def step(self, closure: Any = None) -> Any:
        loss = super().step(closure)
        with torch.no_grad():
            for group in self.param_groups:
                for parameter in group["params"]:
                    parameter.mul_(0.5)
        return loss


def test_step_that_calls_that_of_its_class_is_one() -> None:
    model, _, x = linear()  # whose optimizer's step is hooked when one is made
    optimizer = Decaying(model.parameters(), lr=0.1)
    with record(model) as rec:
        for _ in range(2):
            step(optimizer, model(x).sum())
    assert len(rec.trace) == 2
    assert np.array_equal(rec.trace.params["weight"][-1], model.weight.detach().numpy())


def test_gradients_that_are_zero_are_gradients() -> None:
    model, optimizer, x = linear()
    with record(model) as rec:
        for _ in range(2):
            step(optimizer, (0.0 * model(x)).sum() + 1)
    assert rec.trace.losses.tolist() == [1.0, 1.0]
    assert not rec.trace.raw_grads["weight"].any()


def test_gradients_that_pile_up() -> None:
    model, optimizer, x = linear(lr=0.0)
    with record(model) as rec:
        for _ in range(3):
            loss = model(x).sum()
            loss.backward()
            optimizer.step()
    assert rec.trace.losses.tolist() == [loss.item()] * 3, "an update ends a sum"
    assert rec.trace.raw_grads["weight"][:, 0, 0].tolist() == [3.0, 6.0, 9.0]


def test_leaf_that_joins_late_has_rows_from_then_on(tmp_path: Path) -> None:
    (body, optimizer, x), head = linear(outputs=2), nn.Linear(2, 1)
    with record(body, out=tmp_path / "trace") as rec:
        for i in range(5):
            if i == 2:
                optimizer.add_param_group({"params": head.parameters(), "momentum": 0.9})
            step(optimizer, head(body(x)).square().mean())
    trace = rec.trace
    assert trace.rows["params/head.weight"].tolist() == [2, 3, 4]
    assert trace.params["head.weight"].shape == (4, 1, 2)
    assert trace.raw_grads["head.weight"].shape == (3, 1, 2)
    assert trace.rows["opt_state/head.weight.momentum_buffer"].tolist() == [2, 3, 4]
    assert "group 1 of 2 parameters: momentum 0.9, lr 0.1" in trace.summary()
    assert twinstep.compare(trace, twinstep.load_trace(tmp_path / "trace")).verdict == "equal"
    again = trace.slice(1, 5)
    assert again.params["head.weight"].shape == (4, 1, 2)
    assert again.validation_error() is None


def test_compiled_and_wrapped_names_are_the_models_own() -> None:
    model, optimizer, x = linear()
    compiled: Any = torch.compile(model, backend="eager")
    with record(compiled) as rec:
        step(optimizer, model(x).sum())
    assert list(rec.trace.params) == ["weight", "bias"]


def test_pieces_are_one_trace(tmp_path: Path) -> None:
    """However many steps are held at once, in memory or on their way to disk, nothing is lost."""
    from twinstep.torch.recorder import Recorder

    def run(**options: Any) -> Trace:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), nn.Linear(2, 1))
        optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
        with Recorder({"": model}, **options) as rec:
            for i in range(7):
                loss = model(torch.randn(4, 2)).square().mean()
                optimizer.zero_grad()
                loss.backward()
                if i == 4:
                    nn.utils.clip_grad_value_(model.parameters(), 1e-3)
                optimizer.step()
        return rec.trace

    whole = run()
    for rows in (1, 2, 3, 7):
        for options in ({}, {"out": tmp_path / f"{rows}"}):
            assert twinstep.compare(whole, run(rows=rows, **options)).verdict == "equal"


def test_what_was_finished_stays_readable(tmp_path: Path) -> None:
    model, optimizer, x = linear()

    def interrupted() -> None:
        with record(model, out=tmp_path / "trace"):
            for i in range(3):
                step(optimizer, model(x).sum() + 1 / (2 - i))

    with pytest.raises(ZeroDivisionError):
        interrupted()
    stored = twinstep.open_trace(tmp_path / "trace")
    assert (stored.steps, stored.complete) == (2, False)


def test_a_twins_trace_holds_what_its_mirrors_does() -> None:
    """Of a program that is known nothing is looked for that cannot be."""
    spec = twinstep.examples()["linear_regression_adam"](steps=3)
    one, two = (twinstep.run(spec, framework=side) for side in ("torch", "jax"))
    for stage in ("update", "before", "micro_losses", "rng", "rows"):
        assert getattr(one, stage) == getattr(two, stage) == {}


def told(*steps: Callable[[Any], None], **options: Any) -> Callable[[], None]:
    """A loop of some steps, each given the optimizer, with a recorder."""

    def run() -> None:
        model, optimizer, _ = linear()
        with record(model, **options):
            for one in steps:
                one(optimizer)

    return run


NO_STEP = told()
NO_MODULE: Any = [nn.Linear(1, 1)]
REFUSED: dict[str, tuple[Callable[[], object], str]] = {
    "no step": (NO_STEP, "nothing was recorded: no step was made"),
    "activations": (told(activations=["layer"]), "unknown activations 'layer'"),
    "batch": (told(batch="all"), "unknown batch 'all'"),
    "nothing that learns": (lambda: record(nn.ReLU()), "ReLU has no parameter that learns"),
    "no module": (lambda: record(NO_MODULE), "record was given a list, expected a torch.nn.Module"),
    "steps": (told(steps=0), "steps is 0, expected a whole number from 1 on"),
    "every": (told(every=1.5), "every is 1.5, expected a whole number from 1 on"),
    "optimizer of others": (
        told(optimizers={"other": linear()[1]}),
        "optimizer 'other' updates no parameter of the modules that are recorded",
    ),
}


@pytest.mark.parametrize(("act", "says"), REFUSED.values(), ids=REFUSED)
def test_refused_in_one_line(act: Callable[[], object], says: str) -> None:
    said = refused(act)
    assert said == says if act is NO_STEP else said.startswith(says)


def test_used_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    refused(told(out=tmp_path), "is not empty")


def test_a_renewed_optimizer_goes_on() -> None:
    model, x = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1)), torch.ones(3, 2)
    with record(model) as rec:
        for _ in range(2):
            step(torch.optim.Adam(model.parameters()), model(x).square().mean())
    assert rec.trace.opt_state["0.weight.step"].tolist() == [1.0, 1.0]
    assert rec.trace.update["optimizer"].tolist() == [1, 2]


def test_said_batch_is_copied_and_has_to_be_numbers() -> None:
    model, optimizer, x = linear()
    with record(model) as rec:
        rec.batch(x=x, weights=np.arange(3))
        x.zero_()
        step(optimizer, model(torch.ones(3, 2)).sum())
        refused(lambda: rec.batch(names=["a", "b"]), "batch names is a list, expected a tensor")
    inputs = rec.trace.inputs_of(0)
    assert inputs["x"].min() == 1
    assert inputs["weights"].tolist() == [0, 1, 2]
    refused(lambda: rec.trace.inputs_of(1), "step 1 of a trace that has 1")


def test_a_fault_in_recording_is_none_of_the_training(tmp_path: Path) -> None:
    """It is said when the block is left; what was finished stays readable."""
    model = nn.Sequential(nn.Linear(2, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def train() -> None:
        with record(model, activations=["0"], out=tmp_path / "trace"):
            for samples in (3, 4, 3):
                step(optimizer, model(torch.ones(samples, 2)).sum())

    (weight, _), samples = model.parameters(), 3 + 4 + 3
    before = weight.detach().clone()
    refused(train, "step 2: activations, 0 has shape (4, 1)")
    assert torch.allclose(weight, before - 0.1 * samples), "every update was made"
    assert twinstep.open_trace(tmp_path / "trace").steps == 1
