"""Pooling layers, channels first."""

from __future__ import annotations

from spiral.nn import functional
from spiral.nn.arguments import Count, Size, flag, integer
from spiral.nn.module import Module
from spiral.nn.pool_functions import CountPair, SizePair, output_sizes, pair
from spiral.tensor import Tensor


class _Pool(Module):
    def __init__(self, kernel_size: SizePair, stride: SizePair | None = None, padding: CountPair = 0) -> None:
        super().__init__()
        name = type(self).__name__
        self.kernel_size = pair(f"{name}: kernel_size", kernel_size, 1)
        self.stride = self.kernel_size if stride is None else pair(f"{name}: stride", stride, 1)
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
        self,
        kernel_size: SizePair,
        stride: SizePair | None = None,
        padding: CountPair = 0,
        count_include_pad: bool = True,
    ) -> None:
        super().__init__(kernel_size, stride, padding)
        self.count_include_pad = flag("AvgPool2d", "count_include_pad", count_include_pad)

    def forward(self, x: Tensor) -> Tensor:
        return functional.avg_pool2d(x, self.kernel_size, self.stride, self.padding, self.count_include_pad)


class _Pool1d(Module):
    def __init__(self, kernel_size: Size, stride: Size | None = None, padding: Count = 0) -> None:
        super().__init__()
        name = type(self).__name__
        self.kernel_size = integer(name, "kernel_size", kernel_size, 1)
        self.stride = self.kernel_size if stride is None else integer(name, "stride", stride, 1)
        self.padding = integer(name, "padding", padding, 0)

    def extra_repr(self) -> str:
        return f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}"


class MaxPool1d(_Pool1d):
    """Largest value of each window of x (N, C, L); the stride is the window's size by default."""

    def forward(self, x: Tensor) -> Tensor:
        return functional.max_pool1d(x, self.kernel_size, self.stride, self.padding)


class AvgPool1d(_Pool1d):
    """Mean of each window of x (N, C, L); ``count_include_pad`` counts the padding's zeros."""

    def __init__(
        self, kernel_size: Size, stride: Size | None = None, padding: Count = 0, count_include_pad: bool = True
    ) -> None:
        super().__init__(kernel_size, stride, padding)
        self.count_include_pad = flag("AvgPool1d", "count_include_pad", count_include_pad)

    def forward(self, x: Tensor) -> Tensor:
        return functional.avg_pool1d(x, self.kernel_size, self.stride, self.padding, self.count_include_pad)


class AdaptiveAvgPool2d(Module):
    """Means over windows of x (N, C, H, W) so chosen that the result is (N, C, *output_size); None keeps a length."""

    def __init__(self, output_size: Size | tuple[Size | None, Size | None] = 1) -> None:
        super().__init__()
        self.output_size = output_sizes("AdaptiveAvgPool2d", output_size)

    def forward(self, x: Tensor) -> Tensor:
        return functional.adaptive_avg_pool2d(x, self.output_size)

    def extra_repr(self) -> str:
        return f"output_size={self.output_size}"


class AdaptiveAvgPool1d(Module):
    """Means over windows of x (N, C, L) so chosen that the result is (N, C, output_size)."""

    def __init__(self, output_size: Size = 1) -> None:
        super().__init__()
        self.output_size = integer("AdaptiveAvgPool1d", "output_size", output_size, 1)

    def forward(self, x: Tensor) -> Tensor:
        return functional.adaptive_avg_pool1d(x, self.output_size)

    def extra_repr(self) -> str:
        return f"output_size={self.output_size}"
