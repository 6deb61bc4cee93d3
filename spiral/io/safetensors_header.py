"""The header of a safetensors file: JSON, of which nothing is believed unchecked.

Format: https://github.com/huggingface/safetensors#format
"""

from __future__ import annotations

import json
import math
from collections import Counter
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import ml_dtypes
import numpy as np

from spiral.errors import FormatError

# Every dtype of the format whose elements fill whole bytes.
DTYPES: dict[str, np.dtype[Any]] = {
    "BOOL": np.dtype(np.bool_),
    "U8": np.dtype(np.uint8),
    "I8": np.dtype(np.int8),
    "U16": np.dtype("<u2"),
    "I16": np.dtype("<i2"),
    "U32": np.dtype("<u4"),
    "I32": np.dtype("<i4"),
    "U64": np.dtype("<u8"),
    "I64": np.dtype("<i8"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "F32": np.dtype("<f4"),
    "F64": np.dtype("<f8"),
    "C64": np.dtype("<c8"),
    "F8_E4M3": np.dtype(ml_dtypes.float8_e4m3fn),
    "F8_E5M2": np.dtype(ml_dtypes.float8_e5m2),
    "F8_E8M0": np.dtype(ml_dtypes.float8_e8m0fnu),
}
METADATA = "__metadata__"
_MAX_HEADER = 100_000_000  # the package's own limit
_MAX_DIMS = 64  # NumPy's limit
_MAX_BYTES = 2**63 - 1


class Entry(NamedTuple):
    """Where one tensor lies: bytes `begin` to `end` of the file, with what dtype and shape."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    begin: int
    end: int


def read_header(source: Path, file: BinaryIO) -> tuple[dict[str, Entry], dict[str, str]]:
    """Read and check the header of an open safetensors file.

    Args:
        source: The file's path, for its size and for messages.
        file: The file, opened for reading and at its start.

    Returns:
        ``(entries, metadata)``: where each tensor lies, in the header's order, and the text kept
        beside them.

    Raises:
        FormatError: The header is truncated, malformed or inconsistent.
    """
    size = source.stat().st_size
    header, start = _read_json(source, file, size)
    metadata = _metadata(source, header.pop(METADATA, {}))
    entries = {name: _entry(source, name, value, start) for name, value in header.items()}
    _require_tiling(source, entries, start, size)
    return entries, metadata


def _read_json(source: Path, file: BinaryIO, size: int) -> tuple[dict[str, Any], int]:
    prefix = file.read(8)
    if len(prefix) < 8:
        raise FormatError(
            f"{source}: expected a safetensors file, 8 bytes of header length first; the file "
            f"has {size} bytes: it is truncated or something else."
        )
    length = int.from_bytes(prefix, "little")
    if length > min(size - 8, _MAX_HEADER):
        raise FormatError(
            f"{source}: the header claims {length} bytes; at most {min(size - 8, _MAX_HEADER)} "
            "are possible here: the file is truncated or not a safetensors file."
        )
    try:
        header = json.loads(
            file.read(length).decode("utf-8"),
            object_pairs_hook=_no_duplicates,
            parse_constant=_no_constant,
        )
    except (ValueError, RecursionError) as error:  # also bad UTF-8 and endless digits
        raise FormatError(f"{source}: the header is not acceptable JSON: {error}.") from error
    if not isinstance(header, dict):
        raise FormatError(f"{source}: the header must be a JSON object; received {type(header).__name__}.")
    return header, 8 + length


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) < len(pairs):
        twice, _ = Counter(name for name, _ in pairs).most_common(1)[0]
        raise ValueError(f"the name {_short(twice)} occurs twice, names must be unique")
    return result


def _no_constant(text: str) -> Any:
    raise ValueError(f"{text} is not a JSON number")


def _metadata(source: Path, value: Any) -> dict[str, str]:
    if not isinstance(value, dict) or not all(isinstance(text, str) for text in value.values()):
        raise FormatError(f"{source}: {METADATA} must map text to text; received {_short(value)}.")
    return dict(value)


def _entry(source: Path, name: str, value: Any, start: int) -> Entry:
    """Check one tensor's header entry by itself; `_require_tiling` checks them together."""
    where = f"{source}: tensor {_short(name)}"
    if not isinstance(value, dict) or set(value) != {"dtype", "shape", "data_offsets"}:
        raise FormatError(f"{where}: expected exactly dtype, shape and data_offsets; received {_short(value)}.")
    dtype = DTYPES.get(value["dtype"]) if isinstance(value["dtype"], str) else None
    if dtype is None:
        raise FormatError(f"{where}: dtype must be one of {', '.join(DTYPES)}; received {_short(value['dtype'])}.")
    shape, offsets = value["shape"], value["data_offsets"]
    if not _is_counts(shape) or len(shape) > _MAX_DIMS:
        raise FormatError(f"{where}: shape must be at most {_MAX_DIMS} integers from 0; received {_short(shape)}.")
    # NumPy refuses (0, 2**40, 2**40) as well, so zeros do not excuse the other dimensions
    if math.prod(dim for dim in shape if dim) * dtype.itemsize > _MAX_BYTES:
        raise FormatError(f"{where}: shape {_short(shape)} needs more bytes than any file has.")
    if not _is_counts(offsets) or len(offsets) != 2:
        raise FormatError(f"{where}: data_offsets must be two integers from 0; received {_short(offsets)}.")
    needed = math.prod(shape) * dtype.itemsize
    if offsets[1] - offsets[0] != needed:
        raise FormatError(
            f"{where}: shape {_short(shape)} of {value['dtype']} needs {needed} bytes; "
            f"data_offsets {_short(offsets)} give {_short(offsets[1] - offsets[0])}."
        )
    return Entry(dtype, tuple(shape), start + offsets[0], start + offsets[1])


def _is_counts(value: Any) -> bool:
    # bool is an int to Python, and not to JSON
    return isinstance(value, list) and all(type(item) is int and item >= 0 for item in value)


def _require_tiling(source: Path, entries: dict[str, Entry], start: int, size: int) -> None:
    """Raise unless the tensors fill the data part without overlap, hole or rest."""
    end, previous = start, "the header"
    for name, entry in sorted(entries.items(), key=lambda item: (item[1].begin, item[1].end)):
        where = f"{source}: tensor {_short(name)}: data_offsets"
        if entry.end > size:
            raise FormatError(
                f"{where} end at {_short(entry.end - start)}, the file has {size - start} bytes of "
                "data: it is truncated or damaged."
            )
        if entry.begin != end:
            problem = "overlaps with" if entry.begin < end else "leaves a hole after"
            raise FormatError(f"{where} start at {entry.begin - start}, not {end - start}: {problem} {previous}.")
        end, previous = entry.end, f"tensor {_short(name)}"
    if end != size:
        raise FormatError(
            f"{source}: the tensors end at offset {end - start} of {size - start} bytes of data; "
            "no bytes may follow them."
        )


def _short(value: Any) -> str:
    # integers past Python's limit for printing would raise here
    text = hex(value) if type(value) is int and value.bit_length() > 64 else repr(value)
    return text if len(text) <= 120 else f"{text[:117]}..."
