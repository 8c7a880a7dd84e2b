"""Other optimizers that a port may have taken, with their own defaults."""

from collections.abc import Mapping
from typing import Any

OTHERS: tuple[tuple[str, str, Mapping[str, Any]], ...] = (
    ("SGD", "sgd", {}),
    ("SGD with momentum", "sgd", {"momentum": 0.9}),
    ("SGD with Nesterov's momentum", "sgd", {"momentum": 0.9, "nesterov": True}),
    ("Adam", "adam", {}),
    ("optax's nadam", "adam", {"nesterov": True}),
    ("AMSGrad", "adam", {"amsgrad": "torch"}),
    ("NAdam", "nadam", {}),
    ("RAdam", "radam", {"eps_form": "before the correction"}),
    ("optax's radam", "radam", {"threshold": 5 - 1e-12, "eps_form": "outside"}),
    ("Adamax", "adamax", {}),
    ("Adadelta", "adadelta", {"eps": 1e-6}),
    ("Adagrad", "adagrad", {"eps": 1e-10, "eps_form": "outside"}),
    ("optax's adagrad", "adagrad", {"eps": 1e-7, "initial": 0.1, "eps_form": "inside the root"}),
    ("RMSprop", "rmsprop", {}),
    ("RMSprop", "rmsprop", {"alpha": 0.9}),
    ("optax's rmsprop", "rmsprop", {"alpha": 0.9, "eps_form": "inside the root"}),
    (
        "TensorFlow's RMSprop",
        "rmsprop",
        {"alpha": 0.9, "initial": 1.0, "eps_form": "inside the root"},
    ),
    ("Adafactor", "factored", {}),
    ("optax.adafactor", "factored", {"trust": "adafactor", "weight_decay": 0.0}),
    (
        "optax.lion",
        "lion",
        {"betas.0": 0.9, "betas.1": 0.99, "decay": "decoupled", "weight_decay": 1e-3},
    ),
    ("optax.adamw", "adam", {"decay": "decoupled", "weight_decay": 1e-4}),
    ("torch.optim.AdamW", "adam", {"decay": "decoupled", "weight_decay": 1e-2}),
    ("Lion", "lion", {"betas.0": 0.9, "betas.1": 0.99}),
    ("Lion", "lion", {}),
    ("sign SGD", "signed", {}),
    ("sign SGD with momentum", "signed", {"momentum": 0.9}),
    ("AdaBelief", "adam", {"variance": "belief", "eps": 1e-16, "eps_root": 1e-16}),
    ("AdaBelief", "adam", {"variance": "belief"}),
    ("Yogi", "yogi", {"initial": 1e-6, "eps": 1e-3}),
    ("Yogi", "yogi", {"initial": 1e-6}),
    ("LAMB", "adam", {"trust": "lamb", "eps": 1e-6}),
    ("LAMB", "adam", {"trust": "lamb"}),
    ("LARS", "sgd", {"trust": "lars", "lr_inside": True, "momentum": 0.9}),
    ("LARS", "sgd", {"trust": "lars", "lr_inside": True}),
    ("NovoGrad", "novograd", {"betas.1": 0.25, "eps": 1e-6, "decay": "inside"}),
    ("NovoGrad", "novograd", {"decay": "inside"}),
    ("Adan", "adan", {"eps_root": 1e-8}),
)
"""(name, core, the numbers and forms that differ from the core's)"""
