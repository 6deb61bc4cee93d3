"""Triton's compiler as one function: a decorated function goes in, a cubin with what a launch needs comes out.

Everything of Triton's that is not public and has to do with compiling is used here and nowhere else; read and tried on
3.6.0, 3.7.0, 3.8.0 and 3.9.0. What all four do alike, from ``CudaLauncher`` in ``triton/backends/nvidia/driver.py``:

- the parameters of the compiled kernel are the function's own without its constants, in order, then two hidden
  addresses, global scratch and profile scratch, null where their sizes are 0;
- a block has 32 * num_warps threads, the cluster attributes are set only for num_ctas > 1, and cooperative and
  programmatic launches only on request: none of which is asked for here, so all are refused.

A kernel whose PTX has another number of parameters than that is refused, whatever the version.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from triton.runtime.interpreter import InterpretedFunction

from spiral.errors import KernelBuildError, KernelError

HIDDEN = 2
"""Addresses that Triton adds to a kernel's parameters: global scratch, then profile scratch."""


@dataclass(frozen=True)
class Options:
    """How a kernel is compiled."""

    num_warps: int = 4
    num_stages: int = 2
    fp_fusion: bool = True
    maxnreg: int | None = None


@dataclass(frozen=True)
class Compiled:
    """A kernel for one architecture.

    Attributes:
        name: of its entry in the cubin.
        cubin: the image.
        shared: bytes of dynamic shared memory of a block.
        threads: of a block.
        scratch: bytes of global scratch for each block of the grid, usually 0.
    """

    name: str
    cubin: bytes
    shared: int
    threads: int
    scratch: int


def is_interpreted(fn: Any) -> bool:
    """Whether ``@triton.jit`` has made an interpreted function, because TRITON_INTERPRET=1 was set."""
    return isinstance(fn, InterpretedFunction)


def compile_kernel(
    fn: Any, params: Mapping[str, str], constants: Mapping[str, Any], aligned: frozenset[str], cc: int, options: Options
) -> Compiled:
    """Compiles a decorated function for a compute capability (times ten); needs no driver.

    Args:
        fn: result of ``@triton.jit``.
        params: type of each parameter that is no constant, as Triton spells it.
        constants: values of the ``tl.constexpr`` parameters.
        aligned: parameters that are multiples of 16 at every launch.
        cc: 90 for sm_90.
        options: how.

    Raises:
        KernelBuildError: Triton refuses the function, or the result wants something of its launch that we do not do.
    """
    if is_interpreted(fn):
        raise KernelError(f"{fn.__name__}: cannot be compiled where TRITON_INTERPRET=1 was set when it was decorated.")
    signature = {name: params.get(name, "constexpr") for name in fn.arg_names}
    attributes = {(i,): [["tt.divisibility", 16]] for i, name in enumerate(fn.arg_names) if name in aligned}
    wanted = {
        "num_warps": options.num_warps,
        "num_stages": options.num_stages,
        "enable_fp_fusion": options.fp_fusion,  # the default differs between versions
        "maxnreg": options.maxnreg,
    }
    try:
        kernel = triton.compile(
            ASTSource(fn, signature, dict(constants), attributes), target=GPUTarget("cuda", cc, 32), options=wanted
        )
    except Exception as error:  # Triton raises errors of its own, RuntimeError, AssertionError, ValueError ...
        raise KernelBuildError(
            f"{fn.__name__}: Triton {triton.__version__} cannot compile it for sm_{cc}:\n{error}"
        ) from error
    metadata = kernel.metadata
    _check_launch(fn.__name__, metadata)
    if "ptx" in kernel.asm:  # missing with TRITON_STORE_BINARY_ONLY=1
        _check_parameters(metadata.name, kernel.asm["ptx"], len(params) + HIDDEN)
    return Compiled(
        metadata.name, kernel.kernel, metadata.shared, metadata.num_warps * metadata.warp_size, _scratch(metadata)
    )


def _check_launch(name: str, metadata: Any) -> None:
    """Refuses what `compile_kernel`'s callers do not do at a launch."""
    for what, default in (("num_ctas", 1), ("launch_pdl", False), ("launch_cooperative_grid", False)):
        value = getattr(metadata, what)
        if value != default:
            raise KernelBuildError(f"{name}: launches with {what} = {default!r} only; it was compiled with {value!r}.")
    if metadata.profile_scratch_size:
        raise KernelBuildError(
            f"{name}: is compiled for a profiler (profile scratch); switch Triton's instrumentation off."
        )
    if metadata.tensordesc_meta:
        raise KernelBuildError(
            f"{name}: takes tensor descriptors, which are not supported; pass addresses and strides."
        )


def _check_parameters(name: str, ptx: str, expected: int) -> None:
    entry = re.search(rf"\.entry {re.escape(name)}\(([^)]*)\)", ptx)
    received = -1 if entry is None else entry.group(1).count(".param")
    if received != expected:
        raise KernelBuildError(
            f"{name}: expected {expected} parameters, {HIDDEN} of them hidden, in what Triton {triton.__version__} "
            f"compiled; received {received}. Is instrumentation (TRITON_INSTRUMENTATION_MODE) on?"
        )


def _scratch(metadata: Any) -> int:
    """Bytes per block, so that every block's part stays aligned (our allocations are aligned to 256)."""
    size, align = int(metadata.global_scratch_size), int(metadata.global_scratch_align)
    if size and align > 256:
        raise KernelBuildError(f"{metadata.name}: global scratch is aligned to 256 bytes at most; it wants {align}.")
    return size


def resources(cubin: bytes) -> tuple[int, int]:
    """Registers of a thread, and bytes of local memory that it spills to, as ``cuobjdump -res-usage`` reports them.

    Triton's kernels have no local arrays: there is a stack frame if and only if registers were spilled. It holds a few
    bytes more than ``ptxas -v`` counts as spilled (72 for 56, 272 for 248); the registers are the same.
    """
    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    with tempfile.TemporaryDirectory() as folder:
        image = Path(folder) / "kernel.cubin"
        image.write_bytes(cubin)
        done = subprocess.run([tool, "-res-usage", image], capture_output=True, text=True)
    found = re.search(r"REG:(\d+) STACK:(\d+) .*?LOCAL:(\d+)", done.stdout)
    if done.returncode or found is None:
        raise KernelError(f"cuobjdump -res-usage failed with {done.returncode}:\n{done.stdout}{done.stderr}")
    registers, stack, local = map(int, found.groups())
    return registers, stack + local
