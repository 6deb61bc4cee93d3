"""Launching the kernels of ``elementwise.cuh``: operands of any strides, numbers in place of operands.

A launch here costs one look-up of a packed layout by the operands' shapes and strides: 0.3 µs; making one costs 15.
"""

from __future__ import annotations

import functools
import struct
from typing import Any

import numpy as np

from spiral.backends.cuda.arrays import BITS, NAMES, THREADS, cast, dense, layout, layout_format
from spiral.backends.cuda.launching import CudaKernel, Source
from spiral.device_array import DeviceArray
from spiral.dtype import ALL, FLOATS, DType, as_dtype, bool_

BLOCK = (THREADS, 1, 1)
ROUNDS = 2
"""Runs of elements per thread, as in ``elementwise.cuh``."""
LIMIT = 2**31
"""Elements from which on a launch is cut in two: the kernels count in 32 bits."""

FLOATING = {d: NAMES[d] for d in FLOATS}
FLOATING_BITS = {d: BITS[d.itemsize] for d in FLOATS}
INTEGER = {d: NAMES[d] for d in ALL if d.kind in ("int", "uint")}
SIGNED = {d: NAMES[d] for d in ALL if d.kind == "int"}
INTEGER_BITS = {d: BITS[d.itemsize] for d in INTEGER}
"""Integers where the sign does not matter: half as many kernels."""
TRUTH = {bool_: BITS[1]}

ORDER = ("float", "spiral::bf16", "spiral::f16", "double", *BITS.values(), *NAMES.values())
"""Kernels are named to their `Source` type after type: the runner of the tests compiles neighbours at once."""

Function = tuple[str, str]
"""A structure of the CUDA C++ file and the element type that it runs on."""


def by(functor: str, types: dict[DType, str]) -> dict[DType, Function]:
    """One function for several dtypes."""
    return {d: (f"spiral::{functor}", name) for d, name in types.items()}


def run_length(*itemsizes: int) -> int:
    """Elements of a thread's run: ``run_length`` of ``elementwise.cuh``."""
    return 16 // max(itemsizes) if max(itemsizes) > 2 else 8


class Elementwise:
    """A kernel over operands of one dtype.

    Attributes:
        kernel: its instance.
        dtype: what operands are cast to.
        per_block: elements that a block makes.
    """

    __slots__ = ("dtype", "kernel", "numpy", "per_block")

    def __init__(self, kernel: CudaKernel, dtype: DType, out: DType) -> None:
        self.kernel = kernel
        self.dtype = dtype
        self.numpy = dtype.numpy
        self.per_block = THREADS * ROUNDS * run_length(dtype.itemsize, out.itemsize)


def instances(
    source: Source, arity: int, table: dict[str, dict[DType, Function]], out: DType | None = None
) -> dict[str, dict[np.dtype[Any], Elementwise]]:
    """The kernels of ops.

    Args:
        source: the CUDA C++ file.
        arity: 1 or 2 operands.
        table: op -> dtype of the operands -> function.
        out: dtype of the results; None: the operands'.
    """
    made: dict[Function, CudaKernel] = {}
    for function in sorted(
        {f for row in table.values() for f in row.values()}, key=lambda f: (ORDER.index(f[1]), f[0])
    ):
        name, element = function
        result = element if out is None else NAMES[out]
        number = "d" if element in FLOATING.values() else "Q"
        operands = ("P",) if arity == 1 else ("P", "P")
        numbers = () if arity == 1 else (number,)
        made[function] = source.kernel(
            f"spiral::{'unary' if arity == 1 else 'binary'}<{name}, {element}, {result}>",
            *operands, "P", "I", *numbers, packed_format(arity),
        )  # fmt: skip
    return {op: {d.numpy: Elementwise(made[f], d, out or d) for d, f in row.items()} for op, row in table.items()}


def packed_format(operands: int) -> str:
    """The `struct` format of a packed layout."""
    return f"{struct.calcsize('@' + layout_format(operands))}s"


@functools.lru_cache(4096)
def packed_layout(shape: tuple[int, ...], *operands: tuple[int, ...]) -> bytes | None:
    """A ``Layout`` over a result's axes as bytes, or None where more than 8 axes do not merge.

    Args:
        shape: of the result.
        operands: shape and strides of each operand, in turn; it is broadcast.
    """
    n = len(shape)
    strides = []
    for own, steps in zip(operands[::2], operands[1::2], strict=True):
        lead = n - len(own)
        strides.append((0,) * lead + tuple([s if d != 1 else 0 for d, s in zip(own, steps, strict=True)]))
    values = layout(shape, *strides)
    return None if values is None else struct.pack("@" + layout_format(len(strides)), *values)


def unary(e: Elementwise, x: DeviceArray, y: DeviceArray) -> None:
    """y = f(x), where y is dense and has the shape of x."""
    n = y.size
    if not 0 < n < LIMIT:
        if n:
            for part, (a,) in halves(y, x):
                unary(e, a, part)
        return
    if x.dtype != e.numpy:
        x = cast(x, e.dtype)
    where = packed_layout(y.shape, x.shape, x.strides)
    if where is None:
        unary(e, dense(x), y)
        return
    e.kernel(y.memory, (-(-n // e.per_block), 1, 1), BLOCK, x.address, y.address, n, where)


def binary(e: Elementwise, x: Any, y: Any, z: DeviceArray) -> None:
    """z = f(x, y), where z is dense, of the shape that the operands broadcast to; one operand may be a number."""
    n = z.size
    if not 0 < n < LIMIT:
        if n:
            for part, (a, b) in halves(z, x, y):
                binary(e, a, b, part)
        return
    number: Any = 0
    if type(x) is DeviceArray:
        if x.dtype != e.numpy:
            x = cast(x, e.dtype)
        a, a_shape, a_strides = x.address, x.shape, x.strides
    else:
        number, a, a_shape, a_strides = x, 0, (), ()
    if type(y) is DeviceArray:
        if y.dtype != e.numpy:
            y = cast(y, e.dtype)
        b, b_shape, b_strides = y.address, y.shape, y.strides
    else:
        number, b, b_shape, b_strides = y, 0, (), ()
    where = packed_layout(z.shape, a_shape, a_strides, b_shape, b_strides)
    if where is None:
        binary(e, spread(x, z), spread(y, z), z)
        return
    e.kernel(z.memory, (-(-n // e.per_block), 1, 1), BLOCK, a, b, z.address, n, number, where)


def spread(x: Any, z: DeviceArray) -> Any:
    """An operand as a dense array of the result's shape; a number stays one."""
    return dense(x.broadcast_to(z.shape)) if type(x) is DeviceArray else x


def halves(z: DeviceArray, *operands: Any) -> Any:
    """A dense result in two dense parts along its first axis, each with the operands' parts."""
    axis = next(i for i, d in enumerate(z.shape) if d > 1)
    middle = z.shape[axis] // 2
    wide = [x.broadcast_to(z.shape) if type(x) is DeviceArray else x for x in operands]
    for part in (slice(None, middle), slice(middle, None)):
        at = (*(slice(None),) * axis, part)
        yield z[at], [x[at] if type(x) is DeviceArray else x for x in wide]


def bits_of(value: float, dtype: DType) -> int:
    """A number in a dtype, as the integer of the same bits."""
    with np.errstate(over="ignore"):
        return int(np.asarray(value).astype(dtype.numpy).reshape(1).view(f"u{dtype.itemsize}")[0])


def dtype_of(x: DeviceArray) -> DType:
    """spiral's name for an array's dtype."""
    return as_dtype(x.dtype)
