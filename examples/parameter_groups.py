"""One Adam over two networks (document 001, section 2).

`torch.optim.Adam([{'params': model.parameters()}, {'params': gru.parameters()}], lr=0.01)`: a GRU
reads a sequence, a linear model its last output. PyTorch's GRU keeps two bias vectors, and the
one inside the reset gate matters; Flax's has one, so the JAX side brings its own.
"""

import sys

from common import main

if __name__ == "__main__":
    sys.exit(main("parameter_groups"))
