"""The host's end of the wire: asks, waits no longer than it must, and ends a plugin that breaks a rule.

There is no thread: whoever asks reads, with a deadline, until the answer is there. What a plugin sends of itself in
the meantime is served on the way, in the caller's thread.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal, NoReturn

from spiral.errors import SpiralError
from spiral.plugin.sandbox import protocol
from spiral.plugin.sandbox.child import Child, Ending
from spiral.plugin.sandbox.errors import (
    LimitExceeded,
    PluginCallError,
    PluginDied,
    PluginNotRunning,
    ProtocolError,
    SandboxError,
    SandboxUnavailable,
)
from spiral.plugin.sandbox.launch import FAILED, PREFIX
from spiral.plugin.sandbox.limits import Bucket, Limits
from spiral.plugin.sandbox.pipes import Overrun, Pipes
from spiral.plugin.sandbox.protocol import Failure, Request, Response, WireError

_log = logging.getLogger(__name__)
_TICK = 0.1
"""How often, while it waits, the host looks whether the process has ended without closing its output."""
_MOST_UNREAD = 4
"""How many messages of the largest size may wait for a plugin that asks and does not read the answers."""

Handler = Callable[[str, dict[str, Any]], Any]
Within = Literal["start_seconds", "call_seconds"]


class Refusal(SpiralError):
    """What a handler raises to answer a plugin's request with an error.

    Attributes:
        code: the JSON-RPC error code.
    """

    def __init__(self, message: str, code: int = protocol.REFUSED) -> None:
        super().__init__(message)
        self.code = code


class Conversation:
    """A plugin's process and the messages to and from it. One caller at a time; others wait their turn.

    Args:
        command: program and arguments.
        limits: what it may use.
        handler: called with method and params of what the plugin asks; gives the result or raises `Refusal`.
        env: added to its minimal environment.

    Attributes:
        name: what messages call it; its id once it has told it.
        failure: why it was ended, if it broke a rule or died.
        closed: whether it was ended on purpose.

    Raises:
        SandboxUnavailable: the limits cannot be enforced here.
    """

    def __init__(
        self, command: Sequence[str], limits: Limits, handler: Handler, env: Mapping[str, str] | None = None
    ) -> None:
        self.limits = limits
        self.name = os.path.basename(command[0])
        self.failure: SandboxError | None = None
        self.closed = False
        self._handler = handler
        self._child = Child(command, limits, env or {})
        self._finalizer = weakref.finalize(self, self._child.end, 0.0)
        self._pipes = Pipes(self._child, limits)
        self._lock = threading.RLock()
        self._inside = False
        self._last_id = 0
        self._awaited: int | None = None
        self._answer: Response | None = None
        self._abandoned: set[int] = set()  # a caller was interrupted while it waited
        self._calls = 0
        self._messages = Bucket(limits.messages_per_second, time.monotonic())

    # ------------------------------------------------------------ what the host does
    @property
    def pid(self) -> int:
        """The number of the process."""
        return self._child.pid

    @property
    def stderr(self) -> str:
        """The end of what it wrote to its standard error, as far as it was read."""
        return self._pipes.stderr

    def request(self, method: str, params: dict[str, Any], within: Within, *, counted: bool = False) -> Any:
        """Asks and waits for the answer.

        Args:
            method: what to do.
            params: with what.
            within: the limit that says how long it may take.
            counted: whether it is one of `Limits.calls`.

        Raises:
            PluginCallError: the plugin answered with an error.
            WireError: the parameters cannot be sent; nothing was.
            PluginNotRunning: it had ended before.
            LimitExceeded, ProtocolError, PluginDied: it broke a limit or a rule, or ended; it is gone.
        """
        with self._turn(method):
            number = self._last_id + 1
            self._send(Request(method, params, number), counted)
            self._last_id = self._awaited = number
            self._answer = None
            try:
                self._pump(method, within)
            finally:
                if self._answer is None:
                    self._abandoned.add(number)
                self._awaited = None
            assert self._answer is not None
            return self._result(method, self._answer)

    def notify(self, method: str, params: dict[str, Any], within: Within, *, counted: bool = False) -> None:
        """Tells without waiting for an answer, only until the pipe has taken it.

        Raises:
            WireError, PluginNotRunning, LimitExceeded, ProtocolError, PluginDied: see `request`.
        """
        with self._turn(method):
            self._send(Request(method, params), counted)
            self._pump(method, within)

    def poll(self) -> None:
        """Reads what has come, without waiting, and looks whether the process lives.

        Raises:
            PluginNotRunning, LimitExceeded, ProtocolError, PluginDied: see `request`.
        """
        with self._turn("poll"), self._watched():
            self._step(0.0)
            if self._pipes.output_closed or self._child.exited():
                self._settle()

    def close(self, within: Within = "call_seconds") -> None:
        """Closes its input, reads what it still says, waits for its end, and ends it if it does not come."""
        with self._lock:
            if self.closed or self.failure is not None:
                return
            self.closed = True
            deadline = time.monotonic() + float(getattr(self.limits, within))
            try:
                self._pipes.stop_writing()
                while self._pipes.open and not self._child.exited() and (left := deadline - time.monotonic()) > 0:
                    self._step(min(left, _TICK))
                self._child.wait_exited(max(0.0, deadline - time.monotonic()))
                self._drain()
            except Overrun as error:
                _log.warning("plugin %s: broke %s while it ended: %s", self.name, error.limit, error.received)
            finally:
                self._end(self.limits.grace_seconds)

    def kill(self) -> None:
        """Ends it at once."""
        with self._lock:
            self.closed = True
            self._end(0.0)

    def fail(self, error: SandboxError) -> NoReturn:
        """Ends it for a reason, which is raised.

        Raises:
            SandboxError: the one that is given.
        """
        self._end(self.limits.grace_seconds)
        error.plugin, error.stderr = self.name, self.stderr
        self.failure = error
        raise error

    # ------------------------------------------------------------ waiting
    @contextmanager
    def _turn(self, method: str) -> Iterator[None]:
        """Holds the conversation; refuses a caller that is inside it already and would wait for itself."""
        self._child.require_host(self.name)
        with self._lock:
            if self._inside:
                raise PluginNotRunning(
                    f"plugin {self.name!r}: {method!r} was asked while the same plugin is being served.",
                    plugin=self.name,
                )
            if self.closed or self.failure is not None:
                why = "was ended" if self.failure is None else f"has ended: {self.failure}"
                raise PluginNotRunning(
                    f"plugin {self.name!r}: {why}", plugin=self.name, stderr=self.stderr
                ) from self.failure
            self._inside = True
            try:
                yield
            finally:
                self._inside = False

    @contextmanager
    def _watched(self) -> Iterator[None]:
        try:
            yield
        except Overrun as error:
            self._break(error.limit, error.allowed, error.received)

    def _send(self, message: Request, counted: bool) -> None:
        line = self._encode(message)
        if counted:
            self._calls += 1
            if self._calls > self.limits.calls:
                self._break("calls", self.limits.calls, f"call number {self._calls}")
        self._pipes.pending += line

    def _pump(self, method: str, within: Within) -> None:
        """Reads and writes until the awaited answer is there and all is written."""
        seconds = float(getattr(self.limits, within))
        deadline = time.monotonic() + seconds
        with self._watched():
            while self._pipes.pending or (self._awaited is not None and self._answer is None):
                left = deadline - time.monotonic()
                if left <= 0:
                    self._break(within, seconds, f"no answer to {method!r} after {seconds:g} s")
                idle = not self._step(min(left, _TICK))
                if self._pipes.output_closed or self._pipes.input_refused or (idle and self._child.exited()):
                    self._settle()

    def _step(self, timeout: float) -> bool:
        busy = self._pipes.step(timeout)
        self._take_lines()
        return busy

    def _drain(self) -> None:
        self._pipes.drain()
        self._take_lines()

    def _take_lines(self) -> None:
        while self._pipes.lines:
            self._take_line(self._pipes.lines.popleft())

    def _settle(self) -> None:
        """It has closed a pipe or ended; returns only if everything was answered before."""
        owed = bool(self._pipes.pending)
        if not self._child.wait_exited(self.limits.grace_seconds):
            which = "output" if self._pipes.output_closed else "input"
            self._break_protocol(f"closed its {which} and went on running")
        self._drain()
        if owed or self._awaited is None or self._answer is None:
            self._fail_dead(self._child.end(0.0))

    # ------------------------------------------------------------ what comes
    def _take_line(self, line: bytes) -> None:
        try:
            message = protocol.decode(line, depth=self.limits.depth)
        except WireError as error:
            if error.limit == "depth":
                self._break("depth", self.limits.depth, "a message that is nested deeper")
            self._break_protocol(str(error))
        if isinstance(message, Request):
            self._serve(message)
        elif message.id in self._abandoned:
            self._abandoned.remove(int(message.id or 0))
        elif self._awaited is None:
            self._break_protocol(f"answered {message.id!r}, although nothing was asked")
        elif message.id != self._awaited or self._answer is not None:
            what = "twice" if message.id == self._awaited else f"instead of {self._awaited}"
            self._break_protocol(f"answered {message.id!r} {what}")
        else:
            self._answer = message

    def _serve(self, request: Request) -> None:
        if not self._messages.take(1, time.monotonic()):
            rate = self.limits.messages_per_second
            self._break("messages_per_second", rate, f"more than {rate} messages within a second")
        try:
            answer = Response(request.id, self._handler(request.method, request.params))
        except SandboxError:
            raise
        except Refusal as error:
            answer = Response(request.id, error=Failure(error.code, str(error)))
        except SpiralError as error:
            answer = Response(request.id, error=Failure(protocol.REFUSED, f"{type(error).__name__}: {error}"))
        except Exception as error:  # the host's own fault: the plugin learns no more than that
            _log.exception("plugin %s: %s", self.name, request.method)
            answer = Response(request.id, error=Failure(protocol.INTERNAL_ERROR, type(error).__name__))
        if request.id is None:
            if answer.error is not None:
                _log.warning("plugin %s: %s was refused: %s", self.name, request.method, answer.error.message)
            return
        try:
            line = self._encode(answer)
        except WireError as error:
            line = self._encode(Response(request.id, error=Failure(protocol.INTERNAL_ERROR, str(error))))
        if len(self._pipes.pending) > _MOST_UNREAD * self.limits.message_bytes:
            self._break_protocol("asks for more and more without reading the answers")
        self._pipes.pending += line

    def _encode(self, message: Request | Response) -> bytes:
        return protocol.encode(message, message_bytes=self.limits.message_bytes, depth=self.limits.depth)

    def _result(self, method: str, answer: Response) -> Any:
        failure = answer.error
        if failure is None:
            return answer.result
        if failure.code == protocol.OUT_OF_MEMORY:
            self._break("memory_bytes", self.limits.memory_bytes, f"no memory was left for {method!r}")
        data = failure.data if isinstance(failure.data, dict) else {}
        raise PluginCallError(
            f"plugin {self.name!r}: {method}: {failure.message}",
            code=failure.code,
            plugin=self.name,
            stderr=self.stderr,
            remote_type=str(data.get("type", "")),
            remote_traceback=str(data.get("traceback", "")),
        )

    # ------------------------------------------------------------ endings
    def _break(self, limit: str, allowed: float, received: str) -> NoReturn:
        self.fail(
            LimitExceeded(
                f"plugin {self.name!r}: {limit} is {allowed:,}; received {received}. It was killed.",
                limit=limit,
                allowed=allowed,
                received=received,
            )
        )

    def _break_protocol(self, what: str) -> NoReturn:
        self.fail(ProtocolError(f"plugin {self.name!r}: broke the protocol: {what}. It was killed."))

    def _fail_dead(self, ending: Ending) -> NoReturn:
        """Says why a process that nobody asked to end has ended."""
        status, limits = ending.status, self.limits
        cpu_used = ending.cpu_seconds >= limits.cpu_whole_seconds
        if status == -signal.SIGXCPU or (status == -signal.SIGKILL and cpu_used):
            self._break("cpu_seconds", limits.cpu_seconds, f"{ending.cpu_seconds:.1f} s of processor time")
        if status == -signal.SIGSYS:
            self._break("processes", 1, "an attempt to make another process")
        if status == -signal.SIGXFSZ:
            self._break("file_bytes", limits.file_bytes, "an attempt to write a larger file")
        if status == FAILED and self.stderr.startswith(PREFIX):
            self.fail(SandboxUnavailable(f"sandbox: {self.stderr.removeprefix(PREFIX).strip()}"))
        unfinished = self._pipes.unfinished
        left = f", {unfinished} bytes into a message" if unfinished else ""
        lines = self.stderr.strip().splitlines()
        words = f" Its last words: {lines[-1][:200]}" if lines else ""
        self.fail(PluginDied(f"plugin {self.name!r}: {ending}{left}.{words}", status=status))

    def _end(self, grace: float) -> None:
        self._pipes.release()
        self._child.end(grace)
        self._finalizer.detach()
