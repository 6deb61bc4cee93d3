"""What the device is and the most that it gives: versions, copy bandwidth, rates of products.

A part of `benchmarks.gpu`. Both ceilings are measured once, by whichever library does better: a copy counts bytes
read and bytes written, a product 2 mnk operations, on random numbers.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.gpu.ops import prepare_interpreter
from benchmarks.gpu.part import Sink
from benchmarks.gpu.side import Drawn, SpiralSide, TorchSide

_PACKAGES = (
    "numpy", "ml_dtypes", "cupy-cuda13x", "cupy-cuda12x", "torch", "triton", "liger-kernel", "pytest", "pytest-xdist",
    "nvidia-cuda-nvrtc", "nvidia-cuda-nvrtc-cu12", "nvidia-ml-py",
)  # fmt: skip


def versions() -> dict[str, str]:
    """Of the packages that are there, and of Python."""
    found = {"python": platform.python_version(), "system": platform.platform(), "processors": str(os.cpu_count())}
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def best_of(side: Any, run: Callable[[], Any], repeats: int) -> float:
    """The median milliseconds of a run."""
    spent = []
    for _ in range(repeats + 2):
        start = side.mark()
        run()
        end = side.mark()
        side.wait()
        spent.append(side.milliseconds(start, end))
    return float(np.median(spent[2:]))


def copy_bandwidth(side: SpiralSide, nbytes: int, repeats: int) -> float:
    """Bytes per second of a copy within the device, reads and writes counted."""
    gpu = side.driver
    a, b = gpu.allocate(nbytes), gpu.allocate(nbytes)
    gpu.write(a.address, np.random.default_rng(0).integers(0, 256, nbytes, np.uint8))
    return 2e3 * nbytes / best_of(side, lambda: gpu.copy(b.address, a.address, nbytes), repeats)


def product_rate(side: Any, dtype: str, n: int, repeats: int) -> float:
    """Operations per second of a product of square matrices through a framework."""
    rng = np.random.default_rng(0)
    a, b = (side.put(Drawn(rng.standard_normal(n * n, np.float32), (n, n)), dtype) for _ in range(2))
    with side.within():
        return 2e3 * n**3 / best_of(side, lambda: a @ b, repeats)


def ceilings(device: str, quick: bool, put: Callable[..., None]) -> None:
    """Measures both, a line each; a side that cannot is a line with its reason."""
    nbytes, n, repeats = (1 << 20, 16, 3) if quick else (1 << 30, 8192, 20)
    ours = SpiralSide("cuda")
    put(ceiling="copy", by="the driver", bytes_per_second=copy_bandwidth(ours, nbytes, repeats))
    sides: list[Any] = [ours]
    try:
        sides.append(TorchSide("PyTorch", "cuda" if device == "cuda" else "cpu"))
    except ImportError as error:
        put(ceiling="product", by="PyTorch", absent=str(error))
    for side in sides:
        for dtype, size in (("bfloat16", n), ("float32", min(n, 4096))):
            try:
                put(ceiling=f"product {dtype}", by=side.name, flops=product_rate(side, dtype, size, repeats))
            except Exception as error:
                put(ceiling=f"product {dtype}", by=side.name, absent=f"{type(error).__name__}: {error}"[:300])


def main() -> None:
    """Command line of the part."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--found", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--device", choices=("cuda", "processor"), default="cuda")
    parser.add_argument("--quick", action="store_true")
    args = parser.parse_args()
    sink = Sink(args.found)
    sink.put(versions=versions(), date=time.strftime("%Y-%m-%d"))
    prepare_interpreter(args.device)
    side = SpiralSide("cuda")
    facts = side.driver.facts
    sink.put(name=facts.name, cc=facts.cc, memory=facts.memory, driver=facts.driver, compiler=facts.compiler,
             multiprocessors=facts.multiprocessors, more={k: str(v) for k, v in facts.more.items()})  # fmt: skip
    ceilings(args.device, args.quick, sink.put)
    from spiral.cli.doctor import report

    doctor = {k: {a: str(b) for a, b in v.items()} for k, v in report().items()}
    sink.put(doctor={k: v for k, v in doctor.items() if k not in ("plugins", "missing")})


if __name__ == "__main__":
    main()
