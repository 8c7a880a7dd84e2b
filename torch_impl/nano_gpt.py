"""A small GPT: character by character it learns to count in words.

Mirror: jax_impl/nano_gpt.py
"""

import math

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from twinstep.problems.nets.nano_gpt import NanoGPT


class CausalSelfAttention(nn.Module):
    """Each token attends to itself and to those before it."""

    def __init__(self, width, heads, dropout):
        super().__init__()
        self.heads = heads
        self.c_attn = nn.Linear(width, 3 * width)
        self.c_proj = nn.Linear(width, width)
        self.attn_dropout = nn.Dropout(dropout)
        self.resid_dropout = nn.Dropout(dropout)

    def forward(self, x):
        batch, tokens, width = x.shape
        qkv = self.c_attn(x).reshape(batch, tokens, 3, self.heads, width // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # (batch, heads, tokens, of a head)
        att = (q @ k.transpose(-2, -1)) / math.sqrt(k.shape[-1])
        seen = torch.tril(torch.ones(tokens, tokens, dtype=torch.bool))
        att = F.softmax(torch.where(seen, att, -math.inf), dim=-1)
        y = self.attn_dropout(att) @ v
        y = y.permute(0, 2, 1, 3).reshape(batch, tokens, width)
        return self.resid_dropout(self.c_proj(y))


class MLP(nn.Module):
    """Two linear layers with gelu between them, token by token."""

    def __init__(self, width, dropout):
        super().__init__()
        self.c_fc = nn.Linear(width, 4 * width)
        self.c_proj = nn.Linear(4 * width, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x):
        return self.dropout(self.c_proj(F.gelu(self.c_fc(x))))


class Block(nn.Module):
    """Attention and MLP, each added to what it is given."""

    def __init__(self, width, heads, dropout):
        super().__init__()
        self.ln_1 = nn.LayerNorm(width)
        self.attn = CausalSelfAttention(width, heads, dropout)
        self.ln_2 = nn.LayerNorm(width)
        self.mlp = MLP(width, dropout)

    def forward(self, x):
        x = x + self.attn(self.ln_1(x))
        return x + self.mlp(self.ln_2(x))


class GPT(nn.Module):
    """Embeddings, blocks, and a head that is the embedding itself."""

    def __init__(self, problem: NanoGPT):
        super().__init__()
        width, dropout = problem.width, problem.dropout
        self.transformer = nn.ModuleDict(
            {
                "wte": nn.Embedding(problem.tokens, width),
                "wpe": nn.Embedding(problem.block_size, width),
                "drop": nn.Dropout(dropout),
                "h": nn.ModuleList(
                    [Block(width, problem.heads, dropout) for _ in range(problem.layers)]
                ),
                "ln_f": nn.LayerNorm(width),
            }
        )
        self.lm_head = nn.Linear(width, problem.tokens, bias=False)
        self.transformer["wte"].weight = self.lm_head.weight  # tied
        self.apply(self._init_weights)
        for name, parameter in self.named_parameters():
            if name.endswith("c_proj.weight"):
                nn.init.normal_(parameter, 0.0, 0.02 / math.sqrt(2 * problem.layers))

    def _init_weights(self, module):
        if isinstance(module, nn.Linear | nn.Embedding):
            nn.init.normal_(module.weight, 0.0, 0.02)
        if isinstance(module, nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)

    def forward(self, tokens):
        places = torch.arange(tokens.shape[1])
        x = self.transformer["wte"](tokens) + self.transformer["wpe"](places)
        x = self.transformer["drop"](x)
        for block in self.transformer["h"].children():
            x = block(x)
        return self.lm_head(self.transformer["ln_f"](x))


def next_token_loss(logits, y):
    """The cross entropy of every token's successor."""
    return F.cross_entropy(logits.reshape(-1, logits.shape[-1]), y.reshape(-1))


def build(problem: NanoGPT):
    """The model, the loss, and the optimizer with its schedule and the norm to clip to."""
    model = GPT(problem)
    matrices = [p for p in model.parameters() if p.dim() >= 2]
    others = [p for p in model.parameters() if p.dim() < 2]
    groups = [
        {"params": matrices, "weight_decay": problem.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=problem.learning_rate, betas=problem.betas)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, problem.rate)
    return model, next_token_loss, (optimizer, scheduler, problem.max_norm)


def train(model, criterion, optimizer, batches, log=print):
    """The loop. batches: of each epoch what gives tokens x and y, both (N, block_size)"""
    optimizer, scheduler, max_norm = optimizer
    model.train()
    for loader in batches:
        for i, (x, y) in enumerate(loader):
            loss = criterion(model(x), y)
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), max_norm)
            optimizer.step()
            scheduler.step()
            if (i + 1) % 10 == 0:
                log(f"Step [{i + 1}/{len(loader)}], Loss: {loss.item():.4f}")


def main():
    """Trains an epoch, and prints its lines."""
    problem = NanoGPT.from_flags()
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
