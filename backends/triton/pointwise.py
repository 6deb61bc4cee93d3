"""Launching the kernels of ``kernels/triton/pointwise.py``: operands of any strides, numbers in place of operands."""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import triton.language as tl

from spiral.backends.triton.arrays import (
    BITS,
    BLOCK,
    LIMIT,
    NAMES,
    cast,
    cast_into,
    dense,
    grid,
    halves,
    layout,
)
from spiral.backends.triton.launching import TritonKernel
from spiral.device_array import DeviceArray
from spiral.dtype import DType
from spiral.gpu.axes import collapsed
from spiral.kernels.triton import pointwise as source

_LENGTHS = ("n1", "n2", "n3")
_WIDE = {
    "fp32": tl.float32,
    "fp64": tl.float64,
    "i8": tl.int8,
    "i16": tl.int16,
    "i32": tl.int32,
    "i64": tl.int64,
    "u64": tl.uint64,
}
_TURNED = 1 << 14
"""Elements from which on a transposed operand is copied first: read as it lies, it would be fetched 8 times over."""


class Function(NamedTuple):
    """An op on one dtype.

    Attributes:
        kernel: the kernel of its group.
        code: its number in the group.
        dtype: what operands are cast to.
        out: dtype of the kernel's results.
        number: the type of Python numbers in place of operands, as Triton calls it.
    """

    kernel: TritonKernel
    code: int
    dtype: DType
    out: DType
    number: str


def _numbers(*names: str) -> dict[str, str]:
    return dict.fromkeys(names, "i32")


def _strides(*operands: str) -> dict[str, str]:
    return _numbers(*_LENGTHS, *[f"{o}{k}" for o in operands for k in range(4)])


def wide_name(name: str) -> str:
    """What arithmetic on a dtype runs in, by Triton's names."""
    return "fp32" if name in ("fp16", "bf16") else name


def group(
    fn: Any, ops: Iterable[str], types: Mapping[DType, str], arity: int, out: DType | None = None, warps: int = 4
) -> dict[str, dict[Any, Function]]:
    """The functions of a group: op -> dtype as NumPy's -> function.

    Args:
        fn: of a file of kernels; takes an op's number and operands.
        ops: names, in the order of their numbers.
        types: the dtypes with the element types of their kernels.
        arity: 1 or 2 operands.
        out: dtype of the results; None: the operands'.
        warps: of a program of 1,024 elements.
    """
    made: dict[str, dict[Any, Function]] = {op: {} for op in ops}
    instances: dict[str, TritonKernel] = {}
    for dtype, name in types.items():
        if name not in instances:
            instances[name] = _instance(fn, name, dtype.itemsize, arity, None if out is None else NAMES[out], warps)
        for code, op in enumerate(made):
            made[op][dtype.numpy] = Function(instances[name], code, dtype, out or dtype, wide_name(name))
    return made


def _instance(fn: Any, name: str, itemsize: int, arity: int, out: str | None, warps: int) -> TritonKernel:
    wide = wide_name(name)
    constants = {"FN": fn, "WIDE": _WIDE[wide], "BLOCK": BLOCK, "V": 16 // itemsize}
    if arity == 1:
        params = {"x": f"*{name}", "y": f"*{out or name}"} | _numbers("n", "op", "kind") | _strides("s")
        return TritonKernel(source.unary, params, constants, num_warps=warps)
    params = {"x": f"*{name}", "y": f"*{name}", "z": f"*{out or name}", "n": "i32", "number": wide}
    params |= _numbers("op", "x_kind", "y_kind") | _strides("x", "y")
    return TritonKernel(source.binary, params, constants, num_warps=warps)


# ---------------------------------------------------------------- where operands lie
def spread(x: DeviceArray, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Strides of an operand over the axes of a result that it broadcasts to."""
    lead = len(shape) - x.ndim
    return (0,) * lead + tuple([s if d != 1 else 0 for d, s in zip(x.shape, x.strides, strict=True)])


def _is_turned(shape: tuple[int, ...], itemsize: int, strides: tuple[int, ...]) -> bool:
    axes = collapsed(shape, tuple([s // itemsize for s in strides]))
    return bool(axes) and abs(axes[-1][1]) > 1 and any(a[1] == 1 and a[0] >= 16 for a in axes[:-1])


@functools.lru_cache(4096)
def plan(
    shape: tuple[int, ...], itemsize: int, size: int, *strides: tuple[int, ...]
) -> tuple[tuple[int, ...], int, tuple[int, ...]]:
    """How a kernel reads operands.

    Args:
        shape: of the result.
        itemsize: bytes of an operand's element.
        size: elements of the result.
        *strides: of each operand over the result's axes.

    Returns:
        The operands that must be made dense first; or none, the kind of operands, lengths and strides.
    """
    turned = tuple(k for k, s in enumerate(strides) if size >= _TURNED and _is_turned(shape, itemsize, s))
    if turned:
        return turned, 0, ()
    where = layout(4, shape, itemsize, True, *strides)
    if where is None:
        return tuple(range(len(strides))), 0, ()
    return (), 2 if where[0] else 3, where[1:]


def _is_dense(x: DeviceArray, z: DeviceArray) -> bool:
    return x.contiguous and x.shape == z.shape


def number_of(value: Any, kind: str) -> Any:
    """A Python number as a kernel's parameter: floats are rounded, integers cut to the bits."""
    if kind == "fp32":
        return ctypes.c_float(value).value
    if kind == "fp64":
        return float(value)
    bits = 8 * {"i8": 1, "i16": 2, "i32": 4, "i64": 8, "u64": 8}[kind]
    value = int(value) & ((1 << bits) - 1)
    return value - (1 << bits) if kind[0] == "i" and value >> (bits - 1) else value


_UNUSED_1: tuple[int, ...] = (0,) * 7
_UNUSED_2: tuple[int, ...] = (0,) * 11
_UNUSED_3: tuple[int, ...] = (0,) * 15


def unary(f: Function, x: DeviceArray, y: DeviceArray) -> None:
    """y = f(x), where y is dense and has the shape of x."""
    n = y.size
    if not 0 < n < LIMIT:
        if n:
            for part, (a,) in halves(y, x):
                unary(f, a, part)
        return
    if x.dtype != f.dtype.numpy:
        x = cast(x, f.dtype)
    kind, where = 0, _UNUSED_1
    if not x.contiguous:
        copied, kind, where = plan(y.shape, x.itemsize, n, x.strides)
        if copied:
            x, kind, where = dense(x), 0, _UNUSED_1
    to = _room(y, f.out)
    f.kernel(y.memory, grid(n), x.address, to.address, n, f.code, kind, *where)
    if to is not y:
        cast_into(to, y)


def binary(f: Function, x: Any, y: Any, z: DeviceArray) -> None:
    """z = f(x, y), where z is dense, of the shape that the operands broadcast to; one operand may be a number."""
    n = z.size
    if not 0 < n < LIMIT:
        if n:
            for part, (a, b) in halves(z, x, y):
                binary(f, a, b, part)
        return
    number: Any = 0
    if type(x) is DeviceArray:
        if x.dtype != f.dtype.numpy:
            x = cast(x, f.dtype)
        a, x_kind, x_strides = x.address, 0 if _is_dense(x, z) else -1, spread(x, z.shape)
    else:
        number = number_of(x, f.number)
        a, x_kind, x_strides = 0, 1, (0,) * z.ndim
    if type(y) is DeviceArray:
        if y.dtype != f.dtype.numpy:
            y = cast(y, f.dtype)
        b, y_kind, y_strides = y.address, 0 if _is_dense(y, z) else -1, spread(y, z.shape)
    else:
        number = number_of(y, f.number)
        b, y_kind, y_strides = 0, 1, (0,) * z.ndim
    where = _UNUSED_2
    if x_kind < 0 or y_kind < 0:
        copied, kind, where = plan(z.shape, f.dtype.itemsize, n, x_strides, y_strides)
        if copied:
            binary(f, _whole(x, z) if 0 in copied else x, _whole(y, z) if 1 in copied else y, z)
            return
        x_kind, y_kind = kind if x_kind < 0 else x_kind, kind if y_kind < 0 else y_kind
    to = _room(z, f.out)
    f.kernel(z.memory, grid(n), a, b, to.address, n, number, f.code, x_kind, y_kind, *where)
    if to is not z:
        cast_into(to, z)


def _room(y: DeviceArray, dtype: DType) -> DeviceArray:
    """Where results of a dtype go that end up in y."""
    return y if y.dtype == dtype.numpy else DeviceArray.empty(y.memory, y.shape, dtype.numpy)


def _whole(x: Any, z: DeviceArray) -> Any:
    """An operand as a dense array of the result's shape; a number stays one."""
    return dense(x.broadcast_to(z.shape)) if type(x) is DeviceArray else x


# ---------------------------------------------------------------- choices
_SELECT = {
    size: TritonKernel(
        source.select,
        {"c": "*i8", "x": f"*{name}", "y": f"*{name}", "z": f"*{name}", "n": "i32", "a": name, "b": name}
        | _numbers("c_kind", "x_kind", "y_kind")
        | _strides("c", "x", "y"),
        {"TYPE": getattr(tl, f"int{8 * size}"), "BLOCK": BLOCK, "V": 16 // size},
    )
    for size, name in BITS.items()
}


def select(c: DeviceArray, x: Any, y: Any, z: DeviceArray) -> None:
    """z = x where c is true, else y; c is bool, x and y are arrays of z's dtype or the integer bits of numbers."""
    n, size = z.size, z.itemsize
    if not 0 < n < LIMIT:
        if n:
            for part, (k, a, b) in halves(z, c, x, y):
                select(k, a, b, part)
        return
    operands = (c, x, y)
    addresses = [o.address if type(o) is DeviceArray else 0 for o in operands]
    bits = [0 if type(o) is DeviceArray else number_of(o, BITS[size]) for o in (x, y)]
    kinds = [1 if type(o) is not DeviceArray else 0 if _is_dense(o, z) else -1 for o in operands]
    where = _UNUSED_3
    if -1 in kinds:
        strides = [spread(o, z.shape) if type(o) is DeviceArray else (0,) * z.ndim for o in operands]
        # c's steps are those of elements as large as the others', so that one layout serves all
        strides[0] = tuple([s * size for s in strides[0]])
        copied, kind, where = plan(z.shape, size, n, *strides)
        if copied:
            c, x, y = [_whole(o, z) if i in copied else o for i, o in enumerate(operands)]
            select(c, x, y, z)
            return
        kinds = [kind if k < 0 else k for k in kinds]
    _SELECT[size](z.memory, grid(n), *addresses, z.address, n, *bits, *kinds, *where)


def fill(y: DeviceArray, bits: int) -> None:
    """Every element of a dense array becomes the one of these bits."""
    n, size = y.size, y.itemsize
    if bits == 0:
        if n:
            y.memory.fill(y.address, 0, y.nbytes)
        return
    value = number_of(bits, BITS[size])
    for start in range(0, n, LIMIT):  # the choice of a number by a number
        part = min(LIMIT, n - start)
        _SELECT[size](
            y.memory, grid(part), 0, 0, 0, y.address + start * size, part, value, value, 1, 1, 1, *_UNUSED_3
        )  # fmt: skip
