"""A small transformer that translates: from a number's digits to its words in English.

Mirror: jax_impl/seq2seq_transformer.py
"""

import math

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from twinstep.problems.nets.seq2seq_transformer import PAD, Seq2SeqTransformer


class PositionalEncoding(nn.Module):
    """Adds to each token sines and cosines of its place, and drops some of the sum."""

    encoding: torch.Tensor

    def __init__(self, width, dropout, longest):
        super().__init__()
        rates = torch.exp(torch.arange(0, width, 2) * (-math.log(10000.0) / width))
        angles = torch.arange(longest)[:, None] * rates
        encoding = torch.stack([torch.sin(angles), torch.cos(angles)], dim=-1)
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
            if parameter.dim() > 1:
                nn.init.xavier_uniform_(parameter)

    def forward(self, source, target):
        source_padding, target_padding = source == PAD, target == PAD  # True: is not looked at
        tokens = target.shape[1]
        later = torch.triu(torch.ones(tokens, tokens, dtype=torch.bool), diagonal=1)
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
    optimizer = torch.optim.Adam(
        model.parameters(), lr=problem.learning_rate, betas=problem.betas, eps=problem.eps
    )
    return model, translation_loss, optimizer


def train(model, criterion, optimizer, batches, log=print):
    """The loop. batches: of each epoch what gives digits (N, 3) and words (N, 6)"""
    model.train()
    for loader in batches:
        for i, (source, target) in enumerate(loader):
            loss = criterion(model(source, target[:, :-1]), target[:, 1:])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if (i + 1) % 10 == 0:
                log(f"Step [{i + 1}/{len(loader)}], Loss: {loss.item():.4f}")


def main():
    """Trains an epoch, and prints its lines."""
    problem = Seq2SeqTransformer.from_flags()
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
