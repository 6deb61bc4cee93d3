"""CPU memory: pooled arrays from the extension, NumPy's where there is none, and overwrite stamps.

A stamp tells when an op that declares `mutates` last wrote to a block. The tape compares it with the
age of a node that saved the block, which is how a stale value is noticed without counting versions.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import sys
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np

from spiral.backend import Spec
from spiral.device_array import DeviceArray
from spiral.errors import ArgumentError


def _cpu_flags() -> set[str]:
    """Instruction sets of this processor, as NumPy detects them (it checks the system's support too)."""
    from numpy._core._multiarray_umath import __cpu_features__ as features  # type: ignore[import-not-found]

    return {name for name, present in features.items() if present}


def _candidates() -> list[str]:
    flags = _cpu_flags()
    names = []
    if {"AVX512F", "AVX512CD", "AVX512_SKX"} <= flags:
        names.append("avx512")
    if {"AVX2", "FMA3", "F16C"} <= flags:
        names.append("avx2")
    names.append("baseline")
    wanted = os.environ.get("SPIRAL_ISA")
    if wanted:
        if wanted not in ("numpy", *names):
            raise ArgumentError(f"SPIRAL_ISA: expected one of numpy, {', '.join(names)}; received {wanted!r}.")
        names = [] if wanted == "numpy" else [wanted]
    return names


def _load() -> tuple[Any, str]:
    """The extension for this processor, or None with the reason."""
    names = _candidates()
    if not names:
        return None, "SPIRAL_ISA=numpy asks for the NumPy kernels"
    missing = []
    for name in names:
        full = f"spiral._native_{name}"
        if importlib.util.find_spec(full) is not None:
            return importlib.import_module(full), ""
        missing.append(name)
    reason = f"the C++ extension was not built (looked for: {', '.join(missing)})"
    if os.environ.get("SPIRAL_REQUIRE_NATIVE") == "1":
        raise ImportError(f"spiral: {reason}, and SPIRAL_REQUIRE_NATIVE=1 requires it; run `pip install -e .`")
    logging.getLogger("spiral").warning("spiral: NumPy does the work of the kernels, slower: %s", reason)
    return None, reason


native, native_reason = _load()


def built_isas() -> list[str]:
    """The instruction sets for which the extension was built, whether this processor has them or not."""
    return [isa for isa in ("avx512", "avx2", "baseline") if importlib.util.find_spec(f"spiral._native_{isa}")]


def empty_array(spec: Spec) -> np.ndarray[Any, Any]:
    """An uninitialised array for an output: pooled, 64-byte aligned, in the spec's memory order."""
    if spec.order is None:
        return empty(spec.shape, spec.dtype.numpy)
    stored = empty(tuple(spec.shape[i] for i in spec.order), spec.dtype.numpy)
    return stored.transpose(np.argsort(spec.order))


if native is not None:
    empty: Callable[..., np.ndarray[Any, Any]] = native.empty
    copy_array: Callable[[np.ndarray[Any, Any]], np.ndarray[Any, Any]] = native.copy
    contiguous: Callable[[np.ndarray[Any, Any]], np.ndarray[Any, Any]] = native.contiguous
else:
    empty = np.empty

    def copy_array(a: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """A C-contiguous copy."""
        return np.array(a, order="C", copy=True)

    contiguous = np.ascontiguousarray


# Blocks that the pool does not own: id of the owning array -> (reference to it, stamp).
foreign_stamps: dict[int, tuple[Any, int]] = {}


def _owner(a: Any) -> Any:
    if isinstance(a, DeviceArray):
        return a.block
    while isinstance(a.base, np.ndarray):
        a = a.base
    return a


def stamp(a: Any, time: int) -> None:
    """Notes that the memory of ``a`` was overwritten at ``time``."""
    if native is not None and native.stamp(a, time):
        return
    owner = _owner(a)
    ident = id(owner)
    foreign_stamps[ident] = (weakref.ref(owner, lambda _: foreign_stamps.pop(ident, None)), time)


def stamp_of(a: Any) -> int:
    """When the memory of ``a`` was last overwritten by a declared mutation; 0 when never."""
    time: int = native.stamp_of(a) if native is not None else 0
    if time or not foreign_stamps:
        return time
    found = foreign_stamps.get(id(_owner(a)))
    return found[1] if found else 0


def owns(a: Any) -> bool:
    """Whether an array is the only one over its memory: NumPy's own or a pool block, neither a view nor a guest."""
    if a.base is None:
        return bool(a.flags.owndata and a.flags.writeable)
    # a stamp of 0 says that nothing was overwritten
    return native is not None and not isinstance(a.base, np.ndarray) and _references(a) == _SOLE and native.stamp(a, 0)


def _references(a: Any) -> int:
    """How many references to its base there are, those of this function among them: interpreters differ in these."""
    base = a.base
    return sys.getrefcount(base)


_SOLE = _references(empty((1,), np.dtype(np.uint8))) if native is not None else 0


def default_threads() -> int:
    """Threads to use: SPIRAL_NUM_THREADS, else OMP_NUM_THREADS, else what affinity and cgroup allow."""
    for name in ("SPIRAL_NUM_THREADS", "OMP_NUM_THREADS"):
        value = os.environ.get(name, "").split(",")[0].strip()
        if value:
            if not value.isdigit() or int(value) < 1:
                raise ArgumentError(f"{name}: expected a positive integer; received {value!r}.")
            return int(value)
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = _cgroup_cpus()
    return max(1, min(count, quota)) if quota else max(1, count)


def _cgroup_cpus() -> int | None:
    try:
        with open("/sys/fs/cgroup/cpu.max") as f:
            quota, period = f.read().split()
    except (OSError, ValueError):  # no cgroup v2 here: no limit from it
        return None
    return None if quota == "max" else max(1, round(int(quota) / int(period)))


def set_num_threads(n: int) -> None:
    """Sets the number of threads that CPU kernels use; results do not depend on it.

    Raises:
        ArgumentError: not a positive integer.
    """
    if not isinstance(n, int) or isinstance(n, bool) or n < 1:
        raise ArgumentError(f"set_num_threads: expected a positive integer; received {n!r}.")
    if native is not None:
        native.set_num_threads(n)


def get_num_threads() -> int:
    """Number of threads that CPU kernels use."""
    return int(native.num_threads()) if native is not None else 1
