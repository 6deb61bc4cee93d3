"""Layer and RMS normalisation over the last axis, with a residual added on the way, and their gradients."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from spiral.backend import Cap, Kernel
from spiral.backends.cuda.arrays import NAMES, THREADS, cast, dense
from spiral.backends.cuda.launching import CudaKernel, Source
from spiral.backends.cuda.rows import BLOCKS, MOST, power, row_choice, row_class, row_grid
from spiral.device_array import DeviceArray
from spiral.dtype import FLOATS, DType, as_dtype, float32, float64
from spiral.gpu.tuning import Choice, Trial

# flags of norm.cu
RMS, WEIGHT_WIDE, BIAS_WIDE, STATISTICS_WIDE, WEIGHT_ALIGNED, BIAS_ALIGNED, ALIGNED = (1 << i for i in range(7))

_SOURCE = Source("norm.cu")
_ROWS = {
    (d.numpy, add): _SOURCE.kernel(f"spiral::norm_rows<{NAMES[d]}, {str(add).lower()}>", *"PPPPPPPPqqqqiiid")
    for d in FLOATS
    for add in (False, True)
}

NORM_ROWS: Choice = row_choice(
    "norm_rows", "norm.cu",
    lambda rows, n, dtype: Trial("layer_norm", (((rows, n), dtype), ((n,), dtype), ((n,), dtype)), (1e-5,)),
)  # fmt: skip


def _kernels(name: str, *formats: str) -> dict[Any, CudaKernel]:
    return {d.numpy: _SOURCE.kernel(f"spiral::{name}<{NAMES[d]}>", *formats) for d in FLOATS}


_GRAD_ROWS = _kernels("norm_grad_rows", *"PPPPPPPPqqii")
_GRAD_LONG = _kernels("norm_grad_long", *"PPPPPPPqi")
_GRAD_COLUMNS = _kernels("norm_grad_columns", *"PPPPPqqqi")
_WEIGHTS = _kernels("norm_weights", *"PPPqq")


def wide_of(x: DeviceArray) -> DType:
    """The dtype that statistics of x are computed in."""
    return float64 if x.dtype == float64.numpy else float32


def operand(t: Any, x: DeviceArray) -> Any:
    """Weights, statistics as a kernel for x takes them: dense, of its dtype or of the wide one; None stays None."""
    if t is None:
        return None
    return dense(t if t.dtype == x.dtype else cast(t, wide_of(x)))


def is_wide(t: Any, x: DeviceArray, flag: int) -> int:
    """The flag where an operand has the wide dtype."""
    return flag if t is not None and t.dtype == wide_of(x).numpy else 0


def address(t: Any) -> int:
    """Of an array; 0 for None."""
    return 0 if t is None else t.address


def _aligned(t: Any, flag: int) -> int:
    return flag if t is not None and t.address % 16 == 0 else 0


def forward(
    x: DeviceArray, residual: Any, weight: Any, bias: Any, rows: int, n: int, eps: float,
    summed: Any, y: DeviceArray, mean: Any, rstd: DeviceArray, channels: tuple[int, int, int] = (0, 0, 1),
) -> None:  # fmt: skip
    """Normalises rows of n elements.

    Args:
        x: values, in rows.
        residual: added to x, or None.
        weight: per element of a row, or per channel; or None.
        bias: as weight.
        rows: how many.
        n: elements of each.
        eps: added to the variance.
        summed: where x + residual goes, or None.
        y: result.
        mean: where the rows' means go; None: the RMS norm.
        rstd: where the reciprocal deviations go.
        channels: elements of a channel, channels of a row, rows until weights begin anew; (0, 0, 1): a weight per
            element.
    """
    if not rows:
        return
    d = as_dtype(y.dtype)
    x = dense(cast(x, d))
    residual = None if residual is None else dense(cast(residual, d))
    weight, bias = operand(weight, x), operand(bias, x)
    per_element = not channels[0]
    flags = (
        (RMS if mean is None else 0)
        | is_wide(weight, x, WEIGHT_WIDE)
        | is_wide(bias, x, BIAS_WIDE)
        | is_wide(rstd, x, STATISTICS_WIDE)
        | (_aligned(weight, WEIGHT_ALIGNED) | _aligned(bias, BIAS_ALIGNED) if per_element else 0)
    )
    if residual is None:  # HELD of norm_rows
        held = 8 if x.itemsize == 4 else 4
    else:
        held = 2 if x.itemsize == 2 else 4
    config = NORM_ROWS.at(y.memory, row_class(n, x.itemsize))
    group, grid, block = row_grid(rows, n, x.itemsize, held, config)
    _ROWS[x.dtype, residual is not None](
        y.memory, grid, block, x.address, address(residual), address(summed), address(weight), address(bias), y.address,
        address(mean), rstd.address, rows, n, *channels, group, flags, eps,
    )  # fmt: skip


def weights_from(partial: DeviceArray, count: int, dw: DeviceArray, db: Any) -> None:
    """Adds up shares (1 or 2, count, n) of dw and db."""
    n = dw.size
    if n:
        grid = (-(-n // 32), 1 if db is None else 2, 1)
        _WEIGHTS[dw.dtype](dw.memory, grid, (THREADS, 1, 1), partial.address, dw.address, address(db), count, n)


def backward(
    g: DeviceArray, more: Any, x: DeviceArray, weight: Any, mean: Any, rstd: DeviceArray,
    dx: DeviceArray, dw: DeviceArray, db: Any,
) -> None:  # fmt: skip
    """Gradients of the norms over the last axis; mean and db are None for the RMS norm, ``more`` is added to dx."""
    d = as_dtype(dx.dtype)
    g, x = dense(cast(g, d)), dense(cast(x, d))
    more = None if more is None else dense(cast(more, d))
    weight, mean, rstd = operand(weight, x), operand(mean, x), operand(rstd, x)
    if mean is not None and mean.dtype != rstd.dtype:
        mean, rstd = cast(mean, wide_of(x)), cast(rstd, wide_of(x))
    n = x.shape[-1]
    rows = x.size // n if n else 0
    gpu, per_pack, kinds = dx.memory, 16 // x.itemsize, 1 if db is None else 2
    arrays = [a for a in (g, more, x, dx) if a is not None]
    flags = (
        (RMS if mean is None else 0)
        | is_wide(weight, x, WEIGHT_WIDE)
        | is_wide(rstd, x, STATISTICS_WIDE)
        | _aligned(weight, WEIGHT_ALIGNED)
        | (ALIGNED if n % per_pack == 0 and all(a.address % 16 == 0 for a in arrays) else 0)
    )
    if not rows:
        weights_from(DeviceArray.empty(gpu, (0,), wide_of(x).numpy), 0, dw, db)
        return
    packs = -(-n // per_pack)
    group = power(-(-packs // (4 if x.itemsize == 4 else 2)))
    of_rows = address(weight), address(mean), rstd.address
    if group <= MOST:
        threads = max(group, THREADS) if group <= 32 else group
        turns = -(-rows * group // threads)  # of one block through all rows
        count = min(turns, max(BLOCKS // 8, -(-turns // 4)), BLOCKS // 2)
        partial = DeviceArray.empty(gpu, (kinds, count, n), wide_of(x).numpy)
        _GRAD_ROWS[x.dtype](
            gpu, (count, 1, 1), (threads, 1, 1), g.address, address(more), x.address, *of_rows, dx.address,
            partial.address, rows, n, group, flags,
        )  # fmt: skip
    else:
        _GRAD_LONG[x.dtype](
            gpu, (rows, 1, 1), (MOST, 1, 1), g.address, address(more), x.address, *of_rows, dx.address, n, flags
        )
        across = -(-packs // THREADS)
        part = -(-rows // max(1, min(rows, BLOCKS // across)))
        count = -(-rows // part)
        partial = DeviceArray.empty(gpu, (kinds, count, n), wide_of(x).numpy)
        _GRAD_COLUMNS[x.dtype](
            gpu, (across, count, 1), (THREADS, 1, 1), g.address, x.address, address(mean), rstd.address,
            partial.address, rows, n, part, flags,
        )  # fmt: skip
    weights_from(partial, count, dw, db)


def _rows(x: DeviceArray, rstd: DeviceArray) -> tuple[int, int]:
    return rstd.size, x.shape[-1]


def _layer_norm(x: Any, weight: Any, bias: Any, eps: float, y: Any, mean: Any, rstd: Any) -> None:
    forward(x, None, weight, bias, *_rows(x, rstd), eps, None, y, mean, rstd)


def _rms_norm(x: Any, weight: Any, eps: float, y: Any, rstd: Any) -> None:
    forward(x, None, weight, None, *_rows(x, rstd), eps, None, y, None, rstd)


def _add_layer_norm(
    x: Any, residual: Any, weight: Any, bias: Any, eps: float, y: Any, summed: Any, mean: Any, rstd: Any
) -> None:
    forward(x, residual, weight, bias, *_rows(x, rstd), eps, summed, y, mean, rstd)


def _add_rms_norm(x: Any, residual: Any, weight: Any, eps: float, y: Any, summed: Any, rstd: Any) -> None:
    forward(x, residual, weight, None, *_rows(x, rstd), eps, summed, y, None, rstd)


def _layer_norm_grad(g: Any, x: Any, weight: Any, mean: Any, rstd: Any, dx: Any, dw: Any, db: Any) -> None:
    backward(g, None, x, weight, mean, rstd, dx, dw, db)


def _rms_norm_grad(g: Any, x: Any, weight: Any, rstd: Any, dx: Any, dw: Any) -> None:
    backward(g, None, x, weight, None, rstd, dx, dw, None)


def _add_layer_norm_grad(
    g: Any, gsummed: Any, summed: Any, weight: Any, mean: Any, rstd: Any, dx: Any, dw: Any, db: Any
) -> None:
    backward(g, gsummed, summed, weight, mean, rstd, dx, dw, db)


def _add_rms_norm_grad(g: Any, gsummed: Any, summed: Any, weight: Any, rstd: Any, dx: Any, dw: Any) -> None:
    backward(g, gsummed, summed, weight, None, rstd, dx, dw, None)


def kernels() -> Iterator[Kernel]:
    """The family's table."""
    floats = Cap(FLOATS)
    yield Kernel("layer_norm", _layer_norm, floats)
    yield Kernel("layer_norm_grad", _layer_norm_grad, floats)
    yield Kernel("rms_norm", _rms_norm, floats)
    yield Kernel("rms_norm_grad", _rms_norm_grad, floats)
    yield Kernel("add_layer_norm", _add_layer_norm, floats)
    yield Kernel("add_layer_norm_grad", _add_layer_norm_grad, floats)
    yield Kernel("add_rms_norm", _add_rms_norm, floats)
    yield Kernel("add_rms_norm_grad", _add_rms_norm_grad, floats)
