"""Softmax, log-softmax and their gradients, along rows or columns.

Rows that fit a block are held in registers: read once and written once. Longer ones, and columns, are read twice, the
second time from the cache. Arithmetic is in float32, or float64 for float64. x, y, g and dx are dense; y may be x and
dx may be g.
"""

import triton
import triton.language as tl
from triton.language.extra import libdevice

from spiral.kernels.triton.elementwise import quotient


@triton.jit
def base_of(top):
    """What to subtract before exp: where all is -inf, nothing, so that exp(-inf - base) is 0."""
    return tl.where(top == float("-inf"), 0.0, top).to(top.dtype)


@triton.jit
def softmax_rows(
    x, y, rows, n, log, WIDE: tl.constexpr, K: tl.constexpr, BLOCK: tl.constexpr, LOOP: tl.constexpr
):  # fmt: skip
    """y = exp(x) / sum(exp(x)), or with ``log`` x - log(sum(exp(x))), of rows of n; K of them a program.

    Overwrites y. An exponential per element.
    """
    row = tl.program_id(0) * K + tl.arange(0, K)
    live = (row < rows)[:, None]
    at = row.to(tl.int64)[:, None] * n
    cols = tl.arange(0, BLOCK)[None, :]
    if LOOP:
        top = tl.full([K], float("-inf"), WIDE)
        sums = tl.zeros([K, BLOCK], WIDE)
        for start in range(0, n, BLOCK):
            v = tl.load(x + (at + (start + cols)), mask=live & (start + cols < n), other=float("-inf")).to(WIDE)
            higher = tl.maximum(top, tl.max(v, 1))
            base = base_of(higher)
            sums = sums * libdevice.exp(top - base)[:, None] + libdevice.exp(v - base[:, None])
            top = higher
        total = tl.sum(sums, 1)
        base = base_of(top)
        scale = quotient(tl.full([K], 1, WIDE), total)
        shift = base + libdevice.log(total)
        for start in range(0, n, BLOCK):
            inside = live & (start + cols < n)
            v = tl.load(x + (at + (start + cols)), mask=inside, other=0.0).to(WIDE)
            if log != 0:
                r = v - shift[:, None]
            else:
                r = libdevice.exp(v - base[:, None]) * scale[:, None]
            tl.store(y + (at + (start + cols)), r.to(y.dtype.element_ty), mask=inside)
    else:
        inside = live & (cols < n)
        v = tl.load(x + (at + cols), mask=inside, other=float("-inf")).to(WIDE)
        base = base_of(tl.max(v, 1))
        e = libdevice.exp(v - base[:, None])
        total = tl.sum(e, 1)
        if log != 0:
            r = (v - base[:, None]) - libdevice.log(total)[:, None]
        else:
            r = e * quotient(tl.full([K], 1, WIDE), total)[:, None]
        tl.store(y + (at + cols), r.to(y.dtype.element_ty), mask=inside)


@triton.jit
def softmax_columns(x, y, n, columns, tiles, log, WIDE: tl.constexpr, R: tl.constexpr, C: tl.constexpr):
    """As `softmax_rows` along the middle axis of (outer, n, columns). Overwrites y. Three exponentials per element."""
    tile = tl.program_id(0)
    first = (tile // tiles).to(tl.int64) * n * columns
    col = (tile % tiles) * C + tl.arange(0, C)[None, :]
    live = col < columns
    r = tl.arange(0, R)[:, None]
    top = tl.full([R, C], float("-inf"), WIDE)
    sums = tl.zeros([R, C], WIDE)
    for j in range(0, n, R):
        at = first + (j + r).to(tl.int64) * columns + col
        v = tl.load(x + at, mask=(j + r < n) & live, other=float("-inf")).to(WIDE)
        higher = tl.maximum(top, v)
        base = base_of(higher)
        sums = sums * libdevice.exp(top - base) + libdevice.exp(v - base)
        top = higher
    highest = base_of(tl.max(top, 0))[None, :]
    total = tl.sum(sums * libdevice.exp(top - highest), 0)[None, :]
    scale = quotient(tl.full([1, C], 1, WIDE), total)
    shift = libdevice.log(total)
    for j in range(0, n, R):
        at = first + (j + r).to(tl.int64) * columns + col
        inside = (j + r < n) & live
        v = tl.load(x + at, mask=inside, other=0.0).to(WIDE) - highest
        if log != 0:
            w = v - shift
        else:
            w = libdevice.exp(v) * scale
        tl.store(y + at, w.to(y.dtype.element_ty), mask=inside)


@triton.jit
def summand(g, y, log):
    """What a gradient sums."""
    if log != 0:
        t = g
    else:
        t = g * y
    return t


@triton.jit
def gradient(g, y, s, log):
    """dx from g, y and the sum."""
    if log != 0:
        d = g - libdevice.exp(y) * s
    else:
        d = y * (g - s)
    return d


@triton.jit
def softmax_grad_rows(
    g, y, dx, rows, n, log, WIDE: tl.constexpr, K: tl.constexpr, BLOCK: tl.constexpr, LOOP: tl.constexpr
):  # fmt: skip
    """dx = y * (g - sum(g * y)), or with ``log`` g - exp(y) * sum(g), of rows of n. Overwrites dx."""
    row = tl.program_id(0) * K + tl.arange(0, K)
    live = (row < rows)[:, None]
    at = row.to(tl.int64)[:, None] * n
    cols = tl.arange(0, BLOCK)[None, :]
    if LOOP:
        sums = tl.zeros([K, BLOCK], WIDE)
        for start in range(0, n, BLOCK):
            inside = live & (start + cols < n)
            u = tl.load(g + (at + (start + cols)), mask=inside, other=0.0).to(WIDE)
            v = tl.load(y + (at + (start + cols)), mask=inside, other=0.0).to(WIDE)
            sums += summand(u, v, log)
        s = tl.sum(sums, 1)[:, None]
        for start in range(0, n, BLOCK):
            inside = live & (start + cols < n)
            u = tl.load(g + (at + (start + cols)), mask=inside, other=0.0).to(WIDE)
            v = tl.load(y + (at + (start + cols)), mask=inside, other=0.0).to(WIDE)
            tl.store(dx + (at + (start + cols)), gradient(u, v, s, log).to(dx.dtype.element_ty), mask=inside)
    else:
        inside = live & (cols < n)
        u = tl.load(g + (at + cols), mask=inside, other=0.0).to(WIDE)
        v = tl.load(y + (at + cols), mask=inside, other=0.0).to(WIDE)
        s = tl.sum(summand(u, v, log), 1)[:, None]
        tl.store(dx + (at + cols), gradient(u, v, s, log).to(dx.dtype.element_ty), mask=inside)


@triton.jit
def softmax_grad_columns(g, y, dx, n, columns, tiles, log, WIDE: tl.constexpr, R: tl.constexpr, C: tl.constexpr):
    """As `softmax_grad_rows` along the middle axis of (outer, n, columns). Overwrites dx."""
    tile = tl.program_id(0)
    first = (tile // tiles).to(tl.int64) * n * columns
    col = (tile % tiles) * C + tl.arange(0, C)[None, :]
    live = col < columns
    r = tl.arange(0, R)[:, None]
    sums = tl.zeros([R, C], WIDE)
    for j in range(0, n, R):
        at = first + (j + r).to(tl.int64) * columns + col
        inside = (j + r < n) & live
        u = tl.load(g + at, mask=inside, other=0.0).to(WIDE)
        v = tl.load(y + at, mask=inside, other=0.0).to(WIDE)
        sums += summand(u, v, log)
    s = tl.sum(sums, 0)[None, :]
    for j in range(0, n, R):
        at = first + (j + r).to(tl.int64) * columns + col
        inside = (j + r < n) & live
        u = tl.load(g + at, mask=inside, other=0.0).to(WIDE)
        v = tl.load(y + at, mask=inside, other=0.0).to(WIDE)
        tl.store(dx + at, gradient(u, v, s, log).to(dx.dtype.element_ty), mask=inside)
