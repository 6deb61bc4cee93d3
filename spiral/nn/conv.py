"""Convolution layers, channels first."""

from __future__ import annotations

import math
from typing import Annotated

from spiral.creation import empty_
from spiral.errors import ArgumentError
from spiral.nn import functional, init
from spiral.nn.arguments import Count, Size, flag, integer
from spiral.nn.module import Module
from spiral.nn.parameter import Parameter
from spiral.nn.pool_functions import CountPair, SizePair, pair
from spiral.schema_values import OneOf
from spiral.tensor import Tensor


class _Conv(Module):
    weight: Parameter
    bias: Parameter | None

    def _build(self, channels: tuple[int, int], kernel: tuple[int, ...], groups: int, bias: bool) -> None:
        """Makes weight (out, in / groups, *kernel) and bias, uniform in ±1 / sqrt(fan_in) as in PyTorch."""
        name = type(self).__name__
        channels = integer(name, "in_channels", channels[0], 1), integer(name, "out_channels", channels[1], 1)
        self.in_channels, self.out_channels = channels
        groups = integer(name, "groups", groups, 1)
        bias = flag(name, "bias", bias)
        if channels[0] % groups or channels[1] % groups:
            raise ArgumentError(
                f"{type(self).__name__}: groups must divide in_channels={channels[0]} and "
                f"out_channels={channels[1]}; received {groups}."
            )
        self.groups = groups
        self.weight = Parameter(empty_((channels[1], channels[0] // groups, *kernel)))
        self.register_parameter("bias", Parameter(empty_((channels[1],))) if bias else None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draws first values."""
        bound = 1.0 / math.sqrt(math.prod(self.weight.shape[1:]))
        init.uniform_(self.weight, -bound, bound)
        if self.bias is not None:
            init.uniform_(self.bias, -bound, bound)

    def _same_padding(self, kernel: int, stride: int, dilation: int) -> int:
        total = dilation * (kernel - 1)
        if stride != 1 or total % 2:
            raise ArgumentError(
                f"{type(self).__name__}: padding='same' needs stride 1 and an even dilation * (kernel_size - 1); "
                f"received stride {stride} and {total}."
            )
        return total // 2


class Conv2d(_Conv):
    """Cross-correlation of x (N, C, H, W).

    Args:
        in_channels: C.
        out_channels: Channels of the result.
        kernel_size: Height and width of the window, or one number for both; so for the next three.
        stride: Steps of the window.
        padding: Zeros on each side, or ``"same"`` to keep the size.
        dilation: Distance between the window's elements.
        groups: Groups of channels that do not see each other.
        bias: Whether to add a bias.
    """

    def __init__(
        self,
        in_channels: Size,
        out_channels: Size,
        kernel_size: SizePair,
        stride: SizePair = 1,
        padding: CountPair | Annotated[str, OneOf("same")] = 0,
        dilation: SizePair = 1,
        groups: Size = 1,
        bias: bool = True,
    ) -> None:
        super().__init__()
        self.kernel_size = pair("Conv2d: kernel_size", kernel_size, 1)
        self.stride = pair("Conv2d: stride", stride, 1)
        self.dilation = pair("Conv2d: dilation", dilation, 1)
        if isinstance(padding, str):
            if padding != "same":
                raise ArgumentError(f"Conv2d: padding must be integers or 'same'; received {padding!r}.")
            sides = [self._same_padding(*a) for a in zip(self.kernel_size, self.stride, self.dilation, strict=True)]
            padding = (sides[0], sides[1])
        self.padding = pair("Conv2d: padding", padding)
        self._build((in_channels, out_channels), self.kernel_size, groups, bias)

    def forward(self, x: Tensor) -> Tensor:
        return functional.conv2d(x, self.weight, self.bias, self.stride, self.padding, self.dilation, self.groups)

    def extra_repr(self) -> str:
        return f"stride={self.stride}, padding={self.padding}, dilation={self.dilation}, groups={self.groups}"


class Conv1d(_Conv):
    """Cross-correlation of x (N, C, L); arguments as in `Conv2d`, with one number each."""

    def __init__(
        self,
        in_channels: Size,
        out_channels: Size,
        kernel_size: Size,
        stride: Size = 1,
        padding: Count | Annotated[str, OneOf("same")] = 0,
        dilation: Size = 1,
        groups: Size = 1,
        bias: bool = True,
    ) -> None:
        super().__init__()
        self.kernel_size = integer("Conv1d", "kernel_size", kernel_size, 1)
        self.stride = integer("Conv1d", "stride", stride, 1)
        self.dilation = integer("Conv1d", "dilation", dilation, 1)
        if isinstance(padding, str):
            if padding != "same":
                raise ArgumentError(f"Conv1d: padding must be an integer or 'same'; received {padding!r}.")
            padding = self._same_padding(self.kernel_size, self.stride, self.dilation)
        self.padding = integer("Conv1d", "padding", padding, 0)
        self._build((in_channels, out_channels), (self.kernel_size,), groups, bias)

    def forward(self, x: Tensor) -> Tensor:
        return functional.conv1d(x, self.weight, self.bias, self.stride, self.padding, self.dilation, self.groups)

    def extra_repr(self) -> str:
        return f"stride={self.stride}, padding={self.padding}, dilation={self.dilation}, groups={self.groups}"
