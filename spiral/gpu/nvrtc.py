"""Compiles CUDA C++ to machine code with NVRTC, through CuPy's binding of it; needs no GPU and no driver.

`cupy_backends.cuda.libs.nvrtc` loads ``libnvrtc`` by name. Where NVRTC comes as a Python package (the
``nvidia-cuda-nvrtc`` wheels) its folder is on no search path, so the library is brought into the process first.
"""

from __future__ import annotations

import ctypes
import functools
import struct
from collections.abc import Sequence
from importlib import import_module, util
from pathlib import Path
from typing import Any

from spiral.backend import Unavailable
from spiral.errors import KernelBuildError
from spiral.gpu.sources import CUDA_FOLDER

# fmad is the default, said so that no version changes it; line information costs nothing at run time
OPTIONS = ("--std=c++17", "--fmad=true", "--generate-line-info")
"""Besides the target and the include path; part of what a compiled kernel depends on."""


@functools.cache
def binding() -> Any:
    """CuPy's module, or `spiral.backend.Unavailable` with the reason."""
    try:
        found = util.find_spec("cupy_backends")
    except (ImportError, ValueError) as e:
        return Unavailable(f"CuPy cannot be looked up ({e})", "reinstall CuPy")
    if found is None:
        return Unavailable("CuPy is not installed", "pip install 'spiral[cuda]'")
    # one must be enough; if none loads, the import below says what is missing
    for library in _packaged_libraries():
        try:
            ctypes.CDLL(str(library), mode=ctypes.RTLD_GLOBAL)
            break
        except OSError:
            continue
    try:
        module = import_module("cupy_backends.cuda.libs.nvrtc")
        module.getVersion()
    except (ImportError, RuntimeError) as e:
        return Unavailable(f"NVRTC cannot be loaded: {e}", "pip install 'cupy-cuda12x[ctk]'")
    return module


def version() -> tuple[int, int] | None:
    """Of NVRTC; None where there is none."""
    module = binding()
    return None if isinstance(module, Unavailable) else tuple(module.getVersion())


def compile_cubin(
    file: Path, names: Sequence[str], arch: str = "sm_90", *, folder: Path = CUDA_FOLDER
) -> dict[str, tuple[str, bytes]]:
    """Machine code of some kernels of a file.

    Args:
        file: the CUDA C++ file.
        names: name expressions of its kernels.
        arch: the target, such as ``sm_90``.
        folder: where headers are looked up besides the file's own folder.

    Returns:
        For each name, its mangled name and the cubin, which is the same object for all of them.

    Raises:
        KernelBuildError: NVRTC is not there, or refuses the file; the message holds its log.
    """
    nvrtc = binding()
    if isinstance(nvrtc, Unavailable):
        raise KernelBuildError(f"{file.name}: {nvrtc.reason}; {nvrtc.remedy}.")
    options = (*OPTIONS, f"--gpu-architecture={arch}", f"--include-path={file.parent}", f"--include-path={folder}")
    program = nvrtc.createProgram(file.read_text(), file.name, (), ())
    try:
        for name in names:
            nvrtc.addNameExpression(program, name)
        try:
            nvrtc.compileProgram(program, options)
        except nvrtc.NVRTCError as e:
            log = nvrtc.getProgramLog(program)
            raise KernelBuildError(f"{file.name}: NVRTC refuses it for {arch} ({e}):\n{log[:8000]}") from e
        cubin = _whole(nvrtc.getCUBIN(program))
        return {name: (_text(nvrtc.getLoweredName(program, name)), cubin) for name in names}
    finally:
        nvrtc.destroyProgram(program)


def _whole(image: bytes) -> bytes:
    """A cubin with its last byte: CuPy 14 takes it for the end of a string and leaves it out. It is 0."""
    start, size, count = struct.unpack_from("<Q", image, 32)[0], *struct.unpack_from("<HH", image, 54)
    return image + bytes(max(0, start + size * count - len(image)))


def _text(name: str | bytes) -> str:
    return name.decode() if isinstance(name, bytes) else name


def _packaged_libraries() -> list[Path]:
    """libnvrtc of the ``nvidia`` packages: ``cuda_nvrtc`` up to CUDA 12, ``cu13`` from 13 on."""
    found = util.find_spec("nvidia")
    if found is None:
        return []
    roots = [Path(p) for p in found.submodule_search_locations or ()]
    patterns = ("cuda_nvrtc/lib/libnvrtc.so.*", "cu*/lib/libnvrtc.so.*")
    return sorted({p for root in roots for pattern in patterns for p in root.glob(pattern)})
