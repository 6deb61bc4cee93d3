"""Hot reload as a transaction: the new version is prepared beside the old one, then both swap in one assignment.

The new version's additions wait, unseen by others, until its `on_load` has run, the old version's state was handed
over, and every plugin that depends on it has run its `on_load` again. Whatever fails on the way leaves the old version
serving as if nothing had been tried.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from spiral.errors import RegistryError
from spiral.ownership import Ledger, Swap
from spiral.plugin.base import Plugin, PluginError, is_failure, shown
from spiral.plugin.context import PluginContext
from spiral.plugin.dependencies import Node, resolve
from spiral.plugin.events import PluginReloaded
from spiral.plugin.lifecycle import Loaded, load, metadata_of, node_of, report, say_goodbye
from spiral.plugin.sources import Source
from spiral.registry import Catalog, catalogs

if TYPE_CHECKING:
    from spiral.plugin.registry import PluginRegistry


@dataclass
class _Change:
    """One plugin on its way from one version, or one context, to the next."""

    old: Loaded
    new: Loaded
    attributes: _Attributes  # of a dependent's object, which both share


def reload_plugin(registry: PluginRegistry, plugin_id: str, source: Source | None = None) -> Plugin:
    """Replaces a loaded plugin by what its source gives now; see `PluginRegistry.reload`."""
    old = registry.loaded(plugin_id)
    source = source or old.source
    if source is None or not source.reloadable:
        raise RegistryError(
            f"plugin {plugin_id!r}: came from {old.origin} and has no file to be read again; "
            "only plugins loaded from a path can be reloaded."
        )
    with registry.reloading(plugin_id) as dependents:
        swap = Swap()
        there = registry.nodes()
        changes: list[_Change] = []
        ledger = Ledger(plugin_id, appears=swap)
        olds = [old, *(registry.loaded(each) for each in dependents)]
        for each in olds:
            each.ledger.disappears = swap
        try:
            changes.append(_prepare(registry, old, source, ledger, there))
            for dependent in olds[1:]:
                changes.append(_rebind(registry, dependent, swap))
        except BaseException as error:
            _abandon(olds, changes, ledger)
            if is_failure(error):
                raise PluginError(
                    f"plugin {plugin_id!r}: was not reloaded, version {old.metadata.version} goes on: {_text(error)}."
                ) from error
            raise
        swap.done = True
        _retire(changes)
    new = changes[0].new
    registry.events.publish(PluginReloaded(plugin_id, old.metadata.version, new.metadata.version))
    return new.plugin


def _prepare(
    registry: PluginRegistry, old: Loaded, source: Source, ledger: Ledger, there: Mapping[str, Node]
) -> _Change:
    """The new version, loaded where only this context sees it, with the old one's state."""
    plugin_id = old.metadata.id
    with ledger.recording():
        plugin = source.make()
        metadata = metadata_of(plugin)
        if metadata.id != plugin_id:
            raise RegistryError(f"plugin {plugin_id!r}: {source.origin} now holds the plugin {metadata.id!r}")
        resolve([node_of(metadata)], there)  # also for those that need it
        new = Loaded(plugin, metadata, PluginContext(plugin_id, registry, ledger), ledger, source, old.host)
        load(new)
        state = old.plugin.export_state()
        if state is not None:
            plugin.import_state(state)
        registry.add_loaded(new)
    return _Change(old, new, ({}, {}))


def _rebind(registry: PluginRegistry, old: Loaded, swap: Swap) -> _Change:
    """A dependent's object, loaded once more where it sees the new version."""
    ledger = Ledger(old.metadata.id, appears=swap)
    attributes = _attributes(old.plugin)
    context = PluginContext(old.metadata.id, registry, ledger)
    new = Loaded(old.plugin, old.metadata, context, ledger, old.source, old.host)
    try:
        load(new)
        with ledger.recording():
            registry.add_loaded(new)
    except BaseException:
        report(old.metadata.id, "taking back what it had registered anew", ledger.undo_all())
        _restore(old.plugin, attributes)
        raise
    return _Change(old, new, attributes)


def _abandon(olds: list[Loaded], changes: list[_Change], ledger: Ledger) -> None:
    for change in reversed(changes):
        report(change.old.metadata.id, "taking back the new version", change.new.ledger.undo_all())
        if change.new.plugin is change.old.plugin:
            _restore(change.old.plugin, change.attributes)
    report(ledger.owner, "taking back the new version", ledger.undo_all())
    for old in olds:
        old.ledger.disappears = None


def _retire(changes: list[_Change]) -> None:
    """After the swap: the old version lets go, dependents' old additions go, watchers hear of every name."""
    names = {(a.kind, a.name) for c in changes for a in (*c.old.ledger.additions(), *c.new.ledger.additions())}
    first = changes[0].old
    try:
        report(first.metadata.id, f"on_unload of version {first.metadata.version}", say_goodbye(first))
    finally:  # also after an interrupt: the new version serves
        for change in changes:
            report(change.old.metadata.id, "taking back the old version", change.old.ledger.undo_all())
            change.new.ledger.appears = None
        there = catalogs()
        for kind, name in sorted(names):
            if kind in there:
                _tell(there[kind], name)


def _tell(of: Catalog[Any], name: str) -> None:
    try:
        of.tell(name)
    except Exception as error:  # the swap is done
        report(of.owner_of(name) if name in of else name, f"a watcher of {of.kind} {name!r}", [error])


_Attributes = tuple[dict[str, Any], dict[str, Any]]


def _attributes(plugin: Plugin) -> _Attributes:
    """An object's attributes as they are now: those of its dictionary, and those in slots."""
    state = object.__getstate__(plugin)
    in_dictionary, in_slots = state if isinstance(state, tuple) else (state, None)
    return dict(in_dictionary or {}), dict(in_slots or {})


def _restore(plugin: Plugin, attributes: _Attributes) -> None:
    in_dictionary, in_slots = attributes
    vars(plugin).clear()
    vars(plugin).update(in_dictionary)
    for name in _attributes(plugin)[1].keys() - in_slots:
        object.__delattr__(plugin, name)
    for name, value in in_slots.items():
        object.__setattr__(plugin, name, value)


def _text(error: BaseException) -> str:
    return str(error).rstrip(".") if isinstance(error, (PluginError, RegistryError)) else shown(error)
