"""Indices that a kernel finds to be out of range: told at the next reading of a value from the device.

A kernel cannot raise, and asking it would make the host wait for the device at every gather. So it leaves the index
in a word of the device's memory, reads and writes nothing outside of its arrays, and goes on; results of that call
are not to be used. Before the host reads values from the device the next time (`DeviceArray.to_host`: ``item``,
``tolist``, ``to("cpu")``, a clipped norm, …) the words are looked at, and `spiral.errors.IndexingError` is raised. A
program that never reads a value is never told. Reads that follow no such kernel look at nothing.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from spiral.device_array import DeviceArray, check_before_reading
from spiral.errors import IndexingError

WORDS = 512
_BYTE = 0x80
_CLEAR = int.from_bytes(bytes([_BYTE] * 8), "little", signed=True)  # an index that nobody asks for


class Faults:
    """The words of one device.

    Attributes:
        pending: whether kernels that may write to them were launched since they were last looked at; who replays
            recorded launches sets it.
    """

    def __init__(self, driver: Any) -> None:
        self._driver = driver
        self._words = DeviceArray.empty(driver, (WORDS,), np.dtype(np.int64))
        self._slots: dict[tuple[str, int, int], int] = {}
        self.pending = False
        self._clear()
        check_before_reading(driver, self.check)

    def _clear(self) -> None:
        self._driver.fill(self._words.address, _BYTE, self._words.nbytes)

    def slot(self, op: str, low: int, n: int) -> int:
        """The address of the word for indices of an op that must be in [low, n); it stays the same."""
        self.pending = True
        key = (op, low, n)
        slot = self._slots.get(key)
        if slot is None:  # ever more ranges share the last word, and its message tells the op that came first
            slot = self._slots[key] = min(len(self._slots), WORDS - 1)
        return self._words.address + 8 * slot

    def check(self) -> None:
        """Looks at the words; waits for the device.

        Raises:
            IndexingError: a kernel met an index out of range since the last time; the earliest op is told.
        """
        if not self.pending:
            return
        self.pending = False
        words = np.empty(WORDS, np.int64)
        self._driver.read(self._words.address, words)
        bad = np.flatnonzero(words != _CLEAR)
        if bad.size:
            self._clear()
            first = int(bad[0])
            op, low, n = next(key for key, slot in self._slots.items() if slot == first)
            raise IndexingError(
                f"{op}: index {int(words[first])} is not in [{low}, {n}); found on the device when a value was read. "
                "Results since then are not to be used."
            )


def faults(driver: Any) -> Faults:
    """The words of a device, made at the first call."""
    found = driver.functions.get(Faults)
    if found is None:
        found = driver.functions[Faults] = Faults(driver)
    return found  # type: ignore[no-any-return]
