"""Builds shared objects from CUDA C++ files with g++, once: they are kept by a digest of all that goes into them."""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import functools
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from spiral.errors import ArgumentError, KernelBuildError, KernelError
from spiral.gpu.sources import CUDA_FOLDER, digest, with_includes

HERE = Path(__file__).resolve().parent
NAMES_AT_ONCE = 64
"""Kernels in one shared object; a file with more gives several, each built when it is first needed."""

# -O1 costs as much as -O0 (0.12 s for four kernels; -O2 0.16) and its kernels run several times as fast. A GPU faults
# on misaligned accesses and x86 does not: the checks trap there, and at indices outside of arrays of known length.
_FLAGS = [
    "-std=c++17", "-O1", "-g1", "-w", "-fPIC", "-fvisibility=hidden", "-fno-gnu-unique", "-fdata-sections",
    "-ffp-contract=off", "-fno-exceptions", "-fno-strict-aliasing",
    "-fstack-clash-protection",  # touches every page, so that none of a stack's guards is jumped over
]  # fmt: skip
_CHECKS = ["-fsanitize=alignment,bounds", "-fsanitize-undefined-trap-on-error"]
_SANITIZERS = {
    "": _CHECKS,
    "undefined": ["-fsanitize=undefined", "-fsanitize-undefined-trap-on-error"],
    "address": [*_CHECKS, "-fsanitize=address"],
}
# the scheduler is ours and fast; a sanitizer would take its switches of stacks for faults
_SCHEDULER_FLAGS = ["-std=c++17", "-O2", "-g1", "-fPIC", "-fvisibility=hidden", "-fno-exceptions"]


def compiler() -> str | None:
    """The command of g++: CXX where it names one, else g++; None: there is none."""
    given = os.environ.get("CXX", "")
    if "g++" in given and shutil.which(given.split()[0]):
        return given.split()[0]
    return shutil.which("g++")


def unavailable() -> str | None:
    """Why the runner cannot be used on this machine; None when it can."""
    if os.name != "posix" or not hasattr(os, "uname") or os.uname().sysname != "Linux":
        return "the runner of CUDA C++ needs Linux: it uses the linker scripts and signals of that system"
    if compiler() is None:
        return "the runner of CUDA C++ needs g++, and there is none; install it (Debian: apt-get install g++)"
    return None


def sanitizer() -> str:
    """What SPIRAL_CUDA_SANITIZE asks for: nothing, ``address`` or ``undefined``.

    Raises:
        ArgumentError: it asks for something else.
    """
    asked = os.environ.get("SPIRAL_CUDA_SANITIZE", "")
    if asked not in _SANITIZERS:
        raise ArgumentError(f"SPIRAL_CUDA_SANITIZE: expected address or undefined; received {asked!r}.")
    return asked


def sanitized_environment() -> dict[str, str]:
    """Environment variables for a Python process that runs the kernels under AddressSanitizer.

    Its library must be in the process from the start, hence LD_PRELOAD. Leaks are not looked for: Python has its own.

    Raises:
        KernelError: g++ or its AddressSanitizer is not installed.
    """
    command = _command()
    library = subprocess.run([command, "-print-file-name=libasan.so"], capture_output=True, text=True).stdout.strip()
    if not os.path.isabs(library):
        raise KernelError(f"AddressSanitizer: {command} has no libasan.so; install the library of its version.")
    return {
        "LD_PRELOAD": os.path.realpath(library),
        "ASAN_OPTIONS": "detect_leaks=0:detect_stack_use_after_return=0:halt_on_error=1",
        "SPIRAL_CUDA_SANITIZE": "address",
    }


def build(file: str, names: Sequence[str], folder: Path = CUDA_FOLDER) -> Path:
    """A shared object with some kernels of a file.

    Args:
        file: name of a CUDA C++ file in ``folder``.
        names: name expressions of its kernels; in the object they have the same order.
        folder: where the file and its headers are.

    Raises:
        KernelBuildError: there is no compiler, or it refuses the file; the message holds what it says.
    """
    command, asked = _command(), sanitizer()
    if asked == "address" and not _has_address_sanitizer():
        raise KernelError(
            "SPIRAL_CUDA_SANITIZE=address: AddressSanitizer is not in this process; start it with the variables that "
            "spiral.testing.cuda_on_cpu.sanitized_environment() gives."
        )
    flags = [*_FLAGS, *_SANITIZERS[asked]]
    unit = _unit(file, names)
    try:
        sources = with_includes(folder / file, folder)
    except FileNotFoundError as e:
        raise KernelBuildError(f"{file}: {e}") from e
    key = digest([*sources, *_runtime_files()], unit, *flags, *_scheduler_flags(), _version(command))
    target = cache_folder() / f"{Path(file).stem}-{key}.so"
    if not target.exists():
        with _lock(target):
            if not target.exists():
                scheduler = _scheduler(command)
                _compile(
                    [command, *flags, f"-I{folder}", f"-I{HERE}", "-shared", "-x", "c++", "-", "-x", "none",
                     str(scheduler), f"-Wl,-T,{HERE / 'shared.ld'}", "-Wl,--no-undefined,-Bsymbolic"],
                    target, file, unit,
                )  # fmt: skip
    return target


def _unit(file: str, names: Sequence[str]) -> str:
    rows = "".join(
        f'  {{"{name}", &spiral_cpu::Entry<&{name}>::call, spiral_cpu::Entry<&{name}>::parameters}},\n'
        for name in names
    )
    return (
        f'#include "entry.h"\n#include "{file}"\n'
        'extern "C" { extern const __attribute__((visibility("hidden"))) spiral_cpu::Kernel spiral_kernels[]; }\n'
        f"const spiral_cpu::Kernel spiral_kernels[] = {{\n{rows}}};\n"
    )


def _runtime_files() -> list[Path]:
    return [*with_includes(HERE / "scheduler.cpp"), HERE / "shared.ld"]


def _scheduler_flags() -> list[str]:
    return [*_SCHEDULER_FLAGS, *(["-DSPIRAL_UCONTEXT"] if os.environ.get("SPIRAL_UCONTEXT") == "1" else [])]


def _scheduler(command: str) -> Path:
    """The scheduler's object file: the same in every shared object."""
    flags = _scheduler_flags()
    target = cache_folder() / f"scheduler-{digest(_runtime_files(), *flags, _version(command))}.o"
    if not target.exists():
        with _lock(target):
            if not target.exists():
                _compile([command, *flags, "-c", str(HERE / "scheduler.cpp")], target, "scheduler.cpp", "")
    return target


def _compile(command: list[str], target: Path, file: str, unit: str) -> None:
    """Runs a compiler; its output gets its name only when it is whole."""
    handle, temporary = tempfile.mkstemp(dir=target.parent, suffix=target.suffix)
    os.close(handle)
    try:
        done = subprocess.run([*command, "-o", temporary], input=unit, capture_output=True, text=True)
        if done.returncode:
            raise KernelBuildError(f"{file}: {command[0]} refuses it (exit {done.returncode}):\n{done.stderr[:8000]}")
        os.replace(temporary, target)
    finally:
        Path(temporary).unlink(missing_ok=True)


@contextlib.contextmanager
def _lock(target: Path) -> Iterator[None]:
    """Held by one process at a time: pytest's workers want the same kernels at the same moment."""
    with target.with_suffix(target.suffix + ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # until the file is closed
        yield


@functools.cache
def cache_folder() -> Path:
    """Where built objects are kept: SPIRAL_CUDA_ON_CPU_CACHE, else build/cuda_on_cpu of a clone, else the system's
    folder for temporary files."""
    given = os.environ.get("SPIRAL_CUDA_ON_CPU_CACHE")
    root = HERE.parents[2]
    in_clone = (root / "pyproject.toml").is_file() and os.access(root, os.W_OK)
    if given:
        folder = Path(given)
    elif in_clone:
        folder = root / "build" / "cuda_on_cpu"
    else:
        folder = Path(tempfile.gettempdir()) / f"spiral_cuda_on_cpu_{os.getuid()}"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not in_clone and folder.stat().st_uid != os.getuid():  # objects of another's making would be run
        raise KernelError(f"{folder} belongs to another user; set SPIRAL_CUDA_ON_CPU_CACHE to a folder of yours.")
    return folder


def _command() -> str:
    reason = unavailable()
    if reason is not None:
        raise KernelBuildError(reason)
    command = compiler()
    assert command is not None
    return command


@functools.cache
def _version(command: str) -> str:
    return subprocess.run([command, "-v"], capture_output=True, text=True).stderr


def _has_address_sanitizer() -> bool:
    return hasattr(ctypes.CDLL(None), "__asan_unpoison_memory_region")
