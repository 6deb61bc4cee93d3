"""Ready-made listeners: a queue for other threads, a ring of the newest events, a file of JSON lines."""

from __future__ import annotations

import errno
import json
import os
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Generic, Protocol, Self, TypeVar

from spiral.errors import ArgumentError, SaveError, received
from spiral.plugin.events import PluginEvent

E = TypeVar("E", bound=PluginEvent)


class _Cancellable(Protocol):
    def cancel(self) -> bool: ...


class EventQueue(Generic[E]):
    """Events for a thread that takes them when it has time; made by `EventBus.listen`.

    When it is full, the oldest event makes room and is counted in `dropped`: a slow reader never holds up a training
    run, and what it gets is the newest.

    Attributes:
        maxlen: how many events wait at most.
        dropped: how many were lost because nobody took them in time.
    """

    def __init__(self, maxlen: int) -> None:
        self.maxlen = _length("listen", maxlen)
        self.dropped = 0
        self._events: deque[E] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._subscription: _Cancellable | None = None

    def put(self, event: E) -> None:
        """Called by the bus."""
        with self._changed:
            if self._closed:  # a publisher that was under way
                return
            if len(self._events) >= self.maxlen:
                self._events.popleft()
                self.dropped += 1
            self._events.append(event)
            self._changed.notify()

    def get(self, timeout: float | None = None) -> E | None:
        """The oldest waiting event; waits for one.

        Args:
            timeout: seconds to wait at most; None: for ever.

        Returns:
            The event; None when the queue was closed and everything in it is taken.

        Raises:
            TimeoutError: none came in time.
        """
        until = None if timeout is None else time.monotonic() + timeout
        with self._changed:
            while not self._events:
                if self._closed:
                    return None
                left = None if until is None else until - time.monotonic()
                if left is not None and left <= 0:
                    raise TimeoutError(f"EventQueue: no event came within {timeout:g} s.")
                self._changed.wait(left)
            return self._events.popleft()

    def __iter__(self) -> Iterator[E]:
        """Events as they come, until the queue is closed and empty."""
        while (event := self.get()) is not None:
            yield event

    def within(self, seconds: float) -> Iterator[E]:
        """Events as they come, until none has come for so long, or the queue is closed and empty."""
        while True:
            try:
                event = self.get(seconds)
            except TimeoutError:
                return
            if event is None:
                return
            yield event

    def __len__(self) -> int:
        """How many wait."""
        return len(self._events)

    @property
    def closed(self) -> bool:
        """Whether no event comes any more; those that wait can still be taken."""
        return self._closed

    def close(self) -> None:
        """Ends the subscription; readers get what still waits, then the end. A second call does nothing."""
        self.end()
        if self._subscription is not None:
            self._subscription.cancel()

    def end(self) -> None:
        """Wakes the readers; called by the bus when the subscription was taken back."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def attach(self, subscription: _Cancellable) -> Self:
        """Names the subscription that `close` ends; called by the bus."""
        self._subscription = subscription
        return self

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


class Recorder:
    """A listener that keeps the newest events.

    Args:
        maxlen: how many.

    Example:
        >>> from spiral.plugin.bus import EventBus
        >>> from spiral.plugin.events import EpochStart
        >>> bus, recorder = EventBus(), Recorder(maxlen=2)
        >>> _ = bus.subscribe("*", recorder)
        >>> for epoch in (1, 2, 3):
        ...     bus.publish(EpochStart(epoch))
        >>> recorder.events(), recorder.seen
        ((EpochStart(epoch=2), EpochStart(epoch=3)), 3)
    """

    def __init__(self, maxlen: int = 1000) -> None:
        self.seen = 0
        self._ring: deque[PluginEvent] = deque(maxlen=_length("Recorder", maxlen))
        self._lock = threading.RLock()

    def __call__(self, event: PluginEvent) -> None:
        with self._lock:
            self.seen += 1
            self._ring.append(event)

    def events(self, kind: type[PluginEvent] | str | None = None) -> tuple[PluginEvent, ...]:
        """What is kept, oldest first; of one type or name if it is given."""
        with self._lock:
            found = tuple(self._ring)
        name = kind.__name__ if isinstance(kind, type) else kind
        return found if name is None else tuple(event for event in found if event.name == name)

    def clear(self) -> None:
        """Forgets what is kept; `seen` goes on counting."""
        with self._lock:
            self._ring.clear()

    def __len__(self) -> int:
        return len(self._ring)


class JsonlSink:
    """A listener that appends every event to a file, one JSON object a line, readable at any moment.

    Each line has ``time`` (seconds since 1970), ``event`` (its name) and the event's fields; see `PluginEvent.to_dict`.
    Where the disk has no room, the bus reports the listener once and counts its failures; the file has whole lines.

    Args:
        path: the file; what stands in it stays.
        fields: what every line says besides, such as a run's name.

    Raises:
        SaveError: it cannot be opened.

    Example:
        >>> import tempfile
        >>> from spiral.plugin.bus import EventBus
        >>> from spiral.plugin.events import EpochStart
        >>> bus, path = EventBus(), Path(tempfile.mkdtemp()) / "events.jsonl"
        >>> with JsonlSink(path) as sink, bus.subscribe("*", sink):
        ...     bus.publish(EpochStart(1))
        >>> line = json.loads(path.read_text())
        >>> line["event"], line["epoch"]
        ('EpochStart', 1)
    """

    def __init__(self, path: str | Path, fields: Mapping[str, str] | None = None) -> None:
        self.path = Path(path)
        self._fields = dict(fields or {})
        self._lock = threading.RLock()
        try:
            self._file = self.path.open("ab+", buffering=0)
            if self._file.tell():  # a crash may have cut the last line short
                self._file.seek(-1, 2)
                if self._file.read(1) != b"\n":
                    self._file.write(b"\n")
        except OSError as error:
            raise SaveError(f"JsonlSink: {self.path}: cannot be opened: {error.strerror}.") from error

    def __call__(self, event: PluginEvent) -> None:
        line = {"time": time.time(), **self._fields, **event.to_dict()}
        data = (json.dumps(line, allow_nan=False, ensure_ascii=False) + "\n").encode("utf-8", "backslashreplace")
        with self._lock:
            if self._file.closed:
                raise SaveError(f"JsonlSink: {self.path}: is closed; cancel its subscription before it is closed.")
            try:
                before = self._file.seek(0, 2)
                if self._file.write(data) != len(data):
                    self._file.truncate(before)  # or the next line would go on with this one
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            except OSError as error:
                raise SaveError(f"JsonlSink: {self.path}: cannot be written: {error.strerror}.") from error

    def close(self) -> None:
        """Closes the file; end the subscription first."""
        with self._lock:
            self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def _length(who: str, maxlen: object) -> int:
    if isinstance(maxlen, bool) or not isinstance(maxlen, int) or maxlen < 1:
        raise ArgumentError(f"{who}: maxlen is an integer of at least 1; received {received(maxlen)}.")
    return maxlen
