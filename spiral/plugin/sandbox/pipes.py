"""The host's end of a plugin's three pipes: lines in and out without ever blocking, sizes and rates counted."""

from __future__ import annotations

import os
import selectors
import time
from collections import deque

from spiral.plugin.sandbox.child import Child
from spiral.plugin.sandbox.limits import Bucket, Limits

_CHUNK = 1 << 16
_PIPE_MAX = 1 << 20
"""What a pipe can hold at most, unless root has raised the limit (/proc/sys/fs/pipe-max-size)."""


class Overrun(Exception):
    """More came than a limit allows."""

    def __init__(self, limit: str, allowed: float, received: str) -> None:
        super().__init__(limit)
        self.limit = limit
        self.allowed = allowed
        self.received = received


class Pipes:
    """Standard streams of a child; not safe for threads, its user holds a lock.

    Args:
        child: whose.
        limits: sizes and rates.

    Attributes:
        lines: complete lines of its output; whoever uses them takes them out.
        pending: bytes that wait to be written; whoever appends calls `step`.
        output_closed: whether its output has come to an end.
        input_refused: whether it has closed its input.
    """

    def __init__(self, child: Child, limits: Limits) -> None:
        self.lines: deque[bytes] = deque()
        self.pending = bytearray()
        self.output_closed = False
        self.input_refused = False
        self._child = child
        self._limits = limits
        self._output, self._stderr = bytearray(), bytearray()
        self._writable = True
        self._rate = Bucket(limits.output_bytes_per_second, time.monotonic())
        self._selector = selectors.PollSelector()  # holds no descriptor of its own
        self._selector.register(child.stdout, selectors.EVENT_READ, self._read_output)
        self._selector.register(child.stderr, selectors.EVENT_READ, self._read_stderr)

    @property
    def open(self) -> bool:
        """Whether something can still come."""
        return bool(self._selector.get_map())

    @property
    def unfinished(self) -> int:
        """Bytes of a line whose end has not come."""
        return len(self._output)

    @property
    def stderr(self) -> str:
        """The end of what came on standard error."""
        return self._stderr.decode("utf-8", "replace")

    def step(self, timeout: float) -> bool:
        """Reads and writes what can be, waiting no longer than ``timeout`` seconds; says whether there was anything.

        Raises:
            Overrun: a size or rate is above its limit.
        """
        if self.pending and self._writable and self._child.stdin not in self._selector.get_map():
            self._selector.register(self._child.stdin, selectors.EVENT_WRITE, self._write)
        ready = self._selector.select(timeout)
        for key, _ in ready:
            key.data()
        return bool(ready)

    def drain(self) -> None:
        """Reads what a child that has ended left behind."""
        self.stop_writing()
        for _ in range(2 + _PIPE_MAX // _CHUNK):
            if not self.open or not self.step(0.0):
                return

    def stop_writing(self) -> None:
        """Closes its input."""
        self.pending.clear()
        if self._writable:
            self._writable = False
            self._forget(self._child.stdin)
            self._child.close_stdin()

    def release(self) -> None:
        """Forgets the descriptors, which the child closes."""
        self._writable = False
        for descriptor in (self._child.stdin, self._child.stdout, self._child.stderr):
            self._forget(descriptor)

    def _forget(self, descriptor: int) -> None:
        if descriptor in self._selector.get_map():
            self._selector.unregister(descriptor)

    def _write(self) -> None:
        try:
            written = os.write(self._child.stdin, self.pending)
            del self.pending[:written]
        except BlockingIOError:
            return
        except BrokenPipeError:
            self.input_refused = True
            self._forget(self._child.stdin)
            return
        if not self.pending:
            self._forget(self._child.stdin)

    def _read(self, descriptor: int) -> bytes | None:
        """Some bytes, none at the end, or None: nothing is there now."""
        try:
            chunk = os.read(descriptor, _CHUNK)
        except BlockingIOError:
            return None
        if not self._rate.take(len(chunk), time.monotonic()):
            rate = self._limits.output_bytes_per_second
            raise Overrun("output_bytes_per_second", rate, f"more than {rate} bytes within a second")
        return chunk

    def _read_stderr(self) -> None:
        chunk = self._read(self._child.stderr)
        if chunk:
            self._stderr += chunk
            del self._stderr[: -self._limits.stderr_bytes]
        elif chunk is not None:
            self._forget(self._child.stderr)

    def _read_output(self) -> None:
        chunk = self._read(self._child.stdout)
        if chunk is None:
            return
        if not chunk:
            self.output_closed = True
            self._forget(self._child.stdout)
        *lines, rest = (self._output + chunk).split(b"\n")
        self._output = rest
        for line in lines:
            self._check_size(len(line) + 1)
            self.lines.append(bytes(line))
        self._check_size(len(rest))

    def _check_size(self, size: int) -> None:
        allowed = self._limits.message_bytes
        if size > allowed:
            raise Overrun("message_bytes", allowed, f"a line of at least {size} bytes")
