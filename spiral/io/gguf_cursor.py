"""Reading numbers, strings and arrays of a GGUF header without believing any length in it."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any, Final

import numpy as np

from spiral.errors import FormatError

_MAX_DEPTH = 4  # arrays in arrays; no known file nests at all
_UINT64: Final = struct.Struct("<Q")
_UINT32: Final = struct.Struct("<I")

_NUMBERS: dict[int, tuple[str, np.dtype[Any]]] = {
    0: ("UINT8", np.dtype("<u1")),
    1: ("INT8", np.dtype("<i1")),
    2: ("UINT16", np.dtype("<u2")),
    3: ("INT16", np.dtype("<i2")),
    4: ("UINT32", np.dtype("<u4")),
    5: ("INT32", np.dtype("<i4")),
    6: ("FLOAT32", np.dtype("<f4")),
    7: ("BOOL", np.dtype("<u1")),
    10: ("UINT64", np.dtype("<u8")),
    11: ("INT64", np.dtype("<i8")),
    12: ("FLOAT64", np.dtype("<f8")),
}
_BOOL, _STRING, _ARRAY = 7, 8, 9
_TYPE_NAMES = ", ".join(
    f"{number} {name}"
    for number, name in sorted(
        [*((number, name) for number, (name, _) in _NUMBERS.items()), (8, "STRING"), (9, "ARRAY")]
    )
)


def _cut(text: str) -> str:
    return text if len(text) <= 600 else f"{text[:300]} … {text[-290:]}"


class Cursor:
    """A position in a mapped file that moves forward and never beyond the end.

    Args:
        source: The file's path, for messages.
        data: The file's bytes.
    """

    def __init__(self, source: Path, data: memoryview) -> None:
        self.source = source
        self.data = data
        self.position = 0

    def error(self, what: str, problem: str, position: int | None = None) -> FormatError:
        """A FormatError that names the file, what was being read and where."""
        at = self.position if position is None else position
        # names and values come from the file: a forged one may have megabytes
        return FormatError(f"{self.source}: {_cut(what)}, byte {at}: {_cut(problem)}")

    def require(self, count: int, item_bytes: int, what: str) -> None:
        """Raise unless `count` items of at least `item_bytes` each may still follow."""
        left = len(self.data) - self.position
        if count * item_bytes > left:
            raise self.error(
                what,
                f"expected {count} items of at least {item_bytes} bytes; {left} bytes are left: "
                "the file is truncated or damaged.",
            )

    def uint32(self, what: str) -> int:
        """The next four bytes as a number."""
        return self._number(_UINT32, what)

    def uint64(self, what: str) -> int:
        """The next eight bytes as a number."""
        return self._number(_UINT64, what)

    def string(self, what: str) -> str:
        """The next string: eight bytes of length, then UTF-8."""
        return self._strings(1, what)[0]

    def value(self, what: str) -> tuple[Any, str]:
        """The next type number and the value of that type, with the type's name."""
        return self._typed(self.uint32(f"the type of {what}"), what, 0)

    def _number(self, form: struct.Struct, what: str) -> int:
        self.require(1, form.size, what)
        (value,) = form.unpack_from(self.data, self.position)
        self.position += form.size
        return int(value)

    def _typed(self, kind: int, what: str, depth: int) -> tuple[Any, str]:
        if kind == _STRING:
            return self.string(what), "STRING"
        if kind == _ARRAY:
            return self._array(what, depth)
        name = self._numeric(kind, what)[0]
        return self._numbers(kind, 1, what)[0], name

    def _array(self, what: str, depth: int) -> tuple[list[Any], str]:
        if depth >= _MAX_DEPTH:
            raise self.error(what, f"arrays may be nested at most {_MAX_DEPTH} deep.")
        kind = self.uint32(f"the element type of {what}")
        count = self.uint64(f"the length of {what}")
        if kind == _STRING:
            return self._strings(count, what), "ARRAY[STRING]"
        if kind != _ARRAY:
            name = self._numeric(kind, what)[0]
            return self._numbers(kind, count, what), f"ARRAY[{name}]"
        self.require(count, 12, what)  # an inner array has its type and length at least
        inner = [self._array(what, depth + 1) for _ in range(count)]
        names = ", ".join(sorted({name for _, name in inner}))
        return [values for values, _ in inner], f"ARRAY[{names}]"

    def _numeric(self, kind: int, what: str) -> tuple[str, np.dtype[Any]]:
        if kind not in _NUMBERS:
            raise self.error(
                what,
                f"a value's type must be one of {_TYPE_NAMES}; received {kind}.",
                self.position,
            )
        return _NUMBERS[kind]

    def _numbers(self, kind: int, count: int, what: str) -> list[Any]:
        dtype = _NUMBERS[kind][1]
        self.require(count, dtype.itemsize, what)
        raw = np.frombuffer(self.data, dtype, count, self.position)
        if kind == _BOOL:
            if count and raw.max() > 1:
                raise self.error(what, f"a BOOL must be 0 or 1; received {raw.max()}.")
            raw = raw.astype(np.bool_)
        self.position += count * dtype.itemsize
        values: list[Any] = raw.tolist()
        return values

    def _strings(self, count: int, what: str) -> list[str]:
        # One flat loop without calls into this class: 0.25 µs a string, and vocabularies
        # have hundreds of thousands.
        self.require(count, 8, what)
        data, position, end = self.data, self.position, len(self.data)
        length_at = _UINT64.unpack_from
        strings: list[str] = []
        append = strings.append
        try:
            for _ in range(count):
                start = position + 8
                position = start + length_at(data, position)[0]
                if position > end:
                    break
                append(str(data[start:position], "utf-8"))
            else:
                self.position = position
                return strings
        except struct.error:
            start = end  # the file ends inside a length
        except UnicodeDecodeError as error:
            raise self.error(f"{what}, string {len(strings)}", f"expected UTF-8; {error.reason}.", start) from error
        needs = f"needs {position - start} bytes; " if start < end else ""
        raise self.error(
            f"{what}, string {len(strings)} of {count}",
            f"{needs}{end - start} bytes are left: the file is truncated or damaged.",
            start,
        )
