"""What torchvision makes of images."""

import jax
import jax.numpy as jnp
import numpy as np


def to_tensor(images: jax.Array) -> jax.Array:
    """Bytes 0..255 as numbers 0..1, in the default dtype.

    Looked up: XLA would turn a division by 255 into a product with 1 / 255, an ulp off. The axes
    stay, where torchvision's moves the channels to the front.

    Args:
        images: Bytes, of any shape: an integer dtype.

    Returns:
        The numbers, of the same shape.

    Example:
        >>> import jax.numpy as jnp
        >>> from twinstep.jax.nn import to_tensor
        >>> [round(float(x), 4) for x in to_tensor(jnp.array([0, 51, 255], jnp.uint8))]
        [0.0, 0.2, 1.0]

    Source:
    https://docs.pytorch.org/vision/stable/generated/torchvision.transforms.ToTensor.html
    """
    values = jnp.asarray(np.arange(256) / 255, float)
    return values[images]
