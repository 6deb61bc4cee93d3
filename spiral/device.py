"""Devices: where a tensor's memory lives."""

from __future__ import annotations

from typing import Any, Final

from spiral.errors import DeviceError


class Device:
    """A device such as ``cpu`` or ``cuda:0``; one object per device.

    Attributes:
        type: ``"cpu"``, ``"cuda"``, …
        index: number among the devices of that type.
        code: small integer used in dispatch keys.
    """

    __slots__ = ("code", "index", "type")

    def __init__(self, type: str, index: int, code: int) -> None:
        self.type = type
        self.index = index
        self.code = code

    def __str__(self) -> str:
        return self.type if self.type in ("cpu", "meta") else f"{self.type}:{self.index}"

    def __repr__(self) -> str:
        return f"Device('{self}')"

    def __reduce__(self) -> tuple[Any, ...]:
        return as_device, (str(self),)


cpu: Final = Device("cpu", 0, 0)
meta: Final = Device("meta", 0, 1)
"""Of tensors that have a shape and no values; see `spiral.eval_shape`. Nobody can put a tensor there."""
_DEVICES: list[Device] = [cpu, meta]


def add_device(type: str, index: int) -> Device:
    """Registers a device that a backend has found; returns the existing object for a known one."""
    for d in _DEVICES:
        if d.type == type and d.index == index:
            return d
    device = Device(type, index, len(_DEVICES))
    _DEVICES.append(device)
    return device


def known_devices() -> tuple[Device, ...]:
    """Every device that can be used, the CPU first; backends add theirs when they are first asked for."""
    return tuple(d for d in _DEVICES if d is not meta)


def by_code(code: int) -> Device:
    return _DEVICES[code]


def as_device(x: Any) -> Device:
    """The Device for a Device, or a name like ``"cpu"``, ``"cuda"``, ``"cuda:1"``.

    Raises:
        DeviceError: no such device; the message lists those that exist.
    """
    if isinstance(x, Device):
        return x
    if x is None:
        return cpu
    if isinstance(x, str):
        type, _, index = x.partition(":")
        for d in known_devices():
            if d.type == type and str(d.index) == (index or "0"):
                return d
    names = ", ".join(str(d) for d in known_devices())
    raise DeviceError(f"device: expected one of {names}; received {x!r}. `spiral doctor` shows why others are absent.")
