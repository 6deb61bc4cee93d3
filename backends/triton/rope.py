"""Rotary position embedding."""

from __future__ import annotations

from collections.abc import Iterator

from spiral.backend import Cap, Kernel
from spiral.backends.triton.arrays import NAMES, cast, dense, wide_of
from spiral.backends.triton.gemm import wide_type
from spiral.backends.triton.launching import TritonKernel
from spiral.device_array import DeviceArray
from spiral.dtype import FLOATS, float32
from spiral.kernels.triton import rope as source

_R, _C = 16, 64
_NUMBERS = ("rows", "heads", "positions", "x0", "x1", "x2", "width", "half", "offset", "interleaved", "inverse")
# tables are of x's dtype or float32
_ROPE = {
    (x.numpy, table.numpy): TritonKernel(
        source.rope,
        {"x": f"*{NAMES[x]}", "cos": f"*{NAMES[table]}", "sin": f"*{NAMES[table]}", "y": f"*{NAMES[x]}"}
        | dict.fromkeys(_NUMBERS, "i32"),
        {"WIDE": wide_type(x), "R": _R, "C": _C},
        divisible=("half", "width", "x0", "x1", "x2"),
    )
    for x in FLOATS for table in ((x, float32) if x.itemsize < 4 else (x,))
}  # fmt: skip


def _rope(
    x: DeviceArray, cos: DeviceArray, sin: DeviceArray, offset: int, interleaved: bool, inverse: bool, y: DeviceArray
) -> None:
    if not y.size:
        return
    size = x.itemsize
    if (x.strides[3] != size and x.shape[3] > 1) or any(s % size for s in x.strides):
        x = dense(x)
    if cos.dtype != sin.dtype or cos.dtype not in (x.dtype, wide_of(x).numpy):
        cos, sin = cast(cos, wide_of(x)), cast(sin, wide_of(x))
    cos, sin = dense(cos), dense(sin)
    b, h, t, d = x.shape
    half, rows = cos.shape[1], b * h * t
    grid = (-(-rows // _R), max(1, -(-half // _C)), 1)
    strides = [0 if n == 1 else s // size for n, s in zip(x.shape, x.strides, strict=True)]
    _ROPE[x.dtype, cos.dtype](
        y.memory, grid, x.address, cos.address, sin.address, y.address, rows, h, t, *strides[:3], d, half, offset,
        int(interleaved), int(inverse),
    )  # fmt: skip


def _few_rows(x: DeviceArray, *rest: object) -> bool:
    most = 2**31
    return x.shape[0] * x.shape[1] * x.shape[2] < most and all(abs(s) < most * x.itemsize for s in x.strides)


def kernels() -> Iterator[Kernel]:
    """The family's table."""
    yield Kernel("rope", _rope, Cap(FLOATS, where=_few_rows, where_text="takes fewer than 2**31 rows, and strides"))
