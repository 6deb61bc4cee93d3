"""Pooling in two dimensions."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from spiral.backend import Cap, Kernel
from spiral.backends.cuda.arrays import NAMES, THREADS, blocks, cast_into, dense, wide
from spiral.backends.cuda.launching import CudaKernel, Source
from spiral.device_array import DeviceArray
from spiral.dtype import FLOATS, DType, as_dtype, int32

Pair = tuple[int, int]
_POOL = Source("pool2d.cu")
_SHAPE = "10i"


def _kernels(name: str, *formats: str) -> dict[DType, CudaKernel]:
    return {d: _POOL.kernel(f"spiral::{name}<{NAMES[d]}>", *formats) for d in FLOATS}


_MAX = _kernels("max_pool2d", "P", "P", "P", _SHAPE, "q")
_MAX_GRAD = _kernels("max_pool2d_grad", "P", "P", "P", "i", "i", "q")
_AVG = _kernels("avg_pool2d", "P", "P", _SHAPE, "i", "q")
_AVG_GRAD = _kernels("avg_pool2d_grad", "P", "P", _SHAPE, "i", "q")


def _shape(x: tuple[int, ...], y: tuple[int, ...], kernel: Pair, stride: Pair, padding: Pair) -> tuple[int, ...]:
    return (*x[2:], *y[2:], *kernel, *stride, *padding)


def _max_pool2d(
    x: DeviceArray, kernel: Pair, stride: Pair, padding: Pair, y: DeviceArray, position: DeviceArray
) -> None:
    if not y.size:
        return
    x, shape = dense(x), _shape(x.shape, y.shape, kernel, stride, padding)
    to = (y.address, position.address, *shape, y.size)
    _MAX[as_dtype(x.dtype)](y.memory, blocks(y.size), (THREADS, 1, 1), x.address, *to)


def _max_pool2d_grad(g: DeviceArray, position: DeviceArray, shape: tuple[int, ...], dx: DeviceArray) -> None:
    if not dx.size:
        return
    g, position, gpu = dense(g), dense(position), dx.memory
    planes, size = shape[0] * shape[1], shape[2] * shape[3]
    d, sums = as_dtype(g.dtype), wide(g)
    # 16-bit sums would be rounded once per window
    to = dx if dx.dtype == sums.numpy else DeviceArray.empty(gpu, dx.shape, sums.numpy)
    gpu.fill(to.address, 0, to.nbytes)
    operands = (g.address, position.address, to.address, math.prod(g.shape[2:]), size, planes)
    _MAX_GRAD[d](gpu, (-(-planes // 8), 1, 1), (THREADS, 1, 1), *operands)
    if to is not dx:
        cast_into(to, dx)


def _avg_pool2d(
    x: DeviceArray, kernel: Pair, stride: Pair, padding: Pair, count_include_pad: bool, y: DeviceArray
) -> None:
    if not y.size:
        return
    x, shape = dense(x), _shape(x.shape, y.shape, kernel, stride, padding)
    to = (y.address, *shape, count_include_pad, y.size)
    _AVG[as_dtype(x.dtype)](y.memory, blocks(y.size), (THREADS, 1, 1), x.address, *to)


def _avg_pool2d_grad(
    g: DeviceArray, shape: Any, kernel: Pair, stride: Pair, padding: Pair, count_include_pad: bool, dx: DeviceArray
) -> None:
    if not dx.size:
        return
    g, sizes = dense(g), _shape(shape, g.shape, kernel, stride, padding)
    to = (dx.address, *sizes, count_include_pad, dx.size)
    _AVG_GRAD[as_dtype(g.dtype)](dx.memory, blocks(dx.size), (THREADS, 1, 1), g.address, *to)


def kernels() -> Iterator[Kernel]:
    """The family's table."""
    cap = Cap(FLOATS)
    yield Kernel("max_pool2d", _max_pool2d, cap)
    yield Kernel("max_pool2d_grad", _max_pool2d_grad, Cap(FLOATS, integers=(int32,)))
    yield Kernel("avg_pool2d", _avg_pool2d, cap)
    yield Kernel("avg_pool2d_grad", _avg_pool2d_grad, cap)
