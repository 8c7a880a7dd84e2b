"""How long it takes to tell which leaf is which: a transformer of 10 million parameters.

Its q, k and v are fused in PyTorch and apart in the port, (in, heads, size) each; in float32, drawn
uniformly as `nn.Linear` does, so that many of its numbers are equal.

    python benchmarks/matching.py
"""

import sys
import time
from collections.abc import Callable

import numpy as np

from twinstep.port.mapping import Mapping
from twinstep.port.matching import Match, match

WIDTH, HEADS, LAYERS, VOCABULARY = 384, 6, 5, 3000
REPEATS = 5
Arrays = dict[str, np.ndarray]


def of_torch() -> Arrays:
    """The parameters by PyTorch's names; about 10 million."""
    draws = np.random.default_rng(0)

    def uniform(*shape: int) -> np.ndarray:  # 24 random bits each, as PyTorch takes
        bits = draws.integers(2**24, size=shape)
        return ((bits * 2.0**-23 - 1) / np.sqrt(shape[-1])).astype("float32")

    made = {"wte.weight": draws.standard_normal((VOCABULARY, WIDTH)).astype("float32")}
    for i in range(LAYERS):
        for name, rows, columns in (
            ("qkv", 3 * WIDTH, WIDTH),
            ("proj", WIDTH, WIDTH),
            ("fc", 4 * WIDTH, WIDTH),
            ("out", WIDTH, 4 * WIDTH),
        ):
            made[f"{i}.{name}.weight"] = uniform(rows, columns)
            made[f"{i}.{name}.bias"] = uniform(rows)
    return made


def converted(named: Arrays) -> Arrays:
    """The port's leaves of them."""
    heads = HEADS, WIDTH // HEADS
    made = {"wte.embedding": named["wte.weight"]}
    for i in range(LAYERS):
        for name in ("proj", "fc", "out"):
            made[f"{i}.{name}.kernel"] = named[f"{i}.{name}.weight"].T
            made[f"{i}.{name}.bias"] = named[f"{i}.{name}.bias"]
        made[f"{i}.proj.kernel"] = made[f"{i}.proj.kernel"].reshape(*heads, WIDTH)
        weights = np.split(named[f"{i}.qkv.weight"], 3)
        biases = np.split(named[f"{i}.qkv.bias"], 3)
        for letter, weight, bias in zip("qkv", weights, biases, strict=True):
            made[f"{i}.{letter}.kernel"] = weight.T.reshape(WIDTH, *heads)
            made[f"{i}.{letter}.bias"] = bias.reshape(heads)
    return {name: np.ascontiguousarray(array) for name, array in made.items()}


def seconds(work: Callable[[], object]) -> list[float]:
    """What each of some calls took, from the shortest on."""
    took = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        work()
        took.append(time.perf_counter() - start)
    return sorted(took)


def told(what: str, took: list[float]) -> None:
    """A line of it."""
    print(f"{what}: {took[len(took) // 2]:.2f} s ({took[0]:.2f} to {took[-1]:.2f})")


def main() -> int:
    """Takes the figures."""
    theirs = of_torch()
    ours = converted(theirs)
    entries = sum(array.size for array in theirs.values())
    found: list[Match] = []
    took = seconds(lambda: found.append(match(theirs, ours)))
    print(f"{entries} parameters: {found[0].lines()[0]}")
    mapping: Mapping = found[0].mapping
    told("match", took)
    told("to_jax", seconds(lambda: mapping.to_jax(theirs)))
    told("to_torch", seconds(lambda: mapping.to_torch(ours)))
    upper = np.uint32(0xFFFF0000)  # the bits that bfloat16 has
    short = {name: (array.view("u4") & upper).view("f4") for name, array in theirs.items()}
    told("match, of 16 bits a number", seconds(lambda: match(short, converted(short))))
    back = mapping.to_torch(ours)
    exact = all(np.array_equal(back[name], array) for name, array in theirs.items())
    print(f"there and back exact: {exact}")
    return 0 if found[0].complete and exact else 1


if __name__ == "__main__":
    sys.exit(main())
