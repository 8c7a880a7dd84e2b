"""Ports of PyTorch training programs, right and wrong ones: what `twinstep prove` is tried on."""
