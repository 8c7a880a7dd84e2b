"""The basic flow (document 000): forward, loss, backward, update.

A linear layer of 10 features, 5 samples. `loss.backward()` fills `.grad`, `optimizer.step()`
moves the parameters against it; in JAX `jax.value_and_grad` returns the gradient and optax an
update to add. As printed, the document calls `loss.backward()` twice on one graph, which PyTorch
refuses: here it is called once.
"""

import sys

from common import main

if __name__ == "__main__":
    sys.exit(main("gradient_update"))
