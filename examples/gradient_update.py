"""The basic flow of one update (document 000).

Forward, loss, backward, update: the four steps that every training repeats, here once, on a linear
layer of 10 features and 5 samples. In PyTorch `loss.backward()` fills `.grad` and
`optimizer.step()` changes the parameters in place; in JAX `jax.value_and_grad` returns the gradient
and optax an update to add.

Look at the plot: every number moved against its gradient, by the learning rate times it.
Surprising: run as it is printed, the document fails. It calls `loss.backward()` twice on one graph,
which PyTorch refuses; here it is called once.
"""

import sys

from common import main

if __name__ == "__main__":
    sys.exit(main("gradient_update", __doc__))
