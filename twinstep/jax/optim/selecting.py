"""Parts of the parameters, by name."""

from collections.abc import Callable, Iterable
from typing import Any

from twinstep.errors import InputError, nearest
from twinstep.jax.mapping import Mapping
from twinstep.jax.trees import by_name

Selector = str | int | Iterable[str | int] | Callable[[str], bool]
"""Which parameters: a name, the start of names up to a dot, a list of those, or what takes a name.

Names are the tree's own keys, dotted ("model.kernel"; "0" of a list); given a layout, PyTorch's
names ("model.weight") do as well, and are what a function is asked about.
"""


def chosen(params: Any, selector: Selector, layout: Mapping | None, what: str) -> list[str]:
    """The tree's own names of the parameters that are meant, in the order of its leaves.

    what: who asks, for the InputError where a name means no parameter, or a function none at all;
    an empty list means none
    """
    own = list(by_name(params))
    torch_names = own if layout is None else [slot.names[0] for slot in layout.part(params).slots]
    both = list(zip(own, torch_names, strict=True))
    if callable(selector):
        wanted = {a for a, b in both if selector(b)}
        if not wanted:
            raise InputError(f"{what}: params selects no parameter, expected at least one")
    else:
        wanted = set()
        for name in [selector] if isinstance(selector, str | int) else selector:
            start = str(name)
            meant = {
                a for a, b in both if any(c == start or c.startswith(f"{start}.") for c in (a, b))
            }
            if not meant:
                known = nearest(name, map(str, torch_names))
                raise InputError(f"{what}: parameter {name!r} is unknown, {known}")
            wanted |= meant
    return [name for name in own if name in wanted]
