"""What a row of the table of faults says, and the pairs that the faults are planted in."""

from typing import Any, NamedTuple

from faults.pairs import Pair, Plant, Side, Spot, pair

LINEAR = pair("linear_regression", steps=8)
ADAM = pair("adam_update", steps=8, eps=1e-2, betas=(0.5, 0.9))  # values that show every fault
ZERO_GRAD = pair("zero_grad")
PILED_UP = pair("without_zero_grad")
RELU = pair("backpropagation", steps=6)
SAMPLES = pair("sgd_single_sample", steps=104)  # 100 samples an epoch
GROUPS = pair("parameter_groups", steps=5)
SELECTIVE = pair("selective_update", steps=5)
DIGITS = pair("mnist_rnn", steps=4, hidden_size=64, batch_size=28)  # 28 images of 28 rows of 28

LOSS = Spot(1, "loss", "loss")  # where a fault in the forward pass shows

Table = dict[tuple[Side, Pair, Spot], dict[str, Plant]]
"""{(the faulty side, the pair, where it must show): {what is wrong: how it is planted}}"""


class Fault(NamedTuple):
    """A row of a table."""

    says: str
    side: Side
    pair: Pair
    plant: Plant
    spot: Spot

    def __str__(self) -> str:
        return self.says


def faults(table: Table) -> list[Fault]:
    """A table's rows."""
    return [
        Fault(says, side, pair, plant, spot)
        for (side, pair, spot), plants in table.items()
        for says, plant in plants.items()
    ]


def times(factor: float) -> Any:
    return lambda value: value * factor
