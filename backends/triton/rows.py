"""Blocks that hold rows of consecutive elements: what kernels along the last axis have in common."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import triton.language as tl

from spiral.backends.triton.arrays import NAMES
from spiral.backends.triton.launching import TritonKernel
from spiral.dtype import FLOATS, float64

SIZES = ((8, 128, 4, False), (1, 1024, 4, False), (1, 4096, 8, False), (1, 4096, 8, True))
"""Rows of a program, elements of a block, warps, and whether longer rows are read block after block."""

WIDE = {d: tl.float64 if d is float64 else tl.float32 for d in FLOATS}
"""What arithmetic on a dtype runs in."""
WIDE_NAME = {d: "fp64" if d is float64 else "fp32" for d in FLOATS}

Sized = list[tuple[int, int, TritonKernel]]
"""The longest rows, how many of them a program has, and the kernel for these."""


def sized(fn: Any, params: Mapping[str, str], divisible: tuple[str, ...] = ("n",)) -> dict[Any, Sized]:
    """The kernels of a function for all floating dtypes.

    Args:
        fn: with the constants WIDE, K, BLOCK and LOOP.
        params: types; ``*`` stands for an array of the dtype, ``wide`` for a number of the wide one, ``*wide`` for an
            array of these.
        divisible: see `TritonKernel`.
    """
    made: dict[Any, Sized] = {}
    for d in FLOATS:
        names = {"*": f"*{NAMES[d]}", "wide": WIDE_NAME[d], "*wide": f"*{WIDE_NAME[d]}"}
        types = {p: names.get(kind, kind) for p, kind in params.items()}
        made[d.numpy] = [
            (
                2**31 - 1 if loop else block,
                k,
                TritonKernel(
                    fn,
                    types,
                    {"WIDE": WIDE[d], "K": k, "BLOCK": block, "LOOP": loop},
                    divisible=divisible,
                    num_warps=warps,
                ),
            )
            for k, block, warps, loop in SIZES
        ]
    return made


def for_rows(kernels: Sized, rows: int, n: int) -> tuple[TritonKernel, tuple[int, int, int]]:
    """The kernel for rows of n elements, and its grid."""
    for most, k, kernel in kernels:
        if n <= most:
            return kernel, (-(-rows // k), 1, 1)
    raise AssertionError("unreachable: rows are shorter than 2**31")
