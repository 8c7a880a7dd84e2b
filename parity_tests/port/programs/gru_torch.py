"""A GRU that classifies sequences: SGD with Nesterov's momentum, gradients of four micro-batches.

Classes are weighted; the learning rate is halved every five updates.
"""

import torch
import torch.nn.functional as F  # noqa: N812 - as everybody calls it
from torch import nn

from twinstep.torch import record
from twinstep.trace.ledger import Trace

FEATURES, HIDDEN, CLASSES, LENGTH, BATCH = 5, 8, 3, 6, 8
MICRO_BATCHES = 4
CLASS_WEIGHTS = (1.0, 2.0, 0.5)


class Classifier(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gru = nn.GRU(FEATURES, HIDDEN, batch_first=True)
        self.head = nn.Linear(HIDDEN, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:  # (B, L, F)
        outputs, _ = self.gru(x)
        return self.head(outputs[:, -1])


def train(seed: int, lr: float, steps: int) -> Trace:
    """Trains on random sequences, and records it."""
    torch.manual_seed(seed)
    model = Classifier()
    optimizer = torch.optim.SGD(
        model.parameters(), lr=lr, momentum=0.9, nesterov=True, weight_decay=1e-2
    )
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=5, gamma=0.5)
    weight = torch.tensor(CLASS_WEIGHTS)
    with record(model) as rec:
        for _ in range(steps):
            x, y = torch.randn(BATCH, LENGTH, FEATURES), torch.randint(CLASSES, (BATCH,))
            rec.batch(x=x, y=y)
            optimizer.zero_grad()
            parts = zip(x.chunk(MICRO_BATCHES), y.chunk(MICRO_BATCHES), strict=True)
            for micro_x, micro_y in parts:
                loss = F.cross_entropy(model(micro_x), micro_y, weight=weight)
                (loss / MICRO_BATCHES).backward()
            optimizer.step()
            scheduler.step()
    return rec.trace
