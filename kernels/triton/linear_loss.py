"""Cross-entropy of a linear layer from tiles of its logits, in the wide type; see `spiral.kernels.triton.loss`.

The products come from `spiral.kernels.triton.linear`; a tile of logits that the second-level cache holds costs little
beside them. What is known of a row so far are 4 states: its maximum, the sum of exp(x - maximum), the target's logit,
and the sum of the logits.
"""

import triton
import triton.language as tl
from triton.language.extra import libdevice

from spiral.kernels.triton.elementwise import quotient
from spiral.kernels.triton.loss import row_scale, slope, target_of
from spiral.kernels.triton.softmax import base_of


@triton.jit
def linear_loss_tile(
    logits, targets, states, rows, n, first, start_row, small, total_rows,
    WIDE: tl.constexpr, K: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Takes logits (rows, n), of classes from ``first`` on, into states (4, total_rows) of rows from start_row on.

    Overwrites the states where first is 0. Reads each logit once; an exponential for each.
    """
    row = (tl.program_id(0) * K + tl.arange(0, K)).to(tl.int64)
    there = row < rows
    base = row[:, None] * n
    cols = tl.arange(0, BLOCK)[None, :]
    target = target_of(targets, start_row + row, there, small)
    at = states + (start_row + row)
    top = tl.full([K], float("-inf"), WIDE)
    total = tl.zeros([K], WIDE)
    picked = tl.zeros([K], WIDE)
    everything = tl.zeros([K], WIDE)
    if first > 0:
        top = tl.load(at, mask=there, other=0.0)
        total = tl.load(at + total_rows, mask=there, other=0.0)
        picked = tl.load(at + 2 * total_rows, mask=there, other=0.0)
        everything = tl.load(at + 3 * total_rows, mask=there, other=0.0)
    for start in range(0, n, BLOCK):
        inside = there[:, None] & (start + cols < n)
        v = tl.load(logits + (base + (start + cols)), mask=inside, other=float("-inf"))
        higher = tl.maximum(top, tl.max(v, 1))
        b = base_of(higher)
        total = total * libdevice.exp(top - b) + tl.sum(libdevice.exp(v - b[:, None]), 1)
        top = higher
        hit = inside & (first + start + cols == target[:, None])
        picked += tl.sum(tl.where(hit, v, 0.0), 1)
        everything += tl.sum(tl.where(inside, v, 0.0), 1)
    tl.store(at, top, mask=there)
    tl.store(at + total_rows, total, mask=there)
    tl.store(at + 2 * total_rows, picked, mask=there)
    tl.store(at + 3 * total_rows, everything, mask=there)


@triton.jit
def linear_loss_rows(
    states, targets, losses, lse, rows, classes, small, ignore, smoothing, z, WIDE: tl.constexpr, BLOCK: tl.constexpr
):  # fmt: skip
    """The rows' losses and lse, all (rows) in the wide type, from their states. Overwrites both."""
    row = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    there = row < rows
    top = tl.load(states + row, mask=there, other=0.0)
    total = tl.load(states + rows + row, mask=there, other=1.0)
    picked = tl.load(states + 2 * rows + row, mask=there, other=0.0)
    everything = tl.load(states + 3 * rows + row, mask=there, other=0.0)
    found = base_of(top) + libdevice.log(total)
    target = target_of(targets, row, there, small)
    y = found - picked
    if smoothing != 0:
        y = (1 - smoothing) * y + smoothing * (found - quotient(everything, tl.full([BLOCK], classes, WIDE)))
    if z != 0:
        y = y + z * found * found
    y = tl.where((target >= 0) & (target < classes), y, float("nan")).to(WIDE)
    y = tl.where(target == ignore, 0.0, y).to(WIDE)
    tl.store(losses + row, y, mask=there)
    tl.store(lse + row, found, mask=there)


@triton.jit
def linear_loss_grad(
    g, logits, targets, lse, d, counted, rows, n, first, start_row, classes, small, per_row, mean, ignore, smoothing, z,
    WIDE: tl.constexpr, K: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Gradients d (rows, n) of logits (rows, n), of classes from ``first`` on and rows from start_row on.

    g, targets and lse begin with row 0. Overwrites d, which may be ``logits``. An exponential per element.
    """
    row = (tl.program_id(0) * K + tl.arange(0, K)).to(tl.int64)
    there = row < rows
    cols = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)[None, :]
    inside = there[:, None] & (cols < n)
    at = row[:, None] * n + cols
    v = tl.load(logits + at, mask=inside, other=0.0)
    saved = tl.load(lse + (start_row + row), mask=there, other=0.0)
    target = target_of(targets, start_row + row, there, small)
    scale = row_scale(g, counted, target, start_row + row, there, classes, per_row, mean, WIDE)
    e = slope(v, saved, scale, target, first + cols, classes, ignore, smoothing, z)
    tl.store(d + at, e.to(d.dtype.element_ty), mask=inside)
