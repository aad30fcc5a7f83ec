"""Two small networks: an MLP for tables and a CNN for small images. Their head is the layer named `head`."""

from collections.abc import Sequence
from math import prod

from torch import Tensor, nn


class MLP(nn.Module):
    """Two hidden layers of 64 and 32 units, then the head. Input ``[batch, ...]``, output ``[batch, outputs]``."""

    def __init__(self, sample_shape: Sequence[int], outputs: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Flatten(), nn.Linear(prod(sample_shape), 64), nn.ReLU(), nn.Linear(64, 32), nn.ReLU()
        )
        self.head = nn.Linear(32, outputs)

    def forward(self, inputs: Tensor) -> Tensor:
        """Logits ``[batch, outputs]``."""
        logits: Tensor = self.head(self.body(inputs))
        return logits


class SmallCNN(nn.Module):
    """Convolutions of 16 and 32 channels, a layer of 64 units, then the head.

    Input ``[batch, channels, height, width]``, output ``[batch, outputs]``.
    """

    def __init__(self, sample_shape: Sequence[int], outputs: int) -> None:
        super().__init__()
        channels, height, width = sample_shape
        self.body = nn.Sequential(
            nn.Conv2d(channels, 16, 3, padding=1),
            nn.MaxPool2d(2),  # before the ReLU, which it commutes with: a quarter of the numbers are left to rectify
            nn.ReLU(),
            nn.Conv2d(16, 32, 3, padding=1),
            nn.MaxPool2d(2),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(32 * (height // 4) * (width // 4), 64),
            nn.ReLU(),
        )
        self.head = nn.Linear(64, outputs)

    def forward(self, inputs: Tensor) -> Tensor:
        """Logits ``[batch, outputs]``."""
        logits: Tensor = self.head(self.body(inputs))
        return logits
