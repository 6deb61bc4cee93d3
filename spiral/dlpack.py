"""DLPack both ways. NumPy makes and reads the capsules, but knows no bfloat16: there it sees uint16, and the
type code in the capsule is set here.

NumPy does so for memory of devices too, which it never looks at: an array over a device's address describes shape and
strides, keeps the memory and calls the producer's deleter, and the device in the capsule is set here. The memory of
such a device brings what only it knows, see `Sharing`.

The structures are those of dlpack.h (https://dmlc.github.io/dlpack/latest/c_api.html), version 1.0.
"""

from __future__ import annotations

import ctypes
from typing import Any, Protocol, runtime_checkable

import numpy as np

from spiral.device_array import DeviceArray
from spiral.dtype import as_dtype, bfloat16
from spiral.errors import DeviceError, DTypeError, received

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


@runtime_checkable
class Sharing(Protocol):
    """What the memory of a device offers whose addresses other libraries can work on."""

    driver: Any

    def dlpack_device(self) -> tuple[int, int]:
        """Its type and number in DLPack.

        Raises:
            BufferError: other libraries cannot work on it here, and why.
        """

    def hand_over(self, stream: int) -> None:
        """Has a consumer's stream wait for what is enqueued so far."""

    def take_over(self) -> int:
        """The stream that a producer's work must come before."""

    def give_back(self, array: object) -> None:
        """Keeps a producer's memory until the device is done with what is enqueued so far."""


_LEGACY_STREAM, _NO_SYNCHRONISATION = 1, -1


def device_of(memory: Any, where: object) -> tuple[int, int]:
    """The device of a memory in DLPack.

    Raises:
        BufferError: no other library can work on it.
    """
    if not isinstance(memory, Sharing):
        raise BufferError(f"__dlpack__: memory of {where} is not shared with other libraries; use .to('cpu') first.")
    return memory.dlpack_device()


class _Lent:
    """A device's buffer as NumPy may describe it; kept by the array that it makes of it."""

    def __init__(self, buffer: DeviceArray) -> None:
        self.buffer = buffer
        typestr = "<u2" if buffer.dtype == bfloat16.numpy else buffer.dtype.str
        self.__array_interface__ = {
            "shape": buffer.shape, "strides": buffer.strides, "typestr": typestr, "data": (buffer.address, False),
            "version": 3,
        }  # fmt: skip


def export_from_device(
    buffer: DeviceArray, memory: Any, where: object, stream: Any, max_version: tuple[int, int] | None
) -> Any:
    """A capsule over a device's buffer.

    Args:
        buffer: the values.
        memory: of its device.
        where: the device's name.
        stream: the consumer's, as the array API standard numbers those of CUDA: None and 1 for the legacy default
            stream, 2 for the thread's, -1 for no synchronisation, else the stream's address.

    Raises:
        BufferError: other libraries cannot work on the memory, or the stream is none.
    """
    device = device_of(memory, where)
    stream = _LEGACY_STREAM if stream is None else stream
    if not isinstance(stream, int) or isinstance(stream, bool) or stream == 0 or stream < _NO_SYNCHRONISATION:
        raise BufferError(
            f"__dlpack__: stream: expected None, 1, 2, -1 or the address of a CUDA stream; received {received(stream)}."
        )
    if stream != _NO_SYNCHRONISATION:
        memory.hand_over(stream)
    described = np.asarray(_Lent(buffer))
    capsule = described.__dlpack__(max_version=max_version) if max_version is not None else described.__dlpack__()
    tensor = _described(capsule)
    tensor.device_type, tensor.device_id = device
    if buffer.dtype == bfloat16.numpy:
        tensor.code = _BFLOAT
    return capsule


class _Borrowed:
    """A producer's memory as the block of a device's buffer."""

    __slots__ = ("__weakref__", "_memory", "_shell", "address", "nbytes")

    def __init__(self, memory: Sharing, shell: np.ndarray[Any, Any]) -> None:
        self._memory, self._shell = memory, shell
        self.address: int = shell.__array_interface__["data"][0]
        self.nbytes = shell.nbytes

    def __del__(self) -> None:
        self._memory.give_back(self._shell)


def read_from_device(x: Any, memory: Sharing, copy: bool | None) -> tuple[DeviceArray, bool]:
    """The buffer that an object exports on a device of ours, and whether it may be written to.

    Raises:
        DTypeError: its element type is none of spiral's.
        DeviceError: the capsule holds memory of another device than the object says.
        BufferError: ``copy=False`` where its producer has to copy.
    """
    device, stream = memory.dlpack_device(), memory.take_over()
    try:
        capsule = x.__dlpack__(stream=stream, max_version=(1, 0), copy=copy)
    except TypeError:  # producers of before 2023.12 know no more than the stream
        capsule = x.__dlpack__(stream=stream)
    tensor = _described(capsule)
    held = tensor.device_type, tensor.device_id
    if held != device:
        raise DeviceError(f"from_dlpack: expected memory of device {device}, as its producer says; received {held}.")
    code = tensor.code
    brain = code == _BFLOAT and tensor.bits == 16
    tensor.device_type, tensor.device_id = CPU, 0
    if brain:
        tensor.code = _UINT
    try:
        shell: np.ndarray[Any, Any] = np.from_dlpack(_Capsule(capsule, (CPU, 0)))
    except (RuntimeError, BufferError) as error:
        raise DTypeError(f"from_dlpack: {error}") from None
    finally:  # the producer may look at it when it takes the memory back
        tensor.device_type, tensor.device_id = device
        tensor.code = code
    block = _Borrowed(memory, shell)
    dtype = bfloat16.numpy if brain else as_dtype(shell.dtype).numpy
    array = DeviceArray(memory.driver, block, block.address, shell.shape, dtype, shell.strides)
    return array, shell.flags.writeable


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
