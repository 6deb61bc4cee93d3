"""Attention in blocks of queries and keys."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from spiral.backend import Cap, Kernel
from spiral.backends.triton.arrays import NAMES, cast, cast_into, dense, wide_of
from spiral.backends.triton.gemm import wide_name, wide_type
from spiral.backends.triton.launching import TritonKernel
from spiral.device_array import DeviceArray
from spiral.dtype import FLOATS, DType, as_dtype, bfloat16, float16, float32, float64
from spiral.gpu import Driver
from spiral.kernels.triton import attention as source

_WIDTHS = (64, 128, 256)  # a head's size is padded to the next
_MASK = ("m0", "m1", "m2", "m3")
_SHAPE = ("heads", "group", "t", "s", "d", "window", "causal")
_STEPS = {x: tuple(f"{x}{i}" for i in range(3)) for x in "gqkvy"}

# (rows of a program, columns at a time, warps, stages) by largest size of a head
_Blocks = dict[int, tuple[int, int, int, int]]
_HALF: dict[str, _Blocks] = {
    "attention": {64: (128, 64, 8, 3), 128: (128, 64, 8, 2), 256: (64, 32, 8, 1)},
    "attention_dq": {64: (64, 64, 4, 3), 128: (64, 64, 8, 2), 256: (32, 32, 8, 2)},
    "attention_dkv": {64: (64, 64, 4, 2), 128: (64, 32, 8, 2), 256: (32, 32, 8, 2)},
}
_SINGLE: dict[str, _Blocks] = {
    "attention": {64: (64, 32, 8, 2), 128: (32, 16, 8, 1)},
    "attention_dq": {64: (32, 32, 8, 2), 128: (16, 16, 8, 1)},
    "attention_dkv": {64: (32, 32, 8, 1), 128: (16, 16, 8, 1)},
}
_OF_DOUBLE: _Blocks = {64: (32, 32, 8, 1), 128: (16, 16, 8, 1)}
_DOUBLE: dict[str, _Blocks] = {
    "attention": _OF_DOUBLE,
    "attention_dq": {64: (16, 16, 8, 1), 128: (16, 16, 8, 1)},
    "attention_dkv": _OF_DOUBLE,
}
_BLOCKS = {float16: _HALF, bfloat16: _HALF, float32: _SINGLE, float64: _DOUBLE}
# a mask's elements take registers
_MASKED_HALF: _Blocks = {64: (64, 32, 4, 2), 128: (64, 32, 8, 1), 256: (32, 32, 8, 1)}
_MASKED_WIDE: _Blocks = {64: (16, 16, 8, 1), 128: (16, 16, 8, 1)}
_MASKED = {float16: _MASKED_HALF, bfloat16: _MASKED_HALF, float32: _MASKED_WIDE, float64: _MASKED_WIDE}


# elements that do not lie in pieces of 16 bytes take an address each
_GENERAL: _Blocks = {64: (32, 32, 8, 1), 128: (32, 16, 8, 1), 256: (16, 16, 8, 1)}
_GENERAL_SINGLE = {("attention_dkv", 128): (16, 16, 4, 1)}  # the rest as for aligned elements


def _blocks(name: str, dtype: DType, masked: bool) -> _Blocks:
    if not masked:
        return _BLOCKS[dtype][name]
    if name == "attention_dq" and dtype is float64:
        return _MASKED_WIDE | {64: (16, 16, 4, 1)}
    return _MASKED[dtype]


@dataclass(frozen=True)
class _Tiled:
    """Kernels with the rows that a program has: for pieces of 16 bytes, and for anything."""

    aligned: TritonKernel
    aligned_rows: int
    general: TritonKernel
    general_rows: int

    def __call__(self, gpu: Driver, heads: int, length: int, *values: Any) -> None:
        """Launches a program per so many rows of every head."""
        fits = self.aligned.fits(values)
        kernel, rows = (self.aligned, self.aligned_rows) if fits else (self.general, self.general_rows)
        kernel(gpu, (heads * -(-length // rows), 1, 1), *values)


def _kernels(name: str, pointers: tuple[str, ...], strided: str) -> dict[tuple[DType, int, bool], _Tiled]:
    """By dtype, largest size of a head and whether there is a mask."""
    made = {}
    for dtype, masked in itertools.product(FLOATS, (False, True)):
        wide = wide_name(dtype)
        params = {p: f"*{wide if p in ('lse', 'delta') else NAMES[dtype]}" for p in pointers}
        steps = [s for x in strided for s in _STEPS[x]]
        params |= dict.fromkeys((*steps, *_MASK, *_SHAPE), "i32") | {"scale": wide}
        for width, fast in _blocks(name, dtype, masked).items():
            other = _GENERAL[width] if dtype.storage_only else _GENERAL_SINGLE.get((name, width), fast)
            kernels: list[Any] = []
            for aligned, (m, n, warps, stages) in ((True, fast), (False, other)):
                constants = {"WIDE": wide_type(dtype), "D": width, "M": m, "N": n, "MASK": masked}
                divisible = ("d", *steps) if aligned else ()
                kernels += (
                    TritonKernel(
                        getattr(source, name), params, constants, divisible=divisible, aligned=aligned,
                        general=not aligned, num_warps=warps, num_stages=stages,
                    ),
                    m,
                )  # fmt: skip
            made[dtype, width, masked] = _Tiled(*kernels)
    return made


_FORWARD = _kernels("attention", ("q", "k", "v", "mask", "y", "lse"), "qkv")
_DQ = _kernels("attention_dq", ("g", "q", "k", "v", "y", "mask", "lse", "delta", "dq"), "gqkvy")
_DKV = _kernels("attention_dkv", ("g", "q", "k", "v", "mask", "lse", "delta", "dk", "dv"), "gqkv")


def _heads(x: DeviceArray, d: DType) -> tuple[DeviceArray, tuple[int, ...]]:
    """An operand whose heads' elements lie in one stretch, and its strides."""
    x = cast(x, d)
    size = x.itemsize
    if (x.strides[3] != size and x.shape[3] > 1) or any(s % size or abs(s) >= size << 31 for s in x.strides):
        x = dense(x)
    return x, tuple([0 if n == 1 else s // size for n, s in zip(x.shape[:3], x.strides, strict=False)])


def _mask(mask: Any, d: DType) -> tuple[Any, int, tuple[int, ...]]:
    """The mask in the operands' dtype, its address, and its four strides."""
    if mask is None:
        return None, 0, (0, 0, 0, 0)
    mask = cast(mask, d)
    size = mask.itemsize
    mask = dense(mask) if any(s % size for s in mask.strides) else mask
    strides = [0 if n == 1 else s // size for n, s in zip(mask.shape, mask.strides, strict=True)]
    return mask, mask.address, (*(0,) * (4 - len(strides)), *strides)


def _shape(q: DeviceArray, k: DeviceArray, scale: float, causal: bool, window: int) -> tuple[Any, ...]:
    _, heads, t, d = q.shape
    # no sequence is longer than 31 bits, a window may be
    seen = min(window, 2**30)
    return heads, heads // k.shape[1], t, k.shape[2], d, seen, int(causal), scale


def _width(d: int) -> int:
    return next(m for m in _WIDTHS if d <= m)


def _attention(
    q: DeviceArray, k: DeviceArray, v: DeviceArray, mask: Any, scale: float, causal: bool, window: int,
    y: DeviceArray, lse: DeviceArray,
) -> None:  # fmt: skip
    if not lse.size:
        return
    d = as_dtype(y.dtype)
    (q, of_q), (k, of_k), (v, of_v) = (_heads(x, d) for x in (q, k, v))
    mask, at, of_mask = _mask(mask, d)
    b, heads, t, width = q.shape
    _FORWARD[d, _width(width), mask is not None](
        y.memory, b * heads, t, q.address, k.address, v.address, at, y.address, lse.address, *of_q, *of_k, *of_v,
        *of_mask, *_shape(q, k, scale, causal, window),
    )  # fmt: skip


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
    (g, of_g), (q, of_q), (k, of_k), (v, of_v), (y, of_y) = (_heads(x, d) for x in (g, q, k, v, y))
    mask, at, of_mask = _mask(mask, d)
    lse = dense(cast(lse, wide_of(q)))
    delta = DeviceArray.empty(gpu, lse.shape, wide_of(q).numpy)
    kind, shape = (d, _width(width), mask is not None), _shape(q, k, scale, causal, window)
    operands = (g.address, q.address, k.address, v.address)

    def to_q(dq: DeviceArray) -> None:
        if dq.size:
            _DQ[kind](
                gpu, b * heads, t, *operands, y.address, at, lse.address, delta.address, dq.address, *of_g, *of_q,
                *of_k, *of_v, *of_y, *of_mask, *shape,
            )  # fmt: skip

    def to_kv(dk: DeviceArray, dv: DeviceArray) -> None:
        if dk.size:
            _DKV[kind](
                gpu, b * kv_heads, s, *operands, at, lse.address, delta.address, dk.address, dv.address, *of_g, *of_q,
                *of_k, *of_v, *of_mask, *shape,
            )  # fmt: skip

    _in_dtype((dq,), d, to_q)  # first: it makes delta
    _in_dtype((dk, dv), d, to_kv)


def _narrow(q_or_g: DeviceArray, *rest: Any) -> bool:
    # products without tensor cores hold whole rows in registers
    return q_or_g.shape[-1] <= _WIDTHS[-1 if q_or_g.itemsize == 2 else -2]


def kernels() -> Iterator[Kernel]:
    """The family's table."""
    text = f"takes heads of at most {_WIDTHS[-1]} elements, {_WIDTHS[-2]} of more than 16 bits"
    cap = Cap(FLOATS, where=_narrow, where_text=text)
    yield Kernel("attention", _attention, cap)
    yield Kernel("attention_grad", _attention_grad, cap)
