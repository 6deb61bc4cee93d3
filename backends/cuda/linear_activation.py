"""Linear layers with the activation and the residual that follow them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from spiral.backend import Cap, Kernel
from spiral.backends.cuda.arrays import NAMES, THREADS, blocks, cast, dense
from spiral.backends.cuda.gemm import ACTIVATIONS, STRIDED, in_tf32, library_multiply, library_takes, strided
from spiral.backends.cuda.launching import Source
from spiral.backends.cuda.products import Kind, products
from spiral.device_array import DeviceArray
from spiral.dtype import FLOATS, as_dtype, float32, float64

_SOURCE = Source("linear_activation.cu")
_FINISHED = Kind("Finished", "PPPPqii")
_ACTIVATIONS = {**ACTIVATIONS, "gelu": 2, "gelu_tanh": 3, "silu": 4}
_PRODUCTS = {d: products(_SOURCE, d, STRIDED, STRIDED, _FINISHED) for d in FLOATS}
_TF32 = products(_SOURCE, float32, STRIDED, STRIDED, _FINISHED, tf32=True)
_FINISH = {d.numpy: _SOURCE.kernel(f"spiral::finish_linear<{NAMES[d]}>", *"PPPqii") for d in FLOATS}


def _matrix(x: DeviceArray, columns: int) -> DeviceArray:
    """x (..., columns) as dense rows."""
    rows = dense(x).reshape_view((math.prod(x.shape[:-1]), columns))
    assert rows is not None
    return rows


def _linear_activation(
    x: DeviceArray, weight: DeviceArray, bias: Any, residual: Any, activation: str, y: DeviceArray, z: DeviceArray,
    tf32: bool = False,
) -> None:  # fmt: skip
    if not y.size:
        return
    gpu, d, act = y.memory, as_dtype(y.dtype), _ACTIVATIONS[activation]
    n, k = weight.shape
    x, w, to = _matrix(cast(x, d), k), dense(cast(weight, d)), _matrix(y, n)
    bias = None if bias is None else dense(cast(bias, d))
    residual = None if residual is None else dense(cast(residual, d))
    added = 0 if residual is None else residual.address
    if library_takes(x, w):
        product = _matrix(z, n) if act else to
        library_multiply(x, w, product, bias, tf32=tf32)
        if act or added:
            pieces = int(not (product.address | added | to.address) % 16)
            grid = blocks(y.size, THREADS * 16 // y.itemsize)
            _FINISH[y.dtype](gpu, grid, (THREADS, 1, 1), product.address, added, to.address, y.size, act, pieces)
        return
    m, kept = to.shape[0], z.address if act else 0
    pairs = int(not (n % 2 or (to.address | kept) % (2 * y.itemsize)))
    of_y = (to.address, kept, 0 if bias is None else bias.address, added, n, act, pairs)
    (_TF32 if tf32 else _PRODUCTS[d])(gpu, m, n, k, 1, strided(x, (), ())[1], strided(w, (), ())[1], of_y)


def kernels() -> Iterator[Kernel]:
    """The family's table."""
    yield Kernel("linear_activation", _linear_activation, Cap((float32, float64)))
    yield Kernel("linear_activation", _linear_activation, Cap(FLOATS, cc=(80, 999)))
    yield Kernel("linear_activation", in_tf32(_linear_activation), Cap((float32,), cc=(80, 999), tf32=True, priority=2))
