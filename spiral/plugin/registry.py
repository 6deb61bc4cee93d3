"""The plugin registry: loads plugins in order, owns what they bring, takes it back.

Loading a plugin is a transaction. Its additions to any catalog are noted in a ledger; when `on_load` raises, and when
the plugin is unloaded, the ledger takes all of them back.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from spiral.backends_registry import load_again
from spiral.errors import RegistryError, received
from spiral.ownership import Addition, Ledger, current_ledger
from spiral.plugin.base import Plugin, PluginError, shown
from spiral.plugin.bus import EventBus, event_bus
from spiral.plugin.configuration import Configuration, Setting
from spiral.plugin.context import PluginContext
from spiral.plugin.dependencies import GraphReport, Node, Requirement, resolve, satisfies, validate
from spiral.plugin.events import PluginLoaded, PluginUnloaded, SystemInit, SystemShutdown
from spiral.plugin.graph import dependencies_first
from spiral.plugin.lifecycle import (
    Arrival,
    Loaded,
    Quarantined,
    ShutdownReport,
    load,
    node_of,
    report,
    say_goodbye,
)  # fmt: skip
from spiral.plugin.metadata import PluginCapability, PluginMetadata
from spiral.plugin.services import Service, Services
from spiral.plugin.sources import Source, path_sources
from spiral.registry import Catalog, UnknownName, catalog

_log = logging.getLogger("spiral")


class PluginRegistry:
    """Plugins with their services, settings and events. `global_registry` is the process's own; others are private.

    A private registry has a bus, services and settings of its own; ops, modules, optimizers and so on are the
    process's in both cases.

    Attributes:
        events: the bus that plugins subscribe to.
        services: what plugins offer each other.
        configuration: the plugins' settings.

    Example:
        >>> from spiral.plugin import Plugin, PluginMetadata, PluginRegistry
        >>> class Clock(Plugin):
        ...     def metadata(self):
        ...         return PluginMetadata("clock", "1.2")
        ...     def on_load(self, ctx):
        ...         ctx.register_service("clock", __import__("time"))
        >>> registry = PluginRegistry()
        >>> _ = registry.register(Clock())
        >>> [m.id for m in registry.list_plugins()], registry.services.names()
        (['clock'], ['clock'])
        >>> registry.unregister("clock"), registry.services.names()
        (None, [])
    """

    def __init__(self) -> None:
        self._become(
            EventBus(), Catalog("plugin"), Catalog("service"), Catalog("setting"), Catalog("quarantined plugin")
        )

    def _become(
        self,
        events: EventBus,
        plugins: Catalog[Loaded],
        services: Catalog[Service],
        settings: Catalog[Setting],
        quarantine: Catalog[Quarantined],
    ) -> None:
        self.events = events
        self.services = Services(services)
        self.configuration = Configuration(settings)
        self._plugins = plugins
        self._lock = threading.RLock()
        self._arriving: dict[str, Node] = {}  # ids whose on_load runs now
        self._leaving: set[str] = set()
        self._initialized = False
        self.quarantine: Catalog[Quarantined] = quarantine
        self.known_sources: set[str] = set()  # origins that `initialize_all` has dealt with
        self.known_ids: set[str] = set()  # of installed plugins that it has seen, wanted or not

    @classmethod
    def _global(cls) -> PluginRegistry:
        registry = cls.__new__(cls)
        registry._become(
            event_bus, catalog("plugin"), catalog("service"), catalog("setting"), catalog("quarantined plugin")
        )
        return registry

    # ------------------------------------------------------------ reading
    @property
    def initialized(self) -> bool:
        """Whether the installed plugins have been loaded, and not shut down since."""
        return self._initialized

    def get(self, plugin_id: str) -> Plugin | None:
        """The loaded plugin of this id; None: there is none."""
        found = self._plugins.get(plugin_id)
        return None if found is None else found.plugin

    def loaded(self, plugin_id: str) -> Loaded:
        """All that is known of a loaded plugin.

        Raises:
            RegistryError: there is none of this id; the message lists similar ones.
        """
        return self._plugins[plugin_id]

    def origin_of(self, plugin_id: str) -> str | None:
        """Where the loaded plugin of this id came from, for people; None: there is none."""
        found = self._plugins.get(plugin_id)
        return None if found is None else found.origin

    def list_plugins(self) -> list[PluginMetadata]:
        """The loaded plugins, in the order in which they came."""
        return [found.metadata for found in self._plugins.values()]

    def find_by_capability(self, capability: PluginCapability) -> list[Plugin]:
        """The loaded plugins that declare a capability, in the order in which they came."""
        if not isinstance(capability, PluginCapability):
            raise RegistryError(
                "find_by_capability: expected a PluginCapability, such as PluginCapability.Optimizers; "
                f"received {received(capability)}."
            )
        return [found.plugin for found in self._plugins.values() if capability in found.metadata.capabilities]

    def dependency_graph(self) -> dict[str, list[str]]:
        """For each loaded plugin the ids that it depends on; optional ones only where they are loaded.

        Where another plugin provides an id, it is named.
        """
        there = self.nodes()
        return {
            node.id: [
                _provider(r, there) or r.plugin_id
                for r in node.requirements
                if not r.optional or _provider(r, there) is not None
            ]
            for node in there.values()
        }

    def validate_dependency_graph(self) -> GraphReport:
        """Whether the loaded plugins have what they need: ``ok``, ``missing``, ``cycles`` and more."""
        return validate(self.nodes().values())

    def dependents_of(self, plugin_id: str) -> list[str]:
        """The loaded plugins that need this one, directly; optional dependencies count while both are loaded."""
        there = self.nodes()
        return [
            node.id
            for node in there.values()
            if any(_provider(r, there) == plugin_id for r in node.requirements) and node.id != plugin_id
        ]

    def nodes(self) -> dict[str, Node]:
        """What dependency resolution needs to know of each loaded plugin, by id."""
        return {found.metadata.id: node_of(found.metadata) for found in self._plugins.values()}

    # ------------------------------------------------------------ coming
    def register(
        self,
        plugin: Plugin,
        *,
        source: Source | None = None,
        ledger: Ledger | None = None,
    ) -> Plugin:
        """Loads a plugin; either all of it is there afterwards, or nothing.

        A plugin that another one registers while it loads, or later through its context, goes with that one.

        Args:
            plugin: an object with ``metadata()``.
            source: where it comes from, if not from code; needed to reload it.
            ledger: what importing its file has already added.

        Returns:
            The plugin.

        Raises:
            RegistryError: it is no plugin, or one of this id is loaded or being loaded.
            DependencyError: what it needs is not there; the message says who asks for what.
            PluginError: ``on_load`` raised; the cause is attached, and nothing that it registered is left.
        """
        return self.admit(Arrival(plugin, source, ledger))

    def admit(self, arrival: Arrival) -> Plugin:
        """Loads a plugin that waits; see `register`."""
        plugin, metadata, host = arrival.plugin, arrival.metadata, current_ledger()
        ledger = arrival.ledger or Ledger(metadata.id)
        ledger.owner = metadata.id
        try:
            with self._arrival(metadata):
                context = PluginContext(metadata.id, self, ledger)
                found = Loaded(plugin, metadata, context, ledger, arrival.source, host)
                load(found)
                with ledger.recording():
                    self.add_loaded(found)
        except BaseException:
            report(metadata.id, "taking back what it had registered", ledger.undo_all())
            raise
        if host is not None:
            host.note(Addition("plugin", metadata.id, lambda: self._dismiss(metadata.id, host), host))
        self.events.publish(PluginLoaded(metadata.id))
        return plugin

    def _dismiss(self, plugin_id: str, host: Ledger) -> None:
        """Unloads a plugin, and what needs it, if it is still the one that a plugin of this ledger has registered."""
        found = self._plugins.get(plugin_id)
        if found is not None and found.host is host:
            try:
                self.unregister(plugin_id, cascade=True)
            except UnknownName:  # another thread was faster
                return

    def add_loaded(self, found: Loaded) -> None:
        """Lists a plugin that has been loaded; for those who prepare a load."""
        self._plugins.add(found.metadata.id, found)

    @contextmanager
    def _arrival(self, metadata: PluginMetadata) -> Iterator[None]:
        """Holds the id while ``on_load`` runs outside the lock; dependencies cannot go meanwhile."""
        node = node_of(metadata)
        with self._lock:
            if metadata.id in self._plugins:
                raise RegistryError(
                    f"plugin {metadata.id!r}: is loaded already, in version "
                    f"{self._plugins[metadata.id].metadata.version}; unregister or reload it."
                )
            if metadata.id in self._arriving:
                raise RegistryError(f"plugin {metadata.id!r}: is being loaded by another call.")
            if metadata.id in self._leaving:  # what it had registered may still be there
                raise RegistryError(f"plugin {metadata.id!r}: is being unloaded by another call; try again after it.")
            loaded = self.nodes()
            there = {k: v for k, v in loaded.items() if k not in self._leaving}
            resolve([node], there)
            for needed in [_provider(r, there) for r in node.requirements]:
                if needed in self._arriving:  # it would be bound to the old version and miss the new one
                    raise RegistryError(
                        f"plugin {metadata.id!r}: needs {needed!r}, which is being loaded or reloaded by another call; "
                        "try again after it."
                    )
            self._arriving[metadata.id] = node
        try:
            yield
        finally:
            with self._lock:
                del self._arriving[metadata.id]

    def register_all(self, plugins: Iterable[Plugin]) -> list[str]:
        """Loads several plugins, dependencies first; either all of them are there afterwards, or none.

        Returns:
            Their ids in the order of loading.

        Raises:
            DependencyError: they cannot be ordered or lack something; a cycle is named.
            RegistryError, PluginError: see `register`.
        """
        return self.register_arrivals([Arrival(plugin) for plugin in plugins])

    def register_arrivals(self, arrivals: list[Arrival]) -> list[str]:
        """The same for plugins with their sources and what importing these has added."""
        by_id: dict[str, Arrival] = {}
        done: list[str] = []
        try:
            for arrival in arrivals:
                plugin_id = arrival.metadata.id
                if plugin_id in by_id:
                    raise RegistryError(
                        f"plugin {plugin_id!r}: comes twice, from {by_id[plugin_id].origin} and from {arrival.origin}."
                    )
                by_id[plugin_id] = arrival
            for plugin_id in resolve([node_of(a.metadata) for a in by_id.values()], self.nodes()):
                self.admit(by_id[plugin_id])
                done.append(plugin_id)
        except BaseException:
            for plugin_id in reversed(done):
                self._unload_again(plugin_id)
            for arrival in arrivals:
                arrival.put_back()
            raise
        return done

    def _unload_again(self, plugin_id: str) -> None:
        """Takes a plugin of a batch that failed away, with what others have built on it meanwhile."""
        try:
            if self.get(plugin_id) is not None:
                self.unregister(plugin_id, cascade=True)
        except (PluginError, RegistryError) as error:  # what the batch failed for is told, this is logged
            report(plugin_id, "unloading it again", [error])

    def load_path(self, path: str | Path) -> list[str]:
        """Loads the plugins of a file or folder; either all of them are there afterwards, or none.

        Args:
            path: a ``.py`` file, a plugin's folder with an ``__init__.py``, or a folder of these.

        Returns:
            Their ids in the order of loading.

        Raises:
            PluginError: a file cannot be imported or ``on_load`` raised.
            RegistryError, DependencyError: see `register_all`.
        """
        arrivals: list[Arrival] = []
        try:
            for source in path_sources(path):
                arrivals.append(Arrival.of(source))
        except BaseException:
            for arrival in arrivals:
                arrival.put_back()
            raise
        return self.register_arrivals(arrivals)

    def reload(self, plugin_id: str, source: Source | None = None) -> Plugin:
        """Replaces a plugin by what its file holds now; either the new version serves afterwards, or the old one.

        The new version is loaded beside the old one, takes over what ``export_state`` gave, and every plugin that
        depends on it runs its ``on_load`` again; then all swap at once, and the old version's ``on_unload`` runs.

        Args:
            plugin_id: which.
            source: where to take the new version from instead.

        Returns:
            The new version's plugin.

        Raises:
            RegistryError: there is none of this id, it was handed over by code, or it is coming or going just now.
            PluginError: the new version could not be prepared; the old one serves, untouched.
        """
        from spiral.plugin.reload import reload_plugin

        return reload_plugin(self, plugin_id, source)

    @contextmanager
    def reloading(self, plugin_id: str) -> Iterator[list[str]]:
        """Keeps a plugin and those that depend on it from going meanwhile; gives the dependents in loading order."""
        with self._lock:
            there = self.nodes()
            order: list[str] = []
            _dependents_first(plugin_id, there, order)
            for each in order:
                if each in self._leaving or each in self._arriving:
                    raise RegistryError(f"plugin {each!r}: is being loaded, reloaded or unloaded by another call.")
            self._arriving.update({each: there[each] for each in order})
        try:
            yield order[-2::-1]
        finally:
            with self._lock:
                for each in order:
                    del self._arriving[each]

    # ------------------------------------------------------------ going
    def unregister(self, plugin_id: str, *, cascade: bool = False) -> None:
        """Unloads a plugin and takes back whatever it has added.

        Args:
            plugin_id: which.
            cascade: whether the plugins that need it go first; otherwise they are a reason to refuse.

        Raises:
            RegistryError: there is none of this id, or others need it.
            PluginError: ``on_unload`` raised; the plugin is gone all the same.
        """
        failures: dict[str, list[Exception]] = {}
        left = self._departing(plugin_id, cascade)
        try:
            while left:
                raised = self._unload(each := left.pop(0))
                if raised:
                    failures[each] = raised
        finally:
            with self._lock:  # after an interrupt: they stay, and can be asked to go again
                self._leaving.difference_update(left)
        if failures:
            text = "; ".join(f"{each}: {shown(error)}" for each, errors in failures.items() for error in errors)
            first = next(iter(failures.values()))[0]
            raise PluginError(f"plugin {plugin_id!r}: was unloaded, but this was raised on the way: {text}.") from first

    def _departing(self, plugin_id: str, cascade: bool) -> list[str]:
        """The ids that go, dependents first; marked as leaving."""
        with self._lock:
            self.loaded(plugin_id)
            there = {**self.nodes(), **self._arriving}
            order: list[str] = []
            _dependents_first(plugin_id, there, order)
            arriving = [each for each in order if each in self._arriving]
            if arriving:
                whom = "it is" if arriving[0] == plugin_id else f"{arriving[0]!r}, which needs it, is"
                raise RegistryError(f"plugin {plugin_id!r}: {whom} being loaded or reloaded by another call.")
            leaving = [each for each in order if each in self._leaving]
            if leaving:  # its on_unload may still use what would go here
                whom = "it is" if leaving[0] == plugin_id else f"{leaving[0]!r}, which needs it, is"
                raise RegistryError(f"plugin {plugin_id!r}: {whom} being unloaded by another call.")
            if len(order) > 1 and not cascade:
                needed = ", ".join(repr(each) for each in order[:-1])
                raise RegistryError(
                    f"plugin {plugin_id!r}: is needed by {needed}; unregister these first, or pass cascade=True."
                )
            self._leaving.update(order)
            return order

    def _unload(self, plugin_id: str) -> list[Exception]:
        """Unloads one plugin whatever it raises; gives what it raised."""
        found = self.loaded(plugin_id)
        failures: list[Exception] = []
        try:
            try:
                failures += say_goodbye(found)
            finally:
                failures += found.ledger.undo_all()
        finally:
            with self._lock:
                self._leaving.discard(plugin_id)
            self.events.publish(PluginUnloaded(plugin_id))
        return failures

    def initialize_all(self) -> list[str]:
        """Finds the installed plugins (entry points, ``SPIRAL_PLUGIN_PATH``) and loads them, dependencies first.

        A plugin that cannot be imported or loaded is put into quarantine with its traceback, see
        `spiral.plugin.loading`; it keeps neither the others nor the program from running. Later calls load what
        is new. Publishes `SystemInit` the first time.

        Returns:
            The ids that were loaded by this call.
        """
        from spiral.plugin.loading import load_installed

        done = load_installed(self)
        with self._lock:
            first, self._initialized = not self._initialized, True
        if first:
            self.events.publish(SystemInit())
        return done

    def shutdown(self) -> ShutdownReport:
        """Unloads every plugin, dependents first; one that raises does not stop the rest.

        A plugin that another call is loading or reloading stays, and is reported.
        """
        self.events.publish(SystemShutdown())
        unloaded: list[str] = []
        failures: dict[str, tuple[Exception, ...]] = {}
        graph = self.dependency_graph()
        order = dependencies_first(graph)
        for plugin_id in [*(each for each in graph if each not in order), *reversed(order)]:
            with self._lock:
                if plugin_id not in self._plugins or plugin_id in self._leaving:
                    continue  # another thread was faster, or it went with the plugin that had registered it
                if plugin_id in self._arriving:
                    busy = RegistryError(
                        f"plugin {plugin_id!r}: is being loaded or reloaded by another call, and stays."
                    )
                    failures[plugin_id] = (busy,)
                    report(plugin_id, "shutdown", failures[plugin_id])
                    continue
                self._leaving.add(plugin_id)
            raised = self._unload(plugin_id)
            report(plugin_id, "on_unload", raised)
            unloaded.append(plugin_id)
            if raised:
                failures[plugin_id] = tuple(raised)
        with self._lock:
            self._initialized = False
            self.known_sources.clear()
            self.known_ids.clear()
        for name in list(self.quarantine):
            self.quarantine.remove(name)
        if self is _global:
            load_again()  # backends are plugins, too: the next op finds them
        return ShutdownReport(tuple(unloaded), failures)


def _provider(requirement: Requirement, there: Mapping[str, Node]) -> str | None:
    """Who satisfies a requirement: the plugin of that id, or the first that provides it, in an allowed version."""

    def fits(version: str) -> bool:
        return not requirement.specifier or satisfies(version, requirement.specifier)

    wanted = requirement.plugin_id
    if wanted in there and fits(there[wanted].version):
        return wanted
    for node in there.values():
        if any(provided == wanted and fits(version) for provided, version in node.provides):
            return node.id
    return None


def _dependents_first(plugin_id: str, there: Mapping[str, Node], order: list[str]) -> None:
    for node in there.values():
        needs = any(_provider(r, there) == plugin_id for r in node.requirements)
        if needs and node.id not in order and node.id != plugin_id:
            _dependents_first(node.id, there, order)
    if plugin_id not in order:
        order.append(plugin_id)


_global: PluginRegistry | None = None
_global_lock = threading.Lock()


def global_registry() -> PluginRegistry:
    """The process's registry; asking for it loads nothing."""
    global _global
    with _global_lock:
        if _global is None:
            _global = PluginRegistry._global()
        return _global


def init_plugin_system() -> PluginRegistry:
    """The process's registry with every installed plugin loaded; a second call loads what is new.

    Example:
        >>> from spiral.plugin import init_plugin_system
        >>> registry = init_plugin_system()
        >>> registry.validate_dependency_graph().ok
        True
    """
    registry = global_registry()
    registry.initialize_all()
    return registry
