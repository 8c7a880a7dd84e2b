"""torch.nn.functional's pools: calls of each, what is refused, and what JAX has for it.

Where entries are equal they are 0: any others would be moved apart when the rounding is measured.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from helpers.functional_convolution import drawn, whole
from helpers.kit_parity import Array, Case, Port

SIZES = {1: (9,), 2: (7, 6), 3: (5, 4, 6)}


def tied(*shape: int) -> Array:
    """A half of it, or more, is 0, and nothing is above."""
    return np.minimum(drawn(*shape, seed=3), 0) * (drawn(*shape, seed=4) > 0)


def odd(*shape: int) -> Array:
    """NaNs, infinities, a channel that is below every number."""
    x = drawn(*shape)
    x[0, 0].flat[[1, 2, 5]] = np.nan, np.nan, np.inf
    x[-1, -1] = -np.inf
    return x


def _max(rank: int) -> list[Case]:
    shape = (2, 2, *SIZES[rank])
    x = drawn(*shape)
    return [
        Case((tied(*shape), 3, 2, 1)),
        Case((x, (3, 2, 1)[:rank], (1, 2, 3)[:rank])),
        Case((x, 2), {"dilation": 3, "stride": 1}),
        Case((tied(*shape), 3, 2, 1, 2, True)),
        Case((x, 2, 3), {"ceil_mode": True}),
        Case((odd(*shape), 2)),
        Case((odd(*shape), 3, 1, 1)),
        Case((x[0], [2])),
        Case((x[:0], 2)),
        *([Case((whole(*shape), 2))] if rank > 1 else []),
    ]


def _max_errors(rank: int) -> list[Case]:
    x = drawn(2, 2, *SIZES[rank])
    return [
        Case((x, 3), {"padding": 2}),
        Case((x, 3), {"padding": -1}),
        Case((x, 0)),
        Case((x, 11)),
        Case((x, 2, 0)),
        Case((x, 2), {"dilation": 0}),
        Case((x[0, 0], 2)),
        Case((x[..., :0], 2)),
        Case((x, (2,) * (rank + 1))),
        Case((x > 0, 2)),
    ]


def _avg(rank: int) -> list[Case]:
    x = drawn(2, 2, *SIZES[rank])
    return [
        Case((x, 3, 2, 1)),
        Case((x, 3, 2, 1, True, False)),
        Case((x, 2, 3, 1, True)),
        Case((x, (3, 2, 1)[:rank], (1, 2, 3)[:rank])),
        *([Case((x, 2), {"divisor_override": -3})] if rank > 1 else []),
        Case((odd(2, 2, *SIZES[rank]), 2)),
        Case((x[0], [2])),
        Case((x[:0], 2)),
        Case((whole(2, 2, *SIZES[rank]).astype(np.int64) * 7, 2)),
    ]


def _avg_errors(rank: int) -> list[Case]:
    x = drawn(2, 2, *SIZES[rank])
    return [
        *([Case((x, 2), {"divisor_override": 0})] if rank > 1 else []),
        *[case for case in _max_errors(rank) if "dilation" not in case.kwargs][:-1],
    ]


def _lp(rank: int) -> list[Case]:
    x, zeros = drawn(2, 2, *SIZES[rank]), np.abs(drawn(2, 2, *SIZES[rank]))
    zeros[0] = 0
    return [
        Case((zeros, 2, 2)),
        Case((x, 3, 3, 2, True)),
        Case((zeros, 1.5, 2, 1)),
        Case((x, 1, 2)),
        Case((x[0], 2.0, 3 if rank == 1 else (2, 3, 1)[:rank])),
        Case((tied(2, 2, *SIZES[rank]), float("inf"), 2)),
        Case((x, -float("inf"), 2, None, True)),
        Case((zeros[1:] + 1, -2, 2)),
    ]


def _adaptive(rank: int) -> list[Case]:
    shape = (2, 2, *SIZES[rank])
    x = drawn(*shape)
    some = [Case((x, (None, 3, 2)[:rank]))] if rank > 1 else []
    return [
        Case((tied(*shape), (4, 3, 5)[:rank])),
        Case((x, 1)),
        Case((x, 3)),
        Case((x, 11)),
        Case((odd(*shape), 2)),
        Case((x[0], [2] * rank)),
        Case((x[:0], 2)),
        *some,
    ]


def _adaptive_errors(rank: int) -> list[Case]:
    x = drawn(2, 2, *SIZES[rank])
    return [
        Case((x[0, 0], 2)),
        Case((x[..., :0], 2)),
        Case((x, -1)),
        Case((x, None)),
        Case((x, (2,) * (rank + 1))),
        Case((whole(2, 2, *SIZES[rank]), 2)),
    ]


def _places(rank: int, kernel: int, stride: int, padding: int) -> tuple[Array, Array]:
    """Of a max pool, which may overlap; those of equal places are equal."""
    import torch

    pool = getattr(torch.nn.functional, f"max_pool{rank}d")
    values, places = pool(
        torch.tensor(drawn(2, 2, *SIZES[rank])), kernel, stride, padding, return_indices=True
    )
    return values.numpy(), places.numpy()


def _unpool(rank: int) -> list[Case]:
    # padding 1 and kernel 3: the size comes out as it was where it is odd
    simple, more = _places(rank, 2, 2, 0), _places(rank, 3, 1, 1)
    given = (2, 2, *SIZES[rank])
    return [
        Case((*simple, 2), {"output_size": given}),
        Case((*more, 3, 1, 1)),
        Case((*more, (3,) * rank, 1, 1), {"output_size": given[2:]}),
        Case((simple[0][0], simple[1][0], 2, 2, 0, SIZES[rank])),
        Case((simple[0][:0], simple[1][:0], 2, None, 0, SIZES[rank])),
    ]


def _unpool_errors(rank: int) -> list[Case]:
    values, places = _places(rank, 2, 2, 0)
    return [
        Case((values, places[..., :1], 2)),
        Case((values, places + 1000, 2)),
        Case((values, places - 1000, 2)),
        Case((values, places, 2), {"output_size": (100,) * rank}),
        Case((values, places, 2), {"output_size": (4,) * (rank + 1)}),
        Case((values, places.astype(float), 2)),
    ]


def _fractional(rank: int) -> list[Case]:
    shape = (2, 2, *SIZES[rank])
    draws = np.random.default_rng(5).uniform(size=(2, 2, rank))
    fixed = {"_random_samples": draws}
    cases = [
        Case((tied(*shape), 2, (3, 2, 4)[:rank]), fixed),
        Case((drawn(*shape), (2, 3, 1)[:rank], 1), fixed),
        Case((drawn(*shape), 2), {"output_ratio": (0.5, 0.7, 0.6)[:rank], **fixed}),
        Case((odd(*shape), 2, 2), fixed),
        Case((drawn(*shape)[0], 2, 2), {"_random_samples": draws[:1]}),
    ]
    return [case._replace(fixed=["1._random_samples"]) for case in cases]


def _fractional_errors(rank: int) -> list[Case]:
    x, draws = drawn(2, 2, *SIZES[rank]), np.full((2, 2, rank), 0.5)
    return [
        Case((x, 2), {"_random_samples": draws}),
        Case((x, 2, 9), {"_random_samples": draws}),
        Case((drawn(2, 2, *[5] * rank), 2, 4 if rank == 3 else 5), {"_random_samples": draws}),
        Case((x, 2, 2), {"_random_samples": draws[:1]}),
        Case((x, 2, 2), {"_random_samples": draws.astype("float32")}),
        Case((x[0, 0], 2, 2), {"_random_samples": draws}),
    ]


CASES: dict[str, list[Case]] = {}
ERRORS: dict[str, list[Case]] = {}
for _rank in SIZES:
    for _name, _cases, _errors in (
        ("max_pool", _max, _max_errors),
        ("adaptive_max_pool", _adaptive, _adaptive_errors),
        ("fractional_max_pool", _fractional, _fractional_errors),
    ):
        if _name == "fractional_max_pool" and _rank == 1:
            continue
        for _suffix in ("", "_with_indices"):
            CASES[f"{_name}{_rank}d{_suffix}"] = _cases(_rank)
            ERRORS[f"{_name}{_rank}d{_suffix}"] = _errors(_rank)
        _first = _cases(_rank)[0]
        CASES[f"{_name}{_rank}d"].append(
            _first._replace(kwargs={**_first.kwargs, "return_indices": True})
        )
    CASES[f"avg_pool{_rank}d"], ERRORS[f"avg_pool{_rank}d"] = _avg(_rank), _avg_errors(_rank)
    CASES[f"lp_pool{_rank}d"] = _lp(_rank)
    ERRORS[f"lp_pool{_rank}d"] = [
        Case((drawn(2, 2, *SIZES[_rank]), 2, 0)),
        Case((drawn(2, 2, *SIZES[_rank]), 2, 11)),
        Case((drawn(*SIZES[_rank]), 2, 2)),
    ]
    CASES[f"adaptive_avg_pool{_rank}d"] = _adaptive(_rank)
    ERRORS[f"adaptive_avg_pool{_rank}d"] = _adaptive_errors(_rank)
    CASES[f"max_unpool{_rank}d"] = _unpool(_rank)
    ERRORS[f"max_unpool{_rank}d"] = _unpool_errors(_rank)


def _nnx(pool: Callable[..., Any], rank: int, same: bool = False) -> Callable[..., jax.Array]:
    def call(x: Any, kernel: Any, stride: Any = None, padding: Any = 0, *_: Any) -> jax.Array:
        def each(value: Any) -> tuple[int, ...]:
            given = tuple(value) if isinstance(value, list | tuple) else (value,)
            return given * rank if len(given) == 1 else given

        edges = "SAME" if same else [(p, p) for p in each(padding)]
        steps = each(kernel if stride is None else stride)
        last = pool(jnp.moveaxis(x, 1, -1), each(kernel), steps, edges)
        return jnp.moveaxis(last, -1, 1)

    return call


def _norms(rank: int) -> Callable[..., jax.Array]:
    def call(x: Any, norm_type: float, kernel: int, *_: Any) -> jax.Array:
        total = _nnx(nnx.avg_pool, rank)(x**norm_type, kernel) * kernel**rank
        return total ** (1 / norm_type)

    return call


def _resized(x: Any, size: Any, *_: Any) -> jax.Array:
    spatial = (size,) * (x.ndim - 2) if isinstance(size, int) else tuple(size)
    return jax.image.resize(x, (*x.shape[:2], *spatial), "linear")


def _scattered(x: Any, places: Any, kernel: Any, *_: Any, output_size: Any) -> jax.Array:
    n, c, *spatial = output_size
    rows, columns = jnp.arange(n)[:, None, None], jnp.arange(c)[:, None]
    flat = jnp.zeros((n, c, int(np.prod(spatial))), x.dtype)
    return (
        flat.at[rows, columns, places.reshape(n, c, -1)]
        .set(x.reshape(n, c, -1))
        .reshape(output_size)
    )


PORTS: dict[str, Port] = {}
for _rank in SIZES:
    PORTS[f"max_pool{_rank}d"] = Port(
        "nnx.max_pool(x, kernel_size, stride, [(p, p)]), without dilation",
        _nnx(nnx.max_pool, _rank),
        'nnx.max_pool(x, kernel_size, stride, padding="SAME")',
        _nnx(nnx.max_pool, _rank, same=True),
        '"SAME" pads the end first; a stride of None is 1 in nnx',
    )
    PORTS[f"avg_pool{_rank}d"] = Port(
        "nnx.avg_pool(x, kernel_size, stride, [(p, p)])",
        _nnx(nnx.avg_pool, _rank),
        'nnx.avg_pool(x, kernel_size, stride, padding="SAME")',
        _nnx(nnx.avg_pool, _rank, same=True),
        '"SAME" pads the end first; a stride of None is 1 in nnx',
    )
    PORTS[f"lp_pool{_rank}d"] = Port(
        None,
        None,
        "(nnx.avg_pool(x**p, k, k) * k**d) ** (1 / p)",
        _norms(_rank),
        "its gradient is NaN where a window is all 0",
    )
    for _kind in ("avg", "max"):
        PORTS[f"adaptive_{_kind}_pool{_rank}d"] = Port(
            None,
            None,
            'jax.image.resize(x, shape, "linear")',
            _resized,
            "the windows have whole edges, and lengths that differ where the sizes do not divide",
        )
    PORTS[f"max_unpool{_rank}d"] = Port(
        "jnp.zeros((N, C, size)).at[n, c, indices].set(x), where no two places are one",
        _scattered,
        None,
        None,
        "of two values at one place PyTorch derives both",
    )
    for _name in ("max_pool", "adaptive_max_pool"):
        PORTS[f"{_name}{_rank}d_with_indices"] = Port(None, None)
for _rank in (2, 3):
    for _suffix in ("", "_with_indices"):
        PORTS[f"fractional_max_pool{_rank}d{_suffix}"] = Port(None, None)
