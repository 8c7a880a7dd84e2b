"""torch.nn.functional's pad, resampling and grids: calls, refusals, and what JAX has."""

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from helpers.functional_convolution import drawn, whole
from helpers.kit_parity import Array, Case, Port

X = {1: drawn(2, 2, 7), 2: drawn(2, 2, 7, 5), 3: drawn(1, 2, 4, 5, 3)}
IMAGE = X[2]


def _pads() -> Iterator[Case]:
    x = drawn(2, 3, 5, 6)
    yield Case((x, (1, 2, 3, 0), "reflect"))
    yield Case((x, (1, 2, -1, 0, 0, 3)), {"value": 2.5})
    yield Case((x, ()))
    yield Case((x[0, 0, 0], [2, -3], "constant", float("-inf")))
    yield Case((whole(2, 3), (1, 1)), {"value": 1.7})
    yield Case((drawn(2, 3)[:0], (1, 1, 2, 0)))
    for mode in ("reflect", "replicate", "circular"):
        yield Case((x, (1, 2, 3, 0), mode))
        yield Case((x, (1, -2, -1, 2), mode))
        yield Case((x[0], (4, 1), mode))
        yield Case((x[0, 0], (2, -1), mode))
        yield Case((x, (2, 1, 0, 1, -1, 1), mode))
        yield Case((drawn(1, 2, 3, 4, 5), (2, 1, 0, 1, 1, 0), mode))
        yield Case((x[:0], (1, 2, 3, 0), mode))
    yield Case((x, (9, 8, 7, 6), "replicate"))


def _modes(rank: int) -> tuple[str, ...]:
    smooth = {1: ("linear",), 2: ("bilinear", "bicubic"), 3: ("trilinear",)}[rank]
    return ("nearest", "nearest-exact", "area", *smooth)


def _interpolations() -> Iterator[Case]:
    yield Case((IMAGE, (11, 8)), {"mode": "bilinear"})
    for rank, x in X.items():
        for mode in _modes(rank):
            yield Case((x, 3), {"mode": mode})
            yield Case((x, (9, 5, 7)[:rank]), {"mode": mode})
            yield Case((x,), {"scale_factor": 1.7, "mode": mode})
            yield Case(
                (x,),
                {
                    "scale_factor": (1.7, 0.6, 2)[:rank],
                    "mode": mode,
                    "recompute_scale_factor": True,
                },
            )
            if "linear" in mode or "cubic" in mode:
                yield Case((x, 1), {"mode": mode, "align_corners": True})
                yield Case((x, 9), {"mode": mode, "align_corners": True})
    for mode in ("bilinear", "bicubic", "lanczos"):
        yield Case((IMAGE, (3, 5)), {"mode": mode, "antialias": True})
        yield Case((IMAGE, 12), {"mode": mode, "antialias": True})
        yield Case((IMAGE,), {"scale_factor": (0.45, 1.3), "mode": mode, "antialias": True})
    yield Case((IMAGE, 3), {"mode": "bicubic", "antialias": True, "align_corners": True})
    yield Case((IMAGE[:0], 3), {"mode": "bilinear"})
    yield Case((np.abs(whole(1, 2, 3, 4)).astype(np.uint8), 5))
    infinite = IMAGE.copy()
    infinite[0, 0, 2, 2] = np.inf
    for mode in _modes(2):
        yield Case((infinite, (9, 5)), {"mode": mode})


INTERPOLATION_ERRORS = [
    Case((IMAGE,)),
    Case((IMAGE, 3, 2.0)),
    Case((IMAGE, (3, 3, 3))),
    Case((IMAGE, None, (2.0, 2.0, 2.0))),
    Case((IMAGE, 0)),
    Case((IMAGE, 2.5)),
    Case((X[1], 3, None, "bilinear")),
    Case((IMAGE, 3, None, "linear")),
    Case((IMAGE, 3, None, "trilinear")),
    Case((IMAGE, 3, None, "sharp")),
    Case((IMAGE, 3, None, "nearest", True)),
    Case((IMAGE[0], 3, None, "bilinear")),
    Case((IMAGE[:, :, :0], 3)),
    Case((IMAGE[0, 0], 3)),
    Case((whole(1, 1, 2, 2), 3, None, "bilinear")),
]


def _grids(rank: int) -> dict[str, Array]:
    """Inside; far outside; at the pixels' centres and edges, where the sampling has its kinks."""
    spread = {2: (2, 3, 4), 3: (1, 2, 3, 2)}[rank]
    grids = {
        "inside": drawn(*spread, rank, seed=5) / 3,
        "outside": drawn(*spread, rank, seed=6) * 2,
    }
    if rank == 2:
        edges = np.array([[-1, 1.0], [1, -1], [0, 0], [-1.4, 1.4], [3, -3], [1.4, 0.6]])
        grids["edges"] = np.stack([edges, -edges]).reshape(2, 1, 6, 2)
    return grids


def _samples() -> Iterator[Case]:
    yield Case((IMAGE, _grids(2)["outside"]), {"align_corners": False})
    for rank in (2, 3):
        for grid in _grids(rank).values():
            for mode in ("bilinear", "nearest", "bicubic")[: 5 - rank]:
                for padding in ("zeros", "border", "reflection"):
                    for align in (False, True):
                        yield Case((X[rank], grid, mode, padding, align))
    yield Case((IMAGE[:0], _grids(2)["inside"][:0]), {"align_corners": False})


THETA = {2: drawn(2, 2, 3), 3: drawn(2, 3, 4)}
CASES: dict[str, list[Case]] = {
    "pad": list(_pads()),
    "interpolate": list(_interpolations()),
    "upsample": [
        Case((IMAGE, (11, 8), None, "bilinear")),
        Case((IMAGE, None, 2)),
        Case((IMAGE, 3, None, "bicubic", True)),
    ],
    "upsample_nearest": [
        Case((IMAGE,), {"scale_factor": 2}),
        Case((IMAGE, (9, 3))),
        Case((X[1], 4)),
    ],
    "upsample_bilinear": [Case((IMAGE, (9, 3))), Case((IMAGE, None, 2))],
    "grid_sample": list(_samples()),
    "affine_grid": [
        Case((THETA[2], (2, 1, 3, 4), False)),
        Case((THETA[2], [2, 3, 4, 5], True)),
        Case((THETA[3], (2, 1, 3, 4, 2), False)),
        Case((THETA[3], (2, 1, 3, 4, 2), True)),
        Case((THETA[2], (2, 1, 3, 1), False)),
    ],
}
ERRORS: dict[str, list[Case]] = {
    "pad": [
        Case((IMAGE, (1,))),
        Case((IMAGE, (1,) * 10)),
        Case((IMAGE, (1, 1), "mirror")),
        Case((IMAGE, (1, 1), "reflect")),
        Case((IMAGE, (5, 0, 0, 0), "reflect")),
        Case((IMAGE, (6, 0, 0, 0), "circular")),
        Case((IMAGE, (1, 1, 1, 1), "reflect", 2.0)),
        Case((IMAGE, (-3, -3))),
        Case((IMAGE, (-3, -3, 0, 0), "replicate")),
        Case((IMAGE, (-3, -3, 0, 0), "circular")),
    ],
    "interpolate": [
        *INTERPOLATION_ERRORS,
        Case((IMAGE, 3), {"recompute_scale_factor": True}),
        Case((IMAGE, 3), {"antialias": True}),
        Case((X[1], 3), {"mode": "linear", "antialias": True}),
        Case((IMAGE, 3), {"mode": "lanczos"}),
        Case((IMAGE, 3), {"mode": "lanczos", "antialias": True, "align_corners": True}),
    ],
    "upsample": INTERPOLATION_ERRORS,
    "upsample_nearest": INTERPOLATION_ERRORS[:6],
    "upsample_bilinear": [*INTERPOLATION_ERRORS[:6], Case((X[1], 3))],
    "grid_sample": [
        Case((IMAGE, _grids(2)["inside"], "linear", "zeros", False)),
        Case((IMAGE, _grids(2)["inside"], "bilinear", "wrap", False)),
        Case((X[3], _grids(3)["inside"], "bicubic", "zeros", False)),
        Case((IMAGE, _grids(2)["inside"][:1], "bilinear", "zeros", False)),
        Case((IMAGE, _grids(3)["inside"], "bilinear", "zeros", False)),
        Case((IMAGE, _grids(2)["inside"].astype("float32"), "bilinear", "zeros", False)),
        Case((IMAGE[:, :, :0], _grids(2)["inside"], "bilinear", "zeros", False)),
        Case((X[1], _grids(2)["inside"], "bilinear", "zeros", False)),
    ],
    "affine_grid": [
        Case((THETA[2], (2, 1, 3), False)),
        Case((THETA[2], (2, 1, 3, 4, 5), False)),
        Case((THETA[2], (3, 1, 3, 4), False)),
        Case((THETA[2], (2, 1, 0, 4), False)),
        Case((whole(2, 2, 3), (2, 1, 3, 4), False)),
    ],
}


def _padded(x: Any, pad: Any, mode: str = "constant", symmetric: bool = False) -> jax.Array:
    (left, right, top, bottom) = pad
    widths = [(0, 0), (0, 0), (top, bottom), (left, right)]
    return jnp.pad(x, widths, "symmetric" if symmetric else mode)


def _resized(x: Any, size: Any = None, *_: Any, antialias: bool = False, **__: Any) -> jax.Array:
    spatial = (size,) * (x.ndim - 2) if isinstance(size, int) else size or x.shape[2:]
    return jax.image.resize(x, (*x.shape[:2], *spatial), "linear", antialias=antialias)


def _repeated(x: Any, scale_factor: int) -> jax.Array:
    return jnp.repeat(jnp.repeat(x, scale_factor, 2), scale_factor, 3)


def _nearest(x: Any, size: Any = None, scale_factor: int = 1) -> jax.Array:
    spatial = [n * scale_factor for n in x.shape[2:]] if size is None else [size] * (x.ndim - 2)
    spatial = list(size) if isinstance(size, tuple) else spatial
    return jax.image.resize(x, (*x.shape[:2], *spatial), "nearest")


def _mapped(x: Any, grid: Any, *_: Any, align_corners: bool = False, xy: bool = True) -> jax.Array:
    height, width = x.shape[2:]
    first, second = (grid[..., 1], grid[..., 0]) if xy else (grid[..., 0], grid[..., 1])
    rows, columns = ((first + 1) * height - 1) / 2, ((second + 1) * width - 1) / 2

    def one(image: Any, rows: Any, columns: Any) -> jax.Array:
        return jax.scipy.ndimage.map_coordinates(image, [rows, columns], order=1)

    return jax.vmap(jax.vmap(one, (0, None, None)))(x, rows, columns)


def _corners(theta: Any, size: Any, align_corners: bool) -> jax.Array:
    y, x = jnp.meshgrid(*(jnp.linspace(-1, 1, n) for n in size[2:]), indexing="ij")
    places = jnp.stack([x, y, jnp.ones_like(x)], -1)
    return jnp.einsum("hwi,noi->nhwo", places, theta)


_RESIZE = Port(
    'jax.image.resize(x, shape, "linear", antialias=False)',
    _resized,
    'jax.image.resize(x, shape, "linear")',
    lambda x, *args, **kwargs: _resized(x, *args, **kwargs, antialias=True),
    "JAX's resize looks at all of a larger input unless told not to; its cubic is another",
)
PORTS: dict[str, Port] = {
    "pad": Port(
        'jnp.pad(x, [(0, 0), (0, 0), (top, bottom), (left, right)], mode="reflect")',
        _padded,
        'jnp.pad(..., mode="symmetric")',
        lambda x, pad, *_, **__: _padded(x, (*pad, 0, 0, 0, 0)[:4], symmetric=True),
        "the last axis comes first; reflect, edge and wrap are reflect, replicate and circular",
    ),
    "interpolate": _RESIZE,
    "upsample": _RESIZE,
    "upsample_nearest": Port(
        "jnp.repeat(jnp.repeat(x, factor, 2), factor, 3)",
        _repeated,
        'jax.image.resize(x, shape, "nearest")',
        _nearest,
        'that is "nearest-exact": it goes by the pixels\' centres, PyTorch\'s "nearest" by edges',
    ),
    "upsample_bilinear": Port(
        None,
        None,
        'jax.image.resize(x, shape, "linear")',
        lambda x, size, *_: _resized(x, size or [2 * n for n in x.shape[2:]]),
        "PyTorch's keeps the corners' centres where they are (align_corners)",
    ),
    "grid_sample": Port(
        "map_coordinates(image, [y, x], order=1) of jax.scipy, with y = ((y + 1) * H - 1) / 2",
        _mapped,
        "the same with [x, y]",
        lambda *args, **kwargs: _mapped(*args[:2], xy=False),
        "a grid has x first",
    ),
    "affine_grid": Port(
        None,
        None,
        "jnp.linspace(-1, 1, n) as the places on each axis",
        _corners,
        "that is align_corners=True",
    ),
}
