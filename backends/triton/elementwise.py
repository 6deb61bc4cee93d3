"""Arithmetic, comparisons, exponentials, logic, rounding and trigonometry.

The tables say in which group of ``kernels/triton/elementwise.py`` an op is for each dtype. Integers without a kernel of
their own are computed in a wider type and cut, which gives the same bits; bool is a byte that is 0 or 1.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from spiral.backend import ANY, Cap, Kernel
from spiral.backends.triton.arrays import BITS, LIMIT, NAMES, cast, copy_into, dense, grid
from spiral.backends.triton.launching import TritonKernel
from spiral.backends.triton.pointwise import Function, binary, fill, group, select, unary
from spiral.device_array import DeviceArray
from spiral.dtype import (
    ALL,
    FLOATS,
    DType,
    as_dtype,
    bool_,
    float32,
    float64,
    iinfo,
    int8,
    int16,
    int32,
    int64,
    promote,
    uint32,
    uint64,
)
from spiral.errors import ArgumentError, DTypeError
from spiral.kernels.triton import elementwise as source

_NUMBERS = Cap(ANY.dtypes, ANY.integers, scalars=True)
_ARRAYS = Cap(ANY.dtypes, ANY.integers)
_WIDE_FLOATS = Cap((float32, float64), ANY.integers, scalars=True)

Table = dict[str, dict[Any, Function]]
Launcher = Callable[..., None]

# ---------------------------------------------------------------- tables: op -> dtype -> function
_FLOATING = {d: NAMES[d] for d in FLOATS}
_OWN = {int8: "i8", int16: "i16", int32: "i32", int64: "i64", uint64: "u64", bool_: "i8"}
_WIDER = {int32: "i32", int64: "i64", uint64: "u64"}


def _for_all(table: Table) -> Table:
    """The functions of integer dtypes that have none: those of a wider one."""
    for row in table.values():
        for d in ALL:
            if d.kind != "float" and d.numpy not in row:
                row[d.numpy] = row[(int64 if d is uint32 else int32).numpy]
    return table


def _joined(*tables: Table) -> Table:
    joined: Table = {}
    for table in tables:
        for op, row in table.items():
            joined.setdefault(op, {}).update(row)
    return joined


BINARY = _joined(
    group(source.arithmetic, source.ARITHMETIC, _FLOATING, 2),
    group(source.special, source.SPECIAL, _FLOATING, 2),
    group(source.power, source.POWER, _FLOATING, 2),
    group(source.next_number, source.NEXT, {float32: "fp32", float64: "fp64"}, 2),
    _for_all(group(source.whole, source.WHOLE, _OWN, 2)),
    _for_all(group(source.whole_quotient, source.WHOLE_QUOTIENT, _WIDER, 2)),
)
for _op, _same in (("add", "bitwise_or"), ("multiply", "bitwise_and")):
    BINARY[_op][bool_.numpy] = BINARY[_same][bool_.numpy]
for _op in ("bitwise_left_shift", "bitwise_right_shift"):  # cast back to bool, any bit is true
    BINARY[_op][bool_.numpy] = BINARY[_op][int32.numpy]
_compare = _joined(
    group(source.compare, source.COMPARE, _FLOATING, 2, bool_),
    _for_all(group(source.compare, source.COMPARE, _OWN, 2, bool_)),
)
_mixed = group(source.mixed, source.MIXED, {int64: "i64"}, 2, bool_)
_unary = _joined(
    group(source.simple, source.SIMPLE, _FLOATING, 1),
    group(source.exponential, source.EXPONENTIAL, _FLOATING, 1),
    group(source.circular, source.CIRCULAR, _FLOATING, 1, warps=8),
    group(source.hyperbolic, source.HYPERBOLIC, _FLOATING, 1),
    _for_all(group(source.whole_unary, source.WHOLE_UNARY, _WIDER, 1)),
)
_predicate = group(source.test, source.TEST, _FLOATING, 1, bool_)

_OF_BITS = {1: int8, 2: int16, 4: int32, 8: int64}
"""As what the bits of a floating dtype are computed with: a NaN that is widened may lose its sign."""
_OF_WHOLE = {"isnan": False, "isinf": False, "isfinite": True}
"""What the predicates say of integers."""
_UNSIGNED_SAME = {"abs", "relu"}
_NO_TRUTH = {"subtract", "negative", "sign"}
"""What NumPy refuses for bool."""

_BAND = {
    size: TritonKernel(
        source.band,
        {"x": f"*{name}", "y": f"*{name}"} | dict.fromkeys(("n", "rows", "columns", "low", "high"), "i32"),
        {"BLOCK": 1024},
    )
    for size, name in BITS.items()
}


# ---------------------------------------------------------------- what all launchers need
def _in_range(op: str, value: Any, dtype: DType) -> Any:
    """A number as the kernels of an integer dtype take it.

    Raises:
        ArgumentError: the dtype does not hold it.
    """
    if dtype.kind == "bool":
        return int(value)
    limits = iinfo(dtype)
    if not limits.min <= value <= limits.max:
        raise ArgumentError(f"{op}: expected a number that {dtype.name} holds; received {value}.")
    return value


def fill_truth(y: DeviceArray, value: bool) -> None:
    """Every element of a dense array of bool becomes the value."""
    if y.size:
        y.memory.fill(y.address, int(value), y.nbytes)


def bits_of(value: float, dtype: DType) -> int:
    """A number in a dtype, as the integer of the same bits."""
    with np.errstate(over="ignore"):
        return int(np.asarray(value).astype(dtype.numpy).reshape(1).view(f"u{dtype.itemsize}")[0])


def _number(like: DeviceArray, value: Any, dtype: DType) -> DeviceArray:
    """A number as an array without axes."""
    x = DeviceArray.empty(like.memory, (), dtype.numpy)
    fill(x, bits_of(value, dtype))
    return x


def _overwrite(x: DeviceArray, value: float) -> None:
    dtype = as_dtype(x.dtype)
    if x.contiguous:
        fill(x, bits_of(value, dtype))
    else:
        copy_into(_number(x, value, dtype).broadcast_to(x.shape), x)


# ---------------------------------------------------------------- results of the operands' dtype
def _bind_binary(op: str) -> Callable[[Launcher, tuple[DType, ...]], Launcher]:
    def bind(_: Launcher, dtypes: tuple[DType, ...]) -> Launcher:
        dtype = dtypes[0]
        f = BINARY[op].get(dtype.numpy)
        if f is None or (dtype is bool_ and op in _NO_TRUTH):
            raise DTypeError(f"{op}: expected numbers; received {dtype.name}. Cast one with .astype().")

        def floating(x: Any, y: Any, z: DeviceArray) -> None:
            binary(f, x, y, z)

        def whole(x: Any, y: Any, z: DeviceArray) -> None:
            # operands take the result's dtype first, as NumPy has it, then the kernel's
            if type(x) is not DeviceArray:
                x = _in_range(op, x, dtype)
            elif x.dtype != dtype.numpy:
                x = cast(x, dtype)
            if type(y) is not DeviceArray:
                y = _in_range(op, y, dtype)
            elif y.dtype != dtype.numpy:
                y = cast(y, dtype)
            binary(f, x, y, z)

        return floating if dtype.kind == "float" else whole

    return bind


def _bind_pow(fn: Launcher, dtypes: tuple[DType, ...]) -> Launcher:
    dtype = dtypes[0]
    general = _bind_binary("pow")(fn, dtypes)
    if dtype.kind != "float":

        def whole(x: Any, y: Any, z: DeviceArray) -> None:
            if type(y) is not DeviceArray and y < 0:
                raise ArgumentError(f"pow: integers have no negative powers; received {y}. Cast with .astype() first.")
            general(x, y, z)

        return whole
    known = {2: "square", 3: "cube", -1: "reciprocal", 0.5: "power_half"}
    direct = {power: _unary[name][dtype.numpy] for power, name in known.items()}

    def floating(x: Any, y: Any, z: DeviceArray) -> None:
        f = None if type(y) is DeviceArray else direct.get(y)
        if f is None:
            general(x, y, z)
        else:
            unary(f, x, z)

    return floating


def _bind_copysign(_: Launcher, dtypes: tuple[DType, ...]) -> Launcher:
    dtype = dtypes[0]
    whole = _OF_BITS[dtype.itemsize]
    f = BINARY["copysign"][whole.numpy]

    def run(x: Any, y: Any, z: DeviceArray) -> None:
        x, y = [_as(cast(v, dtype), whole) if type(v) is DeviceArray else bits_of(v, dtype) for v in (x, y)]
        binary(f, x, y, _as(z, whole))

    return run


def _bind_sign(op: str) -> Callable[[Launcher, tuple[DType, ...]], Launcher]:
    """Of floating values the sign bit is turned, or cleared."""
    general = _bind_unary(op)

    def bind(fn: Launcher, dtypes: tuple[DType, ...]) -> Launcher:
        dtype = dtypes[0]
        if dtype.kind != "float":
            return general(fn, dtypes)
        whole = _OF_BITS[dtype.itemsize]
        top = 1 << (8 * dtype.itemsize - 1)
        f = BINARY["bitwise_xor" if op == "negative" else "bitwise_and"][whole.numpy]
        mask = top if op == "negative" else top - 1

        def run(x: DeviceArray, y: DeviceArray) -> None:
            binary(f, _as(x, whole), mask, _as(y, whole))

        return run

    return bind


def _bind_unary(op: str) -> Callable[[Launcher, tuple[DType, ...]], Launcher]:
    def bind(_: Launcher, dtypes: tuple[DType, ...]) -> Launcher:
        dtype = dtypes[0]
        f = _unary[op].get(dtype.numpy)
        if dtype is bool_ and op in _NO_TRUTH:
            raise DTypeError(f"{op}: expected numbers; received {dtype.name}. Cast it with .astype().")
        if f is None or (dtype.kind in ("bool", "uint") and op in _UNSIGNED_SAME):
            return copy_into  # rounding integers, magnitudes of what has no sign
        if dtype is bool_ and op == "bitwise_invert":
            return _logical_not

        def run(x: DeviceArray, y: DeviceArray) -> None:
            unary(f, x, y)

        return run

    return bind


# ---------------------------------------------------------------- truth values
def _comparison(op: str, swapped: bool = False) -> Launcher:
    """x op y; ``swapped`` where the kernels are those of y op' x."""
    table = _compare[{"greater": "less", "greater_equal": "less_equal"}.get(op, op)]
    says: Callable[[Any, Any], bool] = {
        "equal": operator.eq, "not_equal": operator.ne, "less": operator.lt, "less_equal": operator.le,
        "greater": operator.gt, "greater_equal": operator.ge,
    }[op]  # fmt: skip

    def run(x: Any, y: Any, z: DeviceArray) -> None:
        if type(x) is DeviceArray and type(y) is DeviceArray:
            dtype = a = as_dtype(x.dtype)
            if x.dtype != y.dtype:
                b = as_dtype(y.dtype)
                if {a.kind, b.kind} == {"int", "uint"} and uint64 in (a, b):
                    _compare_mixed(op, x, y, z)
                    return
                # NumPy's way: with an integer, floats are compared in float64
                dtype = promote(a, b) if a.kind == b.kind or "float" not in (a.kind, b.kind) else float64
                x, y = cast(x, dtype), cast(y, dtype)
        else:
            array, number = (y, x) if type(y) is DeviceArray else (x, y)
            dtype = as_dtype(array.dtype)
            if dtype.kind == "bool" and not isinstance(number, bool):
                dtype = int64
            if dtype.kind != "float" and isinstance(number, float):
                dtype = float64
            elif dtype.kind in ("int", "uint"):
                limits = iinfo(dtype)
                if not limits.min <= number <= limits.max:  # the same answer for every element
                    fill_truth(z, says(0, number) if array is x else says(number, 0))
                    return
        f = table[dtype.numpy]
        if swapped:
            binary(f, y, x, z)
        else:
            binary(f, x, y, z)

    return run


_MIRROR = {"less": "greater", "less_equal": "greater_equal", "greater": "less", "greater_equal": "less_equal"}


def _as(x: DeviceArray, dtype: DType) -> DeviceArray:
    """The same bits as elements of another type of the same size."""
    return DeviceArray(x.memory, x.block, x.address, x.shape, dtype.numpy, x.strides)


def _compare_mixed(op: str, x: DeviceArray, y: DeviceArray, z: DeviceArray) -> None:
    """uint64 with a signed integer, which have no common type; the kernel takes the signed one first."""
    if x.dtype == uint64.numpy:
        op, x, y = _MIRROR.get(op, op), y, x
    binary(_mixed[op][int64.numpy], cast(x, int64), _as(y, int64), z)


def _logical(op: str) -> Launcher:
    table = _compare[op]

    def run(x: Any, y: Any, z: DeviceArray) -> None:
        if type(x) is DeviceArray and type(y) is DeviceArray:
            binary(table[x.dtype if x.dtype == y.dtype else bool_.numpy], x, y, z)
        elif type(x) is DeviceArray:
            binary(table[x.dtype], x, int(bool(y)), z)
        else:
            binary(table[y.dtype], int(bool(x)), y, z)

    return run


def _logical_not(x: DeviceArray, y: DeviceArray) -> None:
    f = _predicate["logical_not"].get(x.dtype)
    if f is None:
        binary(_compare["equal"][x.dtype], x, 0, y)
    else:
        unary(f, x, y)


def _test(op: str) -> Launcher:
    table = _predicate[op]

    def run(x: DeviceArray, y: DeviceArray) -> None:
        f = table.get(x.dtype)
        if f is None:
            fill_truth(y, _OF_WHOLE[op])
        else:
            unary(f, x, y)

    return run


def _signbit(x: DeviceArray, y: DeviceArray) -> None:
    dtype = as_dtype(x.dtype)
    if dtype.kind in ("uint", "bool"):
        fill_truth(y, False)
    elif dtype.kind == "float":
        whole = _OF_BITS[dtype.itemsize]
        binary(_compare["less"][whole.numpy], _as(x, whole), 0, y)
    else:
        binary(_compare["less"][x.dtype], x, 0, y)


# ---------------------------------------------------------------- the others
def _bind_where(_: Launcher, dtypes: tuple[DType, ...]) -> Launcher:
    dtype = dtypes[0]

    def run(c: Any, x: Any, y: Any, z: DeviceArray) -> None:
        c = cast(c, bool_) if type(c) is DeviceArray else _number(z, bool(c), bool_)
        x, y = [cast(v, dtype) if type(v) is DeviceArray else bits_of(v, dtype) for v in (x, y)]
        select(c, x, y, z)

    return run


def _triangle(lower: bool) -> Launcher:
    def run(x: DeviceArray, k: int, y: DeviceArray) -> None:
        if not y.size:
            return
        x = dense(x)
        rows, columns = x.shape[-2:]
        k = max(-rows - 1, min(k, columns + 1))
        low, high = (-rows, k) if lower else (k, columns)
        size, each = x.dtype.itemsize, rows * columns
        at_once = max(1, (LIMIT - 1) // each) * each
        for start in range(0, y.size, at_once):
            n, offset = min(at_once, y.size - start), start * size
            _BAND[size](y.memory, grid(n), x.address + offset, y.address + offset, n, rows, columns, low, high)

    return run


def kernels() -> Iterator[Kernel]:
    """The family's table."""
    binds = {"pow": _bind_pow, "copysign": _bind_copysign, "negative": _bind_sign("negative"), "abs": _bind_sign("abs")}
    for op in BINARY:
        cap = _WIDE_FLOATS if op == "nextafter" else _NUMBERS
        yield Kernel(op, _unbound, cap, bind=binds.get(op) or _bind_binary(op))
    for op in ("equal", "not_equal", "less", "less_equal"):
        yield Kernel(op, _comparison(op), _NUMBERS)
    for op in ("greater", "greater_equal"):
        yield Kernel(op, _comparison(op, swapped=True), _NUMBERS)
    for op in ("logical_and", "logical_or", "logical_xor"):
        yield Kernel(op, _logical(op), _NUMBERS)
    for op in _unary:
        if op not in ("cube", "power_half"):
            yield Kernel(op, _unbound, _ARRAYS, bind=binds.get(op) or _bind_unary(op))
    for op in ("isnan", "isinf", "isfinite"):
        yield Kernel(op, _test(op), _ARRAYS)
    yield Kernel("signbit", _signbit, _ARRAYS)
    yield Kernel("logical_not", _logical_not, _ARRAYS)
    yield Kernel("fill_", _overwrite, _ARRAYS)
    yield Kernel("where", _unbound, _NUMBERS, bind=_bind_where)
    yield Kernel("tril", _triangle(lower=True), _ARRAYS)
    yield Kernel("triu", _triangle(lower=False), _ARRAYS)


def _unbound(*_: Any) -> None:
    raise AssertionError("this kernel is used through its bind")
