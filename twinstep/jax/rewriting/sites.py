"""Which operations are changed together: what is called everywhere, what stands on a line, one."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from twinstep.jax.rewriting.program import Edit, Program, Replacement


@dataclass(frozen=True)
class Change:
    """says: what is done, as "GELU in place of what is at port.py:12"; edit: doing it"""

    says: str
    edit: Edit


def groups(program: Program, numbers: Sequence[int]) -> list[tuple[int, ...]]:
    """Operations that are likely wrong together: of a library's one line, of a line, of a site."""
    operations = program.operations
    found: dict[tuple[int, ...], None] = {}
    keys: tuple[Callable[[int], object], ...] = (
        lambda n: operations[n].within or operations[n].line,
        lambda n: operations[n].line,
        lambda n: operations[n].site,
    )
    for key in keys:
        by: dict[object, list[int]] = {}
        for number in numbers:
            by.setdefault((operations[number].name, key(number)), []).append(number)
        found |= dict.fromkeys(map(tuple, by.values()))
        if key is keys[1]:
            for of in by.values():
                found |= dict.fromkeys(_turns(program, of))
    return list(found)


def _turns(program: Program, numbers: Sequence[int]) -> Iterator[tuple[int, ...]]:
    """Of what a line does several times in each turn of a loop, as its gates, one in all turns."""
    sites: dict[tuple[int, ...], list[int]] = {}
    for number in numbers:
        sites.setdefault(program.operations[number].site, []).append(number)
    each = list(sites.values())
    for count in range(2, len(each)):
        if len(each) % count == 0:
            for first in range(count):
                yield tuple(number for site in each[first::count] for number in site)


def changes(program: Program, able: Mapping[int, Replacement], says: str) -> Iterator[Change]:
    """The same change of each group of operations.

    able: {operation: what stands for it}; says: what is done, in words
    """
    for group in groups(program, list(able)):
        edit = {number: able[number] for number in group}
        yield Change(f"{says} at {lines(program, group)}", edit)


def lines(program: Program, numbers: Sequence[int]) -> str:
    """Where operations are, in words."""
    found = list(dict.fromkeys(program.operations[n].line or "a line unknown" for n in numbers))
    if len(found) > 3:
        return f"{', '.join(found[:2])} and {len(found) - 2} lines more"
    return " and ".join([", ".join(found[:-1]), found[-1]] if found[1:] else found)
