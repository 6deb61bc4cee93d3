"""Adafactor (Shazeer & Stern 2018, algorithms 4 and 5) over all tensors of a group in five launches.

They are row_means and column_sums, column_means, then update_squares and apply, each with a program per job of a table.
A job, four int32, names a tensor and a part of it; jobs depend on shapes alone. A tensor has twelve int64: addresses of
the parameter (lead, rows, columns), its gradient, and the averages of rows (lead, rows, 1), or of every element where
columns is 0, and of columns (lead, 1, columns); rows; columns; size; where its parts of the scratch sums (lead, chunks,
columns), means (lead) and squares (pieces, 2) begin; numbers of chunks and, in the upper half, of pieces; and four bits
for the kind of each of the four. Arithmetic is in WIDE: float32, or float64 where a tensor is. Sums have a fixed order.

share is step^beta2_decay, rate min(lr, 1 / sqrt(step)), keep 1 - lr * weight_decay.
"""

import triton
import triton.language as tl

from spiral.kernels.triton.kinds import load_one, quotient, root, store_one

WORDS = tl.constexpr(12)
ROWS = tl.constexpr(32)
CHUNK = tl.constexpr(256)
TILE = tl.constexpr(32)
PIECE = tl.constexpr(16384)
BLOCK = tl.constexpr(1024)


@triton.jit
def load(t, which: tl.constexpr, i, inside, WIDE: tl.constexpr, UNIFORM: tl.constexpr):
    """Elements of one of a tensor's four arrays."""
    kind = (tl.load(t + 11) >> 4 * which).to(tl.int32) & 15
    return load_one(tl.load(t + which), kind, i, inside, WIDE, UNIFORM, False, False)


@triton.jit
def store(t, which: tl.constexpr, i, v, inside, UNIFORM: tl.constexpr):
    """Writes elements of one of a tensor's four arrays."""
    kind = (tl.load(t + 11) >> 4 * which).to(tl.int32) & 15
    store_one(tl.load(t + which), kind, i, v, inside, UNIFORM, False, False)


@triton.jit
def average(t, which: tl.constexpr, i, value, share, inside, WIDE: tl.constexpr, UNIFORM: tl.constexpr):
    """Moves averages towards a value; what they are now, as computed."""
    old = load(t, which, i, inside, WIDE, UNIFORM)
    new = old + share.to(WIDE) * (value - old)
    store(t, which, i, new, inside, UNIFORM)
    return new


@triton.jit
def row_means(tensors, jobs, share, eps1, eps2, rate, d, keep, WIDE: tl.constexpr, UNIFORM: tl.constexpr):
    """row += share * (mean of g^2 over the columns - row); job: rows a * ROWS to (a + 1) * ROWS of (lead * rows).

    Reads g once; 2 operations per element.
    """
    jobs += tl.program_id(0) * 4
    t = tensors + tl.load(jobs) * WORDS
    columns = tl.load(t + 5)
    r = tl.load(jobs + 1).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    within = r < tl.load(t + 6) // columns
    c = tl.arange(0, TILE)
    acc = tl.zeros([ROWS, TILE], WIDE)
    for start in range(0, columns.to(tl.int32), TILE):
        j = start + c
        g = load(t, 1, r[:, None] * columns + j[None, :], within[:, None] & (j < columns)[None, :], WIDE, UNIFORM)
        acc += g * g
    average(t, 2, r, quotient(tl.sum(acc, 1), columns.to(WIDE)), share, within, WIDE, UNIFORM)


@triton.jit
def column_sums(tensors, jobs, sums, WIDE: tl.constexpr, UNIFORM: tl.constexpr):
    """sums[lead, chunk, column] = the sum of g^2 over a chunk's rows; job: lead a, chunk b, columns c * TILE on.

    Reads g once; 2 operations per element.
    """
    jobs += tl.program_id(0) * 4
    t = tensors + tl.load(jobs) * WORDS
    rows, columns = tl.load(t + 4), tl.load(t + 5)
    lead, chunk = tl.load(jobs + 1).to(tl.int64), tl.load(jobs + 2)
    j = tl.load(jobs + 3) * TILE + tl.arange(0, TILE)
    acc = tl.zeros([ROWS, TILE], WIDE)
    for start in range(0, CHUNK, ROWS):
        r = chunk * CHUNK + start + tl.arange(0, ROWS)
        at = (lead * rows + r)[:, None] * columns + j[None, :]
        g = load(t, 1, at, (r < rows)[:, None] & (j < columns)[None, :], WIDE, UNIFORM)
        acc += g * g
    to = tl.load(t + 7) + (lead * tl.load(t + 10).to(tl.int32) + chunk) * columns
    tl.store(sums + to + j, tl.sum(acc, 0), mask=j < columns)


@triton.jit
def column_means(
    tensors, jobs, sums, means, share, eps1, eps2, rate, d, keep, WIDE: tl.constexpr, UNIFORM: tl.constexpr
):  # fmt: skip
    """column += share * (mean of g^2 over the rows - column), and means[lead] = the mean of the row averages.

    Job: lead a. Reads sums and the row averages once.
    """
    jobs += tl.program_id(0) * 4
    t = tensors + tl.load(jobs) * WORDS
    rows, columns = tl.load(t + 4), tl.load(t + 5)
    lead, chunks = tl.load(jobs + 1).to(tl.int64), tl.load(t + 10).to(tl.int32)
    i = tl.arange(0, CHUNK)
    sums += tl.load(t + 7) + lead * chunks * columns
    for start in range(0, columns.to(tl.int32), CHUNK):
        j = start + i
        acc = tl.zeros([CHUNK], WIDE)
        for k in range(0, chunks):
            acc += tl.load(sums + k * columns + j, mask=j < columns, other=0.0)
        average(t, 3, lead * columns + j, quotient(acc, rows.to(WIDE)), share, j < columns, WIDE, UNIFORM)
    total = tl.zeros([CHUNK], WIDE)
    for start in range(0, rows.to(tl.int32), CHUNK):
        j = start + i
        total += load(t, 2, lead * rows + j, j < rows, WIDE, UNIFORM)
    tl.store(means + tl.load(t + 8) + lead, quotient(tl.sum(total, 0), rows.to(WIDE)))


@triton.jit
def at_least(x, y):
    """The larger of the two; NaN where x is."""
    return tl.where((x > y) | (x != x), x, y)


@triton.jit
def update_of(t, means, i, g, own, eps1, inside, WIDE: tl.constexpr, UNIFORM: tl.constexpr):
    """The unscaled update of elements i: g over the root of the estimated second moment; own: where columns is 0."""
    columns = tl.load(t + 5)
    least = eps1.to(WIDE)
    if columns == 0:
        estimate = own
    else:
        row = i // columns
        lead = row // tl.load(t + 4)
        mean = tl.load(means + tl.load(t + 8) + lead, mask=inside, other=1.0)
        of_column = load(t, 3, lead * columns + (i - row * columns), inside, WIDE, UNIFORM)
        estimate = quotient(load(t, 2, row, inside, WIDE, UNIFORM) * of_column, at_least(mean, least))
    return quotient(g, root(at_least(estimate, (eps1 * eps1).to(WIDE))))


@triton.jit
def update_squares(
    tensors, jobs, means, squares, share, eps1, eps2, rate, d, keep, WIDE: tl.constexpr, UNIFORM: tl.constexpr
):  # fmt: skip
    """squares[piece] = the sums of p^2 and of update^2 over a piece, job: piece a.

    The averages of tensors without rows and columns are moved here. Reads p, g and the averages once; about 10
    operations per element.
    """
    jobs += tl.program_id(0) * 4
    t = tensors + tl.load(jobs) * WORDS
    piece, columns, size = tl.load(jobs + 1).to(tl.int64), tl.load(t + 5), tl.load(t + 6)
    sizes = tl.zeros([BLOCK], WIDE)
    updates = tl.zeros([BLOCK], WIDE)
    count = min(size - piece * PIECE, PIECE).to(tl.int32)
    for start in range(0, count, BLOCK):
        k = start + tl.arange(0, BLOCK)
        i, inside = piece * PIECE + k, k < count
        g = load(t, 1, i, inside, WIDE, UNIFORM)
        own = g
        if columns == 0:
            average(t, 2, i, g * g, share, inside, WIDE, UNIFORM)
            tl.debug_barrier()  # what is read again is what was rounded
            own = load(t, 2, i, inside, WIDE, UNIFORM)
        p = load(t, 0, i, inside, WIDE, UNIFORM)
        u = update_of(t, means, i, g, own, eps1, inside, WIDE, UNIFORM)
        u = tl.where(inside, u, 0.0)
        sizes += p * p
        updates += u * u
    squares += 2 * (tl.load(t + 9) + piece)
    tl.store(squares, tl.sum(sizes.to(tl.float64), 0))
    tl.store(squares + 1, tl.sum(updates.to(tl.float64), 0))


@triton.jit
def apply(
    tensors, jobs, means, squares, share, eps1, eps2, rate, d, keep, WIDE: tl.constexpr, UNIFORM: tl.constexpr
):  # fmt: skip
    """p = keep * p - update * alpha / max(rms(update) / d, 1), alpha = max(rms(p), eps2) * rate; job: piece a.

    Reads p and g and writes p once; about 12 operations per element.
    """
    jobs += tl.program_id(0) * 4
    t = tensors + tl.load(jobs) * WORDS
    piece, columns, size = tl.load(jobs + 1).to(tl.int64), tl.load(t + 5), tl.load(t + 6)
    pieces = (tl.load(t + 10) >> 32).to(tl.int32)
    squares += 2 * tl.load(t + 9)
    p2 = tl.zeros([CHUNK], tl.float64)
    u2 = tl.zeros([CHUNK], tl.float64)
    for start in range(0, pieces, CHUNK):
        k = start + tl.arange(0, CHUNK)
        p2 += tl.load(squares + 2 * k, mask=k < pieces, other=0.0)
        u2 += tl.load(squares + 2 * k + 1, mask=k < pieces, other=0.0)
    count = size.to(tl.float64)
    alpha = at_least(tl.sqrt(tl.sum(p2, 0) / count), eps2) * rate
    factor = (alpha / at_least(tl.sqrt(tl.sum(u2, 0) / count) / d, 1.0)).to(WIDE)
    last = min(size - piece * PIECE, PIECE).to(tl.int32)
    for start in range(0, last, BLOCK):
        k = start + tl.arange(0, BLOCK)
        i, inside = piece * PIECE + k, k < last
        g = load(t, 1, i, inside, WIDE, UNIFORM)
        own = g
        if columns == 0:
            own = load(t, 2, i, inside, WIDE, UNIFORM)
        u = update_of(t, means, i, g, own, eps1, inside, WIDE, UNIFORM)
        p = load(t, 0, i, inside, WIDE, UNIFORM)
        store(t, 0, i, p * keep.to(WIDE) - u * factor, inside, UNIFORM)
