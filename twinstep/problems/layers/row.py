"""A row of the sets `layers` and `losses`: a call of a constructor, and what the layer is given."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from twinstep.problems.torch_random import TorchGenerator

Shapes = Mapping[str, tuple[int, ...]]


class Layer(NamedTuple):
    """The call of a constructor of torch.nn; an argument may be such a call itself.

    Args:
        kind: The class.
        args, options: Its arguments.
    """

    kind: str
    args: tuple[Any, ...] = ()
    options: Mapping[str, Any] = MappingProxyType({})

    def __str__(self) -> str:
        options = [f"{name}={value}" for name, value in self.options.items()]
        return f"{self.kind}({', '.join([*map(str, self.args), *options])})"

    def made(self, nn: Any) -> Any:
        """The layer.

        Args:
            nn: torch.nn, or what stands in its place.
        """

        def made(value: Any) -> Any:
            return value.made(nn) if isinstance(value, Layer) else value

        options = {name: made(value) for name, value in self.options.items()}
        return getattr(nn, self.kind)(*map(made, self.args), **options)


class Input(NamedTuple):
    """What a layer is called with.

    Args:
        shape: Its sizes.
        kind: "normal" and "positive" (0.2 to 0.8) numbers are trained; "target" is normal, "share"
            positive, and "sign" 1 or -1, and these are not, as whole numbers below `kind` are not.
        name: The argument's; "" for one that goes by its place.
        values: What it is, where it is not drawn.
    """

    shape: tuple[int, ...]
    kind: str | int = "normal"
    name: str = ""
    values: Any = None

    @property
    def trained(self) -> bool:
        """Whether it is a parameter."""
        return self.kind in ("normal", "positive") and self.values is None

    def draw(self, generator: TorchGenerator, dtype: str) -> np.ndarray:
        """Its values.

        Args:
            generator: What draws them.
            dtype: Of those that are no whole numbers.
        """
        if self.values is not None:
            return np.array(self.values)
        if isinstance(self.kind, int):
            return generator.randint(0, self.kind, self.shape)
        if self.kind in ("normal", "target"):
            return generator.randn(*self.shape, dtype=dtype)
        uniform = generator.uniform(self.shape, 0.2, 0.8, dtype)
        return np.sign(uniform - 0.5).astype(dtype) if self.kind == "sign" else uniform


class Row(NamedTuple):
    """A layer of the table.

    Args:
        layer: How it is made.
        inputs: What it is called with.
        shapes: Of its parameters, by their names.
        draws: Whether it draws numbers.
        note: What tells it from another one that is made so.
    """

    layer: Layer
    inputs: tuple[Input, ...]
    shapes: Shapes = MappingProxyType({})
    draws: bool = False
    note: str = ""

    def __str__(self) -> str:
        return f"{self.layer}, {self.note}" if self.note else str(self.layer)
