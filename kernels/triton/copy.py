"""Copies and casts of arrays with strides.

Elements of a dtype are named by the codes of `CODES`. A floating value becomes another through float64 or float32, an
integer one is cut to the bits that the other type has, a bool is whether the value is not 0. What an integer does not
hold is undefined, as in C.
"""

import triton
import triton.language as tl

from spiral.kernels.triton.strided import load_block, place3, place5, store_block

CODES = ("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64",
         "float16", "bfloat16", "float32", "float64")  # fmt: skip


@triton.jit
def copy_strided(
    x, y, n, runs, n1, n2, n3, n4, x0, x1, x2, x3, x4, y0, y1, y2, y3, y4, BLOCK: tl.constexpr, V: tl.constexpr
):  # fmt: skip
    """y = x for n elements moved as they are; both have strides.

    With ``runs`` the last axis has stride 1 in both and is cut into runs of V elements (16 bytes): lengths and strides
    count runs. Overwrites y. Moves 2 * n elements.
    """
    start = tl.program_id(0) * BLOCK
    if runs:
        r = start // V + tl.arange(0, BLOCK // V)
        reading = place5(r, n1, n2, n3, n4, x0, x1, x2, x3, x4) * V
        writing = place5(r, n1, n2, n3, n4, y0, y1, y2, y3, y4) * V
        within = (r * V < n)[:, None]
        v = tl.arange(0, V)[None, :]
        tl.store(y + (writing[:, None] + v), tl.load(x + (reading[:, None] + v), mask=within), mask=within)
    else:
        i = start + tl.arange(0, BLOCK)
        at = place5(i, n1, n2, n3, n4, x0, x1, x2, x3, x4)
        to = place5(i, n1, n2, n3, n4, y0, y1, y2, y3, y4)
        tl.store(y + to, tl.load(x + at, mask=i < n), mask=i < n)


@triton.jit
def copy_tiles(
    x, y, a, b, xb, ya, tiles_a, tiles_b, n1, n2, x0, x1, x2, y0, y1, y2, A: tl.constexpr, B: tl.constexpr
):  # fmt: skip
    """y = x where x has stride 1 along an axis of length a and y along another of length b; up to 3 more axes.

    Tiles of A x B elements are read along the one and written along the other. Strides in elements: xb of x along the
    axis of b, ya of y along that of a. Overwrites y. Moves 2 elements per element.
    """
    tile = tl.program_id(0)
    rest = tile // tiles_b
    i = (rest % tiles_a) * A + tl.arange(0, A)
    j = (tile % tiles_b) * B + tl.arange(0, B)
    batch = rest // tiles_a
    x += place3(batch, n1, n2, x0, x1, x2)
    y += place3(batch, n1, n2, y0, y1, y2)
    at, to = i[:, None] + j[None, :] * xb, i[:, None] * ya + j[None, :]
    inside = (i < a)[:, None] & (j < b)[None, :]
    tl.store(y + to, tl.load(x + at, mask=inside), mask=inside)


@triton.jit
def cast_dense(x, y, n, BLOCK: tl.constexpr):
    """y = x in another floating type of at most 32 bits, rounded to the nearest; dense. Overwrites y."""
    start = tl.program_id(0) * BLOCK
    store_block(y, start, n, load_block(x, start, n, BLOCK).to(tl.float32), BLOCK)


@triton.jit
def load_integer(x, at, inside, code):
    """Elements of an integer dtype or bool as int64; uint64 by its bits."""
    if code == 1:
        v = tl.load(x.to(tl.pointer_type(tl.int8)) + at, mask=inside).to(tl.int64)
    elif code == 2:
        v = tl.load(x.to(tl.pointer_type(tl.int16)) + at, mask=inside).to(tl.int64)
    elif code == 3:
        v = tl.load(x.to(tl.pointer_type(tl.int32)) + at, mask=inside).to(tl.int64)
    elif code == 6:
        v = tl.load(x.to(tl.pointer_type(tl.uint16)) + at, mask=inside).to(tl.int64)
    elif code == 7:
        v = tl.load(x.to(tl.pointer_type(tl.uint32)) + at, mask=inside).to(tl.int64)
    elif (code == 4) | (code == 8):
        v = tl.load(x.to(tl.pointer_type(tl.int64)) + at, mask=inside)
    else:
        v = tl.load(x.to(tl.pointer_type(tl.uint8)) + at, mask=inside).to(tl.int64)
    return v


@triton.jit
def load_floating(x, at, inside, code):
    """Elements of a floating dtype as float64."""
    if code == 9:
        v = tl.load(x.to(tl.pointer_type(tl.float16)) + at, mask=inside).to(tl.float32).to(tl.float64)
    elif code == 10:
        v = tl.load(x.to(tl.pointer_type(tl.bfloat16)) + at, mask=inside).to(tl.float32).to(tl.float64)
    elif code == 11:
        v = tl.load(x.to(tl.pointer_type(tl.float32)) + at, mask=inside).to(tl.float64)
    else:
        v = tl.load(x.to(tl.pointer_type(tl.float64)) + at, mask=inside)
    return v


@triton.jit
def store_integer(y, i, v, inside, code):
    """int64 values as an integer dtype."""
    if (code == 1) | (code == 5):
        tl.store(y.to(tl.pointer_type(tl.int8)) + i, v.to(tl.int8), mask=inside)
    elif (code == 2) | (code == 6):
        tl.store(y.to(tl.pointer_type(tl.int16)) + i, v.to(tl.int16), mask=inside)
    elif (code == 3) | (code == 7):
        tl.store(y.to(tl.pointer_type(tl.int32)) + i, v.to(tl.int32), mask=inside)
    else:
        tl.store(y.to(tl.pointer_type(tl.int64)) + i, v, mask=inside)


@triton.jit
def store_floating(y, i, v, wide, inside, code):
    """float32 values, and the same values in float64, as a floating dtype."""
    if code == 9:
        tl.store(y.to(tl.pointer_type(tl.float16)) + i, v.to(tl.float16), mask=inside)
    elif code == 10:
        tl.store(y.to(tl.pointer_type(tl.bfloat16)) + i, v.to(tl.bfloat16), mask=inside)
    elif code == 11:
        tl.store(y.to(tl.pointer_type(tl.float32)) + i, v, mask=inside)
    else:
        tl.store(y.to(tl.pointer_type(tl.float64)) + i, wide, mask=inside)


@triton.jit
def cast_strided(
    x, y, n, source, to, n1, n2, n3, n4, x0, x1, x2, x3, x4, BLOCK: tl.constexpr, FLOATING: tl.constexpr
):  # fmt: skip
    """y = x from the dtype of code ``source`` to that of ``to``; x has strides, y is dense. Overwrites y.

    FLOATING: the source is floating. x and y are addresses of bytes.
    """
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = i < n
    at = place5(i, n1, n2, n3, n4, x0, x1, x2, x3, x4)
    if FLOATING:
        v = load_floating(x, at, inside, source)
        if to == 0:
            tl.store(y + i, (v != 0).to(tl.int8), mask=inside)
        elif to == 8:
            tl.store(y.to(tl.pointer_type(tl.uint64)) + i, v.to(tl.uint64), mask=inside)
        elif to < 9:
            store_integer(y, i, v.to(tl.int64), inside, to)
        else:
            store_floating(y, i, v.to(tl.float32), v, inside, to)
    else:
        v = load_integer(x, at, inside, source)
        if to == 0:
            tl.store(y + i, (v != 0).to(tl.int8), mask=inside)
        elif to < 9:
            store_integer(y, i, v, inside, to)
        elif source == 8:
            u = v.to(tl.uint64, bitcast=True)
            store_floating(y, i, u.to(tl.float32), u.to(tl.float64), inside, to)
        else:
            store_floating(y, i, v.to(tl.float32), v.to(tl.float64), inside, to)
