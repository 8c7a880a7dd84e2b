"""Small PyTorch programs as people write them, one trait each, that can be recorded as they are."""

import copy
import itertools
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

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


def scaled_plainly(recording: Any) -> Made:
    """The first update of `scaled`, with no scale."""
    model = net(3, 4, 1)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    with recording() as rec:
        model(torch.randn(4, 3)).square().mean().backward()
        optimizer.step()
    return rec, [model]


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
