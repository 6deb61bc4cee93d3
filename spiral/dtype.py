"""Data types and the promotion table.

The table is the Python array API standard's (2024.12, "Type Promotion Rules"), completed where the
standard leaves a choice: an integer tensor with a floating tensor gives the floating tensor's dtype,
bool gives way to everything, bfloat16 with float16 gives float32. Python scalars are weak.
"""

from __future__ import annotations

from typing import Any, Final

import ml_dtypes
import numpy as np

from spiral.errors import ArgumentError, DTypeError


class DType:
    """One element type.

    Attributes:
        name: the standard's name, for example ``"float32"``.
        numpy: the NumPy dtype that stores it.
        kind: ``"bool"``, ``"int"``, ``"uint"`` or ``"float"``.
        itemsize: bytes per element.
        code: small integer used in dispatch keys.
        storage_only: 16-bit floats: kernels widen them to float32, NumPy never computes on them.
    """

    __slots__ = ("code", "itemsize", "kind", "name", "numpy", "storage_only")

    def __init__(self, name: str, numpy: Any, kind: str, code: int, storage_only: bool = False) -> None:
        self.name = name
        self.numpy = np.dtype(numpy)
        self.kind = kind
        self.itemsize = self.numpy.itemsize
        self.code = code
        self.storage_only = storage_only

    def __repr__(self) -> str:
        return f"spiral.{self.name}"

    def __eq__(self, other: object) -> bool:
        if isinstance(other, DType):
            return self is other
        if isinstance(other, np.dtype) or (isinstance(other, type) and issubclass(other, np.generic)):
            return bool(self.numpy == other)
        return NotImplemented

    def __hash__(self) -> int:
        return hash(self.numpy)

    def __reduce__(self) -> tuple[Any, ...]:
        return as_dtype, (self.name,)

    @property
    def is_floating(self) -> bool:
        """Whether it is a floating type, of any width."""
        return self.kind == "float"


bool_: Final = DType("bool", np.bool_, "bool", 0)
int8: Final = DType("int8", np.int8, "int", 1)
int16: Final = DType("int16", np.int16, "int", 2)
int32: Final = DType("int32", np.int32, "int", 3)
int64: Final = DType("int64", np.int64, "int", 4)
uint8: Final = DType("uint8", np.uint8, "uint", 5)
uint16: Final = DType("uint16", np.uint16, "uint", 6)
uint32: Final = DType("uint32", np.uint32, "uint", 7)
uint64: Final = DType("uint64", np.uint64, "uint", 8)
float16: Final = DType("float16", np.float16, "float", 9, storage_only=True)
bfloat16: Final = DType("bfloat16", ml_dtypes.bfloat16, "float", 10, storage_only=True)
float32: Final = DType("float32", np.float32, "float", 11)
float64: Final = DType("float64", np.float64, "float", 12)

ALL: Final = (
    bool_, int8, int16, int32, int64, uint8, uint16, uint32, uint64,
    float16, bfloat16, float32, float64,
)  # fmt: skip
FLOATS: Final = (float16, bfloat16, float32, float64)
DEFAULT_FLOAT: Final = float32
DEFAULT_INT: Final = int64

_BY_NUMPY: Final = {d.numpy: d for d in ALL}
_BY_NAME: Final = {d.name: d for d in ALL}


def as_dtype(x: Any) -> DType:
    """The DType for a DType, a NumPy dtype, a NumPy scalar type, a name, or ``bool``/``int``/``float``.

    Raises:
        DTypeError: for anything else, complex types included.
    """
    if isinstance(x, DType):
        return x
    if x is bool:
        return bool_
    if x is int:
        return DEFAULT_INT
    if x is float:
        return DEFAULT_FLOAT
    if isinstance(x, str):
        found = _BY_NAME.get(x)
    else:
        try:
            found = _BY_NUMPY.get(np.dtype(x).newbyteorder("="))
        except TypeError:
            found = None
    if found is None:
        names = ", ".join(d.name for d in ALL)
        raise DTypeError(f"dtype: expected one of {names}; received {x!r}.")
    return found


def _promote(a: DType, b: DType) -> DType | None:
    if a is b or b.kind == "bool":
        return a
    if a.kind == "bool":
        return b
    if a.kind == "float" or b.kind == "float":
        if a.kind != b.kind:
            return a if a.kind == "float" else b
        if a.itemsize == b.itemsize:  # float16 with bfloat16
            return float32
        return a if a.itemsize > b.itemsize else b
    if a.kind == b.kind:
        return a if a.itemsize > b.itemsize else b
    signed, unsigned = (a, b) if a.kind == "int" else (b, a)
    if signed.itemsize > unsigned.itemsize:
        return signed
    if unsigned.itemsize == 8:
        return None  # the standard leaves uint64 with a signed integer undefined
    return {1: int16, 2: int32, 4: int64}[unsigned.itemsize]


_TABLE: Final = {(a, b): _promote(a, b) for a in ALL for b in ALL}


def promote(a: DType, b: DType) -> DType:
    """Dtype of an operation between tensors of dtypes ``a`` and ``b``.

    Raises:
        DTypeError: uint64 with a signed integer, which has no exact common type.
    """
    out = _TABLE[a, b]
    if out is None:
        raise DTypeError(
            f"promotion: {a.name} and {b.name} have no common type that holds both; cast one with .astype()."
        )
    return out


def weak(scalar: bool | int | float, dtype: DType) -> DType:
    """Dtype of an operation between a tensor of ``dtype`` and a Python scalar (which is weak).

    Example:
        >>> weak(2.5, int32)
        spiral.float32
        >>> weak(2, float16)
        spiral.float16
    """
    if isinstance(scalar, bool):
        return dtype
    if isinstance(scalar, int):
        return DEFAULT_INT if dtype.kind == "bool" else dtype
    return dtype if dtype.kind == "float" else DEFAULT_FLOAT


def result_type(*arrays_and_dtypes: Any) -> DType:
    """Dtype of an operation between tensors, dtypes and Python numbers (which are weak).

    Raises:
        ArgumentError: there is neither a tensor nor a dtype.
        DTypeError: they have no common dtype.

    Example:
        >>> result_type(int32, 2.5)
        spiral.float32
    """
    out: DType | None = None
    numbers = [x for x in arrays_and_dtypes if isinstance(x, (bool, int, float))]
    for x in arrays_and_dtypes:
        if not isinstance(x, (bool, int, float)):
            d = _dtype_of(x)
            out = d if out is None else promote(out, d)
    if out is None:
        raise ArgumentError(f"result_type: expected at least one tensor or dtype; received {arrays_and_dtypes}.")
    for x in numbers:
        out = weak(x, out)
    return out


def can_cast(from_: Any, to: Any, /) -> bool:
    """Whether promotion takes a dtype (or a tensor's) to another, as uint8 to int16, but not float64 to float32."""
    return _TABLE[_dtype_of(from_), as_dtype(to)] is as_dtype(to)


class finfo_object:
    """Machine limits of a floating dtype (array API ``finfo``)."""

    def __init__(self, dtype: DType) -> None:
        info: Any = ml_dtypes.finfo(dtype.numpy)  # type: ignore[no-untyped-call]
        self.bits = int(info.bits)
        self.eps = float(info.eps)
        self.max = float(info.max)
        self.min = float(info.min)
        self.smallest_normal = float(info.smallest_normal)
        self.dtype = dtype


class iinfo_object:
    """Machine limits of an integer dtype (array API ``iinfo``)."""

    def __init__(self, dtype: DType) -> None:
        info = np.iinfo(dtype.numpy)
        self.bits = int(info.bits)
        self.max = int(info.max)
        self.min = int(info.min)
        self.dtype = dtype


def _dtype_of(x: Any) -> DType:
    return as_dtype(getattr(x, "dtype", x))


def finfo(type: Any, /) -> finfo_object:
    """Limits of a floating dtype or of a tensor's dtype.

    Raises:
        DTypeError: the dtype is not floating.
    """
    d = _dtype_of(type)
    if d.kind != "float":
        raise DTypeError(f"finfo: expected a floating dtype; received {d.name}.")
    return finfo_object(d)


def iinfo(type: Any, /) -> iinfo_object:
    """Limits of an integer dtype or of a tensor's dtype.

    Raises:
        DTypeError: the dtype is not an integer type.
    """
    d = _dtype_of(type)
    if d.kind not in ("int", "uint"):
        raise DTypeError(f"iinfo: expected an integer dtype; received {d.name}.")
    return iinfo_object(d)


_KINDS: Final = {
    "bool": ("bool",),
    "signed integer": ("int",),
    "unsigned integer": ("uint",),
    "integral": ("int", "uint"),
    "real floating": ("float",),
    "complex floating": (),
    "numeric": ("int", "uint", "float"),
}


def isdtype(dtype: Any, kind: Any) -> bool:
    """Whether ``dtype`` is of a kind: a DType, one of the standard's kind names, or a tuple of these."""
    if isinstance(kind, tuple):
        return any(isdtype(dtype, k) for k in kind)
    if isinstance(kind, str):
        if kind not in _KINDS:
            raise ArgumentError(f"isdtype: expected a dtype or one of {', '.join(_KINDS)}; received {kind!r}.")
        return as_dtype(dtype).kind in _KINDS[kind]
    return as_dtype(dtype) is as_dtype(kind)
