"""`spiral.io` is cheap to import and its examples run."""

from __future__ import annotations

import doctest
import importlib
import subprocess
import sys

import pytest

import spiral.io

_MODULES = ("atomic", "gguf_read", "gguf_types", "gguf_write", "llama_names", "safetensors")


def test_importing_spiral_io_imports_neither_gguf_nor_safetensors() -> None:
    program = "import sys, spiral.io; print([name for name in ('gguf', 'safetensors', 'numpy') if name in sys.modules])"
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "gguf" not in found.stdout and "safetensors" not in found.stdout


def test_every_public_name_is_there() -> None:
    for name in spiral.io.__all__:
        assert getattr(spiral.io, name).__name__ == name
    assert set(spiral.io.__all__) <= set(dir(spiral.io))


def test_unknown_name_is_named() -> None:
    with pytest.raises(AttributeError, match=r"no attribute 'load_gguf'; it has .*GGUFFile"):
        spiral.io.load_gguf  # noqa: B018


@pytest.mark.parametrize("module", _MODULES)
def test_examples_in_docstrings_run(module: str) -> None:
    results = doctest.testmod(importlib.import_module(f"spiral.io.{module}"))
    assert results.attempted > 0 and results.failed == 0
