"""Loads the plugins that are installed, and those at a path; sets aside what cannot be loaded.

Installed are the bundled ones, the entry points of the group ``spiral.plugins``, and what ``SPIRAL_PLUGIN_PATH``
names. ``SPIRAL_PLUGINS=-bad`` leaves plugins out, ``SPIRAL_PLUGINS=+only`` leaves out all others.
"""

from __future__ import annotations

import logging
import os
import threading
import traceback
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from spiral.errors import ArgumentError, RegistryError, SpiralError
from spiral.ownership import spirals_own
from spiral.plugin.base import PluginError
from spiral.plugin.dependencies import DependencyError, Node, cycle_text, explained, resolve, validate
from spiral.plugin.lifecycle import Arrival, Quarantined, node_of
from spiral.plugin.registry import PluginRegistry
from spiral.plugin.sources import Source, bundled_sources, entry_point_sources, path_sources

_log = logging.getLogger("spiral")
PATH_VARIABLE = "SPIRAL_PLUGIN_PATH"
CHOICE_VARIABLE = "SPIRAL_PLUGINS"
_one_at_a_time = threading.RLock()  # who comes second finds everything loaded; a plugin may load others


@dataclass(frozen=True)
class Choice:
    """Which plugins are wanted, by name of the entry point or file, or by id.

    Example:
        >>> choice = Choice.parse("-tensorboard, -noisy")
        >>> choice.allows("tensorboard"), choice.allows("other")
        (False, True)
    """

    only: frozenset[str] = frozenset()
    without: frozenset[str] = frozenset()

    @classmethod
    def parse(cls, text: str) -> Choice:
        """The choice written as ``-bad,+only``.

        Raises:
            ArgumentError: a part has neither sign.
        """
        parts = [part.strip() for part in text.split(",") if part.strip()]
        for part in parts:
            if part[0] not in "+-" or part[1:].strip()[:1] in ("", "+", "-"):
                raise ArgumentError(
                    f"{CHOICE_VARIABLE}: expected names with a sign, such as -bad,+only; received {part!r}."
                )
        names = {sign: frozenset(p[1:].strip() for p in parts if p[0] == sign) for sign in "+-"}
        return cls(names["+"], names["-"])

    def allows(self, *names: str) -> bool:
        """Whether a plugin of these names is wanted."""
        return not self.without.intersection(names) and (not self.only or bool(self.only.intersection(names)))


def every_source() -> list[Source]:
    """Every installed plugin, wanted or not; nothing is imported.

    Raises:
        RegistryError: ``SPIRAL_PLUGIN_PATH`` names something that is not there.
    """
    sources = [*bundled_sources(), *entry_point_sources()]
    for path in os.environ.get(PATH_VARIABLE, "").split(os.pathsep):
        if path:
            sources += path_sources(path)
    return sources


def installed_sources() -> list[Source]:
    """Every installed plugin that ``SPIRAL_PLUGINS`` does not leave out by name; nothing is imported.

    Raises:
        ArgumentError: ``SPIRAL_PLUGINS`` is malformed.
        RegistryError: ``SPIRAL_PLUGIN_PATH`` names something that is not there.
    """
    choice = Choice.parse(os.environ.get(CHOICE_VARIABLE, ""))
    return [s for s in every_source() if not choice.without.intersection([s.name])]


def left_out(registry: PluginRegistry) -> list[Source]:
    """What is installed but neither loaded nor in quarantine: ``SPIRAL_PLUGINS`` leaves it out, or it was unloaded."""
    loaded = [registry.loaded(m.id).source for m in registry.list_plugins()]
    known = {s.origin for s in loaded if s is not None} | {q.origin for q in registry.quarantine.values()}
    return [s for s in every_source() if s.origin not in known]


def load_installed(registry: PluginRegistry) -> list[str]:
    """Loads what is installed and new; what fails goes into the registry's quarantine.

    Returns:
        The ids that were loaded, in order.

    Raises:
        ArgumentError: ``SPIRAL_PLUGINS`` is malformed.
        RegistryError: ``SPIRAL_PLUGIN_PATH`` names something that is not there.
    """
    return _load(registry, installed_sources())


def load_bundled(registry: PluginRegistry) -> list[str]:
    """Loads the plugins that come with spiral, as far as ``SPIRAL_PLUGINS`` allows, and no others.

    Returns:
        The ids that were loaded, in order.

    Raises:
        ArgumentError: ``SPIRAL_PLUGINS`` is malformed.
    """
    return _load(registry, bundled_sources())


def _load(registry: PluginRegistry, sources: Iterable[Source]) -> list[str]:
    with _one_at_a_time, spirals_own():  # they are not those of a plugin that asks for them while it loads
        return _load_most(registry, _arrivals(registry, sources))


def _arrivals(registry: PluginRegistry, sources: Iterable[Source]) -> list[Arrival]:
    """The plugins of sources that are new and wanted; one that cannot be imported is set aside."""
    choice = Choice.parse(os.environ.get(CHOICE_VARIABLE, ""))
    arrivals = []
    for source in sources:
        if choice.without.intersection([source.name]):
            continue
        if source.origin in registry.known_sources:
            continue
        registry.known_sources.add(source.origin)
        try:
            arrival = Arrival.of(source)
        except PluginError as error:
            _set_aside(registry, source, error)
            continue
        if choice.allows(source.name, arrival.metadata.id):
            arrivals.append(arrival)
        else:
            arrival.put_back()
            registry.known_sources.discard(source.origin)  # the next call may choose otherwise
    return arrivals


def _load_most(registry: PluginRegistry, arrivals: list[Arrival]) -> list[str]:
    """Loads those that can be; one that cannot takes only those with it that need it."""
    there = registry.nodes()
    left: dict[str, Arrival] = {}
    for arrival in arrivals:
        plugin_id = arrival.metadata.id
        loaded = registry.origin_of(plugin_id)
        if loaded == arrival.origin:  # by hand, or by another call
            arrival.put_back()
        elif plugin_id in left or loaded is not None:
            other = left[plugin_id].origin if plugin_id in left else loaded
            _refuse(registry, arrival, RegistryError(f"plugin {plugin_id!r}: comes also from {other}."))
        else:
            left[plugin_id] = arrival
    nodes = {plugin_id: node_of(a.metadata) for plugin_id, a in left.items()}
    for plugin_id, reason in impossible(nodes, there).items():
        _refuse(registry, left.pop(plugin_id), reason)
    done = []
    for plugin_id in resolve([nodes[plugin_id] for plugin_id in left], there):
        arrival = left[plugin_id]
        try:
            registry.admit(arrival)
            done.append(plugin_id)
        except SpiralError as error:  # what needs it fails as well, and says so
            _refuse(registry, arrival, error)
    return done


def impossible(nodes: Mapping[str, Node], there: Mapping[str, Node]) -> dict[str, DependencyError]:
    """Of plugins that are to load beside others, those that cannot for what they need, each with the reason.

    Who asks for what is not there is set aside, not whom it asks for; of a conflict it is the one that declares it.
    Where the one that asks is loaded already, it is the new plugin that does not suit it.
    """
    found: dict[str, DependencyError] = {}
    while True:
        left = {plugin_id: node for plugin_id, node in nodes.items() if plugin_id not in found}
        report = validate(left.values(), there)
        blamed: list[tuple[Iterable[str], object]] = [((a.plugin_id for a in m.asked_by), m) for m in report.missing]
        blamed += [(cycle, cycle_text(cycle)) for cycle in report.cycles]
        for unsatisfied in report.unsatisfied:
            askers = [asked.plugin_id for asked in unsatisfied.asked_by]
            new = [f.provider.rpartition(" ")[0] or f.plugin_id for f in unsatisfied.found]
            blamed.append(([*askers, *(new if any(asker not in left for asker in askers) else [])], unsatisfied))
        for conflict in report.conflicts:
            new = [f.provider.rpartition(" ")[0] or f.plugin_id for f in conflict.found]
            declares = conflict.declared.plugin_id
            blamed.append(([declares] if declares in left else new, conflict))
        bad = {
            plugin_id: explained([str(problem)])
            for plugin_ids, problem in blamed
            for plugin_id in plugin_ids
            if plugin_id in left
        }
        if not bad:
            return found
        found.update(bad)


def _refuse(registry: PluginRegistry, arrival: Arrival, error: SpiralError) -> None:
    arrival.put_back()
    assert arrival.source is not None
    _set_aside(registry, arrival.source, error)


def _set_aside(registry: PluginRegistry, source: Source, error: SpiralError) -> None:
    """Puts a plugin into quarantine; said once in the log, and shown by `spiral doctor`."""
    text = "".join(traceback.format_exception(error))
    name = source.name.strip()
    if not name or (name in registry.quarantine and registry.quarantine[name].origin != source.origin):
        name = f"{name} ({source.origin})".strip()  # two distributions may use one name
    registry.quarantine.put(name, Quarantined(source.name, source.origin, str(error), text))
    _log.warning("plugin %s (%s) was set aside: %s", source.name, source.origin, error)
