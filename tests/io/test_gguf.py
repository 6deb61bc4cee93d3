"""GGUF files: other readers agree with our writer, our reader refuses what is damaged."""

from __future__ import annotations

import os
import struct
import time
import warnings
from pathlib import Path
from typing import Any

import gguf
import ml_dtypes
import numpy as np
import pytest

from spiral.errors import ArgumentError, FormatError, SaveError
from spiral.io import GGUFFile, TensorSource, write_gguf
from spiral.io.gguf_types import TENSOR_TYPES, fitting_type

_RNG = np.random.default_rng(0)


def _source(name: str, array: np.ndarray, kind: str = "F32") -> TensorSource:
    return TensorSource(name, array.shape, kind, lambda: array)


def _string(text: str | bytes) -> bytes:
    data = text.encode() if isinstance(text, str) else text
    return struct.pack("<Q", len(data)) + data


def _key(name: str, kind: int, value: bytes) -> bytes:
    return _string(name) + struct.pack("<I", kind) + value


def _info(name: str = "x", dims: tuple[int, ...] = (8,), kind: int = 0, offset: int = 0, n: int = -1) -> bytes:
    n_dims = len(dims) if n < 0 else n
    packed = struct.pack(f"<I{len(dims)}Q", n_dims, *dims)
    return _string(name) + packed + struct.pack("<IQ", kind, offset)


def _file(
    keys: tuple[bytes, ...] = (),
    infos: tuple[bytes, ...] = (),
    data: int = 0,
    *,
    magic: bytes = b"GGUF",
    version: int = 3,
    n_tensors: int | None = None,
    n_keys: int | None = None,
) -> bytes:
    counts = struct.pack(
        "<IQQ",
        version,
        len(infos) if n_tensors is None else n_tensors,
        len(keys) if n_keys is None else n_keys,
    )
    head = magic + counts + b"".join(keys) + b"".join(infos)
    return head + bytes(-len(head) % 32) + bytes(data)


_MANY = struct.pack("<Q", 2**63)
_MALFORMED: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "at least 24 bytes; the file has 0"),
    "short": (b"GGUF" + bytes(19), "at least 24 bytes"),
    "magic": (_file(magic=b"GGML"), "the magic, byte 0: expected b'GGUF'; received b'GGML'"),
    "version": (_file(version=1), "the version, byte 4: expected 2 or 3; received 1"),
    "big-endian": (_file(version=3 << 24), "big-endian"),
    "many tensors": (_file(n_tensors=2**64 - 1), "the tensor table.*truncated"),
    "many keys": (_file(n_keys=2**63), "the keys.*truncated"),
    "missing key": (_file(n_keys=1, data=32), "key ''.*is empty"),
    "key length": (_file((struct.pack("<Q", 2**64 - 1),), n_keys=1, data=64), "name of key 0"),
    "key utf-8": (_file((_string(b"\xff\xfe") + bytes(8),), data=64), "expected UTF-8"),
    "duplicate key": (_file((_key("a", 7, b"\1"), _key("a", 7, b"\1")), data=9), "'a'.*twice"),
    "value type": (_file((_key("a", 13, bytes(8)),)), "'a'.*one of 0 UINT8.*received 13"),
    "bool": (_file((_key("a", 7, b"\2"),), data=32), "'a'.*BOOL must be 0 or 1; received 2"),
    "string": (_file((_key("a", 8, _MANY),), data=32), "'a'.*needs 9223372036854775808 bytes"),
    "array": (_file((_key("a", 9, struct.pack("<I", 5) + _MANY),)), "'a'.*expected 9223372"),
    "strings": (_file((_key("a", 9, struct.pack("<I", 8) + _MANY),)), "'a'.*expected 9223372"),
    "string in array": (
        _file((_key("a", 9, struct.pack("<IQ", 8, 2) + _string("ab") + _MANY),), data=32),
        "'a', string 1 of 2",
    ),
    "array type": (_file((_key("a", 9, struct.pack("<IQ", 99, 1)),)), "'a'.*received 99"),
    "nested": (_file((_key("a", 9, struct.pack("<IQ", 9, 1) * 9),), data=64), "at most 4 deep"),
    "nested many": (_file((_key("a", 9, struct.pack("<I", 9) + _MANY),)), "'a'.*expected 9223"),
    "alignment 0": (_file((_key("general.alignment", 4, bytes(4)),)), "power of two.*UINT32 0"),
    "alignment 24": (
        _file((_key("general.alignment", 4, struct.pack("<I", 24)),)),
        "power of two.*UINT32 24",
    ),
    "alignment type": (
        _file((_key("general.alignment", 10, struct.pack("<Q", 32)),)),
        "power of two; received UINT64 32",
    ),
    "dims": (_file(infos=(_info(n=2**32 - 1),), data=32), "'x'.*at most 4 dimensions"),
    "tensor type": (_file(infos=(_info(kind=4),), data=32), "'x'.*type must be one of 0 F32"),
    "block": (_file(infos=(_info(dims=(33, 2), kind=8),), data=99), "'x'.*Q8_0.*multiple of 32"),
    "overflow": (_file(infos=(_info(dims=(2**32, 2**32)),), data=32), "'x'.*more bytes than any"),
    "zero overflow": (_file(infos=(_info(dims=(0, 2**63, 2)),), data=32), "more bytes than any"),
    "beyond": (_file(infos=(_info(),), data=31), "'x', byte 64: its 32 bytes end at 96.*has 95"),
    "far": (_file(infos=(_info(offset=2**64 - 32),), data=32), "'x'.*truncated or damaged"),
    "misaligned": (_file(infos=(_info(offset=4),), data=64), "'x'.*multiple of 32; received 4"),
    "duplicate": (_file(infos=(_info(), _info(offset=32)), data=64), "'x'.*twice"),
    "overlap": (_file(infos=(_info(dims=(16,)), _info("y", offset=32)), data=64), "'y'.*overlaps"),
    "same place": (_file(infos=(_info(), _info("y")), data=64), "'y'.*overlaps tensor 'x'"),
    "table ends": (_file(infos=(_info()[:-4],))[: -len(_file()) or None], "truncated"),
}


@pytest.mark.parametrize("case", _MALFORMED)
def test_malformed_file_is_refused(tmp_path: Path, case: str) -> None:
    content, message = _MALFORMED[case]
    (tmp_path / "f").write_bytes(content)
    with pytest.raises(FormatError, match=message):
        GGUFFile(tmp_path / "f")


def test_mutated_files_are_refused_or_read(tmp_path: Path) -> None:
    metadata = {"s": "text", "a": ["x", "yy", ""], "i": [1, 2, 3], "f": 1.5, "n": -4, "b": True}
    tensors = [_source("w", np.ones((2, 32), np.float32), kind) for kind in ("F16", "Q8_0")]
    tensors[1] = TensorSource("q", (2, 32), "Q8_0", tensors[1].read)
    write_gguf(tmp_path / "f", "llama", metadata, tensors)
    content = (tmp_path / "f").read_bytes()
    refused = 0
    for _ in range(300):
        mutated = bytearray(content)
        for position in _RNG.integers(0, len(content), _RNG.integers(1, 4)):
            mutated[position] = (0, 1, 255, int(_RNG.integers(256)))[_RNG.integers(4)]
        (tmp_path / "g").write_bytes(mutated[: _RNG.integers(len(content) // 2, 4 * len(content))])
        try:
            file = GGUFFile(tmp_path / "g")
            for name in file.tensors:
                if TENSOR_TYPES[file.tensors[name].type].decode is not None:
                    file.array(name)
        except FormatError:
            refused += 1
    assert 100 < refused < 300


def test_every_truncation_is_refused(tmp_path: Path) -> None:
    metadata = {"s": "text", "a": ["x", "yy"], "i": [1, 2]}
    write_gguf(tmp_path / "f", "llama", metadata, [_source("w", np.ones(8, np.float32))])
    content = (tmp_path / "f").read_bytes()
    for length in range(len(content)):
        (tmp_path / "g").write_bytes(content[:length])
        with pytest.raises(FormatError):
            GGUFFile(tmp_path / "g")


@pytest.mark.parametrize("kind", ["F32", "F16", "BF16", "Q8_0"])
def test_the_gguf_package_reads_what_we_write(tmp_path: Path, kind: str) -> None:
    odd = _RNG.standard_normal((3, 5, 32)).astype(np.float32)
    size = write_gguf(tmp_path / "f", "llama", {}, [_source("odd", odd, kind), _source("y", odd)])
    assert size == os.path.getsize(tmp_path / "f") and size % 32 == 0
    first, second = gguf.GGUFReader(tmp_path / "f").tensors
    ours = GGUFFile(tmp_path / "f")
    assert (first.name, first.tensor_type.name, list(first.shape)) == ("odd", kind, [32, 5, 3])
    assert first.data_offset == ours.tensors["odd"].offset
    expected = gguf.quants.dequantize(first.data, first.tensor_type).reshape(odd.shape)
    assert np.array_equal(ours.array("odd"), expected)
    assert np.array_equal(second.data, odd) and np.array_equal(ours.array("y"), odd)
    assert np.abs(expected - odd).max() < {"F32": 1e-30, "F16": 2e-3}.get(kind, 2e-2)
    assert ours.array("odd").dtype == np.float32 and ours.array("odd").flags.writeable


@pytest.mark.parametrize("kind", sorted(set(TENSOR_TYPES) - {"Q8_1", "Q8_K", "Q1_0"}))
def test_every_type_of_the_gguf_package_is_decoded(tmp_path: Path, kind: str) -> None:
    row = TENSOR_TYPES[kind]
    data = _RNG.integers(0, 60, (3, 2 * row.type_size), np.uint8)
    writer = gguf.GGUFWriter(tmp_path / "f", "llama")
    writer.add_tensor("x", data, raw_dtype=gguf.GGMLQuantizationType[kind])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    file = GGUFFile(tmp_path / "f")
    assert file.tensors["x"].shape == (3, 2 * row.block_size)
    assert np.array_equal(file.raw("x"), data)
    assert file.array("x").shape == (3, 2 * row.block_size)


def test_metadata_come_back_with_their_types(tmp_path: Path) -> None:
    values: dict[str, tuple[Any, str]] = {
        "text": ("ä\n", "STRING"),
        "empty": ("", "STRING"),
        "yes": (True, "BOOL"),
        "count": (7, "UINT32"),
        "negative": (-7, "INT32"),
        "large": (2**40, "UINT64"),
        "low": (-(2**40), "INT64"),
        "real": (0.5, "FLOAT32"),
        "texts": (["a", "", "ü"], "ARRAY[STRING]"),
        "flags": ([True, False], "ARRAY[BOOL]"),
        "ints": ([3, -1], "ARRAY[INT32]"),
        "long ints": ([2**40], "ARRAY[INT64]"),
        "reals": ([0.5, 2.0], "ARRAY[FLOAT32]"),
        "u16": (np.uint16(9), "UINT16"),
        "f64": (np.float64(0.1), "FLOAT64"),
        "i8 array": (np.array([1, -1], np.int8), "ARRAY[INT8]"),
        "no texts": (np.array([], np.str_), "ARRAY[STRING]"),
        "no ints": (np.array([], np.int32), "ARRAY[INT32]"),
    }
    write_gguf(tmp_path / "f", "other", {key: value for key, (value, _) in values.items()}, [])
    file = GGUFFile(tmp_path / "f")
    assert file.metadata.pop("general.architecture") == "other"
    for key, (value, kind) in values.items():
        expected = value.tolist() if hasattr(value, "tolist") else value
        assert (file.metadata[key], file.value_types[key]) == (expected, kind)
    assert list(file.metadata) == list(values)


def test_nested_arrays_of_other_programs_are_read(tmp_path: Path) -> None:
    inner = struct.pack("<IQHH", 2, 2, 1, 2) + struct.pack("<IQ", 8, 1) + _string("x")
    (tmp_path / "f").write_bytes(_file((_key("a", 9, struct.pack("<IQ", 9, 2) + inner),)))
    file = GGUFFile(tmp_path / "f")
    assert file.metadata["a"] == [[1, 2], ["x"]]
    assert file.value_types["a"] == "ARRAY[ARRAY[STRING], ARRAY[UINT16]]"


def test_large_vocabulary_is_parsed_in_a_second(tmp_path: Path) -> None:
    metadata = {
        "tokens": [f"token{index}" for index in range(128_000)],
        "merges": [f"left{index} right{index}" for index in range(280_000)],
        "types": np.ones(128_000, np.int32),
    }
    write_gguf(tmp_path / "f", "llama", metadata, [])
    start = time.process_time()
    file = GGUFFile(tmp_path / "f")
    assert time.process_time() - start < 1.0
    assert file.metadata["merges"] == metadata["merges"]


def test_float64_float16_and_bf16_arrays_are_written(tmp_path: Path) -> None:
    values = _RNG.standard_normal((2, 32))
    for dtype in (np.float64, np.float16, ml_dtypes.bfloat16):
        array = values.astype(dtype)
        write_gguf(tmp_path / "f", "llama", {}, [_source("x", array)])
        assert np.array_equal(GGUFFile(tmp_path / "f").array("x"), array.astype(np.float32))


def test_scale_stays_with_the_block(tmp_path: Path) -> None:
    """A large block does not take precision from its neighbours, and rows are not mixed."""
    array = np.ones((2, 64), np.float32)
    array[0, :32] *= 1000
    write_gguf(tmp_path / "f", "llama", {}, [_source("x", array, "Q8_0")])
    assert np.abs(GGUFFile(tmp_path / "f").array("x") / array - 1).max() < 1e-3


def test_block_of_denormals_becomes_zero_without_a_warning(tmp_path: Path) -> None:
    array = np.ones((2, 32), np.float32)
    array[0] = 1e-42
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        write_gguf(tmp_path / "f", "llama", {}, [_source("x", array, "Q8_0")])
    assert GGUFFile(tmp_path / "f").array("x")[0].tolist() == [0.0] * 32


@pytest.mark.parametrize(
    ("wanted", "shape", "largest", "type_name", "reason"),
    [
        ("Q8_0", (4, 64), 1.0, "Q8_0", None),
        ("Q8_0", (4, 64), 0.0, "Q8_0", None),
        ("Q8_0", (4, 48), 1.0, "F16", "multiple of 32 elements, not 48"),
        ("Q8_0", (4, 64), 5e-4, "F16", "too small for Q8_0"),
        ("Q8_0", (4, 64), 1e-6, "F32", "too small for Q8_0"),
        ("Q8_0", (4, 64), 1e7, "F32", "overflows Q8_0"),
        ("F16", (4, 64), 7e4, "F32", "overflows F16"),
        ("BF16", (4, 64), 1e-30, "BF16", None),
    ],
)
def test_fallback_is_the_nearest_type_that_holds_the_tensor(
    wanted: str, shape: tuple[int, ...], largest: float, type_name: str, reason: str | None
) -> None:
    row, why = fitting_type(wanted, shape, largest)
    assert row.name == type_name
    assert (why is None) if reason is None else (why is not None and reason in why)


def test_what_cannot_be_written_is_refused(tmp_path: Path) -> None:
    one = np.ones((1, 32), np.float32)
    nan = one * np.nan
    cases: tuple[tuple[dict[str, Any], list[TensorSource], str], ...] = (
        ({}, [_source("x", one, "Q4_K")], "must be one of F32.*received 'Q4_K'"),
        ({}, [_source("x", one, "F99")], "received 'F99'"),
        ({}, [_source("x" * 64, one)], "1 to 63 bytes"),
        ({}, [_source("x", one), _source("x", one)], "two tensors have the name 'x'"),
        ({}, [_source("x", np.ones((1, 1, 1, 1, 1), np.float32))], "1 to 4 dimensions"),
        ({}, [_source("x", np.ones((0, 2), np.float32))], "dimensions from 1"),
        ({}, [_source("x", np.ones((2, 33), np.float32), "Q8_0")], "multiple of 32"),
        ({}, [_source("x", nan, "Q8_0")], "infinities or NaN"),
        ({}, [_source("x", np.ones(4, np.int32))], "received int32"),
        ({}, [TensorSource("x", (2,), "F32", lambda: one)], "announced with shape"),
        ({"general.architecture": "x"}, [], "must not hold general.architecture"),
        ({"a": None}, [], "'a' must be .* received None"),
        ({"a": []}, [], "empty list"),
        ({"a": [1, "x"]}, [], "a list of int, str"),
        ({"a": 2**64}, [], "an integer of 65 bits"),
        ({"a": "\ud800"}, [], "cannot be stored"),
        ({"a": 1e300}, [], "cannot be stored"),
    )
    for metadata, tensors, message in cases:
        with pytest.raises(ArgumentError, match=message):
            write_gguf(tmp_path / "f", "llama", metadata, tensors)
    assert os.listdir(tmp_path) == []


def test_unknown_tensor_and_undecodable_type_are_named(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(_file(infos=(_info(dims=(256,), kind=15),), data=292))
    file = GGUFFile(tmp_path / "f")
    with pytest.raises(ArgumentError, match="stored as Q8_K, which cannot be decoded"):
        file.array("x")
    with pytest.raises(ArgumentError, match="no tensor 'y'; there are x"):
        file.array("y")


def test_no_room_leaves_the_old_file(tmp_path: Path) -> None:
    import resource

    (tmp_path / "f").write_text("old")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        with pytest.raises(SaveError, match="previous file is intact"):
            write_gguf(tmp_path / "f", "llama", {}, [_source("x", np.ones(5000, np.float32))])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert (tmp_path / "f").read_text() == "old" and os.listdir(tmp_path) == ["f"]
