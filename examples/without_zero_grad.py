"""The fault that documents 000 and 003 warn of: zero_grad left out.

Gradients pile up: each update goes by the sum of all gradients so far. In JAX nobody could forget
it; the sum has to be written out. On these few steps the loss even falls faster, as with
momentum.
"""

import sys

from common import main

if __name__ == "__main__":
    sys.exit(main("without_zero_grad"))
