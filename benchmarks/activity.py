"""How much of the machine others used during a measurement, from Linux's counters."""

from __future__ import annotations

import os
from pathlib import Path

_STAT = Path("/proc/stat")
BUSY = 0.05  # of one CPU: more than a quiet desktop's background, less than any compiler


def busy_seconds() -> float | None:
    """CPU seconds that all processes together have used since boot, stolen time included.

    None where the system does not tell.
    """
    if not _STAT.exists():
        return None
    # proc(5): user nice system idle iowait irq softirq steal (guest times are counted in user)
    fields = [int(value) for value in _STAT.read_text().split("\n", 1)[0].split()[1:9]]
    return (sum(fields) - fields[3] - fields[4]) / os.sysconf("SC_CLK_TCK")


class Others:
    """Adds up what other processes used while competitors ran, burst by burst."""

    def __init__(self) -> None:
        self._wall = 0.0
        self._taken = 0.0
        self._known = True

    def add(self, before: float | None, after: float | None, *, cpu: float, wall: float) -> None:
        """Counts one burst.

        Args:
            before: `busy_seconds` before the burst.
            after: `busy_seconds` after it.
            cpu: CPU seconds that the competitor itself used between the two.
            wall: seconds between the two.
        """
        if before is None or after is None:
            self._known = False
            return
        self._wall += wall
        self._taken += after - before - cpu

    @property
    def share(self) -> float | None:
        """CPUs that others kept busy on average (0.5: half of one), or None when unknown."""
        return max(0.0, self._taken / self._wall) if self._known and self._wall else None

    def verdict(self) -> str:
        """One sentence for readers of the results."""
        if self.share is None:
            return "Unknown how busy the machine was (no /proc/stat)."
        state = "NOT a quiet machine" if self.share > BUSY else "a quiet machine"
        return f"{state}: others used {self.share:.2f} CPUs while competitors ran."
