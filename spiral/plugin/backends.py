"""Backends as plugins: those in ``spiral/backends``, and the entry points of the group ``spiral.backends``.

Each becomes the plugin ``backend-<name>`` of the global registry, so that it is listed, found by its capability and
taken back like any other.
"""

from __future__ import annotations

import importlib
import logging
import pkgutil
import traceback
from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING

from spiral.backend import Backend
from spiral.errors import RegistryError, SpiralError
from spiral.plugin.base import Plugin
from spiral.plugin.context import PluginContext
from spiral.plugin.lifecycle import Arrival
from spiral.plugin.metadata import PluginCapability, PluginMetadata
from spiral.plugin.registry import global_registry
from spiral.plugin.sources import Source, origin_of

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

_log = logging.getLogger("spiral")
GROUP = "spiral.backends"


class BackendPlugin(Plugin):
    """Brings one backend.

    Args:
        backend: see `spiral.backend.Backend`.
        version: of spiral, or of the distribution that brings it.
    """

    def __init__(self, backend: Backend, version: str) -> None:
        self.backend = backend
        self.version = version

    def metadata(self) -> PluginMetadata:
        return (
            PluginMetadata(f"backend-{self.backend.name}", self.version)
            .with_description(f"the backend {self.backend.name}")
            .with_capability(PluginCapability.Backend(self.backend.name))
        )

    def on_load(self, ctx: PluginContext) -> None:
        ctx.register_backend(self.backend)


def load_backends() -> Iterator[tuple[str, str]]:
    """Loads every backend that is there; gives name and traceback of those that cannot be loaded."""
    registry = global_registry()
    for source in _sources():
        try:
            arrival = Arrival.of(source)
            there = registry.get(arrival.metadata.id)
            if there is None:
                registry.admit(arrival)
            elif not isinstance(there, BackendPlugin) or there.backend is not getattr(arrival.plugin, "backend", None):
                arrival.put_back()
                origin = registry.origin_of(arrival.metadata.id)
                raise RegistryError(
                    f"backend {source.name!r} ({source.origin}): plugin {arrival.metadata.id!r} is loaded already, "
                    f"from {origin}."
                )
        except SpiralError as error:
            reason = "".join(traceback.format_exception(error.__cause__ or error))
            _log.warning("backend %s could not be loaded:\n%s", source.name, reason)
            yield source.name, reason


def _sources() -> Iterator[Source]:
    """Every backend's source; nothing is imported yet."""
    from importlib.metadata import entry_points

    import spiral

    package = importlib.import_module("spiral.backends")
    for info in pkgutil.iter_modules(package.__path__):
        if info.ispkg:
            yield Source(info.name, "bundled", partial(_bundled, info.name, spiral.__version__))
    for point in entry_points(group=GROUP):
        yield Source(point.name, origin_of(point), partial(_entry_point, point))


def _bundled(name: str, version: str) -> BackendPlugin:
    return BackendPlugin(importlib.import_module(f"spiral.backends.{name}").backend, version)


def _entry_point(point: EntryPoint) -> BackendPlugin:
    return BackendPlugin(point.load(), point.dist.version if point.dist is not None else "0")
