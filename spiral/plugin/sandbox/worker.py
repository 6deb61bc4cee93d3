"""Runs one Python plugin behind the wire: ``python -I -S worker.py PLUGIN.py [PACKAGING]``.

Starts without running ``spiral/__init__.py``, which would import NumPy; it is run when the plugin uses something
of it. What the plugin prints goes to standard error, as standard output is the wire.

PACKAGING is the folder of the package that reads version numbers, for interpreters without site-packages.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import traceback
from collections import deque
from importlib import import_module
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from spiral.plugin.base import Plugin
    from spiral.plugin.sandbox.protocol import Request, Response
    from spiral.plugin.sandbox.worker_context import RemoteContext

_TEXT, _TRACE = 2000, 8000
"""Characters of an error's message and of its traceback that are sent."""


class _Lazy(ModuleType):
    """A package whose ``__init__``, which imports NumPy, runs only for names that a few light modules lack."""

    _light: tuple[str, ...] = ()

    def __getattr__(self, name: str) -> Any:
        folder = Path(self.__path__[0])
        if name == "__all__":
            return [n for module in self._light for n in _classes(import_module(f"{self.__name__}.{module}"))]
        if name.startswith("__"):
            raise AttributeError(name)
        if (folder / f"{name}.py").is_file() or (folder / name).is_dir():
            return import_module(f"{self.__name__}.{name}")
        for module in self._light:
            found = import_module(f"{self.__name__}.{module}")
            if hasattr(found, name):
                return getattr(found, name)
        return self._become_real(folder, name)

    def _become_real(self, folder: Path, name: str) -> Any:
        spec = spec_from_file_location(
            self.__name__, folder / "__init__.py", submodule_search_locations=list(self.__path__)
        )
        assert spec is not None and spec.loader is not None
        self.__class__ = ModuleType  # type: ignore[assignment]
        vars(self).update({k: v for k, v in vars(module_from_spec(spec)).items() if k.startswith("__")})
        try:
            spec.loader.exec_module(self)
        except ModuleNotFoundError as error:
            raise ImportError(
                f"{self.__name__}.{name}: needs {error.name}; the host must load this plugin with packages=True."
            ) from error
        return getattr(self, name)


def _classes(module: ModuleType) -> list[str]:
    return [n for n, v in vars(module).items() if isinstance(v, type) and v.__module__ == module.__name__]


def _package(name: str, folder: Path, *light: str) -> None:
    module = _Lazy(name)
    module.__path__ = [str(folder)]
    module._light = light
    sys.modules[name] = module


class Wire:
    """The worker's end of the wire."""

    def __init__(self, source: int, target: int) -> None:
        from spiral.plugin.sandbox import protocol

        self._protocol = protocol
        self._source = os.fdopen(source, "rb")
        self._target = target
        self._lock = threading.Lock()
        self._main = threading.get_ident()
        self._next = 0
        self._waiting: deque[Request] = deque()
        self.message_bytes, self.depth = 1 << 20, 32  # until `initialize` says
        self._services: dict[str, Any] = {}

    def send(self, message: Request | Response) -> None:
        """Writes a message; any thread may.

        Raises:
            WireError: it cannot be sent.
        """
        line = self._protocol.encode(message, message_bytes=self.message_bytes, depth=self.depth)
        with self._lock:
            view = memoryview(line)
            while view:
                view = view[os.write(self._target, view) :]

    def tell(self, method: str, params: dict[str, Any]) -> None:
        """Sends a notification."""
        self.send(self._protocol.Request(method, params))

    def ask(self, method: str, params: dict[str, Any]) -> Any:
        """Asks the host and waits for its answer.

        Raises:
            PluginError: the host refuses, or this is not the thread that serves it.
        """
        from spiral.plugin.base import PluginError

        if threading.get_ident() != self._main:
            raise PluginError(f"ctx: {method} works only in the thread in which the plugin is called.")
        self._next += 1
        self.send(self._protocol.Request(method, params, self._next))
        while True:
            message = self._read()
            if isinstance(message, self._protocol.Request):
                self._waiting.append(message)
            elif message.id == self._next:
                break
        if message.error is not None:
            raise PluginError(message.error.message)
        return message.result

    def next_request(self) -> Request:
        """The next thing that the host wants."""
        if self._waiting:
            return self._waiting.popleft()
        message = self._read()
        if not isinstance(message, self._protocol.Request):
            raise SystemExit("spiral worker: the host answered something that was not asked")
        return message

    def _read(self) -> Request | Response:
        line = self._source.readline()
        if not line:
            raise SystemExit(0)  # the host is gone, or wants us to go
        return self._protocol.decode(line, depth=self.depth)

    def offer(self, name: str, value: Any) -> None:
        """Makes an object's methods callable as ``name.method``."""
        self._services[name] = value

    def service(self, name: str) -> Any:
        """What was offered under a name, or None."""
        return self._services.get(name)


class Worker:
    """Does what the host asks of a plugin."""

    def __init__(self, wire: Wire, path: str) -> None:
        self._wire = wire
        self._path = path
        self._plugin: Plugin | None = None
        self._context: RemoteContext | None = None
        self._hears_all = False

    def run(self) -> None:
        """Serves until the host has asked to unload."""
        from spiral.plugin.sandbox import protocol

        request = None
        while request is None or request.method != "unload":
            request = self._wire.next_request()
            answer = self._answer(request)
            if request.id is None:
                if answer.error is not None:
                    self._wire.tell("log", {"level": "error", "message": f"{request.method}: {answer.error.message}"})
                continue
            try:
                self._wire.send(answer)
            except protocol.WireError as error:
                failure = protocol.Failure(protocol.PLUGIN_RAISED, f"{request.method}: {error}")
                self._wire.send(protocol.Response(request.id, error=failure))

    def _answer(self, request: Request) -> Response:
        from spiral.plugin.sandbox import protocol

        method = getattr(self, f"_on_{request.method}", None)
        if method is None:
            failure = protocol.Failure(protocol.METHOD_NOT_FOUND, f"there is no method {request.method!r}")
            return protocol.Response(request.id, error=failure)
        try:
            return protocol.Response(request.id, method(**request.params))
        except MemoryError:
            pass  # answered below, when the frames and what they hold are gone
        except Exception as error:
            trace = "".join(traceback.format_exception(error))[-_TRACE:]
            data = {"type": type(error).__name__, "traceback": _clean(trace)}
            text = _clean(f"{type(error).__name__}: {error}"[:_TEXT])
            return protocol.Response(request.id, error=protocol.Failure(protocol.PLUGIN_RAISED, text, data))
        return protocol.Response(request.id, error=protocol.Failure(protocol.OUT_OF_MEMORY, "out of memory"))

    # ------------------------------------------------------------ methods of the protocol
    def _on_initialize(self, protocol: int, limits: dict[str, Any], **_: Any) -> dict[str, Any]:
        from spiral.plugin.base import Plugin
        from spiral.plugin.sandbox.protocol import VERSION
        from spiral.plugin.sandbox.worker_context import public_methods
        from spiral.plugin.sources import file_source

        self._wire.message_bytes, self._wire.depth = limits["message_bytes"], limits["depth"]
        self._plugin = file_source(self._path).make()
        self._hears_all = type(self._plugin).on_event is not Plugin.on_event
        about = self._plugin.metadata()
        return {
            "protocol": min(protocol, VERSION),
            "id": about.id,
            "version": about.version,
            "name": about.name,
            "description": about.description,
            "author": about.author,
            "capabilities": [str(c) for c in about.capabilities],
            "dependencies": [_requirement(r) for r in about.dependencies],
            "conflicts": [_requirement(r) for r in about.conflicts],
            "provides": [{"id": i, "version": v} for i, v in about.provides],
            "metadata": dict(about.metadata),
            "methods": public_methods(self._plugin, Plugin),
            "subscriptions": ["*"] if self._hears_all else [],
            "state": type(self._plugin).export_state is not Plugin.export_state,
        }

    def _on_load(self, **_: Any) -> None:
        from spiral.plugin.sandbox.worker_context import RemoteContext

        before = self._context
        self._context = RemoteContext(self._live.metadata().id, self._wire)
        try:
            self._live.on_load(self._context)  # type: ignore[arg-type]
        except BaseException:
            self._context = before
            raise

    def _on_event(self, type: str, data: Any, subscription: str) -> None:
        from spiral.plugin.sandbox.worker_context import event_of

        assert self._context is not None
        event = event_of(type, data)
        self._context.hear(subscription, event)
        if self._hears_all and subscription == "*":
            self._live.on_event(event, self._context)  # type: ignore[arg-type]

    def _on_call(self, method: str, args: list[Any] | None = None, kwargs: dict[str, Any] | None = None) -> Any:
        from spiral.plugin.base import Plugin
        from spiral.plugin.sandbox.worker_context import public_methods

        service, _, name = method.rpartition(".")
        target = self._wire.service(service) if service else self._live
        if name not in public_methods(target, object if service else Plugin):
            raise AttributeError(f"there is no method {method!r}")
        return getattr(target, name)(*(args or ()), **(kwargs or {}))

    def _on_ping(self) -> None:
        return None

    def _on_export_state(self) -> Any:
        return self._live.export_state()

    def _on_import_state(self, state: Any) -> None:
        self._live.import_state(state)

    def _on_unload(self) -> None:
        if self._context is not None:
            self._live.on_unload(self._context)  # type: ignore[arg-type]
            self._context.clean_up()

    @property
    def _live(self) -> Plugin:
        if self._plugin is None:
            raise RuntimeError("initialize comes first")
        return self._plugin


def _requirement(requirement: Any) -> dict[str, Any]:
    return {"id": requirement.plugin_id, "requirement": requirement.specifier, "optional": requirement.optional}


def _clean(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()


def main(arguments: list[str]) -> None:
    """Serves the plugin of a file."""
    source, target = os.dup(0), os.dup(1)
    with open(os.devnull, "rb") as nothing:
        os.dup2(nothing.fileno(), 0)
    os.dup2(2, 1)
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)  # Python ignores it; here it is the end
    here = Path(__file__).resolve().parent
    _package("spiral", here.parents[1])
    _package("spiral.plugin", here.parent, "base", "metadata", "events")
    _package("spiral.plugin.sandbox", here)
    if len(arguments) > 1:
        _package("packaging", Path(arguments[1]))
    Worker(Wire(source, target), arguments[0]).run()


if __name__ == "__main__":
    main(sys.argv[1:])
