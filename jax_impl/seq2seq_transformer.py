"""A small transformer that translates: from a number's digits to its words in English.

Mirror: torch_impl/seq2seq_transformer.py
"""

import math

import jax
import jax.numpy as jnp
import optax
from flax import nnx

import twinstep.jax.nn.functional as F
from twinstep.jax import nn
from twinstep.jax.layout import load_params
from twinstep.jax.optim import adam
from twinstep.problems.nets.seq2seq_transformer import PAD, Seq2SeqTransformer
from twinstep.problems.torch_loader import TorchDataLoader
from twinstep.problems.torch_random import TorchGenerator


class PositionalEncoding(nn.Module):
    """Adds to each token sines and cosines of its place, and drops some of the sum."""

    encoding: nn.Buffer

    def __init__(self, width, dropout, longest):
        super().__init__()
        rates = jnp.exp(jnp.arange(0, width, 2) * (-math.log(10000.0) / width))
        angles = jnp.arange(longest)[:, None] * rates
        encoding = jnp.stack([jnp.sin(angles), jnp.cos(angles)], axis=-1)
        self.dropout = nn.Dropout(dropout)
        self.register_buffer("encoding", encoding.reshape(longest, width))

    def forward(self, embedded):
        return self.dropout(embedded + self.encoding[: embedded.shape[1]])


class Translator(nn.Module):
    """Source tokens (N, S) and target tokens (N, T) in, of each the next word's logits out."""

    def __init__(self, problem: Seq2SeqTransformer):
        super().__init__()
        width = problem.width
        self.transformer = nn.Transformer(
            width,
            problem.heads,
            problem.layers,
            problem.layers,
            problem.hidden_size,
            problem.dropout,
            batch_first=True,
        )
        self.generator = nn.Linear(width, problem.target_tokens)
        self.source_embedding = nn.Embedding(problem.source_tokens, width)
        self.target_embedding = nn.Embedding(problem.target_tokens, width)
        self.positions = PositionalEncoding(width, problem.dropout, problem.longest)
        self.scale = math.sqrt(width)
        for parameter in self.parameters():
            if parameter.ndim > 1:
                nn.init.xavier_uniform_(parameter)

    def forward(self, source, target):
        source_padding, target_padding = source == PAD, target == PAD  # True: is not looked at
        tokens = target.shape[1]
        later = jnp.triu(jnp.ones((tokens, tokens), bool), 1)
        output = self.transformer(
            self.positions(self.source_embedding(source) * self.scale),
            self.positions(self.target_embedding(target) * self.scale),
            tgt_mask=later,
            src_key_padding_mask=source_padding,
            tgt_key_padding_mask=target_padding,
            memory_key_padding_mask=source_padding,
        )
        return self.generator(output)


def translation_loss(logits, words):
    """The cross entropy of every word that is none of the padding."""
    return F.cross_entropy(
        logits.reshape(-1, logits.shape[-1]), words.reshape(-1), ignore_index=PAD
    )


def build(problem: Seq2SeqTransformer):
    """The model, the loss and the optimizer."""
    model = Translator(problem)
    load_params(model, problem.initial_params())  # PyTorch's draws
    optimizer = adam(lr=problem.learning_rate, betas=problem.betas, eps=problem.eps)
    return model, translation_loss, optimizer


def init_state(model, optimizer):
    """What the first step is given: parameters, the optimizer's state, random numbers."""
    params = nnx.to_pure_dict(nnx.state(model, nnx.Param))
    return params, optimizer.init(params), nnx.state(model, nnx.Not(nnx.Param))


def make_train_step(model, criterion, optimizer):
    """The step, compiled: (state, batch) -> (state, loss)."""
    graph = nnx.graphdef(model)

    def loss_fn(params, rest, source, target):
        model = nnx.merge(graph, params, rest, copy=True)
        loss = criterion(model(source, target[:, :-1]), target[:, 1:])
        return loss, nnx.state(model, nnx.Not(nnx.Param))

    @jax.jit
    def train_step(state, batch):
        params, opt_state, rest = state
        grad_fn = jax.value_and_grad(loss_fn, has_aux=True)
        (loss, rest), grads = grad_fn(params, rest, *batch)
        updates, opt_state = optimizer.update(grads, opt_state, params)
        return (optax.apply_updates(params, updates), opt_state, rest), loss

    return train_step


def train(model, criterion, optimizer, batches, log=print):
    """The loop. batches: of each epoch what gives digits (N, 3) and words (N, 6)"""
    train_step = make_train_step(model, criterion, optimizer)
    state = init_state(model, optimizer)
    for loader in batches:
        for i, batch in enumerate(loader):
            state, loss = train_step(state, batch)
            if (i + 1) % 10 == 0:
                log(f"Step [{i + 1}/{len(loader)}], Loss: {loss.item():.4f}")
    return state


def main():
    """Trains an epoch, and prints its lines."""
    problem = Seq2SeqTransformer.from_flags()
    jax.config.update("jax_enable_x64", problem.dtype == "float64")
    nn.manual_seed(problem.seed)
    model, criterion, optimizer = build(problem)
    loader = TorchDataLoader(
        tuple(jnp.asarray(array) for array in problem.samples().values()),
        problem.batch_size,
        shuffle=True,
        generator=TorchGenerator(problem.seed),
    )
    train(model, criterion, optimizer, [loader] * problem.epochs)


if __name__ == "__main__":
    main()
