"""What the whole models are trained on, the same on every machine: small digits, counting in words.

N counts samples throughout.
"""

import numpy as np
from numpy.typing import NDArray

# fmt: off
_ONES = [
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine",
    "ten", "eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen",
    "eighteen", "nineteen",
]
_TENS = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
# fmt: on


def small_digits() -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """The 1797 digits that come with scikit-learn, as they are.

    Returns:
        Images (1797, 8, 8) in 0 to 1, in sixteenths, and labels (1797,).

    Source: https://scikit-learn.org/stable/datasets/toy_dataset.html#digits-dataset
    """
    from sklearn import datasets

    digits = datasets.load_digits()
    return digits.images / 16, digits.target.astype(np.int64)


def number_words(number: int) -> str:
    """A number below 1000 in English words.

    Args:
        number: From 0 to 999.

    Returns:
        The words, blanks between them.

    Example:
        >>> from twinstep.problems.nets.data import number_words
        >>> number_words(342)
        'three hundred forty two'
    """
    hundreds, rest = divmod(number, 100)
    words = [_ONES[hundreds], "hundred"] if hundreds else []
    if rest >= 20:
        words.append(_TENS[rest // 10 - 2])
        rest %= 10
    if rest or not words:
        words.append(_ONES[rest])
    return " ".join(words)


def counting(numbers: int = 500) -> tuple[NDArray[np.int64], str]:
    """A text that counts in words, character by character, as language models are given one.

    Args:
        numbers: How many it counts.

    Returns:
        The characters' numbers (N,), and the characters that they number.

    Example:
        >>> from twinstep.problems.nets.data import counting
        >>> tokens, characters = counting()
        >>> "".join(characters[token] for token in tokens[:18])
        'zero one two three'
    """
    text = " ".join(map(number_words, range(numbers)))
    characters = "".join(sorted(set(text)))
    return np.array([characters.index(character) for character in text]), characters


def next_tokens(tokens: NDArray[np.int64], length: int) -> dict[str, NDArray[np.int64]]:
    """A text in windows that follow each other, each with what comes a token later.

    Args:
        tokens: (N,)
        length: Of a window.

    Returns:
        {"x": (windows, length), "y": the same, a token on}
    """
    windows = (len(tokens) - 1) // length
    x, y = tokens[: windows * length], tokens[1 : windows * length + 1]
    return {"x": x.reshape(windows, length), "y": y.reshape(windows, length)}
