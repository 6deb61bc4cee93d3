"""Blocks that hold rows of consecutive elements: what kernels along the last axis have in common."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import triton.language as tl

from spiral.backends.triton.arrays import NAMES
from spiral.backends.triton.launching import TritonKernel
from spiral.backends.triton.tuned import Tuned
from spiral.device_array import DeviceArray
from spiral.dtype import FLOATS, DType, as_dtype, float64
from spiral.gpu.tuning import Key, Trial

SIZES = ((8, 128, 4, False), (1, 1024, 4, False), (1, 4096, 8, False), (1, 4096, 8, True))
"""Rows of a program, elements of a block, warps, and whether longer rows are read block after block."""

WIDE = {d: tl.float64 if d is float64 else tl.float32 for d in FLOATS}
"""What arithmetic on a dtype runs in."""
WIDE_NAME = {d: "fp64" if d is float64 else "fp32" for d in FLOATS}

Sized = list[tuple[int, int, TritonKernel]]
"""The longest rows, how many of them a program has, and the kernel for these."""


LOOPING = ((8, 128, 4, False), (1, 1024, 4, True))
"""The sizes of kernels that read rows of any length block after block."""


def spelled(params: Mapping[str, str], d: DType) -> dict[str, str]:
    """Types of parameters for a dtype; see `sized`."""
    names = {"*": f"*{NAMES[d]}", "wide": WIDE_NAME[d], "*wide": f"*{WIDE_NAME[d]}"}
    return {p: names.get(kind, kind) for p, kind in params.items()}


def warps_of(d: DType, warps: int) -> int:
    """Warps for a dtype: elements of float64 take two registers."""
    return 2 * warps if d is float64 else warps


def sized(
    fn: Any, params: Mapping[str, str], loops: bool = False, more_warps: bool = True, **constants: Any
) -> dict[Any, Sized]:
    """The kernels of a function for all floating dtypes.

    Args:
        fn: with the constants WIDE, K, BLOCK and LOOP.
        params: types; ``*`` stands for an array of the dtype, ``wide`` for a number of the wide one, ``*wide`` for an
            array of these.
        loops: the kernels read rows of any length.
        more_warps: float64 gets twice as many; where a thread needs more than 128 registers, it cannot.
        constants: more of them.
    """
    made: dict[Any, Sized] = {}
    for d in FLOATS:
        types = spelled(params, d)
        made[d.numpy] = [
            (
                2**31 - 1 if loop else block,
                k,
                TritonKernel(
                    fn,
                    types,
                    {"WIDE": WIDE[d], "K": k, "BLOCK": block, "LOOP": loop, **constants},
                    divisible=("n",),
                    num_warps=warps_of(d, warps) if more_warps else warps,
                ),
            )
            for k, block, warps, loop in (LOOPING if loops else SIZES)
        ]
    return made


_MEASURABLE: dict[tuple[int, bool], tuple[tuple[int, int], ...]] = {
    (128, False): ((8, 4), (4, 4), (16, 4), (8, 8)), (1024, False): ((1, 4), (2, 4), (1, 8)),
    (4096, False): ((1, 8), (1, 4), (1, 16)), (4096, True): ((1, 8), (1, 16)),
}  # fmt: skip
"""Rows of a program and warps that `spiral tune` compares, for each block of `SIZES`; the heuristic first."""


def measurable(fn: Any, params: Mapping[str, str], file: str, op: str, inputs: int, attrs: tuple[Any, ...]) -> Tuned:
    """As `sized`, with a choice of rows and warps.

    Args:
        fn: as for `sized`.
        params: as for `sized`.
        file: of ``kernels/triton``.
        op: what `spiral tune` calls.
        inputs: how many arrays of rows it takes.
        attrs: its settings.
    """
    by_name = {d.name: d for d in FLOATS}

    def types(key: Key) -> dict[str, str]:
        return {p: f"*{NAMES[by_name[str(key[0])]]}" if kind == "*" else kind for p, kind in params.items()}

    def trial(key: Key, nbytes: int) -> Trial:
        n = int(key[1]) * (4 if key[2] else 1)
        return Trial(op, (((max(1, nbytes // (4 * n)), n), str(key[0])),) * inputs, attrs)

    return Tuned(
        fn.__name__, fn, types, ("K", "num_warps"),
        {
            (d.name, block, int(loop)): (
                {"WIDE": WIDE[d], "BLOCK": block, "LOOP": loop},
                # fewer warps spill
                tuple(c for c in configs if d is not float64 or block < 4096 or c[1] >= 16),
            )
            for d in FLOATS for (block, loop), configs in _MEASURABLE.items()
        },
        file=file, trial=trial, divisible=("n",),
    )  # fmt: skip


def chosen_for_rows(kernels: Tuned, y: DeviceArray, rows: int, n: int) -> tuple[TritonKernel, tuple[int, int, int]]:
    """The kernel that a device takes for rows of n elements of the dtype of y, and its grid."""
    for block, loop in _MEASURABLE:
        if n <= block or loop:
            kernel = kernels.kernel(y.memory, (as_dtype(y.dtype).name, block, int(loop)))
            return kernel, (-(-rows // kernel.constants["K"]), 1, 1)
    raise AssertionError("unreachable: the last one loops")


def for_rows(kernels: Sized, rows: int, n: int) -> tuple[TritonKernel, tuple[int, int, int]]:
    """The kernel for rows of n elements, and its grid."""
    for most, k, kernel in kernels:
        if n <= most:
            return kernel, (-(-rows // k), 1, 1)
    raise AssertionError("unreachable: rows are shorter than 2**31")
