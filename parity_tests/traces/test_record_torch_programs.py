"""PyTorch programs as they are, one trait each: what is recorded of it, undisturbed.

Of each the optimizer's rule, made again from what was recorded, gives the recorded parameters to
the bit; and the run that was recorded leaves the bits of one that was not.
"""

import copy
import itertools
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
from torch import nn
from torch.utils.checkpoint import checkpoint

from twinstep.torch import record
from twinstep.trace.ledger import Trace

F = nn.functional
Made = tuple[Any, list[nn.Module]]
"""What was recorded, and what was trained."""


def net(*sizes: int) -> nn.Sequential:
    """Linear layers with tanh between them."""
    layers: list[nn.Module] = []
    for one, two in itertools.pairwise(sizes):
        layers += [nn.Linear(one, two), nn.Tanh()]
    return nn.Sequential(*layers[:-1])


def adversarial(recording: Any) -> Made:
    """Two optimizers; the generator's loss leaves gradients in the discriminator."""
    generator, discriminator = net(2, 4, 3), net(3, 4, 1)
    of_g = torch.optim.Adam(generator.parameters(), lr=0.01, betas=(0.5, 0.999))
    of_d = torch.optim.Adam(discriminator.parameters(), lr=0.02)
    criterion = nn.BCEWithLogitsLoss()
    label = torch.empty(5, 1)
    with recording() as rec:
        for _ in range(3):
            discriminator.zero_grad()
            label.fill_(1.0)
            criterion(discriminator(torch.randn(5, 3)), label).backward()
            fake = generator(torch.randn(5, 2))
            label.fill_(0.0)  # the very tensor, filled in place
            criterion(discriminator(fake.detach()), label).backward()
            of_d.step()
            generator.zero_grad()
            label.fill_(1.0)
            criterion(discriminator(fake), label).backward()
            of_g.step()
    return rec, [generator, discriminator]


def accumulated(recording: Any) -> Made:
    """Micro-batches, with another number in the last update."""
    model = net(3, 4, 1)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    with recording() as rec:
        for count in (2, 2, 3):
            for _ in range(count):
                loss = F.mse_loss(model(torch.randn(4, 3)), torch.ones(4, 1)) / count
                loss.backward()
            optimizer.step()
            optimizer.zero_grad()
    return rec, [model]


def changed_outside(recording: Any) -> Made:
    """Weights are clipped, averaged and loaded between updates, by `.data` too."""
    model = net(3, 4, 1)
    optimizer = torch.optim.RMSprop(model.parameters(), lr=0.01)
    start = copy.deepcopy(model.state_dict())
    with recording() as rec:
        for i in range(5):
            optimizer.zero_grad()
            model(torch.randn(4, 3)).square().mean().backward()
            optimizer.step()
            if i == 1:
                for parameter in model.parameters():
                    parameter.data.clamp_(-0.1, 0.1)
            if i == 3:
                model.load_state_dict(start)
    return rec, [model]


class Lookahead(torch.optim.Optimizer):
    """Steps another optimizer, and goes back half the way at every second."""

    def __init__(self, inner: torch.optim.Optimizer) -> None:
        self.inner, self.count = inner, 0
        super().__init__([p for g in inner.param_groups for p in g["params"]], {})
        self.slow = [p.detach().clone() for p in self.param_groups[0]["params"]]

    def step(self, closure: Any = None) -> Any:
        self.inner.step()
        self.count += 1
        if self.count % 2 == 0:
            for slow, parameter in zip(self.slow, self.param_groups[0]["params"], strict=True):
                slow += 0.5 * (parameter.detach() - slow)
                parameter.data.copy_(slow)


def wrapped(recording: Any) -> Made:
    """An optimizer around another one, whose updates are those of the one inside."""
    model = net(3, 4, 1)
    inner = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    optimizer = Lookahead(inner)
    with recording() as rec:
        for _ in range(5):
            inner.zero_grad()
            model(torch.randn(4, 3)).square().mean().backward()
            optimizer.step()
    return rec, [model]


def sharpness_aware(recording: Any) -> Made:
    """SAM: a step away by hand, a second backward pass, back, and the update."""
    model = net(3, 4, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with recording() as rec:
        for _ in range(3):
            x = torch.randn(4, 3)
            model(x).square().mean().backward()
            with torch.no_grad():
                grads: list[Any] = [p.grad for p in model.parameters()]
                moves = [0.05 * grad / grad.norm() for grad in grads]
                for parameter, move in zip(model.parameters(), moves, strict=True):
                    parameter.add_(move)
            optimizer.zero_grad()
            model(x).square().mean().backward()
            with torch.no_grad():
                for parameter, move in zip(model.parameters(), moves, strict=True):
                    parameter.sub_(move)
            optimizer.step()
            optimizer.zero_grad()
    return rec, [model]


def closures(recording: Any) -> Made:
    """LBFGS evaluates many times an update."""
    model = net(3, 4, 1)
    optimizer = torch.optim.LBFGS(model.parameters(), lr=0.5, max_iter=4)
    x, y = torch.randn(8, 3), torch.randn(8, 1)

    def closure() -> Any:
        optimizer.zero_grad()
        loss = F.mse_loss(model(x), y)
        loss.backward()
        return loss

    with recording() as rec:
        for _ in range(3):
            optimizer.step(closure)
    return rec, [model]


def clipped_in_a_closure(recording: Any) -> Made:
    """A closure handed to every optimizer, as Lightning does, with the clipping inside."""
    model = net(3, 4, 1)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)

    def closure() -> Any:
        optimizer.zero_grad()
        loss = model(torch.randn(4, 3)).square().mean()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1e-2)
        return loss

    with recording() as rec:
        for _ in range(3):
            optimizer.step(closure=closure)
    return rec, [model]


def frozen(recording: Any) -> Made:
    """Half of the model gets no gradient, and one layer is used now and then."""
    body, head, spare = net(3, 4), nn.Linear(4, 1), nn.Linear(4, 1)
    model = nn.ModuleDict({"body": body.requires_grad_(False), "head": head, "spare": spare})
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=0.01)
    with recording() as rec:
        for i in range(4):
            optimizer.zero_grad()
            hidden = body(torch.randn(4, 3))
            loss = head(hidden).square().mean()
            if i % 2:
                loss = loss + spare(hidden).square().mean()
            loss.backward()
            optimizer.step()
    return rec, [model]


def loose(recording: Any) -> Made:
    """A parameter in no module, as a temperature is; and an optimizer of its own."""
    model, log_alpha = net(3, 4, 1), torch.zeros(1, requires_grad=True)
    of_model = torch.optim.Adam(model.parameters(), lr=0.01)
    of_alpha = torch.optim.Adam([log_alpha], lr=0.05)
    with recording() as rec:
        for _ in range(3):
            of_model.zero_grad()
            value = model(torch.randn(4, 3))
            (log_alpha.exp().detach() * value).mean().backward()
            of_model.step()
            of_alpha.zero_grad()
            (-log_alpha.exp() * (value.detach() + 0.1)).mean().backward()
            of_alpha.step()
    holder = nn.Module()
    holder.register_parameter("log_alpha", nn.Parameter(log_alpha.detach()))
    return rec, [model, holder]


def made_late(recording: Any) -> Made:
    """A trainer makes the optimizer, renews it, and gives it more parameters."""

    class Trainer:
        def __init__(self, model: nn.ModuleDict) -> None:
            self.model = model

        def run(self) -> None:
            body, head = self.model["body"], self.model["head"]
            for epoch in range(2):
                optimizer = torch.optim.Adam(body.parameters(), lr=0.01)
                for i in range(3):
                    if i == 1:
                        optimizer.add_param_group({"params": head.parameters(), "lr": 0.1})
                    optimizer.zero_grad()
                    head(body(torch.randn(4, 3))).square().mean().backward()
                    optimizer.step()
                assert epoch < 2

    model = nn.ModuleDict({"body": net(3, 4), "head": nn.Linear(4, 1)})
    with recording() as rec:
        Trainer(model).run()
    return rec, [model]


def scaled(recording: Any, fused: bool | None = None) -> Made:
    """A GradScaler, with an overflow that skips an update."""
    model = net(3, 4, 1)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01, fused=fused)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    with recording() as rec:
        for i in range(4):
            optimizer.zero_grad()
            loss = model(torch.randn(4, 3)).square().mean()
            scaler.scale(loss * (float("inf") if i == 1 else 1.0)).backward()
            if i == 3:
                scaler.unscale_(optimizer)
                nn.utils.clip_grad_norm_(model.parameters(), 1e-2)
            scaler.step(optimizer)
            scaler.update()
    return rec, [model]


def scaled_and_fused(recording: Any) -> Made:
    """The same with an optimizer that divides by the scale itself."""
    return scaled(recording, fused=True)


def in_backward(recording: Any) -> Made:
    """An optimizer for each parameter, that steps as soon as its gradient is there."""
    model = nn.Linear(3, 1)
    made = {p: torch.optim.SGD([p], lr=0.1) for p in model.parameters()}

    def update(parameter: nn.Parameter) -> None:
        made[parameter].step()
        made[parameter].zero_grad()

    with recording() as rec:
        for parameter in model.parameters():
            parameter.register_post_accumulate_grad_hook(update)
        for _ in range(3):
            model(torch.randn(4, 3)).square().mean().backward()
    return rec, [model]


def penalised(recording: Any) -> Made:
    """WGAN-GP: a gradient's own norm is in the loss; the optimizer made from a class."""
    critic = net(3, 4, 1)
    optimizer = torch.optim.NAdam(critic.parameters(), lr=0.01)
    with recording() as rec:
        for _ in range(3):
            optimizer.zero_grad()
            x = torch.randn(4, 3, requires_grad=True)
            (slope,) = torch.autograd.grad(critic(x).sum(), x, create_graph=True)
            (critic(torch.randn(4, 3)).mean() + ((slope.norm(dim=1) - 1) ** 2).mean()).backward()
            optimizer.step()
    return rec, [critic]


def rollouts(recording: Any) -> Made:
    """Calls whose gradient is never used, a part of a module called by itself, a probe."""
    agent = nn.ModuleDict({"actor": net(3, 4, 2), "critic": net(3, 4, 1)})
    optimizer = torch.optim.Adagrad(agent.parameters(), lr=0.01)
    with recording() as rec:
        for _ in range(3):
            seen = [torch.randn(1, 3) for _ in range(6)]
            for one in seen:
                agent["actor"](one)
            batch = torch.cat(seen)
            optimizer.zero_grad()
            (agent["actor"](batch).square().mean() + agent["critic"](batch).mean()).backward()
            optimizer.step()
    return rec, [agent]


def checkpointed(recording: Any) -> Made:
    """Reentrant checkpoints, dropout, BatchNorm, and a loop that never clears but at the end."""
    first, last = net(3, 4), nn.Sequential(nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 1))
    model = nn.ModuleList([first, last])
    optimizer = torch.optim.Adamax(model.parameters(), lr=0.01)
    with recording() as rec:
        for _ in range(3):
            x = torch.randn(4, 3, requires_grad=True)
            last(checkpoint(first, x, use_reentrant=True)).square().mean().backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=False)
    return rec, [model]


def compiled(recording: Any) -> Made:
    """A compiled model."""
    model = net(3, 4, 1)
    fast: Any = torch.compile(model, backend="eager")
    optimizer = torch.optim.Adam(fast.parameters(), lr=0.01)
    with recording() as rec:
        for _ in range(3):
            optimizer.zero_grad()
            fast(torch.randn(4, 3)).square().mean().backward()
            optimizer.step()
    return rec, [model]


def clocked(recording: Any) -> Made:
    """Schedules of the learning rate and of betas, a model whose layers change places."""
    model = net(3, 4, 1)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=6)
    with recording() as rec:
        for _ in range(5):
            optimizer.zero_grad()
            model(torch.randn(4, 3)).square().mean().backward()
            optimizer.step()
            schedule.step()
    return rec, [model]


PROGRAMS: list[Callable[[Any], Made]] = [
    adversarial,
    accumulated,
    changed_outside,
    wrapped,
    sharpness_aware,
    closures,
    clipped_in_a_closure,
    frozen,
    loose,
    made_late,
    scaled,
    scaled_and_fused,
    in_backward,
    penalised,
    rollouts,
    checkpointed,
    compiled,
    clocked,
]
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


def scaled_plainly(recording: Any) -> Made:
    """The first update of `scaled`, with no scale."""
    model = net(3, 4, 1)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    with recording() as rec:
        model(torch.randn(4, 3)).square().mean().backward()
        optimizer.step()
    return rec, [model]


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


def by_hand(recording: Any) -> Made:
    """No optimizer at all."""
    model = net(3, 4, 1)
    with recording(model) as rec:
        for _ in range(3):
            model.zero_grad()
            model(torch.randn(4, 3)).square().mean().backward()
            with torch.no_grad():
                for parameter in model.parameters():
                    grad: Any = parameter.grad
                    parameter.sub_(0.1 * grad)
            rec.step(lr=0.1)
    return rec, [model]


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
