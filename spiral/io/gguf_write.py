"""Writing GGUF version 3 files, one tensor in memory at a time.

The gguf package writes header, metadata and tensor table; the data follow from here, so that a
full disk is seen as one. Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from gguf import GGUFValueType
from numpy.typing import NDArray

from spiral.errors import ArgumentError
from spiral.io.atomic import atomic_write
from spiral.io.gguf_types import TensorType, as_float32, writable_type

ALIGNMENT = 32
_MAX_DIMS = 4  # GGML_MAX_DIMS
_MAX_NAME = 63  # GGML_MAX_NAME counts a terminating zero

_SCALARS: dict[str, GGUFValueType] = {
    "uint8": GGUFValueType.UINT8,
    "int8": GGUFValueType.INT8,
    "uint16": GGUFValueType.UINT16,
    "int16": GGUFValueType.INT16,
    "uint32": GGUFValueType.UINT32,
    "int32": GGUFValueType.INT32,
    "uint64": GGUFValueType.UINT64,
    "int64": GGUFValueType.INT64,
    "float32": GGUFValueType.FLOAT32,
    "float64": GGUFValueType.FLOAT64,
    "bool": GGUFValueType.BOOL,
}


@dataclass(frozen=True)
class TensorSource:
    """A tensor to be written: its description at once, its values when it is their turn.

    Args:
        name: GGUF's name of it, at most 63 bytes.
        shape: In NumPy's order, last axis contiguous (the file stores it reversed).
        type: A writable type's name, for example ``"F16"``.
        read: Gives the values, float32, float16, bfloat16 or float64.
    """

    name: str
    shape: tuple[int, ...]
    type: str
    read: Callable[[], NDArray[Any]]


def write_gguf(
    path: str | os.PathLike[str],
    architecture: str,
    metadata: Mapping[str, Any],
    tensors: Sequence[TensorSource],
) -> int:
    """Write a GGUF file; a file that stood there is replaced only when the new one is whole.

    Args:
        path: The file to write.
        architecture: The value of ``general.architecture``, the file's first key.
        metadata: Further keys in this order. str, bool, int (uint32; int32, uint64 or int64
            where that does not hold it) and float (float32); a list of one of them (integers are
            int32, or int64); a NumPy scalar or one-dimensional array states its type itself.
        tensors: The tensors in the order in which they shall lie in the file.

    Returns:
        The file's size in bytes.

    Raises:
        ArgumentError: A name, shape, type or metadata value cannot be stored.
        SaveError: The file cannot be written.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "one.gguf"
        >>> w = np.eye(2, dtype=np.float32)
        >>> write_gguf(path, "llama", {"n": 3}, [TensorSource("w", w.shape, "F32", lambda: w)])
        160
    """
    rows = [_checked(tensor) for tensor in tensors]
    _require_unique([tensor.name for tensor in tensors])
    sizes = [row.nbytes(tensor.shape) for tensor, row in zip(tensors, rows, strict=True)]
    with atomic_write(path, needed=sum(_padded(size) for size in sizes)) as partial:
        _write_head(partial, architecture, metadata, tensors, rows)
        with partial.open("ab") as file:
            file.write(bytes(_padded(file.tell()) - file.tell()))
            for tensor, row, size in zip(tensors, rows, sizes, strict=True):
                data = _encoded(tensor, row)
                file.write(data.data)
                file.write(bytes(_padded(size) - size))
            return file.tell()


def typed_value(key: str, value: Any) -> tuple[Any, GGUFValueType, GGUFValueType | None]:
    """A metadata value with its GGUF type, and for arrays the type of the elements.

    Args:
        key: For the message.
        value: See `write_gguf`.

    Raises:
        ArgumentError: GGUF has no type for it.
    """
    if isinstance(value, (np.generic, np.ndarray)) and value.dtype.kind == "U":
        value = value.tolist()
        if value == []:
            return [], GGUFValueType.ARRAY, GGUFValueType.STRING
    if isinstance(value, np.ndarray):
        element = _SCALARS.get(value.dtype.name)
        if element is None or value.ndim != 1:
            raise _no_type(key, f"an array of {value.dtype}, {value.ndim} dimensions")
        return value.tolist(), GGUFValueType.ARRAY, element
    if isinstance(value, np.generic):
        if value.dtype.name not in _SCALARS:
            raise _no_type(key, repr(value))
        return value.item(), _SCALARS[value.dtype.name], None
    if isinstance(value, (list, tuple)):
        return list(value), GGUFValueType.ARRAY, _element_type(key, value)
    if isinstance(value, str):
        return value, GGUFValueType.STRING, None
    if isinstance(value, bool):  # before int, of which it is a subclass
        return value, GGUFValueType.BOOL, None
    if isinstance(value, int):
        return value, _integer_type(key, value), None
    if isinstance(value, float):
        return value, GGUFValueType.FLOAT32, None
    raise _no_type(key, repr(value)[:80])


class _Writer(gguf.GGUFWriter):
    """gguf's writer, able to write an empty array: a vocabulary of bytes has no merges."""

    def _pack_val(
        self,
        val: Any,
        vtype: GGUFValueType,
        add_vtype: bool,
        sub_type: GGUFValueType | None = None,
    ) -> bytes:
        if vtype is GGUFValueType.ARRAY and len(val) == 0 and sub_type is not None:
            return struct.pack("<IIQ", vtype, sub_type, 0)
        return super()._pack_val(val, vtype, add_vtype, sub_type)


def _write_head(
    partial: Path,
    architecture: str,
    metadata: Mapping[str, Any],
    tensors: Sequence[TensorSource],
    rows: Sequence[TensorType],
) -> None:
    writer = _Writer(partial, architecture)
    try:
        for key, value in metadata.items():
            if key in ("general.architecture", "general.alignment"):
                raise ArgumentError(f"write_gguf: metadata must not hold {key}, it is set here.")
            # not add_string and add_array: they drop empty values without a word
            writer.add_key_value(key, *typed_value(key, value))
        for tensor, row in zip(tensors, rows, strict=True):
            writer.add_tensor_info(
                tensor.name,
                tensor.shape,
                np.dtype(np.float32),
                row.nbytes(tensor.shape),
                raw_dtype=gguf.GGMLQuantizationType(row.id),
            )
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
    except (UnicodeEncodeError, OverflowError, struct.error) as error:
        raise ArgumentError(f"write_gguf: a metadata value cannot be stored: {error}.") from error
    finally:
        writer.close()


def _encoded(tensor: TensorSource, row: TensorType) -> NDArray[np.uint8]:
    values = as_float32(tensor.name, tensor.read())
    if values.shape != tensor.shape:
        raise ArgumentError(
            f"write_gguf: tensor {tensor.name!r} was announced with shape {tensor.shape}; received {values.shape}."
        )
    if row.block_size > 1 and not np.isfinite(values).all():
        raise ArgumentError(
            f"write_gguf: tensor {tensor.name!r} holds infinities or NaN, which {row.name} cannot "
            "store; write it as F32 or repair the model."
        )
    assert row.encode is not None  # `writable_type` saw to it
    # what overflows float16 is an infinity in the file; a Q8_0 block of denormals, whose inverse
    # scale is infinite, gets scale 0 as in ggml
    with np.errstate(all="ignore"):
        encoded = row.encode(np.ascontiguousarray(values).reshape(-1, tensor.shape[-1]))
    flat: NDArray[np.uint8] = np.ascontiguousarray(encoded).reshape(-1).view(np.uint8)
    return flat


def _checked(tensor: TensorSource) -> TensorType:
    row = writable_type(tensor.type)
    length = len(tensor.name.encode("utf-8", errors="replace"))
    if not 0 < length <= _MAX_NAME:
        raise ArgumentError(f"write_gguf: names must have 1 to {_MAX_NAME} bytes; {tensor.name!r} has {length}.")
    if not 1 <= len(tensor.shape) <= _MAX_DIMS or min(tensor.shape) < 1:
        raise ArgumentError(
            f"write_gguf: tensor {tensor.name!r} must have 1 to {_MAX_DIMS} dimensions from 1; "
            f"received shape {tensor.shape}."
        )
    if tensor.shape[-1] % row.block_size:
        raise ArgumentError(
            f"write_gguf: tensor {tensor.name!r}: {row.name} needs rows of a multiple of "
            f"{row.block_size} elements; received shape {tensor.shape}; write it as F16."
        )
    return row


def _require_unique(names: Sequence[str]) -> None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise ArgumentError(f"write_gguf: two tensors have the name {name!r}.")
        seen.add(name)


def _element_type(key: str, values: Sequence[Any]) -> GGUFValueType:
    kinds = {type(value) for value in values}
    if kinds == {str}:
        return GGUFValueType.STRING
    if kinds == {bool}:
        return GGUFValueType.BOOL
    if kinds == {float}:
        return GGUFValueType.FLOAT32
    if kinds == {int}:
        narrow = min(values) >= -(2**31) and max(values) < 2**31
        return GGUFValueType.INT32 if narrow else GGUFValueType.INT64
    received = ", ".join(sorted(kind.__name__ for kind in kinds)) or "an empty list"
    raise _no_type(key, f"a list of {received}" if kinds else received)


def _integer_type(key: str, value: int) -> GGUFValueType:
    for kind, low, high in (
        (GGUFValueType.UINT32, 0, 2**32),
        (GGUFValueType.INT32, -(2**31), 2**31),
        (GGUFValueType.UINT64, 0, 2**64),
        (GGUFValueType.INT64, -(2**63), 2**63),
    ):
        if low <= value < high:
            return kind
    raise _no_type(key, f"an integer of {value.bit_length()} bits")


def _no_type(key: str, received: str) -> ArgumentError:
    return ArgumentError(
        f"write_gguf: metadata {key!r} must be str, bool, int, float, a NumPy number, a "
        "one-dimensional array or a list of one of these; an empty list must be an array with a "
        f"dtype; received {received}."
    )


def _padded(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT
