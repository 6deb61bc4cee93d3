"""Token ids in a memory-mapped file: as large as the disk, opened at once, shared by processes.

Layout, little-endian: a header of 32 bytes (magic ``SPRLTOK1``, u32 bytes per token, u32 zero,
u64 vocabulary size, u64 number of tokens), then the ids as u16, or u32 when the vocabulary has
more than 65,536 tokens. A ``.npy`` file has no place for the vocabulary size, which tells a
mismatched tokenizer from a matching one.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from spiral.data.resume import require_integer
from spiral.errors import ArgumentError, DataError, FormatError, IndexingError

_MAGIC = b"SPRLTOK1"
_HEADER = struct.Struct("<8sIIQQ")


class TokenDataset:
    """A sequence of token ids, in memory or in a file.

    Args:
        ids: (tokens,) integer ids, all below `vocab_size`.
        vocab_size: Number of tokens of the vocabulary.

    Raises:
        ArgumentError: `vocab_size` is not 1 to 2**32.
        DataError: The ids are no sequence of integers, or one is out of range.

    Example:
        >>> dataset = TokenDataset([5, 6, 7, 8], vocab_size=10)
        >>> len(dataset), dataset[1], dataset[1:3]
        (4, 6, array([6, 7]))
        >>> dataset.windows([0, 2], 2)
        array([[5, 6],
               [7, 8]])
    """

    def __init__(self, ids: ArrayLike, vocab_size: int) -> None:
        dtype = _storage_dtype(vocab_size)
        self._tokens: NDArray[np.unsignedinteger] = _checked(ids, vocab_size).astype(dtype)
        self._vocab_size = int(vocab_size)

    @classmethod
    def write(cls, path: str | Path, ids: ArrayLike | Iterator[ArrayLike], vocab_size: int) -> TokenDataset:
        """Write ids to a file and open it.

        Args:
            path: The file; one that stands there is replaced only when the new one is whole.
            ids: (tokens,) ids, or an iterator of such arrays for more than fits in memory.
            vocab_size: Number of tokens of the vocabulary.

        Returns:
            The dataset, mapped from the file.

        Raises:
            ArgumentError: `vocab_size` is not 1 to 2**32.
            DataError: The ids are no sequence of integers, or one is out of range.
            SaveError: The file cannot be written.

        Example:
            >>> import pathlib, tempfile
            >>> path = pathlib.Path(tempfile.mkdtemp()) / "train.tokens"
            >>> TokenDataset.write(path, [1, 2, 3], vocab_size=1024)
            TokenDataset(3 tokens, vocab_size=1024)
        """
        from spiral.io import atomic_write

        dtype = _storage_dtype(vocab_size)
        chunks = ids if isinstance(ids, Iterator) else iter([ids])
        path = Path(path)
        with atomic_write(path) as partial, partial.open("wb") as file:
            count = _write_tokens(file, chunks, vocab_size, dtype)
            file.seek(0)
            file.write(_HEADER.pack(_MAGIC, dtype.itemsize, 0, vocab_size, count))
        return cls.open(path)

    @classmethod
    def open(cls, path: str | Path) -> TokenDataset:
        """Map a file that `write` made; its ids are read when they are used.

        Args:
            path: The file.

        Raises:
            DataError: The file cannot be read.
            FormatError: It is no token file, or was truncated.
        """
        path = Path(path)
        try:
            size = path.stat().st_size
            with path.open("rb") as file:
                header = file.read(_HEADER.size)
        except OSError as error:
            raise DataError(f"TokenDataset.open: {path}: expected a token file; {error.strerror}.") from error
        vocab_size, count, dtype = _parse_header(path, header, size)
        dataset = cls.__new__(cls)
        dataset._vocab_size = vocab_size
        dataset._tokens = (
            np.memmap(path, dtype, "r", offset=_HEADER.size, shape=(count,))
            if count
            else np.empty(0, dtype)  # an empty range cannot be mapped
        )
        return dataset

    @property
    def vocab_size(self) -> int:
        """Number of tokens of the vocabulary; every id is below."""
        return self._vocab_size

    def windows(self, starts: ArrayLike, length: int) -> NDArray[np.int64]:
        """Gather windows of consecutive ids.

        Args:
            starts: (n,) position of the first id of each window.
            length: Ids per window.

        Returns:
            (n, length) ids.

        Raises:
            DataError: A window does not lie within the dataset.
        """
        require_integer("TokenDataset.windows", "length", length, at_least=0)
        first = np.asarray(starts)
        if first.size == 0:
            first = first.reshape(-1).astype(np.int64)
        if first.ndim != 1 or not np.issubdtype(first.dtype, np.integer):
            raise DataError(
                f"TokenDataset.windows: starts must be integers of shape (n,); received {first.dtype} of shape "
                f"{first.shape}."
            )
        if first.size and (first.min() < 0 or first.max() + length > len(self)):
            raise DataError(
                f"TokenDataset.windows: windows of {length} must lie within {len(self)} tokens; "
                f"received starts from {first.min()} to {first.max()}."
            )
        windows: NDArray[np.int64] = self._tokens[first[:, None] + np.arange(length)].astype(np.int64)
        return windows

    def __len__(self) -> int:
        return len(self._tokens)

    @overload
    def __getitem__(self, index: int) -> int: ...
    @overload
    def __getitem__(self, index: slice) -> NDArray[np.int64]: ...
    def __getitem__(self, index: int | slice) -> int | NDArray[np.int64]:
        if isinstance(index, slice):
            return np.array(self._tokens[index], np.int64)
        try:
            return int(self._tokens[index])
        except (IndexError, TypeError) as error:
            raise IndexingError(
                f"TokenDataset: an index must be an integer from {-len(self)} to {len(self) - 1} or a slice; "
                f"received {index!r}."
            ) from error

    def __repr__(self) -> str:
        return f"TokenDataset({len(self)} tokens, vocab_size={self.vocab_size})"


def _storage_dtype(vocab_size: int) -> np.dtype[np.unsignedinteger]:
    require_integer("TokenDataset", "vocab_size", vocab_size, at_least=1, below=2**32 + 1)
    return np.dtype("<u2") if vocab_size <= 2**16 else np.dtype("<u4")


def _checked(ids: ArrayLike, vocab_size: int) -> NDArray[np.integer]:
    try:
        array = np.asarray(ids)
    except ValueError as error:  # lists of several lengths
        raise DataError(f"TokenDataset: expected integer ids of shape (tokens,); {error}.") from error
    if array.size == 0:
        return np.empty(0, np.int64)
    if array.ndim != 1 or not np.issubdtype(array.dtype, np.integer):
        raise DataError(
            f"TokenDataset: expected integer ids of shape (tokens,); received {array.dtype} of shape {array.shape}."
        )
    low, high = int(array.min()), int(array.max())
    if low < 0 or high >= vocab_size:
        raise DataError(
            f"TokenDataset: ids must be 0 to {vocab_size - 1} for vocab_size={vocab_size}; "
            f"received {low if low < 0 else high}; was the text encoded by another tokenizer?"
        )
    return array


def _write_tokens(
    file: BinaryIO,
    chunks: Iterator[ArrayLike],
    vocab_size: int,
    dtype: np.dtype[np.unsignedinteger],
) -> int:
    """Write room for the header and the ids; returns how many there are."""
    file.write(bytes(_HEADER.size))
    count = 0
    for chunk in chunks:
        array = _checked(chunk, vocab_size)
        file.write(array.astype(dtype).tobytes())
        count += len(array)
    return count


def _parse_header(path: Path, header: bytes, size: int) -> tuple[int, int, np.dtype[np.unsignedinteger]]:
    """The vocabulary size, number of tokens and dtype that a file states and has room for."""
    if len(header) < _HEADER.size or not header.startswith(_MAGIC):
        raise FormatError(
            f"TokenDataset.open: {path}: expected a token file (magic {_MAGIC!r}, header of "
            f"{_HEADER.size} bytes); received {size} bytes that start with {header[:8]!r}; write "
            "the file with TokenDataset.write."
        )
    _, itemsize, _, vocab_size, count = _HEADER.unpack(header)
    try:
        dtype = _storage_dtype(vocab_size)
    except ArgumentError as error:
        raise FormatError(f"TokenDataset.open: {path}: damaged header: {error}") from error
    if itemsize != dtype.itemsize:
        raise FormatError(
            f"TokenDataset.open: {path}: damaged header: expected {dtype.itemsize} bytes per token "
            f"for vocab_size={vocab_size}; received {itemsize}."
        )
    expected = _HEADER.size + count * itemsize
    if size != expected:
        raise FormatError(
            f"TokenDataset.open: {path}: {'truncated' if size < expected else 'too long'}: "
            f"expected {expected} bytes for the {count} tokens that its header states; received "
            f"{size}; write the file again with TokenDataset.write."
        )
    return vocab_size, count, dtype
