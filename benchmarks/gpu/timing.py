"""Interleaved rounds: each side in turn, forwards and backwards, device time and wall time.

Device time is that of a replayed graph of one run per set of inputs, so that what the host spends on launches is not
in it; wall time is that of the same runs enqueued one by one and waited for. Sets of inputs together are larger than
the cache, or the result says that they are not.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from benchmarks.gpu.side import Run, Side
from benchmarks.report import Quartiles


@dataclass
class Measured:
    """One side of one case.

    Attributes:
        side: its name.
        device: microseconds of a run, one per round, on the device's clock.
        wall: the same on the host's.
        captured: device times are those of a graph; else launches are in them.
        why_not_captured: the reason.
        peak: bytes.
    """

    side: str
    device: list[float] = field(default_factory=list)
    wall: list[float] = field(default_factory=list)
    captured: bool = False
    why_not_captured: str = ""
    peak: int = 0

    def as_dict(self) -> dict[str, Any]:
        return {
            "side": self.side, "rounds": len(self.device), "device_us": Quartiles.of(self.device).as_dict(),
            "wall_us": Quartiles.of(self.wall).as_dict(), "captured": self.captured,
            "why_not_captured": self.why_not_captured, "peak_bytes": self.peak,
        }  # fmt: skip


class _Ready:
    """A side with its runs, warmed up and recorded."""

    def __init__(self, side: Side, runs: Sequence[Run], record: bool) -> None:
        self.side, self.runs = side, runs
        self.measured = Measured(side.name)
        with side.within():
            self._burst()  # compiles
            side.wait()
            self.measured.peak = side.peak(runs[0])
            self._enqueue: Run = self._burst
            if record:
                self._record()
            side.wait()

    def _record(self) -> None:
        """Has device times be those of a graph."""
        try:
            self._enqueue = self.side.graph(self._burst)
            self._enqueue()
            self.measured.captured = True
        except Exception as error:  # a reason in the report: times then include launches
            self.measured.why_not_captured = f"{type(error).__name__}: {error}"[:300]
            self._enqueue = self._burst

    def _burst(self) -> list[Any]:
        return [run() for run in self.runs]

    def round(self) -> None:
        """One device time and one wall time."""
        side, count = self.side, len(self.runs)
        with side.within():
            start = side.mark()
            self._enqueue()
            end = side.mark()
            side.wait()
            self.measured.device.append(1e3 * side.milliseconds(start, end) / count)
            began = time.perf_counter()
            kept = self._burst()
            side.wait()
            self.measured.wall.append(1e6 * (time.perf_counter() - began) / count)
            del kept


def measure(
    sides: Sequence[tuple[Side, Sequence[Run]]], *, rounds: int, deadline: float, record: bool = True
) -> tuple[list[Measured], dict[str, str]]:
    """Times sides in turn.

    Args:
        sides: each with a run per set of inputs.
        rounds: how many, fewer (but three) where the time is up.
        deadline: when, as `time.monotonic` has it.
        record: device times are those of graphs.

    Returns:
        What was measured, and why a side was not, by its name.
    """
    ready, failures = [], {}
    for side, runs in sides:
        try:
            ready.append(_Ready(side, runs, record))
        except Exception as error:
            failures[side.name] = f"{type(error).__name__}: {error}"[:500]
    for i in range(rounds):
        if i >= 3 and time.monotonic() > deadline:
            break
        for r in ready if i % 2 == 0 else reversed(ready):
            r.round()
    return [r.measured for r in ready], failures
