"""One Adam over two networks (document 001, section 2).

`torch.optim.Adam([{'params': model.parameters()}, {'params': gru.parameters()}], lr=0.01)`: the
document shows only this line. Here a GRU reads a sequence and a linear model its last output.

Look at how far each network moved, and at the loss: Adam overshoots and swings back. For porting:
PyTorch's GRU has two bias vectors, and since the second stands inside the reset gate they don't
add up to one; Flax's has only one, so the JAX side brings its own layer.
"""

import sys

from common import main

if __name__ == "__main__":
    sys.exit(main("parameter_groups", __doc__))
