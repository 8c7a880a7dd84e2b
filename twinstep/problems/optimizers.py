"""torch.optim, row by row: one small network, trained by each optimizer with each of its options.

The rows are those of PyTorch's own optimizer tests, and each option once more at a value that shows
it: an eps of 1e-8 hides in float64. Muon and SparseAdam, which do not take any network, have a
training of their own.
"""

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from twinstep.device_config import Dtype
from twinstep.errors import InputError, nearest
from twinstep.extras import installed
from twinstep.problems.base import Arrays, Document, Spec
from twinstep.problems.torch_init import embedding, linear
from twinstep.problems.torch_random import TorchGenerator

Options = Mapping[str, Any]

SAMPLES, BATCH, STEPS = 512, 32, 200
WIDTHS = (8, 16, 16, 3)
TABLE = (64, 8)

_DECAY: Options = {"weight_decay": 0.1}
_PROBE_ADAM: Options = {"lr": 0.01, "betas": (0.8, 0.9), "eps": 1e-2, "weight_decay": 1.0}

CONFIGURATIONS: dict[str, list[Options]] = {
    "Adadelta": [
        {},
        {"lr": 0.01},
        _DECAY,
        {"maximize": True},
        {**_DECAY, "maximize": True},
        {"rho": 0.95, "weight_decay": 0.9},
        {"rho": 0.5, "eps": 1e-2, "weight_decay": 1.0},
    ],
    "Adafactor": [
        {},
        {**_DECAY, "lr": 0.01},
        {**_DECAY, "maximize": True},
        {"beta2_decay": -1.0},
        {"d": 1.5},
        {"lr": 0.1, "beta2_decay": -0.3, "eps": (1e-2, 1e-1), "d": 2.0, "weight_decay": 1.0},
    ],
    "Adagrad": [
        {},
        _DECAY,
        {**_DECAY, "maximize": True},
        {"lr": 0.1},
        {"initial_accumulator_value": 0.1, **_DECAY},
        {"lr": 0.1, "lr_decay": 0.5, **_DECAY},
        {"lr": 0.1, "lr_decay": 0.1, "weight_decay": 1.0, "eps": 1e-2},
    ],
    "Adam": [
        {},
        {"lr": 0.01},
        _DECAY,
        {**_DECAY, "maximize": True},
        {**_DECAY, "amsgrad": True},
        _PROBE_ADAM,
        {**_PROBE_ADAM, "amsgrad": True},
        {**_PROBE_ADAM, "decoupled_weight_decay": True},
    ],
    "AdamW": [
        {},
        {"lr": 0.01},
        _DECAY,
        {**_DECAY, "maximize": True},
        {**_DECAY, "amsgrad": True},
        _PROBE_ADAM,
    ],
    "Adamax": [
        {},
        {"lr": 0.1},
        _DECAY,
        {"maximize": True},
        {**_DECAY, "maximize": True},
        _PROBE_ADAM,
    ],
    "ASGD": [
        {},
        {"lambd": 0.1},
        {"lr": 0.02},
        {"t0": 100},
        {"maximize": True},
        _DECAY,
        {**_DECAY, "maximize": True},
        {"lr": 0.05, "lambd": 0.5, "alpha": 0.5, "t0": 10, "weight_decay": 1.0},
    ],
    "Muon": [
        {},
        # an iteration makes 3.4 times as much of what those before it rounded, and the rate carries
        # that on: at lr=0.01 all 5 of them round by 2 times what the gate allows, 3 by a quarter
        {"lr": 0.01, "ns_steps": 3},
        {"weight_decay": 0.2},
        {"momentum": 0.8},
        {"ns_steps": 6},
        {"ns_coefficients": (3.4, -4.7, 2.0)},
        {"nesterov": False},
        {"lr": 0.01, "adjust_lr_fn": "match_rms_adamw", "eps": 0.5},
        {"lr": 0.01, "adjust_lr_fn": "spectral_unclamped", "eps": 0.5},
        {
            "lr": 0.05,
            "momentum": 0.5,
            "nesterov": False,
            "weight_decay": 1.0,
            "eps": 0.5,
            "ns_steps": 3,
        },
    ],
    "NAdam": [
        {},
        {"lr": 1e-3},
        {"momentum_decay": 6e-3},
        _DECAY,
        {**_DECAY, "momentum_decay": 6e-3},
        {**_DECAY, "momentum_decay": 6e-3, "decoupled_weight_decay": True},
        {**_DECAY, "maximize": True},
        {**_PROBE_ADAM, "momentum_decay": 0.5},
    ],
    "RAdam": [
        {},
        {"lr": 2e-3},
        {"eps": 1e-6},
        _DECAY,
        {**_DECAY, "decoupled_weight_decay": True},
        {**_DECAY, "maximize": True},
        {**_PROBE_ADAM, "betas": (0.8, 0.99)},
    ],
    "RMSprop": [
        {},
        {"lr": 1e-3},
        _DECAY,
        {"maximize": True},
        {**_DECAY, "centered": True},
        {**_DECAY, "maximize": True},
        {**_DECAY, "centered": True, "momentum": 0.1},
        {**_DECAY, "centered": True, "momentum": 0.1, "maximize": True},
        {"alpha": 0.5, "eps": 1e-2, "momentum": 0.9, "weight_decay": 1.0},
    ],
    "Rprop": [
        {},
        {"lr": 2e-4},
        {"etas": (0.5, 1.5)},
        {"step_sizes": (2e-6, 100)},
        {"maximize": True},
        {"lr": 0.1, "etas": (0.3, 1.1), "step_sizes": (1e-3, 0.15)},
    ],
    "SGD": [
        {},
        {"lr": 1e-2},
        {"momentum": 0.9},
        {"momentum": 0.9, "dampening": 0.5},
        {"weight_decay": 0.5},
        {"momentum": 0.9, **_DECAY},
        {"momentum": 0.9, "nesterov": True, **_DECAY},
        {**_DECAY, "maximize": True},
        {"lr": 0.05, "momentum": 0.5, "dampening": 0.3, "weight_decay": 1.0},
    ],
    "SparseAdam": [
        {},
        {"lr": 0.01},
        {"maximize": True},
        {"lr": 0.05, "betas": (0.8, 0.9), "eps": 1e-2},
    ],
}
"""{class of torch.optim: its options, row by row}"""

_NEWER = {"LBFGS": ("lbfgs.py", "maximize"), "Muon": ("_muon.py", "spectral_unclamped")}
"""{class of torch.optim: its file, and the option, or an option's value, that is new in 2.15}"""


def in_installed_torch(optimizer: str, options: Options) -> bool:
    """Whether the installed PyTorch has these options: its source is read, so that nothing is
    loaded. Without PyTorch all are there.
    """
    file, word = _NEWER.get(optimizer, ("", ""))
    if word not in options and word not in options.values():
        return True
    torch = importlib.util.find_spec("torch") if installed("torch") else None
    if torch is None or torch.origin is None:
        return True
    return word in (Path(torch.origin).parent / "optim" / file).read_text(encoding="utf-8")


@dataclass(frozen=True, kw_only=True)
class OptimizerTraining(Spec):
    """8-16-16-3, tanh, MSE, shuffled batches of 32; random samples, nothing to learn but rounding.

    With maximize=True the loss is minus the MSE, so that what is made large is bounded.
    """

    implementation: ClassVar[str] = "optimizer_training"
    table: ClassVar[str | None] = "optimizers"
    document: ClassVar[Document] = Document("torch.optim", "torch.optim", "Algorithms")
    model: ClassVar[str] = "Linear(8, 16), tanh, Linear(16, 16), tanh, Linear(16, 3)"
    objective: ClassVar[str] = "MSE"
    update: ClassVar[str] = "as in the row"
    bias: ClassVar[bool] = True

    steps: int | None = STEPS
    """Updates to make."""
    optimizer: str = "SGD"
    """A class of torch.optim."""
    options: Options = field(default_factory=dict)
    """Its keyword arguments."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.optimizer not in self.known():
            known = nearest(self.optimizer, self.known())
            raise InputError(f"optimizer is {self.optimizer!r}, {known}")
        object.__setattr__(self, "options", dict(self.options))

    @classmethod
    def known(cls) -> list[str]:
        """The classes of torch.optim that are tried on this."""
        return [name for name in CONFIGURATIONS if training_of(name) is cls]

    @property
    def name(self) -> str:  # type: ignore[override]  # a row's own, where an example has its class's
        """The call that makes the optimizer."""
        options = ", ".join(f"{name}={value}" for name, value in self.options.items())
        return f"{self.optimizer}({options})"

    def draw_params(self, generator: TorchGenerator) -> Arrays:
        params: dict[str, np.ndarray] = {}
        for i, (inputs, outputs) in enumerate(pairwise(WIDTHS), start=1):
            layer = linear(generator, inputs, outputs, bias=self.bias, dtype=self.dtype)
            params |= {f"layer{i}.{name}": array for name, array in layer.items()}
        return params

    def draw(self, generator: TorchGenerator) -> tuple[Arrays, Arrays]:
        params = self.draw_params(generator)
        x = generator.randn(SAMPLES, WIDTHS[0], dtype=self.dtype)
        return params, {"x": x, "y": generator.randn(SAMPLES, WIDTHS[-1], dtype=self.dtype)}

    @property
    def maximize(self) -> bool:
        """Whether the optimizer makes the loss large."""
        return bool(self.options.get("maximize"))

    @property
    def _batch_size(self) -> int | None:
        return BATCH

    @property
    def _shuffle(self) -> bool:
        return True


@dataclass(frozen=True, kw_only=True)
class MatrixTraining(OptimizerTraining):
    """The same without biases: Muon takes matrices alone.

    PyTorch's iterates in bfloat16, whatever the dtype. A product's float32 sums, in another order,
    are an ulp off, and now and then that decides which way to round to bfloat16's 8 bits. Measured
    with bfloat16=True on a CPU, float64, 200 steps: in each of the rows some steps alone are off by
    1e10 or 1e11 times what the gate allows, the first of them between step 1 and step 136. So that
    rounding is taken out of both sides.
    """

    implementation: ClassVar[str] = "matrix_training"
    model: ClassVar[str] = f"{OptimizerTraining.model}, no biases"
    bias: ClassVar[bool] = False

    optimizer: str = "Muon"
    """Muon."""
    bfloat16: bool = False
    """Iterate in bfloat16, as PyTorch's Muon does; else in the run's dtype, in both frameworks."""

    @property
    def name(self) -> str:  # type: ignore[override]  # a row's own, as above
        """The call that makes the optimizer, and what is taken out of it."""
        return super().name if self.bfloat16 else f"{super().name}, not rounded to bfloat16"


@dataclass(frozen=True, kw_only=True)
class SparseTraining(OptimizerTraining):
    """An embedding table with sparse gradients, for SparseAdam, which takes no others.

    Batches of 32 row numbers, low ones often and several times in a batch, high ones rarely.
    """

    implementation: ClassVar[str] = "sparse_training"
    model: ClassVar[str] = "Embedding(64, 8), tanh"

    optimizer: str = "SparseAdam"
    """SparseAdam."""

    def draw_params(self, generator: TorchGenerator) -> Arrays:
        layer = embedding(generator, *TABLE, dtype=self.dtype)
        return {f"embedding.{name}": array for name, array in layer.items()}

    def draw(self, generator: TorchGenerator) -> tuple[Arrays, Arrays]:
        params = self.draw_params(generator)
        rows, width = TABLE
        low = generator.rand(SAMPLES, dtype=self.dtype) ** 3  # the last row about once in 200
        x = (rows * low).astype(np.int64)
        return params, {"x": x, "y": generator.randn(SAMPLES, width, dtype=self.dtype)}


def training_of(optimizer: str) -> type[OptimizerTraining]:
    """What a class of torch.optim is tried on."""
    kinds = {"Muon": MatrixTraining, "SparseAdam": SparseTraining}
    return kinds.get(optimizer, OptimizerTraining)


def rows(
    seed: int = 0, dtype: Dtype = "float64", steps: int | None = None
) -> list[OptimizerTraining]:
    """Every row, of these seed, dtype and steps."""
    return [
        training_of(optimizer)(
            optimizer=optimizer, options=options, seed=seed, dtype=dtype, steps=steps or STEPS
        )
        for optimizer, configurations in CONFIGURATIONS.items()
        for options in configurations
        if in_installed_torch(optimizer, options)
    ]
