"""Pooling in two dimensions."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from spiral.backend import Cap, Kernel
from spiral.backends.triton.arrays import LIMIT, NAMES, dense, grid
from spiral.backends.triton.embedding import add_along
from spiral.backends.triton.gemm import wide_type
from spiral.backends.triton.launching import TritonKernel
from spiral.device_array import DeviceArray
from spiral.dtype import FLOATS, DType, as_dtype, int32
from spiral.kernels.triton import pool2d as source

Pair = tuple[int, int]
_BLOCK = 512
_SHAPE = ("n", "height", "width", "oh", "ow", "kh", "kw", "sh", "sw", "ph", "pw")


def _kernels(fn: Any, *more: str, **pointers: str) -> dict[DType, TritonKernel]:
    return {
        d: TritonKernel(
            fn,
            {p: kind or f"*{NAMES[d]}" for p, kind in pointers.items()} | dict.fromkeys((*_SHAPE, *more), "i32"),
            {"WIDE": wide_type(d), "BLOCK": _BLOCK},
            aligned=False,
        )
        for d in FLOATS
    }


_MAX = _kernels(source.max_pool2d, x="", y="", position="*i32")
_AVG = _kernels(source.avg_pool2d, "include_pad", x="", y="")
_AVG_GRAD = _kernels(source.avg_pool2d_grad, "include_pad", g="", dx="")


def _shape(x: tuple[int, ...], y: tuple[int, ...], kernel: Pair, stride: Pair, padding: Pair) -> tuple[int, ...]:
    return (*x[2:], *y[2:], *kernel, *stride, *padding)


def _max_pool2d(
    x: DeviceArray, kernel: Pair, stride: Pair, padding: Pair, y: DeviceArray, position: DeviceArray
) -> None:
    if not y.size:
        return
    x, shape = dense(x), _shape(x.shape, y.shape, kernel, stride, padding)
    addresses = (x.address, y.address, position.address)
    _MAX[as_dtype(x.dtype)](y.memory, grid(y.size, _BLOCK), *addresses, y.size, *shape)


def _max_pool2d_grad(g: DeviceArray, position: DeviceArray, shape: tuple[int, ...], dx: DeviceArray) -> None:
    if not dx.size:
        return
    planes = shape[0] * shape[1]
    flat = (planes, math.prod(g.shape[2:]))
    rows, places = dense(g).reshape_view(flat), dense(position).reshape_view(flat)
    to = dx.reshape_view((planes, shape[2] * shape[3]))
    assert rows is not None and places is not None and to is not None  # all are dense
    add_along("max_pool2d_grad", rows, places, 1, False, to)


def _avg_pool2d(
    x: DeviceArray, kernel: Pair, stride: Pair, padding: Pair, count_include_pad: bool, y: DeviceArray
) -> None:
    if not y.size:
        return
    x, shape = dense(x), _shape(x.shape, y.shape, kernel, stride, padding)
    values = (x.address, y.address, y.size, *shape, int(count_include_pad))
    _AVG[as_dtype(x.dtype)](y.memory, grid(y.size, _BLOCK), *values)


def _avg_pool2d_grad(
    g: DeviceArray, shape: Any, kernel: Pair, stride: Pair, padding: Pair, count_include_pad: bool, dx: DeviceArray
) -> None:
    if not dx.size:
        return
    g, sizes = dense(g), _shape(shape, g.shape, kernel, stride, padding)
    values = (g.address, dx.address, dx.size, *sizes, int(count_include_pad))
    _AVG_GRAD[as_dtype(g.dtype)](dx.memory, grid(dx.size, _BLOCK), *values)


def _few(x: DeviceArray, *rest: Any) -> bool:
    return x.size < LIMIT


def _few_of_all(g: DeviceArray, *rest: Any) -> bool:
    shape = next(r for r in rest if isinstance(r, tuple))
    return max(g.size, math.prod(shape)) < LIMIT


def kernels() -> Iterator[Kernel]:
    """The family's table."""
    text = "takes fewer than 2**30 elements"
    forward, backward = Cap(FLOATS, where=_few, where_text=text), Cap(FLOATS, where=_few_of_all, where_text=text)
    yield Kernel("max_pool2d", _max_pool2d, forward)
    yield Kernel(
        "max_pool2d_grad", _max_pool2d_grad, Cap(FLOATS, integers=(int32,), where=_few_of_all, where_text=text)
    )
    yield Kernel("avg_pool2d", _avg_pool2d, forward)
    yield Kernel("avg_pool2d_grad", _avg_pool2d_grad, backward)
