"""Token files: what is written is read, and damage is noticed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from spiral.data import TokenDataset
from spiral.errors import ArgumentError, DataError, FormatError, SaveError


@pytest.mark.parametrize(("vocab_size", "itemsize"), [(65536, 2), (65537, 4), (2**32, 4)])
def test_ids_survive_the_file_in_the_smallest_dtype(tmp_path: Path, vocab_size: int, itemsize: int) -> None:
    ids = [0, 1, vocab_size - 1]
    dataset = TokenDataset.write(tmp_path / "t", ids, vocab_size)
    assert dataset[:].tolist() == ids
    assert (len(dataset), dataset.vocab_size) == (3, vocab_size)
    assert (tmp_path / "t").stat().st_size == 32 + 3 * itemsize
    assert [file.name for file in tmp_path.iterdir()] == ["t"]


def test_slices_and_windows_are_int64(tmp_path: Path) -> None:
    dataset = TokenDataset.write(tmp_path / "t", np.arange(10, dtype=np.int32), 10)
    assert dataset[-1] == 9
    assert dataset[2:5].dtype == np.int64
    assert dataset.windows([0, 7], 3).tolist() == [[0, 1, 2], [7, 8, 9]]
    with pytest.raises(DataError, match="within 10 tokens"):
        dataset.windows([8], 3)


def test_iterator_of_arrays_is_written_in_order(tmp_path: Path) -> None:
    chunks = (np.arange(start, start + 3) for start in (0, 3, 6))
    assert TokenDataset.write(tmp_path / "t", chunks, 16)[:].tolist() == list(range(9))


def test_no_tokens_are_a_valid_file(tmp_path: Path) -> None:
    assert len(TokenDataset.write(tmp_path / "t", [], 16)) == 0


@pytest.mark.parametrize("keep", [0, 10, 31, 32, 51])
def test_truncated_file_is_refused(tmp_path: Path, keep: int) -> None:
    path = tmp_path / "t"
    TokenDataset.write(path, range(10), 10)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(FormatError, match="truncated: expected 52" if keep >= 32 else "magic"):
        TokenDataset.open(path)


def test_foreign_and_damaged_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "t"
    path.write_bytes(b"hello" * 20)
    with pytest.raises(FormatError, match="magic"):
        TokenDataset.open(path)
    for vocab_size, complaint in ((0, "damaged header"), (10**6, "4 bytes per token")):
        TokenDataset.write(path, range(10), 10)
        data = bytearray(path.read_bytes())
        data[16:24] = vocab_size.to_bytes(8, "little")
        path.write_bytes(data)
        with pytest.raises(FormatError, match=complaint):
            TokenDataset.open(path)
    with pytest.raises(DataError, match="No such file"):
        TokenDataset.open(tmp_path / "missing")


def test_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "t"
    TokenDataset.write(path, [1, 2], 10)
    with pytest.raises(DataError, match="0 to 9 .*received 10"):
        TokenDataset.write(path, iter([[3], [10]]), 10)
    assert TokenDataset.open(path)[:].tolist() == [1, 2]
    assert [file.name for file in tmp_path.iterdir()] == ["t"]
    with pytest.raises(SaveError, match="cannot be written"):
        TokenDataset.write(tmp_path / "missing" / "t", [1], 10)


def test_ids_must_be_a_sequence_of_integers() -> None:
    for ids in ([[1, 2]], [0.5], [-1]):
        with pytest.raises(DataError, match="TokenDataset: "):
            TokenDataset(ids, 10)
    with pytest.raises(ArgumentError, match="vocab_size"):
        TokenDataset([0], 0)
