"""Faults of the rule where the right one is AdamW: in conv_nnx and in transformer_linen.

Both moments' averages are the gradient itself at step 1, whatever the betas: a wrong one is seen at
step 2.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from port import wrong_rules
from port.planting import Plant, where
from port.programs import conv_nnx, transformer_linen
from port.wrong_rules import Rule, adam_direction, at_step, by_direction, stateless, times_rate

Make = Callable[[optax.Schedule], Rule]


class AdamW(NamedTuple):
    """A port's optimizer."""

    port: str
    right: Make
    b1: float
    b2: float
    decay: float
    mask: Any

    def plant(self, name: str, kind: str, at: int, rule: Make, single: bool = True) -> Plant:
        """A row of a wrong rule, which is seen in an update."""
        return Plant(self.port, name, kind, "params", at, {"rule": rule}, single)

    def decayed(self, decay: float | None = None) -> Rule:
        """The link that decays weights."""
        return optax.add_decayed_weights(self.decay if decay is None else decay, self.mask)

    def by(self, link: Rule) -> Make:
        """AdamW with another link in Adam's place."""
        return lambda schedule: optax.chain(link, self.decayed(), times_rate(schedule))

    def adam(self) -> Rule:
        """Adam's link."""
        return optax.scale_by_adam(self.b1, self.b2)

    def with_(self, **changed: Any) -> Make:
        """optax's, with other settings."""
        right = {"b1": self.b1, "b2": self.b2, "weight_decay": self.decay, "mask": self.mask}
        return lambda schedule: optax.adamw(schedule, **(right | changed))

    def direction(self, **wrong: Any) -> Make:
        """AdamW in another direction."""
        direction = adam_direction(self.b1, self.b2, **wrong)
        return self.by(by_direction(direction, self.b1, self.b2))

    def then(self, change: Callable[[Any, Any], Any]) -> Make:
        """The right rule, its updates changed."""
        return lambda schedule: optax.chain(self.right(schedule), stateless(change))

    def only(self, name: str, factor: float) -> Make:
        """The right rule, the updates of some leaves by a factor."""
        return self.then(lambda updates, _: where(name, lambda u: factor * u, updates))


CONV = AdamW("conv_nnx", conv_nnx.adamw, 0.9, 0.999, 0.05, None)
TRANSFORMER = AdamW(
    "transformer_linen", transformer_linen.adamw, 0.9, 0.95, 0.1, transformer_linen.decayed
)


def _coupled(of: AdamW) -> Make:
    return lambda schedule: optax.chain(of.decayed(), of.adam(), times_rate(schedule))


def _decay_by_constant(of: AdamW, factor: float) -> Make:
    """Weights lose decay x factor, whatever the rate is then."""
    return lambda schedule: optax.chain(of.adam(), times_rate(schedule), of.decayed(-factor))


def _decay_last(of: AdamW) -> Make:
    """Decays what the update has left: off by a product of two small numbers."""

    def rule(schedule: optax.Schedule) -> Rule:
        moved = optax.chain(of.adam(), times_rate(schedule))

        def init(params: Any) -> Any:
            return moved.init(params), jnp.zeros((), jnp.int32)

        def update(grads: Any, state: Any, params: Any = None) -> Any:
            updates, inner = moved.update(grads, state[0], params)
            rate = schedule(state[1]) * of.decay

            def last(u: Any, p: Any) -> Any:
                return u - rate * (p + u)

            return jax.tree.map(last, updates, params), (inner, state[1] + 1)

        return Rule(init, update)

    return rule


def _shared(of: AdamW) -> list[Plant]:
    """Faults that both have."""
    return [
        of.plant("eps in the root", "rule: eps inside the root", 1, of.with_(eps=0, eps_root=1e-8)),
        of.plant(
            "no correction", "rule: no bias correction", 1, of.direction(first=False, second=False)
        ),
        of.plant(
            "eps before", "rule: eps before the bias correction", 1, of.direction(eps_before=True)
        ),
        of.plant("L2", "decay: coupled", 1, _coupled(of)),
        of.plant("no decay", "decay: none", 1, of.with_(weight_decay=0.0)),
        of.plant(
            "decay without rate", "decay: not times the rate", 1, _decay_by_constant(of, of.decay)
        ),
        of.plant("radam", "optimizer: RAdam", 1, of.by(optax.scale_by_radam(of.b1, of.b2))),
        # the largest of one is itself
        of.plant("amsgrad", "optimizer: AMSGrad", 2, of.by(optax.scale_by_amsgrad(of.b1, of.b2))),
        of.plant("lion", "optimizer: Lion", 1, of.by(optax.scale_by_lion())),
        of.plant("eps", "setting: eps", 1, of.with_(eps=3e-7)),
        of.plant("decay's size", "setting: weight decay", 1, of.with_(weight_decay=0.7 * of.decay)),
        of.plant(
            "rate's size", "setting: learning rate", 1, lambda s: of.right(lambda c: 1.07 * s(c))
        ),
        of.plant(
            "moments reset",
            "state: moments reset",
            7,
            lambda s: wrong_rules.moments_reset(of.right(s), 7),
        ),
        of.plant(
            "skipped", "state: an update lost", 5, lambda s: wrong_rules.skipped(of.right(s), 5)
        ),
    ]


def _of_conv(of: AdamW) -> list[Plant]:
    return [
        of.plant("first alone", "rule: second moment not corrected", 1, of.direction(second=False)),
        of.plant(
            "correction ahead", "rule: bias correction a step ahead", 1, of.direction(offset=1)
        ),
        of.plant("decay on kernels", "decay: not on biases", 1, of.with_(mask=_by_axes)),
        of.plant("decay of optax", "setting: weight decay", 1, of.with_(weight_decay=1e-4)),
        of.plant("decay last", "decay: after the update", 1, _decay_last(of)),
        of.plant("nadamw", "optimizer: NAdamW", 1, of.with_(nesterov=True)),
        # the very first step of both is the gradient by its modulus
        of.plant("adamax", "optimizer: Adamax", 2, of.by(optax.scale_by_adamax(of.b1, of.b2))),
        of.plant("rmsprop", "optimizer: RMSprop", 1, of.by(optax.scale_by_rms())),
        of.plant("adagrad", "optimizer: Adagrad", 1, of.by(optax.scale_by_rss())),
        of.plant("sgd", "optimizer: SGD", 1, of.by(optax.trace(0.9))),
        of.plant("b1", "setting: beta1", 2, of.with_(b1=0.85)),
        of.plant("b2", "setting: beta2", 2, of.with_(b2=0.98)),
        of.plant("betas swapped", "setting: betas swapped", 2, of.with_(b1=0.999, b2=0.9)),
        of.plant(
            "rate squared", "setting: learning rate", 1, lambda s: of.right(lambda c: s(c) ** 2)
        ),
        of.plant("conv1 frozen", "frozen: by the optimizer", 1, of.only("conv1", 0.0)),
        of.plant("norms frozen", "frozen: by the optimizer", 1, of.only("scale", 0.0)),
        of.plant(
            "rebuilt",
            "state: optimizer made anew",
            8,
            lambda s: wrong_rules.rebuilt(of.right(s), 8),
        ),
        of.plant(
            "rolled back",
            "state: parameters of a step before",
            9,
            lambda s: wrong_rules.rolled_back(of.right(s), 9),
        ),
        of.plant(
            "stale",
            "state: gradients of a step before",
            6,
            lambda s: wrong_rules.stale(of.right(s), 6),
        ),
    ]


def _by_axes(params: Any) -> Any:
    return jax.tree.map(lambda p: p.ndim >= 2, params)


def _inverted(params: Any) -> Any:
    return jax.tree.map(lambda decayed: not decayed, transformer_linen.decayed(params))


def _kernels(params: Any) -> Any:
    return jax.tree_util.tree_map_with_path(lambda path, _: path[-1].key == "kernel", params)


def _of_transformer(of: AdamW) -> list[Plant]:
    return [
        of.plant("second alone", "rule: first moment not corrected", 1, of.direction(first=False)),
        of.plant(
            "sums",
            "rule: moments are sums",
            1,
            of.by(by_direction(adam_direction(of.b1, of.b2), of.b1, of.b2, whole=True)),
        ),
        of.plant("eps a bound", "rule: eps as a lower bound", 1, of.direction(largest=True)),
        of.plant(
            "moments in bfloat16", "rule: moments in bfloat16", 2, of.with_(mu_dtype=jnp.bfloat16)
        ),
        of.plant("decay everywhere", "decay: on biases and norms", 1, of.with_(mask=None)),
        # q's, k's and v's have (heads, width) here
        of.plant("decay by axes", "decay: on some biases", 1, of.with_(mask=_by_axes)),
        of.plant("decay inverted", "decay: mask inverted", 1, of.with_(mask=_inverted)),
        of.plant("no decay of tables", "decay: not on embeddings", 1, of.with_(mask=_kernels)),
        # the warm-up has a quarter of the rate at step 1
        of.plant(
            "decay by the peak rate",
            "decay: not by the schedule",
            1,
            _decay_by_constant(of, of.decay * 2.0**-7),
        ),
        of.plant(
            "adabelief", "optimizer: AdaBelief", 1, of.by(optax.scale_by_belief(of.b1, of.b2))
        ),
        of.plant(
            "lamb",
            "optimizer: LAMB",
            1,
            lambda s: optax.chain(
                of.adam(), of.decayed(), optax.scale_by_trust_ratio(), times_rate(s)
            ),
        ),
        of.plant("yogi", "optimizer: Yogi", 1, of.by(optax.scale_by_yogi(of.b1, of.b2))),
        of.plant("adafactor", "optimizer: Adafactor", 1, of.by(optax.scale_by_factored_rms())),
        of.plant("b2", "setting: beta2", 2, of.with_(b2=0.999)),
        of.plant("b1", "setting: beta1", 2, of.with_(b1=0.87)),
        of.plant("tables slower", "setting: rate of some leaves", 1, of.only("embedding", 0.1)),
        of.plant(
            "upwards",
            "rule: ascends",
            1,
            of.then(lambda updates, _: jax.tree.map(jnp.negative, updates)),
        ),
        of.plant("tables frozen", "frozen: by the optimizer", 1, of.only("wpe", 0.0)),
        of.plant(
            "applied twice",
            "state: an update applied twice",
            4,
            lambda s: wrong_rules.applied_twice(of.right(s), 4),
        ),
        of.plant(
            "sign lost",
            "state: an update upwards",
            6,
            lambda s: at_step(
                of.right(s), 6, updates=lambda made, *_: jax.tree.map(jnp.negative, made)
            ),
        ),
        of.plant(
            "stale",
            "state: gradients of a step before",
            3,
            lambda s: wrong_rules.stale(of.right(s), 3),
        ),
    ]


PLANTS = [
    *_shared(CONV),
    *_shared(TRANSFORMER),
    *_of_conv(CONV),
    *_of_transformer(TRANSFORMER),
]
