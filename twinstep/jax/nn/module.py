"""torch.nn.Module in Flax: what a layer or a net is made from, and what it holds."""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Self

import jax
import jax.numpy as jnp
from flax import nnx

from twinstep.errors import InputError
from twinstep.jax.nn.computed import Computed
from twinstep.jax.nn.drawing import Keyed
from twinstep.jax.nn.generator import Generator

__all__ = [
    "Buffer",
    "Module",
    "Parameter",
    "children_of",
    "default_dtype",
    "variables_of",
    "walked",
]


class Parameter(nnx.Param[jax.Array]):
    """An array that is trained.

    Args:
        data: Its values; what is no array of JAX's becomes one.
        requires_grad: Kept as its metadata of that name: `nnx.state(model, trained)` with a filter
            of one's own can ask for it.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax.nn import Parameter
        >>> Parameter(jnp.zeros(2)).shape
        (2,)

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.parameter.Parameter.html
    """

    def __init__(self, data: Any, requires_grad: bool = True, **metadata: Any) -> None:
        super().__init__(jnp.asarray(data), requires_grad=requires_grad, **metadata)


class Buffer(nnx.BatchStat[jax.Array]):
    """An array that is a part of a module's state and is not trained.

    Args:
        data: Its values; what is no array of JAX's becomes one.
        persistent: Whether `state_dict` has it.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax.nn import Buffer
        >>> Buffer(jnp.zeros(2)).shape
        (2,)

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.parameter.Buffer.html
    """

    def __init__(self, data: Any, *, persistent: bool = True, **metadata: Any) -> None:
        super().__init__(jnp.asarray(data), persistent=persistent, **metadata)


class Module(nnx.Module):
    """What layers and nets are made from: an `nnx.Module` whose `forward` is called.

    A class of PyTorch's is ported by its imports, as far as its `forward` calls functions of an
    array and not methods of a tensor. `nnx.split`, `nnx.jit` and `nnx.Optimizer` take it as any
    module of Flax's, and Flax's own layers may be in it. Flax's `deterministic` and
    `use_running_average` are the opposite of `training`.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax import nn
        >>> class Net(nn.Module):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.fc = nn.Linear(3, 2)
        ...     def forward(self, x):
        ...         return jnp.tanh(self.fc(x))
        >>> net = Net().eval()
        >>> net(jnp.ones((4, 3))).shape, net.training
        ((4, 2), False)
        >>> [name for name, _ in net.named_parameters()]
        ['fc.weight', 'fc.bias']

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.Module.html
    """

    training = True
    _order: tuple[str, ...] = ()  # in which they were set: Flax sorts them where it merges
    _computed: tuple[Computed, ...] = ()

    if not TYPE_CHECKING:  # which knows what a class holds

        def __getattr__(self, name: str) -> Any:
            """What is computed where it is read: other attributes are found before."""
            for computed in self._computed:
                if computed.name == name:
                    return computed.value(self)
            return object.__getattribute__(self, name)  # says that there is none

    def __setattr__(self, name: str, value: Any) -> None:
        for computed in self._computed:
            if computed.name == name:
                return computed.assign(self, value)
        if isinstance(value, nnx.Variable | nnx.Module):
            if name not in self._order:
                super().__setattr__("_order", (*self._order, name))
            value = nnx.data(value)  # what was None may become one, as in PyTorch
        super().__setattr__(name, value)

    def __delattr__(self, name: str) -> None:
        super().__setattr__("_order", tuple(one for one in self._order if one != name))
        super().__delattr__(name)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        for computed in self._computed:
            computed.before_forward(self)
        return self.forward(*args, **kwargs)

    def __deepcopy__(self, memo: Any = None) -> Self:
        """A copy that draws from where this one does, as in PyTorch: else both drew the same."""
        copied: Self = super().__deepcopy__(memo)
        for (_, one), (_, other) in zip(self.named_modules(), copied.named_modules(), strict=True):
            for name, value in vars(one).items():
                if isinstance(value, Generator | Keyed):
                    setattr(other, name, value)
        return copied

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What a call gives: a module of one's own says it.

        Args:
            args, kwargs: What the module is called with.

        Returns:
            Its output.

        Raises:
            InputError: Where the class has no `forward`.
        """
        raise InputError(f"{type(self).__name__} has no forward, expected one to call")

    @property
    def deterministic(self) -> bool:
        """Flax's word for a module that is not trained: dropout does nothing."""
        return not self.training

    @deterministic.setter
    def deterministic(self, value: bool) -> None:
        self.training = not value

    @property
    def use_running_average(self) -> bool:
        """Flax's word for a module that is not trained: BatchNorm takes what it has kept."""
        return not self.training

    @use_running_average.setter
    def use_running_average(self, value: bool) -> None:
        self.training = not value

    def train(self, mode: bool = True, **attributes: Any) -> Self:
        """Sets `training` here and in all modules within, Flax's too.

        Args:
            mode: Whether it is trained.
            attributes: Further ones to set, as nnx.Module's `train` takes them.

        Returns:
            The module.
        """
        set_: Any = super().train if mode else super().eval
        set_(**attributes)
        return self

    def eval(self, **attributes: Any) -> Self:
        """The same as `train(False)`.

        Args:
            attributes: Further ones to set, as nnx.Module's `eval` takes them.

        Returns:
            The module.
        """
        return self.train(False, **attributes)

    def register_parameter(self, name: str, param: Any) -> None:
        """Adds a parameter, or None where there is none.

        Args:
            name: Its attribute.
            param: Its values, or None.
        """
        setattr(self, name, param if param is None or _is_param(param) else Parameter(param))

    def register_buffer(self, name: str, tensor: Any, persistent: bool = True) -> None:
        """Adds an array that is not trained, or None where there is none.

        Args:
            name: Its attribute.
            tensor: Its values, or None.
            persistent: Whether `state_dict` has it.
        """
        setattr(self, name, None if tensor is None else Buffer(tensor, persistent=persistent))

    def add_module(self, name: str, module: Any) -> None:
        """Adds a module.

        Args:
            name: Its attribute.
            module: A module, or None.
        """
        setattr(self, name, module)

    register_module = add_module

    def named_modules(self, prefix: str = "") -> Iterator[tuple[str, Any]]:
        """This module and all within, each once, with their paths.

        Args:
            prefix: What stands before each path.

        Yields:
            (path, module).
        """
        yield from walked(self, prefix, set())

    def modules(self) -> Iterator[Any]:
        """This module and all within, each once.

        Yields:
            The modules.
        """
        yield from (module for _, module in self.named_modules())

    def named_children(self) -> Iterator[tuple[str, Any]]:
        """The modules that are attributes of this one.

        Yields:
            (name, module).
        """
        yield from children_of(self)

    def children(self) -> Iterator[Any]:
        """The modules that are attributes of this one.

        Yields:
            The modules.
        """
        yield from (module for _, module in children_of(self))

    def named_parameters(
        self, prefix: str = "", recurse: bool = True
    ) -> Iterator[tuple[str, nnx.Param[Any]]]:
        """The parameters of this module and of all within, each once, by their dotted names.

        Args:
            prefix: What stands before each name.
            recurse: Whether those within are meant too.

        Yields:
            (name, parameter).
        """
        yield from _named(self, nnx.Param, prefix, recurse)

    def parameters(self, recurse: bool = True) -> Iterator[nnx.Param[Any]]:
        """The parameters of this module and of all within, each once.

        Args:
            recurse: Whether those within are meant too.

        Yields:
            The parameters.
        """
        yield from (param for _, param in self.named_parameters(recurse=recurse))

    def named_buffers(
        self, prefix: str = "", recurse: bool = True
    ) -> Iterator[tuple[str, nnx.BatchStat[Any]]]:
        """The buffers of this module and of all within, each once, by their dotted names.

        Args:
            prefix: What stands before each name.
            recurse: Whether those within are meant too.

        Yields:
            (name, buffer).
        """
        yield from _named(self, nnx.BatchStat, prefix, recurse)

    def buffers(self, recurse: bool = True) -> Iterator[nnx.BatchStat[Any]]:
        """The buffers of this module and of all within, each once.

        Args:
            recurse: Whether those within are meant too.

        Yields:
            The buffers.
        """
        yield from (buffer for _, buffer in self.named_buffers(recurse=recurse))

    def apply(self, fn: Callable[[Any], object]) -> Self:
        """Calls a function with every module within and with this one, as for `init`.

        Args:
            fn: What is called with each.

        Returns:
            The module.
        """
        for _, module in reversed(list(self.named_modules())):
            fn(module)
        return self

    def get_submodule(self, target: str) -> Any:
        """The module at a dotted path.

        Args:
            target: The path, "" for this one.

        Returns:
            The module.

        Raises:
            InputError: Where there is none.
        """
        found: Any = self
        for name in target.split(".") if target else []:
            within = dict(children_of(found))
            if name not in within:
                raise InputError(
                    f"{type(self).__name__}: no module {target!r}, expected one of "
                    f"{', '.join(sorted(within)) or 'none'} at {name!r}"
                )
            found = within[name]
        return found


def default_dtype(dtype: Any = None) -> Any:
    """A dtype by JAX's name or object; None: float64 under x64, else float32."""
    return jnp.zeros(0).dtype if dtype is None else jnp.zeros(0, dtype).dtype


def children_of(module: Any) -> Iterator[tuple[str, Any]]:
    """(name, module) of what a module of the kit or of Flax's holds, in the order it was set."""
    for name, value in held_by(module).items():
        if isinstance(value, nnx.Module):
            yield name, value


def held_by(module: Any) -> dict[str, Any]:
    """{attribute: value} of a module of the kit's, in the order it was set, or of Flax's."""
    own = {str(name): value for name, value in vars(module).items()}
    first = {name: own[name] for name in getattr(module, "_order", ()) if name in own}
    return first | own


def variables_of(module: Any, kind: type) -> Iterator[tuple[str, Any]]:
    """(name, variable) of a kind that a module itself holds, in the order it was set."""
    for name, value in held_by(module).items():
        if isinstance(value, kind):
            yield name, value


def _is_param(value: Any) -> bool:
    return isinstance(value, nnx.Variable)


def walked(module: Any, path: str, seen: set[int]) -> Iterator[tuple[str, Any]]:
    """(path, module) of a module and of all within, each once that was not seen."""
    if id(module) in seen:
        return
    seen.add(id(module))
    yield path, module
    for name, child in children_of(module):
        yield from walked(child, f"{path}.{name}" if path else name, seen)


def _named(module: Any, kind: type, prefix: str, recurse: bool) -> Iterator[tuple[str, Any]]:
    seen: set[int] = set()
    places = walked(module, prefix, set()) if recurse else [(prefix, module)]
    for path, one in places:
        for name, variable in variables_of(one, kind):
            if id(variable) not in seen:
                seen.add(id(variable))
                yield f"{path}.{name}" if path else name, variable
