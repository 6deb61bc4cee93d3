"""Group normalisation and its gradients."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from spiral.backend import Cap, Kernel
from spiral.backends.cuda.arrays import NAMES, cast, dense
from spiral.backends.cuda.launching import Source
from spiral.backends.cuda.norm import (
    STATISTICS_WIDE,
    WEIGHT_WIDE,
    address,
    forward,
    is_wide,
    operand,
    weights_from,
    wide_of,
)
from spiral.backends.cuda.rows import row_grid
from spiral.device_array import DeviceArray
from spiral.dtype import FLOATS, as_dtype

_SOURCE = Source("group_norm.cu")
_SUMS = {d.numpy: _SOURCE.kernel(f"spiral::group_norm_sums<{NAMES[d]}>", *"PPPPPqqiii") for d in FLOATS}
_DX = {d.numpy: _SOURCE.kernel(f"spiral::group_norm_dx<{NAMES[d]}>", *"PPPPPPPqqiiii") for d in FLOATS}


def _group_norm(
    x: DeviceArray,
    weight: Any,
    bias: Any,
    groups: int,
    eps: float,
    y: DeviceArray,
    mean: DeviceArray,
    rstd: DeviceArray,
) -> None:
    channels, spatial = x.shape[1] // groups, math.prod(x.shape[2:])
    forward(
        x, None, weight, bias, rstd.size, channels * spatial, eps, None, y, mean, rstd,
        (max(1, spatial), channels, groups),
    )  # fmt: skip


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
    sums = DeviceArray.empty(gpu, (2, rows), wide_of(x).numpy)
    if rows:
        flags = is_wide(weight, x, WEIGHT_WIDE) | is_wide(rstd, x, STATISTICS_WIDE)
        group, grid, block = row_grid(rows, n, x.itemsize, 8)
        of_rows = mean.address, rstd.address
        _SUMS[x.dtype](
            gpu, grid, block, g.address, x.address, *of_rows, sums.address, rows, n, channels // groups, group, flags
        )
        if n:
            _DX[x.dtype](
                gpu, grid, block, g.address, x.address, address(weight), *of_rows, sums.address, dx.address, rows, n,
                channels, channels // groups, group, flags,
            )  # fmt: skip
    weights_from(sums, samples, dw, db)


def kernels() -> Iterator[Kernel]:
    """The family's table."""
    yield Kernel("group_norm", _group_norm, Cap(FLOATS))
    yield Kernel("group_norm_grad", _group_norm_grad, Cap(FLOATS))
