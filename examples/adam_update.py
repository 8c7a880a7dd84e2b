"""Loss, zero_grad, backward, step with Adam (document 001, section 3).

The document writes the loop's body once; here it runs ten times, so that Adam's corrections of its
two moments have something to correct. It says that complex optimizers are in principle like
theta = theta - eta * gradient.

Look at what was measured: Adam's first update moves every parameter by one learning rate, be its
gradient large or small, which that formula does not say. Two slips of the document are mended here:
`optimizer.zeros()` does not exist, it is `zero_grad()`; and `.cuda()` is left out.
"""

import sys

from common import main

if __name__ == "__main__":
    sys.exit(main("adam_update", __doc__))
