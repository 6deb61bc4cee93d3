"""Pooling as functions; `spiral.nn.functional` exports them."""

from __future__ import annotations

from typing import Any

import numpy as np

from spiral import ops
from spiral.creation import asarray
from spiral.errors import ArgumentError, ShapeError, received
from spiral.nn.arguments import Count, Size, flag, integer, integers, tensors
from spiral.tensor import Tensor
from spiral.tensor_core import TensorCore

Pair = int | tuple[int, int]
SizePair = Size | tuple[Size, Size]
CountPair = Count | tuple[Count, Count]


def pair(name: str, value: Pair, least: int = 0) -> tuple[int, int]:
    """A length for each of two axes, from one or two integers.

    Args:
        name: Function and argument, as in ``"conv2d: stride"``.
        value: What was given.
        least: Smallest length.

    Raises:
        ArgumentError: it is something else.
    """
    if (
        value.__class__ is tuple
        and len(value) == 2
        and value[0].__class__ is value[1].__class__ is int
        and min(value) >= least
    ):
        return value  # a layer's own: 0.2 µs for each of a forward's three pairs instead of 2
    owner, _, what = name.partition(": ")
    first, second = integers(owner, what, value, least, count=2)
    return first, second


def output_sizes(owner: str, value: Any) -> tuple[int | None, int | None]:
    """Two lengths of a result, from one or two; None keeps the input's.

    Raises:
        ArgumentError: it is something else.
    """
    given = tuple(value) if isinstance(value, (list, tuple)) else (value, value)
    if len(given) != 2:
        raise ArgumentError(f"{owner}: output_size must be an integer or two; received {received(value)}.")
    height, width = [None if v is None else integer(owner, "output_size", v, 1) for v in given]
    return height, width


def max_pool2d(x: Tensor, kernel_size: Pair, stride: Pair | None = None, padding: Pair = 0) -> Tensor:
    """Largest value of each window of x (N, C, H, W); the stride is the window's size by default."""
    kernel = pair("max_pool2d: kernel_size", kernel_size, 1)
    stride = kernel if stride is None else pair("max_pool2d: stride", stride, 1)
    return ops.max_pool2d(x, kernel=kernel, stride=stride, padding=pair("max_pool2d: padding", padding))


def avg_pool2d(
    x: Tensor, kernel_size: Pair, stride: Pair | None = None, padding: Pair = 0, count_include_pad: bool = True
) -> Tensor:
    """Mean of each window of x (N, C, H, W); the stride is the window's size by default."""
    kernel = pair("avg_pool2d: kernel_size", kernel_size, 1)
    count_include_pad = flag("avg_pool2d", "count_include_pad", count_include_pad)
    return ops.avg_pool2d(
        x,
        kernel=kernel,
        stride=kernel if stride is None else pair("avg_pool2d: stride", stride, 1),
        padding=pair("avg_pool2d: padding", padding),
        count_include_pad=count_include_pad,
    )


def _window(name: str, kernel_size: int, stride: int | None, padding: int) -> tuple[int, int, int]:
    kernel_size = integer(name, "kernel_size", kernel_size, 1)
    step = kernel_size if stride is None else integer(name, "stride", stride, 1)
    return kernel_size, step, integer(name, "padding", padding, 0)


def _rows(name: str, x: Tensor) -> Tensor:
    """x (N, C, L) as (N, C, 1, L)."""
    if not isinstance(x, TensorCore):
        tensors(name, x=x)
    if x.ndim != 3:
        raise ShapeError(f"{name}: expected x (N, C, L); received {x.shape}.")
    return ops.expand_dims(x, axis=2)  # type: ignore[no-any-return]


def max_pool1d(x: Tensor, kernel_size: int, stride: int | None = None, padding: int = 0) -> Tensor:
    """Largest value of each window of x (N, C, L); the stride is the window's size by default."""
    name = "max_pool1d"
    kernel_size, step, padding = _window(name, kernel_size, stride, padding)
    y = ops.max_pool2d(_rows(name, x), kernel=(1, kernel_size), stride=(1, step), padding=(0, padding))
    return ops.squeeze(y, axis=2)  # type: ignore[no-any-return]


def avg_pool1d(
    x: Tensor, kernel_size: int, stride: int | None = None, padding: int = 0, count_include_pad: bool = True
) -> Tensor:
    """Mean of each window of x (N, C, L); the stride is the window's size by default."""
    kernel_size, step, padding = _window("avg_pool1d", kernel_size, stride, padding)
    count_include_pad = flag("avg_pool1d", "count_include_pad", count_include_pad)
    y = ops.avg_pool2d(
        _rows("avg_pool1d", x),
        kernel=(1, kernel_size),
        stride=(1, step),
        padding=(0, padding),
        count_include_pad=count_include_pad,
    )
    return ops.squeeze(y, axis=2)  # type: ignore[no-any-return]


def _averaging(name: str, length: int, parts: int, like: Tensor) -> Tensor:
    """(parts, length): row i takes the mean of elements floor(i n / parts) to ceil((i + 1) n / parts), as PyTorch."""
    if parts < 1 or length < 1:
        raise ArgumentError(f"{name}: output_size must be positive; received {parts} for a length of {length}.")
    matrix = np.zeros((parts, length))
    for i in range(parts):
        start, end = i * length // parts, -(-(i + 1) * length // parts)
        matrix[i, start:end] = 1.0 / (end - start)
    return asarray(matrix, dtype=like.dtype, device=like.device)


def adaptive_avg_pool2d(x: Tensor, output_size: int | tuple[int | None, int | None]) -> Tensor:
    """Means over windows of x (N, C, H, W) so chosen that the result is (N, C, *output_size); None keeps a length."""
    name = "adaptive_avg_pool2d"
    if not isinstance(x, TensorCore):
        tensors(name, x=x)
    if x.ndim != 4:
        raise ShapeError(f"{name}: expected x (N, C, H, W); received {x.shape}.")
    sizes = output_sizes(name, output_size)
    if sizes == (1, 1):
        return ops.mean(x, axis=(2, 3), keepdims=True)
    if sizes[1] is not None and sizes[1] != x.shape[3]:
        x = x @ ops.matrix_transpose(_averaging(name, x.shape[3], sizes[1], x))
    if sizes[0] is not None and sizes[0] != x.shape[2]:
        x = _averaging(name, x.shape[2], sizes[0], x) @ x
    return x


def adaptive_avg_pool1d(x: Tensor, output_size: int) -> Tensor:
    """Means over windows of x (N, C, L) so chosen that the result is (N, C, output_size)."""
    name = "adaptive_avg_pool1d"
    length = integer(name, "output_size", output_size, 1)
    return ops.squeeze(adaptive_avg_pool2d(_rows(name, x), (None, length)), axis=2)  # type: ignore[no-any-return]
