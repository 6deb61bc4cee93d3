"""``spiral doctor``: what this installation can do, and what slows it down."""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
from importlib.metadata import PackageNotFoundError, version
from typing import Any

HELP = "what this installation can do here, and what slows it down"
EXAMPLES = ("spiral doctor", "spiral doctor --json")

_PACKAGES = (
    "numpy",
    "ml_dtypes",
    "scipy-openblas32",
    "tokenizers",
    "safetensors",
    "gguf",
    "rich",
    "matplotlib",
    "cupy",
)
# environment variable, and what it does to speed or choice
_COSTLY = {
    "OPENBLAS_CORETYPE": "makes OpenBLAS take kernels of the processor it names instead of this one's",
    "SPIRAL_ISA": "pins the instruction set of the kernels",
    "SPIRAL_FALLBACK": "changes what happens where no kernel fits",
    "SPIRAL_NUM_THREADS": "limits spiral's threads",
    "OMP_NUM_THREADS": "limits threads, also spiral's unless SPIRAL_NUM_THREADS is set",
    "OMP_WAIT_POLICY": "may keep other libraries' threads spinning against spiral's",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(arguments: argparse.Namespace) -> int:
    """Look and print."""
    found = report()
    if arguments.json:
        print(json.dumps(found, indent=1))
        return 0
    for section, values in found.items():
        print(section)
        for key, value in values.items():
            print(f"  {key:<22} {value}")
        if not values:
            print("  none")
    return 0


def report() -> dict[str, dict[str, Any]]:
    """Everything the command shows, by section."""
    import spiral as sp
    from spiral import storage

    native = storage.native
    return {
        "versions": {
            "spiral": sp.__version__,
            "python": platform.python_version(),
            "system": f"{platform.system()} {platform.machine()}",
            **{name: _version(name) for name in _PACKAGES},
        },
        "processor": {
            "cores": os.cpu_count(),
            "threads used": sp.get_num_threads(),
            "kernels": f"C++ for {_ask(native, 'isa')}" if native else f"NumPy only: {storage.native_reason}",
            "gemm kernel": _ask(native, "gemm_kernel") if native else "NumPy's BLAS",
            "NumPy's BLAS": _numpy_blas(),
            "compiler": shutil.which(os.environ.get("CXX", "c++").split()[0])
            or "none found: building from source gives the NumPy kernels only",
        },
        "backends": {name: _state(entry) for name, entry in sp.backends().items()},
        "environment": {
            name: f"{os.environ[name]!r}: {cost}" for name, cost in _COSTLY.items() if os.environ.get(name)
        },
    }


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _ask(native: Any, name: str) -> str:
    """A fact that the extension tells as a value or through a function."""
    fact = getattr(native, name, "unknown")
    return str(fact() if callable(fact) else fact)


def _numpy_blas() -> str:
    import numpy as np

    blas = np.show_config(mode="dicts")["Build Dependencies"]["blas"]
    return f"{blas.get('name', 'unknown')} {blas.get('version', '')}".strip()


def _state(entry: Any) -> str:
    if entry.unavailable is not None:
        reason = entry.unavailable.reason.strip().splitlines()[-1]
        remedy = f"; {entry.unavailable.remedy}" if entry.unavailable.remedy else ""
        return f"unavailable: {reason}{remedy}"
    devices = ", ".join(device.name or device.type for device in entry.devices)
    return f"{len(entry.kernels)} ops on {devices}"
