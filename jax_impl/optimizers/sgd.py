"""torch.optim.SGD."""

import optax


def sgd(lr: float = 1e-3) -> optax.GradientTransformation:
    """p - lr g. optax's own is exact.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.optim.SGD.html
    """
    return optax.sgd(lr)
