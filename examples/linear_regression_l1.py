"""The exercise of document 000: the same with the mean absolute error.

The gradient no longer shrinks with the error: its size is that of x, so the end is a jitter.
Where a prediction hits its target exactly, PyTorch's gradient is 0 and `jnp.abs` would give 1.
"""

import sys

from common import main

if __name__ == "__main__":
    sys.exit(main("linear_regression_l1"))
