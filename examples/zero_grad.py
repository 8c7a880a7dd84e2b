"""The training loop with zero_grad (document 003).

A small network, five updates. In PyTorch gradients have to be cleared before each backward pass;
in JAX each gradient is a new value, and there is nothing to clear.
"""

import sys

from common import main

if __name__ == "__main__":
    sys.exit(main("zero_grad"))
