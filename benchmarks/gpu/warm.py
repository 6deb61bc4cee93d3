"""CUDA C++ kernels compiled side by side into the cache, so that what follows waits for no compiler.

A part of `benchmarks.gpu`. NVRTC compiles one kernel at a time per process; here are as many processes as the machine
has processors, each with a pile of kernels of one file.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path

from benchmarks.gpu.part import Sink

_PILE = 8


def compile_pile(file: str, names: tuple[str, ...], arch: str) -> tuple[str, int, list[str], float]:
    """Compiles kernels into the cache; gives the file, how many, what failed, and seconds."""
    from spiral.errors import KernelError
    from spiral.gpu.kernel_cache import cubin
    from spiral.gpu.sources import CUDA_FOLDER

    began, failed = time.monotonic(), []
    for name in names:
        try:
            cubin(CUDA_FOLDER / file, name, arch)
        except KernelError as error:
            failed.append(f"{name}: {error}"[:500])
    return file, len(names), failed, time.monotonic() - began


def piles(quick: bool) -> Iterator[tuple[str, tuple[str, ...]]]:
    """What there is to compile, files that take long first."""
    from spiral.backends.aot import cuda_sources
    from spiral.gpu.sources import CUDA_FOLDER

    sources = cuda_sources()
    if quick:
        sources = {"copy.cu": sources["copy.cu"][:1]}
    for file in sorted(sources, key=lambda f: -(CUDA_FOLDER / f).stat().st_size):
        names = sources[file]
        for i in range(0, len(names), _PILE):
            yield file, names[i : i + _PILE]


def main() -> None:
    """Command line of the part."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--found", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=120.0)
    parser.add_argument("--arch", default="sm_90")
    parser.add_argument("--quick", action="store_true", help="one kernel")
    args = parser.parse_args()
    sink = Sink(args.found)
    deadline = time.monotonic() + 0.95 * args.seconds
    done, spent, failed = 0, dict[str, float](), list[str]()
    # spawned: a forked process would share the parent's CUDA libraries
    with ProcessPoolExecutor(os.cpu_count() or 1, mp_context=get_context("spawn")) as pool:
        waiting = [pool.submit(compile_pile, file, names, args.arch) for file, names in piles(args.quick)]
        for future in as_completed(waiting, timeout=max(1.0, deadline - time.monotonic())):
            file, count, wrong, seconds = future.result()
            done += count
            spent[file] = spent.get(file, 0.0) + seconds
            failed += wrong
    sink.put(compiled=done, failed=failed, processes=os.cpu_count(),
             seconds_by_file={f: round(s, 1) for f, s in sorted(spent.items(), key=lambda p: -p[1])})  # fmt: skip


if __name__ == "__main__":
    main()
