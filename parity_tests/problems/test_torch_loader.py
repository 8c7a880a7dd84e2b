"""Loaders and samplers give PyTorch's samples, and leave each generator where PyTorch leaves it."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from helpers.differences import TRAITS, traits
from helpers.synthetic_traces import refused
from helpers.torch_loaders import KINDS, apart, parting
from torch.utils.data import (
    DataLoader,
    DistributedSampler,
    SequentialSampler,
    TensorDataset,
    random_split,
)

from twinstep import (
    TorchDataLoader,
    TorchGenerator,
    TorchRandomSampler,
    TorchSubsetRandomSampler,
    TorchWeightedRandomSampler,
)

needs_serial_draws = pytest.mark.skipif(
    TRAITS[-1] not in traits(), reason="weights are drawn from MKL's own generator here"
)
every_kind = pytest.mark.parametrize(
    "kind", [pytest.param(k, marks=needs_serial_draws if k.startswith("W") else ()) for k in KINDS]
)


@every_kind
def test_every_epoch_is_pytorchs(kind: str) -> None:
    for seed in range(150):
        assert (where := parting(kind, seed, 0)) is None, where


@needs_serial_draws
def test_loaders_with_workers_and_what_the_workers_draw_are_pytorchs() -> None:
    assert apart("partings") == []


def test_a_sampler_of_ones_own_draws_when_pytorchs_does() -> None:
    """A generator function that draws from the default generator, as it is asked."""

    class Sampler:
        def __init__(self, draw: Callable[[], int]) -> None:
            self.draw = draw

        def __len__(self) -> int:
            return 7

        def __iter__(self) -> Iterator[int]:
            for _ in range(7):
                yield self.draw()

    torch.manual_seed(1)
    generator, numbers = TorchGenerator(1), TensorDataset(torch.arange(5))
    theirs = DataLoader(numbers, 3, sampler=Sampler(lambda: int(torch.randint(5, ()))))
    own = Sampler(lambda: int(generator.randint(0, 5, ())))
    ours = TorchDataLoader(5, 3, sampler=own, default_generator=generator)
    assert [b.tolist() for (b,) in theirs] == [b.tolist() for b in ours]


def test_one_call_stands_for_random_split_and_for_a_distributed_sampler() -> None:
    """As docs/random.md says."""
    torch.manual_seed(2)
    numbers = TensorDataset(torch.arange(11))
    first, second = random_split(numbers, [7, 4])
    assert [*first.indices, *second.indices] == TorchGenerator(2).randperm(11).tolist()
    sampler: Any = DistributedSampler(numbers, num_replicas=3, rank=1, seed=5)
    sampler.set_epoch(3)
    order = TorchGenerator(5 + 3).randperm(11).tolist()
    assert list(sampler) == [*order, *order[:1]][1::3]


def test_arrays_come_as_their_rows() -> None:
    x, y = np.arange(12.0).reshape(6, 2), np.arange(6)
    batches = TorchDataLoader((x, y), 4, default_generator=TorchGenerator(0))
    assert [(a.tolist(), b.tolist()) for a, b in batches] == [
        (x[:4].tolist(), [0, 1, 2, 3]),
        (x[4:].tolist(), [4, 5]),
    ]


G = TorchGenerator(0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"default_generator": None}, "default_generator is None, expected a TorchGenerator where"),
        ({"default_generator": torch.default_generator}, "expected a TorchGenerator where"),
        ({"generator": torch.Generator()}, "expected a TorchGenerator"),
        ({"dataset": 2.5}, "dataset is 2.5"),
        ({"dataset": (np.ones(3), np.ones(4))}, "a tuple of arrays of one length"),
        ({"dataset": TensorDataset(torch.ones(3))}, "a number of samples"),
        ({"dataset": 0, "shuffle": True}, "n is 0"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"batch_size": None}, "batch_size is None"),
        ({"drop_last": 1}, "drop_last is 1"),
        ({"shuffle": "yes"}, "shuffle is 'yes'"),
        ({"sampler": [1, 2], "shuffle": True}, "sampler is [1, 2]"),
        ({"sampler": SequentialSampler(range(5))}, "none of PyTorch's"),
        ({"sampler": 5}, "sampler is 5"),
        ({"num_workers": -1}, "num_workers is -1"),
        ({"num_workers": 1.0}, "num_workers is 1.0"),
        ({"persistent_workers": True}, "persistent_workers is True"),
        ({"prefetch_factor": 2}, "prefetch_factor is 2"),
        ({"batch_sampler": [[1, 2]]}, "batch_sampler is [[1, 2]]"),
        ({"in_order": False}, "in_order is False, expected no such argument"),
    ],
)
def test_what_is_not_reproduced_is_refused(arguments: dict[str, Any], message: str) -> None:
    refused(lambda: TorchDataLoader(**{"dataset": 5, "default_generator": G, **arguments}), message)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: TorchRandomSampler(5), "TorchRandomSampler: default_generator is None"),
        (lambda: TorchRandomSampler(0, generator=G), "n is 0"),
        (lambda: TorchRandomSampler(5, num_samples=0, generator=G), "num_samples is 0"),
        (lambda: TorchRandomSampler(5, 1, generator=G), "replacement is 1"),  # type: ignore[arg-type]  # refused
        (lambda: TorchSubsetRandomSampler([1]), "TorchSubsetRandomSampler: default_generator"),
        (lambda: TorchWeightedRandomSampler([[1.0]], 1, generator=G), "expected a vector"),
        (lambda: TorchWeightedRandomSampler([1.0], 0, generator=G), "num_samples is 0"),
        (lambda: list(TorchDataLoader(3, sampler=[5], generator=G)), "sampler gives [5]"),
        (lambda: list(TorchDataLoader(3, sampler=[0.5], generator=G)), "sampler gives [0.5]"),  # type: ignore[list-item]  # refused
    ],
)
def test_a_sampler_that_cannot_draw_is_refused(call: Callable[[], object], message: str) -> None:
    refused(call, message)
