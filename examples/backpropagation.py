"""Backpropagation by machine (document 004): 10-20-ReLU-1, one update.

`loss.backward()` leaves the gradient of every parameter in `.grad`; `jax.grad` returns them in a
tree of the parameters' own shape.
"""

import sys

from common import main

if __name__ == "__main__":
    sys.exit(main("backpropagation"))
