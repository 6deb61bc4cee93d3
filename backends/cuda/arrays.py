"""Device arrays as kernels want them: dense, of one dtype, with few axes."""

from __future__ import annotations

from typing import Any

from spiral.backends.cuda.launching import CudaKernel, Source
from spiral.device_array import DeviceArray
from spiral.dtype import (
    ALL,
    DType,
    as_dtype,
    bfloat16,
    bool_,
    float16,
    float32,
    float64,
    int8,
    int16,
    int32,
    int64,
    uint8,
    uint16,
    uint32,
    uint64,
)
from spiral.gpu import axes

THREADS = 256
AXES = 8

NAMES: dict[DType, str] = {
    bool_: "bool", int8: "spiral::i8", int16: "short", int32: "int", int64: "spiral::i64", uint8: "spiral::u8",
    uint16: "spiral::u16", uint32: "spiral::u32", uint64: "spiral::u64", float16: "spiral::f16",
    bfloat16: "spiral::bf16", float32: "float", float64: "double",
}  # fmt: skip
"""What each dtype is called in CUDA C++."""

BITS = {1: "spiral::u8", 2: "spiral::u16", 4: "spiral::u32", 8: "spiral::u64"}


def layout_format(operands: int) -> str:
    """The `struct` format of ``Layout<operands>``."""
    return f"i4x{AXES}q{operands * AXES}q"


def blocks(n: int, per_block: int = THREADS) -> tuple[int, int, int]:
    """A grid of one axis for n elements."""
    return (-(-n // per_block), 1, 1)


def collapsed(shape: tuple[int, ...], *strides: tuple[int, ...]) -> tuple[tuple[int, ...], list[tuple[int, ...]]]:
    """Lengths and each operand's strides with as few axes as possible, at least one; see `spiral.gpu.axes`."""
    kept = axes.collapsed(shape, *strides) or [[1] + [0] * len(strides)]
    return tuple([a[0] for a in kept]), [tuple([a[k + 1] for a in kept]) for k in range(len(strides))]


def layout(shape: tuple[int, ...], *strides: tuple[int, ...]) -> tuple[int, ...] | None:
    """The values of a ``Layout``, or None where more than 8 axes remain after merging."""
    lengths, merged = collapsed(shape, *strides)
    n = len(lengths)
    if n > AXES:
        return None
    rest = (0,) * (AXES - n)
    values: tuple[int, ...] = (n, *lengths, *rest)
    for s in merged:
        values += (*s, *rest)
    return values


_COPY = Source("copy.cu")
_CAST = {
    (a, b): _COPY.kernel(f"spiral::cast<{NAMES[a]}, {NAMES[b]}>", "P", "P", "q") for a in ALL for b in ALL if a is not b
}
_CAST_STRIDED = {
    (a, b): _COPY.kernel(f"spiral::cast_strided<{NAMES[a]}, {NAMES[b]}>", "P", "P", "q", layout_format(1))
    for a in ALL for b in ALL if a is not b
}  # fmt: skip
_COPY_STRIDED: dict[int, CudaKernel] = {
    size: _COPY.kernel(f"spiral::copy_strided<{name}>", "P", "P", "q", layout_format(2)) for size, name in BITS.items()
}


def copy_into(x: DeviceArray, y: DeviceArray) -> None:
    """Copies the elements of x into y, which has its shape and dtype; both may have strides."""
    if not x.size:
        return
    if x.contiguous and y.contiguous:
        y.memory.copy(y.address, x.address, x.nbytes)
        return
    where = layout(x.shape, x.strides, y.strides)
    if where is None:  # more than 8 axes that do not merge: along the first one by one
        for i in range(x.shape[0]):
            copy_into(x[i], y[i])
        return
    _COPY_STRIDED[x.dtype.itemsize](y.memory, blocks(x.size), (THREADS, 1, 1), x.address, y.address, x.size, *where)


def dense(x: DeviceArray) -> DeviceArray:
    """x in C order without gaps: itself, or a copy."""
    if x.contiguous:
        return x
    y = DeviceArray.empty(x.memory, x.shape, x.dtype)
    copy_into(x, y)
    return y


def cast_into(x: DeviceArray, y: DeviceArray) -> None:
    """Writes x in the dtype of y into y, which is dense and has its shape."""
    to, source = as_dtype(y.dtype), as_dtype(x.dtype)
    if to is source:
        copy_into(x, y)
        return
    if not x.size:
        return
    gpu, n = y.memory, x.size
    if x.contiguous:
        _CAST[to, source](gpu, blocks(n), (THREADS, 1, 1), x.address, y.address, n)
        return
    where = layout(x.shape, x.strides)
    if where is None:
        cast_into(dense(x), y)
        return
    _CAST_STRIDED[to, source](gpu, blocks(n), (THREADS, 1, 1), x.address, y.address, n, *where)


def cast(x: DeviceArray, dtype: DType) -> DeviceArray:
    """x in a dtype: itself, or a dense copy."""
    if x.dtype == dtype.numpy:
        return x
    y = DeviceArray.empty(x.memory, x.shape, dtype.numpy)
    cast_into(x, y)
    return y


def wide(*xs: Any) -> DType:
    """The dtype that kernels compute in for these arrays."""
    return float64 if any(isinstance(x, DeviceArray) and x.dtype == float64.numpy for x in xs) else float32
