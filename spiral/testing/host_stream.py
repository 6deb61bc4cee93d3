"""The stream of drivers whose device is the host: work is done when it is told, or kept in a graph."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from spiral.errors import KernelError
from spiral.gpu.params import Kept


class HostEvent:
    """A moment that has passed; see `spiral.gpu.driver.Event`."""

    def __init__(self, driver: Any) -> None:
        self._driver = driver
        self.at = time.perf_counter()

    def done(self) -> bool:
        """True: nothing is left when a call returns."""
        return True

    def wait(self) -> None:
        """Counts as waiting, though there is nothing to wait for."""
        self._driver.synchronize()

    def milliseconds_since(self, earlier: HostEvent) -> float:
        """Wall time between the two."""
        return (self.at - earlier.at) * 1e3


class HostGraph:
    """Calls to be made again; see `spiral.gpu.driver.Graph`."""

    def __init__(self) -> None:
        self.calls: list[Callable[[], object]] = []
        self.blocks: list[Any] = []  # memory that was made meanwhile is this graph's, as long as it lives

    def launch(self) -> None:
        """Makes them."""
        for call in self.calls:
            call()


class HostStream:
    """Events, page-locked memory and graphs of a driver of host memory.

    A driver that inherits it asks `keep` at the start of launches, copies and fills, and `refuse` where it waits.
    """

    _graph: HostGraph | None = None

    def event(self) -> HostEvent:
        """See `spiral.gpu.Driver`."""
        return HostEvent(self)

    def pinned(self, nbytes: int) -> np.ndarray[Any, Any]:
        """See `spiral.gpu.Driver`."""
        return np.empty(nbytes, np.uint8)

    def write_ahead(self, address: int, array: np.ndarray[Any, Any]) -> HostEvent:
        """See `spiral.gpu.Driver`."""
        self.refuse("write_ahead")
        self.write(address, array)  # type: ignore[attr-defined]
        return HostEvent(self)

    def capture(self, enqueue: Callable[[], None]) -> HostGraph:
        """See `spiral.gpu.Driver`."""
        self.refuse("capture")
        graph = self._graph = HostGraph()
        try:
            enqueue()
        finally:
            self._graph = None
        return graph

    def keep(self, call: Callable[..., object], *args: Any, params: int | None = None) -> bool:
        """Whether a graph is being made, which then has the call.

        Args:
            call: takes ``args`` and, where given, the address of parameters that are copied now.
        """
        if self._graph is None:
            return False
        if params is None:
            self._graph.calls.append(lambda: call(*args))
        else:
            kept = Kept(params)
            self._graph.calls.append(lambda: call(*args, kept.address))
        return True

    def keep_write(self, address: int, array: np.ndarray[Any, Any]) -> bool:
        """Whether a write is left to the graph that is being made, which has these values at every launch.

        Memory that was made meanwhile is also written now.
        """
        if self._graph is None:
            return False
        values = array.copy()
        write: Callable[..., None] = self.write  # type: ignore[attr-defined]
        self._graph.calls.append(lambda: write(address, values))
        return not any(b.address <= address < b.address + b.nbytes for b in self._graph.blocks)

    def keep_block(self, block: Any) -> None:
        """Has a graph that is being made keep memory that its calls use."""
        if self._graph is not None:
            self._graph.blocks.append(block)

    def refuse(self, what: str) -> None:
        """Raises KernelError while a graph is being made."""
        if self._graph is not None:
            raise KernelError(f"capture: expected launches, copies, fills and writes only; received a call of {what}.")
