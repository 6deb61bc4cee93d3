"""Safetensors files: what is written comes back, what is damaged is refused."""

from __future__ import annotations

import json
import os
import resource
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

from spiral.errors import ArgumentError, FormatError, SaveError
from spiral.io import load_safetensors, save_safetensors
from spiral.io.safetensors_header import DTYPES


def _write(path: Path, header: Any, data: bytes = b"") -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)
    return path


def _entry(dtype: Any = "F32", shape: Any = (2,), offsets: Any = (0, 8)) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


@pytest.mark.parametrize("mmap", [True, False])
@pytest.mark.parametrize("kind", DTYPES)
def test_every_dtype_comes_back(tmp_path: Path, kind: str, mmap: bool) -> None:
    dtype = DTYPES[kind]
    array = np.arange(24).reshape(2, 3, 4).astype(dtype)
    save_safetensors(tmp_path / "f", {"x": array})
    (found,) = load_safetensors(tmp_path / "f", mmap=mmap).arrays.values()
    assert found.dtype == dtype and found.shape == array.shape
    assert found.tobytes() == array.tobytes()
    assert found.flags.writeable is not mmap


def test_odd_shapes_orders_and_metadata_come_back(tmp_path: Path) -> None:
    arrays: dict[str, np.ndarray] = {
        "scalar": np.array(3.5, np.float32),
        "empty": np.zeros((0, 4), np.int64),
        "transposed": np.arange(6, dtype=np.float64).reshape(2, 3).T,
        "big-endian": np.arange(3, dtype=">i4"),
        "bytes": np.arange(5, dtype=np.uint8),
        "ü": np.ones((1, 1, 1), ml_dtypes.bfloat16),
    }
    size = save_safetensors(tmp_path / "f", arrays, {"step": "12", "note": "ä\n"})
    assert size == os.path.getsize(tmp_path / "f")
    found, metadata = load_safetensors(tmp_path / "f")
    assert metadata == {"step": "12", "note": "ä\n"}
    assert set(found) == set(arrays)
    for name, array in arrays.items():
        assert found[name].shape == array.shape
        assert np.array_equal(found[name], array)


def test_no_arrays_and_no_metadata_is_a_file(tmp_path: Path) -> None:
    save_safetensors(tmp_path / "f", {})
    assert load_safetensors(tmp_path / "f") == ({}, {})


def test_the_package_reads_what_we_write(tmp_path: Path) -> None:
    array = np.arange(6, dtype=np.float16).reshape(2, 3)
    save_safetensors(tmp_path / "f", {"x": array})
    assert np.array_equal(safetensors.numpy.load_file(tmp_path / "f")["x"], array)


def test_unaligned_data_are_aligned_when_loaded(tmp_path: Path) -> None:
    data = np.arange(2, dtype=np.float32).tobytes()
    for spaces in range(8):
        header = json.dumps({"x": _entry()}).encode() + b" " * spaces
        (found,) = load_safetensors(_write(tmp_path / "f", header, data)).arrays.values()
        assert found.flags.aligned and not found.flags.writeable
        assert found.tolist() == [0.0, 1.0]


_MALFORMED: dict[str, tuple[Any, bytes, str]] = {
    "not json": (b"{", b"", "JSON"),
    "not utf-8": (b'{"\xff": 1}', b"", "JSON"),
    "deep": (b"[" * 100_000, b"", "JSON"),
    "nan": (b'{"x": NaN}', b"", "NaN"),
    "many digits": (b'{"x": ' + b"9" * 5000 + b"}", b"", "JSON"),
    "a list": ([], b"", "JSON object"),
    "duplicate": (b'{"x": {}, "y": {}, "x": {}}', b"", "'x' occurs twice"),
    "duplicate field": (b'{"x": {"dtype": "F32", "dtype": "I32"}}', b"", "'dtype' occurs twice"),
    "metadata": ({"__metadata__": {"a": 1}}, b"", "__metadata__"),
    "metadata list": ({"__metadata__": []}, b"", "__metadata__"),
    "no dtype": ({"x": {"shape": [2], "data_offsets": [0, 8]}}, bytes(8), "'x': expected exactly"),
    "extra field": ({"x": {**_entry(), "stride": 1}}, bytes(8), "'x': expected exactly"),
    "dtype": ({"x": _entry("F31")}, bytes(8), "'x': dtype must be one of .*F32.*received 'F31'"),
    "dtype list": ({"x": _entry(["F32"])}, bytes(8), "dtype must be one of"),
    "negative": ({"x": _entry(shape=[-2])}, bytes(8), "'x': shape"),
    "bool dim": ({"x": _entry(shape=[2, True])}, bytes(8), "'x': shape"),
    "float dim": ({"x": _entry(shape=[2.0])}, bytes(8), "'x': shape"),
    "65 dims": ({"x": _entry(shape=[1] * 65)}, bytes(8), "'x': shape"),
    "overflow": ({"x": _entry(shape=[2**33, 2**33])}, bytes(8), "'x': shape .* needs more bytes"),
    "zero overflow": ({"x": _entry(shape=[0, 2**62, 4], offsets=[0, 0])}, b"", "needs more"),
    "offsets": ({"x": _entry(offsets=[0])}, bytes(8), "'x': data_offsets"),
    "backwards": ({"x": _entry(offsets=[8, 0])}, bytes(8), "'x': shape .* needs 8 bytes"),
    "wrong size": ({"x": _entry(offsets=[0, 4])}, bytes(8), "'x': shape .* needs 8 bytes"),
    "beyond": ({"x": _entry()}, bytes(7), "'x': data_offsets end at 8, the file has 7"),
    "far beyond": ({"x": _entry("U8", [2**60], [0, 2**60])}, bytes(8), "truncated"),
    "overlap": ({"x": _entry(), "y": _entry(offsets=[4, 12])}, bytes(12), "'y'.*overlaps.*'x'"),
    "same place": ({"x": _entry(), "y": _entry()}, bytes(8), "'y'.*overlaps.*'x'"),
    "hole": ({"x": _entry(), "y": _entry(offsets=[12, 20])}, bytes(20), "'y'.*hole after.*'x'"),
    "hole first": ({"x": _entry(offsets=[4, 12])}, bytes(12), "'x'.*hole after the header"),
    "rest": ({"x": _entry()}, bytes(9), "end at offset 8 of 9"),
    "bool value": ({"x": _entry("BOOL", [2], [0, 2])}, b"\x01\x02", "'x': BOOL .* received 2"),
}


@pytest.mark.parametrize("case", _MALFORMED)
def test_malformed_file_is_refused(tmp_path: Path, case: str) -> None:
    header, data, message = _MALFORMED[case]
    for mmap in (True, False):
        with pytest.raises(FormatError, match=message):
            load_safetensors(_write(tmp_path / "f", header, data), mmap=mmap)


@pytest.mark.parametrize("content", [b"", b"1234567", b"\xff" * 8, b"\x40" + bytes(7) + b"{}"])
def test_truncated_header_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "f").write_bytes(content)
    with pytest.raises(FormatError, match="truncated"):
        load_safetensors(tmp_path / "f")


def test_mutated_files_are_refused_or_read(tmp_path: Path) -> None:
    arrays = {"x": np.arange(6, dtype=np.float32), "b": np.array([True, False]), "n": np.eye(2)}
    save_safetensors(tmp_path / "f", arrays, {"k": "v"})
    content = (tmp_path / "f").read_bytes()
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(300):
        mutated = bytearray(content)
        for position in rng.integers(0, len(content), rng.integers(1, 4)):
            mutated[position] = rng.integers(256)
        (tmp_path / "g").write_bytes(mutated[: rng.integers(len(content) // 2, 3 * len(content))])
        try:
            for array in load_safetensors(tmp_path / "g", mmap=False).arrays.values():
                array.tobytes()
        except FormatError:
            refused += 1
    assert 100 < refused < 300


def test_what_cannot_be_stored_is_refused(tmp_path: Path) -> None:
    one = np.ones(1, np.float32)
    for arrays, metadata, message in (
        ({"x": np.ones(1, np.complex128)}, None, "'x' must be .* received complex128"),
        ({"x": np.array(["a"])}, None, "'x' must be"),
        ({"x": [1.0]}, None, "received list"),
        ({"__metadata__": one}, None, "__metadata__"),
        ({1: one}, None, "names must be str"),
        ({"x": one}, {"step": 3}, "'step': 3"),
    ):
        with pytest.raises(ArgumentError, match=message):
            save_safetensors(tmp_path / "f", arrays, metadata)  # type: ignore[arg-type]
    assert os.listdir(tmp_path) == []


def test_no_room_leaves_the_old_file(tmp_path: Path) -> None:
    save_safetensors(tmp_path / "f", {"x": np.ones(1)})
    before = (tmp_path / "f").read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        with pytest.raises(SaveError, match="previous file is intact"):
            save_safetensors(tmp_path / "f", {"x": np.ones(1000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert (tmp_path / "f").read_bytes() == before
    assert os.listdir(tmp_path) == ["f"]
