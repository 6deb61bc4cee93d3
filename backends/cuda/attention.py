"""Attention in blocks of queries and keys."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from spiral.backend import Cap, Kernel
from spiral.backends.cuda.arrays import NAMES, cast, cast_into, dense, wide
from spiral.backends.cuda.launching import CudaKernel, Source
from spiral.device_array import DeviceArray
from spiral.dtype import FLOATS, DType, as_dtype, float64

_ATTENTION = Source("attention.cu")
_HEADS, _MASK, _SHAPE = "P3q", "P4q", "7i4xd"
_D_MAX = (64, 128, 256)


@dataclass(frozen=True)
class _Tiled:
    """A kernel with the rows of its tiles and the bytes of shared memory that it asks for."""

    kernel: CudaKernel
    rows: int
    shared: int


def _tiled(name: str, d: DType, rows_per_thread: int, d_max: int, tiles: int, *formats: str) -> _Tiled:
    kernel = _ATTENTION.kernel(f"spiral::{name}<spiral::Attend<{NAMES[d]}, {rows_per_thread}, {d_max}>>", *formats)
    size = 8 if d is float64 else 4
    rows, pad = 16 * rows_per_thread, 16 // size
    return _Tiled(kernel, rows, size * (tiles * rows * (d_max + pad) + rows * (rows + pad)))


# rows per thread: as many as shared memory and registers hold
_FORWARD = {
    (d, m): _tiled("attention", d, 2 if d is float64 else 4, m, 2, *(_HEADS,) * 3, _MASK, "P", "P", _SHAPE)
    for d in FLOATS for m in _D_MAX
}  # fmt: skip


def _backward(name: str, outputs: int) -> dict[tuple[DType, int], _Tiled]:
    per_thread = {64: (4, 2), 128: (2, 2), 256: (2, 1)}
    formats = (*(_HEADS,) * 4, _MASK, "P", "P", *("P",) * outputs, _SHAPE)
    return {(d, m): _tiled(name, d, per_thread[m][d is float64], m, 4, *formats) for d in FLOATS for m in _D_MAX}


_DQ, _DKV = _backward("attention_dq", 1), _backward("attention_dkv", 2)
_DELTA = {
    d: _ATTENTION.kernel(f"spiral::attention_delta<{NAMES[d]}>", _HEADS, _HEADS, "P", "i", "i", "i", "q")
    for d in FLOATS
}


def _heads(x: DeviceArray, d: DType) -> tuple[DeviceArray, tuple[int, ...]]:
    """An operand whose heads' elements lie in one stretch, and the values of its ``Heads``."""
    x = cast(x, d)
    size = x.dtype.itemsize
    if (x.strides[3] != size and x.shape[3] > 1) or any(s % size for s in x.strides):
        x = dense(x)
    return x, (x.address, *(s // size for s in x.strides[:3]))


def _mask(mask: Any, d: DType) -> tuple[Any, tuple[int, ...]]:
    if mask is None:
        return None, (0, 0, 0, 0, 0)
    mask = cast(mask, d)
    size = mask.dtype.itemsize
    strides = [0 if n == 1 else s // size for n, s in zip(mask.shape, mask.strides, strict=True)]
    return mask, (mask.address, *(0,) * (4 - len(strides)), *strides)


def _shape(q: DeviceArray, k: DeviceArray, scale: float, causal: bool, window: int) -> tuple[Any, ...]:
    _, heads, t, d = q.shape
    return heads, heads // k.shape[1], t, k.shape[2], d, window, causal, scale


def _d_max(d: int) -> int:
    return next(m for m in _D_MAX if d <= m)


def _attention(
    q: DeviceArray, k: DeviceArray, v: DeviceArray, mask: Any, scale: float, causal: bool, window: int,
    y: DeviceArray, lse: DeviceArray,
) -> None:  # fmt: skip
    if not lse.size:
        return
    d = as_dtype(y.dtype)
    (q, of_q), (k, of_k), (v, of_v), (mask, of_mask) = _heads(q, d), _heads(k, d), _heads(v, d), _mask(mask, d)
    b, heads, t, width = q.shape
    tiled = _FORWARD[d, _d_max(width)]
    grid = (b * heads * -(-t // tiled.rows), 1, 1)
    shape = _shape(q, k, scale, causal, window)
    tiled.kernel(
        y.memory, grid, (256, 1, 1), *of_q, *of_k, *of_v, *of_mask, y.address, lse.address, *shape, shared=tiled.shared
    )


def _in_dtype(ys: tuple[DeviceArray, ...], d: DType, write: Callable[..., None]) -> None:
    """Has results in dtype d written to arrays that may have another."""
    to = [y if y.dtype == d.numpy else DeviceArray.empty(y.memory, y.shape, d.numpy) for y in ys]
    write(*to)
    for x, y in zip(to, ys, strict=True):
        if x is not y:
            cast_into(x, y)


def _attention_grad(
    g: DeviceArray, q: DeviceArray, k: DeviceArray, v: DeviceArray, y: DeviceArray, lse: DeviceArray, mask: Any,
    scale: float, causal: bool, window: int, dq: DeviceArray, dk: DeviceArray, dv: DeviceArray,
) -> None:  # fmt: skip
    gpu, d = q.memory, as_dtype(q.dtype)
    b, heads, t, width = q.shape
    kv_heads, s = k.shape[1], k.shape[2]
    (g, of_g), (q, of_q), (k, of_k), (v, of_v) = (_heads(x, d) for x in (g, q, k, v))
    (y, of_y), (mask, of_mask) = _heads(y, d), _mask(mask, d)
    lse = dense(cast(lse, d))
    delta = DeviceArray.empty(gpu, lse.shape, wide(q).numpy)
    rows = delta.size
    if rows:
        grid = (-(-rows // 8), 1, 1)
        _DELTA[d](gpu, grid, (256, 1, 1), *of_g, *of_y, delta.address, heads, t, width, rows)
    m, shape = _d_max(width), _shape(q, k, scale, causal, window)
    operands = (*of_g, *of_q, *of_k, *of_v, *of_mask, lse.address, delta.address)

    def to_q(dq: DeviceArray) -> None:
        tiled = _DQ[d, m]
        grid = (b * heads * -(-t // tiled.rows), 1, 1)
        if dq.size:
            tiled.kernel(gpu, grid, (256, 1, 1), *operands, dq.address, *shape, shared=tiled.shared)

    def to_kv(dk: DeviceArray, dv: DeviceArray) -> None:
        tiled = _DKV[d, m]
        grid = (b * kv_heads * -(-s // tiled.rows), 1, 1)
        if dk.size:
            tiled.kernel(gpu, grid, (256, 1, 1), *operands, dk.address, dv.address, *shape, shared=tiled.shared)

    _in_dtype((dq,), d, to_q)
    _in_dtype((dk, dv), d, to_kv)


def _narrow(first: DeviceArray, *rest: Any) -> bool:
    return first.shape[-1] <= _D_MAX[-1]


def kernels() -> Iterator[Kernel]:
    """The family's table."""
    cap = Cap(FLOATS, where=_narrow, where_text=f"takes heads of at most {_D_MAX[-1]} elements")
    yield Kernel("attention", _attention, cap)
    yield Kernel("attention_grad", _attention_grad, cap)
