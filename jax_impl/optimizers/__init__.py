"""torch.optim in optax's form: PyTorch's names, arguments and arithmetic.

Each gives an `optax.GradientTransformation` whose state's fields are PyTorch's state names.
"""

from jax_impl.optimizers.adam import adam
from jax_impl.optimizers.groups import param_groups
from jax_impl.optimizers.sgd import sgd

__all__ = ["adam", "param_groups", "sgd"]
