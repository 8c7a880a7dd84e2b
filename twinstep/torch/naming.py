"""What parameters, modules and optimizers are called: as `state_dict` has them.

What stands around a module to compile it or to spread it is no part of a name. Where several
modules are trained, each is called by the variable that holds it.
"""

import gc
import os
import sys
import traceback
from collections.abc import Collection, Iterable, Iterator, Mapping
from types import FrameType, ModuleType
from typing import Any

import torch
from torch import nn

_WRAPPERS = (
    "_orig_mod.",  # torch.compile
    "_fsdp_wrapped_module.",
    "_checkpoint_wrapped_module.",
    "_forward_module.",  # Lightning Fabric
)
_PARALLEL = nn.DataParallel, nn.parallel.DistributedDataParallel  # "module." of theirs
_OURS = "twinstep."
_PACKAGES = f"{os.sep}site-packages{os.sep}"


class Names:
    """The names of the parameters of some modules, and of what joins them."""

    def __init__(self, modules: Mapping[str, nn.Module]) -> None:
        self.modules = dict(modules)
        self.parameters: dict[nn.Parameter, str] = {}
        self.has_buffers = False
        for prefix, module in modules.items():
            self._take(prefix, module)

    def _take(self, prefix: str, module: nn.Module) -> None:
        self.has_buffers = self.has_buffers or any(True for _ in module.buffers())
        for name, parameter in module.named_parameters():
            self.parameters.setdefault(parameter, prefix + plain(module, name))

    def buffers(self) -> Iterator[tuple[str, torch.Tensor]]:
        """Every buffer of the modules by its name."""
        for prefix, module in self.modules.items():
            for name, buffer in module.named_buffers():
                yield prefix + plain(module, name), buffer

    def submodules(self) -> dict[str, nn.Module]:
        """{path: module} of the modules and what is in them."""
        return {
            _joined(prefix, plain(root, f"{name}.")): module
            for prefix, root in self.modules.items()
            for name, module in root.named_modules()
        }

    def described(self) -> dict[str, str]:
        """{path: class and settings} of every module that has none in it, of others the class."""
        return {
            path: f"{type(module).__name__}({module.extra_repr()})"
            if not module._modules
            else type(module).__name__
            for path, module in self.submodules().items()
        }

    def path(self, module: nn.Module) -> str | None:
        """Where a module is in those that are known, "" for one of them; None: it is in none."""
        for prefix, root in self.modules.items():
            for name, one in root.named_modules():
                if one is module:
                    return _joined(prefix, plain(root, f"{name}."))
        return None

    def learn(self, parameters: Iterable[nn.Parameter], places: Mapping[nn.Parameter, str]) -> None:
        """Names parameters that are not known yet, with the modules that they are in.

        The first module, if it is the only one, needs no name. places: what to call a parameter
        that no module and no variable holds
        """
        unknown = [parameter for parameter in parameters if parameter not in self.parameters]
        if not unknown:
            return
        owners: dict[nn.Module, None] = {}
        roots = _roots()
        for parameter in unknown:
            holding = [root for root, held in roots if parameter in held]
            if holding:  # the largest: it holds the others' too
                owners[max(holding, key=lambda root: sum(1 for _ in root.parameters()))] = None
        alone = len(owners) == 1 and not self.modules
        taken = {prefix.removesuffix(".") for prefix in self.modules}
        for owner in owners:
            called = variable(owner) or type(unwrapped(owner)).__name__.lower()
            prefix = "" if alone else f"{free(called, taken)}."
            taken.add(prefix.removesuffix("."))
            self.modules[prefix] = owner
            self._take(prefix, owner)
        for parameter in unknown:
            if parameter not in self.parameters and parameter in places:
                called = variable(parameter) or places[parameter]
                self.parameters[parameter] = free(called, {*self.parameters.values()})


def _joined(prefix: str, path: str) -> str:
    """The path of a module behind what stands before its root's names."""
    return (prefix + path.lstrip(".")).removesuffix(".")


def free(name: str, taken: Collection[str]) -> str:
    """The name, with a number where another has it."""
    number, found = 1, name
    while found in taken:
        number += 1
        found = f"{name}_{number}"
    return found


def plain(root: nn.Module, name: str) -> str:
    """A name in a module's `named_parameters` without the wrappers' own parts."""
    name = unwrapped_name(name)
    spread = isinstance(unwrapped(root, "_orig_mod"), _PARALLEL)
    return name.removeprefix("module.") if spread else name


def unwrapped_name(name: str) -> str:
    """A name without the parts of wrappers that bear names of their own."""
    for wrapper in _WRAPPERS:
        name = name.replace(wrapper, "")
    return name


def unwrapped(module: Any, *attributes: str) -> Any:
    """The module that a wrapper holds."""
    for attribute in attributes or ("_orig_mod", "_forward_module", "module"):
        inner = getattr(module, attribute, None)
        if isinstance(inner, nn.Module) and (
            attribute != "module" or isinstance(module, _PARALLEL)
        ):
            module = inner
    return module


def variable(value: Any) -> str | None:
    """The name of a variable of the running program that holds something; the outermost one's.

    Or of an attribute of what a variable holds, such as of a trainer. The program's own files come
    before those of installed packages.
    """
    wanted = {id(value), id(unwrapped(value))}
    frames = list(_frames())[::-1]
    for own in (True, False):
        of_kind = [frame for frame in frames if (_PACKAGES not in frame.f_code.co_filename) is own]
        for look in (_held, _held_within):
            for frame in of_kind:
                if name := look(frame, wanted):
                    return name
    return None


def _held(frame: FrameType, wanted: set[int]) -> str | None:
    """The variable of a frame that holds one of some objects."""
    module_level = frame.f_code.co_name == "<module>"
    names = {**frame.f_globals, **frame.f_locals} if module_level else frame.f_locals
    for name, held in list(names.items()):
        if id(held) in wanted and name != "self" and not name.startswith("_"):
            return name
    return None


def _held_within(frame: FrameType, wanted: set[int]) -> str | None:
    """The attribute of what a variable holds that is one; if that is private, the variable."""
    for name, held in list(frame.f_locals.items()):
        for attribute, inner in list(getattr(held, "__dict__", {}).items()):
            if id(inner) in wanted and not isinstance(held, ModuleType):
                if not attribute.startswith("_"):
                    return str(attribute)
                if name != "self" and not name.startswith("_"):
                    return name
    return None


def _frames() -> Iterator[FrameType]:
    """The running program's own frames, the innermost first."""
    frame: FrameType | None = sys._getframe()
    while frame is not None:
        module = frame.f_globals.get("__name__", "")
        if not module.startswith((_OURS, "torch.", "runpy", "importlib")):
            yield frame
        frame = frame.f_back


def alive(kind: type) -> list[Any]:
    """All objects of a class that are in use; asked of the type: some lie about their class.

    What only the last exception still holds is in no use: a notebook keeps that.
    """
    gc.collect()
    left = _left_behind()
    return [
        one
        for one in gc.get_objects()
        if issubclass(type(one), kind) and not (id(one) in left and variable(one) is None)
    ]


def _left_behind() -> set[int]:
    """What the variables of frames hold, and their attributes, that the last exception keeps."""
    error, found = getattr(sys, "last_value", None), set[int]()
    seen: set[int] = set()
    while isinstance(error, BaseException) and id(error) not in seen:
        seen.add(id(error))
        for frame, _ in traceback.walk_tb(error.__traceback__):
            for held in list(frame.f_locals.values()):
                found |= {id(held), *map(id, list(getattr(held, "__dict__", {}).values()))}
        error = error.__cause__ or error.__context__
    return found


def _roots() -> list[tuple[nn.Module, set[nn.Parameter]]]:
    """The modules that are in no other, each with its parameters."""
    modules = alive(nn.Module)
    inner = {id(child) for module in modules for child in getattr(module, "_modules", {}).values()}
    roots = [module for module in modules if id(module) not in inner and "_modules" in vars(module)]
    return [(root, set(root.parameters())) for root in roots]
