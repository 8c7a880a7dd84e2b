"""A small convolutional classifier: BatchNorm, AdamW, a cosine schedule, clipping by the norm.

The convolutions keep their biases before BatchNorm, whose true gradient is 0.
"""

import torch
import torch.nn.functional as F  # noqa: N812 - as everybody calls it
from torch import nn

from twinstep.torch import record
from twinstep.trace.ledger import Trace

CLASSES, BATCH = 5, 6


class ConvNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 3, padding=1)
        self.bn1 = nn.BatchNorm2d(8)
        self.conv2 = nn.Conv2d(8, 8, 3, stride=2, padding=1)
        self.bn2 = nn.BatchNorm2d(8)
        self.fc1 = nn.Linear(32, 32)
        self.fc2 = nn.Linear(32, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:  # (B, 3, 8, 8)
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(x))), 2)  # (B, 8, 4, 4)
        x = F.relu(self.bn2(self.conv2(x)))  # (B, 8, 2, 2)
        x = F.gelu(self.fc1(x.flatten(1)))
        return self.fc2(x)


def train(seed: int, lr: float, steps: int) -> Trace:
    """Trains on random images, and records it."""
    torch.manual_seed(seed)
    model = ConvNet()
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=0.05)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=steps)
    with record(model) as rec:
        for _ in range(steps):
            x, y = torch.randn(BATCH, 3, 8, 8) + 0.5, torch.randint(CLASSES, (BATCH,))
            rec.batch(x=x, y=y)
            loss = F.cross_entropy(model(x), y, label_smoothing=0.1)
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 0.9)
            optimizer.step()
            scheduler.step()
    return rec.trace
