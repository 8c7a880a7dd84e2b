"""Faults of BatchNorm in conv_nnx: how it normalizes, and what it keeps."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from port.planting import Plant, where
from port.programs.conv_nnx import BatchNorm, ConvNet, stats_from_torch

plant = functools.partial(Plant, "conv_nnx")


def _model(norm: type[BatchNorm]) -> dict[str, Any]:
    return {"model": functools.partial(ConvNet, norm=norm)}


def _norm(
    keep: Callable[[Any, Any, Any, int], None] = BatchNorm.keep,
    axes: tuple[int, ...] = (0, 1, 2),
    eps: float = 1e-5,
    unbiased: bool = False,
    frozen: bool = False,
    stopped: bool = False,
    scaled: bool = True,
) -> dict[str, Any]:
    """BatchNorm with one thing wrong: what is kept, or how it normalizes."""

    class Wrong(BatchNorm):
        def __call__(self, x: jax.Array) -> jax.Array:
            mean, var = x.mean((0, 1, 2)), x.var((0, 1, 2))
            count = x.size // x.shape[-1]
            keep(self, mean, var, count)
            if axes != (0, 1, 2):
                mean, var = x.mean(axes, keepdims=True), x.var(axes, keepdims=True)
            if unbiased:
                var = var * count / (count - 1)
            if frozen:
                mean, var = self.mean[...], self.var[...]
            if stopped:
                mean, var = jax.lax.stop_gradient((mean, var))
            y = (x - mean) / jnp.sqrt(var + eps)
            return y * self.scale[...] + self.bias[...] if scaled else y + self.bias[...]

    return _model(Wrong)


def _keeps(weight: float, *, biased: bool = False, root: bool = False) -> Callable[..., None]:
    """What keeps statistics, the old ones by a weight."""

    def keep(norm: Any, mean: Any, var: Any, count: int) -> None:
        kept = var if biased else var * count / (count - 1)
        kept = jnp.sqrt(kept) if root else kept
        norm.mean[...] = weight * norm.mean[...] + (1 - weight) * mean
        norm.var[...] = weight * norm.var[...] + (1 - weight) * kept

    return keep


def _twice(norm: Any, mean: Any, var: Any, count: int) -> None:
    for _ in range(2):
        BatchNorm.keep(norm, mean, var, count)


class AfterActivation(BatchNorm):
    """Normalizes what the activation has left."""

    def __call__(self, x: jax.Array) -> jax.Array:
        return super().__call__(jax.nn.relu(x))


PLANTS = [
    plant("norm evaluates", "norm: in evaluation mode", "loss", 1, _norm(frozen=True)),
    plant("norm's momentum", "norm: momentum turned round", "buffers", 1, _norm(_keeps(0.1))),
    plant("norm's default", "norm: momentum .99", "buffers", 1, _norm(_keeps(0.99))),
    plant(
        "norm keeps biased",
        "norm: biased running variance",
        "buffers",
        1,
        _norm(_keeps(0.9, biased=True)),
    ),
    plant(
        "norm keeps deviation",
        "norm: running deviation",
        "buffers",
        1,
        _norm(_keeps(0.9, root=True)),
    ),
    plant(
        "norm keeps nothing", "norm: running statistics stay", "buffers", 1, _norm(lambda *_: None)
    ),
    plant("norm keeps twice", "norm: running statistics moved twice", "buffers", 1, _norm(_twice)),
    plant("norm unbiased", "norm: unbiased variance", "loss", 1, _norm(unbiased=True)),
    plant("norm's eps", "norm: eps", "loss", 1, _norm(eps=1e-3)),
    plant("norm of a sample", "norm: over each sample", "loss", 1, _norm(axes=(1, 2))),
    plant(
        "norm's statistics constant",
        "gradient: stopped at statistics",
        "raw_grads",
        1,
        _norm(stopped=True),
    ),
    # it is 1 at the start, so the loss is right
    plant("norm unscaled", "norm: no scale", "raw_grads", 1, _norm(scaled=False)),
    plant("norm after", "layers: norm after the activation", "loss", 1, _model(AfterActivation)),
    plant(
        "variance starts at 0",
        "start: buffers",
        "buffers",
        0,
        {"stats_from_torch": lambda given: where("var", np.zeros_like, stats_from_torch(given))},
    ),
]
