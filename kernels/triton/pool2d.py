"""Pooling of (N, C, H, W) planes, dense, and the gradient of means. Programs have consecutive outputs."""

import triton
import triton.language as tl

from spiral.kernels.triton.conv import split, within


@triton.jit
def max_pool2d(
    x, y, position, n, height, width, oh, ow, kh, kw, sh, sw, ph, pw, WIDE: tl.constexpr, BLOCK: tl.constexpr
):  # fmt: skip
    """y = the largest element of each window, NaN wins, the first of equals; position = where it is in its plane.

    n outputs. Overwrites both. Reads each window (from the cache where they overlap).
    """
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    plane, r, c = split(i, oh * ow, ow)
    x += plane.to(tl.int64) * height * width
    best = tl.zeros([BLOCK], WIDE)
    found = tl.full([BLOCK], -1, tl.int32)
    for a in range(0, kh):
        for b in range(0, kw):
            row, column = r * sh - ph + a, c * sw - pw + b
            inside = within(row, column, height, width) & (i < n)
            at = row * width + column
            v = tl.load(x + at, mask=inside, other=0.0).to(WIDE)
            better = inside & ((found < 0) | (v > best) | ((v != v) & (best == best)))
            best = tl.where(better, v, best)
            found = tl.where(better, at, found)
    tl.store(y + i, best.to(y.dtype.element_ty), mask=i < n)
    tl.store(position + i, found, mask=i < n)


@triton.jit
def counted(r, c, height, width, kh, kw, sh, sw, ph, pw, include_pad, WIDE: tl.constexpr):
    """How many elements the sums of windows are divided by."""
    rows = tl.minimum(r * sh - ph + kh, height) - tl.maximum(r * sh - ph, 0)
    columns = tl.minimum(c * sw - pw + kw, width) - tl.maximum(c * sw - pw, 0)
    if include_pad:
        rows = tl.zeros_like(rows) + kh
        columns = tl.zeros_like(columns) + kw
    return (rows * columns).to(WIDE)


@triton.jit
def avg_pool2d(
    x, y, n, height, width, oh, ow, kh, kw, sh, sw, ph, pw, include_pad, WIDE: tl.constexpr, BLOCK: tl.constexpr
):  # fmt: skip
    """y = the mean of each window; n outputs. Overwrites y."""
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    plane, r, c = split(i, oh * ow, ow)
    x += plane.to(tl.int64) * height * width
    acc = tl.zeros([BLOCK], WIDE)
    for a in range(0, kh):
        for b in range(0, kw):
            row, column = r * sh - ph + a, c * sw - pw + b
            inside = within(row, column, height, width) & (i < n)
            acc += tl.load(x + (row * width + column), mask=inside, other=0.0).to(WIDE)
    count = counted(r, c, height, width, kh, kw, sh, sw, ph, pw, include_pad, WIDE)
    tl.store(y + i, (acc / count).to(y.dtype.element_ty), mask=i < n)


@triton.jit
def avg_pool2d_grad(
    g, dx, n, height, width, oh, ow, kh, kw, sh, sw, ph, pw, include_pad, WIDE: tl.constexpr, BLOCK: tl.constexpr
):  # fmt: skip
    """dx = the sum over the windows that an input lies in of g / count; n inputs. Overwrites dx."""
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    plane, r, c = split(i, height * width, width)
    g += plane.to(tl.int64) * oh * ow
    acc = tl.zeros([BLOCK], WIDE)
    for a in range(0, (kh - 1) // sh + 1):
        for b in range(0, (kw - 1) // sw + 1):
            row, column = (r + ph) // sh - a, (c + pw) // sw - b
            inside = within(row, column, oh, ow) & (row * sh + kh > r + ph) & (column * sw + kw > c + pw) & (i < n)
            v = tl.load(g + (row * ow + column), mask=inside, other=0.0).to(WIDE)
            count = counted(row, column, height, width, kh, kw, sh, sw, ph, pw, include_pad, WIDE)
            acc += tl.where(inside, v / count, 0.0)
    tl.store(dx + i, acc.to(dx.dtype.element_ty), mask=i < n)
