"""Device arrays as kernels want them: dense, of one dtype, with few axes."""

from __future__ import annotations

import functools
from typing import Any

from spiral.backends.triton.launching import TritonKernel
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
from spiral.gpu.axes import collapsed
from spiral.kernels.triton import copy as source

LIMIT = 2**30
"""Elements from which on a launch is cut in two: kernels count in 31 bits."""

NAMES: dict[DType, str] = {
    bool_: "i8", int8: "i8", int16: "i16", int32: "i32", int64: "i64", uint8: "u8", uint16: "u16", uint32: "u32",
    uint64: "u64", float16: "fp16", bfloat16: "bf16", float32: "fp32", float64: "fp64",
}  # fmt: skip
"""What each dtype is called in Triton; a bool is a byte that is 0 or 1."""

BITS = {1: "i8", 2: "i16", 4: "i32", 8: "i64"}
AXES = 5
BLOCK = 1024


def grid(n: int, per_program: int = BLOCK) -> tuple[int, int, int]:
    """Programs for n elements."""
    return (-(-n // per_program), 1, 1)


def _reaches(axes: list[list[int]]) -> bool:
    """Whether an operand's offsets need more than 31 bits."""
    return any(sum((a[0] - 1) * abs(a[k]) for a in axes) >= LIMIT for k in range(1, len(axes[0]))) if axes else False


@functools.lru_cache(4096)
def layout(
    most: int, shape: tuple[int, ...], itemsize: int, broadcast: bool, *strides: tuple[int, ...]
) -> tuple[int, ...] | None:
    """Lengths and strides as kernels take them, or None where more than ``most`` axes remain or offsets are too large.

    Args:
        most: axes that the kernel has.
        shape: lengths.
        itemsize: bytes of an element.
        broadcast: runs may be one element repeated: the last stride may be 0.
        *strides: bytes per axis, for each operand.

    Returns:
        Whether the last axis is cut into runs of 16 bytes, then lengths but the first, then strides in elements
        or runs.
    """
    axes = collapsed(shape, *[tuple([s // itemsize for s in own]) for own in strides])
    if len(axes) > most or _reaches(axes):
        return None
    axes = [[1] + [0] * len(strides)] * (most - len(axes)) + axes
    v = 16 // itemsize
    last = axes[-1]
    runs = (
        last[0] % v == 0
        and all(s == 1 or (broadcast and s == 0) for s in last[1:])
        and all(s % v == 0 for a in axes[:-1] for s in a[1:])
    )
    if runs:
        axes = [[a[0], *[s // v for s in a[1:]]] for a in axes[:-1]] + [[last[0] // v, *last[1:]]]
    values = [int(runs), *[a[0] for a in axes[1:]]]
    for k in range(len(strides)):
        values += [a[k + 1] for a in axes]
    return tuple(values)


@functools.lru_cache(1024)
def _tiles(
    shape: tuple[int, ...], itemsize: int, xs: tuple[int, ...], ys: tuple[int, ...]
) -> tuple[int, tuple[int, ...]] | None:
    """Programs and values of ``copy_tiles`` where x and y are dense along different long axes, else None."""
    axes = collapsed(shape, *[tuple([s // itemsize for s in own]) for own in (xs, ys)])
    along_x = [i for i, a in enumerate(axes) if a[1] == 1 and a[0] >= 16]
    along_y = [i for i, a in enumerate(axes) if a[2] == 1 and a[0] >= 16]
    if not along_x or not along_y or along_x[0] == along_y[0] or not 2 <= len(axes) <= 5 or _reaches(axes):
        return None
    i, j = along_x[0], along_y[0]
    a, b = axes[i], axes[j]
    rest = [axis for k, axis in enumerate(axes) if k not in (i, j)]
    rest = [[1, 0, 0]] * (3 - len(rest)) + rest
    side = TILE[itemsize]
    tiles_a, tiles_b = -(-a[0] // side), -(-b[0] // side)
    values = (a[0], b[0], b[1], a[2], tiles_a, tiles_b, rest[1][0], rest[2][0])
    return (
        tiles_a * tiles_b * rest[0][0] * rest[1][0] * rest[2][0],
        (*values, *[r[1] for r in rest], *[r[2] for r in rest]),
    )


TILE = {1: 64, 2: 64, 4: 64, 8: 32}
"""Sides of the tiles that are transposed."""


def _numbers(*names: str) -> dict[str, str]:
    return dict.fromkeys(names, "i32")


_LENGTHS = ("n1", "n2", "n3", "n4")
_X = ("x0", "x1", "x2", "x3", "x4")
_Y = ("y0", "y1", "y2", "y3", "y4")
_COPY = {
    size: TritonKernel(
        source.copy_strided,
        {"x": f"*{name}", "y": f"*{name}"} | _numbers("n", "runs", *_LENGTHS, *_X, *_Y),
        {"BLOCK": BLOCK, "V": 16 // size},
    )
    for size, name in BITS.items()
}
_COPY_TILES = {
    size: TritonKernel(
        source.copy_tiles,
        {"x": f"*{name}", "y": f"*{name}"}
        | _numbers("a", "b", "xb", "ya", "tiles_a", "tiles_b", "n1", "n2", "x0", "x1", "x2", "y0", "y1", "y2"),
        {"A": TILE[size], "B": TILE[size]},
    )
    for size, name in BITS.items()
}
_SMALL = (float32, float16, bfloat16)
_CAST_DENSE = {
    (a.numpy, b.numpy): TritonKernel(
        source.cast_dense, {"x": f"*{NAMES[a]}", "y": f"*{NAMES[b]}", "n": "i32"}, {"BLOCK": BLOCK}
    )
    for a in _SMALL
    for b in _SMALL
    if a is not b
}
_CAST = {
    floating: TritonKernel(
        source.cast_strided,
        {"x": "*i8", "y": "*i8"} | _numbers("n", "source", "to", *_LENGTHS, *_X),
        {"BLOCK": BLOCK, "FLOATING": floating},
    )
    for floating in (False, True)
}
_CODE = {d: source.CODES.index(d.name) for d in ALL}


def halves(y: DeviceArray, *operands: Any) -> Any:
    """An array in two parts along its first axis, each with the parts of operands that broadcast to it."""
    axis = next(i for i, d in enumerate(y.shape) if d > 1)
    middle = y.shape[axis] // 2
    wide = [x.broadcast_to(y.shape) if type(x) is DeviceArray else x for x in operands]
    for part in (slice(None, middle), slice(middle, None)):
        at = (*(slice(None),) * axis, part)
        yield y[at], [x[at] if type(x) is DeviceArray else x for x in wide]


def copy_into(x: DeviceArray, y: DeviceArray) -> None:
    """Copies the elements of x into y, which has its shape and dtype; both may have strides."""
    if not x.size:
        return
    if x.contiguous and y.contiguous:
        y.memory.copy(y.address, x.address, x.nbytes)
        return
    size = x.itemsize
    tiled = _tiles(x.shape, size, x.strides, y.strides)
    if tiled is not None and x.size < LIMIT:
        programs, values = tiled
        _COPY_TILES[size](y.memory, (programs, 1, 1), x.address, y.address, *values)
        return
    where = layout(AXES, x.shape, size, False, x.strides, y.strides)
    if where is None or x.size >= LIMIT:
        for part, (a,) in halves(y, x):
            copy_into(a, part)
        return
    _COPY[size](y.memory, grid(x.size), x.address, y.address, x.size, *where)


def dense(x: DeviceArray) -> DeviceArray:
    """x in C order without gaps: itself, or a copy."""
    if x.contiguous:
        return x
    y = DeviceArray.empty(x.memory, x.shape, x.dtype)
    copy_into(x, y)
    return y


def cast_into(x: DeviceArray, y: DeviceArray) -> None:
    """Writes x in the dtype of y into y, which is dense and has its shape."""
    if x.dtype == y.dtype:
        copy_into(x, y)
        return
    n = x.size
    if not n:
        return
    fast = _CAST_DENSE.get((x.dtype, y.dtype))
    where = layout(AXES, x.shape, x.itemsize, False, x.strides)
    if n >= LIMIT or where is None:
        for part, (a,) in halves(y, x):
            cast_into(a, part)
    elif fast is not None and x.contiguous:
        fast(y.memory, grid(n), x.address, y.address, n)
    else:
        if where[0]:  # this kernel counts elements, not runs
            where = _unrolled(x)
        a, b = as_dtype(x.dtype), as_dtype(y.dtype)
        kernel = _CAST[a.kind == "float"]
        kernel(y.memory, grid(n), x.address, y.address, n, _CODE[a], _CODE[b], *where[1:])


def _unrolled(x: DeviceArray) -> tuple[int, ...]:
    """The layout of an array in elements, where it could be cut into runs."""
    axes = collapsed(x.shape, tuple([s // x.itemsize for s in x.strides]))
    axes = [[1, 0]] * (AXES - len(axes)) + axes
    return (0, *[a[0] for a in axes[1:]], *[a[1] for a in axes])


def cast(x: DeviceArray, dtype: DType) -> DeviceArray:
    """x in a dtype: itself, or a dense copy."""
    if x.dtype == dtype.numpy:
        return x
    y = DeviceArray.empty(x.memory, x.shape, dtype.numpy)
    cast_into(x, y)
    return y


def wide_of(x: DeviceArray) -> DType:
    """The dtype that arithmetic on a floating x runs in."""
    return float64 if x.dtype == float64.numpy else float32


def address(x: Any) -> int:
    """Of an array; 0 for None."""
    return 0 if x is None else int(x.address)
