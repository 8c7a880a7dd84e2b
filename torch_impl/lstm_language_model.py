"""A recurrent language model: character by character an LSTM learns to count in words.

Mirror: jax_impl/lstm_language_model.py
"""

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from twinstep.problems.nets.lstm_language_model import LstmLanguageModel


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
        output, _ = self.lstm(embedded)  # (N, T, H), in memory (T, N, H), as its mask is drawn
        return self.decoder(self.drop(output))


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
    optimizer = torch.optim.Adam(model.parameters(), lr=problem.learning_rate)
    return model, next_token_loss, optimizer


def train(model, criterion, optimizer, batches, log=print):
    """The loop. batches: of each epoch what gives characters x and y, both (N, window)"""
    model.train()
    for loader in batches:
        for i, (x, y) in enumerate(loader):
            loss = criterion(model(x), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if (i + 1) % 10 == 0:
                log(f"Step [{i + 1}/{len(loader)}], Loss: {loss.item():.4f}")


def main():
    """Trains an epoch, and prints its lines."""
    problem = LstmLanguageModel.from_flags()
    torch.set_default_dtype(getattr(torch, problem.dtype))
    torch.manual_seed(problem.seed)
    model, criterion, optimizer = build(problem)
    loader = DataLoader(
        TensorDataset(*(torch.tensor(array) for array in problem.samples().values())),
        problem.batch_size,
        shuffle=True,
        generator=torch.Generator().manual_seed(problem.seed),
    )
    train(model, criterion, optimizer, [loader] * problem.epochs)


if __name__ == "__main__":
    main()
