"""What a measurement ran on: versions, kernels, the processor."""

from __future__ import annotations

import ctypes
import importlib.metadata
import os
import platform
import subprocess
import sys
from pathlib import Path


def processor() -> str:
    """The processor's model name and the number of CPUs this process may use."""
    name = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        fields = [line.split(":", 1) for line in info.read_text().splitlines() if ":" in line]
        found = {key.strip(): value.strip() for key, value in fields}
        name = found.get("model name", name)
        if "model" in found:
            name += f" (family {found.get('cpu family')}, model {found['model']})"
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{name}, {cpus} CPUs"


def openblas() -> str:
    """Configuration and chosen core of scipy-openblas32, or that it is missing."""
    try:
        import scipy_openblas32  # type: ignore[import-untyped]
    except ImportError:
        return "scipy-openblas32 is not installed"
    folder = Path(scipy_openblas32.get_lib_dir())
    name = scipy_openblas32.get_library()
    found = [p for p in folder.glob(f"*{name}*") if p.suffix in (".so", ".dylib", ".dll")]
    if not found:
        return f"no library {name} in {folder}"
    library = ctypes.CDLL(str(found[0]))
    library.scipy_openblas_get_config.restype = ctypes.c_char_p
    config: bytes = library.scipy_openblas_get_config()
    return config.decode()


def mkl_capability() -> str:
    """What MKL says it runs on, from the first line of MKL_VERBOSE; it has no other way to say it."""
    program = "import torch; a = torch.ones(64, 64); a @ a"
    run = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "MKL_VERBOSE": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    for line in run.stdout.splitlines():
        if line.startswith("MKL_VERBOSE oneMKL"):
            return line.removeprefix("MKL_VERBOSE ")
    return "MKL was not used"


def common_versions() -> dict[str, str]:
    """What every competitor shares."""
    return {
        "python": platform.python_version(),
        "numpy": importlib.metadata.version("numpy"),
        "processor": processor(),
        "system": platform.platform(),
    }


def spiral_versions() -> dict[str, str]:
    """spiral, its instruction set, and what its products run on."""
    import spiral as sp
    from spiral import storage

    native = storage.native
    return {
        "spiral": sp.__version__,
        "spiral ISA": Path(native.__file__).name.split(".")[0].removeprefix("_native_")
        if native
        else storage.native_reason,
        "spiral gemm": str(native.gemm_kernel()) if native else "NumPy",
        "OpenBLAS": openblas(),
    }


def torch_versions() -> dict[str, str]:
    """PyTorch, and the instruction sets that its own kernels and MKL's use."""
    import torch

    has_mkl = torch.backends.mkl.is_available()  # type: ignore[no-untyped-call]
    return {
        "torch": torch.__version__,
        "torch kernels": torch.backends.cpu.get_cpu_capability(),
        "MKL": mkl_capability() if has_mkl else "not built in",
    }
