"""Pooling as functions; `spiral.nn.functional` exports them."""

from __future__ import annotations

import numpy as np

from spiral import ops
from spiral.creation import asarray
from spiral.errors import ArgumentError, ShapeError
from spiral.tensor import Tensor

Pair = int | tuple[int, int]


def pair(name: str, value: Pair) -> tuple[int, int]:
    """A length for each of two axes, from one or two integers."""
    if isinstance(value, int):
        return value, value
    if len(value) != 2:
        raise ArgumentError(f"{name}: expected an integer or two; received {value!r}.")
    return int(value[0]), int(value[1])


def max_pool2d(x: Tensor, kernel_size: Pair, stride: Pair | None = None, padding: Pair = 0) -> Tensor:
    """Largest value of each window of x (N, C, H, W); the stride is the window's size by default."""
    kernel = pair("max_pool2d: kernel_size", kernel_size)
    stride = kernel if stride is None else pair("max_pool2d: stride", stride)
    return ops.max_pool2d(x, kernel=kernel, stride=stride, padding=pair("max_pool2d: padding", padding))


def avg_pool2d(
    x: Tensor, kernel_size: Pair, stride: Pair | None = None, padding: Pair = 0, count_include_pad: bool = True
) -> Tensor:
    """Mean of each window of x (N, C, H, W); the stride is the window's size by default."""
    kernel = pair("avg_pool2d: kernel_size", kernel_size)
    return ops.avg_pool2d(
        x,
        kernel=kernel,
        stride=kernel if stride is None else pair("avg_pool2d: stride", stride),
        padding=pair("avg_pool2d: padding", padding),
        count_include_pad=count_include_pad,
    )


def _rows(name: str, x: Tensor) -> Tensor:
    """x (N, C, L) as (N, C, 1, L)."""
    if x.ndim != 3:
        raise ShapeError(f"{name}: expected x (N, C, L); received {x.shape}.")
    return ops.expand_dims(x, axis=2)  # type: ignore[no-any-return]


def max_pool1d(x: Tensor, kernel_size: int, stride: int | None = None, padding: int = 0) -> Tensor:
    """Largest value of each window of x (N, C, L); the stride is the window's size by default."""
    step = kernel_size if stride is None else stride
    y = ops.max_pool2d(_rows("max_pool1d", x), kernel=(1, kernel_size), stride=(1, step), padding=(0, padding))
    return ops.squeeze(y, axis=2)  # type: ignore[no-any-return]


def avg_pool1d(
    x: Tensor, kernel_size: int, stride: int | None = None, padding: int = 0, count_include_pad: bool = True
) -> Tensor:
    """Mean of each window of x (N, C, L); the stride is the window's size by default."""
    y = ops.avg_pool2d(
        _rows("avg_pool1d", x),
        kernel=(1, kernel_size),
        stride=(1, kernel_size if stride is None else stride),
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
    if x.ndim != 4:
        raise ShapeError(f"{name}: expected x (N, C, H, W); received {x.shape}.")
    sizes = (output_size, output_size) if isinstance(output_size, int) else tuple(output_size)
    if len(sizes) != 2:
        raise ArgumentError(f"{name}: expected an integer or two; received {output_size!r}.")
    if sizes == (1, 1):
        return ops.mean(x, axis=(2, 3), keepdims=True)
    if sizes[1] is not None and sizes[1] != x.shape[3]:
        x = x @ ops.matrix_transpose(_averaging(name, x.shape[3], sizes[1], x))
    if sizes[0] is not None and sizes[0] != x.shape[2]:
        x = _averaging(name, x.shape[2], sizes[0], x) @ x
    return x


def adaptive_avg_pool1d(x: Tensor, output_size: int) -> Tensor:
    """Means over windows of x (N, C, L) so chosen that the result is (N, C, output_size)."""
    return ops.squeeze(adaptive_avg_pool2d(_rows("adaptive_avg_pool1d", x), (None, output_size)), axis=2)  # type: ignore[no-any-return]
