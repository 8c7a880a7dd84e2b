"""Loaders made twice, by PyTorch and by `TorchDataLoader`, and where they part.

PyTorch's workers are forked, and JAX's threads forbid that: those loaders are run in a process of
their own, which this file is too: `apart("partings")`, `apart("words", "shuffle=True", ...)`.
"""

import functools
import itertools
import random
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import (
    DataLoader,
    Dataset,
    RandomSampler,
    SubsetRandomSampler,
    TensorDataset,
    WeightedRandomSampler,
)

from twinstep import (
    TorchDataLoader,
    TorchGenerator,
    TorchRandomSampler,
    TorchSubsetRandomSampler,
    TorchWeightedRandomSampler,
)

Kind = Callable[[random.Random, int, "Pair"], dict[str, tuple[Any, Any]]]


@dataclass(frozen=True)
class Pair:
    """The generator of a loader or sampler on both sides; None: it draws from the default one."""

    torch: torch.Generator | None
    numpy: TorchGenerator | None
    default: TorchGenerator

    def ours(self) -> dict[str, Any]:
        """The arguments of a sampler of ours."""
        return {"generator": self.numpy, "default_generator": self.default}

    def differs(self) -> bool:
        """Whether the two are not where the other is; the default ones too."""
        states = [(torch.get_rng_state(), self.default)]
        if self.torch is not None and self.numpy is not None:
            states.append((self.torch.get_state(), self.numpy))
        return any(a.numpy().tobytes() != b.get_state().tobytes() for a, b in states)


def some_order(pick: random.Random, n: int, own: Pair) -> dict[str, tuple[Any, Any]]:
    length = pick.choice([None, pick.randint(1, 100), n, 2 * n])
    theirs = RandomSampler(range(n), num_samples=length, generator=own.torch)
    return {"sampler": (theirs, TorchRandomSampler(n, num_samples=length, **own.ours()))}


def with_replacement(pick: random.Random, n: int, own: Pair) -> dict[str, tuple[Any, Any]]:
    length = pick.choice([None, 32, 64, pick.randint(1, 100)])
    theirs = RandomSampler(range(n), True, length, own.torch)
    return {"sampler": (theirs, TorchRandomSampler(n, True, length, **own.ours()))}


def subset(pick: random.Random, n: int, own: Pair) -> dict[str, tuple[Any, Any]]:
    some = pick.sample(range(n), pick.randint(1, n))
    theirs = SubsetRandomSampler(some, own.torch)
    return {"sampler": (theirs, TorchSubsetRandomSampler(some, **own.ours()))}


def weighted(pick: random.Random, n: int, own: Pair) -> dict[str, tuple[Any, Any]]:
    weights, count = [pick.uniform(0.01, 1) for _ in range(n)], pick.randint(1, n)
    options = weights, count, pick.random() < 0.5
    theirs = WeightedRandomSampler(*options, own.torch)
    return {"sampler": (theirs, TorchWeightedRandomSampler(*options, **own.ours()))}


def fixed(pick: random.Random, n: int, own: Pair) -> dict[str, tuple[Any, Any]]:
    numbers = [pick.randrange(-n, n) for _ in range(pick.randint(1, 60))]
    return {"sampler": (numbers, numbers)}


KINDS: dict[str, Kind] = {
    "unshuffled": lambda pick, n, own: {},
    "shuffle": lambda pick, n, own: {"shuffle": (True, True)},
    "RandomSampler": some_order,
    "RandomSampler with replacement": with_replacement,
    "SubsetRandomSampler": subset,
    "WeightedRandomSampler": weighted,
    "a list": fixed,
}


def parting(kind: str, seed: int, num_workers: int) -> str | None:
    """The first of four epochs, some left early, that differs, with the loader; else None.

    In each step both sides draw a number besides, as a model with dropout would.
    """
    pick = random.Random(seed)
    n = pick.randint(1, 40)
    options: Any = {"batch_size": pick.randint(1, 12), "drop_last": pick.random() < 0.4}
    if num_workers:
        options |= {"num_workers": num_workers, "persistent_workers": pick.random() < 0.6}
        options["prefetch_factor"] = pick.choice([None, 1, 3])
    torch.manual_seed(seed)
    default, pairs = TorchGenerator(seed), list[Pair]()
    for own in (77, 78):
        generator = torch.Generator().manual_seed(own) if pick.random() < 0.5 else None
        pairs.append(Pair(generator, TorchGenerator(own) if generator else None, default))
    loader, sampler = pairs
    both = KINDS[kind](pick, n, sampler)
    theirs = DataLoader(
        TensorDataset(torch.arange(n)),
        **{name: pair[0] for name, pair in both.items()},
        **options,
        generator=loader.torch,
    )
    ours = TorchDataLoader(
        (np.arange(n),),
        **{name: pair[1] for name, pair in both.items()},
        **options,
        **loader.ours(),
    )
    if len(theirs) != len(ours):
        return f"{len(ours)} batches, PyTorch has {len(theirs)}"
    for epoch in range(4):
        steps = pick.choice([999, 999, 0, 1, 2])
        expected = left(theirs, steps, lambda: torch.rand(1, dtype=torch.float32))
        found = left(ours, steps, lambda: default.rand(1))
        if expected != found or loader.differs() or sampler.differs():
            return f"epoch {epoch} of {steps} steps, {options}, {pairs}: {found}, not {expected}"
    return None


def left(loader: Any, steps: int, draw: Callable[[], object]) -> list[list[int]]:
    """The batches of a pass that is left after some steps; after 0 it is begun alone."""
    batches, found = iter(loader), list[list[int]]()
    while len(found) < steps and (batch := next(batches, None)) is not None:
        found.append(batch[0].tolist())
        draw()
    return found


class Draws(Dataset[torch.Tensor]):
    """Samples of a number that their worker draws."""

    def __len__(self) -> int:
        return 9

    def __getitem__(self, index: int) -> torch.Tensor:
        return torch.rand(1)[0]


def worker_parting() -> str | None:
    """Whether workers draw other numbers than those of the base seed and their own number."""
    torch.manual_seed(4)
    theirs = torch.cat(list(DataLoader(Draws(), 2, num_workers=2))).tolist()
    ours = TorchDataLoader(9, 2, num_workers=2, default_generator=TorchGenerator(4))
    batches = list(ours)
    workers = [TorchGenerator((ours.base_seed or 0) + k) for k in range(2)]
    drawn = [workers[i % 2].rand(len(batch)) for i, batch in enumerate(batches)]
    found = np.concatenate(drawn).tolist()
    return None if found == theirs else f"workers draw {theirs}, not {found}"


def words_between(before: np.ndarray, after: np.ndarray) -> int:
    """How many words bring a generator from a state to another, but for the kept normal."""
    generator, end = TorchGenerator(0), TorchGenerator(0)
    generator.set_state(before)
    end.set_state(after)
    for count in range(1000):
        (ours, here), (theirs, there) = (g._words_and_position() for g in (generator, end))
        if here == there and np.array_equal(ours, theirs):
            return count
        generator._words(1)
    raise AssertionError("more than 1000 words")


def words(options: str) -> list[int]:
    """The words that PyTorch's loader of 10 samples in batches of 4 draws.

    options: its other arguments, as Python has them; `g` is a generator, `dataset` the samples
    Returns those at `iter`, for the first batch, for the rest of the epoch and for a further one.
    """
    g, dataset = torch.Generator().manual_seed(1), TensorDataset(torch.arange(10))
    loader = DataLoader(dataset, 4, **eval(f"dict({options})", {**globals(), **locals()}))
    torch.manual_seed(0)
    states: list[tuple[np.ndarray, ...]] = []

    def mark() -> None:
        states.append((torch.get_rng_state().numpy(), g.get_state().numpy()))

    mark()
    batches = iter(loader)
    mark()
    next(batches)
    mark()
    list(batches)
    mark()
    list(loader)
    mark()
    return [
        sum(words_between(a, b) for a, b in zip(*pair, strict=True))
        for pair in itertools.pairwise(states)
    ]


@functools.cache
def apart(*arguments: str) -> list[str]:
    """The lines that this file prints in a process of its own."""
    command = [sys.executable, "-W", "ignore:This DataLoader", "-m", "helpers.torch_loaders"]
    done = subprocess.run(
        [*command, *arguments], cwd=Path(__file__).parents[1], capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


def main(command: str, *arguments: str) -> None:
    """partings: of every kind of loader with workers; words: of each loader; order: of one."""
    if command == "words":
        for options in arguments:
            print(*words(options))
    elif command == "order":
        torch.manual_seed(int(arguments[0]))
        loader = DataLoader(
            TensorDataset(torch.arange(50)), 7, True, num_workers=1, persistent_workers=True
        )
        print(*[int(i) for _ in range(2) for (batch,) in loader for i in batch])
    else:
        for kind, seed in itertools.product(KINDS, range(4)):
            if (where := parting(kind, seed, 1 + seed % 2)) is not None:
                print(kind, where)
        if (where := worker_parting()) is not None:
            print(where)


if __name__ == "__main__":
    main(*sys.argv[1:])
