"""Attention in blocks of queries and keys."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from spiral.backend import Cap, Kernel
from spiral.backends.cuda.arrays import NAMES, cast, cast_into, dense, wide
from spiral.backends.cuda.launching import CudaKernel, Source
from spiral.device_array import DeviceArray
from spiral.dtype import ALL, FLOATS, DType, as_dtype, bfloat16, float16, float32, float64, int32
from spiral.gpu import Driver

_EXACT, _MMA = Source("attention.cu"), Source("attention_mma.cu")
_HEADS, _MASK, _SHAPE = "P3qi4x", "P4q", "8idP"
_D_MAX = (64, 128, 256)
_FORWARD_FORMATS = (*(_HEADS,) * 3, _MASK, "P", "P", _SHAPE)
_DQ_FORMATS = (*(_HEADS,) * 4, _MASK, "P", "P", "P", _SHAPE)
_DKV_FORMATS = (*(_HEADS,) * 4, _MASK, "P", "P", "P", "P", _SHAPE)


@dataclass(frozen=True)
class _Tiled:
    """A kernel with the rows of a block, its threads and the bytes of shared memory that it asks for."""

    kernel: CudaKernel
    rows: int
    threads: int
    shared: int

    def __call__(self, gpu: Driver, heads: int, length: int, *values: Any) -> None:
        """Launches a block per so many rows of every head."""
        self._launch(gpu, heads * -(-length // self.rows), values)

    def packed(self, gpu: Driver, heads: int, tokens: int, count: int, *values: Any) -> None:
        """Launches as many blocks as sequences between any ``count`` starts among so many tokens may need."""
        self._launch(gpu, heads * (tokens // self.rows + count + 1), values)

    def _launch(self, gpu: Driver, blocks: int, values: tuple[Any, ...]) -> None:
        grid = (blocks, 1, 1)
        self.kernel(gpu, grid, (self.threads, 1, 1), *values, shared=self.shared)


def _exact(name: str, d: DType, rows_per_thread: int, d_max: int, tiles: int, formats: tuple[str, ...]) -> _Tiled:
    kernel = _EXACT.kernel(f"spiral::{name}<spiral::Attend<{NAMES[d]}, {rows_per_thread}, {d_max}>>", *formats)
    size, rows = d.itemsize, 16 * rows_per_thread
    pad = 16 // size
    return _Tiled(kernel, rows, 256, size * (tiles * rows * (d_max + pad) + rows * (rows + pad)))


def _mma(name: str, d: DType, d_max: int, step: int, resident: int, formats: tuple[str, ...]) -> _Tiled:
    kernel = _MMA.kernel(f"spiral::{name}_mma<spiral::AttendMma<{NAMES[d]}, {d_max}, {step}>>", *formats)
    return _Tiled(kernel, 64, 256 if d_max > 128 else 128, 2 * d_max * (64 * resident + 4 * step))


def _kernels(
    name: str, formats: tuple[str, ...], tiles: int, per_thread: dict[int, tuple[int, int]], step: int, resident: int
) -> dict[tuple[DType, int], _Tiled]:
    """By dtype and largest head size. Rows per thread for float and double: what shared memory and registers hold."""
    exact = {(d, m): _exact(name, d, per_thread[m][i], m, tiles, formats)
             for i, d in enumerate((float32, float64)) for m in _D_MAX}  # fmt: skip
    return exact | {(d, m): _mma(name, d, m, step, resident, formats) for d in (float16, bfloat16) for m in _D_MAX}


_FORWARD = _kernels("attention", _FORWARD_FORMATS, 2, {64: (4, 2), 128: (4, 2), 256: (4, 2)}, 64, 1)
_DQ = _kernels("attention_dq", _DQ_FORMATS, 4, {64: (4, 2), 128: (2, 2), 256: (2, 1)}, 32, 2)
_DKV = _kernels("attention_dkv", _DKV_FORMATS, 4, {64: (4, 2), 128: (2, 2), 256: (2, 1)}, 32, 2)
_DELTA = {
    d: _EXACT.kernel(f"spiral::attention_delta<{NAMES[d]}>", _HEADS, _HEADS, "P", "i", "i", "i", "q") for d in FLOATS
}


def _heads(x: DeviceArray, d: DType) -> tuple[DeviceArray, tuple[int, ...]]:
    """An operand whose heads' elements lie in one stretch, and the values of its ``Heads``."""
    x = cast(x, d)
    size = x.dtype.itemsize
    if (x.strides[3] != size and x.shape[3] > 1) or any(s % size for s in x.strides):
        x = dense(x)
    steps = tuple(s // size for s in x.strides[:3])
    per_piece = 16 // size
    pieces = not (x.address % 16 or any(n % per_piece for n in (x.shape[3], *steps)))
    return x, (x.address, *steps, pieces)


def _mask(mask: Any, d: DType) -> tuple[Any, tuple[int, ...]]:
    if mask is None:
        return None, (0, 0, 0, 0, 0)
    mask = cast(mask, d)
    size = mask.dtype.itemsize
    strides = [0 if n == 1 else s // size for n, s in zip(mask.shape, mask.strides, strict=True)]
    return mask, (mask.address, *(0,) * (4 - len(strides)), *strides)


def _shape(q: DeviceArray, k: DeviceArray, scale: float, causal: bool, window: int) -> tuple[Any, ...]:
    _, heads, t, d = q.shape
    return heads, heads // k.shape[1], t, k.shape[2], d, window, causal, 0, scale, 0


def _packed_shape(
    q: DeviceArray, k: DeviceArray, starts: DeviceArray, scale: float, causal: bool, window: int
) -> tuple[Any, ...]:
    tokens, heads, d = q.shape
    kv_heads, count = k.shape[1], starts.size
    return heads, heads // kv_heads, tokens, tokens, d, window, causal, count, scale, starts.address


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
    operands = (*of_q, *of_k, *of_v, *of_mask, y.address, lse.address)
    _FORWARD[d, _d_max(width)](y.memory, b * heads, t, *operands, *_shape(q, k, scale, causal, window))


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
    lse = dense(cast(lse, wide(q)))
    delta = DeviceArray.empty(gpu, lse.shape, wide(q).numpy)
    rows = delta.size
    if rows:
        grid = (-(-rows // 8), 1, 1)
        _DELTA[d](gpu, grid, (256, 1, 1), *of_g, *of_y, delta.address, heads, t, width, rows)
    m, shape = _d_max(width), _shape(q, k, scale, causal, window)
    operands = (*of_g, *of_q, *of_k, *of_v, *of_mask, lse.address, delta.address)

    def to_q(dq: DeviceArray) -> None:
        if dq.size:
            _DQ[d, m](gpu, b * heads, t, *operands, dq.address, *shape)

    def to_kv(dk: DeviceArray, dv: DeviceArray) -> None:
        if dk.size:
            _DKV[d, m](gpu, b * kv_heads, s, *operands, dk.address, dv.address, *shape)

    _in_dtype((dq,), d, to_q)
    _in_dtype((dk, dv), d, to_kv)


def _narrow(first: DeviceArray, *rest: Any) -> bool:
    return first.shape[-1] <= _D_MAX[-1]


def _packed_heads(x: DeviceArray, d: DType) -> tuple[DeviceArray, tuple[int, ...]]:
    """(T, H, D) as `_heads` of a batch of one."""
    return _heads(x[None].transpose((0, 2, 1, 3)), d)


def _attention_varlen(
    q: DeviceArray, k: DeviceArray, v: DeviceArray, starts: DeviceArray, scale: float, causal: bool, window: int,
    y: DeviceArray, lse: DeviceArray,
) -> None:  # fmt: skip
    if not lse.size:
        return
    d, starts = as_dtype(y.dtype), dense(cast(starts, int32))
    tokens, heads, width = q.shape
    shape = _packed_shape(q, k, starts, scale, causal, window)
    (q, of_q), (k, of_k), (v, of_v) = (_packed_heads(x, d) for x in (q, k, v))
    operands = (*of_q, *of_k, *of_v, *_mask(None, d)[1], y.address, lse.address)
    _FORWARD[d, _d_max(width)].packed(y.memory, heads, tokens, starts.size, *operands, *shape)


def _attention_varlen_grad(
    g: DeviceArray, q: DeviceArray, k: DeviceArray, v: DeviceArray, starts: DeviceArray, y: DeviceArray,
    lse: DeviceArray, scale: float, causal: bool, window: int, dq: DeviceArray, dk: DeviceArray, dv: DeviceArray,
) -> None:  # fmt: skip
    gpu, d, starts = q.memory, as_dtype(q.dtype), dense(cast(starts, int32))
    tokens, heads, width = q.shape
    if not tokens * heads:
        return
    kv_heads = k.shape[1]
    shape = _packed_shape(q, k, starts, scale, causal, window)
    (g, of_g), (q, of_q), (k, of_k), (v, of_v), (y, of_y) = (_packed_heads(x, d) for x in (g, q, k, v, y))
    lse = dense(cast(lse, wide(q)))
    delta = DeviceArray.empty(gpu, (heads, tokens), wide(q).numpy)
    grid = (-(-delta.size // 8), 1, 1)
    _DELTA[d](gpu, grid, (256, 1, 1), *of_g, *of_y, delta.address, heads, tokens, width, delta.size)
    operands = (*of_g, *of_q, *of_k, *of_v, *_mask(None, d)[1], lse.address, delta.address)
    m, count = _d_max(width), starts.size

    def to_q(dq: DeviceArray) -> None:
        _DQ[d, m].packed(gpu, heads, tokens, count, *operands, dq.address, *shape)

    def to_kv(dk: DeviceArray, dv: DeviceArray) -> None:
        _DKV[d, m].packed(gpu, kv_heads, tokens, count, *operands, dk.address, dv.address, *shape)

    _in_dtype((dq,), d, to_q)
    _in_dtype((dk, dv), d, to_kv)


def kernels() -> Iterator[Kernel]:
    """The family's table."""
    integers = tuple(d for d in ALL if d.kind in ("int", "uint"))
    text = f"takes heads of at most {_D_MAX[-1]} elements"
    for name, fn in (("attention", _attention), ("attention_grad", _attention_grad)):
        yield Kernel(name, fn, Cap((float32, float64), where=_narrow, where_text=text))
        yield Kernel(name, fn, Cap(FLOATS, cc=(80, 999), where=_narrow, where_text=text))
    for name, varlen in (("attention_varlen", _attention_varlen), ("attention_varlen_grad", _attention_varlen_grad)):
        yield Kernel(name, varlen, Cap((float32, float64), integers, where=_narrow, where_text=text))
        yield Kernel(name, varlen, Cap(FLOATS, integers, cc=(80, 999), where=_narrow, where_text=text))
