"""A kernel's parameters as the driver wants them: an array of pointers to values."""

from __future__ import annotations

import ctypes
import functools
import struct
import threading
from typing import Any

_ALIGNMENT = 16  # more than any parameter needs


class Params:
    """Packs the parameters of one kernel.

    Args:
        formats: a format of the `struct` module per parameter, such as ``P`` (an address), ``i``, ``q``, ``f``, ``d``,
            or ``8q8q`` for a structure passed by value.

    Attributes:
        here: memory of the calling thread, with ``write(*values)`` and ``address``: what `pack` does, for launchers
            that count nanoseconds.

    The values are written into memory of the calling thread, which the driver has read when a launch returns.
    """

    __slots__ = ("here",)

    def __init__(self, *formats: str) -> None:
        offsets, text = [], "@"
        for f in formats:
            text += f"{-struct.calcsize(text) % _ALIGNMENT}x"
            offsets.append(struct.calcsize(text))
            text += f
        self.here = _Memory(struct.Struct(text), offsets, tuple([struct.calcsize("@" + f) for f in formats]))

    def pack(self, *values: Any) -> int:
        """The address of the pointers to the values; structures are given as their members in a row.

        Raises:
            struct.error: too many or too few values, or one that its format does not hold.
        """
        here = self.here
        here.write(*values)
        return here.address


class _Memory(threading.local):
    """A thread's values and the pointers to them; Python makes one for each thread that asks."""

    def __init__(self, packer: struct.Struct, offsets: list[int], sizes: tuple[int, ...]) -> None:
        buffer = ctypes.create_string_buffer(max(1, packer.size))
        start = ctypes.addressof(buffer)
        self._pointers = (ctypes.c_void_p * max(1, len(offsets)))(*[start + o for o in offsets])
        self.address = ctypes.addressof(self._pointers)
        _KNOWN[self.address] = buffer, tuple(offsets), sizes
        self.write = functools.partial(packer.pack_into, buffer, 0)


# where each array of pointers points to, for `Kept`; a thread that has ended leaves its line
_KNOWN: dict[int, tuple[Any, tuple[int, ...], tuple[int, ...]]] = {}


def sizes_at(address: int) -> tuple[int, ...]:
    """Bytes of each parameter that `Params.pack` put behind an address."""
    return _KNOWN[address][2]


class Kept:
    """A copy of packed parameters, for drivers that launch later than they were told to.

    Args:
        address: what `Params.pack` returned.
    """

    __slots__ = ("_buffer", "_pointers", "address")

    def __init__(self, address: int) -> None:
        buffer, offsets, _ = _KNOWN[address]
        self._buffer = ctypes.create_string_buffer(buffer.raw, len(buffer))
        start = ctypes.addressof(self._buffer)
        self._pointers = (ctypes.c_void_p * max(1, len(offsets)))(*[start + o for o in offsets])
        self.address = ctypes.addressof(self._pointers)
