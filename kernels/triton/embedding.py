"""Rows summed by index, in a fixed order: the gradients of embedding, take, take_along_axis and of indexing.

The places that rows go to are sorted (kernels/triton/sort.py; rows of one place keep their order): int64 with the place
in the upper half, 2^31 - 1 for none, and the row in the lower. Then each run of one place is summed along the sorted
order: in chunks of CHUNK positions, and runs that cross chunks from their pieces. What is added to what depends on the
shapes and places alone: the same bits every time.
"""

import triton
import triton.language as tl

from spiral.kernels.triton.strided import place3, place5

NONE = tl.constexpr(2**31 - 1)


@triton.jit
def index_keys(
    index, key, fault, count, n1, n2, n3, n4, b0, b1, b2, b3, b4, i0, i1, i2, i3, i4, n, stride, wrap,
    BLOCK: tl.constexpr,
):  # fmt: skip
    """key = (place, i) for each of count indices in up to 5 axes; the place is a base offset plus index * stride.

    Strides b0 to b4 give the base, i0 to i4 where the index is. Negative indices count from wrap; one that is then not
    in [0, n) has no place, and is written to fault. Overwrites key (count).
    """
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = i < count
    given = tl.load(index + place5(i, n1, n2, n3, n4, i0, i1, i2, i3, i4), mask=inside, other=0).to(tl.int64)
    p = tl.where(given < 0, given + wrap, given)
    good = (p >= 0) & (p < n)
    tl.store(fault + tl.zeros_like(i), given, mask=inside & (good == 0))
    place = tl.where(good, place5(i, n1, n2, n3, n4, b0, b1, b2, b3, b4) + p * stride, NONE)
    tl.store(key + i, (place << 32) | i, mask=inside)


@triton.jit
def offsets(c, n1, n2, s0, s1, s2, FLAT: tl.constexpr):
    """Where elements c of a row lie; FLAT: one after the other."""
    if FLAT:
        at = c
    else:
        at = place3(c, n1, n2, s0, s1, s2)
    return at


@triton.jit
def segment_sum(
    g, key, out, partial, m, rest, n1, n2, g0, g1, g2, o0, o1, o2, g_step, out_step,
    WIDE: tl.constexpr, CHUNK: tl.constexpr, R: tl.constexpr, C: tl.constexpr, FLAT: tl.constexpr,
):  # fmt: skip
    """For every run of one place that lies in one chunk: out[place] = the sum of its rows of g.

    Pieces of runs that cross chunks go to partial[chunk][0] (those that began earlier) and [1] (that begin here). key
    (m): sorted. A row has ``rest`` elements in up to 3 axes with strides in g and out; rows are g_step apart in g,
    places out_step in out. Sums are in WIDE, rounded once. Overwrites the rows of out that places name, partial
    (chunks, 2, rest) in part. A program has R positions, of which those work that begin a run or a chunk, and C
    elements of the rows. Reads g once.
    """
    p = tl.program_id(0) * R + tl.arange(0, R)
    c = tl.program_id(1) * C + tl.arange(0, C)
    held = c < rest
    at_g = offsets(c, n1, n2, g0, g1, g2, FLAT)
    place = tl.load(key + p, mask=p < m, other=NONE << 32) >> 32
    earlier = tl.load(key + p - 1, mask=(p > 0) & (p < m), other=-1) >> 32
    begins = (p == 0) | (earlier != place)
    start = (begins | (p % CHUNK == 0)) & (p < m) & (place != NONE)
    acc = tl.zeros([R, C], WIDE)
    q = p
    active = start
    while tl.max(active.to(tl.int32), 0) != 0:
        row = tl.load(key + q, mask=active, other=0) & 0xFFFFFFFF
        v = tl.load(g + (row * g_step)[:, None] + at_g[None, :], mask=active[:, None] & held[None, :], other=0.0)
        acc += v.to(WIDE)
        q = tl.where(active, q + 1, q)
        following = tl.load(key + q, mask=active & (q < m), other=NONE << 32) >> 32
        active = active & (q % CHUNK != 0) & (following == place)
    following = tl.load(key + q, mask=start & (q < m), other=NONE << 32) >> 32
    whole = start & begins & (following != place)
    to = (place * out_step)[:, None] + offsets(c, n1, n2, o0, o1, o2, FLAT)[None, :]
    tl.store(out + to, acc.to(out.dtype.element_ty), mask=whole[:, None] & held[None, :])
    piece = (p // CHUNK * 2 + begins.to(tl.int32)).to(tl.int64) * rest
    tl.store(partial + piece[:, None] + c[None, :], acc, mask=(start & (whole == 0))[:, None] & held[None, :])


@triton.jit
def segment_join(
    key, out, partial, m, rest, n1, n2, o0, o1, o2, out_step,
    WIDE: tl.constexpr, CHUNK: tl.constexpr, R: tl.constexpr, C: tl.constexpr,
):  # fmt: skip
    """out[place] = the sum of the pieces of a run that crosses chunks, by the chunk that it begins in.

    Parameters as for segment_sum, after it. A program has R chunks and C elements of the rows.
    """
    k = tl.program_id(0) * R + tl.arange(0, R)
    c = tl.program_id(1) * C + tl.arange(0, C)
    held = (c < rest)[None, :]
    first = k * CHUNK
    end = first + CHUNK  # the first position of the next chunk
    place = tl.load(key + end - 1, mask=end < m, other=NONE << 32) >> 32
    following = tl.load(key + end, mask=end < m, other=-1) >> 32
    here = tl.load(key + first, mask=first < m, other=-1) >> 32
    earlier = tl.load(key + first - 1, mask=(first > 0) & (first < m), other=-1) >> 32
    active = (following == place) & (place != NONE) & ((here != place) | (first == 0) | (earlier != place))
    start = active
    acc = tl.load(
        partial + ((k * 2 + 1).to(tl.int64) * rest)[:, None] + c[None, :], mask=active[:, None] & held, other=0.0
    )
    while tl.max(active.to(tl.int32), 0) != 0:
        k = tl.where(active, k + 1, k)
        piece = (k * 2).to(tl.int64) * rest
        acc += tl.load(partial + piece[:, None] + c[None, :], mask=active[:, None] & held, other=0.0)
        end = (k + 1) * CHUNK
        last = tl.load(key + end - 1, mask=active & (end < m), other=-1) >> 32
        following = tl.load(key + end, mask=active & (end < m), other=-1) >> 32
        active = active & (last == place) & (following == place)
    to = (place * out_step)[:, None] + place3(c, n1, n2, o0, o1, o2)[None, :]
    tl.store(out + to, acc.to(out.dtype.element_ty), mask=start[:, None] & held)
