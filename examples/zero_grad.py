"""The training loop, with zero_grad (document 003).

A small network, five updates. PyTorch adds each new gradient to what `.grad` already holds, so the
loop clears it first. In JAX each gradient is a new value, and there is nothing to clear.

Look at the two loops, `train`: `twinstep show zero_grad --diff`. Then leave it out:
without_zero_grad.py.
"""

import sys

from common import main

if __name__ == "__main__":
    sys.exit(main("zero_grad", __doc__))
