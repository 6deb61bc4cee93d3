"""Attention in blocks of queries and keys (FlashAttention-2: Dao 2023, algorithms 1 and 2).

Nothing of size T x S is stored. Operands are q, and g and y like it, (B, H, T, D) and k, v (B, Hk, S, D), with strides
0 to 2 along batch, head and position, and 1 along D. Query head h uses key head h // group. Query t stands at position
t + S - T; with ``causal`` it sees keys up to its position, with a ``window`` > 0 only the last so many of those. With
MASK a mask is added to the scores; it has four strides, 0 where it broadcasts. lse, (B, H, T) in WIDE and dense, is the
logarithm of the sum of exponentials of a row's scores, -inf for a row that sees nothing, which gives 0. Sums are in
WIDE. D is the constant not less than the size d of a head; a program has M rows and takes N columns at a time.
"""

import triton
import triton.language as tl


@triton.jit
def head_of(x, batch, head, s0, s1):
    """The address of a head's first row."""
    return x + (batch.to(tl.int64) * s0 + head.to(tl.int64) * s1)


@triton.jit
def masked(scores, mask, at, q_row, k_row, t, s, window, causal, MASK: tl.constexpr):
    """Scores with the mask, -inf where a query does not see a key; rows and columns of either in any order."""
    position = q_row + (s - t)
    sees = (q_row < t) & (k_row < s)
    if causal:
        sees = sees & (k_row <= position)
    if window > 0:
        sees = sees & (k_row > position - window)
    if MASK:
        scores += tl.load(mask + at, mask=sees, other=0.0).to(scores.dtype)
    return tl.where(sees, scores, float("-inf"))


@triton.jit
def rows_of(x, start, stride, length, d, R: tl.constexpr, D: tl.constexpr):
    """Rows start to start + R of a head, 0 outside of it."""
    i, c = tl.arange(0, R), tl.arange(0, D)
    at = i[:, None] * stride + c[None, :]
    x += stride.to(tl.int64) * start
    return tl.load(x + at, mask=(start + i < length)[:, None] & (c < d)[None, :], other=0.0)


@triton.jit
def columns_of(x, start, stride, length, d, R: tl.constexpr, D: tl.constexpr):
    """The same as columns: (D, R)."""
    i, c = tl.arange(0, R), tl.arange(0, D)
    at = i[None, :] * stride + c[:, None]
    x += stride.to(tl.int64) * start
    return tl.load(x + at, mask=(start + i < length)[None, :] & (c < d)[:, None], other=0.0)


@triton.jit
def store_rows(y, start, length, d, v, R: tl.constexpr, D: tl.constexpr):
    """Writes rows of a dense head."""
    i, c = tl.arange(0, R), tl.arange(0, D)
    y += d.to(tl.int64) * start
    at = i[:, None] * d + c[None, :]
    tl.store(y + at, v.to(y.dtype.element_ty), mask=(start + i < length)[:, None] & (c < d)[None, :])


@triton.jit
def attention(
    q, k, v, mask, y, lse, q0, q1, q2, k0, k1, k2, v0, v1, v2, m0, m1, m2, m3, heads, group, t, s, d, window, causal,
    scale, WIDE: tl.constexpr, D: tl.constexpr, M: tl.constexpr, N: tl.constexpr, MASK: tl.constexpr,
):  # fmt: skip
    """y = softmax(q k^T * scale + mask) v, and lse. Overwrites both, y dense.

    4 * T * S * D operations per head, about half of that with ``causal``; reads k and v of a head T / M times (from the
    cache where they fit).
    """
    tiles = tl.cdiv(t, M)
    pair = tl.program_id(0) // tiles
    start = (tiles - 1 - (tl.program_id(0) - pair * tiles)) * M  # the longest first
    batch = pair // heads
    head = pair - batch * heads
    k = head_of(k, batch, head // group, k0, k1)
    v = head_of(v, batch, head // group, v0, v1)
    mask = head_of(mask, batch, head, m0, m1)
    of_q = rows_of(head_of(q, batch, head, q0, q1), start, q2, t, d, M, D)
    row = start + tl.arange(0, M)
    most = tl.full([M], float("-inf"), WIDE)
    total = tl.zeros([M], WIDE)
    acc = tl.zeros([M, D], WIDE)
    first, last = 0, s
    if causal:
        last = min(s, max(0, start + M + (s - t)))
    if window > 0:
        first = max(0, start + (s - t) - window + 1) // N * N
    for j in range(first, last, N):
        scores = tl.dot(of_q, columns_of(k, j, k2, s, d, N, D), input_precision="ieee", out_dtype=WIDE) * scale
        column = (j + tl.arange(0, N))[None, :]
        at = tl.arange(0, M)[:, None] * m2 + tl.arange(0, N)[None, :] * m3
        corner = mask + (m2.to(tl.int64) * start + m3.to(tl.int64) * j)
        scores = masked(scores, corner, at, row[:, None], column, t, s, window, causal, MASK)
        higher = tl.maximum(most, tl.max(scores, 1))
        base = tl.where(higher == float("-inf"), 0.0, higher)
        p = tl.exp(scores - base[:, None])
        shrink = tl.exp(most - base)
        total = total * shrink + tl.sum(p, 1)
        of_v = rows_of(v, j, v2, s, d, N, D)
        acc = tl.dot(p.to(of_v.dtype), of_v, acc * shrink[:, None], input_precision="ieee", out_dtype=WIDE)
        most = higher
    some = total != 0.0
    base = tl.where(most == float("-inf"), 0.0, most)
    store_rows(y + pair.to(tl.int64) * t * d, start, t, d, acc / tl.where(some, total, 1.0)[:, None], M, D)
    logarithm = tl.where(some, base + tl.log(tl.where(some, total, 1.0)), float("-inf"))
    tl.store(lse + pair.to(tl.int64) * t + row, logarithm.to(lse.dtype.element_ty), mask=row < t)


@triton.jit
def probabilities(scores, lse):
    """exp(scores - lse), 0 where either is -inf."""
    none = (lse == float("-inf")) | (scores == float("-inf"))
    return tl.where(none, 0.0, tl.exp(tl.where(none, 0.0, scores - lse)))


@triton.jit
def attention_dq(
    g, q, k, v, y, mask, lse, delta, dq, g0, g1, g2, q0, q1, q2, k0, k1, k2, v0, v1, v2, y0, y1, y2, m0, m1, m2, m3,
    heads, group, t, s, d, window, causal, scale,
    WIDE: tl.constexpr, D: tl.constexpr, M: tl.constexpr, N: tl.constexpr, MASK: tl.constexpr,
):  # fmt: skip
    """dq = p (g v^T - delta) scale k, and delta (B, H, T) = the sums of g y along D. Overwrites both, dq dense.

    6 * T * S * D operations per head, about half of that with ``causal``.
    """
    tiles = tl.cdiv(t, M)
    pair = tl.program_id(0) // tiles
    start = (tiles - 1 - (tl.program_id(0) - pair * tiles)) * M
    batch = pair // heads
    head = pair - batch * heads
    k = head_of(k, batch, head // group, k0, k1)
    v = head_of(v, batch, head // group, v0, v1)
    mask = head_of(mask, batch, head, m0, m1)
    of_q = rows_of(head_of(q, batch, head, q0, q1), start, q2, t, d, M, D)
    of_g = rows_of(head_of(g, batch, head, g0, g1), start, g2, t, d, M, D)
    of_y = rows_of(head_of(y, batch, head, y0, y1), start, y2, t, d, M, D)
    row = start + tl.arange(0, M)
    sums = tl.sum(of_g.to(WIDE) * of_y.to(WIDE), 1)
    tl.store(delta + pair.to(tl.int64) * t + row, sums, mask=row < t)
    of_lse = tl.load(lse + pair.to(tl.int64) * t + row, mask=row < t, other=0.0).to(WIDE)
    acc = tl.zeros([M, D], WIDE)
    first, last = 0, s
    if causal:
        last = min(s, max(0, start + M + (s - t)))
    if window > 0:
        first = max(0, start + (s - t) - window + 1) // N * N
    for j in range(first, last, N):
        of_k = rows_of(k, j, k2, s, d, N, D)
        scores = tl.dot(of_q, tl.trans(of_k), input_precision="ieee", out_dtype=WIDE) * scale
        column = (j + tl.arange(0, N))[None, :]
        at = tl.arange(0, M)[:, None] * m2 + tl.arange(0, N)[None, :] * m3
        corner = mask + (m2.to(tl.int64) * start + m3.to(tl.int64) * j)
        scores = masked(scores, corner, at, row[:, None], column, t, s, window, causal, MASK)
        p = probabilities(scores, of_lse[:, None])
        dp = tl.dot(of_g, tl.trans(rows_of(v, j, v2, s, d, N, D)), input_precision="ieee", out_dtype=WIDE)
        ds = p * (dp - sums[:, None]) * scale
        acc = tl.dot(ds.to(of_k.dtype), of_k, acc, input_precision="ieee", out_dtype=WIDE)
    store_rows(dq + pair.to(tl.int64) * t * d, start, t, d, acc, M, D)


@triton.jit
def attention_dkv(
    g, q, k, v, mask, lse, delta, dk, dv, g0, g1, g2, q0, q1, q2, k0, k1, k2, v0, v1, v2, m0, m1, m2, m3,
    heads, group, t, s, d, window, causal, scale,
    WIDE: tl.constexpr, D: tl.constexpr, M: tl.constexpr, N: tl.constexpr, MASK: tl.constexpr,
):  # fmt: skip
    """dv = p^T g and dk = (p (g v^T - delta))^T scale q, summed over the heads that share k and v.

    Overwrites both, dense. A program has M keys. 8 * T * S * D operations per query head, about half of that with
    ``causal``.
    """
    tiles = tl.cdiv(s, M)
    pair = tl.program_id(0) // tiles
    start = (tl.program_id(0) - pair * tiles) * M
    kv_heads = heads // group
    batch = pair // kv_heads
    kv_head = pair - batch * kv_heads
    of_k = rows_of(head_of(k, batch, kv_head, k0, k1), start, k2, s, d, M, D)
    of_v = rows_of(head_of(v, batch, kv_head, v0, v1), start, v2, s, d, M, D)
    key = start + tl.arange(0, M)
    sum_k = tl.zeros([M, D], WIDE)
    sum_v = tl.zeros([M, D], WIDE)
    first, last = 0, t
    if causal:
        first = max(0, start - (s - t)) // N * N
    if window > 0:
        last = min(t, max(0, start + M - 1 + window - (s - t)))
    for of_group in range(0, group):
        head = kv_head * group + of_group
        of_head = (batch * heads + head).to(tl.int64) * t
        gs, qs, ms = (
            head_of(g, batch, head, g0, g1),
            head_of(q, batch, head, q0, q1),
            head_of(mask, batch, head, m0, m1),
        )
        for i in range(first, last, N):
            of_q = rows_of(qs, i, q2, t, d, N, D)
            of_g = rows_of(gs, i, g2, t, d, N, D)
            row = i + tl.arange(0, N)
            scores = tl.dot(of_k, tl.trans(of_q), input_precision="ieee", out_dtype=WIDE) * scale
            at = tl.arange(0, N)[None, :] * m2 + tl.arange(0, M)[:, None] * m3
            corner = ms + (m2.to(tl.int64) * i + m3.to(tl.int64) * start)
            scores = masked(scores, corner, at, row[None, :], key[:, None], t, s, window, causal, MASK)
            of_lse = tl.load(lse + of_head + row, mask=row < t, other=0.0).to(WIDE)
            p = probabilities(scores, of_lse[None, :])
            sum_v = tl.dot(p.to(of_g.dtype), of_g, sum_v, input_precision="ieee", out_dtype=WIDE)
            dp = tl.dot(of_v, tl.trans(of_g), input_precision="ieee", out_dtype=WIDE)
            sums = tl.load(delta + of_head + row, mask=row < t, other=0.0)
            ds = p * (dp - sums[None, :]) * scale
            sum_k = tl.dot(ds.to(of_q.dtype), of_q, sum_k, input_precision="ieee", out_dtype=WIDE)
    to = pair.to(tl.int64) * s * d
    store_rows(dk + to, start, s, d, sum_k, M, D)
    store_rows(dv + to, start, s, d, sum_v, M, D)
