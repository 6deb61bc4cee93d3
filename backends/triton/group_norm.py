"""Group normalisation and its gradients; its kernels stand in ``kernels/triton/norm.py``."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from spiral.backend import Cap, Kernel
from spiral.backends.triton.arrays import address, cast, dense, wide_of
from spiral.backends.triton.norm import forward, is_wide, operand
from spiral.backends.triton.reduce import reduce
from spiral.backends.triton.rows import for_rows, sized
from spiral.device_array import DeviceArray
from spiral.dtype import FLOATS, as_dtype
from spiral.kernels.triton import norm as source
from spiral.kernels.triton.norm import STATISTICS_WIDE, WEIGHT, WEIGHT_WIDE
from spiral.kernels.triton.reduce import SUM

_SUMS = sized(
    source.channel_sums,
    dict.fromkeys(("g", "x", "mean", "rstd"), "*")
    | {"sums": "*wide"}
    | dict.fromkeys(("rows", "n", "channels", "flags"), "i32"),
    loops=True,
)
_DX = sized(
    source.group_norm_dx,
    dict.fromkeys(("g", "x", "weight", "mean", "rstd"), "*")
    | {"sums": "*wide", "dx": "*"}
    | dict.fromkeys(("rows", "n", "channels", "groups", "flags"), "i32"),
    loops=True,
)


def _group_norm(
    x: DeviceArray, weight: Any, bias: Any, groups: int, eps: float, y: DeviceArray, mean: DeviceArray,
    rstd: DeviceArray,
) -> None:  # fmt: skip
    channels, spatial = x.shape[1] // groups, math.prod(x.shape[2:])
    places = (max(1, spatial), channels, groups)
    forward(x, None, weight, bias, rstd.size, channels * spatial, eps, None, y, mean, rstd, places)


def _group_norm_grad(
    g: DeviceArray, x: DeviceArray, weight: Any, mean: DeviceArray, rstd: DeviceArray, groups: int,
    dx: DeviceArray, dw: DeviceArray, db: DeviceArray,
) -> None:  # fmt: skip
    d = as_dtype(dx.dtype)
    g, x, weight, mean, rstd = dense(cast(g, d)), dense(cast(x, d)), operand(weight, x), dense(mean), dense(rstd)
    if mean.dtype != rstd.dtype or mean.dtype not in (d.numpy, wide_of(x).numpy):
        mean, rstd = cast(mean, wide_of(x)), cast(rstd, wide_of(x))
    gpu, samples, channels = dx.memory, x.shape[0], x.shape[1]
    rows, n = samples * channels, math.prod(x.shape[2:])
    sums = DeviceArray.empty(gpu, (2, samples, channels), wide_of(x).numpy)
    if rows:
        flags = (
            (WEIGHT if weight is not None else 0) | is_wide(weight, x, WEIGHT_WIDE) | is_wide(rstd, x, STATISTICS_WIDE)
        )
        of_rows = mean.address, rstd.address
        kernel, grid = for_rows(_SUMS[x.dtype], rows, n)
        kernel(gpu, grid, g.address, x.address, *of_rows, sums.address, rows, n, channels // groups, flags)
        if n:
            kernel, grid = for_rows(_DX[x.dtype], rows, n)
            kernel(
                gpu, grid, g.address, x.address, address(weight), *of_rows, sums.address, dx.address, rows, n,
                channels // groups, groups, flags,
            )  # fmt: skip
    reduce(SUM, sums[0], (0,), dw)
    reduce(SUM, sums[1], (0,), db)


def kernels() -> Iterator[Kernel]:
    """The family's table."""
    yield Kernel("group_norm", _group_norm, Cap(FLOATS))
    yield Kernel("group_norm_grad", _group_norm_grad, Cap(FLOATS))
