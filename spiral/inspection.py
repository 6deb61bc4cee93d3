"""The array API standard's inspection functions: what a program may ask about devices, dtypes and capabilities."""

from __future__ import annotations

from typing import Any

from spiral.device import Device, as_device, cpu
from spiral.device import devices as usable_devices
from spiral.dtype import ALL, DEFAULT_FLOAT, DEFAULT_INT, DType, isdtype


class NamespaceInfo:
    """Result of ``spiral.__array_namespace_info__()``."""

    def capabilities(self) -> dict[str, Any]:
        """What the namespace supports, by the standard's names."""
        return {"boolean indexing": True, "data-dependent shapes": True, "max dimensions": 64}

    def default_device(self) -> Device:
        """Where tensors are made unless a device is named."""
        return cpu

    def devices(self) -> list[Device]:
        """The devices that tensors can live on."""
        return list(usable_devices())

    def default_dtypes(self, *, device: Any = None) -> dict[str, DType]:
        """Dtypes of tensors made from Python numbers, and of positions. There are no complex dtypes."""
        as_device(device)
        return {"real floating": DEFAULT_FLOAT, "integral": DEFAULT_INT, "indexing": DEFAULT_INT}

    def dtypes(self, *, device: Any = None, kind: str | tuple[str, ...] | None = None) -> dict[str, DType]:
        """The standard's dtypes by name; float16 and bfloat16, which it does not know, are not among them."""
        as_device(device)
        known = [d for d in ALL if not d.storage_only]
        return {d.name: d for d in known if kind is None or isdtype(d, kind)}


def __array_namespace_info__() -> NamespaceInfo:  # noqa: N807 (the standard's name)
    """Devices, dtypes and capabilities of this namespace (array API standard, "Inspection APIs").

    Example:
        >>> import spiral as sp
        >>> sp.__array_namespace_info__().default_dtypes()["real floating"]
        spiral.float32
    """
    return NamespaceInfo()
