"""Products of groups of rows, each with a matrix of its own; sums as in kernels/triton/linear.py.

sizes (groups), int32, says how many consecutive rows each group has.
"""

import triton
import triton.language as tl

GROUPS = tl.constexpr(128)


@triton.jit
def grouped_matmul(
    x, weight, sizes, y, total, n, k, groups, x_row, w_group, w_k, w_n,
    WIDE: tl.constexpr, M: tl.constexpr, N: tl.constexpr, K: tl.constexpr, ALONG_K: tl.constexpr,
):  # fmt: skip
    """y = x times its group's matrix for x (total, k) with rows x_row apart, weight (groups, k, n) with strides.

    ALONG_K: w_k is 1, else w_n is 1. y: (total, n) dense, overwritten, rows after the last group with zeros. A program
    of axis 0 finds its group by counting the tiles of those before; there are groups more of them than tiles, and those
    left over do nothing. 2 * total * n * k operations.
    """
    number = tl.program_id(0)
    group, row, end = total * 0 - 1, total * 0, total * 0
    start, first = total * 0, total * 0
    for base in range(0, groups + 1, GROUPS):
        i = base + tl.arange(0, GROUPS)
        size = tl.load(sizes + i, mask=i < groups, other=0)
        ends = start + tl.cumsum(size, 0)
        size = tl.where(i == groups, total - ends, size)  # the rows of no group
        ends = tl.where(i == groups, total, ends)
        tiles = tl.cdiv(size, M)
        tile_ends = first + tl.cumsum(tiles, 0)
        here = (number < tile_ends) & (number >= tile_ends - tiles)
        if tl.max(here.to(tl.int32), 0) != 0:
            group = tl.sum(tl.where(here, i, 0), 0)
            row = tl.sum(tl.where(here, ends - size + (number - tile_ends + tiles) * M, 0), 0)
            end = tl.sum(tl.where(here, ends, 0), 0)
        start = tl.max(ends, 0)
        first = tl.max(tile_ends, 0)
    if group >= 0:
        i, j, c = tl.arange(0, M), tl.program_id(1) * N + tl.arange(0, N), tl.arange(0, K)
        within = row + i < end
        x += row.to(tl.int64) * x_row
        weight += group.to(tl.int64) * w_group
        left = tl.where(group < groups, k, 0)
        acc = tl.zeros([M, N], WIDE)
        for _ in range(0, tl.cdiv(left, K)):
            a = tl.load(x + (i[:, None] * x_row + c[None, :]), mask=within[:, None] & (c < left)[None, :], other=0.0)
            if ALONG_K:
                at = c[:, None] + j[None, :] * w_n
            else:
                at = c[:, None] * w_k + j[None, :]
            b = tl.load(weight + at, mask=(c < left)[:, None] & (j < n)[None, :], other=0.0)
            acc = tl.dot(a, b, acc, input_precision="ieee", out_dtype=WIDE)
            x += K
            weight += K * w_k
            left -= K
        y += row.to(tl.int64) * n
        tl.store(y + (i[:, None] * n + j[None, :]), acc.to(y.dtype.element_ty), mask=within[:, None] & (j < n)[None, :])


@triton.jit
def grouped_matmul_grad(
    g, x, sizes, dw, n, k, tiles_k, tiles_n,
    WIDE: tl.constexpr, M: tl.constexpr, N: tl.constexpr, K: tl.constexpr,
):  # fmt: skip
    """dw[group] (k, n) = the sum of x^T g over the rows of the group, for x (rows, k) and g (rows, n), all dense.

    Overwrites dw. 2 * rows * n * k operations.
    """
    group = tl.program_id(0) // (tiles_k * tiles_n)
    tile = tl.program_id(0) - group * (tiles_k * tiles_n)
    row = tile // tiles_n
    i, j = row * M + tl.arange(0, M), (tile - row * tiles_n) * N + tl.arange(0, N)
    start = n * 0
    for base in range(0, group, GROUPS):
        before = base + tl.arange(0, GROUPS)
        start += tl.sum(tl.load(sizes + before, mask=before < group, other=0), 0)
    left = tl.load(sizes + group)
    x += start.to(tl.int64) * k
    g += start.to(tl.int64) * n
    c = tl.arange(0, K)
    acc = tl.zeros([M, N], WIDE)
    for _ in range(0, tl.cdiv(left, K)):
        a = tl.load(x + (i[:, None] + c[None, :] * k), mask=(i < k)[:, None] & (c < left)[None, :], other=0.0)
        b = tl.load(g + (c[:, None] * n + j[None, :]), mask=(c < left)[:, None] & (j < n)[None, :], other=0.0)
        acc = tl.dot(a, b, acc, input_precision="ieee", out_dtype=WIDE)
        x += K * k
        g += K * n
        left -= K
    dw += group.to(tl.int64) * k * n
    tl.store(dw + (i[:, None] * n + j[None, :]), acc.to(dw.dtype.element_ty), mask=(i < k)[:, None] & (j < n)[None, :])
