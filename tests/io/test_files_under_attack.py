"""Thousands of damaged files: each is read or refused with the typed error, quickly and in little memory."""

from __future__ import annotations

import random
import struct
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from tiny_llama import TinyConfig, random_arrays, tokenizer_fields

from spiral.data import TokenDataset
from spiral.errors import ArgumentError, FormatError, SpiralError
from spiral.io import GGUFFile, export_llama_gguf, import_llama_gguf, load_safetensors, save_safetensors

INTERESTING = [0, 1, 0x7F, 0x80, 0xFF, 0x22, 0x7B, 0x2D]


def mutated(valid: bytes, draw: random.Random) -> bytes:
    """A copy with bits flipped, bytes or whole numbers replaced, a part cut out, doubled or cut off."""
    data = bytearray(valid)
    for _ in range(draw.choice((1, 1, 1, 2, 5))):
        # headers decide what is allocated: most damage goes there
        at = draw.randrange(min(len(data), draw.choice((64, 600, len(data)))) or 1) if data else 0
        kind = draw.randrange(7)
        if kind == 0 and data:
            data[at] ^= 1 << draw.randrange(8)
        elif kind == 1 and data:
            data[at] = draw.choice(INTERESTING)
        elif kind == 2:
            data[at : at + 8] = struct.pack(
                "<Q", draw.choice((0, 2**31, 2**32 - 1, 2**40, 2**63 - 1, 2**63, 2**64 - 1))
            )
        elif kind == 3:
            data[at : at + 4] = struct.pack("<I", draw.choice((0, 5, 8, 9, 2**16, 2**31, 2**32 - 1)))
        elif kind == 4:
            del data[at:]
        elif kind == 5:
            del data[at : at + draw.randrange(1, 40)]
        else:
            data[at:at] = data[at : at + draw.randrange(1, 40)]
    return bytes(data)


def attack(path: Path, read: Callable[[Path], object], count: int, seed: int, limit: float) -> int:
    """How many of `count` damaged copies of a file were refused; any other error than ours fails."""
    valid, draw, refused = path.read_bytes(), random.Random(seed), 0
    target = path.with_name(f"damaged{path.suffix}")
    tracemalloc.start()
    try:
        for i in range(count):
            target.write_bytes(mutated(valid, draw))
            tracemalloc.reset_peak()
            before = tracemalloc.get_traced_memory()[0]
            try:
                read(target)
            except (FormatError, ArgumentError) as error:
                refused += 1
                assert str(target) in str(error) and len(str(error)) < 2000, error
            except BaseException as error:
                kept = path.with_name(f"case-{seed}-{i}{path.suffix}")
                kept.write_bytes(target.read_bytes())
                raise AssertionError(f"{kept}: {error!r} is not a typed error") from error
            assert tracemalloc.get_traced_memory()[1] - before < limit
    finally:
        tracemalloc.stop()
    return refused


def read_safetensors(path: Path) -> None:
    for mmap in (True, False):
        for array in load_safetensors(path, mmap=mmap).arrays.values():
            array.tobytes()


def read_gguf(path: Path) -> None:
    file = GGUFFile(path)
    for name in file.tensors:
        file.array(name)


def test_safetensors(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    arrays = {f"w{i}": np.arange(i * 3, dtype=np.float32).reshape(i, 3) for i in range(6)}
    save_safetensors(path, {**arrays, "b": np.ones(5, bool)}, {"format": "pt"})
    assert attack(path, read_safetensors, 2000, 1, 5e6) > 1000


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("gguf") / "m.gguf"
    fields = tokenizer_fields()
    config = TinyConfig(vocab_size=len(fields["tokens"]))
    export_llama_gguf(path, random_arrays(config), config, fields, type="Q8_0")
    return path


def test_gguf(llama: Path) -> None:
    assert attack(llama, read_gguf, 600, 2, 30e6) > 200


def test_llama_in_gguf(llama: Path) -> None:
    assert attack(llama, import_llama_gguf, 400, 3, 30e6) > 100


def test_token_file(tmp_path: Path) -> None:
    path = tmp_path / "t.tokens"
    TokenDataset.write(path, np.arange(500), 1000)
    assert attack(path, lambda p: TokenDataset.open(p)[:], 2000, 4, 5e6) > 1000


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(10, 16))
def test_for_longer(llama: Path, tmp_path: Path, seed: int) -> None:
    path = tmp_path / "m.safetensors"
    save_safetensors(path, {f"w{i}": np.zeros((i, 2), np.int8) for i in range(4)})
    attack(path, read_safetensors, 20_000, seed, 5e6)
    attack(llama, import_llama_gguf, 4000, seed, 30e6)


def test_whole_model_is_read_or_refused(llama: Path, tmp_path: Path) -> None:
    """Also what the model and the tokenizer make of a damaged file is a typed error."""
    from spiral.models import load_llama
    from spiral.text import Tokenizer

    fields = Tokenizer.train("to be or not to be, that is the question", 260).gguf_fields()
    config = TinyConfig(vocab_size=len(fields["tokens"]))
    path = tmp_path / "m.gguf"
    export_llama_gguf(path, random_arrays(config), config, fields)
    load_llama(path)
    draw, valid = random.Random(6), path.read_bytes()
    target = tmp_path / "damaged.gguf"
    header = valid.index(b"token_embd")
    for _ in range(300):
        data = bytearray(valid)
        for _ in range(draw.choice((1, 3))):
            data[draw.randrange(header)] = draw.choice([*INTERESTING, draw.randrange(256)])
        target.write_bytes(bytes(data))
        try:
            load_llama(target)
        except SpiralError:
            pass
