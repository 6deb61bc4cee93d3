"""Channel attention."""

from __future__ import annotations

import spiral as sp
from spiral import Tensor, nn
from spiral.errors import ArgumentError


class SqueezeExcite(nn.Module):
    """Weighs channels by what the whole image says of them (Hu, Shen & Sun 2018, equations 2 to 4).

    Args:
        channels: C of the input, (N, C, H, W).
        reduction: By how much the hidden layer is narrower.
    """

    def __init__(self, channels: int, reduction: int = 16) -> None:
        super().__init__()
        if channels < 1 or reduction < 1:
            raise ArgumentError(
                f"SqueezeExcite: channels and reduction must be positive; received {channels} and {reduction}."
            )
        hidden = max(1, channels // reduction)
        self.squeeze = nn.Linear(channels, hidden)
        self.excite = nn.Linear(hidden, channels)

    def forward(self, x: Tensor) -> Tensor:
        """x (N, C, H, W) to the same shape."""
        pooled = sp.mean(x, axis=(2, 3))
        scale = sp.sigmoid(self.excite(sp.relu(self.squeeze(pooled))))
        return x * scale.reshape((*scale.shape, 1, 1))
