"""A kernel's parameters as the driver wants them: an array of pointers to values."""

from __future__ import annotations

import ctypes
import struct
import threading
from typing import Any

_ALIGNMENT = 16  # more than any parameter needs


class Params:
    """Packs the parameters of one kernel.

    Args:
        formats: a format of the `struct` module per parameter, such as ``P`` (an address), ``i``, ``q``, ``f``, ``d``,
            or ``8q8q`` for a structure passed by value.

    The values are written into memory of the calling thread, which the driver has read when a launch returns.
    """

    __slots__ = ("_formats", "_local", "_packer")

    def __init__(self, *formats: str) -> None:
        self._formats = formats
        text = "@"
        for f in formats:
            size = struct.calcsize("@" + text[1:])
            text += f"{-size % _ALIGNMENT}x{f}"
        self._packer = struct.Struct(text)
        self._local = threading.local()

    def pack(self, *values: Any) -> int:
        """The address of the pointers to the values; structures are given as their members in a row.

        Raises:
            struct.error: too many or too few values, or one that its format does not hold.
        """
        local = self._local
        try:
            buffer = local.buffer
        except AttributeError:
            buffer = self._prepare()
        self._packer.pack_into(buffer, 0, *values)
        return local.address  # type: ignore[no-any-return]

    def _prepare(self) -> Any:
        local = self._local
        local.buffer = buffer = ctypes.create_string_buffer(max(1, self._packer.size))
        start = ctypes.addressof(buffer)
        offsets = []
        text = "@"
        for f in self._formats:
            text += f"{-struct.calcsize(text) % _ALIGNMENT}x"
            offsets.append(struct.calcsize(text))
            text += f
        local.pointers = (ctypes.c_void_p * max(1, len(offsets)))(*[start + o for o in offsets])
        local.address = ctypes.addressof(local.pointers)
        return buffer
