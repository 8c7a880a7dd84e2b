"""What an update was made on: what is said, else what modules were called with.

A call counts if the gradient flowed through it. That is seen on what the call gives out, and the
call is kept by that alone: of one that is never backpropagated nothing stays.
"""

import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import is_dataclass
from typing import Any

import torch
from torch import nn

from twinstep.errors import InputError
from twinstep.torch import reading
from twinstep.torch.naming import Names, unwrapped
from twinstep.torch.passes import Pass, Passes
from twinstep.trace.fingerprint import joined

Inputs = dict[str, torch.Tensor]


class Call:
    """A call of a module: its number, the module, what it was given."""

    __slots__ = ("inputs", "module", "number")

    def __init__(self, number: int, module: nn.Module, inputs: Inputs) -> None:
        self.number, self.module, self.inputs = number, module, inputs


class Calls:
    """Notes the calls of modules that are in no other call."""

    def __init__(self, passes: Passes) -> None:
        self._passes = passes
        self._count, self._inside = 0, False
        self._said: dict[str, list[torch.Tensor]] = {}
        self._paths: dict[nn.Module, str] = {}
        self.fingerprints: dict[str, int] = {}

    def say(self, values: Mapping[str, Any]) -> None:
        """Takes it from the loop itself. InputError for what is no array of numbers."""
        for name, value in values.items():
            try:
                tensor = torch.as_tensor(value).detach().clone()
            except (TypeError, ValueError, RuntimeError):
                kind = type(value).__name__
                raise InputError(f"batch {name} is a {kind}, expected a tensor") from None
            self._said.setdefault(name, []).append(tensor)

    def around(
        self, call: Callable[..., Any], careful: Any, first: Callable[[nn.Module], None]
    ) -> Callable[..., Any]:
        """`nn.Module.__call__` that notes what it is given.

        careful: makes a function one whose fault is no fault of the call; first: is told of a
        module before its call
        """
        first, noted, watch = (careful(one, None) for one in (first, self._note, self._watch))

        def around(module: nn.Module, *args: Any, **options: Any) -> Any:
            if torch.compiler.is_compiling() or self._inside or not torch.is_grad_enabled():
                return call(module, *args, **options)
            first(module)
            of_call = noted(module, args, options)
            try:
                self._inside = True
                output = call(module, *args, **options)
            finally:
                self._inside = False
            if of_call is not None:
                watch(of_call, output)
            return output

        return around

    def _note(self, module: nn.Module, args: Any, options: Any) -> Call | None:
        """A call as it begins; None where nothing is to be kept of it."""
        if self._said or not (inputs := _inputs(module, args, options)):
            return None
        self._count += 1
        return Call(self._count, module, inputs)

    def _watch(self, noted: Call, output: Any) -> None:
        """Has a call counted by the backward pass that reaches what it gave out."""

        def flowed(grad: torch.Tensor) -> None:
            if self._passes.current is not None:
                self._passes.current.calls[noted.number] = noted
            elif torch.is_grad_enabled():  # a penalty on that gradient is backpropagated yet
                self._passes.ahead[noted.number] = noted

        for _, tensor in _tensors("", output):
            if tensor.requires_grad and tensor.grad_fn is not None:
                tensor.register_hook(flowed)

    def made_on(self, passes: list[Pass], names: Names) -> dict[str, Any]:
        """{name: (N, ...)} of an update, or fingerprints where they are known.

        Of several parts whose shapes do not join, a list.
        """
        if self.fingerprints:
            return self.fingerprints
        parts = self._said
        if not parts:
            calls = {number: call for one in passes for number, call in one.calls.items()}
            parts = {}
            for number in sorted(calls):
                path = self._path(calls[number].module, names)
                for name, tensor in calls[number].inputs.items():
                    parts.setdefault(path + name, []).append(tensor)
        return {name: joined([*map(reading.array, tensors)]) for name, tensors in parts.items()}

    def _path(self, module: nn.Module, names: Names) -> str:
        """What stands before an argument: its module's path, or class if none leads to it."""
        if module not in self._paths:
            path = names.path(module)
            path = type(unwrapped(module)).__name__ if path is None else path
            self._paths[module] = path and f"{path}."
        return self._paths[module]

    def forget(self) -> None:
        """The next update has its own."""
        self._said = {}


def _inputs(module: nn.Module, args: Any, options: Any) -> Inputs:
    """The tensors that a module is given, copied: they may be filled anew. No computed ones."""
    forward = inspect.signature(unwrapped(module).forward)
    try:
        given = forward.bind(*args, **options).arguments
    except TypeError:  # the call itself will say so
        return {}
    return {
        name: tensor.detach().clone()
        for name, tensor in _tensors("", given)
        if tensor.grad_fn is None
    }


def _tensors(path: str, value: Any) -> Iterator[tuple[str, torch.Tensor]]:
    """(path, tensor) in what may be nested."""
    if isinstance(value, torch.Tensor):
        yield path, value
    elif isinstance(value, Mapping):
        for key, one in value.items():
            yield from _tensors(f"{path}.{key}" if path else str(key), one)
    elif is_dataclass(value):
        yield from _tensors(path, vars(value))
    elif isinstance(value, list | tuple):
        for i, one in enumerate(value):
            yield from _tensors(f"{path}.{i}" if path else str(i), one)
