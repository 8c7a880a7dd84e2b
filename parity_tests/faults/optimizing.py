"""Faults in what moves the parameters: hyper-parameters, optimizers, updates."""

import jax.numpy as jnp
import numpy as np

from faults.plants_anywhere import built, twin
from faults.plants_jax import (
    clipped_update,
    decayed_update,
    jax_adam,
    jax_update,
    no_bias_update,
    restarted_update,
    updates_times,
)
from faults.plants_torch import (
    at,
    delayed,
    hidden_momentum,
    in_torch_step,
    keep,
    params_by,
    state_by,
    torch_optimizer,
    update_at,
    update_twice,
)
from faults.table import ADAM, GROUPS, LINEAR, RELU, SELECTIVE, Spot, Table, times

WEIGHT = Spot(1, "params", "weight")
GRU = "gru.weight_ih_l0"

HYPER_PARAMETERS: Table = {
    ("torch", LINEAR, WEIGHT): {
        "learning rate 1e-9 off": torch_optimizer("SGD", lr=times(1 + 1e-9)),
        "learning rate 1e-12 off": torch_optimizer("SGD", lr=times(1 + 1e-12)),
        "ascent instead of descent": torch_optimizer("SGD", maximize=True),
        "weight decay slipped into SGD": torch_optimizer("SGD", weight_decay=1e-6),
    },
    ("torch", LINEAR, Spot(2, "params", "weight")): {  # the first update is by the right one
        "learning rate decays by 1e-6 an update": in_torch_step(
            end=lambda k, run: [
                g.update(lr=g["lr"] * (1 - 1e-6)) for g in run.optimizer.param_groups
            ]
        ),
    },
    ("jax", LINEAR, WEIGHT): {"weight decay slipped into JAX's SGD": jax_update(decayed_update)},
    ("torch", ADAM, WEIGHT): {
        "learning rate held in float32": torch_optimizer(
            "Adam", lr=lambda lr: float(np.float32(lr))
        ),
        "AdamW instead of Adam": torch_optimizer(
            "Adam", "AdamW"
        ),  # its decay passes the moments by
        "eps 1e-9 off": torch_optimizer("Adam", eps=times(1 + 1e-9)),
        "eps left out": torch_optimizer("Adam", eps=0.0),
    },
    ("torch", ADAM, Spot(1, "opt_state", "weight.exp_avg")): {
        "weight decay slipped into Adam's gradient": torch_optimizer("Adam", weight_decay=1e-6),
        "beta1 and beta2 swapped": torch_optimizer("Adam", betas=lambda betas: betas[::-1]),
        "beta1 off in its 12th digit": torch_optimizer(
            "Adam", betas=lambda betas: (betas[0] + 1e-12, betas[1])
        ),
    },
    ("torch", ADAM, Spot(1, "opt_state", "weight.exp_avg_sq")): {
        "beta2 off in its 12th digit": torch_optimizer(
            "Adam", betas=lambda betas: (betas[0], betas[1] + 1e-12)
        ),
    },
    ("jax", ADAM, WEIGHT): {
        "learning rate 1e-12 off in Adam": jax_update(updates_times(lambda state: 1 + 1e-12)),
    },
    ("torch", GROUPS, Spot(1, "params", GRU)): {
        "second parameter group with a learning rate of its own": built(
            lambda *parts: parts[2].param_groups[1].update(lr=0.02)
        ),
    },
}

OPTIMIZERS: Table = {
    ("jax", ADAM, WEIGHT): {
        "eps inside the root": jax_adam(inside=True),
        "bias correction left out": jax_adam(corrected=lambda beta, step: 1.0),
        "bias correction of the next step": jax_adam(
            corrected=lambda beta, step: 1 - beta ** (step + 1)
        ),
        # 1 - 0.5**1 is exact in float32, 1 - 0.9**1 is not
        "bias correction in float32": jax_adam(
            corrected=lambda beta, step: 1 - jnp.float32(beta) ** step
        ),
    },
    ("jax", ADAM, Spot(1, "opt_state", "weight.step")): {
        "steps counted from one too many": jax_adam(first_step=1),
    },
    ("jax", ADAM, Spot(1, "opt_state", "weight.exp_avg_sq")): {
        "second moment that starts above 0, as Adagrad's may": jax_adam(first_square=0.1),
    },
    ("jax", ADAM, Spot(5, "opt_state", "weight.step")): {
        "optimizer state lost before step 5 in JAX": jax_update(restarted_update),
    },
    ("torch", ADAM, Spot(5, "opt_state", "weight.step")): {
        "optimizer state lost before step 5": in_torch_step(
            start=at(5, lambda k, run: run.optimizer.state.clear())
        ),
    },
    ("torch", ADAM, Spot(5, "opt_state", "weight.exp_avg")): {
        "first moment lost before step 5": in_torch_step(
            start=at(5, state_by("exp_avg", times(0)))
        ),
    },
    ("torch", ADAM, Spot(None, "opt_state", "weight.max_exp_avg_sq")): {
        "AMSGrad slipped in": torch_optimizer("Adam", amsgrad=True),
    },
    ("torch", LINEAR, Spot(None, "opt_state", "weight.step")): {
        "Adam instead of SGD": torch_optimizer("SGD", "Adam"),
    },
    ("torch", LINEAR, Spot(None, "opt_state", "weight.momentum_buffer")): {
        "momentum slipped in": torch_optimizer("SGD", momentum=0.9),
    },
    ("torch", LINEAR, Spot(2, "params", "weight")): {  # there is no move before the first
        "momentum that no state shows": in_torch_step(update=hidden_momentum(1e-6)),
    },
    ("torch", GROUPS, Spot(None, "grads", GRU)): {
        "GRU not given to the optimizer": twin("selective_update", "build"),
    },
    ("torch", SELECTIVE, Spot(None, "grads", GRU)): {
        "GRU given to the optimizer that should not have it": twin("parameter_groups", "build"),
    },
    ("torch", SELECTIVE, Spot(1, "params", GRU)): {
        "GRU moved without an optimizer": in_torch_step(
            end=lambda k, run: [p.sub_(1e-3 * p.grad) for p in run.model.gru.parameters()]
        ),
    },
}

UPDATES: Table = {
    ("torch", LINEAR, WEIGHT): {
        "update made twice": in_torch_step(update=update_twice),
        "each update by the gradients of the step before": in_torch_step(update=delayed()),
        "parameters rounded to float32 after the update": in_torch_step(
            end=params_by(lambda p: p.float())
        ),
    },
    ("jax", LINEAR, WEIGHT): {
        "update made twice in JAX": jax_update(updates_times(lambda state: 2)),
        # what it was given is right
        "optimizer clips the gradients for itself": jax_update(clipped_update),
    },
    ("torch", LINEAR, Spot(5, "params", "weight")): {
        "update left out at step 5": in_torch_step(update=update_at(5, lambda k, run: None)),
    },
    ("torch", LINEAR, Spot(1, "params", "bias")): {
        "bias never updated": in_torch_step(update=keep("bias")),
    },
    ("jax", LINEAR, Spot(1, "params", "bias")): {
        "bias never updated in JAX": jax_update(no_bias_update),
    },
    ("torch", LINEAR, Spot(4, "loss", "loss")): {  # step 3 is recorded before
        "parameters touched before step 4": in_torch_step(start=at(4, params_by(times(1 + 1e-10)))),
    },
    ("torch", ADAM, Spot(4, "opt_state", "weight.step")): {
        "Adam's update made twice at step 4": in_torch_step(update=update_at(4, update_twice)),
    },
    ("torch", ADAM, WEIGHT): {
        "one entry of a weight never updated": in_torch_step(update=keep("weight", (0, 3))),
    },
    ("torch", RELU, Spot(3, "params", "layer2.bias")): {
        "one entry of a bias not updated at step 3": in_torch_step(
            update=update_at(3, keep("layer2.bias", 0))
        ),
    },
    ("jax", ADAM, Spot(5, "params", "weight")): {
        "update 1e-9 off from step 5 on, in JAX": jax_update(
            updates_times(lambda state: jnp.where(state.step >= 4, 1 + 1e-9, 1))
        ),
    },
}
