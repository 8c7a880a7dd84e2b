"""The same with the mean absolute error (document 000, its exercise).

The document suggests another loss or another optimizer, to see what changes. With the absolute
error a gradient does not shrink as the error does: the loss falls in a straight line until the
fitted line runs among the points, where with squares it falls steeply first and creeps then.

Surprising: where a prediction hits its target exactly, PyTorch's gradient is 0 and that of
`jnp.abs` is 1. The JAX side writes PyTorch's choice out.
"""

import sys

from common import main

if __name__ == "__main__":
    sys.exit(main("linear_regression_l1", __doc__))
