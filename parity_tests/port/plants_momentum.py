"""Faults of the rule in gru_dicts, where the right one is SGD with Nesterov's momentum."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from port import wrong_rules
from port.planting import Plant, where
from port.programs.gru_dicts import sgd
from port.wrong_rules import Rule, momentum_by, stateless, times_rate

plant = functools.partial(Plant, "gru_dicts")
Make = Callable[[optax.Schedule], Rule]


def _by(rule: Make, name: str, kind: str, at: int = 1, single: bool = True) -> Plant:
    return plant(name, kind, "params", at, {"rule": rule}, single)


def _momentum(buffer: Callable[[Any, Any, Any], Any], used: Callable[[Any, Any], Any]) -> Make:
    return lambda schedule: optax.chain(
        optax.add_decayed_weights(1e-2), momentum_by(buffer, used), times_rate(schedule)
    )


def _settings(
    momentum: float = 0.9, nesterov: bool = True, decay: float = 1e-2, mask: Any = None
) -> Make:
    return lambda schedule: optax.chain(
        optax.add_decayed_weights(decay, mask), optax.sgd(schedule, momentum, nesterov)
    )


def _decoupled(schedule: optax.Schedule) -> Rule:
    links = optax.trace(0.9, nesterov=True), optax.add_decayed_weights(1e-2), times_rate(schedule)
    return optax.chain(*links)


def _rate_first(schedule: optax.Schedule) -> Rule:
    """Multiplies by the rate before the momentum, which then remembers old rates."""
    links = optax.add_decayed_weights(1e-2), times_rate(schedule), optax.trace(0.9, nesterov=True)
    return optax.chain(*links)


def _instead(link: Rule) -> Make:
    return lambda schedule: optax.chain(optax.add_decayed_weights(1e-2), link, times_rate(schedule))


def _then(change: Callable[[Any, Any], Any]) -> Make:
    return lambda schedule: optax.chain(sgd(schedule), stateless(change))


def _kernels(params: Any) -> Any:
    return jax.tree_util.tree_map_with_path(lambda path, _: path[-1].key.startswith("w"), params)


def _nesterov(g: Any, b: Any) -> Any:
    return g + 0.9 * b


PLANTS = [
    _by(_settings(nesterov=False), "plain momentum", "rule: not Nesterov's"),
    _by(_settings(momentum=0.0), "no momentum", "rule: no momentum"),
    # PyTorch's dampening begins with the second gradient
    _by(
        _momentum(lambda b, g, t: 0.9 * b + jnp.where(t == 0, 1.0, 0.9) * g, _nesterov),
        "dampened",
        "rule: dampening",
        2,
    ),
    _by(
        _momentum(lambda b, g, t: 0.9 * b + 0.1 * g, _nesterov),
        "averaged",
        "rule: momentum is an average",
    ),
    _by(
        _momentum(lambda b, g, t: 0.9 * b + g, lambda g, b: 0.9 * (g + 0.9 * b)),
        "Nesterov's scaled",
        "rule: Nesterov's otherwise",
    ),
    _by(_settings(momentum=0.87), "momentum's size", "setting: momentum"),
    _by(_settings(decay=1e-3), "decay's size", "setting: weight decay"),
    _by(_settings(decay=0.0), "no decay", "decay: none"),
    _by(_settings(mask=_kernels), "decay on kernels", "decay: not on biases"),
    _by(_decoupled, "decay after momentum", "decay: decoupled"),
    # as long as the rate stays it is the same
    _by(_rate_first, "rate first", "rule: rate inside the momentum", 6),
    _by(lambda s: sgd(lambda count: 1.05 * s(count)), "rate's size", "setting: learning rate"),
    _by(_instead(optax.scale_by_adam()), "adam", "optimizer: Adam"),
    _by(_instead(optax.scale_by_rms()), "rmsprop", "optimizer: RMSprop"),
    _by(_instead(optax.scale_by_rss()), "adagrad", "optimizer: Adagrad"),
    _by(_instead(optax.scale_by_sign()), "signs", "optimizer: signs"),
    _by(
        _then(lambda updates, _: where("head", jnp.zeros_like, updates)),
        "head frozen",
        "frozen: by the optimizer",
    ),
    _by(
        _then(lambda updates, _: where("['b", lambda u: 2 * u, updates)),
        "biases faster",
        "setting: rate of some leaves",
    ),
    _by(
        _then(
            lambda updates, params: jax.tree.map(
                lambda u, p: jnp.clip(p + u, -0.3, 0.3) - p, updates, params
            )
        ),
        "weights clipped",
        "rule: weights clipped",
    ),
    _by(
        lambda s: optax.chain(optax.clip_by_global_norm(0.25), sgd(s)),
        "clipped",
        "clip: one too many",
    ),
    _by(
        lambda s: wrong_rules.moments_reset(sgd(s), 7), "momentum reset", "state: moments reset", 7
    ),
    _by(lambda s: wrong_rules.skipped(sgd(s), 5), "skipped", "state: an update lost", 5),
    _by(
        lambda s: wrong_rules.rolled_back(sgd(s), 8),
        "rolled back",
        "state: parameters of a step before",
        8,
    ),
]
