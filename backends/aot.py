"""Every GPU kernel compiled ahead of time, without a GPU, and what it takes of a multiprocessor.

    python -m spiral.backends.aot          # what has changed, for all targets; updates kernels/resources.json
    python -m spiral.backends.aot --all --arch sm_90 --only norm
    python -m spiral.backends.aot --heuristics    # only the launch configurations that no device has measured

The committed table holds, for each target and file, a digest of the sources and for each kernel its registers per
thread, the bytes of local memory that it has and the bytes of static shared memory. `make test` checks the
digests, so the table cannot be of other sources, and compiles one configuration of each kernel.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from spiral.backends.cuda import families
from spiral.backends.cuda.launching import SOURCES
from spiral.errors import KernelError
from spiral.gpu import nvrtc, tuning
from spiral.gpu.sources import CUDA_FOLDER, digest, triton_digest, with_includes

TARGETS = ("sm_80", "sm_90", "sm_100")
TABLE = CUDA_FOLDER.parent / "resources.json"
NAMES_AT_ONCE = 64
"""Kernels in one NVRTC program: its passes over the whole program take longer than the kernels' sum."""
Resources = tuple[int, int, int]
"""Registers per thread, bytes of local memory per thread (see `spilled`), bytes of shared memory per block."""

# sin, cos and tan of CUDA keep 32 or 40 bytes in an array while they reduce a large angle: no spilled register
_ARRAYS = re.compile(r"unary<spiral::(Sin|Cos|Tan),|FN=circular")


def spilled(name: str, found: Resources | list[int]) -> int:
    """Bytes of local memory of a kernel that registers were spilled to."""
    return 0 if _ARRAYS.search(name) and found[1] <= 40 else found[1]


_USAGE = re.compile(r"Function (\S+):\s*REG:(\d+) STACK:(\d+) SHARED:(\d+) LOCAL:(\d+)")


@cache
def cuda_sources() -> dict[str, tuple[str, ...]]:
    """The CUDA C++ files with the kernels asked of them."""
    families()
    return {file: source.wanted().names for file, source in sorted(SOURCES.items())}


def cuda_digest(file: str) -> str:
    """Digest of a CUDA C++ file, what it includes, and the compiler's options."""
    return digest(with_includes(CUDA_FOLDER / file, CUDA_FOLDER), *nvrtc.OPTIONS)


def compile_cuda(file: str, names: tuple[str, ...], arch: str) -> dict[str, Resources]:
    """Compiles kernels of a file; gives what each takes."""
    made = nvrtc.compile_cubin(CUDA_FOLDER / file, names, arch)
    found = resources_of(next(iter(made.values()))[1])
    return {name: found[lowered] for name, (lowered, _) in made.items()}


def one_of_each(names: tuple[str, ...]) -> tuple[str, ...]:
    """The first instance of each template among name expressions."""
    first: dict[str, str] = {}
    for name in names:
        first.setdefault(name.partition("<")[0], name)
    return tuple(first.values())


def resources_of(image: bytes) -> dict[str, Resources]:
    """What each function of a cubin takes, as ``cuobjdump -res-usage`` reports it.

    Raises:
        KernelError: the tool, which comes with Triton, is missing or fails.
    """
    import triton

    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kernels.cubin"
        path.write_bytes(image)
        done = subprocess.run([tool, "-res-usage", path], capture_output=True, text=True)
    if done.returncode:
        raise KernelError(f"cuobjdump -res-usage failed with {done.returncode}:\n{done.stdout}{done.stderr}")
    return {
        name: (int(registers), int(stack) + int(local), int(shared))
        for name, registers, stack, shared, local in _USAGE.findall(done.stdout)
    }


# ---------------------------------------------------------------- Triton
@cache
def triton_kernels() -> dict[str, list[Any]]:
    """Declared Triton kernels by the file of ``kernels/triton`` that holds what they compute.

    That is the kernel's file or, where a function is among its constants, that function's.
    """
    from spiral.backends import triton as backend
    from spiral.backends.triton.launching import KERNELS

    backend.families()
    found: dict[str, list[Any]] = defaultdict(list)
    for kernel in KERNELS:
        computes = next((v for v in kernel.constants.values() if hasattr(v, "fn")), kernel.fn)
        found[Path(sys.modules[computes.fn.__module__].__file__ or "").name].append(kernel)
    return dict(sorted(found.items()))


def compile_triton(
    kernels: list[Any], arch: str, variants: tuple[bool, ...] = (True, False)
) -> Iterator[tuple[str, Resources]]:
    """Compiles variants of kernels (aligned or not); gives name and what it takes."""
    for kernel in kernels:
        for aligned in kernel.variants if len(kernel.variants) == 1 else variants:
            made = kernel.compile(int(arch[3:]), aligned)
            ((registers, local, _),) = resources_of(made.cubin).values()
            yield f"{kernel.name}{' aligned' if aligned else ''}", (registers, local, made.shared)


# ---------------------------------------------------------------- the table
def source_of(file: str) -> str:
    """Digest of a file of either language."""
    return cuda_digest(file) if file.endswith(".cu") else triton_digest(file)


def names_of(file: str) -> set[str]:
    """The configurations that the table must hold for a file."""
    if file.endswith(".cu"):
        return set(cuda_sources()[file])
    kernels = triton_kernels()[file]
    return {f"{k.name}{' aligned' if aligned else ''}" for k in kernels for aligned in k.variants}


def compile_file(arch: str, file: str) -> tuple[str, str, dict[str, Any], float]:
    """Every configuration of a file for a target, as the table holds it, and the seconds it took."""
    start, source = time.perf_counter(), source_of(file)
    if file.endswith(".cu"):
        names = cuda_sources()[file]
        found: dict[str, Resources] = {}
        for first in range(0, len(names), NAMES_AT_ONCE):
            found |= compile_cuda(file, names[first : first + NAMES_AT_ONCE], arch)
    else:
        found = dict(compile_triton(triton_kernels()[file], arch))
    entry = {"source": source, "kernels": {name: list(r) for name, r in sorted(found.items())}}
    return arch, file, entry, time.perf_counter() - start


def _tell(arch: str, file: str, kernels: dict[str, list[int]], seconds: float) -> None:
    spilling = {name: r[1] for name, r in kernels.items() if spilled(name, r)}
    most = max(r[0] for r in kernels.values())
    print(
        f"{arch:<7} {file:<16} {len(kernels):>4} kernels, at most {most:>3} registers, {len(spilling)} spill, "
        f"{seconds:.0f} s",
        flush=True,
    )
    for name, nbytes in spilling.items():
        print(f"    {name}: {nbytes} bytes")


def read_table() -> dict[str, dict[str, Any]]:
    """The committed table: target -> file -> digest and kernels."""
    found: dict[str, dict[str, Any]] = json.loads(TABLE.read_text()) if TABLE.exists() else {}
    return found


def write_table(table: dict[str, dict[str, Any]]) -> None:
    """Writes the table, a kernel a line."""
    text = json.dumps({arch: dict(sorted(files.items())) for arch, files in sorted(table.items())}, indent=1)
    TABLE.write_text(re.sub(r"\[\s+(\d+),\s+(\d+),\s+(\d+)\s+\]", r"[\1, \2, \3]", text) + "\n")


# ---------------------------------------------------------------- launch configurations
MEASURABLE = (80, 90)
"""Compute capabilities with a table in the package, so that there nobody has to wait for `spiral tune`."""


def write_heuristics() -> None:
    """Rewrites the tables of `spiral.gpu.tuning` that no device has measured, for the sources of now."""
    cuda_sources()
    triton_kernels()
    for cc in MEASURABLE:
        path = tuning.committed_path(cc)
        if not path.exists() or not tuning.read_table(path).verified:
            tuning.write_table(path, f"sm_{cc}", False, tuning.heuristics())


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m spiral.backends.aot", description=__doc__.split("\n\n")[0])
    parser.add_argument("--arch", choices=TARGETS, action="append", help="a target; default: all")
    parser.add_argument("--only", default="", help="files whose name holds this")
    parser.add_argument(
        "--all", action="store_true", help="also files that have not changed since the table was written"
    )
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--heuristics", action="store_true", help="rewrite unmeasured launch configurations, no more")
    options = parser.parse_args()
    write_heuristics()
    if options.heuristics:
        return
    start = time.perf_counter()
    table = read_table()
    files = [f for f in (*cuda_sources(), *triton_kernels()) if options.only in f]
    work = []
    for arch in options.arch or TARGETS:
        known = table.setdefault(arch, {})
        for gone in set(known) - {*cuda_sources(), *triton_kernels()}:
            del known[gone]
        for file in files:
            old = known.get(file, {})
            if options.all or old.get("source") != source_of(file) or set(old["kernels"]) != names_of(file):
                work.append((arch, file))
    count = 0
    with ProcessPoolExecutor(options.processes, get_context("spawn")) as pool:
        for done in as_completed([pool.submit(compile_file, *one) for one in work]):
            arch, file, entry, seconds = done.result()
            table[arch][file] = entry
            count += len(entry["kernels"])
            _tell(arch, file, entry["kernels"], seconds)
            write_table(table)
    print(f"{count} configurations of {len(work)} files in {time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
