"""Rows of docs/porting/layers.md: norms."""

import functools
from typing import Any

import jax.numpy as jnp
from flax import nnx
from helpers.kit_parity import Port
from helpers.layer_parity import Layer
from helpers.porting_layers import LayerPort, drawn, flax, last, second

from twinstep.jax.nn.rules import RULES

SIZES = {1: (5,), 2: (3, 4), 3: (2, 3, 2)}


def _buffers(layer: Any, count: int) -> dict[str, Any]:
    """Flax counts no batches."""
    return {
        "num_batches_tracked": jnp.asarray(count),
        "running_mean": layer.mean[...],
        "running_var": layer.var[...],
    }


def _batch_norm(m: Any, params: Any, x: Any, **options: Any) -> Any:
    layer = flax(nnx.BatchNorm, params, m.num_features, **options)
    # replaced: Flax's are float32 whatever the parameters are
    layer.mean = nnx.BatchStat(jnp.asarray(m.running_mean.numpy()))
    layer.var = nnx.BatchStat(jnp.asarray(m.running_var.numpy()))
    y = second(layer(last(x), use_running_average=not m.training))
    return y, _buffers(layer, int(m.training))


def _normalized(kind: Any, sizes: Any, m: Any, params: Any, x: Any, **options: Any) -> Any:
    return flax(kind, params, *sizes(m), **options)(x)


def _channels_last(kind: Any, sizes: Any, m: Any, params: Any, x: Any, **options: Any) -> Any:
    return second(_normalized(kind, sizes, m, params, last(x), **options))


def _features(m: Any) -> tuple[int, ...]:
    return (m.normalized_shape[-1],)


EXACT: dict[str, Any] = {"epsilon": 1e-5, "use_fast_variance": False}
NO_WEIGHTS: dict[str, Any] = {"use_scale": False, "use_bias": False}
_NONE_IN_TRAINING = "what Flax adds to the running variance is divided by N, PyTorch's by N - 1"
_EVALUATED = Port(
    "nnx.BatchNorm(C, use_running_average=True, epsilon=1e-5)(x)",
    functools.partial(_batch_norm, epsilon=1e-5),
    None,
    None,
    "the running statistics are float32 in Flax unless they are replaced",
)


def _batch_rows(rank: int, naive: Port) -> list[LayerPort]:
    x = drawn(4, 3, *SIZES[rank], seed=rank)
    return [
        LayerPort(Layer((3,), {}, (x,)), naive),
        LayerPort(Layer((3,), {}, (x,), training=False), _EVALUATED),
    ]


_BIASED = Port(
    None,
    None,
    "nnx.BatchNorm(C, momentum=0.9, use_fast_variance=False)(x)",
    functools.partial(_batch_norm, momentum=0.9, use_fast_variance=False),
    _NONE_IN_TRAINING,
)


def _local(m: Any, params: Any, x: Any, total: bool = False) -> Any:
    ends = [(0, 0), (0, 0), (m.size // 2, (m.size - 1) // 2)]
    near = nnx.avg_pool(last(x)[..., None] ** 2, (1, 1, m.size), padding=ends)[..., 0]
    near = near * m.size if total else near
    return second(last(x) / (m.k + m.alpha * near) ** m.beta)


_groups = functools.partial(_channels_last, nnx.GroupNorm, lambda m: (m.num_channels, m.num_groups))
_instances = functools.partial(
    _channels_last,
    nnx.InstanceNorm,
    lambda m: (m.num_features,),
    rules={nnx.InstanceNorm: RULES[nnx.GroupNorm]},
)
_layer = functools.partial(_normalized, nnx.LayerNorm, _features)
_rms = functools.partial(_normalized, nnx.RMSNorm, _features)

PORTS: dict[str, list[LayerPort]] = {
    "BatchNorm1d": _batch_rows(
        1,
        Port(
            None,
            None,
            "nnx.BatchNorm(C, momentum=0.1)(x)",
            functools.partial(_batch_norm, momentum=0.1),
            "Flax's momentum is 1 - PyTorch's: 0.9 here; " + _NONE_IN_TRAINING,
        ),
    ),
    "BatchNorm2d": _batch_rows(2, _BIASED),
    "BatchNorm3d": _batch_rows(
        3,
        Port(
            None,
            None,
            "nnx.BatchNorm(C)(x)",
            _batch_norm,
            "Flax's momentum is 0.99 by default, PyTorch's 0.1 is its 0.9; " + _NONE_IN_TRAINING,
        ),
    ),
    "SyncBatchNorm": [
        LayerPort(
            Layer((3,), {}, (drawn(4, 3, 5),)),
            _BIASED._replace(why=f"with axis_name over the devices; {_NONE_IN_TRAINING}"),
        )
    ],
    **{
        f"InstanceNorm{rank}d": [
            LayerPort(
                Layer((3,), {}, (drawn(2, 3, *sizes),)),
                Port(
                    "nnx.InstanceNorm(C, epsilon=1e-5, use_scale=False, use_bias=False, "
                    "use_fast_variance=False)(x)",
                    functools.partial(_instances, **EXACT, **NO_WEIGHTS),
                    "nnx.InstanceNorm(C)(x)",
                    _instances,
                    "Flax's epsilon is 1e-6, and it has weights; PyTorch's with affine=True alone",
                ),
            )
        ]
        for rank, sizes in SIZES.items()
    },
    "GroupNorm": [
        LayerPort(
            Layer((2, 4), {}, (drawn(2, 4, 3),)),
            Port(
                "nnx.GroupNorm(C, groups, epsilon=1e-5, use_fast_variance=False)(x)",
                functools.partial(_groups, **EXACT),
                "nnx.GroupNorm(C, groups)(x)",
                _groups,
                "Flax's epsilon is 1e-6; PyTorch has the groups first",
            ),
        ),
    ],
    "LayerNorm": [
        LayerPort(
            Layer((5,), {}, (drawn(3, 5),)),
            Port(
                "nnx.LayerNorm(D, epsilon=1e-5, use_fast_variance=False)(x)",
                functools.partial(_layer, **EXACT),
                "nnx.LayerNorm(D)(x)",
                _layer,
                "Flax's epsilon is 1e-6",
            ),
        ),
        LayerPort(
            Layer((5,), {"bias": False}, (drawn(3, 5) + 1000,)),
            Port(
                "nnx.LayerNorm(D, epsilon=1e-5, use_bias=False, use_fast_variance=False)(x)",
                functools.partial(_layer, use_bias=False, **EXACT),
                "nnx.LayerNorm(D, epsilon=1e-5, use_bias=False)(x)",
                functools.partial(_layer, use_bias=False, epsilon=1e-5),
                "use_fast_variance takes the mean's square off the mean square: in float32 "
                "nothing is left",
            ),
            "a mean of 1000",
        ),
    ],
    "RMSNorm": [
        LayerPort(
            Layer((5,), {}, (drawn(3, 5),)),
            Port(
                "nnx.RMSNorm(D, epsilon=jnp.finfo(x.dtype).eps)(x)",
                functools.partial(_rms, epsilon=float(jnp.finfo("float64").eps)),
                "nnx.RMSNorm(D)(x)",
                _rms,
                "Flax's epsilon is 1e-6; PyTorch's without eps is the dtype's machine epsilon",
            ),
        )
    ],
}
_LOCAL = Layer((3, 0.5), {}, (drawn(2, 5, 3, 2),))
_POOL = "nnx.avg_pool(x[..., None] ** 2, (1, 1, size), padding=[(0, 0), (0, 0), (a, b)])[..., 0]"
_NEAR = f"near = {_POOL}; x / (k + alpha * near) ** beta, a = size // 2, b = (size - 1) // 2"
PORTS["LocalResponseNorm"] = [
    LayerPort(
        _LOCAL,
        Port(
            _NEAR,
            _local,
            "near = size * nnx.avg_pool(...)[..., 0]; x / (k + alpha * near) ** beta",
            functools.partial(_local, total=True),
            "alpha multiplies the mean over the channels near, not their sum as in the paper",
        ),
    )
]
PORTS["CrossMapLRN2d"] = [
    LayerPort(
        _LOCAL,
        Port(
            None,
            None,
            _NEAR,
            _local,
            "that is LocalResponseNorm; here the first channel stays in every window, and the "
            "gradient's windows are others than the value's",
        ),
    )
]
