"""A plugin that lives in a process of its own, as the registry sees it."""

from __future__ import annotations

import dataclasses
import logging
import os
import sys
import threading
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from spiral import __version__
from spiral.errors import ArgumentError, RegistryError, received
from spiral.ownership import noted
from spiral.plugin.base import Plugin
from spiral.plugin.events import Custom
from spiral.plugin.sandbox import protocol
from spiral.plugin.sandbox.about import About
from spiral.plugin.sandbox.conversation import Conversation, Refusal
from spiral.plugin.sandbox.errors import PluginCallError, PluginNotRunning, ProtocolError, SandboxError
from spiral.plugin.sandbox.limits import Limits
from spiral.plugin.sandbox.requests import HostRequests
from spiral.plugin.sources import Source, file_source

if TYPE_CHECKING:
    from spiral.plugin.context import PluginContext
    from spiral.plugin.events import PluginEvent
    from spiral.plugin.metadata import PluginMetadata

_log = logging.getLogger(__name__)
_WORKER = Path(__file__).with_name("worker.py")

Status = Literal["ready", "loaded", "unloaded", "broken"]


class SandboxedPlugin(Plugin):
    """An untrusted plugin in a process of its own, with limits; ``docs/sandbox.md`` says what that is good for.

    It is made with `from_file` or `from_command`, which start the process, and registered like any other. When it
    breaks a limit or dies it is killed, its subscriptions and services are taken back, the log has one warning, and
    `status` is ``broken``; the host goes on. `restart` starts it again.

    Args:
        command: program and arguments that speak the protocol of ``docs/plugin-protocol.md``.
        limits: what it may use.
        env: added to its environment, which is otherwise minimal.
        event_window: 1: whoever publishes an event waits until the plugin has dealt with it. n: only for every n-th
            event of the plugin; the others are in the pipe.

    Raises:
        SandboxUnavailable: this system cannot enforce the limits, or the program cannot be run.
        SandboxError: it does not answer as a plugin does.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        limits: Limits | None = None,
        env: Mapping[str, str] | None = None,
        event_window: int = 1,
    ) -> None:
        if isinstance(command, str) or not command or not all(isinstance(word, str) for word in command):
            raise ArgumentError(f"SandboxedPlugin: command must be a list of strings; received {received(command)}.")
        if not isinstance(event_window, int) or isinstance(event_window, bool) or event_window < 1:
            raise ArgumentError(f"SandboxedPlugin: event_window must be ≥ 1; received {received(event_window)}.")
        self.limits = limits or Limits()
        self._command = tuple(command)
        self._env = dict(env or {})
        self._window = event_window
        self._unacknowledged = 0
        self._requests: HostRequests | None = None
        self._publishing = threading.local()
        self._state: Status = "ready"
        self._talk, self._about = self._start()
        noted("process", self._about.metadata.id, self.close)  # made while a plugin loads: it ends with that plugin

    @classmethod
    def from_command(
        cls,
        command: Sequence[str | Path],
        *,
        limits: Limits | None = None,
        env: Mapping[str, str] | None = None,
        event_window: int = 1,
    ) -> SandboxedPlugin:
        """Starts a program, in whatever language, that speaks the protocol.

        Args:
            command: program and arguments; a path of the program must be absolute, as its folder is another.
            limits, env, event_window: see the class.
        """
        if isinstance(command, (str, Path)):
            raise ArgumentError(f"from_command: command must be a list; received {received(command)}.")
        words = [os.fspath(word) for word in command]
        return cls(words, limits=limits, env=env, event_window=event_window)

    @classmethod
    def from_file(
        cls,
        path: str | Path,
        *,
        packages: bool = False,
        limits: Limits | None = None,
        env: Mapping[str, str] | None = None,
        event_window: int = 1,
    ) -> SandboxedPlugin:
        """Starts a Python plugin: a file, or a folder with an ``__init__.py``, as the registry loads it.

        Args:
            path: of the file or folder.
            packages: whether it may import what is installed; otherwise there are the standard library and
                ``spiral.plugin``, and the start is quicker.
            limits, env, event_window: see the class.
        """
        file_source(path)  # refuses what is no plugin's file
        path = Path(path).absolute()
        versions = find_spec("packaging")
        where = list(versions.submodule_search_locations or []) if versions is not None else []
        options = ["-I", "-X", "utf8", "-B"] if packages else ["-I", "-S", "-X", "utf8", "-B"]
        command = [sys.executable, *options, str(_WORKER), str(path), *([] if packages else where[:1])]
        return cls(command, limits=limits, env=env, event_window=event_window)

    @classmethod
    def source(
        cls,
        path: str | Path,
        *,
        packages: bool = False,
        limits: Limits | None = None,
        env: Mapping[str, str] | None = None,
        event_window: int = 1,
    ) -> Source:
        """Where `from_file` can make the plugin from, again and again: for `PluginRegistry.reload` and watching.

        ``source = SandboxedPlugin.source("p.py")``, ``registry.register(source.make(), source=source)``, and after a
        change of the file ``registry.reload("p")``.

        Args:
            path: of the file or folder.
            packages, limits, env, event_window: see `from_file`.
        """
        plain = file_source(path)

        def make() -> Plugin:
            return cls.from_file(path, packages=packages, limits=limits, env=env, event_window=event_window)

        return dataclasses.replace(plain, origin=f"{plain.origin} (sandboxed)", make=make)

    # ------------------------------------------------------------ how it is
    @property
    def status(self) -> Status:
        """``ready``: started; ``loaded``; ``unloaded``: ended on purpose; ``broken``: see `failure`."""
        if self._state in ("ready", "loaded"):
            try:
                self._talk.poll()
            except PluginNotRunning:
                pass  # it is answering just now
            except SandboxError as error:
                self._broke(error)
        return self._state

    @property
    def failure(self) -> SandboxError | None:
        """Why it is broken."""
        return self._talk.failure

    @property
    def pid(self) -> int:
        """The number of its process."""
        return self._talk.pid

    @property
    def stderr(self) -> str:
        """The end of what it wrote to its standard error."""
        return self._talk.stderr

    @property
    def methods(self) -> tuple[str, ...]:
        """What `call` may call, besides methods of services."""
        return self._about.methods

    def __repr__(self) -> str:
        return f"<sandboxed plugin {self._about.metadata.id!r}, {self._state}>"

    # ------------------------------------------------------------ what the registry does
    def metadata(self) -> PluginMetadata:
        """What it said of itself when it was started."""
        return self._about.metadata

    def on_load(self, ctx: PluginContext) -> None:
        """Loads it; started again if it was unloaded."""
        if self._state == "unloaded":
            self._restart_process()
        before = self._requests
        self._requests = HostRequests(ctx, self._deliver, self.call)
        try:
            for key, value in self._about.config.items():
                ctx.set_config(key, value)
            self._ask("load", {"config": ctx.list_config()}, "start_seconds")
            for name in self._about.subscriptions:
                self._requests.subscribe(name)
        except BaseException:
            if before is None:
                self._talk.kill()
                if self._state != "broken":
                    self._state = "unloaded"
            self._requests = before
            raise
        self._state = "loaded"
        self._publish_queued()

    def on_unload(self, ctx: PluginContext) -> None:
        """Asks it to end, and sees that it does."""
        if self._state == "broken":
            self._requests = None
            self._state = "unloaded"
            return
        try:
            self._ask("unload", {}, "call_seconds")
            self._publish_queued()
        finally:
            self.close()

    def export_state(self) -> Any:
        """Its state as plain data; None: it has none."""
        return self._ask("export_state", {}, "call_seconds") if self._about.has_state else None

    def import_state(self, state: Any) -> None:
        """Gives it a state.

        Raises:
            PluginCallError: it refuses.
        """
        self._ask("import_state", {"state": state}, "call_seconds")

    # ------------------------------------------------------------ what users do
    def call(self, method: str, /, *args: Any, **kwargs: Any) -> Any:
        """Calls one of its methods, or ``service.method``, with plain data.

        Returns:
            Plain data; arrays come as `Array`.

        Raises:
            PluginCallError: its code raised; it goes on.
            LimitExceeded, ProtocolError, PluginDied: it is broken now.
            PluginNotRunning: it was before.
        """
        params: dict[str, Any] = {"method": method, "args": list(args)}
        if kwargs:
            params["kwargs"] = kwargs
        try:
            return self._ask("call", params, "call_seconds", counted=True)
        finally:
            self._publish_queued()

    def flush(self) -> None:
        """Waits until it has dealt with every event that was sent, and publishes what it has published."""
        self._ask("ping", {}, "call_seconds")
        self._unacknowledged = 0
        self._publish_queued()

    def restart(self) -> None:
        """Starts it again, loaded if it was loaded when it broke. Its state is that of a new start.

        Raises:
            RegistryError: it says now that it is another plugin or version.
            SandboxError: it does not start.
        """
        requests = self._requests
        if requests is not None:
            requests.take_back()
        self._talk.kill()
        self._requests, self._state = None, "broken"
        try:
            self._restart_process()
            if requests is not None:
                self.on_load(requests.ctx)
        except BaseException:
            self._requests, self._state = requests, "broken"  # the next restart loads it, too
            raise

    def close(self) -> None:
        """Ends its process, politely if it can be."""
        self._talk.close()
        if self._requests is not None:
            self._requests.take_back()
            self._requests = None
        self._state = "unloaded"

    def __enter__(self) -> SandboxedPlugin:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # ------------------------------------------------------------ inside
    def _start(self) -> tuple[Conversation, About]:
        talk = Conversation(self._command, self.limits, self._serve, self._env)
        try:
            limits = {
                "message_bytes": self.limits.message_bytes,
                "depth": self.limits.depth,
                "call_seconds": self.limits.call_seconds,
            }
            host = {"name": "spiral", "version": __version__}
            params = {"protocol": protocol.VERSION, "host": host, "limits": limits}
            answer = talk.request("initialize", params, "start_seconds")
            try:
                about = About.parse(answer)
            except RegistryError as error:
                talk.fail(ProtocolError(f"plugin {talk.name!r}: {error}"))
        except BaseException:
            talk.kill()
            raise
        talk.name = about.metadata.id
        return talk, about

    def _restart_process(self) -> None:
        talk, about = self._start()
        old, new = self._about.metadata, about.metadata
        if (old.id, old.version) != (new.id, new.version):
            talk.kill()
            raise RegistryError(f"plugin {old.id!r} {old.version}: is {new.id!r} {new.version} after a restart.")
        self._talk, self._about = talk, about
        self._state, self._unacknowledged = "ready", 0

    def _serve(self, method: str, params: dict[str, Any]) -> Any:
        if self._requests is None:
            raise Refusal(f"{method} works once the plugin is being loaded")
        return self._requests.answer(method, params)

    def _ask(
        self,
        method: str,
        params: dict[str, Any],
        within: Literal["start_seconds", "call_seconds"],
        *,
        counted: bool = False,
        wait: bool = True,
        quiet: bool = False,
    ) -> Any:
        try:
            how = self._talk.request if wait else self._talk.notify
            return how(method, params, within, counted=counted)
        except (PluginCallError, PluginNotRunning):
            raise
        except SandboxError as error:
            self._broke(error, quiet)
            raise

    def _broke(self, error: SandboxError, quiet: bool = False) -> None:
        """It has been killed: what it brought goes, and the log says so once."""
        if self._state == "broken":
            return
        self._state = "broken"
        if not quiet:
            _log.warning("%s Its events and services stop; restart() starts it again.", error)
        if self._requests is not None:
            self._requests.take_back()

    def _deliver(self, subscription: str, event: PluginEvent) -> None:
        """Sends an event; never one that the plugin has published itself."""
        if event is getattr(self._publishing, "event", None) or self._state != "loaded":
            return
        name, data = wire_form(event)
        params = {"type": name, "data": data, "subscription": subscription}
        self._unacknowledged = (self._unacknowledged + 1) % self._window
        wait = self._unacknowledged == 0
        try:  # quiet: the bus writes what a listener raises into the log
            self._ask("event", params, "call_seconds", counted=True, wait=wait, quiet=True)
        finally:
            self._publish_queued()

    def _publish_queued(self) -> None:
        """Publishes what the plugin has published, in the caller's thread, when the plugin can be called again."""
        requests = self._requests
        while requests is not None and requests.published:
            before = getattr(self._publishing, "event", None)
            self._publishing.event = event = requests.published.popleft()
            try:
                requests.ctx.publish(event)
            finally:
                self._publishing.event = before


def wire_form(event: PluginEvent) -> tuple[str, Any]:
    """The name of an event and what it carries: the data of a Custom one, the fields of others, paths as text."""
    if isinstance(event, Custom):
        return event.event_type, event.data
    fields = dataclasses.fields(event)  # type: ignore[arg-type]
    values = {f.name: getattr(event, f.name) for f in fields}
    return event.name, {k: os.fspath(v) if isinstance(v, os.PathLike) else v for k, v in values.items()}
