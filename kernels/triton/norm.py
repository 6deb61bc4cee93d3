"""Layer, RMS and group normalisation, with a residual added on the way, and their gradients.

A row that fits a block is held in registers: read once and written once. A longer one is read in pieces, two or three
times, all but the first from the cache. Arithmetic and statistics are in float32, or float64 for float64; results are
rounded once. Sums over rows run in an order that the shapes alone decide: a program adds up what it has of dw and db
for the rows that it goes through, and `spiral.kernels.triton.reduce` adds up the programs' shares.

Weights and statistics are arrays of x's dtype or of the wide one; ``flags`` say which, by the bits below.
"""

import triton
import triton.language as tl

from spiral.kernels.triton.elementwise import quotient, root

RMS, WEIGHT_WIDE, BIAS_WIDE, STATISTICS_WIDE, WEIGHT, BIAS, RESIDUAL = (1 << i for i in range(7))


@triton.jit
def load_as(p, at, inside, wide, WIDE: tl.constexpr):
    """Elements as WIDE, of an array of its own dtype, or where ``wide`` is not 0 of WIDE."""
    if wide != 0:
        v = tl.load(p.to(tl.pointer_type(WIDE)) + at, mask=inside, other=0.0)
    else:
        v = tl.load(p + at, mask=inside, other=0.0).to(WIDE)
    return v


@triton.jit
def store_as(p, at, v, inside, wide, WIDE: tl.constexpr):
    """The counterpart of `load_as`."""
    if wide != 0:
        tl.store(p.to(tl.pointer_type(WIDE)) + at, v, mask=inside)
    else:
        tl.store(p + at, v.to(p.dtype.element_ty), mask=inside)


@triton.jit
def scaled(
    d, r, weight, bias, row, cols, inside, spatial, channels, groups, flags, WIDE: tl.constexpr, CHANNELS: tl.constexpr
):  # fmt: skip
    """d * r * weight + bias, of the element's own weight or, with CHANNELS, that of its channel."""
    at = cols
    if CHANNELS:
        at = (row % groups * channels).to(tl.int32)[:, None] + cols // spatial
    y = d * r
    if (flags & 16) != 0:
        y = y * load_as(weight, at, inside, flags & 2, WIDE)
    if (flags & 32) != 0:
        y = y + load_as(bias, at, inside, flags & 4, WIDE)
    return y


@triton.jit
def added(x, residual, at, inside, flags, WIDE: tl.constexpr):
    """x, or x + residual."""
    v = tl.load(x + at, mask=inside, other=0.0).to(WIDE)
    if (flags & 64) != 0:
        v = v + tl.load(residual + at, mask=inside, other=0.0).to(WIDE)
    return v


@triton.jit
def norm_rows(
    x, residual, summed, weight, bias, y, mean, rstd, rows, n, eps, spatial, channels, groups, flags,
    WIDE: tl.constexpr, K: tl.constexpr, BLOCK: tl.constexpr, LOOP: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """y = (x - mean) * rstd * weight + bias with rstd = 1 / sqrt(mean((x - mean)^2) + eps); RMS: without the mean.

    x, residual, summed, y: (rows, n), K rows a program; mean, rstd: (rows). A weight and bias per element of a row,
    (n), or with CHANNELS per channel of ``spatial`` elements, ``channels`` in a row, others in each of ``groups`` rows
    (a constant: the compiler joins branches that load alike, and then from any address). Overwrites y, rstd, and mean
    (not RMS), and with RESIDUAL summed = x + residual, which is what is normalised, before it is rounded.
    8 operations per element.
    """
    row = (tl.program_id(0) * K + tl.arange(0, K)).to(tl.int64)
    live = (row < rows)[:, None]
    base = row[:, None] * n
    cols = tl.arange(0, BLOCK)[None, :]
    count = tl.full([K], n, WIDE)
    one = tl.full([K], 1, WIDE)
    m = tl.zeros([K], WIDE)
    if LOOP:
        sums = tl.zeros([K, BLOCK], WIDE)
        for start in range(0, n, BLOCK):
            inside = live & (start + cols < n)
            v = added(x, residual, base + (start + cols), inside, flags, WIDE)
            if (flags & 64) != 0:
                tl.store(summed + (base + (start + cols)), v.to(summed.dtype.element_ty), mask=inside)
            sums += tl.where((flags & 1) != 0, v * v, v)
        t = quotient(tl.sum(sums, 1), count)
        if (flags & 1) == 0:
            m = t
            squares = tl.zeros([K, BLOCK], WIDE)
            for start in range(0, n, BLOCK):
                inside = live & (start + cols < n)
                d = added(x, residual, base + (start + cols), inside, flags, WIDE) - m[:, None]
                squares += tl.where(inside, d * d, 0.0)
            t = quotient(tl.sum(squares, 1), count)
        r = quotient(one, root(t + eps))
        for start in range(0, n, BLOCK):
            inside = live & (start + cols < n)
            d = added(x, residual, base + (start + cols), inside, flags, WIDE) - m[:, None]
            at = start + cols
            z = scaled(d, r[:, None], weight, bias, row, at, inside, spatial, channels, groups, flags, WIDE, CHANNELS)
            tl.store(y + (base + (start + cols)), z.to(y.dtype.element_ty), mask=inside)
    else:
        inside = live & (cols < n)
        v = added(x, residual, base + cols, inside, flags, WIDE)
        if (flags & 64) != 0:
            tl.store(summed + (base + cols), v.to(summed.dtype.element_ty), mask=inside)
        if (flags & 1) == 0:
            m = quotient(tl.sum(v, 1), count)
        d = tl.where(inside, v - m[:, None], 0.0)
        r = quotient(one, root(quotient(tl.sum(d * d, 1), count) + eps))
        z = scaled(d, r[:, None], weight, bias, row, cols, inside, spatial, channels, groups, flags, WIDE, CHANNELS)
        tl.store(y + (base + cols), z.to(y.dtype.element_ty), mask=inside)
    if (flags & 1) == 0:
        store_as(mean, row, m, row < rows, flags & 8, WIDE)
    store_as(rstd, row, r, row < rows, flags & 8, WIDE)


@triton.jit
def slopes(g, x, weight, m, r, cols, inside, flags, WIDE: tl.constexpr):
    """x normalised, and g times weight."""
    xhat = tl.where(inside, (x - m) * r, 0.0)
    gw = g
    if (flags & 16) != 0:
        gw = g * load_as(weight, cols, inside, flags & 2, WIDE)
    return xhat, gw


@triton.jit
def norm_grad_rows(
    g, more, x, weight, mean, rstd, dx, partial, rows, n, per, flags,
    WIDE: tl.constexpr, K: tl.constexpr, BLOCK: tl.constexpr, LOOP: tl.constexpr,
):  # fmt: skip
    """dx of the norms over the last axis, and shares of dw and db; ``more`` (RESIDUAL) is added to dx.

    g, more, x, dx: (rows, n). A program goes through ``per`` * K rows. Overwrites dx and, unless LOOP,
    partial, (2, programs, n): dw's shares, then db's (not RMS). With LOOP see `norm_grad_columns`.
    """
    program = tl.program_id(0)
    cols = tl.arange(0, BLOCK)[None, :]
    count = tl.full([K], n, WIDE)
    dw = tl.zeros([K, BLOCK], WIDE)
    db = tl.zeros([K, BLOCK], WIDE)
    for i in range(0, per):
        row = ((program * per + i) * K + tl.arange(0, K)).to(tl.int64)
        there = row < rows
        live = there[:, None]
        base = row[:, None] * n
        r = load_as(rstd, row, there, flags & 8, WIDE)[:, None]
        m = tl.zeros([K, 1], WIDE)
        if (flags & 1) == 0:
            m = load_as(mean, row, there, flags & 8, WIDE)[:, None]
        if LOOP:
            first = tl.zeros([K, BLOCK], WIDE)
            second = tl.zeros([K, BLOCK], WIDE)
            for start in range(0, n, BLOCK):
                inside = live & (start + cols < n)
                u = tl.load(g + (base + (start + cols)), mask=inside, other=0.0).to(WIDE)
                v = tl.load(x + (base + (start + cols)), mask=inside, other=0.0).to(WIDE)
                xhat, gw = slopes(u, v, weight, m, r, start + cols, inside, flags, WIDE)
                first += gw
                second += gw * xhat
            a = quotient(tl.sum(first, 1), count)[:, None]
            if (flags & 1) != 0:
                a = a * 0.0
            b = quotient(tl.sum(second, 1), count)[:, None]
            for start in range(0, n, BLOCK):
                inside = live & (start + cols < n)
                u = tl.load(g + (base + (start + cols)), mask=inside, other=0.0).to(WIDE)
                v = tl.load(x + (base + (start + cols)), mask=inside, other=0.0).to(WIDE)
                xhat, gw = slopes(u, v, weight, m, r, start + cols, inside, flags, WIDE)
                d = r * (gw - a - xhat * b)
                if (flags & 64) != 0:
                    d += tl.load(more + (base + (start + cols)), mask=inside, other=0.0).to(WIDE)
                tl.store(dx + (base + (start + cols)), d.to(dx.dtype.element_ty), mask=inside)
        else:
            inside = live & (cols < n)
            u = tl.load(g + (base + cols), mask=inside, other=0.0).to(WIDE)
            v = tl.load(x + (base + cols), mask=inside, other=0.0).to(WIDE)
            xhat, gw = slopes(u, v, weight, m, r, cols, inside, flags, WIDE)
            a = quotient(tl.sum(gw, 1), count)[:, None]
            if (flags & 1) != 0:
                a = tl.zeros([K, 1], WIDE)
            b = quotient(tl.sum(gw * xhat, 1), count)[:, None]
            d = r * (gw - a - xhat * b)
            if (flags & 64) != 0:
                d += tl.load(more + (base + cols), mask=inside, other=0.0).to(WIDE)
            tl.store(dx + (base + cols), d.to(dx.dtype.element_ty), mask=inside)
            dw += u * xhat
            db += u
    if not LOOP:
        at = program.to(tl.int64) * n + cols
        tl.store(partial + at, tl.sum(dw, 0)[None, :], mask=cols < n)
        if (flags & 1) == 0:
            tl.store(partial + (tl.num_programs(0).to(tl.int64) * n + at), tl.sum(db, 0)[None, :], mask=cols < n)


@triton.jit
def norm_grad_columns(
    g, x, mean, rstd, partial, rows, n, per, flags, WIDE: tl.constexpr, R: tl.constexpr, C: tl.constexpr
):  # fmt: skip
    """Shares of dw and db for long rows: a program has C columns of ``per`` rows.

    Overwrites partial, (2, shares, n).
    """
    col = tl.program_id(0) * C + tl.arange(0, C)[None, :]
    share = tl.program_id(1)
    low = share * per
    high = tl.minimum(low + per, rows)
    dw = tl.zeros([R, C], WIDE)
    db = tl.zeros([R, C], WIDE)
    for j in range(low, high, R):
        row = (j + tl.arange(0, R)).to(tl.int64)
        there = row < high
        inside = there[:, None] & (col < n)
        r = load_as(rstd, row, there, flags & 8, WIDE)[:, None]
        m = tl.zeros([R, 1], WIDE)
        if (flags & 1) == 0:
            m = load_as(mean, row, there, flags & 8, WIDE)[:, None]
        u = tl.load(g + (row[:, None] * n + col), mask=inside, other=0.0).to(WIDE)
        v = tl.load(x + (row[:, None] * n + col), mask=inside, other=0.0).to(WIDE)
        dw += u * tl.where(inside, (v - m) * r, 0.0)
        db += u
    at = share.to(tl.int64) * n + col
    tl.store(partial + at, tl.sum(dw, 0)[None, :], mask=col < n)
    if (flags & 1) == 0:
        tl.store(partial + (tl.num_programs(1).to(tl.int64) * n + at), tl.sum(db, 0)[None, :], mask=col < n)


@triton.jit
def channel_sums(
    g, x, mean, rstd, sums, rows, n, channels, flags,
    WIDE: tl.constexpr, K: tl.constexpr, BLOCK: tl.constexpr, LOOP: tl.constexpr,
):  # fmt: skip
    """Sums of g * xhat and of g over the n elements of each channel of each sample.

    g, x: (rows, n), a row a channel; mean and rstd of ``channels`` rows each are one. Overwrites sums, (2, rows).
    """
    row = (tl.program_id(0) * K + tl.arange(0, K)).to(tl.int64)
    there = row < rows
    base = row[:, None] * n
    cols = tl.arange(0, BLOCK)[None, :]
    r = load_as(rstd, row // channels, there, flags & 8, WIDE)[:, None]
    m = load_as(mean, row // channels, there, flags & 8, WIDE)[:, None]
    first = tl.zeros([K, BLOCK], WIDE)
    second = tl.zeros([K, BLOCK], WIDE)
    for start in range(0, n, BLOCK):
        inside = there[:, None] & (start + cols < n)
        u = tl.load(g + (base + (start + cols)), mask=inside, other=0.0).to(WIDE)
        v = tl.load(x + (base + (start + cols)), mask=inside, other=0.0).to(WIDE)
        first += u * tl.where(inside, (v - m) * r, 0.0)
        second += u
    tl.store(sums + row, tl.sum(first, 1), mask=there)
    tl.store(sums + rows + row, tl.sum(second, 1), mask=there)


@triton.jit
def group_norm_dx(
    g, x, weight, mean, rstd, sums, dx, rows, n, channels, groups, flags,
    WIDE: tl.constexpr, K: tl.constexpr, BLOCK: tl.constexpr, LOOP: tl.constexpr,
):  # fmt: skip
    """dx of group_norm from what `channel_sums` left.

    g, x, dx: (rows, n), a row a channel, ``channels`` of a group, ``groups`` of a sample; weight per channel.
    Overwrites dx. Every program adds up the sums of its rows' groups.
    """
    row = (tl.program_id(0) * K + tl.arange(0, K)).to(tl.int64)
    there = row < rows
    group = row // channels
    a = tl.zeros([K], WIDE)
    b = tl.zeros([K], WIDE)
    for c in range(0, channels):
        other = group * channels + c
        w = tl.full([K], 1, WIDE)
        if (flags & 16) != 0:
            w = load_as(weight, other % (channels * groups), there, flags & 2, WIDE)
        b += w * tl.load(sums + other, mask=there, other=0.0)
        a += w * tl.load(sums + rows + other, mask=there, other=0.0)
    count = tl.full([K], 1, WIDE) * n * channels
    a = quotient(a, count)[:, None]
    b = quotient(b, count)[:, None]
    own = tl.full([K], 1, WIDE)
    if (flags & 16) != 0:
        own = load_as(weight, row % (channels * groups), there, flags & 2, WIDE)
    r = load_as(rstd, group, there, flags & 8, WIDE)[:, None]
    m = load_as(mean, group, there, flags & 8, WIDE)[:, None]
    base = row[:, None] * n
    cols = tl.arange(0, BLOCK)[None, :]
    for start in range(0, n, BLOCK):
        inside = there[:, None] & (start + cols < n)
        u = tl.load(g + (base + (start + cols)), mask=inside, other=0.0).to(WIDE)
        v = tl.load(x + (base + (start + cols)), mask=inside, other=0.0).to(WIDE)
        d = r * (u * own[:, None] - a - (v - m) * r * b)
        tl.store(dx + (base + (start + cols)), d.to(dx.dtype.element_ty), mask=inside)
