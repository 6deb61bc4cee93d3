"""DLPack both ways. NumPy makes and reads the capsules, but knows no bfloat16: there it sees uint16, and the
type code in the capsule is set here.

The structures are those of dlpack.h (https://dmlc.github.io/dlpack/latest/c_api.html), version 1.0.
"""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np

from spiral.dtype import bfloat16
from spiral.errors import DeviceError, DTypeError

CPU = 1  # kDLCPU
_UINT, _BFLOAT = 1, 4  # kDLUInt, kDLBfloat
_VERSIONED = b"dltensor_versioned"


class _DLTensor(ctypes.Structure):
    _fields_ = [
        ("data", ctypes.c_void_p),
        ("device_type", ctypes.c_int32),
        ("device_id", ctypes.c_int32),
        ("ndim", ctypes.c_int32),
        ("code", ctypes.c_uint8),
        ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16),
        ("shape", ctypes.c_void_p),
        ("strides", ctypes.c_void_p),
        ("byte_offset", ctypes.c_uint64),
    ]


class _Versioned(ctypes.Structure):
    _fields_ = [
        ("major", ctypes.c_uint32),
        ("minor", ctypes.c_uint32),
        ("manager", ctypes.c_void_p),
        ("deleter", ctypes.c_void_p),
        ("flags", ctypes.c_uint64),
        ("tensor", _DLTensor),
    ]


_name = ctypes.pythonapi.PyCapsule_GetName
_name.restype, _name.argtypes = ctypes.c_char_p, [ctypes.py_object]
_pointer = ctypes.pythonapi.PyCapsule_GetPointer
_pointer.restype, _pointer.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]


def _described(capsule: Any) -> _DLTensor:
    """The tensor that a capsule describes."""
    name = _name(capsule)
    address = _pointer(capsule, name)
    if name == _VERSIONED:
        return _Versioned.from_address(address).tensor  # type: ignore[no-any-return]
    return _DLTensor.from_address(address)


def export(
    a: np.ndarray[Any, Any],
    max_version: tuple[int, int] | None,
    dl_device: tuple[int, int] | None,
    copy: bool | None,
) -> Any:
    """A capsule over a CPU array.

    Raises:
        BufferError: another device is asked for, or ``copy=False`` where the consumer could write to read-only memory.
    """
    if dl_device is not None and tuple(dl_device) != (CPU, 0):
        raise BufferError(f"__dlpack__: a CPU tensor can only be exported to device {(CPU, 0)}; received {dl_device}.")
    versioned = max_version is not None and max_version[0] >= 1
    # an unversioned capsule cannot say that memory (of a broadcast tensor, of a mapped file) must not be written
    if copy or (copy is None and not versioned and not a.flags.writeable):
        a = a.copy()
    brain = a.dtype == bfloat16.numpy
    if brain:
        a = a.view(np.uint16)
    capsule = a.__dlpack__(max_version=max_version) if max_version is not None else a.__dlpack__()
    if brain:
        _described(capsule).code = _BFLOAT
    return capsule


class _Capsule:
    """What `numpy.from_dlpack` wants to be given."""

    def __init__(self, capsule: Any, device: tuple[int, int]) -> None:
        self.capsule, self.device = capsule, device

    def __dlpack__(self, **options: Any) -> Any:
        return self.capsule

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.device


def read(x: Any, copy: bool | None) -> np.ndarray[Any, Any]:
    """The array that an object exports, sharing its memory unless ``copy``.

    Raises:
        DeviceError: it lives where the CPU cannot reach.
        DTypeError: its element type is none of spiral's.
        BufferError: ``copy=False`` where its producer has to copy.
    """
    device = tuple(x.__dlpack_device__())
    if device[0] != CPU:
        raise DeviceError(f"from_dlpack: expected memory of the CPU, device type {CPU}; received device {device}.")
    try:
        capsule = x.__dlpack__(max_version=(1, 0), copy=copy)
    except TypeError:  # producers of before 2023.12 know neither argument
        capsule = x.__dlpack__()
    tensor = _described(capsule)
    brain = tensor.code == _BFLOAT and tensor.bits == 16
    if brain:
        tensor.code = _UINT
    try:
        a: np.ndarray[Any, Any] = np.from_dlpack(_Capsule(capsule, device))
    except (RuntimeError, BufferError) as error:
        raise DTypeError(f"from_dlpack: {error}") from None
    if brain:
        a = a.view(bfloat16.numpy)
    return a.copy() if copy else a
