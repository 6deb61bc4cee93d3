"""Asking a run to stop: the first signal lets it finish its step and save, the second ends it at once."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

# Ctrl-C; what `kill`, batch systems and containers send; the terminal was closed
_NAMES = ("SIGINT", "SIGTERM", "SIGHUP")


class StopRequest:
    """Whether and by which signal the process was asked to stop."""

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None

    def __bool__(self) -> bool:
        return self.signal is not None


@contextmanager
def stop_requested() -> Iterator[StopRequest]:
    """Collect requests to stop within the block; only the main thread gets any.

    Signals that are ignored, as `nohup` does with SIGHUP, stay so.

    Yields:
        What becomes true with the first signal. The second raises KeyboardInterrupt for Ctrl-C and
        SystemExit with 128 + its number for the others.
    """
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return

    def notice(number: int, frame: FrameType | None) -> None:
        if not request:
            request.signal = signal.Signals(number)
        elif number == signal.SIGINT:
            raise KeyboardInterrupt
        else:
            raise SystemExit(128 + number)

    numbers = [getattr(signal, name) for name in _NAMES if hasattr(signal, name)]
    before = {n: signal.getsignal(n) for n in numbers if signal.getsignal(n) not in (signal.SIG_IGN, None)}
    for number in before:
        signal.signal(number, notice)
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
