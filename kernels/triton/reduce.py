"""Reductions over rows of memory, over columns of it, and running sums and products.

An array is seen as kept axes, up to 3 with strides, and reduced axes: m stretches of n elements. In ``rows`` kernels
the n elements are consecutive, in ``columns`` kernels the last kept axis is. Each program reduces whole rows or
columns, or segments of them; then results are partial ones, (segments, kept), which the same kernels reduce once more.
Every element is read once, and joined in an order that the shapes alone decide. Arithmetic is in float32, float64 or
int64.

The operations, by number:
  0  sum;   1  product;   2  maximum, NaN if there is one;   3  whether any element is not 0;
  4  sum of squared distances from ``centre``, one per kept element.
``flip`` turns maxima into minima and any into all: floating values are negated, the bits of integers in ``flip``
turned, truth values inverted; ``flip_back`` does so with the results. Sums are divided by ``divisor``.
Results are stored in the type of number ``out``, their place in `OUT`.
"""

import triton
import triton.language as tl

from spiral.kernels.triton.elementwise import quotient
from spiral.kernels.triton.strided import place3

SUM, PRODUCT, MAXIMUM, ANY, SQUARES = range(5)
OUT = ("float16", "bfloat16", "float32", "float64", "int8", "int16", "int32", "int64")


@triton.jit
def store_as(y, at, v, inside, out):
    """Values as the type of number ``out``; y is an address of bytes."""
    if v.dtype.is_floating():
        if out == 0:
            tl.store(y.to(tl.pointer_type(tl.float16)) + at, v.to(tl.float32).to(tl.float16), mask=inside)
        elif out == 1:
            tl.store(y.to(tl.pointer_type(tl.bfloat16)) + at, v.to(tl.float32).to(tl.bfloat16), mask=inside)
        elif out == 2:
            tl.store(y.to(tl.pointer_type(tl.float32)) + at, v.to(tl.float32), mask=inside)
        elif out == 3:
            tl.store(y.to(tl.pointer_type(tl.float64)) + at, v.to(tl.float64), mask=inside)
        else:
            tl.store(y + at, (v != 0).to(tl.int8), mask=inside)
    else:
        if out == 4:
            tl.store(y + at, v.to(tl.int8), mask=inside)
        elif out == 5:
            tl.store(y.to(tl.pointer_type(tl.int16)) + at, v.to(tl.int16), mask=inside)
        elif out == 6:
            tl.store(y.to(tl.pointer_type(tl.int32)) + at, v.to(tl.int32), mask=inside)
        else:
            tl.store(y.to(tl.pointer_type(tl.int64)) + at, v, mask=inside)


@triton.jit
def flipped(v, flip):
    """Values in the reverse order."""
    if v.dtype.is_floating():
        w = tl.where(flip != 0, -v, v)
    else:
        w = v ^ flip
    return w


@triton.jit
def accumulate(acc, v, op, flip, centre):
    """The states after one more element each."""
    if op == 0:
        new = acc + v
    elif op == 1:
        new = acc * v
    elif op == 2:
        w = flipped(v, flip)
        new = tl.where((w > acc) | (w != w), w, acc)
    elif op == 3:
        t = ((v != 0) != (flip != 0)).to(acc.dtype)
        new = tl.where(t > acc, t, acc)
    else:
        d = v - centre
        new = acc + d * d
    return new


@triton.jit
def multiply(a, b):
    """Joins products."""
    return a * b


@triton.jit
def joined(acc, op, AXIS: tl.constexpr):
    """States joined along an axis."""
    if op == 1:
        s = tl.reduce(acc, AXIS, multiply)
    elif (op == 2) | (op == 3):
        if acc.dtype.is_floating():
            bad = tl.max((acc != acc).to(tl.int32), AXIS)
            s = tl.where(bad != 0, float("nan"), tl.max(tl.where(acc == acc, acc, float("-inf")), AXIS)).to(acc.dtype)
        else:
            s = tl.max(acc, AXIS)
    else:
        s = tl.sum(acc, AXIS)
    return s


@triton.jit
def finished(s, op, flip_back, divisor):
    """Results from states."""
    if op == 2:
        r = flipped(s, flip_back)
    elif op == 3:
        r = ((s != 0) != (flip_back != 0)).to(s.dtype)
    else:
        if s.dtype.is_floating():
            r = quotient(s, tl.full(s.shape, divisor, s.dtype))
        else:
            r = s
    return r


@triton.jit
def reduce_rows(
    x, centre, y, op, flip, flip_back, none, divisor, out, kept, m, n, m_per, n_per, segments_n, n1, n2, s0, s1, s2, sm,
    WIDE: tl.constexpr, K: tl.constexpr, R: tl.constexpr,
):  # fmt: skip
    """Reduces m stretches of n consecutive elements, sm apart, for each of ``kept`` elements; K of them a program.

    Segments are of m_per stretches and n_per elements, a multiple of R. Overwrites y, (segments, kept).
    """
    k = tl.program_id(0) * K + tl.arange(0, K)
    live = (k < kept)[:, None]
    base = place3(k, n1, n2, s0, s1, s2)[:, None]
    segment = tl.program_id(1)
    first = (segment // segments_n) * m_per
    low = (segment % segments_n) * n_per
    high = tl.minimum(low + n_per, n)
    whole = low + (high - low) // R * R
    r = tl.arange(0, R)[None, :]
    c = tl.full([K, 1], 0, WIDE)
    if op == 4:
        c = tl.load(centre + k, mask=k < kept, other=0)[:, None]
    acc = tl.full([K, R], none, WIDE)
    for i in range(first, tl.minimum(first + m_per, m)):
        at = base + i * sm
        for j in range(low, whole, R):
            if K == 1:
                v = tl.load(x + (at + (j + r)))
            else:
                v = tl.load(x + (at + (j + r)), mask=live, other=0)
            acc = accumulate(acc, v.to(WIDE), op, flip, c)
        if whole < high:
            inside = live & (whole + r < high)
            v = tl.load(x + (at + (whole + r)), mask=inside, other=0)
            acc = tl.where(inside, accumulate(acc, v.to(WIDE), op, flip, c), acc)
    s = finished(joined(acc, op, 1), op, flip_back, divisor)
    store_as(y, segment.to(tl.int64) * kept + k, s, k < kept, out)


@triton.jit
def reduce_columns(
    x, centre, y, op, flip, flip_back, none, divisor, out, columns, tiles, m, n, m_per, n_per, segments_n, n1, n2,
    s0, s1, s2, sm, sn, WIDE: tl.constexpr, R: tl.constexpr, C: tl.constexpr,
):  # fmt: skip
    """Reduces m x n elements, sm and sn apart, for each of ``columns`` consecutive ones of each outer kept element.

    ``tiles`` programs side by side share the columns. Segments are of m_per and n_per elements. Overwrites y,
    (segments, outer, columns).
    """
    tile = tl.program_id(0)
    o = tile // tiles
    col = (tile % tiles) * C + tl.arange(0, C)
    live = col < columns
    x += place3(o, n1, n2, s0, s1, s2)
    segment = tl.program_id(1)
    first = (segment // segments_n) * m_per
    low = (segment % segments_n) * n_per
    high = tl.minimum(low + n_per, n)
    r = tl.arange(0, R)[:, None]
    outer = tl.num_programs(0) // tiles
    c = tl.full([1, C], 0, WIDE)
    if op == 4:
        c = tl.load(centre + o.to(tl.int64) * columns + col, mask=live, other=0)[None, :]
    acc = tl.full([R, C], none, WIDE)
    for i in range(first, tl.minimum(first + m_per, m)):
        for j in range(low, high, R):
            at = (j + r) * sn + i * sm + col[None, :]
            within = tl.broadcast_to(j + r < high, [R, C])
            if (tile % tiles + 1) * C <= columns:
                v = tl.load(x + at, mask=within, other=0)
            else:
                v = tl.load(x + at, mask=within & live[None, :], other=0)
            acc = tl.where(within, accumulate(acc, v.to(WIDE), op, flip, c), acc)
    s = finished(joined(acc, op, 0), op, flip_back, divisor)
    store_as(y, (segment.to(tl.int64) * outer + o) * columns + col, s, live, out)


# ---------------------------------------------------------------- where extremes are
@triton.jit
def better(best, at, v, position):
    """The larger of two values and its position; the first of equal ones, and NaN before all."""
    take = (v > best) | ((v != v) & (best == best))
    return tl.where(take, v, best), tl.where(take, position, at)


@triton.jit
def first_best(best, at, AXIS: tl.constexpr):
    """The best value along an axis and its first position."""
    if best.dtype.is_floating():
        bad = tl.max((best != best).to(tl.int32), AXIS)
        top = tl.max(tl.where(best == best, best, float("-inf")), AXIS)
        hit = (best == tl.expand_dims(top, AXIS)) & (tl.expand_dims(bad, AXIS) == 0) | (best != best)
        value = tl.where(bad != 0, float("nan"), top).to(best.dtype)
    else:
        value = tl.max(best, AXIS)
        hit = best == tl.expand_dims(value, AXIS)
    return value, tl.min(tl.where(hit, at, 0x7FFFFFFF), AXIS)


@triton.jit
def where_rows(
    x, positions, values, y, flip, none, partial, joining, kept, n, n_per, n1, n2, s0, s1, s2,
    WIDE: tl.constexpr, K: tl.constexpr, R: tl.constexpr,
):  # fmt: skip
    """Position of the first largest of n consecutive elements for each of ``kept``; flipped: of the smallest.

    Where ``partial``, overwrites values and y, (kept, segments), with the segments' best values and their positions;
    else y, (kept). Where ``joining``, x holds such values and positions their positions.
    """
    k = tl.program_id(0) * K + tl.arange(0, K)
    live = (k < kept)[:, None]
    base = place3(k, n1, n2, s0, s1, s2)[:, None]
    segment = tl.program_id(1)
    low = segment * n_per
    high = tl.minimum(low + n_per, n)
    r = tl.arange(0, R)[None, :]
    best = tl.full([K, R], none, WIDE)
    at = tl.full([K, R], 0x7FFFFFFF, tl.int32)
    for j in range(low, high, R):
        inside = live & (j + r < high)
        v = flipped(tl.load(x + (base + (j + r)), mask=inside, other=0).to(WIDE), flip)
        position = tl.broadcast_to(j + r, [K, R])
        if joining != 0:
            position = tl.load(positions + (base + (j + r)), mask=inside, other=0).to(tl.int32)
        # an element that is no better than none has a position too
        new, there = better(best, at, v, position)
        fresh = inside & (at == 0x7FFFFFFF)
        best = tl.where(fresh, v, tl.where(inside, new, best))
        at = tl.where(fresh, position, tl.where(inside, there, at))
    value, place = first_best(best, at, 1)
    to = k.to(tl.int64) * tl.num_programs(1) + segment
    tl.store(y + to, place.to(tl.int64), mask=k < kept)
    if partial != 0:
        tl.store(values + to, value, mask=k < kept)


@triton.jit
def where_columns(
    x, y, flip, none, columns, tiles, n, n1, n2, s0, s1, s2, sn,
    WIDE: tl.constexpr, R: tl.constexpr, C: tl.constexpr,
):  # fmt: skip
    """Position of the first largest of n elements, sn apart, for each of ``columns`` of each outer kept element.

    Overwrites y, (outer, columns).
    """
    tile = tl.program_id(0)
    o = tile // tiles
    col = (tile % tiles) * C + tl.arange(0, C)
    live = col < columns
    x += place3(o, n1, n2, s0, s1, s2)
    r = tl.arange(0, R)[:, None]
    best = tl.full([R, C], none, WIDE)
    at = tl.full([R, C], 0x7FFFFFFF, tl.int32)
    for j in range(0, n, R):
        inside = (j + r < n) & live[None, :]
        v = flipped(tl.load(x + ((j + r) * sn + col[None, :]), mask=inside, other=0).to(WIDE), flip)
        position = tl.broadcast_to(j + r, [R, C])
        new, there = better(best, at, v, position)
        fresh = inside & (at == 0x7FFFFFFF)
        best = tl.where(fresh, v, tl.where(inside, new, best))
        at = tl.where(fresh, position, tl.where(inside, there, at))
    _, place = first_best(best, at, 0)
    tl.store(y + (o.to(tl.int64) * columns + col), place.to(tl.int64), mask=live)


# ---------------------------------------------------------------- running sums and products
@triton.jit
def cumulative_rows(x, carries, y, op, none, n, n_per, WIDE: tl.constexpr, R: tl.constexpr):
    """y = running sums (op 0) or products of rows of n elements; x and y dense, (rows, n).

    Segments of n_per elements, a multiple of R, begin with ``carries``, (rows, segments - 1), of those before.
    Overwrites y.
    """
    row, segment = tl.program_id(0), tl.program_id(1)
    x += row.to(tl.int64) * n
    y += row.to(tl.int64) * n
    r = tl.arange(0, R)
    low = segment * n_per
    high = tl.minimum(low + n_per, n)
    carry = none
    if segment > 0:
        carry = tl.load(carries + (row * (tl.num_programs(1) - 1) + segment - 1))
    for j in range(low, high, R):
        inside = j + r < high
        v = tl.where(inside, tl.load(x + (j + r), mask=inside, other=0).to(WIDE), none)
        if op == 0:
            s = tl.cumsum(v, 0) + carry
        else:
            s = tl.cumprod(v, 0) * carry
        tl.store(y + (j + r), s.to(y.dtype.element_ty), mask=inside)
        carry = tl.sum(tl.where(r == R - 1, s, 0), 0)


@triton.jit
def cumulative_columns(x, y, op, none, n, columns, tiles, WIDE: tl.constexpr, R: tl.constexpr, C: tl.constexpr):
    """y = running sums (op 0) or products along the middle axis; x, y dense, (outer, n, columns). Overwrites y."""
    tile = tl.program_id(0)
    o = (tile // tiles).to(tl.int64)
    col = (tile % tiles) * C + tl.arange(0, C)[None, :]
    x += o * n * columns
    y += o * n * columns
    r = tl.arange(0, R)[:, None]
    carry = tl.full([C], none, WIDE)
    for j in range(0, n, R):
        inside = (j + r < n) & (col < columns)
        at = (j + r).to(tl.int64) * columns + col
        v = tl.where(inside, tl.load(x + at, mask=inside, other=0).to(WIDE), none)
        if op == 0:
            s = tl.cumsum(v, 0) + carry[None, :]
        else:
            s = tl.cumprod(v, 0) * carry[None, :]
        tl.store(y + at, s.to(y.dtype.element_ty), mask=inside)
        carry = tl.sum(tl.where(r == R - 1, s, 0), 0)
