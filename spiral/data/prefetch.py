"""One background thread that computes ahead of its consumer, over a bounded queue."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

Item = TypeVar("Item")


class Prefetcher(Generic[Item]):
    """Call a function again and again in a thread and hand out its results in order.

    An exception in the thread is raised in the consumer, after the results made before it. The
    thread keeps no reference to the consumer, and it is a daemon, so neither a forgotten
    `close` nor the interpreter's exit hangs.

    Args:
        produce: Called in the thread only, one call at a time.
        depth: How many results may wait; at least 1.

    Example:
        >>> import itertools
        >>> prefetcher = Prefetcher(itertools.count().__next__, depth=2)
        >>> prefetcher.get(), prefetcher.get()
        (0, 1)
        >>> prefetcher.close()
    """

    def __init__(self, produce: Callable[[], Item], depth: int) -> None:
        self._queue: _Queue[Item] = _Queue(depth)
        self._process = os.getpid()
        # The target is no method of this object: it can be collected while the thread waits.
        self._thread = threading.Thread(target=_work, args=(produce, self._queue), name="spiral-prefetch", daemon=True)
        self._thread.start()

    @property
    def in_this_process(self) -> bool:
        """Whether the thread belongs to this process; after ``fork()`` a child has no threads."""
        return self._process == os.getpid()

    def get(self) -> Item:
        """Wait for the next result.

        Raises:
            BaseException: What `produce` raised, once the results before it are handed out.
            RuntimeError: The prefetcher is closed.
        """
        return self._queue.get()

    def close(self) -> None:
        """Stop the thread and wait until it has ended; results that wait are dropped."""
        if not self.in_this_process:
            return
        self._queue.close()
        # A garbage collection inside the thread itself may be what closes it.
        if self._thread is not threading.current_thread():
            self._thread.join()


class _Queue(Generic[Item]):
    """Bounded queue that carries a failure behind the items; `queue.Queue` cannot be closed."""

    def __init__(self, depth: int) -> None:
        self._depth = depth
        self._items: deque[Item] = deque()
        self._failure: BaseException | None = None
        self._closed = False
        self._changed = threading.Condition()

    def put(self, item: Item) -> bool:
        """Wait for room and add an item; False when the queue was closed instead."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or len(self._items) < self._depth)
            if not self._closed:
                self._items.append(item)
                self._changed.notify_all()
            return not self._closed

    def fail(self, failure: BaseException) -> None:
        with self._changed:
            self._failure = failure
            self._changed.notify_all()

    def get(self) -> Item:
        with self._changed:
            self._changed.wait_for(lambda: self._items or self._failure or self._closed)
            if self._closed:
                raise RuntimeError("Prefetcher.get: expected an open prefetcher; it is closed.")
            if not self._items and self._failure is not None:
                raise self._failure
            item = self._items.popleft()
            self._changed.notify_all()
            return item

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._items.clear()
            self._changed.notify_all()


def _work(produce: Callable[[], Item], queue: _Queue[Item]) -> None:
    try:
        while queue.put(produce()):
            pass
    except BaseException as failure:
        queue.fail(failure)
