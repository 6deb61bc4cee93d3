"""Events and graphs of the device that is none: time is the host's, and a graph is a list of what to do again."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from spiral.testing.cuda_on_cpu.memory import HostBlock


class Event:
    """A moment on the clock; see `spiral.gpu.driver.Event`."""

    def __init__(self, wait: Callable[[], None]) -> None:
        self._wait = wait
        self._time = time.perf_counter()

    def done(self) -> bool:
        return True

    def wait(self) -> None:
        self._wait()

    def milliseconds_since(self, earlier: Event) -> float:
        return (self._time - earlier._time) * 1e3


class Graph:
    """Work to be done again; keeps the blocks that were made meanwhile."""

    def __init__(self) -> None:
        self.work: list[Callable[[], Any]] = []
        self.blocks: list[HostBlock] = []

    def launch(self) -> None:
        for work in self.work:
            work()
