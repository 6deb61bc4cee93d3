"""What a sandboxed plugin may ask of the host: few things, each checked."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from spiral.errors import received
from spiral.plugin import events
from spiral.plugin.sandbox import protocol
from spiral.plugin.sandbox.conversation import Refusal

if TYPE_CHECKING:
    from spiral.plugin.context import PluginContext
    from spiral.plugin.events import PluginEvent

_LEVELS = {
    "debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR,
    "critical": logging.ERROR,
}  # fmt: skip
_LONGEST = 4000
"""Characters of a log message that are kept."""


class RemoteService:
    """A service that lives in a sandboxed plugin: its methods take and give plain data."""

    def __init__(self, name: str, methods: list[str], call: Callable[..., Any]) -> None:
        self._name = name
        for method in methods:
            setattr(self, method, _remote(call, f"{name}.{method}", method))

    def __repr__(self) -> str:
        return f"<service {self._name!r} of a sandboxed plugin>"


def _remote(call: Callable[..., Any], full: str, name: str) -> Callable[..., Any]:
    def method(*args: Any, **kwargs: Any) -> Any:
        return call(full, *args, **kwargs)

    method.__name__ = name
    return method


class HostRequests:
    """Answers a plugin's requests through the context that it was loaded with.

    Args:
        ctx: the context.
        deliver: called with the name of a subscription of the plugin and each event of it.
        call: calls a method of the plugin.
    """

    def __init__(
        self, ctx: PluginContext, deliver: Callable[[str, PluginEvent], None], call: Callable[..., Any]
    ) -> None:
        self.ctx = ctx
        self.published: deque[PluginEvent] = deque()
        self._deliver = deliver
        self._call = call
        self._heard: dict[str, Any] = {}
        self._undo: list[Callable[[], None]] = []

    def answer(self, method: str, params: dict[str, Any]) -> Any:
        """Does what is asked.

        Raises:
            Refusal: there is no such method, or a parameter is wrong.
            SpiralError: the context refuses.
        """
        found = _METHODS.get(method)
        if found is None:
            raise Refusal(f"there is no method {method!r} for plugins", protocol.METHOD_NOT_FOUND)
        return found(self, params)

    def subscribe(self, name: str) -> None:
        """Has events of a name delivered; once, however often it is asked for."""
        if name not in self._heard:
            self._heard[name] = self.ctx.subscribe(name, partial(self._deliver, name))

    def take_back(self) -> None:
        """Ends subscriptions and services; the plugin has ended."""
        heard, self._heard = self._heard, {}
        for subscription in heard.values():
            subscription.cancel()
        while self._undo:
            self._undo.pop()()

    # ------------------------------------------------------------ the requests
    def _log(self, params: dict[str, Any]) -> None:
        level = _param(params, "level", str)
        if level not in _LEVELS:
            raise Refusal(f"level is one of {', '.join(_LEVELS)}; received {received(level)}", protocol.INVALID_PARAMS)
        self.ctx.log.log(_LEVELS[level], "%s", _param(params, "message", str)[:_LONGEST])

    def _publish(self, params: dict[str, Any]) -> None:
        name = _param(params, "type", str)
        if name == "Telemetry":
            self.published.append(events.Telemetry(_param(params, "data", dict)))
        else:
            self.published.append(events.Custom(name, params.get("data")))

    def _get_config(self, params: dict[str, Any]) -> Any:
        return self.ctx.get_config(_param(params, "key", str))

    def _set_config(self, params: dict[str, Any]) -> None:
        self.ctx.set_config(_param(params, "key", str), params.get("value"))

    def _subscribe(self, params: dict[str, Any]) -> None:
        self.subscribe(_param(params, "type", str))

    def _unsubscribe(self, params: dict[str, Any]) -> None:
        subscription = self._heard.pop(_param(params, "type", str), None)
        if subscription is not None:
            subscription.cancel()

    def _register_service(self, params: dict[str, Any]) -> None:
        name, methods = _param(params, "name", str), _param(params, "methods", list)
        if not methods or not all(isinstance(m, str) and m.isidentifier() and m[0] != "_" for m in methods):
            raise Refusal(f"methods are names without a leading underscore; received {received(methods)}")
        version, replace = params.get("version", ""), params.get("replace", False)
        if not isinstance(version, str) or not isinstance(replace, bool):
            raise Refusal("version is a string and replace is true or false", protocol.INVALID_PARAMS)
        service = RemoteService(name, methods, self._call)
        addition = self.ctx.register_service(name, service, version=version, replace=replace)
        self._undo.append(addition.undo)


def _param(params: dict[str, Any], key: str, kind: type) -> Any:
    value = params.get(key)
    if not isinstance(value, kind):
        raise Refusal(f"{key} must be a {kind.__name__}; received {received(value)}", protocol.INVALID_PARAMS)
    return value


_METHODS: dict[str, Callable[[HostRequests, dict[str, Any]], Any]] = {
    "log": HostRequests._log,
    "publish": HostRequests._publish,
    "get_config": HostRequests._get_config,
    "set_config": HostRequests._set_config,
    "subscribe": HostRequests._subscribe,
    "unsubscribe": HostRequests._unsubscribe,
    "register_service": HostRequests._register_service,
}
