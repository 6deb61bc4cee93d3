"""Linear: x @ weight.T + bias."""

from __future__ import annotations

import math

from spiral import ops
from spiral.creation import empty_
from spiral.nn import init
from spiral.nn.arguments import Size, flag, integer
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
        When called with x (..., in_features): y (..., out_features). Dtypes promote as in ``x @ weight``: float64 x
        gives float64, integer x the weight's dtype.

    Raises:
        ArgumentError: a size is no positive integer.
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

    def __init__(self, in_features: Size, out_features: Size, bias: bool = True) -> None:
        super().__init__()
        self.in_features = integer("Linear", "in_features", in_features, 1)
        self.out_features = integer("Linear", "out_features", out_features, 1)
        self.weight = Parameter(empty_((self.out_features, self.in_features)))
        with_bias = flag("Linear", "bias", bias)
        self.register_parameter("bias", Parameter(empty_((self.out_features,))) if with_bias else None)
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
