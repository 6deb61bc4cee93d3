"""GGUF's tensor types as a table: sizes, how to encode and decode, and what range each holds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import gguf
import ml_dtypes
import numpy as np
from gguf.quants import dequantize, quantize
from numpy.typing import NDArray

from spiral.errors import ArgumentError

Encoder = Callable[[NDArray[np.float32]], NDArray[Any]]
Decoder = Callable[[NDArray[np.uint8]], NDArray[Any]]


@dataclass(frozen=True)
class TensorType:
    """One way to store a tensor: rows of blocks of `block_size` elements, `type_size` bytes each.

    Args:
        name: GGUF's name, for example ``"Q8_0"``.
        id: GGUF's number for it.
        block_size: Elements that are encoded together; a row's length must be a multiple.
        type_size: Bytes of one block.
        decode: (rows, bytes) uint8 to (rows, elements); None where nothing here can decode it.
        encode: (rows, elements) float32 to an array of the stored bytes; None: read only.
        smallest: Tensors whose largest magnitude is below this lose more than the type's usual
            rounding error, because float16 scales run out of precision.
        largest: Tensors with a larger magnitude overflow.
        wider: The type to fall back to where this one does not fit.
    """

    name: str
    id: int
    block_size: int
    type_size: int
    decode: Decoder | None
    encode: Encoder | None = None
    smallest: float = 0.0
    largest: float = float(np.finfo(np.float32).max)
    wider: str | None = None

    def nbytes(self, shape: tuple[int, ...]) -> int:
        """The bytes of a tensor whose last axis is a multiple of `block_size`."""
        elements = 1
        for dim in shape:
            elements *= dim
        return elements // self.block_size * self.type_size


def _encode_f16(rows: NDArray[np.float32]) -> NDArray[Any]:
    return rows.astype("<f2")


def _encode_f32(rows: NDArray[np.float32]) -> NDArray[Any]:
    return rows.astype("<f4", copy=False)


def _by_gguf(kind: gguf.GGMLQuantizationType) -> tuple[Encoder, Decoder]:
    """The gguf package's codec: its Q8_0 and BF16 equal ggml's bit for bit."""

    def encode(rows: NDArray[np.float32]) -> NDArray[Any]:
        return quantize(rows, kind)

    def decode(rows: NDArray[np.uint8]) -> NDArray[Any]:
        # damaged scales may be inf or nan; the values are then what the file says
        with np.errstate(all="ignore"):
            return dequantize(rows, kind)

    return encode, decode


def _plain(dtype: str) -> Decoder:
    def decode(rows: NDArray[np.uint8]) -> NDArray[Any]:
        values: NDArray[Any] = rows.view(dtype)
        return values

    return decode


_KIND = gguf.GGMLQuantizationType
_PLAIN = {_KIND.I8: "<i1", _KIND.I16: "<i2", _KIND.I32: "<i4", _KIND.I64: "<i8", _KIND.F64: "<f8"}
# In gguf 0.19 these have a size and no dequantizer: two hold activations, the third is too new.
_UNREADABLE = {_KIND.Q8_1, _KIND.Q8_K, _KIND.Q1_0}


def _type_table() -> dict[str, TensorType]:
    table = {}
    for kind, (block_size, type_size) in gguf.GGML_QUANT_SIZES.items():
        decode = _plain(_PLAIN[kind]) if kind in _PLAIN else _by_gguf(kind)[1]
        table[kind.name] = TensorType(
            kind.name,
            int(kind),
            block_size,
            type_size,
            None if kind in _UNREADABLE else decode,
        )
    # What can be written. Float16 is precise above 2**-14; the scale of a Q8_0 block is
    # max / 127, and a scale of 2**-17 has as much rounding error as the 8-bit codes themselves.
    writable: dict[str, dict[str, Any]] = {
        "F32": {"encode": _encode_f32},
        "BF16": {"encode": _by_gguf(_KIND.BF16)[0], "largest": 3.38e38, "wider": "F32"},
        "F16": {"encode": _encode_f16, "smallest": 2.0**-14, "largest": 65504.0, "wider": "F32"},
        "Q8_0": {
            "encode": _by_gguf(_KIND.Q8_0)[0],
            "smallest": 127 * 2.0**-17,
            "largest": 127 * 65504.0,
            "wider": "F16",
        },
    }
    for name, how in writable.items():
        table[name] = TensorType(**{**vars(table[name]), **how})
    return table


TENSOR_TYPES: dict[str, TensorType] = _type_table()
TYPES_BY_ID: dict[int, TensorType] = {entry.id: entry for entry in TENSOR_TYPES.values()}


def writable_type(name: str) -> TensorType:
    """The table's row for a type that can be written.

    Args:
        name: For example ``"F16"``.

    Raises:
        ArgumentError: There is no such type, or it can only be read.
    """
    row = TENSOR_TYPES.get(name)
    if row is None or row.encode is None:
        writable = ", ".join(key for key, entry in TENSOR_TYPES.items() if entry.encode)
        raise ArgumentError(f"GGUF tensor type must be one of {writable}; received {name!r}.")
    return row


def fitting_type(wanted: str, shape: tuple[int, ...], largest: float) -> tuple[TensorType, str | None]:
    """The wanted type, or the nearest wider one that can hold the tensor.

    Args:
        wanted: The name of a writable type.
        shape: The tensor's shape, in NumPy's order.
        largest: The tensor's largest magnitude.

    Returns:
        The type, and why it is not the wanted one (None if it is).

    Raises:
        ArgumentError: The type cannot be written.

    Example:
        >>> row, why = fitting_type("Q8_0", (4, 20), 1.0)
        >>> row.name, why
        ('F16', 'Q8_0 needs rows of a multiple of 32 elements, not 20')
    """
    row = writable_type(wanted)
    reason = None
    while (problem := _misfit(row, shape, largest)) and row.wider:
        reason = reason or problem
        row = writable_type(row.wider)
    return row, reason


def _misfit(row: TensorType, shape: tuple[int, ...], largest: float) -> str | None:
    width = shape[-1]
    if width % row.block_size:
        return f"{row.name} needs rows of a multiple of {row.block_size} elements, not {width}"
    if largest > row.largest:
        return f"its largest magnitude {largest:.3g} overflows {row.name} (limit {row.largest:.3g})"
    if 0 < largest < row.smallest:
        return (
            f"its largest magnitude {largest:.3g} is too small for {row.name}'s float16 range "
            f"(limit {row.smallest:.3g})"
        )
    return None


def as_float32(name: str, array: NDArray[Any]) -> NDArray[np.float32]:
    """The array as float32: exact for float16 and bf16, rounded for float64.

    Args:
        name: For the message.
        array: A float16, bfloat16, float32 or float64 array.

    Raises:
        ArgumentError: The array has another dtype.
    """
    if array.dtype == ml_dtypes.bfloat16:
        bits = np.ascontiguousarray(array).view(np.uint16).astype(np.uint32) << np.uint32(16)
        return bits.view(np.float32).reshape(array.shape)
    if array.dtype.kind != "f" or array.dtype.itemsize > 8:
        raise ArgumentError(f"tensor {name!r} must be float16, bfloat16, float32 or float64; received {array.dtype}.")
    with np.errstate(over="ignore"):  # callers look for infinities themselves
        return array.astype(np.float32, copy=False)
