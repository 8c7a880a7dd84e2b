"""Each known difference, planted in updates of torch, optax or NumPy, is named."""

from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers.planted_rules import (
    ADAM_BASE,
    ADAMW,
    CLIP,
    DECAY_MASK,
    LATE,
    LR,
    NO_CLIP,
    SGD,
    SGD_PLAIN,
    Base,
    adam_core,
    adamw,
    after_the_update,
    averaged_weights,
    clip,
    clip_leaves,
    clip_value,
    given_grads,
    in_float32,
    kinds,
    lookahead,
    moved,
    numpy_adam,
    optax_adamw,
    plain_optax,
    reset_adam,
    sgd,
    skipping,
    usual_root,
)
from helpers.planted_updates import (
    CONSTANT,
    COSINE,
    STEPPED,
    STEPS,
    Step,
    by_optax,
    by_torch,
)

from twinstep.port.causes.update_causes import causes_of
from twinstep.port.updates import Clipping

pytestmark = pytest.mark.usefixtures("torch_float64")

Case = tuple[Base, Callable[[], Step], set[str]]
CASES: dict[str, Case] = {
    # eps and bias corrections
    "eps inside": (
        NO_CLIP,
        lambda: optax_adamw(optax.scale_by_adam(eps=0, eps_root=1e-8)),
        {"eps inside the root"},
    ),
    "eps before": (
        NO_CLIP,
        lambda: numpy_adam(lambda v, c, eps: (np.sqrt(v) + eps) / np.sqrt(c)),
        {"eps added before the correction"},
    ),
    "eps root": (NO_CLIP, lambda: optax_adamw(optax.scale_by_adam(eps_root=1e-8)), {"eps_root"}),
    "eps root 3e-6": (
        NO_CLIP,
        lambda: optax_adamw(optax.scale_by_adam(eps_root=3e-6)),
        {"eps_root"},
    ),
    "no correction": (
        NO_CLIP,
        lambda: numpy_adam(usual_root, first=False, second=False),
        {"no bias correction"},
    ),
    "no first correction": (
        NO_CLIP,
        lambda: numpy_adam(usual_root, first=False),
        {"first moment's bias correction missing"},
    ),
    "no second correction": (
        NO_CLIP,
        lambda: numpy_adam(usual_root, second=False),
        {"second moment's bias correction missing"},
    ),
    "correction ahead": (
        NO_CLIP,
        lambda: numpy_adam(usual_root, ahead=1),
        {"bias correction one update ahead"},
    ),
    "amsgrad": (ADAMW, lambda: adamw(amsgrad=True), {"amsgrad added"}),
    "optax amsgrad": (
        NO_CLIP,
        lambda: optax_adamw(optax.scale_by_amsgrad()),
        {"amsgrad over corrected moments"},
    ),
    "nadamw": (
        NO_CLIP,
        lambda: optax_adamw(optax.scale_by_adam(nesterov=True)),
        {"nesterov added"},
    ),
    # decay
    "coupled": (ADAMW, lambda: adamw(rule="Adam"), {"coupled decay"}),
    "decoupled": (ADAM_BASE, lambda: by_torch("AdamW", COSINE, decay=0.01), {"decoupled decay"}),
    "decay of all": (
        NO_CLIP,
        lambda: by_optax(optax.adamw(LR, weight_decay=0.1)),
        {"decay on all leaves"},
    ),
    "decay of some": (
        NO_CLIP,
        lambda: by_optax(optax.adamw(LR, weight_decay=0.1, mask=DECAY_MASK | {"norm.bias": True})),
        {"decay added on leaves"},
    ),
    "decay of fewer": (
        NO_CLIP,
        lambda: by_optax(
            optax.adamw(LR, weight_decay=0.1, mask=DECAY_MASK | {"out.weight": False})
        ),
        {"decay missing on leaves"},
    ),
    "no decay": (ADAMW, lambda: adamw(decay=0.0), {"no decay"}),
    "unscaled": (
        NO_CLIP,
        lambda: by_optax(
            optax.chain(
                adam_core(),
                optax.scale_by_learning_rate(LR),
                optax.add_decayed_weights(-0.1, mask=DECAY_MASK),
            )
        ),
        {"decay not scaled by lr"},
    ),
    "unscheduled": (
        NO_CLIP,
        lambda: by_optax(
            optax.chain(
                adam_core(),
                optax.scale_by_learning_rate(LR),
                optax.add_decayed_weights(-0.1 * COSINE[0], mask=DECAY_MASK),
            )
        ),
        {"decay not scheduled"},
    ),
    "decay after": (
        NO_CLIP,
        lambda: moved(plain_optax(adam_core()), after_the_update),
        {"decay after the update"},
    ),
    "decay added": (ADAMW.but(decay=0.0), lambda: adamw(decay=0.03), {"decay of leaves"}),
    # momentum
    "nesterov": (SGD, lambda: sgd(nesterov=True), {"nesterov added"}),
    "no nesterov": (SGD.but(settings=SGD.settings | {"nesterov": 1.0}), sgd, {"nesterov missing"}),
    "dampening": (SGD, lambda: sgd(dampening=0.5), {"another dampening"}),
    "no dampening": (
        SGD.but(settings=SGD.settings | {"dampening": 0.5}),
        sgd,
        {"dampening missing"},
    ),
    "averaged": (
        SGD.but(decay=0.0),
        lambda: plain_optax(optax.ema(0.9, debias=False)),
        {"momentum averaged", "learning rate scaled", "gradients scaled"},
    ),
    "debiased": (
        SGD.but(decay=0.0),
        lambda: plain_optax(optax.ema(0.9)),
        {"momentum averaged and debiased"},
    ),
    "first buffer": (
        SGD.but(decay=0.0, settings=SGD.settings | {"dampening": 0.5}),
        lambda: plain_optax(optax.scale(0.5), optax.trace(0.9)),
        {"first buffer damped"},
    ),
    "lr inside": (
        SGD.but(decay=0.0),
        lambda: by_optax(optax.chain(optax.scale_by_learning_rate(LR), optax.trace(0.9))),
        {"lr inside the momentum"},
    ),
    "no momentum": (SGD, lambda: sgd(momentum=0.0), {"momentum missing"}),
    "momentum": (SGD_PLAIN, lambda: sgd(momentum=0.7), {"another momentum"}),
    "nesterov from none": (
        SGD_PLAIN,
        lambda: sgd(momentum=0.7, nesterov=True),
        {"nesterov momentum added"},
    ),
    # learning rates
    "late": (ADAMW, lambda: adamw(lr=LATE), {"schedule one update late"}),
    "early": (ADAMW, lambda: adamw(lr=COSINE[1:]), {"schedule one update early"}),
    "late steps": (
        ADAMW.but(lr=STEPPED),
        lambda: adamw(lr=np.r_[STEPPED[:1], STEPPED]),
        {"schedule one update late"},
    ),
    "unscheduled lr": (
        SGD,
        lambda: sgd(lr=np.full(STEPS, COSINE[0])),
        {"learning rate not scheduled"},
    ),
    "constant lr": (ADAMW, lambda: adamw(lr=CONSTANT), {"constant learning rate"}),
    "epochs": (ADAMW, lambda: adamw(lr=COSINE[np.arange(STEPS) // 4]), {"schedule by epoch"}),
    "held": (SGD, lambda: sgd(lr=COSINE[np.arange(STEPS) // 4 * 4]), {"schedule held"}),
    "other lr": (
        ADAMW,
        lambda: adamw(lr=np.random.default_rng(3).uniform(0.01, 0.1, STEPS)),
        {"another learning rate at each update"},
    ),
    "scaled lr": (ADAMW, lambda: adamw(lr=0.3 * COSINE), {"learning rate scaled"}),
    # clipping
    "no clip": (ADAMW, lambda: adamw(clip=None), {"no clipping"}),
    "by value": (
        ADAMW,
        lambda: adamw(clip=clip_value(0.1)),
        {"clipping by value; another clipping limit"},
    ),
    "value for norm": (
        ADAMW.but(clipping=Clipping("norm", 0.1)),
        lambda: adamw(clip=clip_value(0.1)),
        {"clipping by value"},
    ),
    "norm for value": (
        ADAMW.but(clipping=Clipping("value", 0.5)),
        lambda: adamw(clip=clip(0.5)),
        {"clipping by norm"},
    ),
    "by leaf": (
        ADAMW.but(clipping=Clipping("norm", 0.2)),
        lambda: adamw(clip=clip_leaves(0.2)),
        {"clipping by leaf"},
    ),
    "optax's clip": (
        ADAMW,
        lambda: optax_adamw(adam_core(), optax.clip_by_global_norm(1.0)),
        {"clipping without 1e-6"},
    ),
    "inf norm": (
        ADAMW.but(clipping=Clipping("norm", 0.1)),
        lambda: adamw(clip=clip(0.1, np.inf)),
        {"clipping by the inf-norm"},
    ),
    "update clipped": (
        NO_CLIP.but(clipping=Clipping("norm", 0.2)),
        lambda: by_optax(
            optax.chain(
                optax.adamw(LR, weight_decay=0.1, mask=DECAY_MASK), optax.clip_by_global_norm(0.2)
            )
        ),
        {"the update clipped"},
    ),
    "clip after decay": (
        SGD.but(decay=0.3, clipping=CLIP),
        lambda: plain_optax(
            optax.add_decayed_weights(0.3, mask=DECAY_MASK),
            optax.clip_by_global_norm(1.0),
            optax.trace(0.9),
        ),
        {"clipping without 1e-6; clipping after the decay"},
    ),
    "optax's clip added": (
        NO_CLIP,
        lambda: optax_adamw(adam_core(), optax.clip_by_global_norm(0.7)),
        {"clipping added"},
    ),
    "adaptive for norm": (
        ADAMW,
        lambda: optax_adamw(adam_core(), optax.adaptive_grad_clip(0.1)),
        {"adaptive clipping"},
    ),
    "clip added": (NO_CLIP, lambda: adamw(clip=clip(0.7)), {"clipping added"}),
    # gradients
    "summed": (
        SGD.but(passes=4),
        lambda: given_grads(sgd(), lambda g: {k: 4 * v for k, v in g.items()}),
        {"gradients summed"},
    ),
    "sign": (ADAMW, lambda: adamw(maximize=True), {"other sign"}),
    "scaled": (
        ADAMW,
        lambda: given_grads(adamw(), lambda g: {k: 0.05 * v for k, v in g.items()}),
        {"gradients scaled"},
    ),
    # state
    "reset": (NO_CLIP.but(decay=0.0), lambda: reset_adam(5), {"state reset"}),
    "skipped": (NO_CLIP, lambda: skipping(adamw(clip=None), 5), {"update skipped"}),
    "not applied": (
        ADAMW,
        lambda: adamw(lr=np.where(np.arange(STEPS + 1) == 5, 0, COSINE)),
        {"update not applied"},
    ),
    "applied twice": (
        NO_CLIP,
        lambda: moved(
            optax_adamw(adam_core()),
            lambda t, name, was, leaf: 2 * leaf - was if t == 5 else leaf,
        ),
        {"one update scaled"},
    ),
    "averaged weights": (
        SGD_PLAIN.but(decay=0.0),
        lambda: averaged_weights(0.9),
        {"averaged parameters stored"},
    ),
    "lookahead": (NO_CLIP, lambda: lookahead(optax_adamw(adam_core()), 5, 0.5), {"Lookahead"}),
    "moment in float16": (
        NO_CLIP,
        lambda: optax_adamw(optax.scale_by_adam(mu_dtype="float16")),
        {"moments in another dtype"},
    ),
    "momentum in bfloat16": (
        SGD.but(decay=0.0),
        lambda: by_optax(optax.sgd(LR, 0.9, accumulator_dtype=jnp.bfloat16)),
        {"moments in another dtype"},
    ),
    "params clipped": (
        NO_CLIP,
        lambda: moved(
            optax_adamw(adam_core()), lambda t, name, was, leaf: np.clip(leaf, -0.8, 0.8)
        ),
        {"parameters clipped"},
    ),
    # leaves
    "frozen": (
        NO_CLIP,
        lambda: moved(
            optax_adamw(adam_core()), lambda t, name, was, leaf: was if name == "in.bias" else leaf
        ),
        {"leaves frozen"},
    ),
    "leaves' lr": (
        NO_CLIP,
        lambda: moved(
            optax_adamw(adam_core()),
            lambda t, name, was, leaf: was + 3 * (leaf - was) if "norm" in name else leaf,
        ),
        {"learning rate of leaves"},
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_difference_is_named(case: str) -> None:
    base, make, expected = CASES[case]
    assert kinds(base.made(make())) == expected


@pytest.mark.parametrize("case", ["amsgrad", "coupled", "no clip", "late", "nesterov", "frozen"])
def test_difference_is_named_in_float32(case: str) -> None:
    base, make, expected = CASES[case]
    assert expected <= {cause.kind for cause in causes_of(*in_float32(base.made(make())))}
