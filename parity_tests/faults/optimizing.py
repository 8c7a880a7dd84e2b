"""Faults in what moves the parameters: hyper-parameters, optimizers, updates."""

import jax.numpy as jnp
import numpy as np

from faults.plants_anywhere import twin
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
    decaying_rate,
    delayed,
    forget_first_moment,
    forget_state,
    hidden_momentum,
    in_torch_step,
    keep,
    move_gru,
    round_params,
    scale_params,
    torch_built,
    torch_optimizer,
    update_at,
    update_twice,
)
from faults.table import ADAM, GROUPS, LINEAR, RELU, SELECTIVE, Fault, found, structure, times

HYPER_PARAMETERS = [
    Fault(
        "learning rate 1e-9 off",
        "torch",
        LINEAR,
        torch_optimizer("SGD", lr=times(1 + 1e-9)),
        found(1, "params", "weight"),
    ),
    Fault(
        "learning rate 1e-12 off",
        "torch",
        LINEAR,
        torch_optimizer("SGD", lr=times(1 + 1e-12)),
        found(1, "params", "weight"),
    ),
    Fault(
        "learning rate 1e-12 off in Adam",
        "jax",
        ADAM,
        jax_update(updates_times(lambda state: 1 + 1e-12)),
        found(1, "params", "weight"),
    ),
    Fault(
        "learning rate held in float32",
        "torch",
        ADAM,
        torch_optimizer("Adam", lr=lambda lr: float(np.float32(lr))),
        found(1, "params", "weight"),
    ),
    Fault(
        "learning rate decays by 1e-6 an update",
        "torch",
        LINEAR,
        in_torch_step(update=decaying_rate(1 - 1e-6)),
        found(2, "params", "weight"),  # the first update is by the right one
    ),
    Fault(
        "ascent instead of descent",
        "torch",
        LINEAR,
        torch_optimizer("SGD", maximize=True),
        found(1, "params", "weight"),
    ),
    Fault(
        "weight decay slipped into SGD",
        "torch",
        LINEAR,
        torch_optimizer("SGD", weight_decay=1e-6),
        found(1, "params", "weight"),
    ),
    Fault(
        "weight decay slipped into JAX's SGD",
        "jax",
        LINEAR,
        jax_update(decayed_update),
        found(1, "params", "weight"),
    ),
    Fault(
        "weight decay slipped into Adam's gradient",
        "torch",
        ADAM,
        torch_optimizer("Adam", weight_decay=1e-6),
        found(1, "opt_state", "weight.exp_avg"),
    ),
    Fault(
        "AdamW instead of Adam",
        "torch",
        ADAM,
        torch_optimizer("Adam", "AdamW"),
        found(1, "params", "weight"),  # its weight decay passes the moments by
    ),
    Fault(
        "beta1 and beta2 swapped",
        "torch",
        ADAM,
        torch_optimizer("Adam", betas=lambda betas: betas[::-1]),
        found(1, "opt_state", "weight.exp_avg"),
    ),
    Fault(
        "beta1 off in its 12th digit",
        "torch",
        ADAM,
        torch_optimizer("Adam", betas=lambda betas: (betas[0] + 1e-12, betas[1])),
        found(1, "opt_state", "weight.exp_avg"),
    ),
    Fault(
        "beta2 off in its 12th digit",
        "torch",
        ADAM,
        torch_optimizer("Adam", betas=lambda betas: (betas[0], betas[1] + 1e-12)),
        found(1, "opt_state", "weight.exp_avg_sq"),
    ),
    Fault(
        "eps 1e-9 off",
        "torch",
        ADAM,
        torch_optimizer("Adam", eps=times(1 + 1e-9)),
        found(1, "params", "weight"),
    ),
    Fault(
        "eps left out",
        "torch",
        ADAM,
        torch_optimizer("Adam", eps=0.0),
        found(1, "params", "weight"),
    ),
    Fault(
        "second parameter group with a learning rate of its own",
        "torch",
        GROUPS,
        torch_built(lambda *parts: parts[2].param_groups[1].update(lr=0.02)),
        found(1, "params", "gru.weight_ih_l0"),
    ),
]


OPTIMIZERS = [
    Fault("eps inside the root", "jax", ADAM, jax_adam(inside=True), found(1, "params", "weight")),
    Fault(
        "bias correction left out",
        "jax",
        ADAM,
        jax_adam(corrected=lambda beta, step: 1.0),
        found(1, "params", "weight"),
    ),
    Fault(
        "bias correction of the next step",
        "jax",
        ADAM,
        jax_adam(corrected=lambda beta, step: 1 - beta ** (step + 1)),
        found(1, "params", "weight"),
    ),
    Fault(
        "bias correction in float32",
        "jax",
        ADAM,
        # 1 - 0.5**1 is exact in float32, 1 - 0.9**1 is not
        jax_adam(corrected=lambda beta, step: 1 - jnp.float32(beta) ** step),
        found(1, "params", "weight"),
    ),
    Fault(
        "steps counted from one too many",
        "jax",
        ADAM,
        jax_adam(first_step=1),
        found(1, "opt_state", "weight.step"),
    ),
    Fault(
        "second moment that starts above 0, as Adagrad's may",
        "jax",
        ADAM,
        jax_adam(first_square=0.1),
        found(1, "opt_state", "weight.exp_avg_sq"),
    ),
    Fault(
        "Adam instead of SGD",
        "torch",
        LINEAR,
        torch_optimizer("SGD", "Adam"),
        structure("opt_state", "weight.step"),
    ),
    Fault(
        "momentum slipped in",
        "torch",
        LINEAR,
        torch_optimizer("SGD", momentum=0.9),
        structure("opt_state", "weight.momentum_buffer"),
    ),
    Fault(
        "momentum that no state shows",
        "torch",
        LINEAR,
        in_torch_step(update=hidden_momentum(1e-6)),
        found(2, "params", "weight"),  # there is no move before the first
    ),
    Fault(
        "AMSGrad slipped in",
        "torch",
        ADAM,
        torch_optimizer("Adam", amsgrad=True),
        structure("opt_state", "weight.max_exp_avg_sq"),
    ),
    Fault(
        "optimizer state lost before step 5",
        "torch",
        ADAM,
        in_torch_step(start=at(5, forget_state)),
        found(5, "opt_state", "weight.step"),
    ),
    Fault(
        "optimizer state lost before step 5 in JAX",
        "jax",
        ADAM,
        jax_update(restarted_update),
        found(5, "opt_state", "weight.step"),
    ),
    Fault(
        "first moment lost before step 5",
        "torch",
        ADAM,
        in_torch_step(start=at(5, forget_first_moment)),
        found(5, "opt_state", "weight.exp_avg"),
    ),
    Fault(
        "GRU not given to the optimizer",
        "torch",
        GROUPS,
        twin("selective_update", "build"),
        structure("grads", "gru.weight_ih_l0"),
    ),
    Fault(
        "GRU given to the optimizer that should not have it",
        "torch",
        SELECTIVE,
        twin("parameter_groups", "build"),
        structure("grads", "gru.weight_ih_l0"),
    ),
    Fault(
        "GRU moved without an optimizer",
        "torch",
        SELECTIVE,
        in_torch_step(end=move_gru),
        found(1, "params", "gru.weight_ih_l0"),
    ),
]


UPDATES = [
    Fault(
        "update made twice",
        "torch",
        LINEAR,
        in_torch_step(update=update_twice),
        found(1, "params", "weight"),
    ),
    Fault(
        "update made twice in JAX",
        "jax",
        LINEAR,
        jax_update(updates_times(lambda state: 2)),
        found(1, "params", "weight"),
    ),
    Fault(
        "Adam's update made twice at step 4",
        "torch",
        ADAM,
        in_torch_step(update=update_at(4, update_twice)),
        found(4, "opt_state", "weight.step"),
    ),
    Fault(
        "update left out at step 5",
        "torch",
        LINEAR,
        in_torch_step(update=update_at(5, lambda k, run: None)),
        found(5, "params", "weight"),
    ),
    Fault(
        "each update by the gradients of the step before",
        "torch",
        LINEAR,
        in_torch_step(update=delayed()),
        found(1, "params", "weight"),
    ),
    Fault(
        "bias never updated",
        "torch",
        LINEAR,
        in_torch_step(update=keep("bias")),
        found(1, "params", "bias"),
    ),
    Fault(
        "bias never updated in JAX",
        "jax",
        LINEAR,
        jax_update(no_bias_update),
        found(1, "params", "bias"),
    ),
    Fault(
        "one entry of a weight never updated",
        "torch",
        ADAM,
        in_torch_step(update=keep("weight", (0, 3))),
        found(1, "params", "weight"),
    ),
    Fault(
        "one entry of a bias not updated at step 3",
        "torch",
        RELU,
        in_torch_step(update=update_at(3, keep("layer2.bias", 0))),
        found(3, "params", "layer2.bias"),
    ),
    Fault(
        "parameters rounded to float32 after the update",
        "torch",
        LINEAR,
        in_torch_step(end=round_params),
        found(1, "params", "weight"),
    ),
    Fault(
        "parameters touched before step 4",
        "torch",
        LINEAR,
        in_torch_step(start=at(4, scale_params(1 + 1e-10))),
        found(4, "loss", "loss"),  # step 3 is recorded before
    ),
    Fault(
        "update 1e-9 off from step 5 on, in JAX",
        "jax",
        ADAM,
        jax_update(updates_times(lambda state: jnp.where(state.step >= 4, 1 + 1e-9, 1))),
        found(5, "params", "weight"),
    ),
    Fault(
        "optimizer clips the gradients for itself",
        "jax",
        LINEAR,
        jax_update(clipped_update),
        found(1, "params", "weight"),  # what it was given is right
    ),
]
