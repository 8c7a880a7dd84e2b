"""What a module does not hold but computes, where it is read, from what it holds."""

from dataclasses import dataclass
from typing import Any, NoReturn

import jax

from twinstep.errors import InputError

__all__ = ["Computed", "read"]


@dataclass(frozen=True)
class Computed:
    """An attribute of a module's that is computed of its parameters; `nn.utils` has the kinds.

    It stands in what Flax calls a module's static part: equal ones are one to what is compiled.

    Args:
        name: The attribute.
    """

    name: str

    def value(self, module: Any) -> jax.Array:
        """What the attribute is.

        Args:
            module: Whose it is.

        Returns:
            Its value.
        """
        raise NotImplementedError

    def before_forward(self, module: Any) -> None:
        """What is done when the module is called, before its `forward`.

        Args:
            module: Whose attribute it is.
        """

    def assign(self, module: Any, value: Any) -> None:
        """Changes what the attribute is computed of, so that it has a value.

        Args:
            module: Whose it is.
            value: Its value.

        Raises:
            InputError: Where that cannot be.
        """
        self.refuse(module, "computed of others, expected those to be set")

    def loaded(self) -> dict[str, str]:
        """The names that a state_dict may have in place of the module's.

        Returns:
            {name there: name here}.
        """
        return {}

    def refuse(self, module: Any, why: str) -> NoReturn:
        """Says what is wrong.

        Args:
            module: Whose attribute it is.
            why: What it is, and what was expected.

        Raises:
            InputError: Always.
        """
        raise InputError(f"{type(module).__name__}: {self.name} is {why}")


def read(module: Any, name: str, times: int) -> Any:
    """An attribute, read as often as PyTorch's layer does where it is computed.

    A spectral norm takes a step at each reading.
    """
    if any(computed.name == name for computed in module._computed):
        for _ in range(times - 1):
            getattr(module, name)
    return getattr(module, name)
