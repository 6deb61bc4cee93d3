"""Reading GGUF files: mapped into memory, every claim of the header checked.

Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spiral.errors import ArgumentError, FormatError
from spiral.io.gguf_cursor import Cursor
from spiral.io.gguf_types import TENSOR_TYPES, TYPES_BY_ID, TensorType

_MAGIC = b"GGUF"
_VERSIONS = (2, 3)  # 3 only added big-endian files
_DEFAULT_ALIGNMENT = 32
_MAX_DIMS = 4
_MAX_BYTES = 2**63 - 1
_KEY_BYTES = 8 + 4 + 1  # the least that a key takes: length, type, value
_INFO_BYTES = 8 + 4 + 4 + 8  # the least that a tensor takes: length, dimensions, type, offset


@dataclass(frozen=True)
class TensorInfo:
    """Where a tensor lies and how it is stored.

    Args:
        name: GGUF's name of it.
        shape: In NumPy's order, the reverse of the file's.
        type: For example ``"Q8_0"``.
        offset: The tensor's first byte, counted from the start of the file.
        nbytes: Its size.
    """

    name: str
    shape: tuple[int, ...]
    type: str
    offset: int
    nbytes: int


class GGUFFile:
    """A GGUF file, mapped; tensors are read when they are asked for.

    Attributes:
        path: The file.
        version: 2 or 3.
        metadata: Key to value: int, float, bool, str or a list.
        value_types: Key to the type's name in the file, for example ``"ARRAY[STRING]"``.
        tensors: Name to `TensorInfo`, in the file's order.

    Args:
        path: The file to open.

    Raises:
        FormatError: The file is not GGUF, truncated, or its header contradicts itself.
        OSError: The file cannot be opened.

    Example:
        >>> import tempfile
        >>> from spiral.io.gguf_write import TensorSource, write_gguf
        >>> path = Path(tempfile.mkdtemp()) / "one.gguf"
        >>> w = np.eye(2, dtype=np.float32)
        >>> _ = write_gguf(path, "llama", {"n": 3}, [TensorSource("w", w.shape, "F16", lambda: w)])
        >>> file = GGUFFile(path)
        >>> file.metadata["n"], file.tensors["w"].type, file.array("w").tolist()
        (3, 'F16', [[1.0, 0.0], [0.0, 1.0]])
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._data = _mapped(self.path)
        cursor = Cursor(self.path, self._data.data)
        self.version, n_tensors, n_keys = _read_counts(cursor)
        self.metadata: dict[str, Any] = {}
        self.value_types: dict[str, str] = {}
        for index in range(n_keys):
            key = cursor.string(f"the name of key {index} of {n_keys}")
            if not key or key in self.metadata:
                raise cursor.error(f"key {key!r}", "is empty or occurs twice; keys must be unique.")
            self.metadata[key], self.value_types[key] = cursor.value(f"key {key!r}")
        self.tensors = _read_tensors(cursor, n_tensors, self._alignment())

    def array(self, name: str) -> NDArray[Any]:
        """A tensor's values.

        Args:
            name: One of `tensors`.

        Returns:
            A writable float32 array; tensors stored as integers or float64 keep their dtype.

        Raises:
            ArgumentError: There is no such tensor, or its type cannot be decoded here.
        """
        info = self._info(name)
        decode = TENSOR_TYPES[info.type].decode
        if decode is None:
            raise ArgumentError(
                f"{self.path}: tensor {name!r} is stored as {info.type}, which cannot be decoded; "
                f"{', '.join(key for key, row in TENSOR_TYPES.items() if row.decode)} can."
            )
        if not info.nbytes:
            return np.zeros(info.shape, np.float32)
        decoded = decode(self.raw(name)).reshape(info.shape)
        return decoded if decoded.flags.owndata and decoded.flags.writeable else decoded.copy()

    def raw(self, name: str) -> NDArray[np.uint8]:
        """A tensor's stored bytes, a read-only view of the mapped file.

        Args:
            name: One of `tensors`.

        Returns:
            (rows, bytes of a row) uint8.

        Raises:
            ArgumentError: There is no such tensor.
        """
        info = self._info(name)
        row_bytes = TENSOR_TYPES[info.type].nbytes(info.shape[-1:])
        stored = self._data[info.offset : info.offset + info.nbytes]
        return stored.reshape(-1, row_bytes) if info.nbytes else stored.reshape(0, row_bytes)

    def __repr__(self) -> str:
        return f"GGUFFile({str(self.path)!r}, {len(self.metadata)} keys, {len(self.tensors)} tensors)"

    def _info(self, name: str) -> TensorInfo:
        if name not in self.tensors:
            raise ArgumentError(f"{self.path}: there is no tensor {name!r}; there are {_listed(self.tensors)}.")
        return self.tensors[name]

    def _alignment(self) -> int:
        alignment = self.metadata.get("general.alignment", _DEFAULT_ALIGNMENT)
        kind = self.value_types.get("general.alignment", "UINT32")
        if kind != "UINT32" or alignment < 1 or alignment & (alignment - 1):
            raise FormatError(
                f"{self.path}: key 'general.alignment' must be a UINT32 power of two; received "
                f"{kind} {str(alignment)[:40]}."
            )
        return int(alignment)


def _mapped(path: Path) -> NDArray[np.uint8]:
    size = path.stat().st_size
    if size < 24:
        raise FormatError(
            f"{path}: expected a GGUF file, whose header has at least 24 bytes; the file has "
            f"{size}: it is truncated or something else."
        )
    mapped: NDArray[np.uint8] = np.asarray(np.memmap(path, np.uint8, "r"))
    return mapped


def _read_counts(cursor: Cursor) -> tuple[int, int, int]:
    magic = bytes(cursor.data[:4])
    if magic != _MAGIC:
        raise cursor.error("the magic", f"expected {_MAGIC!r}; received {magic!r}: not GGUF.")
    cursor.position = 4
    version = cursor.uint32("the version")
    if version not in _VERSIONS:
        swapped = int.from_bytes(version.to_bytes(4, "little"), "big")
        hint = "the file is big-endian" if swapped in _VERSIONS else "another version"
        raise cursor.error("the version", f"expected 2 or 3; received {version}: {hint}.", 4)
    n_tensors = cursor.uint64("the number of tensors")
    n_keys = cursor.uint64("the number of keys")
    cursor.require(n_keys, _KEY_BYTES, "the keys")
    cursor.require(n_tensors, _INFO_BYTES, "the tensor table")
    return version, n_tensors, n_keys


def _read_tensors(cursor: Cursor, n_tensors: int, alignment: int) -> dict[str, TensorInfo]:
    relative: dict[str, TensorInfo] = {}
    for index in range(n_tensors):
        info = _read_info(cursor, index, n_tensors)
        if info.name in relative:
            raise cursor.error(f"tensor {info.name!r}", "occurs twice; names must be unique.")
        if info.offset % alignment:
            raise cursor.error(
                f"tensor {info.name!r}",
                f"its offset must be a multiple of {alignment}; received {info.offset}.",
            )
        relative[info.name] = info
    start = -(-cursor.position // alignment) * alignment
    tensors = {
        name: TensorInfo(name, info.shape, info.type, start + info.offset, info.nbytes)
        for name, info in relative.items()
    }
    _require_apart(cursor, tensors)
    return tensors


def _read_info(cursor: Cursor, index: int, n_tensors: int) -> TensorInfo:
    name = cursor.string(f"the name of tensor {index} of {n_tensors}")
    what = f"tensor {name!r}"
    n_dims = cursor.uint32(what)
    if n_dims > _MAX_DIMS:
        raise cursor.error(what, f"may have at most {_MAX_DIMS} dimensions; received {n_dims}.")
    shape = tuple(cursor.uint64(what) for _ in range(n_dims))[::-1]
    kind = cursor.uint32(what)
    row = TYPES_BY_ID.get(kind)
    if row is None:
        known = ", ".join(f"{number} {entry.name}" for number, entry in sorted(TYPES_BY_ID.items()))
        raise cursor.error(what, f"its type must be one of {known}; received {kind}.")
    nbytes = _checked_bytes(cursor, what, shape, row)
    return TensorInfo(name, shape, row.name, cursor.uint64(what), nbytes)


def _checked_bytes(cursor: Cursor, what: str, shape: tuple[int, ...], row: TensorType) -> int:
    if (shape[-1] if shape else 1) % row.block_size:
        raise cursor.error(
            what,
            f"{row.name} needs rows of a multiple of {row.block_size}; received shape {shape}.",
        )
    # NumPy refuses (0, 2**40, 2**40) as well, so zeros do not excuse the other dimensions
    if row.nbytes(tuple(dim for dim in shape if dim)) * 8 > _MAX_BYTES or any(dim > _MAX_BYTES for dim in shape):
        raise cursor.error(what, f"shape {shape} needs more bytes than any file has.")
    return row.nbytes(shape)


def _require_apart(cursor: Cursor, tensors: dict[str, TensorInfo]) -> None:
    """Raise unless every tensor lies inside the file and none lies on another."""
    size = len(cursor.data)
    end, previous = 0, ""
    for info in sorted(tensors.values(), key=lambda info: (info.offset, info.nbytes)):
        what = f"tensor {info.name!r}"
        if info.offset + info.nbytes > size:
            raise cursor.error(
                what,
                f"its {info.nbytes} bytes end at {info.offset + info.nbytes}, the file has {size}: "
                "the file is truncated or damaged.",
                info.offset,
            )
        if info.offset < end:
            raise cursor.error(what, f"overlaps tensor {previous!r}, which ends at {end}.", info.offset)
        end, previous = info.offset + info.nbytes, info.name


def _listed(names: dict[str, TensorInfo]) -> str:
    first = ", ".join(name[:80] for name in list(names)[:8])
    return f"{first} and {len(names) - 8} more" if len(names) > 8 else first or "none"
