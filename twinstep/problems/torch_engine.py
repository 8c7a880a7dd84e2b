"""The 32-bit words that PyTorch's random numbers are made of: their engine, its seed, its state.

`torch.manual_seed(s)` seeds the same Mersenne Twister as `numpy.random.RandomState(s)`, whose
stream NumPy promises never to change.
"""

import copy
import operator
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from twinstep.errors import InputError, check_arguments
from twinstep.problems.torch_rounding import FloatArray

# What torch.get_rng_state() holds, as CPUGeneratorImplState in ATen/CPUGeneratorImpl.cpp lays it
# out. Of its fields PyTorch's CPU generator leaves those at 0 that `get_state` does not set.
_STATE = np.dtype([
    ("seed", "<u8"), ("left", "<i4"), ("seeded", "<i4"), ("next", "<u8"), ("words", "<u8", 624),
    ("normal_x", "<f8"), ("normal_y", "<f8"), ("normal_rho", "<f8"), ("normal_is_valid", "<i4"),
    ("", "<i4"), ("float_normal", "<f4"), ("float_normal_is_valid", "<i4"),
])  # fmt: skip


def is_integer(value: Any, low: float, high: float) -> bool:
    """Whether a value is an integer, Python's or NumPy's, in low to high; a bool is none."""
    return not isinstance(value, bool) and low <= operator.index(value) <= high


class TorchEngine:
    """What `torch.Generator` is without its distributions: words, in the order of PyTorch's.

    Args:
        seed: -2**63 to 2**64 - 1, of which the low 32 bits count.

    Raises:
        InputError: For any other seed.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.Generator.html and
    ATen/core/MT19937RNGEngine.h.
    """

    def __init__(self, seed: int) -> None:
        self.manual_seed(seed)

    def manual_seed(self, seed: int) -> Self:
        """Starts anew, as `torch.manual_seed(seed)` does: what `randn` has kept is gone, too.

        Args:
            seed: -2**63 to 2**64 - 1, of which the low 32 bits count.

        Returns:
            The generator.

        Raises:
            InputError: For any other seed.
        """
        expected = "an integer in -2**63 to 2**64 - 1"
        check = (seed, expected, lambda value: is_integer(value, -(2**63), 2**64 - 1))
        check_arguments("TorchGenerator", seed=check)
        self._seed = operator.index(seed) % 2**64
        # whoever holds the words elsewhere puts the same three methods in its place
        fresh = np.random.RandomState(self._seed & 0xFFFFFFFF)
        if hasattr(self, "_twister"):
            self._twister.set_state(fresh.get_state(legacy=True))
        else:
            self._twister: Any = fresh
        return self

    @property
    def _kept_sine(self) -> float | None:
        """What `randn` of few values keeps for its next call; NumPy's state has a place for it."""
        *_, kept, sine = self._twister.get_state(legacy=True)
        return float(sine) if kept else None

    @_kept_sine.setter
    def _kept_sine(self, sine: float | None) -> None:
        name, words, position, *_ = self._twister.get_state(legacy=True)
        kept = sine is not None
        self._twister.set_state((name, words, position, int(kept), sine if kept else 0.0))

    def initial_seed(self) -> int:
        """The seed that the generator was started from, as `torch.initial_seed()` gives it.

        Returns:
            0 to 2**64 - 1; a negative seed is counted down from 2**64.
        """
        return self._seed

    def copy(self) -> Self:
        """An independent generator in the same state.

        Returns:
            A generator that draws the same numbers; the kept sine of `randn` is copied too.
        """
        return copy.deepcopy(self)

    def get_state(self) -> NDArray[np.uint8]:
        """What `torch.get_rng_state()` gives of PyTorch's generator in the same state.

        Returns:
            (5056,) bytes: `torch.set_rng_state(torch.tensor(state))` continues from there.
        """
        words, position = self._words_and_position()
        state = np.zeros((), _STATE)
        state["seed"], state["seeded"], state["words"] = self._seed, True, words
        unused = np.array_equal(words, TorchEngine(self._seed)._words_and_position()[0])
        state["left"], state["next"] = (1, 0) if unused else (625 - position, position)
        if self._kept_sine is not None:
            state["normal_y"], state["normal_is_valid"] = self._kept_sine, True
        return np.frombuffer(state.tobytes(), np.uint8).copy()

    def set_state(self, state: Any) -> None:
        """Continues from where PyTorch's generator stood, or another of these.

        Args:
            state: (5056,) bytes, what `get_state` or `torch.get_rng_state()` gave.

        Raises:
            InputError: For what is no state of PyTorch's CPU generator.
        """
        found = np.frombuffer(state, np.uint8) if isinstance(state, bytes) else np.asarray(state)
        if found.dtype != np.uint8 or found.shape != (_STATE.itemsize,):
            raise InputError(
                f"state is {found.dtype} of shape {found.shape}, expected the "
                f"{_STATE.itemsize} uint8 of torch.get_rng_state()"
            )
        fields = np.frombuffer(found.tobytes(), _STATE)[0]
        left, position, words = int(fields["left"]), int(fields["next"]), fields["words"]
        unused = (left, position) == (1, 0)
        right = unused or (1 <= left <= 624 and position == 625 - left)
        if not right or fields["seeded"] != 1 or words.max() >= 2**32:
            raise InputError(f"state has left {left} and next {position}, no state of PyTorch's")
        self._seed = int(fields["seed"])
        words = words.astype(np.uint32)
        kept = int(bool(fields["normal_is_valid"]))
        sine = float(fields["normal_y"]) if kept else 0.0
        self._twister.set_state(("MT19937", words, 624 if unused else position, kept, sine))

    def _words_and_position(self) -> tuple[NDArray[np.uint32], int]:
        _, words, position, *_ = self._twister.get_state(legacy=True)
        return np.asarray(words), int(position)

    def _words(self, count: int) -> NDArray[np.uint64]:
        drawn: NDArray[np.uint32] = self._twister.randint(0, 2**32, count, np.uint32)
        return drawn.astype(np.uint64)

    def _double_words(self, count: int) -> NDArray[np.uint64]:
        """(count,) numbers of 64 bits from two words each."""
        words = self._words(2 * count)
        return words[::2] << np.uint64(32) | words[1::2]

    def _uniforms(self, count: int, dtype: str) -> FloatArray:
        """(count,) multiples of 2**-24 from a word each, in float64 of 2**-53 from two."""
        if dtype == "float32":
            return (self._words(count) & (2**24 - 1)).astype(dtype) * np.float32(2.0**-24)
        return (self._double_words(count) & (2**53 - 1)).astype(dtype) * 2.0**-53
