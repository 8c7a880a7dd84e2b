"""Backpropagation by machine (document 004, its code).

A network of 10 inputs, 20 hidden units with ReLU and one output has 241 parameters: nobody derives
those by hand. `loss.backward()` leaves each one's gradient in its `.grad`; `jax.grad` returns them
all in a tree of the parameters' own shape.

Look at the largest gradient of each tensor, the same in both, and at the plot: all 241 moved by the
learning rate times their gradient. The document prints the loss before the update only; measured
here is that the update lowers it.
"""

import sys

from common import main

if __name__ == "__main__":
    sys.exit(main("backpropagation", __doc__))
