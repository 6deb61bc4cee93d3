"""What a sandboxed plugin may use."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

from spiral.errors import ConfigError, received

MIB = 1 << 20


@dataclass(frozen=True)
class Limits:
    """What a sandboxed plugin may use, from its start to its end; a restart begins anew.

    There is one more limit, which has no value: a plugin is one process and makes no other.

    Attributes:
        cpu_seconds: processor time of all its threads, rounded up to whole seconds.
        memory_bytes: address space, which includes the interpreter (about 20 MiB) and shared libraries.
        file_bytes: size of any one file it writes.
        open_files: files open at once; one more cannot be opened.
        network: whether it may open sockets.
        start_seconds: for starting and telling what it is, and again for loading.
        call_seconds: for each call, event, and hand-over of state, by the clock on the wall.
        grace_seconds: between asking it to end (SIGTERM, or its input closed) and SIGKILL.
        calls: number of calls and events.
        message_bytes: size of one message in either direction, with its line feed.
        depth: nesting of one message.
        messages_per_second: what it sends of itself; a second's worth may come at once.
        output_bytes_per_second: all it writes, standard error included; a second's worth may come at once.
        stderr_bytes: how much of the end of its standard error is kept for reports.

    Example:
        >>> Limits(memory_bytes=64 << 20).call_seconds
        10.0
        >>> Limits(calls=0)
        Traceback (most recent call last):
            ...
        spiral.errors.ConfigError: Limits.calls: must be a positive, finite number; received 0.
    """

    cpu_seconds: float = 300.0
    memory_bytes: int = 512 * MIB
    file_bytes: int = 16 * MIB
    open_files: int = 64
    network: bool = False
    start_seconds: float = 30.0
    call_seconds: float = 10.0
    grace_seconds: float = 1.0
    calls: int = 1_000_000
    message_bytes: int = MIB
    depth: int = 32
    messages_per_second: int = 2000
    output_bytes_per_second: int = 16 * MIB
    stderr_bytes: int = 8192

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if field.type == "bool":
                if not isinstance(value, bool):
                    raise ConfigError(f"Limits.{field.name}: must be True or False; received {received(value)}.")
                continue
            whole = field.type == "int"
            if isinstance(value, bool) or not isinstance(value, int if whole else (int, float)):
                kind = "an integer" if whole else "a number"
                raise ConfigError(f"Limits.{field.name}: must be {kind}; received {received(value)}.")
            if not 0 < value < math.inf:
                raise ConfigError(
                    f"Limits.{field.name}: must be a positive, finite number; received {received(value)}."
                )
        if self.output_bytes_per_second < self.message_bytes:
            raise ConfigError(
                f"Limits.output_bytes_per_second: must be at least message_bytes ({self.message_bytes}), "
                f"or the largest message could not be sent; received {self.output_bytes_per_second}."
            )

    @property
    def cpu_whole_seconds(self) -> int:
        """`cpu_seconds` as the kernel counts them."""
        return math.ceil(self.cpu_seconds)


class Bucket:
    """Counts what may come at a steady rate, with one second's worth at once.

    Example:
        >>> bucket = Bucket(10, now=0.0)
        >>> bucket.take(10, now=0.0), bucket.take(1, now=0.05), bucket.take(1, now=1.0)
        (True, False, True)
    """

    __slots__ = ("_last", "_left", "rate")

    def __init__(self, rate: float, now: float) -> None:
        self.rate = rate
        self._left = float(rate)
        self._last = now

    def take(self, amount: float, now: float) -> bool:
        """Whether so much may come now; if not, nothing is taken."""
        self._left = min(self.rate, self._left + (now - self._last) * self.rate)
        self._last = now
        if amount > self._left:
            return False
        self._left -= amount
        return True
