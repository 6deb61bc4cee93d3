"""Ops that run on the host: LAPACK's decompositions, and results whose shapes depend on values.

Their inputs are read, which waits for the device, NumPy computes, and the results are written back. So they cannot be
recorded into a plan, and any kernel of the device comes before them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from spiral.backend import ANY, Cap, Kernel, oracle_of
from spiral.device_array import DeviceArray
from spiral.dtype import FLOATS, DType, as_dtype, float32

_DECOMPOSITIONS = ("cholesky", "det", "eigh", "inv", "pinv", "qr", "slogdet", "solve", "svd", "svdvals")
_DYNAMIC = ("nonzero", "unique")
_PRIORITY = -1000


def _read(x: Any) -> Any:
    """A kernel's argument on the host; 16-bit floats as float32, since NumPy does not compute with them."""
    if not isinstance(x, DeviceArray):
        return x
    a = x.to_host()
    return a.astype(np.float32) if as_dtype(a.dtype).storage_only else a


def _written(memory: Any, out: Any, dtype: DType) -> DeviceArray:
    a = np.asarray(out)
    if dtype.storage_only and a.dtype != np.float32:
        a = a.astype(float32.numpy)
    with np.errstate(over="ignore"):  # what a 16-bit type cannot hold is infinite
        return DeviceArray.from_host(memory, a.astype(dtype.numpy, copy=False))


def _bind(fn: Callable[..., Any], dtypes: tuple[DType, ...]) -> Callable[..., Any]:
    """A NumPy function on device arrays, with results of these dtypes (the last one's for any more)."""

    def run(*args: Any) -> tuple[DeviceArray, ...]:
        memory = next(a.memory for a in args if isinstance(a, DeviceArray))
        with np.errstate(all="ignore"):
            outs = fn(*[_read(a) for a in args])
        outs = outs if isinstance(outs, tuple) else (outs,)
        return tuple([_written(memory, o, dtypes[min(i, len(dtypes) - 1)]) for i, o in enumerate(outs)])

    run.__name__ = "oracle on the host"
    return run


def kernels() -> Iterator[Kernel]:
    """The family's table."""
    for names, dtypes, text in (
        (_DECOMPOSITIONS, FLOATS, "through the host: LAPACK"),
        (_DYNAMIC, ANY.dtypes, "through the host: the result's shape depends on values"),
    ):
        cap = Cap(dtypes, ANY.integers, scalars=True, where_text=text, capturable=False, priority=_PRIORITY)
        for op in names:
            found = oracle_of(op)
            assert found is not None, op
            yield Kernel(op, found[0], cap, allocates=True, bind=_bind)
