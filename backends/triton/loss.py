"""Cross-entropy with integer targets."""

from __future__ import annotations

from collections.abc import Iterator

from spiral.backend import Cap, Kernel
from spiral.backends.triton.arrays import NAMES, address, cast, dense, wide_of
from spiral.backends.triton.launching import TritonKernel
from spiral.backends.triton.pointwise import number_of
from spiral.backends.triton.rows import WIDE, WIDE_NAME, for_rows, sized
from spiral.device_array import DeviceArray
from spiral.dtype import ALL, FLOATS, as_dtype, float32, int32, int64
from spiral.kernels.triton import loss as source

_OPTIONS = {"ignore": "i64", "smoothing": "wide", "z": "wide"}


def _numbers(*names: str) -> dict[str, str]:
    return dict.fromkeys(names, "i32")


_ROWS = sized(
    source.cross_entropy_rows,
    {"x": "*", "targets": "*i64", "loss": "*", "lse": "*"}
    | _numbers("rows", "n", "small", "loss_wide", "lse_wide")
    | _OPTIONS,
)
_TOTAL = {
    d.numpy: TritonKernel(
        source.cross_entropy_total,
        {"losses": f"*{WIDE_NAME[d]}", "targets": "*i64", "loss": f"*{NAMES[d]}", "counted": "*i64"}
        | _numbers("rows", "small", "has_losses", "mean")
        | {"ignore": "i64"},
        {"BLOCK": 1024},
        num_warps=8,
    )
    for d in FLOATS
}
_SHORT, _LONG = (8, 128), (1, 2048)
_GRAD = {
    d.numpy: {
        side: TritonKernel(
            source.cross_entropy_grad,
            {"g": f"*{NAMES[d]}", "x": f"*{NAMES[d]}", "targets": "*i64", "lse": f"*{NAMES[d]}", "dx": f"*{NAMES[d]}",
             "counted": "*i64"}
            | _numbers("rows", "n", "small", "lse_wide", "per_row", "mean")
            | {"ignore": "i64", "smoothing": WIDE_NAME[d], "z": WIDE_NAME[d]},
            {"WIDE": WIDE[d], "K": side[0], "BLOCK": side[1]},
            divisible=("n",),
        )
        for side in (_SHORT, _LONG)
    }
    for d in FLOATS
}  # fmt: skip


def integer_targets(targets: DeviceArray) -> tuple[DeviceArray, int]:
    """Targets as the kernels take them, and whether they are int32."""
    if targets.dtype == int32.numpy:
        return dense(targets), 1
    return dense(cast(targets, int64)), 0


def _is_wide(saved: DeviceArray, x: DeviceArray) -> int:
    """Whether what a forward saves has the wide type, not that of x."""
    return int(saved.dtype == wide_of(x).numpy)


def _cross_entropy(
    logits: DeviceArray, targets: DeviceArray, ignore_index: int, label_smoothing: float, z_loss: float, reduction: str,
    loss: DeviceArray, lse: DeviceArray,
) -> None:  # fmt: skip
    x, (t, small) = dense(logits), integer_targets(targets)
    rows, n = x.shape
    gpu, wide = x.memory, wide_of(x)
    losses = loss if reduction == "none" else DeviceArray.empty(gpu, (rows,), wide.numpy)
    kind = NAMES[wide]
    if rows:
        kernel, grid = for_rows(_ROWS[x.dtype], rows, n)
        kernel(
            gpu, grid, x.address, t.address, losses.address, lse.address, rows, n, small, _is_wide(losses, x),
            _is_wide(lse, x), ignore_index, number_of(label_smoothing, kind), number_of(z_loss, kind),
        )  # fmt: skip
    if reduction != "none":
        reduce_losses(losses, t, small, ignore_index, reduction, loss)


def reduce_losses(
    losses: DeviceArray, targets: DeviceArray, small: int, ignore_index: int, reduction: str, loss: DeviceArray
) -> None:
    """Overwrites loss, without axes, with the sum or mean of rows' losses, which have its wide type."""
    counted = DeviceArray.empty(loss.memory, (1,), int64.numpy)
    _TOTAL[loss.dtype](
        loss.memory, (1, 1, 1), losses.address, targets.address, loss.address, counted.address, targets.size, small, 1,
        int(reduction == "mean"), ignore_index,
    )  # fmt: skip


def count_targets(targets: DeviceArray, small: int, ignore_index: int) -> DeviceArray:
    """How many targets count, as an array of one int64."""
    counted = DeviceArray.empty(targets.memory, (1,), int64.numpy)
    total = _TOTAL[float32.numpy]
    total(targets.memory, (1, 1, 1), 0, targets.address, 0, counted.address, targets.size, small, 0, 1, ignore_index)
    return counted


def _cross_entropy_grad(
    g: DeviceArray, logits: DeviceArray, targets: DeviceArray, lse: DeviceArray, ignore_index: int,
    label_smoothing: float, z_loss: float, reduction: str, dlogits: DeviceArray,
) -> None:  # fmt: skip
    """``dlogits`` may have the memory of ``logits``, which is then overwritten."""
    x, (t, small) = dense(logits), integer_targets(targets)
    rows, n = x.shape
    if not x.size:
        return
    gpu, d = x.memory, as_dtype(x.dtype)
    g, lse = dense(cast(g, d)), dense(lse if lse.dtype == x.dtype else cast(lse, wide_of(x)))
    counted = count_targets(t, small, ignore_index) if reduction == "mean" else None
    side = _SHORT if n <= 2 * _SHORT[1] else _LONG
    kind = NAMES[wide_of(x)]
    _GRAD[x.dtype][side](
        gpu, (-(-rows // side[0]), -(-n // side[1]), 1), g.address, x.address, t.address, lse.address, dlogits.address,
        address(counted), rows, n, small, _is_wide(lse, x), int(reduction == "none"), int(reduction == "mean"),
        ignore_index, number_of(label_smoothing, kind), number_of(z_loss, kind),
    )  # fmt: skip


def kernels() -> Iterator[Kernel]:
    """The family's table."""
    cap = Cap(FLOATS, tuple(d for d in ALL if d.kind in ("int", "uint")))
    yield Kernel("cross_entropy", _cross_entropy, cap)
    yield Kernel("cross_entropy_grad", _cross_entropy_grad, cap)
