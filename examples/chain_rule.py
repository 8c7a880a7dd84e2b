"""Backpropagation by hand (document 004, its worked example).

Two weights, no bias, no activation: y_hat = w2 (w1 x), L = (y - y_hat)^2 / 2. The document derives
dL/dw2 = -(y - y_hat) z1 and dL/dw1 = -(y - y_hat) w2 x, where z1 = w1 x.

Look at the log lines: with x = 2, y = 1, w1 = 0.5, w2 = -1.5 the derivatives are 7.5 and -2.5 by
hand, by `loss.backward()` and by `jax.grad`, to the last bit. The document names no numbers; these
are our own, and `--x`, `--y`, `--w1`, `--w2` try others.
"""

import sys

from common import main

if __name__ == "__main__":
    sys.exit(main("chain_rule", __doc__))
