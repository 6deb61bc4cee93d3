"""The safetensors format: named arrays in one file that can be mapped into memory.

Files are written by the `safetensors` package. Reading is our own: the package's NumPy loader
copies every array, knows no bf16, and lets duplicate names through. Format:
https://github.com/huggingface/safetensors#format
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from spiral.errors import ArgumentError, FormatError, SaveError
from spiral.io.atomic import atomic_write
from spiral.io.safetensors_header import DTYPES, METADATA, Entry, read_header
from spiral.optional import missing


class SafetensorsFile(NamedTuple):
    """What `load_safetensors` found."""

    arrays: dict[str, NDArray[Any]]
    metadata: dict[str, str]


def save_safetensors(
    path: str | os.PathLike[str],
    arrays: Mapping[str, NDArray[Any]],
    metadata: Mapping[str, str] | None = None,
) -> int:
    """Write named arrays; a file that stood there is replaced only when the new one is whole.

    Args:
        path: The file to write.
        arrays: Arrays of any shape, of a dtype in `DTYPES` (bf16 and fp8 through ml_dtypes).
        metadata: Text to keep beside them.

    Returns:
        The file's size in bytes.

    Raises:
        ArgumentError: A name, dtype or metadata value cannot be stored.
        SaveError: The file cannot be written.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "weights.safetensors"
        >>> _ = save_safetensors(path, {"w": np.eye(2, dtype=np.float32)}, {"step": "3"})
        >>> arrays, metadata = load_safetensors(path)
        >>> arrays["w"].tolist(), metadata
        ([[1.0, 0.0], [0.0, 1.0]], {'step': '3'})
    """
    try:
        from safetensors import SafetensorError
        from safetensors.numpy import save_file
    except ModuleNotFoundError as error:
        raise missing("safetensors", "writing safetensors", "pip install safetensors") from error

    storable = {name: _storable(name, array) for name, array in arrays.items()}
    text = dict(metadata or {})
    for key, value in text.items():
        if not isinstance(key, str) or not isinstance(value, str):
            raise ArgumentError(
                f"save_safetensors: metadata must map str to str; received {key!r}: {value!r}; "
                "store other values as JSON text."
            )
    needed = sum(array.nbytes for array in storable.values())
    with atomic_write(path, needed=needed) as partial:
        try:
            save_file(storable, str(partial), text or None)
        except SafetensorError as error:
            # the package reports a full disk in words only
            code = re.search(r"\(os error (\d+)\)", str(error))
            if code is None:
                raise SaveError(f"{path}: the safetensors package cannot write it: {error}.") from error
            number = int(code.group(1))
            raise OSError(number, os.strerror(number), str(partial)) from error
        return partial.stat().st_size


def load_safetensors(path: str | os.PathLike[str], *, mmap: bool = True) -> SafetensorsFile:
    """Read named arrays, after checking everything that the header claims.

    Args:
        path: The file to read.
        mmap: Whether arrays are read-only views of the mapped file, read when touched. Otherwise
            each is a writable array of its own.

    Returns:
        ``(arrays, metadata)``.

    Raises:
        FormatError: The file is truncated, or its header is malformed or inconsistent: names
            that occur twice, unknown dtypes, offsets that overlap, leave holes, point beyond the
            file or do not fit the shape.
        OSError: The file cannot be opened.
    """
    source = Path(path)
    with source.open("rb") as file:
        entries, metadata = read_header(source, file)
        if not mmap:
            owned = {name: _read(source, name, entry, file) for name, entry in entries.items()}
            return SafetensorsFile(owned, metadata)
    mapped: NDArray[np.uint8] = np.asarray(np.memmap(source, np.uint8, "r"))
    views = {name: _view(source, name, entry, mapped) for name, entry in entries.items()}
    return SafetensorsFile(views, metadata)


def _storable(name: object, array: object) -> NDArray[Any]:
    if not isinstance(name, str) or name == METADATA:
        raise ArgumentError(f"save_safetensors: names must be str other than {METADATA!r}; received {name!r}.")
    if not isinstance(array, np.ndarray) or array.dtype.newbyteorder("<") not in DTYPES.values():
        received = array.dtype if isinstance(array, np.ndarray) else type(array).__name__
        raise ArgumentError(
            f"save_safetensors: {name!r} must be an ndarray of one of "
            f"{', '.join(dtype.name for dtype in DTYPES.values())}; received {received}."
        )
    little: NDArray[Any] = np.asarray(array, array.dtype.newbyteorder("<"), order="C")
    return little


def _read(source: Path, name: str, entry: Entry, file: BinaryIO) -> NDArray[Any]:
    file.seek(entry.begin)
    raw = np.fromfile(file, np.uint8, entry.end - entry.begin)
    if raw.size != entry.end - entry.begin:
        raise FormatError(f"{source}: tensor {name!r}: the file shrank while it was read.")
    return _typed(source, name, entry, raw)


def _view(source: Path, name: str, entry: Entry, mapped: NDArray[np.uint8]) -> NDArray[Any]:
    raw = mapped[entry.begin : entry.end]
    if entry.begin % entry.dtype.itemsize:
        raw = raw.copy()  # kernels need aligned elements; the usual writers pad so that they are
        raw.flags.writeable = False
    return _typed(source, name, entry, raw)


def _typed(source: Path, name: str, entry: Entry, raw: NDArray[np.uint8]) -> NDArray[Any]:
    if entry.dtype == np.bool_ and raw.size and raw.max() > 1:
        raise FormatError(f"{source}: tensor {name[:80]!r}: BOOL elements must be 0 or 1; received {raw.max()}.")
    typed: NDArray[Any] = raw.view(entry.dtype).reshape(entry.shape)
    return typed
