"""Which kernels there are for an op on a device, and why each is taken or not, before any shapes are known."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from spiral.backend import static_reason
from spiral.backends_registry import backends, kernels_for
from spiral.borrowed import kernels_of_core
from spiral.device import Device
from spiral.dtype import DType, float32
from spiral.op import OPS
from spiral.set_aside import reason_against


@dataclass(frozen=True)
class KernelStatus:
    """A kernel of an op.

    Attributes:
        op: the op.
        backend: whose kernel, ``decomposition``, or a backend that cannot run here.
        dtypes: floating dtypes that it takes.
        status: ``chosen`` (alone, where its guard agrees, or for the rest), ``lower priority``, or the reason not to
            take it.
        guard: what it asks of shapes and attributes besides; empty: nothing.
    """

    op: str
    backend: str
    dtypes: tuple[str, ...]
    status: str
    guard: str = ""


def kernel_status(device: Device, dtype: DType = float32) -> Iterator[KernelStatus]:
    """Every kernel of every op on a device, in the order of choice, for floating inputs of a dtype."""
    for name in sorted(OPS):
        yield from _of_op(name, device, dtype)


def _of_op(name: str, device: Device, dtype: DType) -> Iterator[KernelStatus]:
    op = OPS[name]
    found = [(b.name, b.priority, k) for b, k in kernels_for(name, device.type)]
    found += list(kernels_of_core(op, device, lambda *_: ()))
    found.sort(key=lambda row: -(row[1] + row[2].cap.priority))
    guarded = False
    open_ended = True  # until a kernel without a guard can run
    for backend, _, kernel in found:
        reason = static_reason(kernel, {dtype}, False, False, device.facts)
        reason = reason or reason_against(kernel, device, {dtype})
        guard = "" if kernel.cap.where is None else kernel.cap.where_text or "its guard must agree"
        chosen = "chosen where its guard agrees" if guard else "chosen for the rest" if guarded else "chosen"
        status = reason or (chosen if open_ended else "lower priority")
        guarded |= bool(guard) and reason is None
        yield KernelStatus(name, backend, tuple(d.name for d in kernel.cap.dtypes), status, guard)
        open_ended &= not (reason is None and kernel.cap.where is None)
    left = "chosen for the rest" if guarded else "chosen"
    if op.undispatched is not None:
        yield KernelStatus(name, "core", (), "chosen")
    elif op.decompose is not None:
        yield KernelStatus(name, "decomposition", (), left if open_ended else "lower priority")
    elif open_ended and not found:
        yield KernelStatus(name, "none", (), f"no backend has a kernel for it on {device}")


def absent_backends() -> dict[str, str]:
    """Backends that cannot run here, with the reason."""
    return {
        name: entry.unavailable.reason.strip().splitlines()[-1]
        for name, entry in backends().items()
        if entry.unavailable is not None
    }
