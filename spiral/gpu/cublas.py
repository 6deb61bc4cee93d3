"""cuBLAS through CuPy: products of matrices where a library knows the device better than our kernels."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import numpy as np

from spiral.backend import Unavailable
from spiral.dtype import bfloat16, float16, float32, float64

# cudaDataType of library_types.h
_TYPES = {float32.numpy: 0, float64.numpy: 1, float16.numpy: 2, bfloat16.numpy: 14}
# cublasMath_t: sums of 16-bit products stay in float; float itself stays exact, as without it
_NO_REDUCED_PRECISION = 16


class Cublas:
    """cuBLAS on one device and stream; `spiral.gpu.driver.Blas`.

    Args:
        device: CuPy's device.
        stream: CuPy's stream, which everything is ordered on.

    Raises:
        ImportError: CuPy cannot load the library.
    """

    def __init__(self, device: Any, stream: Any) -> None:
        self._library = library = import_module("cupy_backends.cuda.libs.cublas")
        self._device, self._stream = device, stream
        with device:
            self._handle: int = library.create()
            library.setMathMode(self._handle, _NO_REDUCED_PRECISION)
            version = library.getVersion(self._handle)
        self.name = f"cuBLAS {version // 10000}.{version // 100 % 100}.{version % 100}"
        # alpha and beta are read from the host, in the type that is computed in
        self._scalars = {np.dtype(t): np.array([0, 1], t) for t in (np.float32, np.float64)}

    def gemm(
        self, dtype: np.dtype[Any], transposed: tuple[bool, bool], lengths: tuple[int, int, int],
        a: tuple[int, int, int], b: tuple[int, int, int], c: tuple[int, int, int], batch: int, add: bool,
        to: np.dtype[Any], tf32: bool,
    ) -> None:  # fmt: skip
        """See `spiral.gpu.driver.Blas`."""
        wide = dtype if dtype == float64.numpy else float32.numpy
        library = self._library
        compute = library.CUBLAS_COMPUTE_64F if wide == float64.numpy else library.CUBLAS_COMPUTE_32F
        if tf32 and dtype == float32.numpy:
            compute = library.CUBLAS_COMPUTE_32F_FAST_TF32
        zero = self._scalars[wide].ctypes.data
        one, kind = zero + wide.itemsize, _TYPES[dtype]
        with self._device, self._stream:  # the binding sets the handle's stream to the current one
            library.gemmStridedBatchedEx(
                self._handle, *transposed, *lengths, one, a[0], kind, *a[1:], b[0], kind, *b[1:], one if add else zero,
                c[0], _TYPES[to], *c[1:], batch, compute, library.CUBLAS_GEMM_DEFAULT,
            )  # fmt: skip


def find(device: Any, stream: Any) -> Cublas | Unavailable:
    """cuBLAS, or why there is none."""
    try:
        return Cublas(device, stream)
    except ImportError as e:  # no library, or one that CuPy was not built for
        return Unavailable(f"CuPy loads no cuBLAS: {e}", "pip install 'cupy-cuda12x[ctk]'")
