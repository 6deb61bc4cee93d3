"""Reloads plugins when their files change; a version that fails is reported once, until the file changes again."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from pathlib import Path

from spiral.errors import SpiralError
from spiral.plugin.registry import PluginRegistry
from spiral.registry import UnknownName

_log = logging.getLogger("spiral")
Stamp = tuple[tuple[Path, int, int], ...]


class PluginWatcher:
    """Looks at the files of plugins that were loaded from paths, from a thread of its own or when asked.

    Args:
        registry: whose plugins.
        interval: seconds between looks.
        told: called with the plugin's id and the error, None where the reload went well.

    Example:
        >>> from spiral.plugin import PluginRegistry, PluginWatcher
        >>> with PluginWatcher(PluginRegistry()) as watcher:
        ...     watcher.look()
        []
    """

    def __init__(
        self,
        registry: PluginRegistry,
        interval: float = 0.5,
        told: Callable[[str, SpiralError | None], None] | None = None,
    ) -> None:
        self._registry = registry
        self._interval = interval
        self._told = told or _log_it
        self._seen: dict[str, Stamp] = {}
        self._end = threading.Event()
        self._looking = threading.Lock()
        self._thread: threading.Thread | None = None
        self.look()

    def look(self) -> list[str]:
        """Reloads what has changed since the last look; gives the ids that were tried."""
        tried = []
        with self._looking:
            for metadata in self._registry.list_plugins():
                stamp = self._stamp(metadata.id)
                if stamp is None:
                    continue
                before = self._seen.get(metadata.id)
                self._seen[metadata.id] = stamp  # also when it fails: a broken version is tried once
                if before is None or before == stamp:
                    continue
                tried.append(metadata.id)
                try:
                    self._registry.reload(metadata.id)
                except SpiralError as error:
                    self._told(metadata.id, error)
                else:
                    self._told(metadata.id, None)
        return tried

    def _stamp(self, plugin_id: str) -> Stamp | None:
        """What tells two states of a plugin's files apart; None: there is nothing to watch."""
        try:
            source = self._registry.loaded(plugin_id).source
        except UnknownName:  # gone meanwhile
            return None
        if source is None or not source.reloadable:
            return None
        try:
            return tuple((path, (found := path.stat()).st_mtime_ns, found.st_size) for path in source.files())
        except OSError:  # an editor that replaces the file; the next look sees it
            return self._seen.get(plugin_id)

    # ------------------------------------------------------------ as a thread
    def start(self) -> PluginWatcher:
        """Looks again and again until `stop`; a second call does nothing."""
        if self._thread is not None:
            return self
        self._end.clear()
        self._thread = threading.Thread(target=self._run, name="spiral plugin watcher", daemon=True)
        self._thread.start()
        return self

    def stop(self) -> None:
        """Ends the thread; a second call does nothing."""
        thread, self._thread = self._thread, None
        self._end.set()
        if thread is not None:
            thread.join()

    def __enter__(self) -> PluginWatcher:
        return self.start()

    def __exit__(self, *error: object) -> None:
        self.stop()

    def _run(self) -> None:
        while not self._end.wait(self._interval):
            try:
                self.look()
            except Exception:  # of `told`, say; the thread goes on watching
                _log.exception("the watcher of plugins failed; it goes on")


def _log_it(plugin_id: str, error: SpiralError | None) -> None:
    if error is None:
        _log.info("plugin %s was reloaded", plugin_id)
    else:
        _log.warning("%s", error)
