"""PyTorch's `DataLoader`: the same batches in the same order, drawn when PyTorch draws them."""

import itertools
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from twinstep.errors import InputError, check_arguments
from twinstep.problems.torch_engine import is_integer
from twinstep.problems.torch_random import TorchGenerator
from twinstep.problems.torch_samplers import TorchRandomSampler, counts, drawn_from, is_bool


class TorchDataLoader:
    """The batches of `torch.utils.data.DataLoader`, each pass over it an epoch.

    Every number is drawn when PyTorch draws it: `iter(loader)` draws the base seed of the workers
    (with `persistent_workers` only the first time), the first batch what its sampler needs; with
    workers, batches are drawn `prefetch_factor * num_workers` ahead. No worker is started here:
    batch i of an epoch is loaded by PyTorch's worker k = i % num_workers, whose own numbers are
    those of `TorchGenerator(loader.base_seed + k)`.

    Args:
        dataset: (n, ...) arrays in a tuple, as in TensorDataset; or n, for sample numbers alone.
        batch_size: How many samples a batch has.
        shuffle: Whether each epoch has a new order.
        sampler: Sample numbers in their order: one of twinstep's, or any other iterable.
        num_workers: How many processes PyTorch's loader has.
        drop_last: Whether an incomplete last batch is left out.
        generator: What is drawn from, by the shuffle too; `default_generator` if None.
        prefetch_factor: How many batches each worker has ahead, 2 if None.
        persistent_workers: Whether the workers live on after an epoch.
        default_generator: The twin of what `torch.manual_seed` seeds.
        others: Every other argument of DataLoader is refused, `batch_sampler` and `in_order` too.

    Raises:
        InputError: For what PyTorch refuses, for others, for a sampler of PyTorch's, which draws
            from PyTorch's own generator, and where there is nothing to draw from.

    Example:
        >>> import twinstep
        >>> generator = twinstep.TorchGenerator(0)  # torch.manual_seed(0)
        >>> loader = twinstep.TorchDataLoader(5, 2, shuffle=True, default_generator=generator)
        >>> [batch.tolist() for batch in loader]
        [[1, 4], [2, 3], [0]]

    Source: https://docs.pytorch.org/docs/stable/data.html#torch.utils.data.DataLoader
    """

    base_seed: int | None = None
    """The seed of the workers, which `iter` drew; None before the first."""

    def __init__(
        self,
        dataset: int | tuple[Any, ...],
        batch_size: int = 1,
        shuffle: bool | None = None,
        sampler: Iterable[int] | None = None,
        *,
        num_workers: int = 0,
        drop_last: bool = False,
        generator: TorchGenerator | None = None,
        prefetch_factor: int | None = None,
        persistent_workers: bool = False,
        default_generator: TorchGenerator | None = None,
        **others: object,
    ) -> None:
        nothing = "no such argument: what it does is not reproduced"
        check_arguments(
            "TorchDataLoader",
            **{name: (value, nothing, lambda _: False) for name, value in others.items()},
            dataset=(dataset, "a number of samples, or a tuple of arrays of one length", (
                lambda value: _length_of(value) >= 0
            )),
            batch_size=(batch_size, "an integer of at least 1", counts),
            drop_last=(drop_last, "a bool", is_bool),
            shuffle=(shuffle, "a bool, or None", lambda value: value is None or is_bool(value)),
            sampler=(sampler, "an iterable of integers, none of PyTorch's, and no shuffle", (
                lambda value: value is None or (_is_ours(value) and not shuffle)
            )),
            num_workers=(num_workers, "an integer of at least 0", _is_none_or_more),
            prefetch_factor=(prefetch_factor, "an integer of at least 1; None without workers", (
                lambda value: value is None or (counts(value) and num_workers > 0)
            )),
            persistent_workers=(persistent_workers, "a bool, False without workers", (
                lambda value: is_bool(value) and (num_workers > 0 or not value)
            )),
        )  # fmt: skip
        self._stream = drawn_from("TorchDataLoader", generator, default_generator)
        self.dataset, self._n = dataset, _length_of(dataset)
        self._batch_size, self._drop_last = batch_size, drop_last
        self._persistent = persistent_workers
        self._ahead = num_workers * (prefetch_factor or 2)
        self._sampler = range(self._n) if sampler is None else sampler
        if shuffle:
            self._sampler = TorchRandomSampler(
                self._n, generator=generator, default_generator=default_generator
            )

    def __len__(self) -> int:
        """How many batches an epoch has."""
        samples = len(self._sampler)  # type: ignore[arg-type]  # of an iterable without it, Python's error
        return (samples + (0 if self._drop_last else self._batch_size - 1)) // self._batch_size

    def __iter__(self) -> Iterator[Any]:
        if self.base_seed is None or not self._persistent:
            self.base_seed = self._stream.random_int64()
        batches = self._batches()
        return _in_turn(deque(itertools.islice(batches, self._ahead)), batches)

    def _batches(self) -> Iterator[Any]:
        numbers = iter(self._sampler)
        while batch := list(itertools.islice(numbers, self._batch_size)):
            if self._drop_last and len(batch) < self._batch_size:
                return
            index = np.array(batch)
            whole = index.dtype.kind in "iu"
            if not whole or not -self._n <= index.min() <= index.max() < self._n:
                raise InputError(f"sampler gives {batch}, expected integers below {self._n}")
            if isinstance(self.dataset, tuple):
                yield tuple(array[index] for array in self.dataset)
            else:
                yield index.astype(np.int64)


def _in_turn(ahead: deque[Any], batches: Iterator[Any]) -> Iterator[Any]:
    """The batches that are drawn already, and behind each of them one more is drawn."""
    while ahead:
        batch = ahead.popleft()
        ahead.extend(itertools.islice(batches, 1))
        yield batch
    yield from batches  # without workers none is drawn ahead


def _length_of(dataset: Any) -> int:
    lengths = {len(array) for array in dataset} if isinstance(dataset, tuple) else {dataset}
    (length,) = lengths
    if not _is_none_or_more(length):
        raise ValueError(f"{length} samples")
    return int(length)


def _is_none_or_more(number: Any) -> bool:
    return is_integer(number, 0, 2**63 - 1)


def _is_ours(sampler: Any) -> bool:
    """Whether a sampler gives numbers, and none that PyTorch's generator may have drawn."""
    homes = {base.__module__.partition(".")[0] for base in type(sampler).__mro__}
    return hasattr(sampler, "__iter__") and "torch" not in homes
