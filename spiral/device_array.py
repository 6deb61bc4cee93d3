"""The buffer of a tensor that does not live in the host's memory: an address with shape, strides and dtype.

It has what the core and the ops ask of an array without looking at its values, the shape and the making of views,
and refuses what would need them. Any backend whose memory the host cannot reach can use it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any, Protocol

import numpy as np

from spiral.backend import Spec
from spiral.errors import DeviceError


class Block(Protocol):
    """Memory that is returned to its allocator when the object dies."""

    address: int
    nbytes: int


class DeviceMemory(Protocol):
    """What moves bytes between the host and a device that have no memory in common, in the order of the calls.

    A kernel finds it as ``array.memory``.
    """

    def allocate(self, nbytes: int) -> Block:
        """Memory of at least ``nbytes`` bytes, contents undefined."""

    def write(self, address: int, array: np.ndarray[Any, Any]) -> None:
        """Copies a C-contiguous host array to the device."""

    def read(self, address: int, array: np.ndarray[Any, Any]) -> None:
        """Copies device memory into a C-contiguous host array, and waits for it."""

    def copy(self, to: int, source: int, nbytes: int) -> None:
        """Copies within the device."""


_checks: dict[int, Callable[[], None]] = {}  # by id of the memory, which the check keeps alive


def check_before_reading(memory: Any, check: Callable[[], None]) -> None:
    """Has values of a memory read only after a check, which may raise what went wrong before; it holds the memory."""
    _checks[id(memory)] = check


@lru_cache(4096)  # asked for every array that is made: 0.1 us instead of 1
def _dense(shape: tuple[int, ...], itemsize: int) -> tuple[tuple[int, ...], int]:
    """Strides in C order, and the number of elements."""
    return contiguous_strides(shape, itemsize), math.prod(shape)


def contiguous_strides(shape: tuple[int, ...], itemsize: int) -> tuple[int, ...]:
    """Bytes from one element to the next along each axis, in C order."""
    strides = [itemsize] * len(shape)
    for i in range(len(shape) - 2, -1, -1):
        strides[i] = strides[i + 1] * shape[i + 1]
    return tuple(strides)


class _Interface:
    """An array that NumPy can make views of: no one reads its memory."""

    def __init__(self, shape: tuple[int, ...], strides: tuple[int, ...], itemsize: int) -> None:
        self.__array_interface__ = {
            "shape": shape, "strides": strides, "typestr": f"|V{itemsize}", "data": (_FAR, True), "version": 3,
        }  # fmt: skip


_FAR = 1 << 46  # where the views' addresses are counted from: offsets may be negative


class DeviceArray:
    """Shape, strides and address of a tensor's values on a device.

    Attributes:
        address: of the first element.
        shape: length of each axis.
        strides: bytes from one element to the next along each axis.
        dtype: element type, as NumPy's dtype.
        memory: where it lives; for the GPU backends the `spiral.gpu.Driver`.
        block: keeps the memory.
        contiguous: whether the elements lie in C order without gaps.
    """

    __slots__ = ("__weakref__", "address", "block", "contiguous", "dtype", "memory", "ndim", "shape", "size", "strides")
    __array_ufunc__ = None  # NumPy's operators refuse it

    def __init__(
        self,
        memory: Any,
        block: Any,
        address: int,
        shape: tuple[int, ...],
        dtype: np.dtype[Any],
        strides: tuple[int, ...] | None = None,
    ) -> None:
        self.memory = memory
        self.block = block
        self.address = address
        self.shape = shape
        self.dtype = dtype
        self.ndim = len(shape)
        dense, self.size = _dense(shape, dtype.itemsize)
        self.strides = dense if strides is None else strides
        # the stride of an axis of length 1 means nothing, and where there are no elements none does
        self.contiguous = strides is None or strides == dense or not self.size or all(
            [a == b or n == 1 for a, b, n in zip(strides, dense, shape, strict=True)]
        )  # fmt: skip

    @classmethod
    def empty(cls, memory: Any, shape: tuple[int, ...], dtype: np.dtype[Any]) -> DeviceArray:
        """An array of its own, contents undefined."""
        itemsize = dtype.itemsize
        block = memory.allocate(_dense(shape, itemsize)[1] * itemsize)
        return cls(memory, block, block.address, shape, dtype)

    @classmethod
    def of_spec(cls, memory: Any, spec: Spec) -> DeviceArray:
        """An array for a tensor; its memory order is always C."""
        return cls.empty(memory, spec.shape, spec.dtype.numpy)

    @classmethod
    def from_host(cls, memory: Any, array: np.ndarray[Any, Any]) -> DeviceArray:
        """A copy of a host array on a device."""
        array = np.ascontiguousarray(array) if array.ndim else array
        new = cls.empty(memory, array.shape, array.dtype)
        if array.size:
            memory.write(new.address, array)
        return new

    @property
    def itemsize(self) -> int:
        """Bytes of an element."""
        return self.dtype.itemsize

    @property
    def nbytes(self) -> int:
        """Bytes of all elements."""
        return self.size * self.dtype.itemsize

    @property
    def base(self) -> Any:
        """What keeps the memory; views share it."""
        return self.block

    def to_host(self) -> np.ndarray[Any, Any]:
        """The values as a NumPy array; waits for the device."""
        check = _checks.get(id(self.memory))
        if check is not None:
            check()
        if self.contiguous:
            out = np.empty(self.shape, self.dtype)
            if self.size:
                self.memory.read(self.address, out)
            return out
        # the stretch of memory from the lowest to the highest element, then the view of it on the host
        if not self.size:
            return np.empty(self.shape, self.dtype)
        spans = [(n - 1) * s for n, s in zip(self.shape, self.strides, strict=True)]
        low, high = sum(min(s, 0) for s in spans), sum(max(s, 0) for s in spans)
        raw = np.empty(high - low + self.dtype.itemsize, np.uint8)
        self.memory.read(self.address + low, raw)
        view = np.ndarray(self.shape, self.dtype, raw, -low, self.strides)
        return np.array(view, order="C", copy=True)

    # ------------------------------------------------------------ views
    def _shadow(self) -> np.ndarray[Any, Any]:
        return np.asarray(_Interface(self.shape, self.strides, self.dtype.itemsize))

    def _from_shadow(self, shadow: np.ndarray[Any, Any]) -> DeviceArray:
        offset = shadow.__array_interface__["data"][0] - _FAR if shadow.size else 0
        return DeviceArray(self.memory, self.block, self.address + offset, shadow.shape, self.dtype, shadow.strides)

    def reshape_view(self, shape: tuple[int, ...]) -> DeviceArray | None:
        """The same memory in another shape, or None where that needs a copy."""
        if -1 in shape:
            known = -math.prod(shape)
            shape = tuple(self.size // known if d == -1 else d for d in shape)
        if self.contiguous:
            return DeviceArray(self.memory, self.block, self.address, shape, self.dtype)
        shadow = self._shadow()
        try:
            return self._from_shadow(np.reshape(shadow, shape, copy=False))
        except ValueError:  # NumPy's word for "needs a copy"
            return None

    def transpose(self, axes: tuple[int, ...]) -> DeviceArray:
        """Axes in another order."""
        shape, strides = self.shape, self.strides
        return DeviceArray(
            self.memory, self.block, self.address, tuple([shape[a] for a in axes]), self.dtype,
            tuple([strides[a] for a in axes]),
        )  # fmt: skip

    def broadcast_to(self, shape: tuple[int, ...]) -> DeviceArray:
        """Repeated along axes of length 1 and along new leading ones."""
        lead = len(shape) - self.ndim
        strides = (0,) * lead + tuple(
            [s if n == m else 0 for n, m, s in zip(self.shape, shape[lead:], self.strides, strict=True)]
        )
        return DeviceArray(self.memory, self.block, self.address, shape, self.dtype, strides)

    def flip(self, axes: tuple[int, ...]) -> DeviceArray:
        """Axes in reverse order."""
        return self[tuple([slice(None, None, -1) if i in axes else slice(None) for i in range(self.ndim)])]

    def __getitem__(self, index: Any) -> DeviceArray:
        """A view by integers, slices, None and Ellipsis."""
        index = index if isinstance(index, tuple) else (index,)
        return self._from_shadow(self._shadow()[index if Ellipsis in index else (*index, ...)])

    # ------------------------------------------------------------ what needs the values
    def item(self) -> Any:
        """The only element, as a Python number; waits for the device."""
        return self.to_host().item()

    def tolist(self) -> Any:
        """The values as nested lists; waits for the device."""
        return self.to_host().tolist()

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Any:
        raise DeviceError("the values are on a device and are not copied silently; use .to('cpu') first.")

    def __repr__(self) -> str:
        return f"<DeviceArray {self.dtype}{list(self.shape)} at {self.address:#x}>"


class SeparateMemory:
    """The `spiral.backend.Memory` of a device that shares none with the host: buffers are `DeviceArray`.

    Args:
        driver: what allocates there and moves bytes.
    """

    unified = False

    driver: Any

    def __init__(self, driver: DeviceMemory) -> None:
        self.driver = driver

    def empty(self, spec: Spec) -> DeviceArray:
        """A dense buffer, in C order whatever order the spec prefers."""
        return DeviceArray.of_spec(self.driver, spec)

    def from_host(self, array: np.ndarray[Any, Any]) -> DeviceArray:
        """A dense buffer of its own with the values of a NumPy array."""
        return DeviceArray.from_host(self.driver, array)

    def to_host(self, buffer: DeviceArray) -> np.ndarray[Any, Any]:
        """A NumPy array of its own with the values of a buffer; waits for the device."""
        return buffer.to_host()
