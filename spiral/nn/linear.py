"""Linear: x @ weight.T + bias."""

from __future__ import annotations

import math

from spiral import ops
from spiral.creation import empty_
from spiral.errors import ArgumentError
from spiral.nn import init
from spiral.nn.module import Module
from spiral.nn.parameter import Parameter
from spiral.tensor import Tensor


class Linear(Module):
    """y = x @ weight.T + bias, with PyTorch's first values: uniform in ±1 / sqrt(in_features).

    Args:
        in_features: Length of x's last axis.
        out_features: Length of y's last axis.
        bias: Whether to add a bias.

    Attributes:
        weight: (out_features, in_features).
        bias: (out_features,), or None.

    Returns:
        When called with x (..., in_features): y (..., out_features).

    Raises:
        ArgumentError: a size is not positive.
        ShapeError: when called, x's last axis is not in_features long.

    Example:
        >>> import spiral as sp
        >>> layer = Linear(3, 2)
        >>> layer(sp.ones((5, 3))).shape
        (5, 2)
        >>> [(name, p.shape) for name, p in layer.named_parameters()]
        [('weight', (2, 3)), ('bias', (2,))]
    """

    weight: Parameter
    bias: Parameter | None

    def __init__(self, in_features: int, out_features: int, bias: bool = True) -> None:
        super().__init__()
        if in_features < 1 or out_features < 1:
            raise ArgumentError(f"Linear: sizes must be positive; received {in_features} and {out_features}.")
        self.in_features = in_features
        self.out_features = out_features
        self.weight = Parameter(empty_((out_features, in_features)))
        self.register_parameter("bias", Parameter(empty_((out_features,))) if bias else None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draws first values."""
        bound = 1.0 / math.sqrt(self.in_features)
        init.uniform_(self.weight, -bound, bound)
        if self.bias is not None:
            init.uniform_(self.bias, -bound, bound)

    def forward(self, x: Tensor) -> Tensor:
        """x (..., in_features) to (..., out_features)."""
        return ops.linear(x, self.weight, self.bias)

    def extra_repr(self) -> str:
        return f"{self.in_features} -> {self.out_features}"
