"""The NumPy backend: every op's oracle, run in the working precision. Complete, and slower.

Used where the C++ backend has no kernel (integers, float64, rare attributes), where no compiler was
at hand, and as the second opinion in tests.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import numpy as np

from spiral.backend import ANY, DECOMPOSITION_PRIORITY, DeviceInfo, Kernel, declared_ops, oracle_of
from spiral.dtype import DType, float32

# of ops whose decomposition is faster than the oracle, which comes after it then
LAST = replace(ANY, priority=DECOMPOSITION_PRIORITY - 1)


def _is_storage_only(a: Any) -> bool:
    return isinstance(a, np.ndarray) and a.dtype.itemsize == 2 and a.dtype.kind in "fV"


def _widen(a: Any) -> Any:
    """16-bit floats as float32: NumPy never computes on them."""
    if isinstance(a, list):
        return [_widen(x) for x in a]
    return a.astype(np.float32) if _is_storage_only(a) else a


def _bind(fn: Callable[..., Any], dtypes: tuple[DType, ...]) -> Callable[..., Any]:
    """The oracle with 16-bit floats widened on the way in and results rounded once on the way out."""
    repeat = len(dtypes)

    def run(*args: Any) -> Any:
        with np.errstate(all="ignore"):
            outs = fn(*[_widen(a) for a in args])
            if not isinstance(outs, tuple):
                outs = (outs,)
            # rounding to 16 bits may overflow to infinity, silently as on every backend
            return tuple([_as(o, dtypes[min(i, repeat - 1)]) for i, o in enumerate(outs)])

    run.__name__ = "oracle"
    return run


def _as(out: Any, dtype: DType) -> Any:
    a = np.asarray(out)
    if a.dtype == dtype.numpy:
        return a
    if dtype.storage_only and a.dtype != np.float32:
        a = a.astype(float32.numpy)
    with np.errstate(over="ignore"):  # what a 16-bit type cannot hold is infinite, without a warning
        return a.astype(dtype.numpy)


def _bind_in_place(fn: Callable[..., Any], dtypes: tuple[DType, ...]) -> Callable[..., Any]:
    """For ops that overwrite their inputs: 16-bit floats are widened, computed, and written back."""

    def run(*args: Any) -> Any:
        wide = [_widen(a) for a in args]
        with np.errstate(all="ignore"):
            outs = fn(*wide)
            for a, w in zip(args, wide, strict=True):
                for old, new in zip(a, w, strict=True) if isinstance(a, list) else ((a, w),):
                    if old is not new and isinstance(old, np.ndarray):
                        old[...] = new.astype(old.dtype)
        outs = outs if isinstance(outs, tuple) else (outs,)
        return tuple([_as(o, d) for o, d in zip(outs, dtypes, strict=True)])

    run.__name__ = "oracle"
    return run


class ReferenceBackend:
    """NumPy on the CPU."""

    name = "numpy"
    device_type = "cpu"
    priority = 0

    def probe(self) -> list[DeviceInfo]:
        return [DeviceInfo("cpu", 0, "NumPy", {"numpy": np.__version__})]

    def kernels(self) -> Iterable[Kernel]:
        for op in declared_ops():
            yield from self.kernels_of(op)

    def kernels_of(self, op: str) -> Iterable[Kernel]:
        found = oracle_of(op)
        if found is not None:
            oracle, mutates, view, fused = found
            bind = None if view else _bind_in_place if mutates else _bind
            yield Kernel(op, oracle, LAST if fused else ANY, allocates=True, bind=bind)


backend = ReferenceBackend()
