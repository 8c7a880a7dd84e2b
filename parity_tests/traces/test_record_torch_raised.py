"""What a PyTorch program raises and catches: the recorder is left as it was, and goes on."""

import os
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

import numpy as np
import pytest
import torch
from helpers.replaying import apart
from helpers.storing import bits
from torch import nn

from twinstep.torch import record
from twinstep.torch.naming import alive
from twinstep.trace.ledger import Trace

OURS = f"twinstep{os.sep}torch{os.sep}"


class Planted(torch.optim.SGD):
    """Does something, once, before its step or after it."""

    before: Callable[[], object] | None = None
    after: Callable[[], object] | None = None

    def step(self, closure: Any = None) -> Any:
        self.once("before")
        loss = super().step(closure)
        self.once("after")
        return loss

    def once(self, when: str) -> None:
        do = self.__dict__.pop(when, None)
        if do is not None:
            do()


class Within(Planted):
    """One whose own step catches what the step that it calls raises, and makes it again."""

    def step(self, closure: Any = None) -> Any:
        try:
            return super().step(closure)
        except RuntimeError:
            return super().step(closure)


class Around(torch.optim.Optimizer):
    """One that steps another."""

    def __init__(self, inner: torch.optim.Optimizer) -> None:
        self.inner = inner
        super().__init__(inner.param_groups[0]["params"], {})

    def step(self, closure: Any = None) -> Any:
        return self.inner.step(closure)


Fault = Callable[[nn.Sequential, Planted, Callable[[], Any]], Any]


def in_forward(model: nn.Sequential, optimizer: Planted, raises: Callable[[], Any]) -> Any:
    return model[2].register_forward_hook(lambda *_: raises())


def in_backward(model: nn.Sequential, optimizer: Planted, raises: Callable[[], Any]) -> Any:
    first, *_ = model.parameters()
    return first.register_hook(lambda grad: raises())


def in_step(model: nn.Sequential, optimizer: Planted, raises: Callable[[], Any]) -> Any:
    optimizer.before = raises


FAULTS: dict[str, Fault] = {"forward": in_forward, "backward": in_backward, "step": in_step}


def trained(
    fault: Fault | None,
    raises: Callable[[], Any],
    kind: Any = Planted,
    *,
    closure: bool = False,
    around: bool = False,
) -> tuple[Trace, list[bytes]]:
    """Four updates, and between them one that fails; None: nothing is there in its place."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1), nn.Dropout(0.5))
    optimizer = kind(model.parameters(), lr=0.1, momentum=0.9)
    outer = Around(optimizer) if around else optimizer

    def evaluate() -> Any:
        optimizer.zero_grad()
        loss = model(torch.full((2, 3), float(i))).square().mean()
        loss.backward()
        return loss

    with record(model) as rec:  # other optimizers are alive in other tests
        for i in range(5):
            torch.manual_seed(i)
            planted = fault(model, optimizer, raises) if i == 2 and fault else None
            if i == 2 and fault is None:
                continue
            try:
                if closure:
                    outer.step(evaluate)
                else:
                    evaluate()
                    outer.step()
            except (RuntimeError, KeyboardInterrupt):
                assert i == 2
            finally:
                if planted is not None:
                    planted.remove()
    return rec.trace, [parameter.detach().numpy().tobytes() for parameter in model.parameters()]


def raising(kind: type[BaseException]) -> Callable[[], Any]:
    def raises() -> Any:
        raise kind("planted")

    return raises


@pytest.mark.parametrize("ways", [{}, {"closure": True}, {"around": True}], ids=str)
@pytest.mark.parametrize("kind", [RuntimeError, KeyboardInterrupt])
@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_what_is_caught_leaves_nothing(fault: Fault, kind: Any, ways: dict[str, bool]) -> None:
    """The trace is that of a program which does not do what failed, to the bit."""
    trace, params = trained(fault, raising(kind), **ways)
    expected, same = trained(None, raising(kind), **ways)
    assert len(trace) == 4
    assert trace.update["optimizer"].tolist() == [1, 2, 3, 4]
    assert params == same
    found, wanted = bits(trace), bits(expected)
    if fault is not in_step:  # what a pass draws that fails is drawn since the last update
        del found["rng"], wanted["rng"]
    assert found == wanted


def test_what_a_failed_step_has_changed_is_told() -> None:
    def after(model: nn.Sequential, optimizer: Planted, raises: Callable[[], Any]) -> None:
        optimizer.after = raises

    trace, params = trained(after, raising(RuntimeError))
    assert [array[-1].tobytes() for array in trace.params.values()] == params
    assert trace.steps_of("update", "changed_outside").tolist() == [2]
    assert "params/0.weight" in trace.before
    assert apart(trace) == {}


def test_a_step_that_catches_what_it_calls_is_one() -> None:
    trace, params = trained(in_step, raising(RuntimeError), Within)
    assert trace.update["optimizer"].tolist() == [1, 2, 3, 4, 5]
    assert [array[-1].tobytes() for array in trace.params.values()] == params
    assert apart(trace) == {}


def test_a_batch_that_is_said_is_of_the_step_that_failed() -> None:
    model = nn.Linear(2, 1)
    optimizer = Planted(model.parameters(), lr=0.1)
    optimizer.before = raising(RuntimeError)
    with record(model) as rec:
        for i in range(2):
            rec.batch(i=torch.full((1,), i))
            optimizer.zero_grad()
            model(torch.ones(3, 2)).sum().backward()
            if i == 0:
                with pytest.raises(RuntimeError, match="planted"):
                    optimizer.step()
            else:
                optimizer.step()
    assert rec.trace.inputs_of(0)["i"].tolist() == [1]


class Interrupt:
    """Raises KeyboardInterrupt before so many lines of what records are run."""

    def __init__(self, lines: int) -> None:
        self.left = lines

    def __call__(self, frame: FrameType, event: str, _: Any) -> Any:
        code = frame.f_code
        if OURS not in code.co_filename or code.co_qualname.startswith("Calls.around"):
            return None  # around a module's call: what comes while it ends is not made good
        if event == "line":
            self.left -= 1
            if not self.left:
                raise KeyboardInterrupt
        return self


@pytest.mark.parametrize("lines", range(1, 300, 13))
def test_an_interrupt_of_what_records_is_caught(lines: int) -> None:
    """What follows is recorded, and of what was under way no half."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
    before = sys.gettrace()
    with record(model) as rec:
        for i in range(5):
            sys.settrace(Interrupt(lines) if i == 2 else before)
            try:
                optimizer.zero_grad()
                model(torch.full((2, 3), float(i))).square().mean().backward()
                optimizer.step()
            except KeyboardInterrupt:
                assert i == 2
            finally:
                sys.settrace(before)
    trace = rec.trace
    assert trace.validation_error() is None
    assert apart(trace) == {}
    last = [trace.inputs_of(len(trace) - back)["input"] for back in (2, 1)]
    assert [batch[0, 0] for batch in last] == [3.0, 4.0]
    assert np.isfinite(trace.losses).all()
    for array, parameter in zip(trace.params.values(), model.parameters(), strict=True):
        assert np.array_equal(array[-1], parameter.detach().numpy())


class Trainer:
    """What holds an optimizer."""

    def __init__(self) -> None:
        self.optimizer = torch.optim.SGD(nn.Linear(2, 1).parameters(), lr=0.1)

    def fit(self) -> None:
        other = torch.optim.SGD(nn.Linear(2, 1).parameters(), lr=0.1)
        raise ValueError(other)


def test_what_only_the_last_exception_holds_is_in_no_use(monkeypatch: pytest.MonkeyPatch) -> None:
    """A notebook keeps what a cell raised, and with it what that had made: no rival's names."""
    monkeypatch.setattr(sys, "last_value", None, raising=False)  # and as it was, at the end
    kept = Trainer()
    before = len(alive(torch.optim.Optimizer))
    for trainer in (kept, None):
        with pytest.raises(ValueError, match="SGD") as raised:
            (trainer or Trainer()).fit()
        error = raised.value
        error.args = ()
        assert len(alive(torch.optim.Optimizer)) == before + (1 if trainer else 2)
        sys.last_value = error
        assert len(alive(torch.optim.Optimizer)) == before
        del raised, error
    assert kept.optimizer in alive(torch.optim.Optimizer)
