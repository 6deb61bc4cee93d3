"""Loops over elements: what kernels of one, two and three operands are made of.

A function of the family is a constant of the kernel; it takes an operation's number at the launch, so that one kernel
serves a whole group. All threads of a launch take the same branch, and a switch costs a few instructions of a block of
1,024 elements. 16-bit operands are widened to float32 and results rounded once.

Operands are given by their kind:
  0  dense, in the order of the result;
  1  a number;
  2  up to 4 axes with strides, the last of which is cut into runs of V elements (16 bytes): lengths and strides count
     runs, the last stride is 1, or 0 for a value that is repeated;
  3  up to 4 axes with strides in elements.
"""

import triton
import triton.language as tl

from spiral.kernels.triton.strided import load_block, place4, store_block, widen


@triton.jit
def load_runs(x, start, n, n1, n2, n3, s0, s1, s2, s3, BLOCK: tl.constexpr, V: tl.constexpr):
    """A block of an operand of kind 2."""
    r = start // V + tl.arange(0, BLOCK // V)
    at = place4(r, n1, n2, n3, s0, s1, s2, s3) * V
    within = r * V < n
    if s3 == 0:
        v = tl.broadcast_to(tl.load(x + at, mask=within)[:, None], [BLOCK // V, V])
    else:
        v = tl.load(x + (at[:, None] + tl.arange(0, V)[None, :]), mask=within[:, None])
    return tl.reshape(v, [BLOCK])


@triton.jit
def load_operand(
    x, number, kind, start, n, n1, n2, n3, s0, s1, s2, s3, WIDE: tl.constexpr, BLOCK: tl.constexpr, V: tl.constexpr
):  # fmt: skip
    """A block of an operand of any kind, widened."""
    if kind == 0:
        v = widen(load_block(x, start, n, BLOCK))
    elif kind == 1:
        v = tl.full([BLOCK], number, WIDE)
    elif kind == 2:
        v = widen(load_runs(x, start, n, n1, n2, n3, s0, s1, s2, s3, BLOCK, V))
    else:
        i = start + tl.arange(0, BLOCK)
        v = widen(tl.load(x + place4(i, n1, n2, n3, s0, s1, s2, s3), mask=i < n))
    return v


@triton.jit
def unary(
    x, y, n, op, kind, n1, n2, n3, s0, s1, s2, s3,
    FN: tl.constexpr, WIDE: tl.constexpr, BLOCK: tl.constexpr, V: tl.constexpr,
):  # fmt: skip
    """y = FN(op, x) for n elements. Overwrites y, which is dense. Moves 2 * n elements."""
    start = tl.program_id(0) * BLOCK
    v = load_operand(x, 0, kind, start, n, n1, n2, n3, s0, s1, s2, s3, WIDE, BLOCK, V)
    store_block(y, start, n, FN(op, v), BLOCK)


@triton.jit
def binary(
    x, y, z, n, number, op, x_kind, y_kind, n1, n2, n3, x0, x1, x2, x3, y0, y1, y2, y3,
    FN: tl.constexpr, WIDE: tl.constexpr, BLOCK: tl.constexpr, V: tl.constexpr,
):  # fmt: skip
    """z = FN(op, x, y) for n elements; x or y may be the number. Overwrites z, which is dense. Moves 3 * n elements."""
    start = tl.program_id(0) * BLOCK
    if ((x_kind | y_kind) == 0) & (start + BLOCK <= n):  # both loads are under way before the first is widened
        i = start + tl.arange(0, BLOCK)
        u = tl.load(x + i)
        v = tl.load(y + i)
        a = widen(u)
        b = widen(v)
    else:
        a = load_operand(x, number, x_kind, start, n, n1, n2, n3, x0, x1, x2, x3, WIDE, BLOCK, V)
        b = load_operand(y, number, y_kind, start, n, n1, n2, n3, y0, y1, y2, y3, WIDE, BLOCK, V)
    store_block(z, start, n, FN(op, a, b), BLOCK)


@triton.jit
def select(
    c, x, y, z, n, a, b, c_kind, x_kind, y_kind,
    n1, n2, n3, c0, c1, c2, c3, x0, x1, x2, x3, y0, y1, y2, y3,
    TYPE: tl.constexpr, BLOCK: tl.constexpr, V: tl.constexpr,
):  # fmt: skip
    """z = x where c is not 0, else y, for elements moved as they are; a and b are the bits of numbers.

    Overwrites z, which is dense. Moves 3 * n elements and n bytes. Runs of c are V bytes.
    """
    start = tl.program_id(0) * BLOCK
    keep = load_operand(c, 0, c_kind, start, n, n1, n2, n3, c0, c1, c2, c3, tl.int8, BLOCK, V) != 0
    v = load_operand(x, a, x_kind, start, n, n1, n2, n3, x0, x1, x2, x3, TYPE, BLOCK, V)
    w = load_operand(y, b, y_kind, start, n, n1, n2, n3, y0, y1, y2, y3, TYPE, BLOCK, V)
    store_block(z, start, n, tl.where(keep, v, w), BLOCK)


@triton.jit
def two_gradients(g, a, b, da, db, n, op, FN: tl.constexpr, BLOCK: tl.constexpr):
    """da, db = FN(op, g, a, b) for n dense elements. Overwrites da and db. Moves 5 * n elements."""
    start = tl.program_id(0) * BLOCK
    u = widen(load_block(g, start, n, BLOCK))
    v = widen(load_block(a, start, n, BLOCK))
    w = widen(load_block(b, start, n, BLOCK))
    d, e = FN(op, u, v, w)
    store_block(da, start, n, d, BLOCK)
    store_block(db, start, n, e, BLOCK)
