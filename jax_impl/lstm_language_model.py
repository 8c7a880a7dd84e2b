"""A recurrent language model: character by character an LSTM learns to count in words.

Mirror: torch_impl/lstm_language_model.py
"""

import jax
import jax.numpy as jnp
import optax
from flax import nnx

import twinstep.jax.nn.functional as F
from twinstep.jax import nn
from twinstep.jax.layout import load_params
from twinstep.jax.optim import adam
from twinstep.problems.nets.lstm_language_model import LstmLanguageModel
from twinstep.problems.torch_loader import TorchDataLoader
from twinstep.problems.torch_random import TorchGenerator


class RNNModel(nn.Module):
    """Characters in, of each the logits of the next one out."""

    def __init__(self, tokens, embedding_size, hidden_size, layers, dropout):
        super().__init__()
        self.drop = nn.Dropout(dropout)
        self.encoder = nn.Embedding(tokens, embedding_size)
        self.lstm = nn.LSTM(embedding_size, hidden_size, layers, batch_first=True, dropout=dropout)
        self.decoder = nn.Linear(hidden_size, tokens)

    def forward(self, tokens):
        embedded = self.drop(self.encoder(tokens))
        output, _ = self.lstm(embedded)
        # PyTorch's lies in memory as (T, N, H), and there its mask is drawn
        output = jnp.swapaxes(self.drop(jnp.swapaxes(output, 0, 1)), 0, 1)
        return self.decoder(output)


def next_token_loss(logits, y):
    """The cross entropy of every character's successor."""
    return F.cross_entropy(logits.reshape(-1, logits.shape[-1]), y.reshape(-1))


def build(problem: LstmLanguageModel):
    """The model, the loss and the optimizer."""
    model = RNNModel(
        problem.tokens,
        problem.embedding_size,
        problem.hidden_size,
        problem.layers,
        problem.dropout,
    )
    load_params(model, problem.initial_params())  # PyTorch's draws
    optimizer = adam(lr=problem.learning_rate)
    return model, next_token_loss, optimizer


def init_state(model, optimizer):
    """What the first step is given: parameters, the optimizer's state, random numbers."""
    params = nnx.to_pure_dict(nnx.state(model, nnx.Param))
    return params, optimizer.init(params), nnx.state(model, nnx.Not(nnx.Param))


def make_train_step(model, criterion, optimizer):
    """The step, compiled: (state, batch) -> (state, loss)."""
    graph = nnx.graphdef(model)

    def loss_fn(params, rest, x, y):
        model = nnx.merge(graph, params, rest, copy=True)
        return criterion(model(x), y), nnx.state(model, nnx.Not(nnx.Param))

    @jax.jit
    def train_step(state, batch):
        params, opt_state, rest = state
        grad_fn = jax.value_and_grad(loss_fn, has_aux=True)
        (loss, rest), grads = grad_fn(params, rest, *batch)
        updates, opt_state = optimizer.update(grads, opt_state, params)
        return (optax.apply_updates(params, updates), opt_state, rest), loss

    return train_step


def train(model, criterion, optimizer, batches, log=print):
    """The loop. batches: of each epoch what gives characters x and y, both (N, window)"""
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
    problem = LstmLanguageModel.from_flags()
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
