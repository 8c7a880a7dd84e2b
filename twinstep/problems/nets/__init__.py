"""Whole models, small enough for seconds: name -> what makes its spec."""

from twinstep.problems.base import Spec
from twinstep.problems.nets.mnist_convnet import MnistConvnet
from twinstep.problems.nets.nano_gpt import NanoGPT
from twinstep.problems.nets.resnet18 import ResNet18
from twinstep.problems.nets.vae import VariationalAutoencoder

__all__ = ["MODELS"]

MODELS: dict[str, type[Spec]] = {
    spec.name: spec for spec in (MnistConvnet, NanoGPT, ResNet18, VariationalAutoencoder)
}
