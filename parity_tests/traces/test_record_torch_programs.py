"""PyTorch programs as they are, one trait each: what is recorded of it, undisturbed.

Of each the optimizer's rule, made again from what was recorded, gives the recorded parameters to
the bit; and the run that was recorded leaves the bits of one that was not.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.recording import Unrecorded
from helpers.replaying import apart
from helpers.storing import bits
from helpers.synthetic_traces import refused
from helpers.torch_programs import (
    PROGRAMS,
    Made,
    accumulated,
    adversarial,
    by_hand,
    changed_outside,
    checkpointed,
    clipped_in_a_closure,
    clocked,
    closures,
    compiled,
    frozen,
    loose,
    made_late,
    net,
    penalised,
    rollouts,
    scaled,
    scaled_and_fused,
    scaled_plainly,
    sharpness_aware,
    wrapped,
)
from torch import nn

from twinstep.torch import record
from twinstep.trace.ledger import Trace

each_program = pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.__name__)


def made(program: Callable[[Any], Made], **options: Any) -> tuple[Trace, list[bytes]]:
    """What a program leaves, recorded as a whole, and its parameters."""
    torch.manual_seed(0)
    rec, modules = program(lambda: record(**options))
    return rec.trace, [p.detach().numpy().tobytes() for m in modules for p in m.parameters()]


@each_program
def test_a_program_is_recorded_as_it_is(program: Callable[[Any], Made], tmp_path: Path) -> None:
    trace, params = made(program, out=tmp_path / "trace")
    torch.manual_seed(0)
    plain = [p.detach().numpy().tobytes() for m in program(Unrecorded)[1] for p in m.parameters()]
    assert params == plain, "recording changes no bit"
    assert {array[-1].tobytes() for array in trace.params.values()} >= {*params}
    assert trace.validation_error() is None
    assert np.isfinite(trace.losses).all()
    assert apart(trace) == {}
    in_memory, _ = made(program)
    assert bits(trace) == bits(in_memory)


def leaves_of(trace: Trace, stage: str) -> dict[str, list[int]]:
    """{leaf: its steps}."""
    return {leaf: trace.steps_of(stage, leaf).tolist() for leaf in getattr(trace, stage)}


def test_an_update_is_of_its_own_optimizer() -> None:
    trace, _ = made(adversarial)
    assert leaves_of(trace, "update") == {"of_d": [0, 2, 4], "of_g": [1, 3, 5]}
    assert trace.steps_of("params", "generator.0.weight").tolist() == [1, 3, 5]
    assert trace.steps_of("raw_grads", "discriminator.0.weight").tolist() == [0, 2, 4]
    assert trace.hyper_parameters["of_g.0.betas.0"].tolist() == [0.5] * 3
    assert leaves_of(trace, "micro_losses") == {"loss": [0, 0, 2, 2, 4, 4]}
    assert trace.losses[0] == np.float32(trace.micro_losses["loss"][:2].sum())
    first, second = trace.inputs_of(0), trace.inputs_of(1)
    assert first["discriminator.input"].shape == (10, 3), "a real batch and a made one"
    labels = [inputs["BCEWithLogitsLoss.target"].ravel().tolist() for inputs in (first, second)]
    assert labels == [[1.0] * 5 + [0.0] * 5, [1.0] * 5], "as they were when they were given"
    assert set(second) == {"generator.input", "BCEWithLogitsLoss.target"}


def test_the_sum_of_micro_batches_and_their_losses() -> None:
    trace, _ = made(accumulated)
    assert leaves_of(trace, "micro_losses") == {"loss": [0, 0, 1, 1, 2, 2, 2]}
    parts = np.split(trace.micro_losses["loss"], [2, 4])
    assert np.allclose(trace.losses, [part.sum() for part in parts], rtol=1e-6)
    assert [len(trace.inputs_of(step)["input"]) for step in range(3)] == [8, 8, 12]


def test_what_others_change_is_told() -> None:
    trace, _ = made(changed_outside)
    assert leaves_of(trace, "update") == {"optimizer": [0, 1, 2, 3, 4], "changed_outside": [2, 4]}
    assert set(map(tuple, leaves_of(trace, "before").values())) <= {(2, 4), (4,), (2,)}
    assert np.abs(trace.before["params/0.weight"][0]).max() <= np.float32(0.1)
    assert leaves_of(made(sharpness_aware)[0], "before"), "there and back again is not quite back"


def test_the_one_inside_makes_the_update() -> None:
    trace, _ = made(wrapped)
    assert leaves_of(trace, "update") == {"optimizer": [0, 1, 2, 3, 4], "changed_outside": [2, 4]}
    assert trace.program["optimizers"]["optimizer"]["class"] == "SGD"


def test_no_gradient_is_not_a_zero_gradient() -> None:
    trace, _ = made(frozen)
    assert leaves_of(trace, "grads") == {
        "head.weight": [0, 1, 2, 3],
        "head.bias": [0, 1, 2, 3],
        "spare.weight": [1, 3],
        "spare.bias": [1, 3],
    }
    assert trace.steps_of("opt_state", "spare.weight.exp_avg").tolist() == [1, 2, 3]
    assert "body.0.weight" in trace.params


def test_evaluations_of_one_update() -> None:
    trace, _ = made(closures)
    steps = trace.steps_of("micro_losses", "loss")
    assert np.bincount(steps).min() > 1
    first = np.searchsorted(steps, range(3))
    assert np.array_equal(trace.losses, trace.micro_losses["loss"][first].astype(np.float32))


def test_clipping_is_seen_wherever_it_is() -> None:
    trace, _ = made(clipped_in_a_closure)
    assert not any(map(trace.held_once, trace.grads))
    squares = sum((grad.reshape(3, -1) ** 2).sum(1) for grad in trace.grads.values())
    assert np.allclose(np.sqrt(squares), 1e-2, rtol=1e-4)


@pytest.mark.parametrize("program", [scaled, scaled_and_fused])
def test_a_scale_is_divided_out_and_a_skipped_step_is_none(program: Callable[[Any], Made]) -> None:
    trace, _ = made(program)
    assert trace.update["optimizer"].tolist() == [1, 2, 3], "the second of four was skipped"
    plain, _ = made(lambda recording: scaled_plainly(recording))
    assert trace.losses[0] == plain.losses[0]
    for name, grads in trace.raw_grads.items():
        assert np.allclose(grads[0], plain.raw_grads[name][0], rtol=1e-5)
        assert np.array_equal(trace.grads[name][:2], grads[:2])
        assert np.abs(trace.grads[name][2]).max() <= 1e-2


def test_a_parameter_outside_modules_bears_its_variables_name() -> None:
    trace, _ = made(loose)
    assert trace.steps_of("params", "log_alpha").tolist() == [1, 3, 5]
    assert set(leaves_of(trace, "update")) == {"of_model", "of_alpha"}


def test_an_optimizer_is_renewed_and_gets_more_parameters() -> None:
    trace, _ = made(made_late)
    assert leaves_of(trace, "update") == {"optimizer": [0, 1, 2, 3, 4, 5], "renewed": [3]}
    assert trace.opt_state["head.weight.step"].tolist() == [1, 2, 1, 2]


def test_a_call_counts_if_the_gradient_flowed_through_it() -> None:
    trace, _ = made(rollouts)
    shapes = {name: array.shape for name, array in trace.inputs_of(0).items()}
    assert shapes == {"actor.input": (6, 3), "critic.input": (6, 3)}
    inputs = made(penalised)[0].inputs_of(0)
    assert inputs["input"].shape == (8, 3), "the penalty's batch too"


def test_where_numbers_were_drawn_the_generators_state_is_kept() -> None:
    trace, _ = made(checkpointed)
    assert trace.steps_of("rng", "torch").tolist() == [0, 1, 2]
    torch.manual_seed(0)
    net(3, 4), nn.Linear(4, 1)
    torch.randn(4, 3)
    assert np.array_equal(trace.rng["torch"][0], torch.get_rng_state().numpy())
    assert made(closures)[0].rng == {}


def test_a_compiled_model_keeps_its_names() -> None:
    trace, _ = made(compiled)
    assert list(trace.params) == ["0.weight", "0.bias", "2.weight", "2.bias"]
    assert trace.inputs_of(0)["input"].shape == (4, 3)
    assert trace.program["modules"]["0"] == "Linear(in_features=3, out_features=4, bias=True)"


def test_an_update_by_hand_is_told() -> None:
    torch.manual_seed(0)
    trace = by_hand(record)[0].trace
    assert leaves_of(trace, "update") == {"by_hand": [0, 1, 2]}
    for name, params in trace.params.items():
        assert np.array_equal(params[1:], params[:-1] - np.float32(0.1) * trace.grads[name])
    assert trace.hyper_parameters["by_hand.lr"].tolist() == [0.1] * 3
    assert np.isfinite(trace.losses).all()


def test_a_loss_that_cannot_be_seen_is_a_warning_said_once() -> None:
    model = nn.Linear(2, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def train() -> None:
        with rec:
            for _ in range(3):
                for parameter in model.parameters():
                    parameter.grad = torch.ones_like(parameter)
                optimizer.step()

    rec = record()
    with pytest.warns(UserWarning, match="the update's loss is not known") as said:
        train()
    assert len(said) == 1
    assert rec.trace.rows["loss/loss"].tolist() == []
    assert len(rec.trace) == 3
    assert rec.trace.raw_grads == {}


def test_a_probe_is_ignored() -> None:
    model = net(3, 4, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with record(model) as rec:
        for _ in range(2):
            with rec.ignored():
                model(torch.ones(4, 3)).sum().backward()
                optimizer.step()
            optimizer.zero_grad()
            loss = model(torch.ones(4, 3)).square().mean()
            loss.backward()
            optimizer.step()
    assert len(rec.trace) == 2
    assert rec.trace.losses[1] == loss.item()
    assert leaves_of(rec.trace, "update")["changed_outside"] == [0, 1]


@pytest.mark.parametrize("steps_too", [False, True])
def test_an_idle_program_of_another_dtype_is_none_of_it(steps_too: bool) -> None:
    """A notebook has one still: it is left out, and refused where it is trained as well."""
    old, model = net(2, 1).double(), net(3, 1)
    idle, optimizer = (torch.optim.SGD(m.parameters(), lr=0.1) for m in (old, model))

    def train() -> Trace:
        with record() as rec:
            for one, trained in ((optimizer, model), (idle, old))[: 1 + steps_too]:
                one.zero_grad()
                (first, *_) = trained.parameters()
                trained(torch.ones(4, first.shape[1], dtype=first.dtype)).sum().backward()
                one.step()
        return rec.trace

    if steps_too:
        assert "float32 and float64" in refused(train)
    else:
        trace = train()
        assert list(trace.params) == ["0.weight", "0.bias"]
        assert trace.metadata.dtype == "float32"


@pytest.mark.parametrize(
    ("every", "steps"),
    [(1, 4), (2, None), (3, 2), (5, None), (1, (2, 3, 5)), (1, {1}), (2, [3])],
)
def test_some_updates_are_those_of_all(every: int, steps: Any) -> None:
    """Of the updates that are recorded all is there, the state before and after."""
    whole, _ = made(clocked)
    part, _ = made(clocked, every=every, steps=steps)
    kept = list(range(0, 5, every))
    kept = kept[:steps] if not isinstance(steps, tuple | set | list) else kept
    kept = [n for n in kept if not isinstance(steps, tuple | set | list) or n + 1 in steps]
    assert part.update["optimizer"].tolist() == [step + 1 for step in kept]
    assert np.array_equal(part.losses, whole.losses[kept])
    assert apart(part) == {}
    for name, rows in whole.params.items():
        assert np.array_equal(part.params[name][1:], rows[1:][kept])
        assert np.array_equal(part.grads[name], whole.grads[name][kept])


def test_what_is_left_out() -> None:
    trace, _ = made(clocked, exclude=["0.*", "*.exp_avg_sq"], raw_grads=False, batch="fingerprint")
    assert list(trace.params) == ["2.weight", "2.bias"]
    assert [name for name in trace.opt_state if name.startswith("2.weight")] == [
        "2.weight.step",
        "2.weight.exp_avg",
    ]
    assert trace.raw_grads == {}
    assert list(trace.grads) == ["2.weight", "2.bias"]
    assert trace.inputs == {}


def test_what_other_processes_change_is_refused() -> None:
    model = nn.Linear(2, 1).share_memory()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def train() -> None:
        with record():
            model(torch.ones(3, 2)).sum().backward()
            optimizer.step()

    refused(train, "parameter 'weight' is in memory that processes share", "hogwild")
    refused(lambda: record(model), "parameter 'weight' is in memory that processes share")


def test_modules_and_optimizers_bear_the_names_that_are_given() -> None:
    one, two = nn.Linear(2, 1), nn.Linear(2, 1)
    optimizers = {
        name: torch.optim.SGD(m.parameters(), 0.1) for name, m in (("a", one), ("b", two))
    }
    with record(first=one, second=two, optimizers=optimizers) as rec:
        for name, model in (("b", two), ("a", one)):
            model(torch.ones(3, 2)).sum().backward()
            optimizers[name].step()
    assert leaves_of(rec.trace, "update") == {"a": [1], "b": [0]}
    assert set(rec.trace.params) == {
        f"{m}.{p}" for m in ("first", "second") for p in ("weight", "bias")
    }


@pytest.mark.parametrize("planted", ["grads", "params", "opt_state", "hyper_parameters"])
def test_a_planted_fault_is_seen_by_the_rule(planted: str) -> None:
    trace, _ = made(clocked)
    for name, rows in getattr(trace, planted).items():
        rows[2] *= 1.5 if "betas" not in name else 0.9
    assert apart(trace)
