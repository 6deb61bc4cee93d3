"""Layer and RMS normalisation over the last axis, with a residual added on the way, and their gradients."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from spiral.backend import Cap, Kernel
from spiral.backends.triton.arrays import NAMES, address, cast, dense, wide_of
from spiral.backends.triton.launching import TritonKernel
from spiral.backends.triton.pointwise import number_of
from spiral.backends.triton.reduce import PROGRAMS, reduce
from spiral.backends.triton.rows import WIDE, WIDE_NAME, for_rows, sized
from spiral.device_array import DeviceArray
from spiral.dtype import FLOATS, as_dtype
from spiral.kernels.triton import norm as source
from spiral.kernels.triton.norm import BIAS, BIAS_WIDE, RESIDUAL, RMS, STATISTICS_WIDE, WEIGHT, WEIGHT_WIDE
from spiral.kernels.triton.reduce import SUM

_ARRAYS = ("x", "residual", "summed", "weight", "bias", "y", "mean", "rstd")
_FORWARD = {
    channels: sized(
        source.norm_rows,
        dict.fromkeys(_ARRAYS, "*")
        | {"rows": "i32", "n": "i32", "eps": "wide"}
        | dict.fromkeys(("spatial", "channels", "groups", "flags"), "i32"),
        CHANNELS=channels,
    )
    for channels in (False, True)
}
_NUMBERS = dict.fromkeys(("rows", "n", "per", "flags"), "i32")
_GRAD = sized(
    source.norm_grad_rows,
    dict.fromkeys(("g", "more", "x", "weight", "mean", "rstd", "dx"), "*") | {"partial": "*wide"} | _NUMBERS,
)
_TILE = (8, 64)
_GRAD_COLUMNS = {
    d.numpy: TritonKernel(
        source.norm_grad_columns,
        dict.fromkeys(("g", "x", "mean", "rstd"), f"*{NAMES[d]}") | {"partial": f"*{WIDE_NAME[d]}"} | _NUMBERS,
        {"WIDE": WIDE[d], "R": _TILE[0], "C": _TILE[1]},
        divisible=("n",),
    )
    for d in FLOATS
}


def operand(t: Any, x: DeviceArray) -> Any:
    """Weights, statistics as a kernel for x takes them: dense, of its dtype or of the wide one; None stays None."""
    if t is None:
        return None
    return dense(t if t.dtype == x.dtype else cast(t, wide_of(x)))


def is_wide(t: Any, x: DeviceArray, flag: int) -> int:
    """The flag where an operand has the wide dtype."""
    return flag if t is not None and t.dtype == wide_of(x).numpy else 0


def forward(
    x: DeviceArray, residual: Any, weight: Any, bias: Any, rows: int, n: int, eps: float,
    summed: Any, y: DeviceArray, mean: Any, rstd: DeviceArray, channels: tuple[int, int, int] = (0, 1, 1),
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
        channels: elements of a channel, channels of a row, rows until weights begin anew; (0, 1, 1): a weight per
            element.
    """
    if not rows:
        return
    d = as_dtype(y.dtype)
    x = dense(cast(x, d))
    residual = None if residual is None else dense(cast(residual, d))
    weight, bias = operand(weight, x), operand(bias, x)
    flags = (
        (RMS if mean is None else 0)
        | (WEIGHT if weight is not None else 0)
        | (BIAS if bias is not None else 0)
        | (RESIDUAL if residual is not None else 0)
        | is_wide(weight, x, WEIGHT_WIDE)
        | is_wide(bias, x, BIAS_WIDE)
        | is_wide(rstd, x, STATISTICS_WIDE)
    )
    kernel, grid = for_rows(_FORWARD[channels[0] > 0][x.dtype], rows, n)
    kernel(
        y.memory, grid, x.address, address(residual), address(summed), address(weight), address(bias), y.address,
        address(mean), rstd.address, rows, n, number_of(eps, WIDE_NAME[d]), *channels, flags,
    )  # fmt: skip


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
    kinds = [dw] if db is None else [dw, db]
    gpu, wide = dx.memory, wide_of(x).numpy
    flags = (
        (RMS if mean is None else 0)
        | (WEIGHT if weight is not None else 0)
        | (RESIDUAL if more is not None else 0)
        | is_wide(weight, x, WEIGHT_WIDE)
        | is_wide(rstd, x, STATISTICS_WIDE)
    )
    shares = 0
    partial = DeviceArray.empty(gpu, (len(kinds), shares, n), wide)
    if rows:
        kernel, (programs, _, _) = for_rows(_GRAD[x.dtype], rows, n)
        arrays = (g.address, address(more), x.address, address(weight), address(mean), rstd.address, dx.address)
        if kernel.constants["LOOP"]:
            kernel(gpu, (programs, 1, 1), *arrays, 0, rows, n, 1, flags)
            across = -(-n // _TILE[1])
            part = -(-rows // max(1, min(-(-rows // _TILE[0]), PROGRAMS // across)))
            shares = -(-rows // part)
            partial = DeviceArray.empty(gpu, (len(kinds), shares, n), wide)
            _GRAD_COLUMNS[x.dtype](
                gpu, (across, shares, 1), g.address, x.address, address(mean), rstd.address, partial.address, rows, n,
                part, flags,
            )  # fmt: skip
        else:
            per = -(-programs // min(programs, PROGRAMS // 2))
            shares = -(-programs // per)
            partial = DeviceArray.empty(gpu, (len(kinds), shares, n), wide)
            kernel(gpu, (shares, 1, 1), *arrays, partial.address, rows, n, per, flags)
    for i, to in enumerate(kinds):
        reduce(SUM, partial[i], (0,), to)


def _layer_norm(x: Any, weight: Any, bias: Any, eps: float, y: Any, mean: Any, rstd: Any) -> None:
    forward(x, None, weight, bias, rstd.size, x.shape[-1], eps, None, y, mean, rstd)


def _rms_norm(x: Any, weight: Any, eps: float, y: Any, rstd: Any) -> None:
    forward(x, None, weight, None, rstd.size, x.shape[-1], eps, None, y, None, rstd)


def _add_layer_norm(
    x: Any, residual: Any, weight: Any, bias: Any, eps: float, y: Any, summed: Any, mean: Any, rstd: Any
) -> None:
    forward(x, residual, weight, bias, rstd.size, x.shape[-1], eps, summed, y, mean, rstd)


def _add_rms_norm(x: Any, residual: Any, weight: Any, eps: float, y: Any, summed: Any, rstd: Any) -> None:
    forward(x, residual, weight, None, rstd.size, x.shape[-1], eps, summed, y, None, rstd)


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
