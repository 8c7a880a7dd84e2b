"""What the documents take from torchvision; every other layer is torch.nn's own.

Mirror: twinstep/jax/nn/layers.py
"""

import torch


def to_tensor(images: torch.Tensor) -> torch.Tensor:
    """Bytes 0..255 as numbers 0..1, in the default dtype. Source: torchvision's ToTensor"""
    return images.to(torch.get_default_dtype()) / 255
