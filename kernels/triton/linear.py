"""Products of matrices.

Sums are in float32 for 16-bit and float32 operands and in float64 for float64 ones, rounded once; products of float32
are exact ones (no tf32). Where there are few tiles k is cut into splits, whose parts `finish` adds in order: the same
bits every time.
"""

import triton
import triton.language as tl


@triton.jit
def of_batch(b, n1, n2, s0, s1, s2):
    """Offset of matrix b of axes (any, n1, n2) with strides s0 to s2."""
    j = b // n2
    i = j // n1
    return (b - j * n2).to(tl.int64) * s2 + (j - i * n1).to(tl.int64) * s1 + i.to(tl.int64) * s0


@triton.jit
def tile_of(p, tiles_m, tiles_n, GROUP: tl.constexpr):
    """Row and column of a tile: GROUP rows of tiles are walked column by column, so that operands stay in the cache."""
    width = GROUP * tiles_n
    first = (p // width) * GROUP
    rows = min(tiles_m - first, GROUP)
    q = p % width
    return first + q % rows, q // rows


@triton.jit
def product(
    x, w, bias, y, part, m, n, k, x_row, x_k, w_row, w_k, n1, n2, x0, x1, x2, w0, w1, w2, has_bias, relu, chunk, splits,
    WIDE: tl.constexpr, M: tl.constexpr, N: tl.constexpr, K: tl.constexpr,
    X_ALONG_K: tl.constexpr, W_ALONG_K: tl.constexpr,
):  # fmt: skip
    """y = act(x w^T + bias) for x (batch, m, k), w (batch, n, k) with strides, y (batch, m, n) dense.

    A program makes an M x N tile; programs of axis 1 take ``chunk`` of k each. X_ALONG_K: x_k is 1, else x_row is 1;
    the same for w. bias: (n), not read unless has_bias. With splits > 1 overwrites part (splits, batch, m, n) of WIDE
    and leaves y alone, else overwrites y. 2 * m * n * k operations; reads x about n / N and w about m / M times (from
    the cache where they fit).
    """
    tiles_m, tiles_n = tl.cdiv(m, M), tl.cdiv(n, N)
    tile = tl.program_id(0)
    batch = tile // (tiles_m * tiles_n)
    row, column = tile_of(tile - batch * (tiles_m * tiles_n), tiles_m, tiles_n, 8)
    i, j, c = tl.arange(0, M), tl.arange(0, N), tl.arange(0, K)
    first = tl.program_id(1) * chunk
    left = min(k - first, chunk)
    x += of_batch(batch, n1, n2, x0, x1, x2) + (row * M).to(tl.int64) * x_row + first.to(tl.int64) * x_k
    w += of_batch(batch, n1, n2, w0, w1, w2) + (column * N).to(tl.int64) * w_row + first.to(tl.int64) * w_k
    within_m, within_n = row * M + i < m, column * N + j < n
    # rows behind the last are read as the last one: a mask less in the loop, and registers for it
    if X_ALONG_K:
        at_x = tl.minimum(i, m - 1 - row * M)[:, None] * x_row + c[None, :]
        step_x = K
    else:
        at_x = i[:, None] + c[None, :] * x_k
        step_x = K * x_k
    if W_ALONG_K:
        at_w = tl.minimum(j, n - 1 - column * N)[None, :] * w_row + c[:, None]
        step_w = K
    else:
        at_w = j[None, :] + c[:, None] * w_k
        step_w = K * w_k
    acc = tl.zeros([M, N], WIDE)
    for _ in range(0, tl.cdiv(left, K)):
        if X_ALONG_K:
            a = tl.load(x + at_x, mask=(c < left)[None, :], other=0.0)
        else:
            a = tl.load(x + at_x, mask=within_m[:, None] & (c < left)[None, :], other=0.0)
        if W_ALONG_K:
            b = tl.load(w + at_w, mask=(c < left)[:, None], other=0.0)
        else:
            b = tl.load(w + at_w, mask=within_n[None, :] & (c < left)[:, None], other=0.0)
        acc = tl.dot(a, b, acc, input_precision="ieee", out_dtype=WIDE)
        x += step_x
        w += step_w
        left -= K
    at_y = i[:, None] * n + j[None, :]
    inside = within_m[:, None] & within_n[None, :]
    corner, size = (row * M).to(tl.int64) * n + column * N, m.to(tl.int64) * n
    if splits > 1:
        batches = tl.num_programs(0) // (tiles_m * tiles_n)
        part += (tl.program_id(1) * batches + batch).to(tl.int64) * size + corner
        tl.store(part + at_y, acc, mask=inside)
    else:
        if has_bias:
            acc += tl.load(bias + column * N + j, mask=within_n, other=0.0).to(WIDE)[None, :]
        if relu:
            acc = tl.where(acc < 0, 0.0, acc)
        tl.store(y + (batch.to(tl.int64) * size + corner) + at_y, acc.to(y.dtype.element_ty), mask=inside)


@triton.jit
def finish(part, bias, y, count, n, splits, has_bias, relu, BLOCK: tl.constexpr):
    """y = act(the sum of part (splits, count) + bias), for rows of n elements. Overwrites y (count)."""
    i = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = i < count
    acc = tl.load(part + i, mask=inside)
    for _ in range(1, splits):
        part += count
        acc += tl.load(part + i, mask=inside)
    if has_bias:
        acc += tl.load(bias + i % n, mask=inside).to(acc.dtype)
    if relu:
        acc = tl.where(acc < 0, 0.0, acc)
    tl.store(y + i, acc.to(y.dtype.element_ty), mask=inside)


@triton.jit
def column_sums(x, y, part, rows, n, chunk, splits, WIDE: tl.constexpr, R: tl.constexpr, N: tl.constexpr):
    """y = the sums of the columns of x (rows, n), dense; programs of axis 1 take ``chunk`` rows each.

    With splits > 1 overwrites part (splits, n) of WIDE, else y (n). Reads x once; one operation per element.
    """
    r, j = tl.arange(0, R), tl.program_id(0) * N + tl.arange(0, N)
    first = tl.program_id(1) * chunk
    left = min(rows - first, chunk)
    x += first.to(tl.int64) * n
    acc = tl.zeros([R, N], WIDE)
    for _ in range(0, tl.cdiv(left, R)):
        acc += tl.load(x + r[:, None] * n + j[None, :], mask=(r < left)[:, None] & (j < n)[None, :], other=0.0).to(WIDE)
        x += n.to(tl.int64) * R
        left -= R
    total = tl.sum(acc, 0)
    if splits > 1:
        tl.store(part + tl.program_id(1).to(tl.int64) * n + j, total, mask=j < n)
    else:
        tl.store(y + j, total.to(y.dtype.element_ty), mask=j < n)


@triton.jit
def whole_product(x, w, y, m, n, k, x_row, x_k, w_row, w_k, n1, n2, x0, x1, x2, w0, w1, w2, SIDE: tl.constexpr):
    """y = x w^T for integers, which wrap: operands and tiles as for `product`, k one by one. Overwrites y."""
    tiles_m, tiles_n = tl.cdiv(m, SIDE), tl.cdiv(n, SIDE)
    tile = tl.program_id(0)
    batch = tile // (tiles_m * tiles_n)
    row, column = tile_of(tile - batch * (tiles_m * tiles_n), tiles_m, tiles_n, 8)
    i, j = row * SIDE + tl.arange(0, SIDE), column * SIDE + tl.arange(0, SIDE)
    x += of_batch(batch, n1, n2, x0, x1, x2)
    w += of_batch(batch, n1, n2, w0, w1, w2)
    at_x, at_w = i.to(tl.int64) * x_row, j.to(tl.int64) * w_row
    acc = tl.zeros([SIDE, SIDE], y.dtype.element_ty)
    for _ in range(0, k):
        a = tl.load(x + at_x, mask=i < m, other=0)
        b = tl.load(w + at_w, mask=j < n, other=0)
        acc += a[:, None] * b[None, :]
        x += x_k
        w += w_k
    inside = (i < m)[:, None] & (j < n)[None, :]
    at_y = (batch.to(tl.int64) * m + i)[:, None] * n + j[None, :]
    tl.store(y + at_y, acc, mask=inside)
