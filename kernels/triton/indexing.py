"""Elements by position: gather, scatter. Elements are moved as they are.

An index is along an axis of n positions. Negative ones count from ``wrap``, which is n, or 0 where they are not
allowed. One that is out of range is written to ``fault`` (any of those that are), 8 bytes at once. With ``checked`` the
host has looked at them, and any is taken as it is.
"""

import triton
import triton.language as tl

from spiral.kernels.triton.strided import place5


@triton.jit
def positions(index, at, inside, n, wrap, checked, fault):
    """Indices as offsets along the axis, and where they are in range."""
    given = tl.load(index + at, mask=inside, other=0).to(tl.int64)
    p = given
    good = inside
    if checked == 0:
        p = tl.where(given < 0, given + wrap, given)
        good = inside & (p >= 0) & (p < n)
        tl.store(fault + tl.zeros_like(at), given, mask=inside & (good == 0))
    return p, good


@triton.jit
def gather(
    x, index, y, fault, count, runs, n1, n2, n3, n4, x0, x1, x2, x3, x4, i0, i1, i2, i3, i4, n, stride, wrap, checked,
    BLOCK: tl.constexpr, V: tl.constexpr,
):  # fmt: skip
    """y = the elements of x at the offset of x plus index * stride, for count elements in up to 5 axes.

    y: dense in the order of the axes, overwritten, with zeros where the index is out of range: nothing outside of x is
    read. x and index have strides; index * stride comes on top. With ``runs`` the last axis has stride 1 in x and 0 in
    index and is cut into runs of V elements (16 bytes): lengths, strides of x and ``stride`` count runs. Moves
    2 * count elements and reads an index per run.
    """
    start = tl.program_id(0).to(tl.int64) * BLOCK
    if runs:
        r = (start // V).to(tl.int32) + tl.arange(0, BLOCK // V)
        some = r < count // V
        q, found = positions(index, place5(r, n1, n2, n3, n4, i0, i1, i2, i3, i4), some, n, wrap, checked, fault)
        run = (place5(r, n1, n2, n3, n4, x0, x1, x2, x3, x4) + q * stride) * V
        v = tl.arange(0, V)[None, :]
        u = tl.load(x + (run[:, None] + v), mask=found[:, None], other=0)
        tl.store(y + ((r.to(tl.int64) * V)[:, None] + v), u, mask=some[:, None])
    else:
        i = start.to(tl.int32) + tl.arange(0, BLOCK)
        inside = i < count
        p, good = positions(index, place5(i, n1, n2, n3, n4, i0, i1, i2, i3, i4), inside, n, wrap, checked, fault)
        at = place5(i, n1, n2, n3, n4, x0, x1, x2, x3, x4) + p * stride
        tl.store(y + i, tl.load(x + at, mask=good, other=0), mask=inside)


@triton.jit
def scatter(
    x, index, y, count, runs, n1, n2, n3, n4, x0, x1, x2, x3, x4, i0, i1, i2, i3, i4, y0, y1, y2, y3, y4,
    BLOCK: tl.constexpr, V: tl.constexpr,
):  # fmt: skip
    """The elements of y at the offset of y plus index = the elements of x, for count elements in up to 5 axes.

    Overwrites these elements of y and no others; none may be named twice. All three have strides; with ``runs`` as for
    `gather`, where indices, in elements, are multiples of V. Moves 2 * count elements.
    """
    start = tl.program_id(0).to(tl.int64) * BLOCK
    if runs:
        r = (start // V).to(tl.int32) + tl.arange(0, BLOCK // V)
        some = (r < count // V)[:, None]
        q = tl.load(index + place5(r, n1, n2, n3, n4, i0, i1, i2, i3, i4), mask=r < count // V, other=0)
        source = place5(r, n1, n2, n3, n4, x0, x1, x2, x3, x4) * V
        goal = (place5(r, n1, n2, n3, n4, y0, y1, y2, y3, y4).to(tl.int64) + q // V) * V
        v = tl.arange(0, V)[None, :]
        tl.store(y + (goal[:, None] + v), tl.load(x + (source[:, None] + v), mask=some), mask=some)
    else:
        i = start.to(tl.int32) + tl.arange(0, BLOCK)
        inside = i < count
        p = tl.load(index + place5(i, n1, n2, n3, n4, i0, i1, i2, i3, i4), mask=inside, other=0)
        at = place5(i, n1, n2, n3, n4, x0, x1, x2, x3, x4)
        to = place5(i, n1, n2, n3, n4, y0, y1, y2, y3, y4) + p
        tl.store(y + to, tl.load(x + at, mask=inside), mask=inside)
