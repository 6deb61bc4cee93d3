"""A plugin on its way: waiting to be registered, loaded, set aside; and the calls of its methods that may fail."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from spiral.errors import RegistryError, received
from spiral.ownership import CORE, Ledger
from spiral.plugin.base import Plugin, PluginError, is_failure, shown
from spiral.plugin.context import PluginContext
from spiral.plugin.dependencies import Node
from spiral.plugin.metadata import PluginMetadata
from spiral.plugin.sources import Source

_log = logging.getLogger("spiral")


@dataclass
class Loaded:
    """A plugin that is loaded.

    Attributes:
        plugin: the object.
        metadata: what it said of itself when it was loaded.
        context: what it was given.
        ledger: what it has added.
        source: where it came from; None: it was handed over by code.
        host: the ledger of the plugin that has registered it; it goes with that one.
    """

    plugin: Plugin
    metadata: PluginMetadata
    context: PluginContext
    ledger: Ledger
    source: Source | None = None
    host: Ledger | None = None

    @property
    def origin(self) -> str:
        """Where it came from, for people."""
        return "code" if self.source is None else self.source.origin


@dataclass(frozen=True)
class Quarantined:
    """An installed plugin that could not be loaded.

    Attributes:
        name: of the entry point or file.
        origin: where it lives.
        reason: what was raised, in one line.
        traceback: the whole of it.
    """

    name: str
    origin: str
    reason: str
    traceback: str


@dataclass(frozen=True)
class ShutdownReport:
    """What `PluginRegistry.shutdown` did.

    Attributes:
        unloaded: ids, in the order in which they went.
        failures: by id, what ``on_unload`` or taking back raised.
    """

    unloaded: tuple[str, ...] = ()
    failures: Mapping[str, tuple[Exception, ...]] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """Whether nothing was raised."""
        return not self.failures


@dataclass
class Arrival:
    """A plugin object that waits to be registered, with what making it has added.

    Attributes:
        plugin: the object.
        source: where it comes from; None: from code.
        ledger: what making it has added.
        metadata: what it says of itself; asked once, for it might say something else the next time.

    Raises:
        RegistryError: it is no plugin, or its metadata are none.
    """

    plugin: Plugin
    source: Source | None = None
    ledger: Ledger | None = None
    metadata: PluginMetadata = field(init=False)

    def __post_init__(self) -> None:
        self.metadata = metadata_of(self.plugin)

    @classmethod
    def of(cls, source: Source) -> Arrival:
        """Makes the plugin of a source.

        Raises:
            PluginError: it cannot be imported or made; nothing that it added is left.
        """
        ledger = Ledger(source.name)
        try:
            with ledger.recording():
                return cls(source.make(), source, ledger)
        except BaseException as error:
            report(source.name, "taking back what its import had added", ledger.undo_all())
            if is_failure(error):
                raise PluginError(f"plugin {source.name!r} ({source.origin}): {shown(error)}.") from error
            raise

    @property
    def origin(self) -> str:
        """Where it comes from, for people."""
        return "code" if self.source is None else self.source.origin

    def put_back(self) -> None:
        """Takes back what making it has added."""
        if self.ledger is not None:
            report(self.origin, "taking back what its import had added", self.ledger.undo_all())


def load(found: Loaded) -> None:
    """Runs ``on_load`` with additions noted; also connects ``on_event``.

    Raises:
        PluginError: it raised anything but KeyboardInterrupt: a plugin that calls `sys.exit` ends no program.
    """
    plugin, context = found.plugin, found.context
    try:
        with found.ledger.recording():
            plugin.on_load(context)
        if type(plugin).on_event is not Plugin.on_event:
            context.subscribe("*", lambda event: plugin.on_event(event, context))
    except BaseException as error:
        if not is_failure(error):
            raise
        raise PluginError(f"plugin {found.metadata.id!r}: on_load raised {shown(error)}.") from error


def say_goodbye(found: Loaded) -> list[Exception]:
    """Runs ``on_unload`` with additions noted; gives what it raised."""
    try:
        with found.ledger.recording():
            found.plugin.on_unload(found.context)
    except Exception as error:
        return [error]
    except BaseException as error:
        if not is_failure(error):
            raise
        return [PluginError(f"plugin {found.metadata.id!r}: on_unload raised {shown(error)}.")]
    return []


def metadata_of(plugin: Any) -> PluginMetadata:
    """A plugin's metadata, checked.

    Raises:
        RegistryError: it is no plugin, or its ``metadata()`` gives something else or raises.
    """
    if not isinstance(plugin, Plugin):
        hint = " Pass an instance of it." if isinstance(plugin, type) and issubclass(plugin, Plugin) else ""
        raise RegistryError(f"plugin: expected an object of a Plugin subclass; received {received(plugin)}.{hint}")
    try:
        metadata = plugin.metadata()
    except RegistryError:
        raise
    except BaseException as error:
        if not is_failure(error):
            raise
        raise RegistryError(f"plugin {type(plugin).__name__}: metadata() raised {shown(error)}.") from error
    if not isinstance(metadata, PluginMetadata):
        raise RegistryError(
            f"plugin {type(plugin).__name__}: metadata() must return a PluginMetadata; received {received(metadata)}."
        )
    if metadata.id == CORE:
        raise RegistryError(f"plugin {CORE!r}: is the owner of what spiral itself brings; choose another id.")
    return metadata


def node_of(metadata: PluginMetadata) -> Node:
    """What dependency resolution needs to know of a plugin."""
    return Node(metadata.id, metadata.version, metadata.dependencies, metadata.conflicts, metadata.provides)


def report(plugin_id: str, what: str, failures: Iterable[Exception]) -> None:
    """Logs what was raised where nobody can be told by an exception."""
    for error in failures:
        _log.warning("plugin %s: %s raised %s", plugin_id, what, shown(error), exc_info=error)
