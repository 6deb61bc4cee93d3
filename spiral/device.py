"""Devices: where a tensor's memory lives."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from spiral.errors import DeviceError


class Device:
    """A device such as ``cpu`` or ``cuda:0``; one object per device.

    Attributes:
        type: ``"cpu"``, ``"cuda"``, …
        index: number among the devices of that type.
        code: small integer used in dispatch keys.
        memory: the `spiral.backend.Memory` of a device other than the CPU.
        facts: what its backends say of it.
    """

    __slots__ = ("code", "facts", "index", "memory", "type")

    def __init__(self, type: str, index: int, code: int) -> None:
        self.type = type
        self.index = index
        self.code = code
        self.memory: Any = None
        self.facts: dict[str, Any] = {}

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


def add_device(type: str, index: int, memory: Any = None, facts: Mapping[str, Any] | None = None) -> Device:
    """Registers a device that a backend has found; a known one keeps its object and learns what is new."""
    device = next((d for d in _DEVICES if d.type == type and d.index == index), None)
    if device is None:
        device = Device(type, index, len(_DEVICES))
        _DEVICES.append(device)
    if memory is not None:
        device.memory = memory
    device.facts.update(facts or {})
    return device


def _nothing() -> None:
    """Before the backends' registry is there, there is nothing to look for."""


_look: Callable[[], None] = _nothing


def _no_reason(type: str) -> str:
    """Nor is there anybody who could say why a device is absent."""
    return ""


_why: Callable[[str], str] = _no_reason


def look_with(look: Callable[[], None], why: Callable[[str], str]) -> None:
    """Sets what finds the backends, whose devices are known from then on.

    Args:
        why: says why there is no device of a type, as far as its backends know; else nothing.
    """
    global _look, _why
    _look, _why = look, why


def known_devices() -> tuple[Device, ...]:
    """Every device that was found so far, the CPU first; backends add theirs when they are first asked for."""
    return tuple(d for d in _DEVICES if d is not meta)


def devices() -> tuple[Device, ...]:
    """Every device that can be used, the CPU first.

    Example:
        >>> str(devices()[0])
        'cpu'
    """
    _look()
    return known_devices()


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
        if type != "cpu":
            _look()
        for d in known_devices():
            if d.type == type and str(d.index) == (index or "0"):
                return d
    names = ", ".join(str(d) for d in known_devices())
    why = _why(x.partition(":")[0]) if isinstance(x, str) else ""
    raise DeviceError(
        f"device: expected one of {names}; received {x!r}.{why} `spiral doctor` shows why others are absent."
    )
