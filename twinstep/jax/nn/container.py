"""What holds layers or parameters in order or by name: torch.nn's containers."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Self

from flax import nnx

from twinstep.errors import InputError
from twinstep.jax.nn.module import Module, Parameter

__all__ = ["ModuleDict", "ModuleList", "ParameterDict", "ParameterList", "Sequential"]


class _Ordered(Module):
    """Entries under the names that they were added with, in that order."""

    def __init__(self) -> None:
        self._names: tuple[str, ...] = ()

    def _checked(self, entry: Any) -> Any:
        if not isinstance(entry, nnx.Module):
            raise InputError(f"{type(self).__name__}: {entry!r} is no module, expected one")
        return entry

    def _set(self, name: str, value: Any) -> None:
        if name not in self._names:
            self._names = (*self._names, name)
        setattr(self, name, value)

    def _entries(self) -> list[Any]:
        return [getattr(self, name) for name in self._names]

    def __len__(self) -> int:
        return len(self._names)


class _Numbered(_Ordered):
    """Entries that are numbered, as a list's."""

    def _fill(self, entries: Iterable[Any]) -> Self:
        for name in self._names:
            delattr(self, name)
        self._names = ()
        for i, entry in enumerate(entries):
            self._set(str(i), self._checked(entry))
        return self

    def _number(self, index: int) -> int:
        if not -len(self) <= index < len(self):
            raise InputError(
                f"{type(self).__name__}: no entry {index}, expected one of {len(self)}"
            )
        return index % len(self)

    def __iter__(self) -> Iterator[Any]:
        return iter(self._entries())

    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            return self._like(self._entries()[index])
        return self._entries()[self._number(index)]

    def _like(self, entries: list[Any]) -> Any:
        like: Any = type(self)
        return like(entries)

    def __setitem__(self, index: int, value: Any) -> None:
        setattr(self, self._names[self._number(index)], self._checked(value))

    def __delitem__(self, index: int) -> None:
        entries = self._entries()
        del entries[self._number(index)]
        self._fill(entries)

    def append(self, module: Any) -> Self:
        """Adds an entry at the end.

        Args:
            module: The entry.

        Returns:
            The container.
        """
        self._set(str(len(self)), self._checked(module))
        return self

    def extend(self, modules: Iterable[Any]) -> Self:
        """Adds entries at the end.

        Args:
            modules: The entries.

        Returns:
            The container.
        """
        for module in list(modules):
            self.append(module)
        return self

    def insert(self, index: int, module: Any) -> None:
        """Adds an entry before another.

        Args:
            index: The other one's number.
            module: The entry.
        """
        entries = self._entries()
        entries.insert(index, module)
        self._fill(entries)


class Sequential(_Numbered):
    """Modules that are called one after the other.

    Args:
        args: The modules; or one dict of them by name.

    Shape:
        What the first one takes, what the last one gives.

    Raises:
        InputError: For what is no module.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax import nn
        >>> net = nn.Sequential(nn.Linear(3, 4), nn.Identity(), nn.Linear(4, 2))
        >>> net(jnp.ones((5, 3))).shape, [name for name, _ in net.named_parameters()][:2]
        ((5, 2), ['0.weight', '0.bias'])

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.Sequential.html
    """

    def __init__(self, *args: Any) -> None:
        super().__init__()
        if len(args) == 1 and isinstance(args[0], Mapping):
            for name, module in args[0].items():
                self._set(name, self._checked(module))
        else:
            self._fill(args)

    def _like(self, entries: list[Any]) -> Any:
        return type(self)(*entries)

    def forward(self, input: Any) -> Any:
        """As said above."""
        for module in self:
            input = module(input)
        return input


class ModuleList(_Numbered):
    """Modules in a list; the net that holds it says what is done with them.

    Args:
        modules: The modules.

    Raises:
        InputError: For what is no module.

    Example:
        >>> from twinstep.jax import nn
        >>> layers = nn.ModuleList([nn.Linear(3, 3) for _ in range(2)])
        >>> len(layers), layers[1].weight.shape
        (2, (3, 3))

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.ModuleList.html
    """

    def __init__(self, modules: Iterable[Any] | None = None) -> None:
        super().__init__()
        self._fill(modules or ())


class ParameterList(_Numbered):
    """Parameters in a list.

    Args:
        values: The parameters; an array becomes one.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax import nn
        >>> weights = nn.ParameterList([jnp.ones(2), jnp.ones(3)])
        >>> [weight.shape for weight in weights]
        [(2,), (3,)]

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.ParameterList.html
    """

    def __init__(self, values: Iterable[Any] | None = None) -> None:
        super().__init__()
        self._fill(values or ())

    def _checked(self, entry: Any) -> Any:
        return entry if isinstance(entry, nnx.Variable) else Parameter(entry)


class _Named(_Ordered):
    """Entries by name, as a dict's."""

    def __getitem__(self, key: str) -> Any:
        if key not in self._names:
            raise InputError(
                f"{type(self).__name__}: no entry {key!r}, expected one of "
                f"{', '.join(self._names) or 'none'}"
            )
        return getattr(self, key)

    def __setitem__(self, key: str, value: Any) -> None:
        self._set(key, self._checked(value))

    def __delitem__(self, key: str) -> None:
        self.pop(key)

    def __contains__(self, key: str) -> bool:
        return key in self._names

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def keys(self) -> Iterable[str]:
        """The names.

        Returns:
            Them, in order.
        """
        return self._names

    def values(self) -> Iterable[Any]:
        """The entries.

        Returns:
            Them, in order.
        """
        return self._entries()

    def items(self) -> Iterable[tuple[str, Any]]:
        """The names and the entries.

        Returns:
            (name, entry) of each, in order.
        """
        return [(name, getattr(self, name)) for name in self._names]

    def pop(self, key: str) -> Any:
        """Takes an entry out.

        Args:
            key: Its name.

        Returns:
            The entry.
        """
        value = self[key]
        self._names = tuple(name for name in self._names if name != key)
        delattr(self, key)
        return value

    def update(self, entries: Any) -> None:
        """Adds entries, or puts them in the place of those of their names.

        Args:
            entries: {name: entry}, or pairs of them.
        """
        for key, value in dict(entries).items():
            self[key] = value


class ModuleDict(_Named):
    """Modules by name.

    Args:
        modules: {name: module}, or pairs of them.

    Raises:
        InputError: For what is no module.

    Example:
        >>> from twinstep.jax import nn
        >>> heads = nn.ModuleDict({"a": nn.Linear(3, 1), "b": nn.Linear(3, 2)})
        >>> heads["b"].weight.shape, list(heads)
        ((2, 3), ['a', 'b'])

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.ModuleDict.html
    """

    def __init__(self, modules: Any = ()) -> None:
        super().__init__()
        self.update(modules)


class ParameterDict(_Named):
    """Parameters by name.

    Args:
        parameters: {name: parameter}, or pairs of them; an array becomes one.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax import nn
        >>> weights = nn.ParameterDict({"left": jnp.ones(2)})
        >>> weights["left"].shape
        (2,)

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.ParameterDict.html
    """

    def __init__(self, parameters: Any = ()) -> None:
        super().__init__()
        self.update(parameters)

    def _checked(self, entry: Any) -> Any:
        return entry if isinstance(entry, nnx.Variable) else Parameter(entry)
