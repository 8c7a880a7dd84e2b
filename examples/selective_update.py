"""Both networks in the loss, only one in the optimizer (document 001, section 2).

The document: hand the optimizer only the parameters that are to be updated. The GRU gets gradients
and does not move; the model has to make do, and the loss falls far more slowly than in
parameter_groups.py.

Surprising: `optimizer.zero_grad()` clears only what the optimizer was given. The GRU's gradients
pile up from step to step, unused; JAX, where nothing is kept, has to write that out to be the
same.
"""

import sys

from common import main

if __name__ == "__main__":
    sys.exit(main("selective_update", __doc__))
