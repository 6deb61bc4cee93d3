"""Optimizer steps over all tensors of a group in one launch.

A table names what each program works on: a span of neighbours of up to four tensors of one shape (the parameter, its
gradient and its state), each float16, bfloat16, float32 or float64. Per span it has five int64: four addresses, and the
number of elements with, in the upper half, four bits for the kind of each tensor and bit 16 where 16 divides all
addresses. Arithmetic is in WIDE, float32 or float64 where a tensor is float64; one rounding at the end. Spans are
multiples of 2048 elements but for a tensor's last.
"""

import triton
import triton.language as tl

from spiral.kernels.triton.kinds import load_one, quotient, root, rounded, store_one

WORDS = tl.constexpr(5)


# ---------------------------------------------------------------- steps
# Of one element: the parameter x, its gradient g, states m and v, and up to eight numbers; they give x, m and v.
@triton.jit
def adamw(x, g, m, v, keep, l2, rest1, beta2, rest2, rate, scale, eps):
    """Loshchilov & Hutter 2019: keep = 1 - lr * weight_decay, or 1 and l2 = weight_decay (Kingma & Ba 2015).

    rate = lr / (1 - beta1^step), scale = 1 / sqrt(1 - beta2^step). 14 operations.
    """
    g = g + l2 * x
    m = m + rest1 * (g - m)
    v = beta2 * v + rest2 * g * g
    x = x * keep - quotient(rate * m, root(v) * scale + eps)
    return x, m, v


@triton.jit
def sgd(x, g, m, v, lr, weight_decay, c, d, e, f, h, i):
    """4 operations."""
    return x - lr * (g + weight_decay * x), m, v


@triton.jit
def momentum(x, g, m, v, lr, weight_decay, fresh, old, nesterov, first, c, d):
    """Sutskever et al. 2013, in PyTorch's form; whatever m holds is left out in the first step. 8 operations."""
    g = g + weight_decay * x
    m = tl.where(first != 0, g, old * m + fresh * g)
    x = x - lr * tl.where(nesterov != 0, g + old * m, m)
    return x, m, v


@triton.jit
def lion(x, g, m, v, lr, beta1, rest1, beta2, rest2, weight_decay, c, d):
    """Chen et al. 2023, algorithm 2; 12 operations."""
    u = beta1 * m + rest1 * g
    sign = tl.where(u > 0, 1.0, tl.where(u < 0, -1.0, u)).to(x.dtype)  # NaN stays
    return x - lr * (sign + weight_decay * x), beta2 * m + rest2 * g, v


@triton.jit
def scale(x, g, m, v, factor, b, c, d, e, f, h, i):
    """One operation."""
    return x * factor, m, v


@triton.jit
def ema(x, g, m, v, rest, b, c, d, e, f, h, i):
    """x, an average, moves towards g, the parameter; 3 operations."""
    return x + rest * (g - x), m, v


# ---------------------------------------------------------------- loops
@triton.jit
def some(
    table, i, inside, kinds, s0, s1, s2, s3, s4, s5, s6, s7, STEP: tl.constexpr, COUNT: tl.constexpr,
    WIDE: tl.constexpr, UNIFORM: tl.constexpr, ALIGNED: tl.constexpr, WHOLE: tl.constexpr,
):  # fmt: skip
    """A step of elements i of a span. COUNT: tensors; with three, the last is m; all but the gradient are written."""
    a = tl.load(table)
    x = load_one(a, kinds & 15, i, inside, WIDE, UNIFORM, ALIGNED, WHOLE)
    g, m, v = x, x, x
    if COUNT > 1:
        b = tl.load(table + 1)
        g = load_one(b, kinds >> 4 & 15, i, inside, WIDE, UNIFORM, ALIGNED, WHOLE)
    if COUNT > 2:
        c = tl.load(table + 2)
        m = load_one(c, kinds >> 8 & 15, i, inside, WIDE, UNIFORM, ALIGNED, WHOLE)
    if COUNT > 3:
        d = tl.load(table + 3)
        v = load_one(d, kinds >> 12 & 15, i, inside, WIDE, UNIFORM, ALIGNED, WHOLE)
    x, m, v = STEP(x, g, m, v, s0, s1, s2, s3, s4, s5, s6, s7)
    store_one(a, kinds & 15, i, x, inside, UNIFORM, ALIGNED, WHOLE)
    if COUNT > 2:
        store_one(c, kinds >> 8 & 15, i, m, inside, UNIFORM, ALIGNED, WHOLE)
    if COUNT > 3:
        store_one(d, kinds >> 12 & 15, i, v, inside, UNIFORM, ALIGNED, WHOLE)


@triton.jit
def update(
    table, s0, s1, s2, s3, s4, s5, s6, s7,
    STEP: tl.constexpr, COUNT: tl.constexpr, WIDE: tl.constexpr, UNIFORM: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Applies a step to every element of the table's spans, one program each.

    Overwrites all tensors but the second. Reads COUNT elements and writes those but one per element.
    """
    table += tl.program_id(0) * WORDS
    last = tl.load(table + 4)
    n, kinds = last.to(tl.int32), (last >> 32).to(tl.int32)
    i = tl.arange(0, BLOCK)
    whole = n // BLOCK * BLOCK
    if kinds >> 16 & 1:
        for start in range(0, whole, BLOCK):
            some(table, start + i, i < n, kinds, s0, s1, s2, s3, s4, s5, s6, s7, STEP, COUNT, WIDE, UNIFORM, True, True)
        if whole < n:
            j = whole + i
            some(table, j, j < n, kinds, s0, s1, s2, s3, s4, s5, s6, s7, STEP, COUNT, WIDE, UNIFORM, False, False)
    else:
        for start in range(0, n, BLOCK):
            j = start + i
            some(table, j, j < n, kinds, s0, s1, s2, s3, s4, s5, s6, s7, STEP, COUNT, WIDE, UNIFORM, False, False)


@triton.jit
def check_some(
    address, kind, i, inside, factor, SCALED: tl.constexpr, WIDE: tl.constexpr, UNIFORM: tl.constexpr,
    ALIGNED: tl.constexpr, WHOLE: tl.constexpr,
):  # fmt: skip
    """Whether elements are infinite or NaN, 1 or 0; with SCALED they are multiplied first."""
    v = load_one(address, kind, i, inside, WIDE, UNIFORM, ALIGNED, WHOLE)
    if SCALED:
        v = v * factor
        store_one(address, kind, i, v, inside, UNIFORM, ALIGNED, WHOLE)
        v = rounded(v, kind)
    return (v - v != 0).to(tl.int32)


@triton.jit
def check_finite(
    table, finite, factor, SCALED: tl.constexpr, WIDE: tl.constexpr, UNIFORM: tl.constexpr, BLOCK: tl.constexpr
):  # fmt: skip
    """finite[0] = 0 if an element of the table's spans is infinite or NaN, else it is left as it is.

    The caller has set it to 1; every program that writes writes the same. With SCALED the spans are multiplied by
    factor first, and what is looked at is the rounded result. Reads, or reads and writes, every element once.
    """
    table += tl.program_id(0) * WORDS
    last = tl.load(table + 4)
    n, kinds = last.to(tl.int32), (last >> 32).to(tl.int32)
    address, kind = tl.load(table), kinds & 15
    i = tl.arange(0, BLOCK)
    bad = tl.zeros([BLOCK], tl.int32)
    whole = n // BLOCK * BLOCK
    if kinds >> 16 & 1:
        for start in range(0, whole, BLOCK):
            bad |= check_some(address, kind, start + i, i < n, factor, SCALED, WIDE, UNIFORM, True, True)
        if whole < n:
            j = whole + i
            bad |= check_some(address, kind, j, j < n, factor, SCALED, WIDE, UNIFORM, False, False)
    else:
        for start in range(0, n, BLOCK):
            j = start + i
            bad |= check_some(address, kind, j, j < n, factor, SCALED, WIDE, UNIFORM, False, False)
    if tl.max(bad, 0) != 0:
        tl.store(finite, 0)


@triton.jit
def square_sums(table, partial, WIDE: tl.constexpr, UNIFORM: tl.constexpr, BLOCK: tl.constexpr):
    """partial[program] = the sum of the squares of a span's first tensor, in float64. Overwrites partial.

    Reads every element once; a conversion and 2 operations in float64 per element.
    """
    table += tl.program_id(0) * WORDS
    last = tl.load(table + 4)
    n, kinds = last.to(tl.int32), (last >> 32).to(tl.int32)
    address, kind = tl.load(table), kinds & 15
    i = tl.arange(0, BLOCK)
    acc = tl.zeros([BLOCK], tl.float64)
    whole = n // BLOCK * BLOCK
    if kinds >> 16 & 1:
        for start in range(0, whole, BLOCK):
            v = load_one(address, kind, start + i, i < n, WIDE, UNIFORM, True, True).to(tl.float64)
            acc += v * v
        if whole < n:
            j = whole + i
            v = load_one(address, kind, j, j < n, WIDE, UNIFORM, False, False).to(tl.float64)
            acc += v * v
    else:
        for start in range(0, n, BLOCK):
            j = start + i
            v = load_one(address, kind, j, j < n, WIDE, UNIFORM, False, False).to(tl.float64)
            acc += v * v
    tl.store(partial + tl.program_id(0), tl.sum(acc, 0))


@triton.jit
def root_of_sum(partial, norm, n, BLOCK: tl.constexpr):
    """norm[0] = sqrt(the sum of partial (n)), by one program in a fixed order."""
    i = tl.arange(0, BLOCK)
    acc = tl.zeros([BLOCK], tl.float64)
    for start in range(0, n, BLOCK):
        acc += tl.load(partial + start + i, mask=start + i < n, other=0.0)
    tl.store(norm, tl.sqrt(tl.sum(acc, 0)))
