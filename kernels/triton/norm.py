"""Normalisation over the last axis.

One program per row. A row that fits BLOCK is held in registers (LOOP false): it is read once and written once, 2 * n
elements per row. A longer one is read in pieces of BLOCK (LOOP true): two or three times, all but the first from the
cache. Arithmetic and statistics are in float32; results are rounded once, to the nearest.
"""

import triton
import triton.language as tl


@triton.jit
def rms_norm(x, weight, y, rstd, n, eps, has_weight, BLOCK: tl.constexpr, LOOP: tl.constexpr):
    """y = x * rstd * weight, rstd = 1 / sqrt(mean(x^2) + eps).

    x, y: (rows, n); weight: (n), not read unless has_weight; rstd: (rows) in float32. Overwrites y and rstd. 4
    operations per element.
    """
    row = tl.program_id(0).to(tl.int64)
    x += row * n
    y += row * n
    cols = tl.arange(0, BLOCK)
    if LOOP:
        squares = tl.zeros([BLOCK], tl.float32)
        for start in range(0, n, BLOCK):
            v = tl.load(x + start + cols, mask=start + cols < n, other=0.0).to(tl.float32)
            squares += v * v
        r = tl.div_rn(1.0, tl.sqrt_rn(tl.div_rn(tl.sum(squares, 0), n.to(tl.float32)) + eps))
        for start in range(0, n, BLOCK):
            inside = start + cols < n
            v = tl.load(x + start + cols, mask=inside).to(tl.float32)
            w = tl.load(weight + start + cols, mask=inside & (has_weight != 0), other=1.0).to(tl.float32)
            tl.store(y + start + cols, (v * r * w).to(y.dtype.element_ty), mask=inside)
    else:
        inside = cols < n
        v = tl.load(x + cols, mask=inside, other=0.0).to(tl.float32)
        w = tl.load(weight + cols, mask=inside & (has_weight != 0), other=1.0).to(tl.float32)
        r = tl.div_rn(1.0, tl.sqrt_rn(tl.div_rn(tl.sum(v * v, 0), n.to(tl.float32)) + eps))
        tl.store(y + cols, (v * r * w).to(y.dtype.element_ty), mask=inside)
    tl.store(rstd + row, r.to(rstd.dtype.element_ty))


@triton.jit
def layer_norm(
    x, weight, bias, y, mean, rstd, n, eps, has_weight, has_bias, BLOCK: tl.constexpr, LOOP: tl.constexpr
):  # fmt: skip
    """y = (x - mean) * rstd * weight + bias, rstd = 1 / sqrt(mean((x - mean)^2) + eps).

    x, y: (rows, n); weight, bias: (n), not read unless has_weight, has_bias; mean, rstd: (rows) in float32. Overwrites
    y, mean and rstd. 8 operations per element.
    """
    row = tl.program_id(0).to(tl.int64)
    x += row * n
    y += row * n
    cols = tl.arange(0, BLOCK)
    count = n.to(tl.float32)
    if LOOP:
        sums = tl.zeros([BLOCK], tl.float32)
        for start in range(0, n, BLOCK):
            sums += tl.load(x + start + cols, mask=start + cols < n, other=0.0).to(tl.float32)
        m = tl.div_rn(tl.sum(sums, 0), count)
        squares = tl.zeros([BLOCK], tl.float32)
        for start in range(0, n, BLOCK):
            inside = start + cols < n
            d = tl.load(x + start + cols, mask=inside, other=0.0).to(tl.float32) - m
            d = tl.where(inside, d, 0.0)
            squares += d * d
        r = tl.div_rn(1.0, tl.sqrt_rn(tl.div_rn(tl.sum(squares, 0), count) + eps))
        for start in range(0, n, BLOCK):
            inside = start + cols < n
            d = tl.load(x + start + cols, mask=inside, other=0.0).to(tl.float32) - m
            w = tl.load(weight + start + cols, mask=inside & (has_weight != 0), other=1.0).to(tl.float32)
            b = tl.load(bias + start + cols, mask=inside & (has_bias != 0), other=0.0).to(tl.float32)
            tl.store(y + start + cols, (d * r * w + b).to(y.dtype.element_ty), mask=inside)
    else:
        inside = cols < n
        v = tl.load(x + cols, mask=inside, other=0.0).to(tl.float32)
        w = tl.load(weight + cols, mask=inside & (has_weight != 0), other=1.0).to(tl.float32)
        b = tl.load(bias + cols, mask=inside & (has_bias != 0), other=0.0).to(tl.float32)
        m = tl.div_rn(tl.sum(v, 0), count)
        d = tl.where(inside, v - m, 0.0)
        r = tl.div_rn(1.0, tl.sqrt_rn(tl.div_rn(tl.sum(d * d, 0), count) + eps))
        tl.store(y + cols, (d * r * w + b).to(y.dtype.element_ty), mask=inside)
    tl.store(mean + row, m.to(mean.dtype.element_ty))
    tl.store(rstd + row, r.to(rstd.dtype.element_ty))
