"""Arithmetic, comparisons, exponentials, logic, rounding and trigonometry.

The tables say which function of ``elementwise.cu`` an op is for each dtype. Where the sign of an integer does not
matter, signed and unsigned share a kernel; bool is a byte that is 0 or 1.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator
from typing import Any

from spiral.backend import ANY, Cap, Kernel
from spiral.backends.cuda.arrays import BITS, THREADS, cast, copy_into, dense
from spiral.backends.cuda.broadcast import (
    BLOCK,
    FLOATING,
    FLOATING_BITS,
    INTEGER,
    INTEGER_BITS,
    LIMIT,
    ROUNDS,
    SIGNED,
    TRUTH,
    Function,
    binary,
    bits_of,
    by,
    dtype_of,
    halves,
    instances,
    packed_format,
    packed_layout,
    run_length,
    spread,
    unary,
)
from spiral.backends.cuda.launching import Source
from spiral.device_array import DeviceArray
from spiral.dtype import DType, bool_, float32, float64, iinfo, int64, promote, uint64
from spiral.errors import ArgumentError, DTypeError

_SOURCE = Source("elementwise.cu")
_NUMBERS = Cap(ANY.dtypes, ANY.integers, scalars=True)
_ARRAYS = Cap(ANY.dtypes, ANY.integers)
_WIDE_FLOATS = Cap((float32, float64), ANY.integers, scalars=True)

# ---------------------------------------------------------------- tables: op -> dtype -> function
_BINARY: dict[str, dict[DType, Function]] = {
    "add": by("Add", FLOATING | INTEGER_BITS) | by("BitOr", TRUTH),
    "subtract": by("Subtract", FLOATING | INTEGER_BITS),
    "multiply": by("Multiply", FLOATING | INTEGER_BITS) | by("BitAnd", TRUTH),
    "divide": by("Divide", FLOATING),
    "floor_divide": by("FloorDivide", FLOATING | INTEGER | TRUTH),
    "remainder": by("Remainder", FLOATING | INTEGER | TRUTH),
    "pow": by("Power", FLOATING | INTEGER | TRUTH),
    "maximum": by("Max", FLOATING | INTEGER | TRUTH),
    "minimum": by("Min", FLOATING | INTEGER | TRUTH),
    "copysign": by("CopySign", FLOATING_BITS),
    "nextafter": by("NextAfter", {float32: "float", float64: "double"}),
    "logaddexp": by("LogAddExp", FLOATING),
    "hypot": by("Hypot", FLOATING),
    "atan2": by("Atan2", FLOATING),
    "bitwise_and": by("BitAnd", INTEGER_BITS | TRUTH),
    "bitwise_or": by("BitOr", INTEGER_BITS | TRUTH),
    "bitwise_xor": by("BitXor", INTEGER_BITS | TRUTH),
    "bitwise_left_shift": by("ShiftLeft", INTEGER_BITS),
    "bitwise_right_shift": by("ShiftRight", INTEGER),
}
_COMPARE: dict[str, dict[DType, Function]] = {
    "equal": by("Equal", FLOATING | INTEGER_BITS | TRUTH),
    "not_equal": by("NotEqual", FLOATING | INTEGER_BITS | TRUTH),
    "less": by("Less", FLOATING | INTEGER | TRUTH),
    "less_equal": by("LessEqual", FLOATING | INTEGER | TRUTH),
    "logical_and": by("LogicalAnd", FLOATING | INTEGER_BITS | TRUTH),
    "logical_or": by("LogicalOr", FLOATING | INTEGER_BITS | TRUTH),
    "logical_xor": by("LogicalXor", FLOATING | INTEGER_BITS | TRUTH),
}
_UNARY: dict[str, dict[DType, Function]] = {
    "negative": by("FlipSign", FLOATING_BITS) | by("Negate", INTEGER_BITS),
    "abs": by("ClearSign", FLOATING_BITS) | by("Magnitude", SIGNED),
    "square": by("Square", FLOATING | INTEGER_BITS),
    "sign": by("Sign", FLOATING | INTEGER),
    "bitwise_invert": by("BitInvert", INTEGER_BITS) | by("LogicalNot", TRUTH),
    "cube": by("Cube", FLOATING),
    "power_half": by("PowerHalf", FLOATING),
} | {
    op: by(functor, FLOATING)
    for op, functor in (
        ("reciprocal", "Reciprocal"), ("floor", "Floor"), ("ceil", "Ceil"), ("round", "Round"), ("trunc", "Trunc"),
        ("exp", "Exp"), ("expm1", "Expm1"), ("log", "Log"), ("log1p", "Log1p"), ("log2", "Log2"), ("log10", "Log10"),
        ("sqrt", "Sqrt"), ("rsqrt", "Rsqrt"), ("erf", "Erf"), ("sin", "Sin"), ("cos", "Cos"), ("tan", "Tan"),
        ("asin", "Asin"), ("acos", "Acos"), ("atan", "Atan"), ("sinh", "Sinh"), ("cosh", "Cosh"), ("tanh", "Tanh"),
        ("asinh", "Asinh"), ("acosh", "Acosh"), ("atanh", "Atanh"),
    )
}  # fmt: skip
_PREDICATE: dict[str, dict[DType, Function]] = {
    "isnan": by("IsNaN", FLOATING),
    "isinf": by("IsInf", FLOATING),
    "isfinite": by("IsFinite", FLOATING),
    "signbit": by("SignBit", FLOATING_BITS | {d: BITS[d.itemsize] for d in SIGNED}),
    "logical_not": by("LogicalNot", FLOATING | INTEGER_BITS | TRUTH),
}
_OF_WHOLE = {"isnan": False, "isinf": False, "isfinite": True, "signbit": False}
"""What the predicates say of dtypes that are not in their tables."""
_MIXED = {
    op: by(functor, {uint64: BITS[8]})
    for op, functor in (
        ("equal", "MixedEqual"), ("not_equal", "MixedNotEqual"), ("less", "MixedLess"),
        ("less_equal", "MixedLessEqual"), ("greater", "MixedGreater"), ("greater_equal", "MixedGreaterEqual"),
    )
}  # fmt: skip
"""int64 with uint64, which have no common type."""
_SAME_WHEN_WHOLE = {"floor", "ceil", "round", "trunc"}

_binary = instances(_SOURCE, 2, _BINARY)
_unary = instances(_SOURCE, 1, _UNARY)
_compare = instances(_SOURCE, 2, _COMPARE, bool_)
_mixed = instances(_SOURCE, 2, _MIXED, bool_)
_predicate = instances(_SOURCE, 1, _PREDICATE, bool_)

_WHERE = {
    n: _SOURCE.kernel(f"spiral::where<{t}>", "P", "P", "P", "P", "I", "Q", "Q", packed_format(3))
    for n, t in BITS.items()
}
_FILL = {n: _SOURCE.kernel(f"spiral::fill<{t}>", "P", "I", "Q") for n, t in BITS.items()}
_BAND = {n: _SOURCE.kernel(f"spiral::band<{t}>", "P", "P", "I", "I", "I", "q", "q") for n, t in BITS.items()}

Launcher = Callable[..., None]


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
    return value & (2**64 - 1)


def fill(y: DeviceArray, bits: int) -> None:
    """Every element of a dense array becomes the one of these bits."""
    size = y.dtype.itemsize
    if bits == 0:
        if y.size:
            y.memory.fill(y.address, 0, y.nbytes)
        return
    for start in range(0, y.size, LIMIT // 2):
        n = min(LIMIT // 2, y.size - start)
        grid = (-(-n // (THREADS * ROUNDS * run_length(size))), 1, 1)
        _FILL[size](y.memory, grid, BLOCK, y.address + start * size, n, bits)


# ---------------------------------------------------------------- results of the operands' dtype
def _bind_binary(op: str) -> Callable[[Launcher, tuple[DType, ...]], Launcher]:
    def bind(_: Launcher, dtypes: tuple[DType, ...]) -> Launcher:
        dtype = dtypes[0]
        e = _binary[op].get(dtype.numpy)
        if e is None:
            raise DTypeError(f"{op}: expected numbers; received {dtype.name}. Cast one with .astype().")

        def floating(x: Any, y: Any, z: DeviceArray) -> None:
            binary(e, x, y, z)

        def whole(x: Any, y: Any, z: DeviceArray) -> None:
            if type(x) is not DeviceArray:
                x = _in_range(op, x, dtype)
            elif type(y) is not DeviceArray:
                y = _in_range(op, y, dtype)
            binary(e, x, y, z)

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
        e = None if type(y) is DeviceArray else direct.get(y)
        if e is None:
            general(x, y, z)
        else:
            unary(e, x, z)

    return floating


def _bind_copysign(_: Launcher, dtypes: tuple[DType, ...]) -> Launcher:
    dtype = dtypes[0]
    e = _binary["copysign"][dtype.numpy]

    def run(x: Any, y: Any, z: DeviceArray) -> None:
        binary(
            e,
            x if type(x) is DeviceArray else bits_of(x, dtype),
            y if type(y) is DeviceArray else bits_of(y, dtype),
            z,
        )

    return run


def _bind_shift(op: str) -> Callable[[Launcher, tuple[DType, ...]], Launcher]:
    """A bool's bits shifted: only right, by one, is there something to lose."""
    general = _bind_binary(op)

    def left(x: DeviceArray, y: DeviceArray, z: DeviceArray) -> None:
        copy_into(cast(x, bool_).broadcast_to(z.shape), z)

    def right(x: DeviceArray, y: DeviceArray, z: DeviceArray) -> None:
        binary(_compare["less"][bool_.numpy], y, x, z)

    def bind(fn: Launcher, dtypes: tuple[DType, ...]) -> Launcher:
        if dtypes[0] is not bool_:
            return general(fn, dtypes)

        def run(x: Any, y: Any, z: DeviceArray) -> None:
            x, y = [a if type(a) is DeviceArray else _number(z, a, bool_) for a in (x, y)]
            (left if op == "bitwise_left_shift" else right)(x, y, z)

        return run

    return bind


def _number(like: DeviceArray, value: Any, dtype: DType) -> DeviceArray:
    """A number as an array without axes."""
    x = DeviceArray.empty(like.memory, (), dtype.numpy)
    fill(x, bits_of(value, dtype))
    return x


def _bind_unary(op: str) -> Callable[[Launcher, tuple[DType, ...]], Launcher]:
    def bind(_: Launcher, dtypes: tuple[DType, ...]) -> Launcher:
        dtype = dtypes[0]
        e = _unary[op].get(dtype.numpy)
        if e is None:
            if op in ("negative", "sign"):
                raise DTypeError(f"{op}: expected numbers; received {dtype.name}. Cast it with .astype().")
            return copy_into  # rounding integers, magnitudes of what has no sign

        def run(x: DeviceArray, y: DeviceArray) -> None:
            unary(e, x, y)

        return run

    return bind


# ---------------------------------------------------------------- truth values
def _comparison(op: str, swapped: bool = False) -> Launcher:
    """x op y; ``swapped`` where the kernels are those of y op' x."""
    of = {"greater": "less", "greater_equal": "less_equal"}.get(op, op)
    table = _compare[of]
    says: Callable[[Any, Any], bool] = {
        "equal": operator.eq, "not_equal": operator.ne, "less": operator.lt, "less_equal": operator.le,
        "greater": operator.gt, "greater_equal": operator.ge,
    }[op]  # fmt: skip

    def run(x: Any, y: Any, z: DeviceArray) -> None:
        if type(x) is DeviceArray and type(y) is DeviceArray:
            if x.dtype == y.dtype:
                e = table[x.dtype]
            else:
                a, b = dtype_of(x), dtype_of(y)
                if {a.kind, b.kind} == {"int", "uint"} and uint64 in (a, b):
                    _compare_mixed(op, x, y, z)
                    return
                # NumPy's way: with an integer, floats are compared in float64
                e = table[(promote(a, b) if a.kind == b.kind or "float" not in (a.kind, b.kind) else float64).numpy]
        else:
            array, number = (y, x) if type(y) is DeviceArray else (x, y)
            dtype = dtype_of(array)
            if dtype.kind == "bool" and not isinstance(number, bool):
                dtype = int64
            if dtype.kind != "float" and isinstance(number, float):
                dtype = float64
            elif dtype.kind in ("int", "uint"):
                limits = iinfo(dtype)
                if not limits.min <= number <= limits.max:  # the same answer for every element
                    fill(z, int(says(0, number) if array is x else says(number, 0)))
                    return
                number &= 2**64 - 1
            x, y = (number, array) if array is y else (array, number)
            e = table[dtype.numpy]
        if swapped:
            binary(e, y, x, z)
        else:
            binary(e, x, y, z)

    return run


_MIRROR = {"less": "greater", "less_equal": "greater_equal", "greater": "less", "greater_equal": "less_equal"}


def _compare_mixed(op: str, x: DeviceArray, y: DeviceArray, z: DeviceArray) -> None:
    """uint64 with a signed integer; the kernels take the signed one first."""
    if dtype_of(x) is uint64:
        op, x, y = _MIRROR.get(op, op), y, x
    signed = cast(x, int64)
    same_bits = DeviceArray(signed.memory, signed.block, signed.address, signed.shape, uint64.numpy, signed.strides)
    binary(_mixed[op][uint64.numpy], same_bits, y, z)


def _logical(op: str) -> Launcher:
    table = _compare[op]

    def run(x: Any, y: Any, z: DeviceArray) -> None:
        if type(x) is DeviceArray and type(y) is DeviceArray:
            if x.dtype == y.dtype:
                binary(table[x.dtype], x, y, z)
            else:
                binary(table[bool_.numpy], x, y, z)
        elif type(x) is DeviceArray:
            binary(table[x.dtype], x, int(bool(y)), z)
        else:
            binary(table[y.dtype], int(bool(x)), y, z)

    return run


def _predicate_launcher(op: str) -> Launcher:
    table = _predicate[op]

    def run(x: DeviceArray, y: DeviceArray) -> None:
        e = table.get(x.dtype)
        if e is None:
            fill(y, int(_OF_WHOLE[op]))
        else:
            unary(e, x, y)

    return run


# ---------------------------------------------------------------- the others
def _bind_where(_: Launcher, dtypes: tuple[DType, ...]) -> Launcher:
    dtype = dtypes[0]
    numpy, size = dtype.numpy, dtype.itemsize
    kernel, per_block = _WHERE[size], THREADS * ROUNDS * run_length(size, 1)

    def run(c: Any, x: Any, y: Any, z: DeviceArray) -> None:
        n = z.size
        if not 0 < n < LIMIT:
            if n:
                for part, (k, a, b) in halves(z, c, x, y):
                    run(k, a, b, part)
            return
        if type(c) is not DeviceArray:
            c = _number(z, bool(c), bool_)
        elif c.dtype != bool_.numpy:
            c = cast(c, bool_)
        places: list[Any] = [c.shape, c.strides]
        addresses, numbers = [c.address], []
        kept = [c]
        for v in (x, y):
            if type(v) is DeviceArray:
                if v.dtype != numpy:
                    v = cast(v, dtype)
                kept.append(v)
                addresses.append(v.address)
                numbers.append(0)
                places += (v.shape, v.strides)
            else:
                addresses.append(0)
                numbers.append(bits_of(v, dtype))
                places += ((), ())
        where = packed_layout(z.shape, *places)
        if where is None:
            run(spread(c, z), spread(x, z), spread(y, z), z)
            return
        kernel(z.memory, (-(-n // per_block), 1, 1), BLOCK, *addresses, z.address, n, *numbers, where)

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
            grid = (-(-n // (THREADS * ROUNDS * run_length(size))), 1, 1)
            _BAND[size](y.memory, grid, BLOCK, x.address + offset, y.address + offset, n, rows, columns, low, high)

    return run


def _overwrite(x: DeviceArray, value: float) -> None:
    bits = bits_of(value, dtype_of(x))
    if x.contiguous:
        fill(x, bits)
    else:
        one = _number(x, value, dtype_of(x))
        copy_into(one.broadcast_to(x.shape), x)


def kernels() -> Iterator[Kernel]:
    """The family's table."""
    binds = {"pow": _bind_pow, "copysign": _bind_copysign} | {op: _bind_shift(op) for op in _BINARY if "_shift" in op}
    for op in _BINARY:
        cap = _WIDE_FLOATS if op == "nextafter" else _NUMBERS
        yield Kernel(op, _unbound, cap, bind=binds.get(op) or _bind_binary(op))
    for op in ("equal", "not_equal", "less", "less_equal"):
        yield Kernel(op, _comparison(op), _NUMBERS)
    for op in ("greater", "greater_equal"):
        yield Kernel(op, _comparison(op, swapped=True), _NUMBERS)
    for op in ("logical_and", "logical_or", "logical_xor"):
        yield Kernel(op, _logical(op), _NUMBERS)
    for op in _UNARY:
        if op not in ("cube", "power_half"):
            yield Kernel(op, _unbound, _ARRAYS, bind=_bind_unary(op))
    for op in _PREDICATE:
        yield Kernel(op, _predicate_launcher(op), _ARRAYS)
    yield Kernel("fill_", _overwrite, _ARRAYS)
    yield Kernel("where", _unbound, _NUMBERS, bind=_bind_where)
    yield Kernel("tril", _triangle(lower=True), _ARRAYS)
    yield Kernel("triu", _triangle(lower=False), _ARRAYS)


def _unbound(*_: Any) -> None:
    raise AssertionError("this kernel is used through its bind")
