"""Cross-entropy of logits with integer targets, and its gradient.

With p = softmax(x), lse = log sum exp x, e = smoothing, z = z_loss and n classes (PyTorch's definition of smoothing,
Szegedy et al. 2016; the z term is that of PaLM, Chowdhery et al. 2022):

    loss_i = lse - (1 - e) * x_t - e * mean(x) + z * lse^2
    dx_v   = g_i * (p_v * (1 + 2 z lse) - (1 - e) * [v = t] - e / n)

Rows whose target is ``ignore`` give loss 0 and gradient 0; the mean divides by the number of the others (none of them:
NaN). A target outside of [0, n), which the CPU refuses, gives NaN: a device cannot raise. Targets are int64, or int32
where ``small``. Sums run in an order that the shapes alone decide.
"""

import triton
import triton.language as tl
from triton.language.extra import libdevice

from spiral.kernels.triton.elementwise import quotient
from spiral.kernels.triton.norm import load_as, store_as
from spiral.kernels.triton.softmax import base_of


@triton.jit
def target_of(targets, row, there, small):
    """Targets of rows."""
    if small != 0:
        t = tl.load(targets.to(tl.pointer_type(tl.int32)) + row, mask=there, other=0).to(tl.int64)
    else:
        t = tl.load(targets + row, mask=there, other=0)
    return t


@triton.jit
def cross_entropy_rows(
    x, targets, loss, lse, rows, n, small, loss_wide, lse_wide, ignore, smoothing, z,
    WIDE: tl.constexpr, K: tl.constexpr, BLOCK: tl.constexpr, LOOP: tl.constexpr,
):  # fmt: skip
    """The rows' losses and their lse: x (rows, n), K rows a program.

    Overwrites loss and lse, (rows), in x's dtype or the wide one. Reads each logit once; an exponential for each.
    """
    row = (tl.program_id(0) * K + tl.arange(0, K)).to(tl.int64)
    there = row < rows
    live = there[:, None]
    base = row[:, None] * n
    cols = tl.arange(0, BLOCK)[None, :]
    all_logits = tl.zeros([K], WIDE)
    if LOOP:
        top = tl.full([K], float("-inf"), WIDE)
        sums = tl.zeros([K, BLOCK], WIDE)
        logits = tl.zeros([K, BLOCK], WIDE)
        for start in range(0, n, BLOCK):
            inside = live & (start + cols < n)
            v = tl.load(x + (base + (start + cols)), mask=inside, other=float("-inf")).to(WIDE)
            higher = tl.maximum(top, tl.max(v, 1))
            b = base_of(higher)
            sums = sums * libdevice.exp(top - b)[:, None] + libdevice.exp(v - b[:, None])
            logits += tl.where(inside, v, 0.0)
            top = higher
        total = tl.sum(sums, 1)
        all_logits = tl.sum(logits, 1)
        b = base_of(top)
    else:
        inside = live & (cols < n)
        v = tl.load(x + (base + cols), mask=inside, other=float("-inf")).to(WIDE)
        b = base_of(tl.max(v, 1))
        total = tl.sum(libdevice.exp(v - b[:, None]), 1)
        all_logits = tl.sum(tl.where(inside, v, 0.0), 1)
    found = b + libdevice.log(total)
    store_as(lse, row, found, there, lse_wide, WIDE)
    target = target_of(targets, row, there, small)
    valid = (target >= 0) & (target < n)
    picked = tl.load(x + (row * n + tl.where(valid, target, 0)), mask=there & valid, other=0.0).to(WIDE)
    y = found - picked
    if smoothing != 0:
        y = (1 - smoothing) * y + smoothing * (found - quotient(all_logits, tl.full([K], n, WIDE)))
    if z != 0:
        y = y + z * found * found
    y = tl.where(valid, y, float("nan")).to(WIDE)
    y = tl.where(target == ignore, 0.0, y).to(WIDE)
    store_as(loss, row, y, there, loss_wide, WIDE)


@triton.jit
def cross_entropy_total(
    losses, targets, loss, counted, rows, small, has_losses, mean, ignore, BLOCK: tl.constexpr
):  # fmt: skip
    """One program: overwrites counted[0] with the number of targets that count, and loss[0], where there are losses,
    with their sum, divided by that number where ``mean``.
    """
    sums = tl.zeros([BLOCK], tl.float64)
    counts = tl.zeros([BLOCK], tl.int64)
    for start in range(0, rows, BLOCK):
        i = start + tl.arange(0, BLOCK)
        there = i < rows
        counts += (there & (target_of(targets, i, there, small) != ignore)).to(tl.int64)
        if has_losses != 0:
            sums += tl.load(losses + i, mask=there, other=0.0).to(tl.float64)
    count = tl.sum(counts, 0)
    tl.store(counted, count)
    if has_losses != 0:
        total = tl.sum(sums, 0)
        if mean != 0:
            total = total / count.to(tl.float64)
        tl.store(loss, total.to(losses.dtype.element_ty).to(loss.dtype.element_ty))


@triton.jit
def row_scale(g, counted, target, row, there, classes, per_row, mean, WIDE: tl.constexpr):
    """What the gradients of rows are multiplied with: NaN where the target is no class."""
    scale = tl.load(g + row * (per_row != 0), mask=there, other=0.0).to(WIDE)
    if mean != 0:
        scale = quotient(scale, tl.full(row.shape, 1, WIDE) * tl.load(counted).to(WIDE))
    return tl.where((target >= 0) & (target < classes), scale, float("nan")).to(WIDE)


@triton.jit
def slope(v, saved, scale, target, cols, classes, ignore, smoothing, z):
    """The gradient with respect to logits v of classes ``cols``."""
    d = libdevice.exp(v - saved[:, None])
    if z != 0:
        d = d * (1 + 2 * z * saved)[:, None]
    if smoothing != 0:
        d = d - smoothing / classes
    d = tl.where(cols == target[:, None], d - (1 - smoothing), d)
    return tl.where((target == ignore)[:, None], 0.0, d * scale[:, None])


@triton.jit
def cross_entropy_grad(
    g, x, targets, lse, dx, counted, rows, n, small, lse_wide, per_row, mean, ignore, smoothing, z,
    WIDE: tl.constexpr, K: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """dx, (rows, n), from the logits x and lse; g is one, or one ``per_row``, over counted[0] where ``mean``.

    Overwrites dx, which may be x. Moves 2 * n elements a row; an exponential for each.
    """
    row = (tl.program_id(0) * K + tl.arange(0, K)).to(tl.int64)
    there = row < rows
    cols = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)[None, :]
    inside = there[:, None] & (cols < n)
    at = row[:, None] * n + cols
    v = tl.load(x + at, mask=inside, other=0.0).to(WIDE)
    saved = load_as(lse, row, there, lse_wide, WIDE)
    target = target_of(targets, row, there, small)
    scale = row_scale(g, counted, target, row, there, n, per_row, mean, WIDE)
    d = slope(v, saved, scale, target, cols, n, ignore, smoothing, z)
    tl.store(dx + at, d.to(dx.dtype.element_ty), mask=inside)
