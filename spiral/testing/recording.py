"""A device that runs nothing and writes down what it was asked: for tests of launch paths and their overhead.

Memory is the host's, so that copies, fills and views are real, and kernels that a launcher runs by itself on addresses
(Triton's interpreter) compute.
"""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from spiral.errors import KernelError
from spiral.gpu import CudaSource, Facts
from spiral.gpu.usage import Usage

_ALIGNMENT = 256
_POISON = 0xFF  # NaN in every floating type


class HostBlock:
    """Host memory aligned as a device's, full of NaN."""

    __slots__ = ("__weakref__", "_memory", "_usage", "address", "nbytes")

    def __init__(self, nbytes: int, usage: Usage) -> None:
        self._usage = usage
        usage.add(nbytes)
        self._memory = np.full(nbytes + _ALIGNMENT, _POISON, np.uint8)
        start = self._memory.ctypes.data
        self.address = start + -start % _ALIGNMENT
        self.nbytes = nbytes

    def __del__(self) -> None:
        self._usage.remove(self.nbytes)


@dataclass(frozen=True)
class Call:
    """What a driver was asked: the method, the kernel's name for launches, sizes and addresses as they were given."""

    method: str
    name: str = ""
    grid: tuple[int, ...] = ()
    block: tuple[int, ...] = ()
    shared: int = 0
    address: int = 0
    nbytes: int = 0
    values: tuple[Any, ...] | None = None


class RecordingDriver:
    """A `spiral.gpu.Driver` that records.

    Args:
        cc: compute capability times ten that it claims.
        on_processor: it claims to be host memory for the interpreter, and refuses compiled kernels.
        shared_memory: bytes that it claims to have for a block.

    Attributes:
        calls: everything since the start or the last ``calls.clear()``, in order.
        recording: switched off, launches are only counted.
        launches: how many there were.
        images: cubin by name of the kernels loaded.
    """

    def __init__(self, cc: int = 90, shared_memory: int = 232448, on_processor: bool = False) -> None:
        more = {"on_processor": True} if on_processor else {}
        self.facts = Facts("recording driver", cc, 132, shared_memory, 1 << 34, "spiral.testing.recording", more=more)
        self.usage = Usage()
        self.synchronizations = 0
        self.functions: dict[Any, Any] = {}
        self.calls: list[Call] = []
        self.recording = True
        self.launches = 0
        self.images: dict[str, bytes] = {}
        self._names: list[str] = []
        self._capturing = False
        self._formats: dict[str, tuple[str, ...]] = {}

    def unpack(self, name: str, *formats: str) -> None:
        """Has the parameters of a kernel's launches unpacked, by a format of the `struct` module for each."""
        self._formats[name] = formats

    def named(self, method: str) -> list[Call]:
        """The calls of one method."""
        return [c for c in self.calls if c.method == method]

    def _note(self, call: Call) -> None:
        if self.recording:
            self.calls.append(call)

    def allocate(self, nbytes: int) -> HostBlock:
        """See `spiral.gpu.Driver`; poisoned with NaN."""
        block = HostBlock(nbytes, self.usage)
        self._note(Call("allocate", address=block.address, nbytes=nbytes))
        return block

    def write(self, address: int, array: np.ndarray[Any, Any]) -> None:
        """See `spiral.gpu.Driver`."""
        self._note(Call("write", address=address, nbytes=array.nbytes))
        ctypes.memmove(address, array.ctypes.data, array.nbytes)

    def read(self, address: int, array: np.ndarray[Any, Any]) -> None:
        """See `spiral.gpu.Driver`; counts as a synchronization."""
        self._wait("read")
        self._note(Call("read", address=address, nbytes=array.nbytes))
        ctypes.memmove(array.ctypes.data, address, array.nbytes)

    def copy(self, to: int, source: int, nbytes: int) -> None:
        """See `spiral.gpu.Driver`."""
        self._note(Call("copy", address=to, nbytes=nbytes, values=(source,)))
        if not self._capturing:
            ctypes.memmove(to, source, nbytes)

    def fill(self, address: int, byte: int, nbytes: int) -> None:
        """See `spiral.gpu.Driver`."""
        self._note(Call("fill", address=address, nbytes=nbytes, values=(byte,)))
        if not self._capturing:
            ctypes.memset(address, byte, nbytes)

    def _handle(self, name: str) -> int:
        if self.facts.more:
            raise KernelError(f"{name}: host memory for the interpreter runs no compiled kernels.")
        self._names.append(name)
        return len(self._names) - 1

    def compile(self, source: CudaSource, name: str) -> int:
        """See `spiral.gpu.Driver`; compiles nothing."""
        if name not in source.names:
            raise KernelError(f"{source.file}: expected one of {', '.join(source.names)}; received {name!r}.")
        self._note(Call("compile", name, values=(source,)))
        return self._handle(name)

    def load(self, image: bytes, name: str, shared: int) -> int:
        """See `spiral.gpu.Driver`; keeps the image."""
        self._note(Call("load", name, shared=shared, nbytes=len(image)))
        self.images[name] = image
        return self._handle(name)

    def launch(self, function: int, grid: Sequence[int], block: Sequence[int], shared: int, params: int) -> None:
        """See `spiral.gpu.Driver`; runs nothing."""
        self.launches += 1
        if not self.recording:
            return
        name = self._names[function]
        formats = self._formats.get(name)
        values = None if formats is None else _unpack(formats, params)
        self.calls.append(Call("launch", name, tuple(grid), tuple(block), shared, values=values))

    def synchronize(self) -> None:
        """See `spiral.gpu.Driver`."""
        self._wait("synchronize")
        self._note(Call("synchronize"))

    def _wait(self, what: str) -> None:
        if self._capturing:
            raise KernelError(f"{what}: the host cannot wait for what is being captured.")
        self.synchronizations += 1

    def event(self) -> RecordedEvent:
        """See `spiral.gpu.Driver`."""
        self._note(Call("event"))
        return RecordedEvent(self)

    def pinned(self, nbytes: int) -> np.ndarray[Any, Any]:
        """See `spiral.gpu.Driver`."""
        self._note(Call("pinned", nbytes=nbytes))
        return np.full(nbytes, _POISON, np.uint8)

    def write_ahead(self, address: int, array: np.ndarray[Any, Any]) -> RecordedEvent:
        """See `spiral.gpu.Driver`; copies at once."""
        self._note(Call("write_ahead", address=address, nbytes=array.nbytes))
        ctypes.memmove(address, array.ctypes.data, array.nbytes)
        return RecordedEvent(self)

    def capture(self, enqueue: Callable[[], None]) -> RecordedGraph:
        """See `spiral.gpu.Driver`; refused where kernels are interpreted, which would run now."""
        if self.facts.more:
            raise KernelError("capture: host memory for the interpreter records no graphs.")
        before, self.calls, self._capturing = self.calls, [], True
        try:
            enqueue()
        finally:
            captured, self.calls, self._capturing = self.calls, before, False
        self._note(Call("capture"))
        return RecordedGraph(self, captured)


class RecordedEvent:
    """A moment that has passed; see `spiral.gpu.driver.Event`."""

    def __init__(self, driver: RecordingDriver) -> None:
        self._driver = driver

    def done(self) -> bool:
        """Always."""
        return True

    def wait(self) -> None:
        """Counts as a synchronization."""
        self._driver._wait("wait")

    def milliseconds_since(self, earlier: Any) -> float:
        """None: nothing ran."""
        return 0.0


class RecordedGraph:
    """What was captured; see `spiral.gpu.driver.Graph`.

    Attributes:
        calls: what the graph holds.
    """

    def __init__(self, driver: RecordingDriver, calls: list[Call]) -> None:
        self._driver = driver
        self.calls = calls

    def launch(self) -> None:
        """Noted as ``replay``."""
        self._driver._note(Call("replay"))


def _unpack(formats: tuple[str, ...], params: int) -> tuple[Any, ...]:
    """The values behind an array of pointers."""
    pointers = (ctypes.c_void_p * len(formats)).from_address(params)
    values: list[Any] = []
    for f, pointer in zip(formats, pointers, strict=True):
        values += struct.unpack("@" + f, ctypes.string_at(pointer or 0, struct.calcsize("@" + f)))
    return tuple(values)
