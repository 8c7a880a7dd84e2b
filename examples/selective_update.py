"""Only the model in the optimizer (document 001, section 2).

The GRU gets gradients and does not move. `optimizer.zero_grad()` clears only what the optimizer
was given: the GRU's gradients pile up from step to step, and JAX has to write that out.
"""

import sys

from common import main

if __name__ == "__main__":
    sys.exit(main("selective_update"))
