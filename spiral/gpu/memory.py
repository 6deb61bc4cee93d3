"""A driver's memory in terms of tensors' buffers."""

from __future__ import annotations

import gc
from typing import Any

import numpy as np

from spiral.device_array import DeviceArray, SeparateMemory
from spiral.gpu.driver import Driver, Event, SharesStream

_CUDA = 2  # kDLCUDA


class GpuMemory(SeparateMemory):
    """The `spiral.backend.Memory` of a GPU; a buffer's ``memory`` is the `spiral.gpu.Driver`."""

    def __init__(self, driver: Driver) -> None:
        super().__init__(driver)
        self.driver = driver
        self._borrowed: list[tuple[object, Event]] = []
        self._staged: list[tuple[np.ndarray[Any, Any], Event]] = []

    def from_host_ahead(self, array: np.ndarray[Any, Any]) -> DeviceArray:
        """A buffer with the values of a C-contiguous array; the copy runs beside the work enqueued so far.

        The host waits for nothing: values go through page-locked memory, which is used again once its copy is done.
        """
        buffer = DeviceArray.empty(self.driver, array.shape, array.dtype)
        if array.size:
            staging = self._staging_for(array.nbytes)
            staging[:] = array.reshape(-1).view(np.uint8)
            self._staged.append((staging, self.driver.write_ahead(buffer.address, staging)))
        return buffer

    def _staging_for(self, nbytes: int) -> np.ndarray[Any, Any]:
        for i, (staging, event) in enumerate(self._staged):
            if staging.nbytes == nbytes and event.done():
                del self._staged[i]
                return staging
        fresh: np.ndarray[Any, Any] = self.driver.pinned(nbytes)
        return fresh

    # ------------------------------------------------------------ sharing with other libraries
    def dlpack_device(self) -> tuple[int, int]:
        """See `spiral.dlpack.Sharing`."""
        return (_CUDA, self._shared().index)

    def hand_over(self, stream: int) -> None:
        """See `spiral.dlpack.Sharing`."""
        self._shared().let_wait(stream)

    def take_over(self) -> int:
        """See `spiral.dlpack.Sharing`."""
        return self._shared().stream_address

    def give_back(self, array: object) -> None:
        """See `spiral.dlpack.Sharing`; what the device is done with goes at the next call."""
        self._borrowed = [(a, event) for a, event in self._borrowed if not event.done()]
        self._borrowed.append((array, self.driver.event()))

    def _shared(self) -> SharesStream:
        driver: object = self.driver
        if not isinstance(driver, SharesStream):  # a stand-in: its memory is none of CUDA's
            name = self.driver.facts.name
            raise BufferError(f"__dlpack__: {name} has no memory that other libraries know; use .to('cpu') first.")
        return driver

    def report(self) -> dict[str, int]:
        """Bytes: live, peak since `restart_peak`, and what the driver says of its pool and device."""
        usage = self.driver.usage
        more = getattr(self.driver, "memory", None)
        return {"live": usage.used, "peak": usage.peak, **(more() if more is not None else {})}

    def restart_peak(self) -> None:
        """Counts the peak from now on."""
        self.driver.usage.restart()


def largest_alive(count: int = 10) -> list[tuple[int, str]]:
    """Bytes and description of the largest device buffers that are alive, one line per block of memory.

    Found by walking the collector's objects: nothing is paid for it until memory runs out.
    """
    blocks: dict[int, tuple[int, str]] = {}
    for o in gc.get_objects():
        if type(o) is DeviceArray:
            size = getattr(o.block, "nbytes", o.nbytes)
            blocks[id(o.block)] = (size, f"{o.dtype}{list(o.shape)}")
    return sorted(blocks.values(), reverse=True)[:count]


def out_of_memory(wanted: int, free: int, total: int) -> str:
    """What an out-of-memory error says: what was wanted, what would fit, and who holds the rest.

    Args:
        wanted: bytes asked for.
        free: bytes that would still fit.
        total: bytes of the device.
    """
    lines = [
        f"the device has no {_size(wanted)} left: {_size(free)} of {_size(total)} would fit. The largest tensors alive:"
    ]
    lines += [f"  {_size(size):>10}  {text}" for size, text in largest_alive()] or ["  none of spiral's"]
    lines.append("Use a smaller batch, spiral.checkpoint, bfloat16, or free what is no longer needed.")
    return "\n".join(lines)


def _size(nbytes: float) -> str:
    for unit in ("B", "KiB", "MiB"):
        if nbytes < 1024:
            return f"{nbytes:.0f} {unit}" if unit == "B" else f"{nbytes:.1f} {unit}"
        nbytes /= 1024
    return f"{nbytes:.1f} GiB"
