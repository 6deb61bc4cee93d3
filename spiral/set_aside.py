"""Kernels that turned out not to be buildable here, when they were first to run; they are not tried again.

A compiler or a driver that refuses a kernel is found out late: at the kernel's first launch. Under
``SPIRAL_FALLBACK=allow`` and ``warn`` the kernel is put here with the reason, which is logged once and shown by
`spiral.explain` and ``spiral doctor``, and the next candidate runs.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from dataclasses import dataclass

from spiral.backend import Kernel
from spiral.backends_registry import BACKENDS, warn_once
from spiral.device import Device
from spiral.dtype import DType
from spiral.errors import KernelBuildError


@dataclass(frozen=True)
class SetAside:
    """A kernel that is not to be taken.

    Attributes:
        backend: whose it is.
        kernel: the kernel.
        device: where it cannot be built.
        dtypes: for which floating inputs; where there are none, for which inputs.
        reason: what the compiler or the driver says, in one line.
    """

    backend: str
    kernel: Kernel
    device: Device
    dtypes: frozenset[DType]
    reason: str


_lock = threading.Lock()
_found: tuple[SetAside, ...] = ()


def kernels_set_aside() -> tuple[SetAside, ...]:
    """All of them, oldest first."""
    return _found


def set_aside(backend: str, kernel: Kernel, device: Device, dtypes: Iterable[DType], error: KernelBuildError) -> None:
    """Has a kernel not taken again for these dtypes on a device, and logs why."""
    global _found
    kinds = _kinds(dtypes)
    names = ", ".join(sorted(d.name for d in kinds))
    warn_once(
        f"{kernel.op}: the kernel of {backend} is set aside on {device} for {names}: it cannot be built.\n{error}"
    )
    with _lock:
        _found = (*_found, SetAside(backend, kernel, device, kinds, _in_a_line(str(error))))


def reason_against(kernel: Kernel, device: Device, dtypes: Iterable[DType]) -> str | None:
    """Why a kernel was set aside; None: it was not."""
    if not _found:
        return None
    kinds = _kinds(dtypes)
    for one in _found:
        if one.device is device and one.dtypes == kinds and one.kernel == kernel:
            return f"cannot be built here: {one.reason}"
    return None


def _kinds(dtypes: Iterable[DType]) -> frozenset[DType]:
    every = frozenset(dtypes)
    return frozenset(d for d in every if d.kind == "float") or every


def _in_a_line(text: str) -> str:
    """The head of a message and the first line of its log that tells an error."""
    head, *log = [line.strip() for line in text.strip().splitlines()] or ["no reason was given"]
    told = next((line for line in log if "error" in line.lower()), log[0] if log else "")
    return f"{head} {told}".strip()[:400]


def _forget_those_of_absent_backends(_: object) -> None:
    global _found
    with _lock:
        _found = tuple(one for one in _found if one.backend in BACKENDS)


BACKENDS.watch(_forget_those_of_absent_backends)
