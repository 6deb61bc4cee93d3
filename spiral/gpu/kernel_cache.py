"""Compiled CUDA C++ kernels, kept on disk so that only the first process compiles them.

A file per kernel in ``SPIRAL_CACHE`` (default ``~/.cache/spiral``), named by the hash of everything that the
machine code depends on: the source with what it includes, the name expression, the architecture, NVRTC's version.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from functools import cache
from pathlib import Path

from spiral.backends_registry import warn_once
from spiral.gpu import nvrtc
from spiral.gpu.sources import CUDA_FOLDER, digest, with_includes


def folder() -> Path:
    """Where compiled kernels are kept."""
    return Path(os.environ.get("SPIRAL_CACHE") or Path.home() / ".cache" / "spiral") / "kernels"


@cache
def source_hash(file: Path) -> str:
    """Digest of a CUDA C++ file and of what it includes."""
    return digest(with_includes(file, CUDA_FOLDER), *nvrtc.OPTIONS)


def cubin(file: Path, name: str, arch: str) -> tuple[str, bytes]:
    """The mangled name and the machine code of one kernel, from the cache or compiled.

    Args:
        file: of ``kernels/cuda``.
        name: its name expression.
        arch: such as ``sm_90``.

    Raises:
        spiral.errors.KernelBuildError: NVRTC refuses it.
    """
    parts = (source_hash(file), name, arch, str(nvrtc.version()))
    path = folder() / f"{hashlib.sha256(repr(parts).encode()).hexdigest()}.cubin"
    try:
        lowered, _, image = path.read_bytes().partition(b"\0")
    except FileNotFoundError:  # not compiled yet
        text, image = nvrtc.compile_cubin(file, (name,), arch)[name]
        try:
            write_whole(path, text.encode() + b"\0" + image)
        except OSError as error:  # a folder that cannot be written costs time, nothing else
            warn_once(f"compiled kernels are not kept in {path.parent}: {error}; set SPIRAL_CACHE to another folder.")
        return text, image
    return lowered.decode(), image


def write_whole(path: Path, content: bytes) -> None:
    """Writes a file that other processes read whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, partial = tempfile.mkstemp(dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as f:
            f.write(content)
        os.replace(partial, path)
    except OSError:
        os.unlink(partial)
        raise
