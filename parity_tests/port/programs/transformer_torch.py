"""A small causal language model: fused qkv, a head tied to the embedding, groups of weight decay.

The loss ignores padding. The keys' bias moves no softmax, so its true gradient is 0.
"""

import torch
import torch.nn.functional as F  # noqa: N812 - as everybody calls it
from torch import nn

from twinstep.torch import record
from twinstep.trace.ledger import Trace

VOCAB, WIDTH, HEADS, LENGTH, LAYERS, BATCH = 17, 16, 2, 7, 2, 4
WARMUP = 4  # steps
PADDING = -100


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.ln1 = nn.LayerNorm(WIDTH)
        self.qkv = nn.Linear(WIDTH, 3 * WIDTH)
        self.proj = nn.Linear(WIDTH, WIDTH)
        self.ln2 = nn.LayerNorm(WIDTH)
        self.fc = nn.Linear(WIDTH, 4 * WIDTH)
        self.out = nn.Linear(4 * WIDTH, WIDTH)

    def forward(self, x: torch.Tensor) -> torch.Tensor:  # (B, L, D)
        B, L, D = x.shape  # noqa: N806 - dimension letters
        q, k, v = self.qkv(self.ln1(x)).split(D, dim=2)
        q, k, v = (t.view(B, L, HEADS, D // HEADS).transpose(1, 2) for t in (q, k, v))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)  # (B, H, L, D / H)
        x = x + self.proj(y.transpose(1, 2).reshape(B, L, D))
        return x + self.out(F.gelu(self.fc(self.ln2(x))))


class Transformer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.wte = nn.Embedding(VOCAB, WIDTH)
        self.wpe = nn.Embedding(LENGTH, WIDTH)
        self.blocks = nn.ModuleList(Block() for _ in range(LAYERS))
        self.ln_f = nn.LayerNorm(WIDTH)
        self.head = nn.Linear(WIDTH, VOCAB, bias=False)
        self.head.weight = self.wte.weight

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:  # (B, L)
        x = self.wte(tokens) + self.wpe(torch.arange(tokens.shape[1]))
        for block in self.blocks:
            x = block(x)
        return self.head(self.ln_f(x))  # (B, L, V)


def train(seed: int, lr: float, steps: int) -> Trace:
    """Trains on random tokens, sentences of several lengths, and records it."""
    torch.manual_seed(seed)
    model = Transformer()
    groups = [
        {"params": [p for p in model.parameters() if p.ndim >= 2], "weight_decay": 0.1},
        {"params": [p for p in model.parameters() if p.ndim < 2], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=lr, betas=(0.9, 0.95))
    warmup = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1, (step + 1) / WARMUP))
    with record(model) as rec:
        for _ in range(steps):
            x, y = torch.randint(VOCAB, (2, BATCH, LENGTH))
            lengths = torch.randint(2, LENGTH + 1, (BATCH, 1))
            y = y.masked_fill(torch.arange(LENGTH) >= lengths, PADDING)
            rec.batch(x=x, y=y)
            loss = F.cross_entropy(model(x).flatten(0, 1), y.flatten(), ignore_index=PADDING)
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            warmup.step()
    return rec.trace
