"""Normalisation over the last axis."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from spiral.backend import Cap, Kernel
from spiral.backends.triton.launching import TritonKernel
from spiral.device_array import DeviceArray
from spiral.dtype import bfloat16, float16, float32
from spiral.kernels.triton import norm as source

DTYPES = {float32.numpy: "fp32", float16.numpy: "fp16", bfloat16.numpy: "bf16"}
SIZES = ((256, 1, False), (1024, 4, False), (4096, 8, False), (8192, 16, False), (4096, 8, True))
"""BLOCK, num_warps, LOOP: the first block that holds a row, else the last."""

Sized = list[tuple[int, TritonKernel]]


def _declare(
    fn: Any, pointers: tuple[str, ...], statistics: tuple[str, ...], flags: tuple[str, ...]
) -> dict[np.dtype[Any], Sized]:
    """A kernel for each dtype and size, with the largest n it takes; statistics are in float32."""
    made: dict[np.dtype[Any], Sized] = {}
    for dtype, name in DTYPES.items():
        arrays = dict.fromkeys(pointers, f"*{name}") | dict.fromkeys(statistics, "*fp32")
        params = arrays | {"n": "i32", "eps": "fp32"} | dict.fromkeys(flags, "i32")
        made[dtype] = [
            (
                2**31 - 1 if loop else block,
                TritonKernel(fn, params, {"BLOCK": block, "LOOP": loop}, divisible=("n",), num_warps=warps),
            )
            for block, warps, loop in SIZES
        ]
    return made


_RMS_NORM = _declare(source.rms_norm, ("x", "weight", "y"), ("rstd",), ("has_weight",))
_LAYER_NORM = _declare(source.layer_norm, ("x", "weight", "bias", "y"), ("mean", "rstd"), ("has_weight", "has_bias"))


def _for_length(kernels: Sized, n: int) -> TritonKernel:
    for most, kernel in kernels:
        if n <= most:
            return kernel
    raise AssertionError("unreachable: the guard refuses longer rows")


def _address(array: DeviceArray | None) -> int:
    return 0 if array is None else array.address


def rms_norm(x: DeviceArray, weight: DeviceArray | None, eps: float, y: DeviceArray, rstd: DeviceArray) -> None:
    """See `spiral.ops.norm.RMSNorm`."""
    if not rstd.size:
        return
    n = x.shape[-1]
    kernel = _for_length(_RMS_NORM[x.dtype], n)
    kernel(
        x.memory, (rstd.size, 1, 1),
        x.address, _address(weight), y.address, rstd.address, n, eps, weight is not None,
    )  # fmt: skip


def layer_norm(
    x: DeviceArray, weight: DeviceArray | None, bias: DeviceArray | None, eps: float,
    y: DeviceArray, mean: DeviceArray, rstd: DeviceArray,
) -> None:  # fmt: skip
    """See `spiral.ops.norm.LayerNorm`."""
    if not rstd.size:
        return
    n = x.shape[-1]
    kernel = _for_length(_LAYER_NORM[x.dtype], n)
    kernel(
        x.memory, (rstd.size, 1, 1),
        x.address, _address(weight), _address(bias), y.address, mean.address, rstd.address, n, eps,
        weight is not None, bias is not None,
    )  # fmt: skip


def _dense_rows(x: DeviceArray, *rest: Any) -> bool:
    given = [a for a in (x, *rest) if isinstance(a, DeviceArray)]
    return x.shape[-1] < 2**31 and all(a.contiguous and a.dtype == x.dtype for a in given)


def kernels() -> Iterable[Kernel]:
    """Kernels of this family."""
    cap = Cap((float32, float16, bfloat16), where=_dense_rows, where_text="takes contiguous arrays of one dtype")
    yield Kernel("rms_norm", rms_norm, cap)
    yield Kernel("layer_norm", layer_norm, cap)
