"""Records a PyTorch training from outside; not a line of it is written for that.

PyTorch's global step hooks find the optimizer, whoever made it; the loss is what `backward` is
called on; what a module is given is noted when it is called.
Mirror: twinstep/jax/recorder.py
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from os import PathLike
from types import TracebackType
from typing import Any, Literal, Self, get_args

import numpy as np
import torch
import torch._dynamo  # by the first optimizer anyway: here the collector rests meanwhile
from torch import nn
from torch.optim.optimizer import (
    register_optimizer_step_post_hook,
    register_optimizer_step_pre_hook,
)

from twinstep.errors import InputError, unknown
from twinstep.torch import reading
from twinstep.torch.batches import Batches
from twinstep.torch.conversion import named_opt_state
from twinstep.trace.ledger import Metadata, Trace
from twinstep.trace.rows import Rows, rows_at_once
from twinstep.trace.streaming import Stream

Batch = Literal["values", "fingerprint"]
_WRAPPERS = ("_orig_mod.", "module.")  # torch.compile's and DistributedDataParallel's own part


def record(
    *modules: nn.Module,
    out: str | PathLike[str] | None = None,
    activations: Sequence[str] = (),
    batch: Batch = "values",
    raw_grads: bool = True,
    opt_state: bool = True,
) -> "Recorder":
    """What records, in a `with` block, every update of the modules' parameters.

    Args:
        modules: Whose parameters are recorded, under their `state_dict` names; of several, each
            behind its number. What their optimizer updates besides bears its group and place.
        out: A new folder for the trace, written as it comes; None: it stays in memory.
        activations: Paths of submodules, as `named_modules` has them, whose outputs are kept.
        batch: "values" keeps what each step trained on, "fingerprint" a number that tells it.
        raw_grads: Whether gradients before clipping are kept beside those that are given.
        opt_state: Whether the optimizer's state is kept.

    Returns:
        A context manager; its `trace` is what was recorded.

    Raises:
        InputError: For no module, or none that learns, a path that is no submodule's, an
            `out` that exists, and in the block for what cannot be recorded.

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
    return Recorder(
        *modules,
        out=out,
        activations=activations,
        batch=batch,
        raw_grads=raw_grads,
        opt_state=opt_state,
    )


class Recorder:
    """What `record` makes; it can be entered again, and then goes on.

    Args:
        modules, out, activations, batch, raw_grads, opt_state: As of `record`.
        metadata: Of the trace of a loop that is driven: it says its batches, and ends when it is
            taken. None is for a loop of one's own.
        rows: How many steps are held at once, where that is not to be found out.

    Example:
        >>> import torch
        >>> from twinstep.torch import Recorder
        >>> model = torch.nn.Linear(1, 1, bias=False)
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        >>> with Recorder(model) as rec:
        ...     model(torch.ones(4, 1)).mean().backward()
        ...     optimizer.step()
        >>> rec.trace.raw_grads["weight"].tolist()
        [[[1.0]]]

    Source: https://docs.pytorch.org/docs/stable/optim.html
    """

    def __init__(
        self,
        *modules: nn.Module,
        out: str | PathLike[str] | None = None,
        activations: Sequence[str] = (),
        batch: Batch = "values",
        raw_grads: bool = True,
        opt_state: bool = True,
        metadata: Metadata | None = None,
        rows: int | None = None,
    ) -> None:
        if batch not in get_args(Batch):
            raise InputError(unknown("batch", batch, get_args(Batch)))
        self._modules = {f"{i}." if len(modules) > 1 else "": m for i, m in enumerate(modules)}
        self._names = {p: name for name, p in self._each("named_parameters")}
        if not any(parameter.requires_grad for parameter in self._names):
            kinds = ", ".join(type(module).__name__ for module in modules) or "no module"
            raise InputError(f"{kinds} has no parameter that learns: there is nothing to record")
        self._activations = {path: self._submodule(path) for path in activations}
        self._stream = Stream(out)
        self._values, self._raw, self._state = batch == "values", raw_grads, opt_state
        self._metadata, self._piece, self._driven = metadata, rows, metadata is not None
        self._rows: Rows | None = None
        self._optimizer: torch.optim.Optimizer | None = None
        self._views = reading.Views()
        self._buffers = False
        self._counted: tuple[Any, int] = None, 0
        self._settings: tuple[Any, dict[str, float]] = None, {}
        self._within = False
        self._stepping: Any = None
        self._loss: float | None = None
        self._evaluated, self._depth = False, 0
        self._batches = Batches()
        self._undo: list[Callable[[], Any]] = []

    @property
    def trace(self) -> Trace:
        """All that was recorded.

        Raises:
            InputError: Where nothing was.
        """
        self._flush()
        return self._stream.whole()

    def batch(self, **tensors: Any) -> None:
        """Says what the next update trains on, in place of what the modules are given.

        Several before one update, as of its micro-batches, are one after the other.

        Args:
            tensors: (N, ...) each, or arrays; copied, since they may be filled anew.

        Raises:
            InputError: For what is no array of numbers.
        """
        self._batches.say(tensors)

    def made_on(self, fingerprints: Mapping[str, int]) -> None:
        """Says it by fingerprints that are known, until others are said.

        Args:
            fingerprints: A number for each part of the batch, by its name.
        """
        self._batches.fingerprints = dict(fingerprints)

    def take(self) -> Trace:
        """The steps since the last call, and no more.

        Returns:
            A trace of them.
        """
        self._flush()
        return self._stream.take()

    def __enter__(self) -> Self:
        self._open()  # now: a forward pass may change buffers
        backward = torch.autograd.backward
        torch.autograd.backward = self._around(backward)
        self._undo = [
            lambda: setattr(torch.autograd, "backward", backward),
            register_optimizer_step_pre_hook(self._before_step).remove,
            register_optimizer_step_post_hook(self._after_step).remove,
        ]
        for prefix, module in () if self._driven else self._modules.items():
            hook = module.register_forward_pre_hook(self._batches.note(prefix), with_kwargs=True)
            self._undo.append(hook.remove)
        for name, module in self._activations.items():
            self._undo.append(module.register_forward_hook(self._activated(name)).remove)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        while self._undo:
            self._undo.pop()()
        self._stepping, self._depth = None, 0
        self._flush()
        if kind is None and not self._driven:
            self._stream.close()

    # A backward pass

    def _around(self, backward: Callable[..., None]) -> Callable[..., None]:
        def around(tensors: Any, *args: Any, **options: Any) -> None:
            if self._within:  # a checkpoint calls it from inside itself
                backward(tensors, *args, **options)
                return
            if self._optimizer is not None:
                self._is_ours(self._optimizer)  # it may have been given more
            self._within = True
            try:
                before = self._grads()
                cleared = not any(g is not None and (g.is_sparse or g.any()) for g, _ in before)
                backward(tensors, *args, **options)
                # zeros that were written count too
                changed = any(
                    grad is not old or (grad is not None and grad._version != times)
                    for grad, (old, times) in zip(
                        (p.grad for p in self._names), before, strict=True
                    )
                )
                if changed:
                    self._backpropagated(cleared, tensors, *args, **options)
            finally:
                self._within = False

        return around

    def _grads(self) -> list[tuple[torch.Tensor | None, int]]:
        """Every gradient, and how often it was written."""
        grads = [parameter.grad for parameter in self._names]
        return [(grad, 0 if grad is None else grad._version) for grad in grads]

    def _backpropagated(
        self, cleared: bool, tensors: Any, grad_tensors: Any = None, *_: Any, **options: Any
    ) -> None:
        if self._evaluated:  # of an update that evaluates many times, the first one counts
            return
        loss = reading.backpropagated(tensors, options.get("grad_tensors", grad_tensors))
        self._loss = loss if cleared or self._loss is None else self._loss + loss
        if self._raw:
            rows = self._open()
            for parameter, name in self._names.items():
                if parameter.requires_grad:
                    rows.put("raw_grads", name, self._views.grad(parameter))

    # An update

    def _before_step(self, optimizer: Any, args: Any, options: Any) -> Any:
        if optimizer is self._stepping:
            self._depth += 1  # a class whose step calls that of the one it is made from
        if self._stepping is not None or not self._is_ours(optimizer):
            return None
        if self._optimizer not in (None, optimizer) and self._apart(optimizer):
            raise InputError(
                f"step {self._open().step} is of a second optimizer, {type(optimizer).__name__}, "
                "over other parameters: a trace is of one; record its modules by themselves"
            )
        self._stepping = self._optimizer = optimizer
        self._depth = 1
        self._open().hyper_parameters(self._numbers(optimizer))
        of, *given = args  # the optimizer itself, and the closure where it takes one
        closure = given[0] if given else options.get("closure")
        if closure is None:
            self._given()
            return None

        def evaluated() -> Any:
            value = closure()
            if not self._evaluated:
                self._evaluated = True
                self._given()
            return value

        if given:
            return (of, evaluated, *given[1:]), options
        return args, {**options, "closure": evaluated}

    def _numbers(self, optimizer: torch.optim.Optimizer) -> dict[str, float]:
        """The hyper-parameters of its groups; the very same mapping where none has changed."""
        known, numbers = self._settings
        if known != optimizer.param_groups:
            groups = [dict(group) for group in optimizer.param_groups]
            numbers = reading.numbers(optimizer)
            tensors = any(isinstance(v, torch.Tensor) for group in groups for v in group.values())
            # a tensor may be changed in place: then all are read at every step
            self._settings = None if tensors else groups, numbers
        return numbers

    def _given(self) -> None:
        rows, optimizer = self._open(), self._stepping
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                if parameter.requires_grad:
                    rows.given(self._names[parameter], self._views.grad(parameter))

    def _after_step(self, optimizer: Any, args: Any, options: Any) -> None:
        self._depth -= optimizer is self._stepping
        if optimizer is not self._stepping or self._depth:
            return
        rows = self._open()
        if self._loss is None:
            raise InputError(
                f"step {rows.step}: the update's loss is not known: nothing was backpropagated to "
                "its parameters since the last one"
            )
        if self._state and optimizer.state:
            for name, tensor in named_opt_state(self._names, optimizer).items():
                rows.put("opt_state", name, reading.array(tensor))
        for parameter, name in self._names.items():
            rows.put("params", name, self._views.param(parameter))
        for name, buffer in self._each("named_buffers") if self._buffers else ():
            rows.put("buffers", name, reading.array(buffer))
        rows.batch(self._batches.made_on(), self._values)
        rows.finish(self._loss)
        self._stepping, self._loss, self._evaluated = None, None, False
        self._batches.forget()
        self._views.forget()
        if rows.full:
            self._flush()

    def _apart(self, optimizer: torch.optim.Optimizer) -> bool:
        """Whether it updates other parameters than the one before; that may have been made anew."""
        kinds = (optimizer, self._optimizer)
        one, other = ({p for g in o.param_groups for p in g["params"]} for o in kinds if o)
        return one != other

    def _is_ours(self, optimizer: torch.optim.Optimizer) -> bool:
        """Whether it updates what is recorded; names what it brings that no module has."""
        count = sum(len(group["params"]) for group in optimizer.param_groups)
        if self._counted == (optimizer, count):
            return True
        groups = enumerate(optimizer.param_groups)
        owned = {p: f"{g}.{i}" for g, group in groups for i, p in enumerate(group["params"])}
        if not owned.keys() & self._names.keys():
            return False
        for parameter, name in owned.items():
            if parameter not in self._names:
                self._names[parameter] = name
                self._open().initial("params", name, reading.array(parameter))
        self._counted = optimizer, count
        return True

    # What is in the modules

    def _activated(self, name: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            if torch.is_grad_enabled() and not self._evaluated:
                first = output[0] if isinstance(output, tuple) else output
                self._open().put("activations", name, reading.array(first))

        return hook

    def _submodule(self, path: str) -> nn.Module:
        found: dict[str, nn.Module] = dict(self._each("named_modules"))
        if path not in found:
            raise InputError(unknown("activations", path, [name for name in found if name]))
        module: nn.Module = found[path]
        return module

    def _each(self, named: str) -> Iterator[tuple[str, Any]]:
        """Every parameter, buffer or submodule by its name."""
        for prefix, module in self._modules.items():
            for name, one in getattr(module, named)():
                for wrapper in _WRAPPERS:
                    name = name.replace(wrapper, "") if name.startswith(wrapper) else name
                yield prefix + name, one

    def _open(self) -> Rows:
        """The rows of this step; what there is before the first one is put there first."""
        if self._rows is None:
            self._metadata = self._metadata or reading.metadata(self._names)
            dtype = self._metadata.dtype
            bytes_a_step = sum(4 * p.numel() for p in self._names) * np.dtype(dtype).itemsize
            self._rows = Rows(self._piece or rows_at_once(bytes_a_step), dtype)
            for parameter, name in self._names.items():
                self._rows.initial("params", name, reading.array(parameter))
            for name, buffer in self._each("named_buffers"):
                self._buffers = True
                self._rows.initial("buffers", name, reading.array(buffer))
        return self._rows

    def _flush(self) -> None:
        """Gives the finished rows away."""
        if self._rows is not None and self._metadata is not None:
            self._rows.flush(self._metadata, self._stream)
