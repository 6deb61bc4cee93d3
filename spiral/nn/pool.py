"""Pooling layers, channels first."""

from __future__ import annotations

from spiral import ops
from spiral.errors import ArgumentError, ShapeError
from spiral.nn import functional
from spiral.nn.functional import Pair, pair
from spiral.nn.module import Module
from spiral.tensor import Tensor


class _Pool(Module):
    def __init__(self, kernel_size: Pair, stride: Pair | None = None, padding: Pair = 0) -> None:
        super().__init__()
        name = type(self).__name__
        self.kernel_size = pair(f"{name}: kernel_size", kernel_size)
        self.stride = self.kernel_size if stride is None else pair(f"{name}: stride", stride)
        self.padding = pair(f"{name}: padding", padding)

    def extra_repr(self) -> str:
        return f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}"


class MaxPool2d(_Pool):
    """Largest value of each window of x (N, C, H, W); the stride is the window's size by default."""

    def forward(self, x: Tensor) -> Tensor:
        return functional.max_pool2d(x, self.kernel_size, self.stride, self.padding)


class AvgPool2d(_Pool):
    """Mean of each window of x (N, C, H, W); ``count_include_pad`` counts the padding's zeros."""

    def __init__(
        self, kernel_size: Pair, stride: Pair | None = None, padding: Pair = 0, count_include_pad: bool = True
    ) -> None:
        super().__init__(kernel_size, stride, padding)
        self.count_include_pad = count_include_pad

    def forward(self, x: Tensor) -> Tensor:
        return functional.avg_pool2d(x, self.kernel_size, self.stride, self.padding, self.count_include_pad)


class AdaptiveAvgPool2d(Module):
    """Mean of each channel of x (N, C, H, W), as (N, C, 1, 1).

    Raises:
        ArgumentError: another output size than 1.
    """

    def __init__(self, output_size: Pair = 1) -> None:
        super().__init__()
        if pair("AdaptiveAvgPool2d: output_size", output_size) != (1, 1):
            raise ArgumentError(
                f"AdaptiveAvgPool2d: only output_size 1 is supported; received {output_size!r}. Use AvgPool2d."
            )

    def forward(self, x: Tensor) -> Tensor:
        if x.ndim != 4:
            raise ShapeError(f"AdaptiveAvgPool2d: expected x (N, C, H, W); received {x.shape}.")
        return ops.mean(x, axis=(2, 3), keepdims=True)
