"""Whole models, small enough for seconds: name -> what makes its spec."""

from twinstep.problems.base import Spec
from twinstep.problems.nets.dcgan import Dcgan
from twinstep.problems.nets.lstm_language_model import LstmLanguageModel
from twinstep.problems.nets.mnist_convnet import MnistConvnet
from twinstep.problems.nets.nano_gpt import NanoGPT
from twinstep.problems.nets.resnet18 import ResNet18
from twinstep.problems.nets.seq2seq_transformer import Seq2SeqTransformer
from twinstep.problems.nets.vae import VariationalAutoencoder
from twinstep.problems.nets.vision_transformer import VisionTransformer

__all__ = ["MODELS", "RECORDED"]

MODELS: dict[str, type[Spec]] = {
    spec.name: spec
    for spec in (
        MnistConvnet,
        NanoGPT,
        LstmLanguageModel,
        VisionTransformer,
        Seq2SeqTransformer,
        ResNet18,
        VariationalAutoencoder,
    )
}

RECORDED: dict[str, type[Spec]] = {Dcgan.name: Dcgan}
"""Those of two optimizers, which no driver knows: a test records both programs as they are."""
