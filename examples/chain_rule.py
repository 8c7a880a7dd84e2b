"""Backpropagation by hand (document 004): two weights, no bias, no activation.

L = (y - w2 w1 x)^2 / 2. The chain rule gives dL/dw2 = -(y - y_hat) w1 x and dL/dw1 = -(y - y_hat)
w2 x; both frameworks find the same.
"""

import sys

from common import main

if __name__ == "__main__":
    sys.exit(main("chain_rule"))
