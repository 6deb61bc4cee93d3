"""Where the elements of arrays with strides lie.

An index counts the elements of a result in C order. Axes are padded with leading ones of length 1; the length of the
first is not needed. All counts and strides, in elements, fit 31 bits: launchers cut what does not.

A mask ``i < n`` keeps the compiler from accesses of 16 bytes unless n is known to be a multiple of 16; so whole blocks
are read and written without one.
"""

import triton
import triton.language as tl


@triton.jit
def place3(i, n1, n2, s0, s1, s2):
    """Offset of element i of axes (any, n1, n2) with strides s0 to s2."""
    i = i.to(tl.uint32)
    j = i // n2.to(tl.uint32)
    at = (i - j * n2.to(tl.uint32)).to(tl.int32) * s2
    k = j // n1.to(tl.uint32)
    return at + (j - k * n1.to(tl.uint32)).to(tl.int32) * s1 + k.to(tl.int32) * s0


@triton.jit
def place4(i, n1, n2, n3, s0, s1, s2, s3):
    """Offset of element i of axes (any, n1, n2, n3) with strides s0 to s3."""
    i = i.to(tl.uint32)
    j = i // n3.to(tl.uint32)
    return (i - j * n3.to(tl.uint32)).to(tl.int32) * s3 + place3(j, n1, n2, s0, s1, s2)


@triton.jit
def place5(i, n1, n2, n3, n4, s0, s1, s2, s3, s4):
    """Offset of element i of axes (any, n1, n2, n3, n4) with strides s0 to s4."""
    i = i.to(tl.uint32)
    j = i // n4.to(tl.uint32)
    return (i - j * n4.to(tl.uint32)).to(tl.int32) * s4 + place4(j, n1, n2, n3, s0, s1, s2, s3)


@triton.jit
def load_block(x, start, n, BLOCK: tl.constexpr):
    """Elements start to start + BLOCK of n dense ones; what lies behind them is undefined."""
    i = start + tl.arange(0, BLOCK)
    if start + BLOCK <= n:
        v = tl.load(x + i)
    else:
        v = tl.load(x + i, mask=i < n)
    return v


@triton.jit
def store_block(y, start, n, v, BLOCK: tl.constexpr):
    """Writes elements start to start + BLOCK of n dense ones, rounded to their type."""
    i = start + tl.arange(0, BLOCK)
    w = v.to(y.dtype.element_ty)
    if start + BLOCK <= n:
        tl.store(y + i, w)
    else:
        tl.store(y + i, w, mask=i < n)


@triton.jit
def widen(v):
    """16-bit floating values as float32, all others as they are."""
    if v.dtype.primitive_bitwidth == 16 and v.dtype.is_floating():
        w = v.to(tl.float32)
    else:
        w = v
    return w
