"""Rotary position embedding."""

import triton
import triton.language as tl


@triton.jit
def rope(
    x, cos, sin, y, rows, heads, positions, x0, x1, x2, width, half, offset, interleaved, inverse,
    WIDE: tl.constexpr, R: tl.constexpr, C: tl.constexpr,
):  # fmt: skip
    """y = x (B, H, T, D) with pairs of columns turned by the angles of row offset + t of cos and sin (positions, half).

    Turned back where inverse. Pairs are (i, i + half), or (2i, 2i + 1) where interleaved; columns from 2 * half on are
    copied. x has strides x0, x1, x2 and 1; y is dense, overwritten. A program makes C pairs of R of the B * H * T rows.
    Moves 2 elements per element and the tables' T rows; 3 operations per element.
    """
    r = tl.program_id(0) * R + tl.arange(0, R)
    i = tl.program_id(1) * C + tl.arange(0, C)
    q = r // positions
    t = r - q * positions
    batch = q // heads
    at_x = batch.to(tl.int64) * x0 + (q - batch * heads).to(tl.int64) * x1 + t.to(tl.int64) * x2
    x += at_x[:, None]
    y += (r.to(tl.int64) * width)[:, None]
    within = (r < rows)[:, None]
    inside = within & (i < half)[None, :]
    at = (offset + t)[:, None] * half + i[None, :]
    c = tl.load(cos + at, mask=inside, other=0.0).to(WIDE)
    s = tl.load(sin + at, mask=inside, other=0.0).to(WIDE)
    if inverse:
        s = -s
    if interleaved:
        j = tl.program_id(1) * (2 * C) + tl.arange(0, 2 * C)
        both = within & (j < 2 * half)[None, :]
        v = tl.load(x + j[None, :], mask=both, other=0.0).to(WIDE)
        a, b = tl.split(tl.reshape(v, [R, C, 2]))
        w = tl.reshape(tl.join(a * c - b * s, b * c + a * s), [R, 2 * C])
        tl.store(y + j[None, :], w.to(y.dtype.element_ty), mask=both)
    else:
        a = tl.load(x + i[None, :], mask=inside, other=0.0).to(WIDE)
        b = tl.load(x + (half + i)[None, :], mask=inside, other=0.0).to(WIDE)
        tl.store(y + i[None, :], (a * c - b * s).to(y.dtype.element_ty), mask=inside)
        tl.store(y + (half + i)[None, :], (b * c + a * s).to(y.dtype.element_ty), mask=inside)
    if tl.program_id(1) == 0:
        for start in range(2 * half, width, C):
            j = start + tl.arange(0, C)
            rest = within & (j < width)[None, :]
            tl.store(y + j[None, :], tl.load(x + j[None, :], mask=rest), mask=rest)
