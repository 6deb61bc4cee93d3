"""How much memory tensors take, on the CPU and on devices."""

from __future__ import annotations

from typing import Any

from spiral.device import as_device
from spiral.storage import native


def memory(device: Any = None) -> dict[str, int]:
    """Bytes that tensors take on a device: ``live`` now, ``peak`` at most since `reset_peak_memory`, and more.

    Args:
        device: a device or its name; None for the CPU, whose report tells of the buffer pool: ``cached``, its ``cap``
            and how many ``allocations`` and ``reuses`` there were.

    Returns:
        The numbers by name; empty where nobody counts: on the CPU without the extension, and on devices whose backend
        does not.

    Example:
        >>> import spiral as sp
        >>> sorted(sp.memory())[:2]
        ['allocations', 'cached']
    """
    where = as_device(device)
    if where.memory is None:
        return dict(native.memory()) if native is not None else {}
    report = getattr(where.memory, "report", None)
    return dict(report()) if report is not None else {}


def reset_peak_memory(device: Any = None) -> None:
    """Counts ``peak`` of `memory` from what is live now.

    Args:
        device: a device or its name; None for the CPU.

    Example:
        >>> import spiral as sp
        >>> sp.reset_peak_memory(); x = sp.zeros(1000); sp.memory()["peak"] >= 4000
        True
    """
    where = as_device(device)
    if where.memory is None:
        if native is not None:
            native.reset_peak()
        return
    restart = getattr(where.memory, "restart_peak", None)
    if restart is not None:
        restart()
