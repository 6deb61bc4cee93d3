"""Cross-entropy with integer targets."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from spiral.backend import Cap, Kernel
from spiral.backends.cuda.arrays import NAMES, THREADS, cast, dense
from spiral.backends.cuda.launching import CudaKernel, Source
from spiral.backends.cuda.rows import BLOCKS, power, row_grid
from spiral.device_array import DeviceArray
from spiral.dtype import ALL, FLOATS, as_dtype, float32, float64, int32, int64

_SOURCE = Source("loss.cu")


def _kernels(name: str, *formats: str) -> dict[Any, CudaKernel]:
    return {d.numpy: _SOURCE.kernel(f"spiral::{name}<{NAMES[d]}>", *formats) for d in FLOATS}


_ROWS = _kernels("cross_entropy_rows", *"PPPPPqqiiiqdd")
_TOTAL = _kernels("cross_entropy_total", *"PPPPqiqi")
_GRAD = _kernels("cross_entropy_grad", *"PPPPPPqqiiiiqdd")


def _targets(targets: DeviceArray) -> tuple[DeviceArray, int]:
    """Targets as the kernels take them, and whether they are int32."""
    if targets.dtype == int32.numpy:
        return dense(targets), 1
    return dense(cast(targets, int64)), 0


def _full(saved: DeviceArray, x: DeviceArray) -> int:
    """Whether what a forward saves has the wide type, not that of x."""
    return int(saved.dtype != x.dtype or x.dtype in (float32.numpy, float64.numpy))


def _cross_entropy(
    logits: DeviceArray, targets: DeviceArray, ignore_index: int, label_smoothing: float, z_loss: float, reduction: str,
    loss: DeviceArray, lse: DeviceArray,
) -> None:  # fmt: skip
    x, (t, small) = dense(logits), _targets(targets)
    rows, n = x.shape
    gpu = x.memory
    losses = None
    if reduction != "none":
        wide = float64 if x.dtype == float64.numpy else float32
        losses = DeviceArray.empty(gpu, (rows,), wide.numpy)
    a = 0 if losses is None else losses.address
    if rows:
        group, grid, block = row_grid(rows, n, x.itemsize, 8)
        _ROWS[x.dtype](
            gpu, grid, block, x.address, t.address, loss.address, a, lse.address, rows, n, group, small, _full(lse, x),
            ignore_index, label_smoothing, z_loss,
        )  # fmt: skip
    if losses is not None:
        mean = int(reduction == "mean")
        _TOTAL[x.dtype](gpu, (1, 1, 1), (1024, 1, 1), a, t.address, loss.address, 0, rows, small, ignore_index, mean)


def _cross_entropy_grad(
    g: DeviceArray, logits: DeviceArray, targets: DeviceArray, lse: DeviceArray, ignore_index: int,
    label_smoothing: float, z_loss: float, reduction: str, dlogits: DeviceArray,
) -> None:  # fmt: skip
    """``dlogits`` may have the memory of ``logits``, which is then overwritten."""
    x, (t, small) = dense(logits), _targets(targets)
    rows, n = x.shape
    if not x.size:
        return
    gpu = x.memory
    g, lse = dense(cast(g, as_dtype(x.dtype))), dense(lse)
    counted = None
    if reduction == "mean":
        counted = DeviceArray.empty(gpu, (1,), int64.numpy)
        total = _TOTAL[x.dtype]
        total(gpu, (1, 1, 1), (1024, 1, 1), 0, t.address, 0, counted.address, rows, small, ignore_index, 1)
    packs = -(-n * x.itemsize // 16)
    group = power(-(-packs // 4))
    group = group if group <= 32 else THREADS
    grid = -(-rows * group // THREADS)
    shares = max(1, min(packs // (4 * THREADS), BLOCKS // grid)) if group == THREADS else 1
    _GRAD[x.dtype](
        gpu, (grid, shares, 1), (THREADS, 1, 1), g.address, x.address, t.address, lse.address, dlogits.address,
        0 if counted is None else counted.address, rows, n, group, small, _full(lse, x), int(reduction == "none"),
        ignore_index, label_smoothing, z_loss,
    )  # fmt: skip


def kernels() -> Iterator[Kernel]:
    """The family's table."""
    cap = Cap(FLOATS, tuple(d for d in ALL if d.kind in ("int", "uint")))
    yield Kernel("cross_entropy", _cross_entropy, cap)
    yield Kernel("cross_entropy_grad", _cross_entropy_grad, cap)
