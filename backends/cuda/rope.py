"""Rotary position embedding."""

from __future__ import annotations

from collections.abc import Iterator

from spiral.backend import Cap, Kernel
from spiral.backends.cuda.arrays import NAMES, THREADS, blocks, cast, dense, wide
from spiral.backends.cuda.launching import Source
from spiral.backends.cuda.units import product
from spiral.device_array import DeviceArray
from spiral.dtype import FLOATS, as_dtype, float32

_SOURCE = Source("rope.cu")
# tables are of x's dtype or float32, N pairs at a time are 16 bytes of x
_ROPE = {
    (x.numpy, table.numpy, n): _SOURCE.kernel(
        f"spiral::rope<{NAMES[x]}, {NAMES[table]}, {n}>", "P", "P", "P", "P", "8q3i4x"
    )
    for x in FLOATS for table in ((x, float32) if x.itemsize < 4 else (x,)) for n in (1, 16 // x.itemsize)
}  # fmt: skip


def _rope(
    x: DeviceArray, cos: DeviceArray, sin: DeviceArray, offset: int, interleaved: bool, inverse: bool, y: DeviceArray
) -> None:
    if not y.size:
        return
    size = x.itemsize
    if x.strides[3] != size and x.shape[3] > 1 or any(s % size for s in x.strides):
        x = dense(x)
    kind = as_dtype(x.dtype)
    if cos.dtype != sin.dtype or cos.dtype not in (x.dtype, wide(x).numpy):
        cos, sin = cast(cos, wide(x)), cast(sin, wide(x))
    cos, sin = dense(cos), dense(sin)
    b, h, t, d = x.shape
    half = cos.shape[1]
    strides = [s // size for s in x.strides[:3]]
    n = 16 // kind.itemsize
    tables = cos.itemsize * n
    # a table's N elements may be more than 16 bytes, which are then read in parts of 16
    whole = not any(v % n for v in (half, d, *strides)) and not (x.address % 16 or y.address % 16)
    if not whole or any(c.address % min(tables, 16) for c in (cos, sin)):
        n = 1
    units = half // n + -(-(d - 2 * half) // n)
    rows = product((b, h, t))
    _ROPE[x.dtype, cos.dtype, n](
        y.memory, blocks(rows * units), (THREADS, 1, 1), x.address, cos.address, sin.address, y.address, rows, h, t,
        *strides, d, half, offset, int(interleaved), int(inverse),
    )  # fmt: skip


def kernels() -> Iterator[Kernel]:
    """The family's table."""
    yield Kernel("rope", _rope, Cap(FLOATS))
