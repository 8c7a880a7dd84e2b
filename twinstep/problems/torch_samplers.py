"""PyTorch's samplers: the same sample numbers in the same order, drawn when PyTorch draws them.

`default_generator` is the twin of PyTorch's own of that name, which `torch.manual_seed` seeds.
Where a `generator` is given, that is drawn from instead, as in PyTorch.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from twinstep.errors import InputError, check_arguments
from twinstep.problems.torch_engine import is_integer
from twinstep.problems.torch_random import TorchGenerator


def is_bool(value: Any) -> bool:
    """Whether a value is True or False themselves, as PyTorch's samplers ask."""
    return isinstance(value, bool)


def counts(value: Any) -> bool:
    """Whether a value is an integer of at least 1."""
    return is_integer(value, 1, 2**63 - 1)


def drawn_from(
    what: str, generator: TorchGenerator | None, default_generator: TorchGenerator | None
) -> TorchGenerator:
    """The generator that PyTorch would draw from."""
    expected = "a TorchGenerator"
    if generator is None:
        expected += " where generator is None: the twin of what torch.manual_seed seeds"
    name = "default_generator" if generator is None else "generator"
    found = default_generator if generator is None else generator
    if not isinstance(found, TorchGenerator):
        raise InputError(f"{what}: {name} is {found!r}, expected {expected}")
    return found


class TorchRandomSampler:
    """The sample numbers of `torch.utils.data.RandomSampler`, a new order each time.

    Args:
        n: How many samples there are, `len(data_source)`.
        replacement: Whether a sample may come again.
        num_samples: How many numbers to give; all n if None. Without replacement more than n are
            whole orders one after the other, the last of them cut.
        generator: What is drawn from; if None, a generator that each pass seeds anew, by one number
            of `default_generator`.
        default_generator: The twin of what `torch.manual_seed` seeds.

    Raises:
        InputError: For numbers below 1, and where there is nothing to draw from.

    Example:
        >>> import twinstep
        >>> generator = twinstep.TorchGenerator(0)  # torch.manual_seed(0)
        >>> list(twinstep.TorchRandomSampler(5, default_generator=generator))
        [1, 3, 4, 2, 0]

    Source: https://docs.pytorch.org/docs/stable/data.html#torch.utils.data.RandomSampler
    """

    def __init__(
        self,
        n: int,
        replacement: bool = False,
        num_samples: int | None = None,
        generator: TorchGenerator | None = None,
        *,
        default_generator: TorchGenerator | None = None,
    ) -> None:
        num_samples = n if num_samples is None else num_samples
        check_arguments(
            "TorchRandomSampler",
            n=(n, "an integer of at least 1", counts),
            replacement=(replacement, "a bool", is_bool),
            num_samples=(num_samples, "an integer of at least 1", counts),
        )
        self._stream = drawn_from("TorchRandomSampler", generator, default_generator)
        self._seeds_anew = generator is None
        self._n, self._replacement, self._num_samples = n, replacement, num_samples

    def __len__(self) -> int:
        return self._num_samples

    def __iter__(self) -> Iterator[int]:
        stream, n = self._stream, self._n
        if self._seeds_anew:
            stream = TorchGenerator(stream.random_int64())
        if self._replacement:
            for left in range(self._num_samples, 0, -32):  # 32 at a time, as they are asked for
                yield from stream.randint(0, n, (min(left, 32),)).tolist()
            return
        whole, rest = divmod(self._num_samples, n)
        for _ in range(whole):
            yield from stream.randperm(n).tolist()
        if rest or not self._seeds_anew:  # PyTorch draws it even if none of it is used
            yield from stream.randperm(n).tolist()[:rest]


class TorchSubsetRandomSampler:
    """The sample numbers of `torch.utils.data.SubsetRandomSampler`, a new order each time.

    Args:
        indices: (S,) the sample numbers that there are.
        generator: What is drawn from; `default_generator` if None.
        default_generator: The twin of what `torch.manual_seed` seeds.

    Raises:
        InputError: Where there is nothing to draw from.

    Example:
        >>> import twinstep
        >>> generator = twinstep.TorchGenerator(0)  # torch.manual_seed(0)
        >>> list(twinstep.TorchSubsetRandomSampler([10, 20, 30], default_generator=generator))
        [30, 10, 20]

    Source: https://docs.pytorch.org/docs/stable/data.html#torch.utils.data.SubsetRandomSampler
    """

    def __init__(
        self,
        indices: Sequence[int],
        generator: TorchGenerator | None = None,
        *,
        default_generator: TorchGenerator | None = None,
    ) -> None:
        self._stream = drawn_from("TorchSubsetRandomSampler", generator, default_generator)
        self._indices = indices

    def __len__(self) -> int:
        return len(self._indices)

    def __iter__(self) -> Iterator[int]:
        for i in self._stream.randperm(len(self._indices)).tolist():
            yield self._indices[i]


class TorchWeightedRandomSampler:
    """The sample numbers of `torch.utils.data.WeightedRandomSampler`.

    Args:
        weights: (n,) of each sample, not negative; float64, whatever they were.
        num_samples: How many numbers to give.
        replacement: Whether a sample may come again.
        generator: What is drawn from; `default_generator` if None.
        default_generator: The twin of what `torch.manual_seed` seeds.

    Raises:
        InputError: For weights that are no vector, a number below 1, and where there is nothing to
            draw from; what `TorchGenerator.multinomial` refuses when it is drawn.

    Example:
        >>> import twinstep
        >>> generator = twinstep.TorchGenerator(0)  # torch.manual_seed(0)
        >>> weights = [0.1, 0.9, 0.4, 0.7]
        >>> list(twinstep.TorchWeightedRandomSampler(weights, 5, default_generator=generator))
        [3, 3, 1, 3, 2]

    Source: https://docs.pytorch.org/docs/stable/data.html#torch.utils.data.WeightedRandomSampler
    """

    def __init__(
        self,
        weights: ArrayLike,
        num_samples: int,
        replacement: bool = True,
        generator: TorchGenerator | None = None,
        *,
        default_generator: TorchGenerator | None = None,
    ) -> None:
        self._weights = np.asarray(weights, np.float64)
        check_arguments(
            "TorchWeightedRandomSampler",
            weights=(weights, "a vector", lambda _: self._weights.ndim == 1),
            num_samples=(num_samples, "an integer of at least 1", counts),
            replacement=(replacement, "a bool", is_bool),
        )
        self._stream = drawn_from("TorchWeightedRandomSampler", generator, default_generator)
        self._num_samples, self._replacement = num_samples, replacement

    def __len__(self) -> int:
        return self._num_samples

    def __iter__(self) -> Iterator[int]:
        drawn = self._stream.multinomial(self._weights, self._num_samples, self._replacement)
        yield from drawn.tolist()
