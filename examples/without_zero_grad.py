"""The fault that documents 000 and 003 warn of: zero_grad left out (document 003).

Each update goes by the sum of all gradients so far. In PyTorch one forgets a line and gets this; in
JAX nobody can forget it, the sum has to be written out.

Look at the losses: the first two are those of zero_grad.py, since the first update has nothing to
pile up on; the third is not. Surprising: on so few steps the loss falls faster with the fault than
without it, since a sum of gradients works like momentum. A falling loss does not prove a loop
right.
"""

import sys

from common import main

if __name__ == "__main__":
    sys.exit(main("without_zero_grad", __doc__))
