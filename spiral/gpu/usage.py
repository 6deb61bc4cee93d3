"""How much memory a driver's blocks take, now and at most."""

from __future__ import annotations


class Usage:
    """Counts bytes of live blocks.

    Attributes:
        used: bytes of the blocks alive.
        peak: the most that `used` has been since the last `restart`.
    """

    __slots__ = ("peak", "used")

    def __init__(self) -> None:
        self.used = 0
        self.peak = 0

    def add(self, nbytes: int) -> None:
        """A block is there."""
        self.used += nbytes
        if self.used > self.peak:
            self.peak = self.used

    def remove(self, nbytes: int) -> None:
        """A block is gone."""
        self.used -= nbytes

    def restart(self) -> None:
        """Counts the peak from now on, for the next step."""
        self.peak = self.used
