"""Normalisation over the last axis."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from spiral.backend import Cap, Kernel
from spiral.backends.triton.launching import TritonKernel
from spiral.backends.triton.tuned import Tuned
from spiral.device_array import DeviceArray
from spiral.dtype import bfloat16, float16, float32
from spiral.gpu.tuning import Key, Trial
from spiral.kernels.triton import norm as source

DTYPES = {float32.numpy: "fp32", float16.numpy: "fp16", bfloat16.numpy: "bf16"}
SIZES = (
    (256, False, ((1,), (2,), (4,))), (1024, False, ((4,), (2,), (8,))), (4096, False, ((8,), (4,), (16,))),
    (8192, False, ((16,), (8,))), (4096, True, ((8,), (16,))),
)  # fmt: skip
"""BLOCK, LOOP and the numbers of warps: of the first block that holds a row, else of the last."""


def _declare(
    fn: Any, pointers: tuple[str, ...], statistics: tuple[str, ...], flags: tuple[str, ...], vectors: int
) -> Tuned:
    """A kernel for each dtype and size.

    Args:
        fn: the function.
        pointers: addresses of arrays of the dtype.
        statistics: addresses of float32.
        flags: its numbers that say whether an address is there.
        vectors: how many inputs of a row's length the op takes besides x.
    """

    def params(key: Key) -> dict[str, str]:
        arrays = dict.fromkeys(pointers, f"*{key[0]}") | dict.fromkeys(statistics, "*fp32")
        return arrays | {"n": "i32", "eps": "fp32"} | dict.fromkeys(flags, "i32")

    def trial(key: Key, nbytes: int) -> Trial:
        n, dtype = int(key[1]) * (4 if key[2] else 1), SPELLED[str(key[0])]
        x = (max(1, nbytes // (4 * n)), n), dtype
        return Trial(fn.__name__, (x, *[((n,), dtype)] * vectors), (1e-5,))

    return Tuned(
        fn.__name__, fn, params, ("num_warps",),
        {
            (name, block, int(loop)): ({"BLOCK": block, "LOOP": loop}, warps)
            for name in DTYPES.values() for block, loop, warps in SIZES
        },
        file="norm.py", trial=trial, divisible=("n",),
    )  # fmt: skip


SPELLED = {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16"}
_RMS_NORM = _declare(source.rms_norm, ("x", "weight", "y"), ("rstd",), ("has_weight",), 1)
_LAYER_NORM = _declare(source.layer_norm, ("x", "weight", "bias", "y"), ("mean", "rstd"), ("has_weight", "has_bias"), 2)


def _for_row(kernels: Tuned, x: DeviceArray) -> TritonKernel:
    n = x.shape[-1]
    for block, loop, _ in SIZES:
        if n <= block or loop:
            return kernels.kernel(x.memory, (DTYPES[x.dtype], block, int(loop)))
    raise AssertionError("unreachable: the last one loops")


def _address(array: DeviceArray | None) -> int:
    return 0 if array is None else array.address


def rms_norm(x: DeviceArray, weight: DeviceArray | None, eps: float, y: DeviceArray, rstd: DeviceArray) -> None:
    """See `spiral.ops.norm.RMSNorm`."""
    if not rstd.size:
        return
    n = x.shape[-1]
    kernel = _for_row(_RMS_NORM, x)
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
    kernel = _for_row(_LAYER_NORM, x)
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
