"""Draws made twice: by `TorchGenerator` and by PyTorch's global generator, and where they part.

One table lists the calls, each written for both. Not one bit may differ, except where
`ALLOWED_WITHOUT_AVX2` says why.
"""

import random
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, TensorDataset

from twinstep.problems import torch_init
from twinstep.problems.torch_loader import TorchDataLoader
from twinstep.problems.torch_random import TorchGenerator

Array = NDArray[Any]
Arrays = dict[str, Array]
Call = tuple[str, tuple[Any, ...]]  # a name in CALLS and its arguments

FUSED = torch.backends.cpu.get_cpu_capability() in ("AVX2", "AVX512")
DTYPES = {"float32": torch.float32, "float64": torch.float64}
REAL = {**DTYPES, "float16": torch.float16, "bfloat16": torch.bfloat16} if FUSED else DTYPES
NUMBERS = {**REAL, "complex64": torch.complex64, "complex128": torch.complex128}

# Float32 normals of 16 values or more go through PyTorch's vectorised log, sin and cos. Those of
# x86 with AVX2 are reproduced and nothing is allowed: 0 ulp, also over 419,430,400 values of 100
# other seeds. (NumPy's own float32 functions in their place are up to 5 ulp off.) Elsewhere PyTorch
# uses other ones; without AVX2 2.3e-6 was the largest difference in 12,582,912 values.
ALLOWED_WITHOUT_AVX2 = 5e-6


@dataclass(frozen=True)
class Twin:
    """One call on both sides; `arguments` makes random ones for it."""

    numpy: Callable[..., Any]
    torch: Callable[..., Any]
    arguments: Callable[[random.Random], tuple[Any, ...]]


def a_dtype(pick: random.Random, dtypes: Iterable[str] = DTYPES) -> str:
    return pick.choice(list(dtypes))


def a_shape(pick: random.Random) -> tuple[int, ...]:
    """0-d, empty, under 16 values, a few blocks of 16, or some hundreds."""
    kinds: list[tuple[int, ...]] = [(), (0,), (3, 0, 2), (pick.randint(1, 15),), (16,)]
    kinds += [(pick.randint(17, 70),), (pick.randint(1, 5), pick.randint(1, 5), pick.randint(1, 9))]
    return pick.choice([*kinds, (pick.randint(1, 30), pick.randint(1, 30))])


def some_bounds(pick: random.Random, dtype: str) -> tuple[float, float]:
    bound = pick.choice([1.0, 1e-3, 0.1, 1e4 if dtype == "float16" else 1e6]) * pick.random()
    near = (1 + bound) * (1 + 1e-6)  # float32 draws are often rounded to it
    ranges = [(-bound, bound), (bound, 3 * bound), (-5 * bound, 0.0), (bound, bound)]
    return pick.choice([*ranges, (1 + bound, near)])


def loader_order(n: int, batch_size: int, epochs: int) -> Array:
    """The samples of epochs of one loader, the last of them left after its first batch."""
    loader = DataLoader(TensorDataset(torch.arange(n)), batch_size=batch_size, shuffle=True)
    whole = [batch for _ in range(epochs - 1) for (batch,) in loader]
    return torch.cat([*whole, next(iter(loader))[0]]).numpy()


def our_loader_order(generator: TorchGenerator, n: int, batch_size: int, epochs: int) -> Array:
    loader = TorchDataLoader(n, batch_size, shuffle=True, default_generator=generator)
    whole = [batch for _ in range(epochs - 1) for batch in loader]
    return np.concatenate([*whole, next(iter(loader))])


def some_range(pick: random.Random) -> tuple[int, int]:
    """Also where one word is no longer enough, at 2**28, and where the sum wraps around."""
    spans = [pick.randint(1, 1000), 2**28 - 1, 2**28, 2**28 + 1, pick.randint(2**28, 2**63 - 1)]
    span = pick.choice(spans)
    low = pick.choice([0, -5, pick.randint(-(2**63), 2**63 - 1 - span)])
    return pick.choice([(low, low + span), (-(2**63), 2**63 - 1)])


def some_weights(seed: int, shape: tuple[int, ...], dtype: str) -> Array:
    """Positive ones, most of them: where more are drawn than are, PyTorch's order is not known."""
    return np.random.RandomState(seed).uniform(0.01, 1, shape).astype(dtype)


def some_choice(pick: random.Random) -> tuple[Any, ...]:
    """Arguments of multinomial."""
    categories, replacement = pick.randint(1, 60), pick.random() < 0.5
    shape = pick.choice([(categories,), (pick.randint(1, 4), categories)])
    count = pick.randint(1, 100 if replacement else categories)
    return pick.randrange(1000), shape, a_dtype(pick), count, replacement


def layer_params(make: Callable[[], torch.nn.Module], dtype: str) -> Arrays:
    """A layer's state_dict, constructed as a document does: in the default dtype."""
    torch.set_default_dtype(DTYPES[dtype])
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Initializing zero-element tensors is a no-op")
        return {name: tensor.numpy() for name, tensor in make().state_dict().items()}


def torch_state_back(seed: int, count: int) -> torch.Tensor:
    """Starts anew and draws."""
    torch.manual_seed(seed)
    torch.randn(count, dtype=torch.float32)
    return torch.get_rng_state()


def our_state_back(generator: TorchGenerator, seed: int, count: int) -> Array:
    """Continues from where PyTorch's generator is after that."""
    with torch.random.fork_rng(devices=[]):
        generator.set_state(torch_state_back(seed, count))
    return generator.get_state()


RECURRENT: Any = {1: torch.nn.RNN, 3: torch.nn.GRU, 4: torch.nn.LSTM}

CALLS = {
    "rand": Twin(
        lambda g, shape, dtype: g.rand(*shape, dtype=dtype),
        lambda shape, dtype: torch.rand(shape, dtype=NUMBERS[dtype]),
        lambda pick: (a_shape(pick), a_dtype(pick, NUMBERS)),
    ),
    "uniform": Twin(
        lambda g, shape, low, high, dtype: g.uniform(shape, low, high, dtype),
        lambda shape, low, high, dtype: (
            torch.empty(shape, dtype=NUMBERS[dtype]).uniform_(low, high)
        ),
        lambda pick: (a_shape(pick), *some_bounds(pick, dtype := a_dtype(pick, NUMBERS)), dtype),
    ),
    "randn": Twin(
        lambda g, shape, dtype: g.randn(*shape, dtype=dtype),
        lambda shape, dtype: torch.randn(shape, dtype=NUMBERS[dtype]),
        lambda pick: (a_shape(pick), a_dtype(pick, NUMBERS)),
    ),
    "normal": Twin(
        lambda g, shape, mean, std, dtype: g.normal(shape, mean, std, dtype),
        lambda shape, mean, std, dtype: torch.empty(shape, dtype=NUMBERS[dtype]).normal_(mean, std),
        lambda pick: (a_shape(pick), pick.choice([0.0, pick.uniform(-3, 3)]),
                      pick.choice([0.0, 0.02, pick.uniform(0, 5)]), a_dtype(pick, NUMBERS)),
    ),
    "exponential": Twin(
        lambda g, shape, lambd, dtype: g.exponential(shape, lambd, dtype),
        lambda shape, lambd, dtype: torch.empty(shape, dtype=REAL[dtype]).exponential_(lambd),
        lambda pick: (a_shape(pick), pick.choice([1.0, 2, 1e-6, pick.uniform(0.01, 9)]),
                      a_dtype(pick, REAL)),
    ),
    "randint": Twin(
        lambda g, low, high, shape: g.randint(low, high, shape),
        torch.randint,
        lambda pick: (*some_range(pick), a_shape(pick)),
    ),
    "random_": Twin(
        lambda g, low, high, shape: g.randint(low, high, shape).astype(np.int32),
        lambda low, high, shape: torch.empty(shape, dtype=torch.int32).random_(low, high),
        lambda pick: (-(2**31), pick.choice([-(2**31) + 2**28, 5, 2**31 - 1]), a_shape(pick)),
    ),
    "multinomial": Twin(
        lambda g, seed, shape, dtype, count, replacement: (
            g.multinomial(some_weights(seed, shape, dtype), count, replacement)
        ),
        lambda seed, shape, dtype, count, replacement: torch.multinomial(
            torch.tensor(some_weights(seed, shape, dtype)), count, replacement
        ),
        some_choice,
    ),
    "state there": Twin(
        lambda g: g.get_state(),
        torch.get_rng_state,
        lambda pick: (),
    ),
    "state back": Twin(
        our_state_back,
        torch_state_back,
        lambda pick: (pick.randrange(-9, 9), pick.choice([0, 1, 3, 400, 623, 624, 625, 1300])),
    ),
    "randperm": Twin(
        lambda g, n: g.randperm(n),
        torch.randperm,
        lambda pick: (pick.choice([0, 1, 2, pick.randint(3, 40), pick.randint(40, 900)]),),
    ),
    "random_int64": Twin(
        lambda g: np.array(g.random_int64()),
        lambda: torch.empty((), dtype=torch.int64).random_(),
        lambda pick: (),
    ),
    "loader": Twin(
        our_loader_order,
        loader_order,
        lambda pick: ((n := pick.randint(1, 60)), pick.randint(1, 20), 1 + n % 3),
    ),
    "linear": Twin(
        lambda g, i, o, bias, dtype: torch_init.linear(g, i, o, bias=bias, dtype=dtype),
        lambda i, o, bias, dtype: layer_params(lambda: torch.nn.Linear(i, o, bias), dtype),
        lambda pick: (pick.randint(0, 40), pick.randint(0, 30), pick.random() < 0.8, a_dtype(pick)),
    ),
    "embedding": Twin(
        lambda g, rows, width, dtype: torch_init.embedding(g, rows, width, dtype=dtype),
        lambda rows, width, dtype: layer_params(lambda: torch.nn.Embedding(rows, width), dtype),
        lambda pick: (pick.randint(1, 30), pick.randint(1, 20), a_dtype(pick)),
    ),
    "recurrent": Twin(
        lambda g, i, h, gates, dtype: torch_init.recurrent(g, i, h, gates=gates, dtype=dtype),
        lambda i, h, gates, dtype: layer_params(lambda: RECURRENT[gates](i, h), dtype),
        lambda pick: (pick.randint(1, 30), pick.randint(1, 20), pick.choice([1, 3, 4]),
                      a_dtype(pick)),
    ),
    "bernoulli": Twin(
        lambda g, shape, p, dtype: g.bernoulli(shape, p, dtype),
        lambda shape, p, dtype: torch.empty(shape, dtype=REAL[dtype]).bernoulli_(p),
        lambda pick: (a_shape(pick), pick.choice([0, 1, 0.5, pick.random()]), a_dtype(pick, REAL)),
    ),
    "dropout mask": Twin(
        lambda g, shape, q, dtype: g.bernoulli(shape, 1 - q, dtype) != 0,
        lambda shape, q, dtype: torch.nn.functional.dropout(
            torch.ones(shape, dtype=REAL[dtype]), q
        ).ne(0),
        # Not 0 and 1, for which PyTorch's dropout draws nothing.
        lambda pick: ((pick.randint(1, 99),), pick.uniform(0.01, 0.99), a_dtype(pick, REAL)),
    ),
}  # fmt: skip


def as_arrays(result: Any) -> Arrays:
    if isinstance(result, torch.Tensor):
        result = (result.float() if result.dtype == torch.bfloat16 else result).numpy()
    return result if isinstance(result, dict) else {"": result}


def difference(call: Call, ours: Array, theirs: Array) -> str | None:
    """None for the same dtype, shape and bits, else what differs."""
    if not isinstance(ours, np.ndarray):
        return f"not an array but {type(ours)}"
    if (ours.dtype, ours.shape) != (theirs.dtype, theirs.shape):
        return f"{ours.dtype} {ours.shape}, torch has {theirs.dtype} {theirs.shape}"
    if ours.tobytes() == theirs.tobytes():
        return None
    worst = np.abs(ours - theirs.astype(np.result_type(theirs, np.float64))).max()
    normal = call[0] in ("randn", "normal", "embedding") and ours.size >= 8
    vectorised = normal and ours.dtype in (np.float32, np.complex64)
    if vectorised and not FUSED and worst <= ALLOWED_WITHOUT_AVX2:
        return None
    return f"{(ours != theirs).sum()} of {ours.size} values, the worst by {worst:.3g}"


def parting(seed: int, calls: Sequence[Call], generator: type[TorchGenerator]) -> str | None:
    """The first call whose results differ, with what differs; None for the same throughout.

    The states at the end show that both sides have also used up equally much.
    """
    numpy_generator = generator(seed)
    torch.manual_seed(seed)
    for position, call in enumerate([*calls, ("state there", ())]):
        name, arguments = call
        ours = as_arrays(CALLS[name].numpy(numpy_generator, *arguments))
        theirs = as_arrays(CALLS[name].torch(*arguments))
        if list(ours) != list(theirs):
            return f"seed {seed}, call {position}, {call}: {list(ours)}, torch has {list(theirs)}"
        for key, array in ours.items():
            if (what := difference(call, array, theirs[key])) is not None:
                return f"seed {seed}, call {position}, {call} {key}: {what}"
    return None


def assert_same(seed: int, *calls: Call, generator: type[TorchGenerator] = TorchGenerator) -> None:
    where = parting(seed, calls, generator)
    assert where is None, where


def some_calls(seed: int, names: Sequence[str], count: int) -> list[Call]:
    pick = random.Random(seed)
    chosen = pick.choices(names, k=count)
    return [(name, CALLS[name].arguments(pick)) for name in chosen]
