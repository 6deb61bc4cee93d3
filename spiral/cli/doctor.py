"""``spiral doctor``: what this installation can do, and what slows it down."""

from __future__ import annotations

import argparse
import ctypes
import importlib.util
import json
import os
import platform
import shutil
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

HELP = "what this installation can do here, and what slows it down"
EXAMPLES = (
    "spiral doctor", "spiral doctor --json", "spiral doctor --kernels", "spiral doctor --kernels rms_norm",
    "spiral doctor --kernels softmax --try",
)  # fmt: skip

# distribution, module, what is not possible without it, how to get it; None: spiral cannot be imported without
_PACKAGES: tuple[tuple[str, str, str | None, str], ...] = (
    ("numpy", "numpy", None, ""),
    ("ml_dtypes", "ml_dtypes", None, ""),
    ("safetensors", "safetensors", "saving weights and checkpoints", "pip install safetensors"),
    ("gguf", "gguf", "reading and writing GGUF files", "pip install gguf"),
    ("rich", "rich", "`spiral train` and `spiral demo`: progress in the terminal", "pip install rich"),
    ("pyyaml", "yaml", "configuration files and settings on the command line", "pip install pyyaml"),
    ("tokenizers", "tokenizers", "tokenizers: training on text, reading models", "pip install 'spiral[text]'"),
    ("matplotlib", "matplotlib", "the loss curve as PNG", "pip install 'spiral[plot]'"),
    ("scipy-openblas32", "scipy_openblas32", "the faster BLAS where spiral's own GEMM has no kernel; NumPy's is used",
     "pip install scipy-openblas32"),
    ("cupy", "cupy", "NVIDIA GPUs", "pip install cupy-cuda13x"),
    ("triton", "triton", "the Triton backend of NVIDIA GPUs", "pip install triton"),
    ("nvidia-ml-py", "pynvml", "memory and load of GPUs in `spiral doctor`", "pip install nvidia-ml-py"),
    ("torch", "torch", "nothing: only tests and benchmarks compare with it", "pip install torch"),
)  # fmt: skip
# environment variable, and what it does to speed or choice
_COSTLY = {
    "OPENBLAS_CORETYPE": "costs speed: makes OpenBLAS take the kernels of the processor it names instead of this "
    "one's; the benchmarks remove it for every competitor",
    "OPENBLAS_L2_SIZE": "costs speed: makes OpenBLAS cut its blocks for a cache that may not be this processor's; "
    "the benchmarks remove it for every competitor",
    "SPIRAL_ISA": "pins the instruction set of the kernels",
    "SPIRAL_FALLBACK": "changes what happens where no kernel fits",
    "SPIRAL_NUM_THREADS": "sets spiral's number of threads",
    "OMP_NUM_THREADS": "sets threads of other libraries, and of spiral unless SPIRAL_NUM_THREADS is set",
    "OPENBLAS_NUM_THREADS": "sets the threads of NumPy's OpenBLAS",
    "OMP_WAIT_POLICY": "may keep other libraries' threads spinning against spiral's",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument(
        "--kernels", nargs="?", const="", metavar="OP", help="every kernel on every device (of one op), and why not it"
    )
    parser.add_argument(
        "--try", action="store_true", dest="attempt", help="with --kernels: run each once first; GPUs' are built for it"
    )


def run(arguments: argparse.Namespace) -> int:
    """Look and print."""
    if arguments.kernels is not None:
        return _print_kernels(arguments.kernels, arguments.json, arguments.attempt)
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


def _attempt(device: Any, op: str) -> dict[str, str]:
    """Runs the first sample of each op (of one) on a device, so that what cannot be built is set aside.

    Returns:
        Errors by op, besides those of ops that have no kernel there.
    """
    import spiral as sp
    from spiral.errors import CapabilityError, SpiralError
    from spiral.kernel_status import kernel_status
    from spiral.op import OPS
    from spiral.testing.oracle import samples_of, to_tensor

    failed = {}
    for name in dict.fromkeys(k.op for k in kernel_status(device) if k.dtypes and (not op or k.op == op)):
        inputs, attrs = next(samples_of(OPS[name]))
        try:
            OPS[name].call(*[to_tensor(x, sp.float32, device) for x in inputs], *attrs)
        except CapabilityError:  # its candidates stand in the list with their reasons
            continue
        except SpiralError as error:
            failed[name] = f"{type(error).__name__}: {error}"
    return failed


def _print_kernels(op: str, as_json: bool, attempt: bool) -> int:
    import dataclasses

    import spiral as sp
    from spiral.dispatch import find_op
    from spiral.kernel_status import absent_backends, kernel_status

    if op:
        find_op(op)
    absent = absent_backends()
    failed = {str(d): _attempt(d, op) for d in sp.devices()} if attempt else {}
    devices = {str(d): [k for k in kernel_status(d) if not op or k.op == op] for d in sp.devices()}
    if as_json:
        rows = {d: [dataclasses.asdict(k) for k in found] for d, found in devices.items()}
        print(json.dumps({"unavailable": absent, "devices": rows, "failed": failed}, indent=1))
        return 0
    for name, reason in absent.items():
        print(f"{name}: unavailable: {reason}")
    for device, found in devices.items():
        print(f"{device}, for float32 inputs")
        for k in found:
            takes = f"  [{', '.join(k.dtypes)}{'; ' + k.guard if k.guard else ''}]" if k.dtypes else ""
            print(f"  {k.op:<24} {k.backend:<14} {k.status}{takes}")
        for name, error in failed.get(device, {}).items():
            print(f"  {name:<24} fails: {error}")
    return 0


def report() -> dict[str, dict[str, Any]]:
    """Everything the command shows, by section."""
    import spiral as sp
    from spiral import storage

    native = storage.native
    present = {name: _version(name, module) for name, module, _, _ in _PACKAGES}
    return {
        "versions": {
            "spiral": sp.__version__,
            "python": platform.python_version(),
            "system": f"{platform.system()} {platform.machine()}",
            **{name: found or "not installed" for name, found in present.items()},
        },
        "missing": {
            name: f"without it: {purpose}; {remedy}"
            for name, _, purpose, remedy in _PACKAGES
            if purpose and not present[name]
        },
        "processor": {
            "cores": os.cpu_count(),
            "cores allowed": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
            "threads used": sp.get_num_threads(),
            "instruction sets": ", ".join(storage.built_isas()) or "none built",
            "kernels": f"C++ for {_ask(native, 'isa')}" if native else f"NumPy only: {storage.native_reason}",
            "gemm kernel": _ask(native, "gemm_kernel") if native else "NumPy's BLAS",
            "OpenBLAS core": _openblas_core(),
            "NumPy's BLAS": _numpy_blas(),
            "compiler": shutil.which(os.environ.get("CXX", "c++").split()[0])
            or "none found: building from source gives the NumPy kernels only",
        },
        "backends": {name: _state(entry) for name, entry in sp.backends().items()},
        **_gpus(),
        **_set_aside(),
        **_plugins(),
        "environment": {
            name: f"{os.environ[name]!r}: {cost}" for name, cost in _COSTLY.items() if os.environ.get(name)
        },
    }


def _gpus() -> dict[str, dict[str, Any]]:
    """Facts of each device other than the CPU."""
    import spiral as sp
    from spiral.backend import Unavailable
    from spiral.gpu.nvml import readings

    found: dict[str, dict[str, Any]] = {}
    for device in sp.devices():
        if device.type == "cpu":
            continue
        facts = {k.replace("_", " "): v for k, v in device.facts.items()}
        cc = device.facts.get("cc", 0)
        if cc:
            facts["number formats"] = ", ".join(
                ["float32", "float16", *(["bfloat16", "tf32"] if cc >= 80 else []), *(["fp8"] if cc >= 89 else [])]
            )
        if device.type == "cuda":
            from spiral.gpu.tuning import status

            facts["tuning"] = "; ".join(f"{path}: {text}" for path, text in status(device.memory.driver).items())
            facts["tuning"] = facts["tuning"] or "no table: the heuristics"
        if device.type == "cuda" and not device.facts.get("on_processor"):
            more = readings(device.facts.get("uuid", device.index))
            facts.update({"NVML": more.reason} if isinstance(more, Unavailable) else more)
        found[f"device {device}"] = {k: _bytes(v) if "memory" in k else v for k, v in facts.items()}
    return found


def _set_aside() -> dict[str, dict[str, str]]:
    """Kernels that could not be built in this process, with what the compiler or driver says."""
    from spiral.set_aside import kernels_set_aside

    found = {
        f"{one.kernel.op} ({one.backend}, {one.device}, {', '.join(sorted(d.name for d in one.dtypes))})": one.reason
        for one in kernels_set_aside()
    }
    return {"kernels set aside": found} if found else {}


def _bytes(value: Any) -> str:
    return f"{value / 2**30:.1f} GiB" if value >= 2**30 else f"{value / 2**10:.0f} KiB"


def _plugins() -> dict[str, dict[str, str]]:
    """The plugins that are loaded, and those that could not be."""
    from spiral.plugin import init_plugin_system
    from spiral.plugin.validation import registered

    registry = init_plugin_system()
    loaded = {}
    for metadata in registry.list_plugins():
        found = registry.loaded(metadata.id)
        counts = ", ".join(f"{len(names)} {kind}" for kind, names in registered(found).items())
        loaded[metadata.id] = f"{metadata.version}, {found.origin}" + (f": {counts}" if counts else "")
    return {
        "plugins": loaded,
        "plugins in quarantine": {
            q.name: f"{' '.join(q.reason.split())} (spiral plugin explain {q.name})"
            for q in registry.quarantine.values()
        },
    }


def _version(distribution: str, module: str) -> str | None:
    """The version of a package that can be imported; None where it cannot."""
    if importlib.util.find_spec(module) is None:
        return None
    try:
        return version(distribution)
    except PackageNotFoundError:  # cupy's distributions are named after the CUDA version
        return "installed"


def _openblas_core() -> str:
    """The processor whose kernels OpenBLAS has chosen, as the library itself says it."""
    candidates = [importlib.util.find_spec("scipy_openblas32"), importlib.util.find_spec("numpy")]
    for spec in candidates:
        if spec is None or spec.origin is None:
            continue
        package = Path(spec.origin).parent
        for folder in (package / "lib", package.parent / "numpy.libs"):
            for library in sorted(folder.glob("*openblas*.so*")) if folder.is_dir() else []:
                loaded = ctypes.CDLL(str(library))
                for name in ("scipy_openblas_get_corename", "scipy_openblas_get_corename64_", "openblas_get_corename"):
                    if hasattr(loaded, name):
                        get = getattr(loaded, name)
                        get.restype = ctypes.c_char_p
                        return f"{get().decode()} ({library.name})"
    return "unknown: no OpenBLAS library was found"


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
