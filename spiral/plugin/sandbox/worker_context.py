"""What a Python plugin in the sandbox gets as its context: the part of `PluginContext` that goes over the wire."""

from __future__ import annotations

import dataclasses
import logging
from collections import defaultdict
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NoReturn

from spiral.plugin.base import PluginError

if TYPE_CHECKING:
    from spiral.plugin.sandbox.worker import Wire

Listener = Callable[[Any], None]


class _Handler(logging.Handler):
    def __init__(self, wire: Wire) -> None:
        super().__init__()
        self._wire = wire

    def emit(self, record: logging.LogRecord) -> None:
        self._wire.tell("log", {"level": record.levelname.lower(), "message": self.format(record)})


class RemoteSubscription:
    """A listener's place; `undo` ends it."""

    def __init__(self, undo: Callable[[], None]) -> None:
        self._undo: Callable[[], None] | None = undo

    def undo(self) -> None:
        """Ends it; a second call does nothing."""
        undo, self._undo = self._undo, None
        if undo is not None:
            undo()


class RemoteContext:
    """A sandboxed plugin's door to the host. Plain data passes, objects do not.

    Logging and publishing may be done from any thread, the rest only while the plugin is being asked something.

    Attributes:
        plugin_id: the plugin's id.
        log: a logger whose records appear in the host's log.
    """

    def __init__(self, plugin_id: str, wire: Wire) -> None:
        self.plugin_id = plugin_id
        self.log = logging.getLogger(f"spiral.plugin.{plugin_id}")
        self.log.setLevel(logging.DEBUG)
        self.log.propagate = False
        self.log.handlers[:] = [_Handler(wire)]
        self._wire = wire
        self._listeners: dict[str, list[Listener]] = defaultdict(list)
        self._cleanups: list[Callable[[], None]] = []

    def __getattr__(self, name: str) -> NoReturn:
        raise PluginError(
            f"ctx.{name}: a sandboxed plugin cannot do this; it has log, publish, subscribe, register_service, "
            "get_config, set_config and on_cleanup."
        )

    # ------------------------------------------------------------ the plugin's side
    def get_config(self, key: str, default: Any = None) -> Any:
        """One of this plugin's settings."""
        found = self._wire.ask("get_config", {"key": key})
        return default if found is None else found

    def set_config(self, key: str, value: Any) -> None:
        """Sets one of this plugin's settings."""
        self._wire.ask("set_config", {"key": key, "value": value})

    def publish(self, event: Any) -> None:
        """Tells everybody who listens in the host; only Telemetry and Custom events.

        The host publishes it when the plugin has answered what it was asked.
        """
        kind = type(event).__name__
        if kind == "Custom":
            self._wire.tell("publish", {"type": event.event_type, "data": event.data})
        elif kind == "Telemetry":
            self._wire.tell("publish", {"type": "Telemetry", "data": event.data})
        else:
            raise PluginError(
                f"ctx.publish: a sandboxed plugin publishes Telemetry and Custom events; received {kind}."
            )

    def subscribe(self, event: type | str, listener: Listener) -> RemoteSubscription:
        """Calls ``listener(event)`` for every event of a type, a name, or ``"*"``."""
        name = event if isinstance(event, str) else event.__name__
        if not self._listeners[name]:
            self._wire.ask("subscribe", {"type": name})
        self._listeners[name].append(listener)

        def undo() -> None:
            self._listeners[name].remove(listener)
            if not self._listeners[name]:
                self._wire.ask("unsubscribe", {"type": name})

        return RemoteSubscription(undo)

    def register_service(self, name: str, value: Any, *, version: str = "", replace: bool = False) -> None:
        """Offers an object's public methods to others in the host; arguments and results are plain data."""
        methods = public_methods(value)
        if not methods:
            raise PluginError(
                f"ctx.register_service: {name!r} has no public methods, which alone can be used from afar."
            )
        params = {"name": name, "methods": methods, "version": version, "replace": replace}
        self._wire.ask("register_service", params)
        self._wire.offer(name, value)

    def on_cleanup(self, fn: Callable[[], None], name: str = "") -> None:
        """Calls ``fn()`` when the plugin is unloaded, but not when it is killed."""
        self._cleanups.append(fn)

    # ------------------------------------------------------------ the worker's side
    def hear(self, subscription: str, event: Any) -> None:
        """Gives an event to the listeners of a subscription; all hear it, then the first error is raised."""
        first: Exception | None = None
        for listener in tuple(self._listeners.get(subscription, ())):
            try:
                listener(event)
            except Exception as error:
                first = first or error
        if first is not None:
            raise first

    def clean_up(self) -> None:
        """Does what was asked to be done in the end, the newest first."""
        while self._cleanups:
            self._cleanups.pop()()


def public_methods(value: Any, without: type = object) -> list[str]:
    """Names of an object's methods that do not begin with an underscore and are not those of a base."""
    return sorted(
        name
        for name in dir(type(value))
        if not name.startswith("_") and not hasattr(without, name) and callable(getattr(type(value), name))
    )


def event_of(name: str, data: Any) -> Any:
    """The typed event of a message; a Custom one where there is no such type."""
    from spiral.plugin import events

    kind = getattr(events, name, None)
    if isinstance(kind, type) and dataclasses.is_dataclass(kind) and kind is not events.Custom:
        return kind(**data)
    return events.Custom(name, data)
