"""Where a training starts: values that a program's parameters and buffers are given from outside.

They are given once, when a module that holds them is about to be called for the first time: what
the program itself drew, loaded, wrapped or moved before is over then, and nothing is computed.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from os import PathLike
from typing import Any, NoReturn

import numpy as np
import torch
from torch import nn
from torch.optim.optimizer import register_optimizer_step_pre_hook

from twinstep import files
from twinstep.errors import InputError
from twinstep.torch import hooks, naming, reading
from twinstep.torch.naming import Names
from twinstep.torch.optimizers import Optimizers, parameters_of
from twinstep.trace import dtypes
from twinstep.trace.storage import RankedTrace, StoredTrace, open_trace

MAX_NAMED = 12
"""Of names that do not fit, how many are said."""
_STAGES = "params", "buffers"


class Start:
    """Values to start from, by the names that a trace has; `given` when they have been given.

    said: what they are of, for people
    """

    def __init__(self, said: str, values: Mapping[str, torch.Tensor]) -> None:
        self._said, self._values = said, dict(values)
        self.given = False

    @contextmanager
    def giving(
        self,
        known: Optimizers,
        begun: Callable[[Iterable[nn.Module]], object],
        refuse: Callable[[Exception], NoReturn],
    ) -> Iterator[None]:
        """Gives them meanwhile, at the first call; the update before it would be too early.

        known: which parameters are recorded; begun: is told of whose modules; refuse: ends
        the program, told why they cannot be
        """

        def before(module: nn.Module) -> None:
            names = None if self.given else _names_at(module, known)
            if names is not None:
                try:
                    self._give(names)
                except InputError as error:
                    refuse(error)
                begun(names.modules.values())

        call = vars(nn.Module)["__call__"]

        def around(module: nn.Module, *args: Any, **options: Any) -> Any:
            if not (self.given or torch.compiler.is_compiling()):
                before(module)
            return call(module, *args, **options)

        def step(optimizer: Any, args: Any, options: Any) -> None:
            recorded = {*parameters_of(optimizer)} & known.parameters().keys()
            if recorded and (early := self.too_early()) is not None:
                refuse(early)

        with ExitStack() as undo:
            undo.callback(hooks.replaced(nn.Module, "__call__", around))
            hook = register_optimizer_step_pre_hook(torch.compiler.disable(step))
            undo.callback(hook.remove)
            yield

    def too_early(self) -> InputError | None:
        """What to say of an update that is made now; None: they are given."""
        if self.given:
            return None
        return InputError(
            f"start {self._said}: an update is made before a module is called, outside of what "
            "is compiled, to whose parameters it could be given"
        )

    def _give(self, names: Names) -> None:
        """Copies the values. InputError, before any is, where they do not fit."""
        tensors = _tensors(names)
        if problem := self._misfits(names, tensors):
            raise InputError(f"start {self._said} does not fit: {problem}")
        with torch.no_grad():
            for name, value in self._values.items():
                _copy(tensors[name], value)
        self._values, self.given = {}, True

    def _misfits(self, names: Names, tensors: Mapping[str, torch.Tensor]) -> str:
        """What is missing, unexpected or of another form, for people."""
        there = {id(tensors[name]) for name in self._values if name in tensors}
        needed = [*names.parameters.values(), *_persistent(names)]
        missing = [name for name in needed if id(tensors[name]) not in there]
        unexpected = [name for name in self._values if name not in tensors]
        forms = [
            f"{name} {problem}"
            for name, value in self._values.items()
            if name in tensors and (problem := _misfit(tensors[name], value))
        ]
        found: dict[int, str] = {}
        for name in [name for name in tensors if name in self._values]:
            other = found.setdefault(id(tensors[name]), name)
            if not _same(self._values[other], self._values[name]):
                forms.append(f"{other} and {name} are one tensor, and differ")
        said = [("missing", missing), ("unexpected", unexpected), ("", forms)]
        return "; ".join(f"{what} {_listed(which)}".strip() for what, which in said if which)


def read(start: str | PathLike[str]) -> Start:
    """What a .safetensors file holds, or a saved trace's initial parameters and buffers.

    InputError for anything else.
    """
    path = files.checked_path("start", start)
    if path.is_dir():
        return Start(str(path), _initial(open_trace(path)))
    if path.suffix != ".safetensors":
        raise InputError(f"start {path} is expected to be a .safetensors file or a trace's folder")
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        files.check_regular_file(path, files.kind(path))
        values = load_file(path)
    except OSError as error:
        raise InputError(f"start {path} cannot be read: {error.strerror or error}") from None
    except SafetensorError as error:
        raise InputError(f"start {path} is no safetensors file: {error}") from None
    return Start(str(path), {naming.unwrapped_name(name): value for name, value in values.items()})


def _initial(stored: StoredTrace | RankedTrace) -> dict[str, torch.Tensor]:
    """What parameters and buffers were before their first update; reads no more than is needed."""
    parts = stored.ranks if isinstance(stored, RankedTrace) else (stored,)
    wanted = {
        leaf for part in parts for leaf in part.leaves if leaf.startswith(("params/", "buffers/"))
    }
    found: dict[str, torch.Tensor] = {}
    for chunk in stored.chunks():
        for stage in _STAGES:
            for name, rows in getattr(chunk, stage).items():
                if f"{stage}/{name}" in wanted:
                    wanted.remove(f"{stage}/{name}")
                    found[name] = _tensor(rows[0, ...])
        if not wanted:
            break
    if not found:
        raise InputError(f"start {stored.folder} has no parameters")
    return found


def _tensor(array: np.ndarray) -> torch.Tensor:
    """A copy of an array as a tensor of its dtype."""
    if dtypes.name(array.dtype) == "bfloat16":
        return torch.tensor(array.view(np.int16)).view(torch.bfloat16)
    return torch.tensor(array)


def _names_at(module: nn.Module, known: Optimizers) -> Names | None:
    """The names that the trace will have, if the module holds parameters that are recorded.

    Where no optimizer is there yet, those of the module itself, or of what it is in.
    """
    inside, recorded = set(module.parameters()), known.parameters()
    if not inside or (recorded and not inside & recorded.keys()):
        return None
    names = Names(known.names.modules)
    names.learn(recorded or inside, known.places())
    return names


def _tensors(names: Names) -> dict[str, torch.Tensor]:
    """{name: tensor} of parameters and buffers; of a tied one all its names."""
    found: dict[str, torch.Tensor] = {name: tensor for tensor, name in names.parameters.items()}
    for prefix, module in names.modules.items():
        for several in (module.named_parameters, module.named_buffers):
            for name, tensor in several(remove_duplicate=False):
                found.setdefault(prefix + naming.plain(module, name), tensor)
    return found


def _persistent(names: Names) -> Iterator[str]:
    """The names of the buffers that `state_dict` has."""
    kept = {
        id(getattr(module, name))
        for root in names.modules.values()
        for module in root.modules()
        for name, _ in module.named_buffers(recurse=False)
        if name not in module._non_persistent_buffers_set
    }
    for name, buffer in names.buffers():
        if id(buffer) in kept:
            yield name


def _misfit(tensor: torch.Tensor, value: torch.Tensor) -> str:
    """Why a tensor cannot be given a value; "": it can."""
    if nn.parameter.is_lazy(tensor):
        return "has no shape before the first call (lazy)"
    if tensor.shape != value.shape:
        return f"has shape {tuple(value.shape)}, expected {tuple(tensor.shape)}"
    if tensor.dtype != value.dtype:
        kinds = [str(one.dtype).removeprefix("torch.") for one in (value, tensor)]
        return f"is {kinds[0]}, expected {kinds[1]}"
    return ""


def _copy(tensor: torch.Tensor, value: torch.Tensor) -> None:
    """Of what is spread over processes, this one's part."""
    here, place = reading.local(tensor), reading.place(tensor)
    if place is not None:
        value = value[
            tuple(slice(at, at + n) for at, n in zip(place["at"], here.shape, strict=True))
        ]
    here.copy_(value)


def _same(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Whether two have the same bits."""
    return one is other or reading.same(reading.array(one), reading.array(other))


def _listed(names: list[str]) -> str:
    left = len(names) - MAX_NAMED
    return ", ".join(names if left <= 1 else [*names[:MAX_NAMED], f"and {left} more"])
