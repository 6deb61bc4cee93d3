"""Rows in order: tiles sorted in registers, then merged pairwise; and insertion points.

What is sorted are int64 whose upper half orders the values and whose lower half is where they came from, so that equal
values keep their order and no two are the same. Values of 64 bits are sorted twice, by their lower and then by their
upper halves.
"""

import triton
import triton.language as tl

from spiral.kernels.triton.copy import load_floating, load_integer

LAST = tl.constexpr(2**31 - 1)
LARGEST = tl.constexpr(2**63 - 1)


@triton.jit
def order_keys(
    x, order, key, count, n, code, digit, descending, FLOATING: tl.constexpr, BLOCK: tl.constexpr
):  # fmt: skip
    """key = what sorts the rows of x (count elements, n each), dense, of the dtype of a code (kernels/triton/copy.py).

    digit 0: of values of at most 32 bits; 1 and 2: of the lower and the upper halves of others, and for 2 the rows are
    in the order that the lower halves gave. NaN is the largest value, 0 and -0 are equal. Overwrites key.
    """
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = i < count
    rank = i % n
    at = i
    if digit == 2:
        at = i - rank + tl.load(order + i, mask=inside, other=0).to(tl.int32)
    if FLOATING:
        v = load_floating(x, at, inside, code)
        v = tl.where(v == 0, 0.0, v)
        if digit == 0:
            b = v.to(tl.float32).to(tl.int32, bitcast=True)
            o = tl.where(b < 0, b ^ LAST, b)
            o = tl.where(v != v, LAST, o).to(tl.int64)
        else:
            w = v.to(tl.int64, bitcast=True)
            o = tl.where(w < 0, w ^ LARGEST, w)
            o = tl.where(v != v, LARGEST, o)
    else:
        o = load_integer(x, at, inside, code)
        if code == 7:
            o -= 2**31
        if code == 8:
            o = o ^ (-LARGEST - 1)
    if descending:
        o = ~o
    if digit == 1:
        o = (o & 0xFFFFFFFF) - 2**31
    if digit == 2:
        o = o >> 32
    tl.store(key + i, (o << 32) | rank, mask=inside)


@triton.jit
def sort_tile(key, n, tiles, N: tl.constexpr):
    """Sorts each stretch of N keys of rows of n, by a program of its own. Overwrites key."""
    row = tl.program_id(0) // tiles
    at = (tl.program_id(0) - row * tiles) * N + tl.arange(0, N)
    key += row.to(tl.int64) * n
    tl.store(key + at, tl.sort(tl.load(key + at, mask=at < n, other=LARGEST)), mask=at < n)


@triton.jit
def below(keys, k, length, steps):
    """How many of so many sorted keys are less than k; steps: more than the logarithm of the largest length."""
    low = tl.zeros_like(length)
    high = length
    for _ in range(0, steps):
        middle = (low + high) // 2
        less = tl.load(keys + middle, mask=low < high, other=LARGEST) < k
        up = (low < high) & less
        high = tl.where((low < high) & (less == 0), middle, high)
        low = tl.where(up, middle + 1, low)
    return low


@triton.jit
def merge_runs(key, to, count, n, width, steps, BLOCK: tl.constexpr):
    """Merges neighbouring sorted runs of ``width`` keys of rows of n; count keys in all. Overwrites to.

    Each key looks for its place in the other run: a binary search, from the cache.
    """
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = i < count
    k = tl.load(key + i, mask=inside, other=0)
    p = i % n
    run = p // width
    other = (run ^ 1) * width
    length = tl.minimum(tl.maximum(n - other, 0), width)
    rank = below(key + (i - p) + other, k, tl.where(inside, length, 0), steps)
    tl.store(to + (i - p) + tl.minimum(other, run * width) + (p - run * width) + rank, k, mask=inside)


@triton.jit
def came_from(key, order, y, count, n, kept, through, BLOCK: tl.constexpr):
    """y = where the first ``kept`` of each row of n keys came from; through an order of before, where there was one.

    Overwrites y (count), int64.
    """
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = i < count
    row = i // kept
    p = tl.load(key + row * n + (i - row * kept), mask=inside, other=0) & 0xFFFFFFFF
    if through:
        p = tl.load(order + row * n + p.to(tl.int32), mask=inside, other=0)
    tl.store(y + i, p, mask=inside)


@triton.jit
def before(a, b, IS_FLOAT: tl.constexpr):
    """Whether a comes before b; NaN is the largest value."""
    if IS_FLOAT:
        z = (a < b) | ((b != b) & (a == a))
    else:
        z = a < b
    return z


@triton.jit
def search(x, v, y, n, count, steps, right, IS_FLOAT: tl.constexpr, BLOCK: tl.constexpr):
    """y = how many of the sorted x (n) come before each of v (count), with ``right`` also those that equal it.

    Overwrites y, int64.
    """
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = i < count
    k = tl.load(v + i, mask=inside)
    low = tl.zeros([BLOCK], tl.int32)
    high = tl.where(inside, n, 0)
    for _ in range(0, steps):
        middle = (low + high) // 2
        a = tl.load(x + middle, mask=low < high)
        if right:
            less = before(k, a, IS_FLOAT) == 0
        else:
            less = before(a, k, IS_FLOAT)
        up = (low < high) & less
        high = tl.where((low < high) & (less == 0), middle, high)
        low = tl.where(up, middle + 1, low)
    tl.store(y + i, low.to(tl.int64), mask=inside)
