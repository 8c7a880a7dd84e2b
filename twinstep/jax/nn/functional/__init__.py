"""torch.nn.functional: PyTorch's names, arguments and axes, its gradients at kinks."""

from twinstep.jax.nn.functional.losses import cross_entropy, huber_loss, l1_loss, mse_loss

__all__ = ["cross_entropy", "huber_loss", "l1_loss", "mse_loss"]
