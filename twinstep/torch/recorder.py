"""Records a PyTorch training from outside; not a line of it is written for that.

PyTorch's global step hooks find the optimizers, whoever made them; a loss is what `backward` is
called on; what a module is given is noted when it is called.
Mirror: twinstep/jax/recorder.py
"""

import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from os import PathLike
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn, Self

import torch
import torch._dynamo  # by the first optimizer anyway: here the collector rests meanwhile
from torch import nn

from twinstep.errors import InputError, unknown
from twinstep.torch import hooks, naming, reading, starting
from twinstep.torch.naming import Names
from twinstep.torch.optimizers import Optimizers
from twinstep.torch.starting import Start
from twinstep.torch.steps import Options, Steps
from twinstep.torch.updates import Updates
from twinstep.trace.keep import Batch, kept
from twinstep.trace.ledger import Metadata, Trace
from twinstep.trace.ranks import folder_of
from twinstep.trace.streaming import Stream


def record(
    *modules: nn.Module,
    out: str | PathLike[str] | None = None,
    optimizers: Mapping[str, torch.optim.Optimizer] | None = None,
    steps: int | Collection[int] | None = None,
    every: int = 1,
    raw_grads: bool = True,
    opt_state: bool = True,
    batch: Batch = "values",
    activations: Sequence[str] = (),
    exclude: Sequence[str] = (),
    start: str | PathLike[str] | None = None,
    **named_modules: nn.Module,
) -> "Recorder":
    """What records, in a `with` block, every update of the modules' parameters.

    Args:
        modules: Whose parameters are recorded, under their `state_dict` names; of several, each
            behind its number. What their optimizers update besides is called by the variable that
            holds it. None: all that any optimizer updates.
        out: A new folder for the trace, written as it comes; None: it stays in memory.
        optimizers: {name: optimizer} of those that are to be called so; the only one is
            "optimizer", others are called by their variables.
        steps: How many updates are recorded; or which of each optimizer's, from 1; None: all.
        every: Of each optimizer's updates the first of so many.
        raw_grads: Whether gradients before clipping are kept beside those that are given.
        opt_state: Whether the optimizer's state is kept.
        batch: "values" keeps what each step trained on, "fingerprint" a number that tells it.
        activations: Paths of submodules, as `named_modules` has them, whose outputs are kept.
        exclude: Patterns, as `*.embedding.*`, of names that are left out.
        start: What parameters and buffers are given when a module that holds them is first called,
            before anything is recorded: a .safetensors file by the names that the trace has, or a
            saved trace, whose initial ones they are. Their bits are the trace's first.
        named_modules: More of them, each behind its name.

    Returns:
        A context manager; its `trace` is what was recorded.

    Raises:
        InputError: For a module that does not learn, a path that is no submodule's, an
            `out` that exists, a `start` that cannot be read, and in the block for what cannot be
            recorded, or does not fit what `start` has, by name.

    Example:
        >>> import torch
        >>> from twinstep.torch import record
        >>> model = torch.nn.Linear(2, 1)
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        >>> with record(model) as rec:
        ...     for _ in range(3):
        ...         loss = model(torch.ones(4, 2)).square().mean()
        ...         optimizer.zero_grad()
        ...         loss.backward()
        ...         optimizer.step()
        >>> rec.trace.losses.shape
        (3,)

    Source: https://docs.pytorch.org/docs/stable/optim.html
    """
    keep = kept(steps, every, raw_grads, opt_state, batch, exclude)
    several = modules[1:] or named_modules
    given = {f"{i}." if several else "": module for i, module in enumerate(modules)}
    given |= {f"{name}.": module for name, module in named_modules.items()}
    return Recorder(
        given,
        out=out,
        optimizers=optimizers or {},
        options=Options(keep, everything=not given),
        activations=activations,
        start=None if start is None else starting.read(start),
    )


class Recorder:
    """What `record` makes; it can be entered again, and then goes on.

    Args:
        modules: {what stands before the names in it: a module}.
        out, optimizers, activations: As of `record`.
        start: What `starting.read` makes of that of `record`.
        options: What else it says.
        metadata: Of the trace of a loop that is driven: it says its batches, and ends when it is
            taken. None is for a loop of one's own.
        rows: How many steps are held at once, where that is not to be found out.

    Attributes:
        on_last: Is called when as many updates are recorded as were asked for, and where the
            program cannot start as it was asked to.

    Example:
        >>> import torch
        >>> from twinstep.torch import Recorder
        >>> model = torch.nn.Linear(1, 1, bias=False)
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        >>> with Recorder({"": model}) as rec:
        ...     model(torch.ones(4, 1)).mean().backward()
        ...     optimizer.step()
        >>> rec.trace.raw_grads["weight"].tolist()
        [[[1.0]]]

    Source: https://docs.pytorch.org/docs/stable/optim.html
    """

    def __init__(
        self,
        modules: Mapping[str, nn.Module],
        *,
        out: str | PathLike[str] | None = None,
        optimizers: Mapping[str, torch.optim.Optimizer] = {},
        options: Options | None = None,
        activations: Sequence[str] = (),
        start: Start | None = None,
        metadata: Metadata | None = None,
        rows: int | None = None,
    ) -> None:
        self._options = options = (options or Options())._replace(driven=metadata is not None)
        names = _named(modules)
        known = Optimizers(names, self._options.driven)
        for name, optimizer in optimizers.items():
            known.called[optimizer] = name
            if not known.joins(optimizer, options.everything):
                raise InputError(
                    f"optimizer {name!r} updates no parameter of the modules that are recorded"
                )
        self._activations = {path: _submodule(names, path) for path in activations}
        self._known, self._start = known, start
        self._refused: Exception | None = None
        self._stream = Stream(_part_of(out))
        self._updates = Updates(names, self._stream, options.keep, metadata, rows)
        self._steps = Steps(names, known, self._updates, self._options)
        self._undo = ExitStack()
        self.on_last: Callable[[], Any] = lambda: None

    @property
    def trace(self) -> Trace:
        """All that was recorded.

        Raises:
            InputError: Where nothing was.
        """
        self._updates.flush()
        return self._stream.whole()

    @property
    def failed(self) -> Exception | None:
        """What has ended the recording before the program; None: nothing."""
        return self._steps.failed

    @property
    def steps(self) -> int:
        """How many updates are recorded."""
        return self._updates.made

    def batch(self, **tensors: Any) -> None:
        """Says what the next update trains on, in place of what the modules are given.

        Several before one update, as of its micro-batches, are one after the other.

        Args:
            tensors: (N, ...) each, or arrays; copied, since they may be filled anew.

        Raises:
            InputError: For what is no array of numbers.
        """
        self._steps.say(tensors)

    def step(self, lr: float | None = None) -> None:
        """Says that parameters were just updated by hand, with no optimizer.

        Args:
            lr: The learning rate of it, if that is to be kept.

        Raises:
            InputError: Where no module was given whose parameters these are.
        """
        if self._options.everything:
            raise InputError("rec.step is of modules that are given: record(model, ...)")
        if self._start is not None and (early := self._start.too_early()) is not None:
            raise early
        self._steps.by_hand(lr)

    @contextmanager
    def ignored(self) -> Iterator[None]:
        """Looks away meanwhile: for a probe that runs a backward pass or a step of its own.

        Returns:
            A context manager.
        """
        before, self._steps.ignoring = self._steps.ignoring, True
        try:
            yield
        finally:
            self._steps.ignoring = before

    def made_on(self, fingerprints: Mapping[str, int], draws: bool = False) -> None:
        """Says it by fingerprints that are known, until others are said.

        Args:
            fingerprints: A number for each part of the batch, by its name.
            draws: Whether the step draws random numbers.
        """
        self._steps.calls.fingerprints = dict(fingerprints)
        if draws:
            self._steps.begin()

    def take(self) -> Trace:
        """The steps since the last call, and no more.

        Returns:
            A trace of them.
        """
        self._updates.flush()
        return self._stream.take()

    def __enter__(self) -> Self:
        steps, options = self._steps, self._options
        if options.everything:
            for optimizer in naming.alive(torch.optim.Optimizer):
                steps.made(optimizer)
        elif self._start is None or self._start.given:
            self._updates.open()  # now: a forward pass may change buffers
        steps.on_last = self.on_last
        self._undo.enter_context(
            hooks.listening(
                steps,
                made=options.everything,
                calls=None if options.driven else steps.calls,
            )
        )
        if self._start is not None and not self._start.given:
            giving = self._start.giving(self._known, self._begun, self._refuse)
            self._undo.enter_context(giving)
        for name, module in self._activations.items():
            self._undo.callback(module.register_forward_hook(self._activated(name)).remove)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._undo.close()
        self._steps.leave()
        if (failed := self._refused or self._steps.failed) is not None:
            self._updates.discard()
            with suppress(InputError):  # of a full disk, say
                self._updates.flush()
                self._stream.wait()
            if kind is None:
                raise failed
            return
        self._updates.flush()
        self._stream.wait()
        if kind is None and not self._options.driven:
            self._stream.close()

    def _begun(self, modules: Iterable[nn.Module]) -> None:
        """What the modules start from was just given."""
        for module in modules:
            self._updates.called(module)
        if not self._options.everything:
            self._updates.open()

    def _refuse(self, error: Exception) -> NoReturn:
        """The program cannot go on as it was asked to."""
        self._refused = error
        self.on_last()
        raise error

    def _activated(self, name: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            steps = self._steps
            if torch.is_grad_enabled() and not (steps.evaluated or steps.ignoring or steps.over):
                first = output[0] if isinstance(output, tuple) else output
                self._updates.open().put("activations", name, reading.array(first))

        return self._steps.careful(hook, None)


def _part_of(out: str | PathLike[str] | None) -> str | PathLike[str] | None:
    """The folder that this process writes, where several train together."""
    group = torch.distributed.is_available() and torch.distributed.is_initialized()
    rank, ranks = (
        (torch.distributed.get_rank(), torch.distributed.get_world_size())
        if group
        else (int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1)))
    )
    return out if out is None or ranks == 1 else Path(out) / folder_of(rank, ranks)


def _submodule(names: Names, path: str) -> nn.Module:
    found = names.submodules()
    if path not in found:
        raise InputError(unknown("activations", path, [name for name in found if name]))
    return found[path]


def _named(given: Mapping[str, nn.Module]) -> Names:
    """The names in the modules that are recorded. InputError for what does not learn."""
    for module in given.values():
        if not isinstance(module, nn.Module):
            kind = type(module).__name__
            raise InputError(f"record was given a {kind}, expected a torch.nn.Module")
    names = Names(given)
    if given and not any(parameter.requires_grad for parameter in names.parameters):
        kinds = ", ".join(type(module).__name__ for module in given.values())
        raise InputError(f"{kinds} has no parameter that learns: there is nothing to record")
    reading.check_own(names.parameters)
    return names
