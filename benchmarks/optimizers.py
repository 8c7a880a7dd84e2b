"""What our optimizers cost beside optax's nearest: `python benchmarks/optimizers.py`.

A scan of 1,000 updates of one million parameters in float32, compiled; the gradient is what is left
to a target, so that nearly all of the time is the optimizer's. The two sides take turns.
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import optax

from twinstep.bench import markdown
from twinstep.bench.timing import Spread, interleaved, ratios, spread, timed
from twinstep.cli.parsing import parse
from twinstep.jax.optim import adam, adamw, rmsprop, sgd
from twinstep.runs import launch

launch.set_up_xla()  # as users train

README = Path(__file__).parent / "README.md"
START, END = "<!-- optimizers -->", "<!-- /optimizers -->"
PARAMETERS, UPDATES = 1_000_000, 1_000
ASKED = 1.05

PAIRS: dict[str, tuple[optax.GradientTransformation, optax.GradientTransformation]] = {
    "adam": (adam(1e-3), optax.adam(1e-3)),
    "adamw": (adamw(1e-3), optax.adamw(1e-3, weight_decay=1e-2)),
    "sgd, momentum 0.9": (sgd(1e-3, momentum=0.9), optax.sgd(1e-3, momentum=0.9)),
    "rmsprop": (rmsprop(1e-3), optax.rmsprop(1e-3, decay=0.99, eps=1e-8, eps_in_sqrt=False)),
}
"""{name: (ours, optax's nearest)}"""


@dataclass(frozen=True)
class Options:
    """How long to look."""

    repeats: int = 9
    """Turns that each side gets."""
    updates: int = UPDATES
    """Updates a call."""


def call_of(optimizer: optax.GradientTransformation, updates: int) -> Callable[[], Any]:
    """A call of the compiled scan, from the same start each time."""

    @jax.jit
    def run(params: jax.Array, target: jax.Array) -> jax.Array:
        def step(carry: Any, _: None) -> tuple[Any, None]:
            params, state = carry
            changes, state = optimizer.update(params - target, state, params)
            return (optax.apply_updates(params, changes), state), None

        (params, _), _ = jax.lax.scan(step, (params, optimizer.init(params)), length=updates)
        return params

    start, target = jnp.zeros(PARAMETERS), jnp.linspace(-1.0, 1.0, PARAMETERS)
    return lambda: run(start, target).block_until_ready()


def take(options: Options) -> dict[str, tuple[Spread, Spread, float]]:
    """{name: (ms an update of ours, times optax's time, how far the two end apart)}."""
    found = {}
    for name, (ours, theirs) in PAIRS.items():
        calls = {"ours": call_of(ours, options.updates), "optax": call_of(theirs, options.updates)}
        apart = float(jnp.max(jnp.abs(calls["ours"]() - calls["optax"]())))  # compiles, too
        sides = {side: partial(timed, call) for side, call in calls.items()}
        times = interleaved(sides, options.repeats)
        each = [1e3 * seconds / options.updates for seconds in times["ours"]]
        share = ratios(times["ours"], times["optax"])
        found[name] = (spread(each), share, apart)
        print(f"{name:18} {spread(each)} ms an update, {share} times optax's", flush=True)
    return found


def main(options: Options) -> int:
    """Takes the figures and puts them between the README's markers."""
    heads = ("optimizer", "ms an update", "times optax's time", "asked for", "apart at the end")
    lines = [
        (name, str(each), str(share), str(ASKED), f"{apart:.1e}")
        for name, (each, share, apart) in take(options).items()
    ]
    table = "\n".join([*markdown.lined_up(heads, lines), ""])
    README.write_text(markdown.between(START, END, README.read_text(), table))
    return 0


if __name__ == "__main__":
    sys.exit(main(parse(Options, sys.argv[1:], "python benchmarks/optimizers.py")))
