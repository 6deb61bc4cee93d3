"""Cross-entropy with integer targets."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from spiral.backend import Cap, Kernel
from spiral.backends.cuda.arrays import NAMES, THREADS, cast, dense
from spiral.backends.cuda.launching import CudaKernel, Source
from spiral.backends.cuda.rows import row_grid, shared_row_grid
from spiral.device_array import DeviceArray
from spiral.dtype import ALL, FLOATS, as_dtype, float32, float64, int32, int64

_SOURCE = Source("loss.cu")


def _kernels(name: str, *formats: str) -> dict[Any, CudaKernel]:
    return {d.numpy: _SOURCE.kernel(f"spiral::{name}<{NAMES[d]}>", *formats) for d in FLOATS}


_ROWS = _kernels("cross_entropy_rows", *"PPPPPqqiiiqdd")
_TOTAL = _kernels("cross_entropy_total", *"PPPPqiqi")
_GRAD = _kernels("cross_entropy_grad", *"PPPPPPqqiiiiqdd")


def integer_targets(targets: DeviceArray) -> tuple[DeviceArray, int]:
    """Targets as the kernels take them, and whether they are int32."""
    if targets.dtype == int32.numpy:
        return dense(targets), 1
    return dense(cast(targets, int64)), 0


def reduce_losses(
    losses: DeviceArray, targets: DeviceArray, small: int, ignore: int, reduction: str, loss: DeviceArray
) -> None:
    """loss = sum of the rows' losses, in the wide type, or their mean over the targets that count."""
    values = (losses.address, targets.address, loss.address, 0, targets.size, small, ignore, int(reduction == "mean"))
    _TOTAL[loss.dtype](loss.memory, (1, 1, 1), (1024, 1, 1), *values)


def count_targets(targets: DeviceArray, small: int, ignore: int) -> DeviceArray:
    """How many targets count, as int64 (1,)."""
    counted = DeviceArray.empty(targets.memory, (1,), int64.numpy)
    values = (0, targets.address, 0, counted.address, targets.size, small, ignore, 1)
    _TOTAL[float32.numpy](targets.memory, (1, 1, 1), (1024, 1, 1), *values)
    return counted


def _full(saved: DeviceArray, x: DeviceArray) -> int:
    """Whether what a forward saves has the wide type, not that of x."""
    return int(saved.dtype != x.dtype or x.dtype in (float32.numpy, float64.numpy))


def _cross_entropy(
    logits: DeviceArray, targets: DeviceArray, ignore_index: int, label_smoothing: float, z_loss: float, reduction: str,
    loss: DeviceArray, lse: DeviceArray,
) -> None:  # fmt: skip
    x, (t, small) = dense(logits), integer_targets(targets)
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
        reduce_losses(losses, t, small, ignore_index, reduction, loss)


def _cross_entropy_grad(
    g: DeviceArray, logits: DeviceArray, targets: DeviceArray, lse: DeviceArray, ignore_index: int,
    label_smoothing: float, z_loss: float, reduction: str, dlogits: DeviceArray,
) -> None:  # fmt: skip
    """``dlogits`` may have the memory of ``logits``, which is then overwritten."""
    x, (t, small) = dense(logits), integer_targets(targets)
    rows, n = x.shape
    if not x.size:
        return
    gpu = x.memory
    g, lse = dense(cast(g, as_dtype(x.dtype))), dense(lse)
    counted = count_targets(t, small, ignore_index) if reduction == "mean" else None
    group, grid = shared_row_grid(rows, n, x.itemsize)
    _GRAD[x.dtype](
        gpu, grid, (THREADS, 1, 1), g.address, x.address, t.address, lse.address, dlogits.address,
        0 if counted is None else counted.address, rows, n, group, small, _full(lse, x), int(reduction == "none"),
        ignore_index, label_smoothing, z_loss,
    )  # fmt: skip


def kernels() -> Iterator[Kernel]:
    """The family's table."""
    cap = Cap(FLOATS, tuple(d for d in ALL if d.kind in ("int", "uint")))
    yield Kernel("cross_entropy", _cross_entropy, cap)
    yield Kernel("cross_entropy_grad", _cross_entropy_grad, cap)
