"""Makes all pictures of the gallery anew, in examples/pictures: `python examples/gallery.py`."""

from pathlib import Path

from common import report, train
from picture import draw, room_for

import twinstep
from twinstep.report import plots

PICTURES = Path(__file__).parent / "pictures"
ORDER = (
    "gradient_update",
    "chain_rule",
    "backpropagation",
    "zero_grad",
    "without_zero_grad",
    "linear_regression",
    "linear_regression_l1",
    "sgd_linear_model",
    "sgd_single_sample",
    "adam_update",
    "linear_regression_adam",
    "parameter_groups",
    "selective_update",
    "mnist_rnn",
)
"""The examples as a newcomer would read them: one update, its gradients, a loop, other optimizers,
several networks, and all of it on real digits."""


def main() -> None:
    """Trains every example and draws it; says what it draws."""
    for name in ORDER:
        result = train(twinstep.examples()[name]())
        with room_for(PICTURES / f"{name}.svg") as file:
            plots.save(draw(result), file)
        print(f"{name}: {report(result)[-1]}", flush=True)


if __name__ == "__main__":
    main()
